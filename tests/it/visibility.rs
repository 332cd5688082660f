//! Attempts to learn or to take, by negotiation, what is in a cache that one has no right on. Each
//! is made twice: against what is there, and against a twin of it that nobody has ever seen. The
//! box must say the same.

use larder::formats::{CacheName, PathInfo, Sha256Hash, StorePath, StorePathHash, base32};
use larder::wire::message::{
    AdminRequest, BoxMessage, ChunkId, ChunkRef, ClientMessage, InlineChunk, Offer, PushOutcome,
};
use larder::wire::{DeviceId, Refusal};

use crate::fixture::larder::TestBox;
use crate::fixture::pushed::{frame_of, nar_of_file, signature_bytes};
use crate::fixture::raw_quic::{Heard, RawClient, RawStream, device_key};

/// How the NARs here are cut.
const CHUNK_BYTES: usize = 64 << 10;
/// Contents of a file whose NAR has eight chunks.
const BIG_BYTES: usize = 500_000;
/// The private cache with the secret, and a name of the same length that is no cache's.
const VAULT: &str = "vault";
const NOWHERE: &str = "tluav";
/// The private cache of those who must not know.
const OWN: &str = "own";

/// A path as a client has it.
#[derive(Clone)]
struct TestPath {
    info: PathInfo,
    chunks: Vec<(ChunkRef, bytes::Bytes)>,
}

impl TestPath {
    fn new(name: &str, contents: &[u8]) -> Self {
        let nar = nar_of_file(contents);
        let chunk = |raw: &[u8]| {
            let id = ChunkId(*blake3::hash(raw).as_bytes());
            (ChunkRef { id, raw_len: u32::try_from(raw.len()).unwrap() }, frame_of(raw))
        };
        let info = PathInfo {
            store_path: store_path(name),
            nar_hash: Sha256Hash::of(&nar),
            nar_size: u64::try_from(nar.len()).unwrap(),
            references: Vec::new(),
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        };
        Self { info, chunks: nar.chunks(CHUNK_BYTES).map(chunk).collect() }
    }

    fn named(&self, name: &str) -> Self {
        let mut path = self.clone();
        path.info.store_path = store_path(name);
        path
    }

    fn refers_to(mut self, path: &TestPath) -> Self {
        self.info.references = vec![path.info.store_path.clone()];
        self
    }

    /// The same facts, with frames of other bytes.
    fn with_frames_of(mut self, other: &TestPath) -> Self {
        for ((_, frame), (_, others)) in self.chunks.iter_mut().zip(&other.chunks) {
            *frame = others.clone();
        }
        self
    }

    fn hash(&self) -> StorePathHash {
        self.info.store_path.hash()
    }

    fn offer(&self, cache: &str, inline: Vec<InlineChunk>) -> ClientMessage {
        let device_signature = signature_bytes(&device_key(), &self.info.fingerprint());
        let offer = Offer { info: self.info.clone(), device_signature };
        ClientMessage::Offer { cache: cache_name(cache), offer, inline }
    }

    fn inline_offer(&self, cache: &str) -> ClientMessage {
        let inline = self
            .chunks
            .iter()
            .map(|(chunk, frame)| InlineChunk { chunk: *chunk, frame: frame.clone() });
        self.offer(cache, inline.collect())
    }

    fn batch(&self) -> ClientMessage {
        ClientMessage::Batch {
            number: 0,
            chunks: self.chunks.iter().map(|(chunk, _)| *chunk).collect(),
        }
    }
}

fn store_path(name: &str) -> StorePath {
    let hash = base32::encode(&Sha256Hash::of(name.as_bytes()).as_bytes()[..20]);
    format!("{hash}-{name}").parse().unwrap()
}

fn cache_name(name: &str) -> CacheName {
    name.parse().unwrap()
}

/// Bytes that do not compress, others for each seed.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// Somebody with a token, connected.
struct Somebody {
    client: RawClient,
    token: String,
    _control: RawStream,
}

impl Somebody {
    async fn with(larder: &TestBox, token: &str) -> Self {
        let device_id: DeviceId = larder.device_id.parse().unwrap();
        let (client, control) = RawClient::greeted(larder.quic, device_id, token).await;
        Self { client, token: token.to_owned(), _control: control }
    }

    /// Everything that the box says to a push, if what it asks for is sent, or (not `sends`) if
    /// the push is given up instead.
    async fn push(&self, cache: &str, path: &TestPath, sends: bool) -> Vec<BoxMessage> {
        let mut stream = self.begin(cache, path).await;
        let mut said = Vec::new();
        loop {
            let Heard::Message(message) = stream.hear().await else { return said };
            match &message {
                BoxMessage::Need { batch, indexes } if sends => {
                    for index in indexes {
                        let (_, frame) = &path.chunks[usize::try_from(*index).unwrap()];
                        let frame = frame.clone();
                        stream
                            .say(&ClientMessage::Chunk { batch: *batch, index: *index, frame })
                            .await;
                    }
                }
                BoxMessage::Need { .. } => {
                    stream.say(&ClientMessage::Abort { reason: "a test".to_owned() }).await;
                }
                BoxMessage::Taken { .. } => stream.say(&ClientMessage::Finish).await,
                _ => {}
            }
            said.push(message);
        }
    }

    /// Offers a path and names its chunks.
    async fn begin(&self, cache: &str, path: &TestPath) -> RawStream {
        let mut stream = self.client.open().await;
        stream.say(&path.offer(cache, Vec::new())).await;
        stream.say(&path.batch()).await;
        stream
    }

    async fn ask(&self, message: &ClientMessage) -> BoxMessage {
        let mut stream = self.client.open().await;
        stream.say(message).await;
        match stream.hear().await {
            Heard::Message(answer) => answer,
            other => panic!("no answer: {other:?}"),
        }
    }

    async fn lacks(&self, cache: &str, path: &TestPath) -> BoxMessage {
        let (cache, hashes) = (cache_name(cache), vec![path.hash()]);
        self.ask(&ClientMessage::Missing { cache, hashes }).await
    }

    async fn administer(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        let (path, body) = (format!("/api/larder/v1/{path}"), body.to_string().into_bytes());
        let request = AdminRequest { method: "POST".to_owned(), path, body };
        match self.ask(&ClientMessage::Admin(request)).await {
            BoxMessage::Admin(answer) if answer.status == 201 => {
                serde_json::from_slice(&answer.body).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    async fn token(&self, grants: &[(&str, &str)]) -> String {
        let grant =
            |(cache, right): &(&str, &str)| serde_json::json!({"cache": cache, "right": right});
        let caches: Vec<_> = grants.iter().map(grant).collect();
        let made = self.administer("tokens", serde_json::json!({ "caches": caches })).await;
        made["secret"].as_str().unwrap().to_owned()
    }
}

/// A box with the private caches `vault` and `own`, the secret in `vault`, and people.
struct Scene {
    larder: TestBox,
    owner: Somebody,
    /// May read and write the vault.
    keeper: Somebody,
    /// May read and write `own`, and nothing of the vault.
    prober: Somebody,
    secret: TestPath,
    small_secret: TestPath,
}

impl Scene {
    async fn new() -> Self {
        let larder = TestBox::start();
        let owner = Somebody::with(&larder, &larder.token).await;
        for name in [VAULT, OWN] {
            owner.administer("caches", serde_json::json!({"name": name, "public": false})).await;
        }
        let keeper = Somebody::with(&larder, &owner.token(&[(VAULT, "readwrite")]).await).await;
        let prober = Somebody::with(&larder, &owner.token(&[(OWN, "readwrite")]).await).await;
        let secret = TestPath::new("secret", &noise(1, BIG_BYTES));
        let small_secret = TestPath::new("small-secret", &noise(2, 1000));
        let said = keeper.push(VAULT, &secret, true).await;
        assert_eq!(said, sent_whole(PushOutcome::Stored));
        let said = keeper.ask(&small_secret.inline_offer(VAULT)).await;
        assert_eq!(said, BoxMessage::Done(PushOutcome::Stored));
        Self { larder, owner, keeper, prober, secret, small_secret }
    }

    /// Nothing that was tried has brought the secret where the prober can read it.
    async fn assert_kept(&self) {
        for secret in [&self.secret, &self.small_secret] {
            let lacks = BoxMessage::Missing { indexes: vec![0] };
            assert_eq!(self.owner.lacks(OWN, secret).await, lacks, "{}", secret.info.store_path);
            let lacks = BoxMessage::Missing { indexes: Vec::new() };
            assert_eq!(self.owner.lacks(VAULT, secret).await, lacks);
        }
        let named = self.secret.named("taken");
        assert_eq!(self.owner.lacks(OWN, &named).await, BoxMessage::Missing { indexes: vec![0] });
    }
}

/// What is said to a push of eight chunks of which none is known.
fn sent_whole(outcome: PushOutcome) -> Vec<BoxMessage> {
    let need = BoxMessage::Need { batch: 0, indexes: (0..8).collect() };
    vec![need, BoxMessage::Taken { batch: 0 }, BoxMessage::Done(outcome)]
}

/// What is said to a push that is given up when the box asks for all.
fn asked_for_all() -> Vec<BoxMessage> {
    sent_whole(PushOutcome::Stored)[..1].to_vec()
}

/// A path like the secret that nobody has.
fn twin(seed: u8) -> TestPath {
    TestPath::new(&format!("twin-{seed}"), &noise(seed, BIG_BYTES))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn naming_a_secret_is_as_naming_what_nobody_has() {
    let scene = Scene::new().await;
    let (prober, secret) = (&scene.prober, &scene.secret);
    // Under its own name, with the keeper's own offer; and under another.
    for path in [secret.clone(), secret.named("taken"), twin(10), twin(11)] {
        assert_eq!(
            prober.push(OWN, &path, false).await,
            asked_for_all(),
            "{}",
            path.info.store_path
        );
        assert_eq!(prober.push(OWN, &path, false).await, asked_for_all(), "asked once more");
    }
    // Half of it known, half new.
    for (seed, half) in [(20, secret.clone()), (21, twin(12))] {
        let mut path = twin(seed);
        path.chunks[..4].clone_from_slice(&half.chunks[..4]);
        assert_eq!(prober.push(OWN, &path, false).await, asked_for_all());
    }
    scene.assert_kept().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_under_the_ids_of_a_secret_are_refused_as_always() {
    let scene = Scene::new().await;
    let prober = &scene.prober;
    let mut answers = Vec::new();
    for path in [scene.secret.clone(), twin(10)] {
        let said = prober.push(OWN, &path.with_frames_of(&twin(11)), true).await;
        assert!(matches!(said.last(), Some(BoxMessage::Refused(_))), "{said:?}");
        answers.push(said);
    }
    assert_eq!(answers[0], answers[1]);
    let mut answers = Vec::new();
    let small = |seed| TestPath::new(&format!("small-{seed}"), &noise(seed, 1000));
    for path in [scene.small_secret.clone(), small(12)] {
        let wrong = path.clone().with_frames_of(&small(13)).inline_offer(OWN);
        let mut empty = path.clone();
        empty.chunks[0].1 = bytes::Bytes::from_static(b"x");
        let empty = empty.inline_offer(OWN);
        answers.push((prober.ask(&wrong).await, prober.ask(&empty).await));
    }
    assert_eq!(answers[0], answers[1]);
    assert!(matches!(answers[0], (BoxMessage::Refused(_), BoxMessage::Refused(_))), "{answers:?}");
    scene.assert_kept().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_without_a_right_answers_as_one_that_is_not_there() {
    let scene = Scene::new().await;
    let (prober, secret) = (&scene.prober, &scene.secret);
    let refused = |answer: BoxMessage, name: &str| match answer {
        BoxMessage::Refused(Refusal { code, sentence }) => (code, sentence.replace(name, "CACHE")),
        other => panic!("{other:?}"),
    };
    let mut answers = Vec::new();
    for name in [VAULT, NOWHERE] {
        answers.push([
            refused(prober.lacks(name, secret).await, name),
            refused(prober.ask(&secret.offer(name, Vec::new())).await, name),
            refused(prober.ask(&scene.small_secret.inline_offer(name)).await, name),
        ]);
    }
    assert_eq!(answers[0], answers[1]);
    // In the own cache the secret's name is one that is not there.
    for path in [secret, &twin(10)] {
        assert_eq!(prober.lacks(OWN, path).await, BoxMessage::Missing { indexes: vec![0] });
    }
    scene.assert_kept().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_all_bytes_themselves_is_told_nothing_while_sending_them() {
    let scene = Scene::new().await;
    let prober = &scene.prober;
    for path in [scene.secret.named("mine"), twin(10)] {
        // Broken off, resumed, and pushed again.
        let mut stream = prober.begin(OWN, &path).await;
        assert!(matches!(stream.hear().await, Heard::Message(BoxMessage::Need { .. })));
        for (index, (_, frame)) in (0..).zip(&path.chunks) {
            stream.say(&ClientMessage::Chunk { batch: 0, index, frame: frame.clone() }).await;
        }
        assert!(matches!(stream.hear().await, Heard::Message(BoxMessage::Taken { .. })));
        stream.reset();
        let resumed = [BoxMessage::Taken { batch: 0 }, BoxMessage::Done(PushOutcome::Stored)];
        assert_eq!(prober.push(OWN, &path, true).await, resumed, "{}", path.info.store_path);
        let again = [BoxMessage::Done(PushOutcome::Known)];
        assert_eq!(prober.push(OWN, &path, true).await, again);
    }
    // A secret's name is free, and what refers to it waits for it, as for any other.
    let squatting = twin(11).named("secret");
    assert_eq!(prober.push(OWN, &squatting, true).await, sent_whole(PushOutcome::Stored));
    for (seed, reference) in [(12, &scene.small_secret), (13, &twin(14))] {
        let path = twin(seed).refers_to(reference);
        let missing = vec![reference.info.store_path.base_name().to_owned()];
        let expected = sent_whole(PushOutcome::Hidden { missing });
        assert_eq!(prober.push(OWN, &path, true).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_push_the_same_do_not_notice_each_other() {
    let mut scene = Scene::new().await;
    let path = twin(10);
    // The keeper is half-way: the chunks are in, the path is not.
    let mut stream = scene.keeper.begin(VAULT, &path).await;
    assert!(matches!(stream.hear().await, Heard::Message(BoxMessage::Need { .. })));
    for (index, (_, frame)) in (0..).zip(&path.chunks) {
        stream.say(&ClientMessage::Chunk { batch: 0, index, frame: frame.clone() }).await;
    }
    assert!(matches!(stream.hear().await, Heard::Message(BoxMessage::Taken { .. })));

    assert_eq!(scene.prober.push(OWN, &path, false).await, asked_for_all());
    assert_eq!(scene.prober.push(OWN, &path, true).await, sent_whole(PushOutcome::Stored));

    stream.reset();
    let resumed = [BoxMessage::Taken { batch: 0 }, BoxMessage::Done(PushOutcome::Stored)];
    assert_eq!(scene.keeper.push(VAULT, &path, false).await, resumed, "nothing was taken over");

    // The same across a restart, when all that is known is in the index.
    let other = twin(11);
    let mut stream = scene.keeper.begin(VAULT, &other).await;
    assert!(matches!(stream.hear().await, Heard::Message(BoxMessage::Need { .. })));
    for (index, (_, frame)) in (0..).zip(&other.chunks) {
        stream.say(&ClientMessage::Chunk { batch: 0, index, frame: frame.clone() }).await;
    }
    assert!(matches!(stream.hear().await, Heard::Message(BoxMessage::Taken { .. })));
    assert_eq!(scene.prober.push(OWN, &other, true).await, sent_whole(PushOutcome::Stored));
    let another = scene.owner.token(&[(VAULT, "readwrite")]).await;
    drop(stream);
    scene.larder.stop();
    scene.larder.restart();
    let another = Somebody::with(&scene.larder, &another).await;
    assert_eq!(another.push(VAULT, &other, false).await, asked_for_all());
    let keeper = Somebody::with(&scene.larder, &scene.keeper.token).await;
    assert_eq!(keeper.push(VAULT, &other, false).await, resumed, "nothing was taken over");
    let prober = Somebody::with(&scene.larder, &scene.prober.token).await;
    assert_eq!(prober.push(OWN, &scene.secret, false).await, asked_for_all());
    assert_eq!(prober.push(OWN, &twin(12), false).await, asked_for_all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_at_the_same_time_all_send_their_own() {
    let scene = Scene::new().await;
    for seed in 30..34 {
        let path = twin(seed);
        let (keepers, probers) = tokio::join!(
            scene.keeper.push(VAULT, &path, true),
            scene.prober.push(OWN, &path, true)
        );
        assert_eq!(keepers, sent_whole(PushOutcome::Stored));
        assert_eq!(probers, sent_whole(PushOutcome::Stored));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sees_both_is_told_that_the_box_has_it() {
    let scene = Scene::new().await;
    let both = scene.owner.token(&[(VAULT, "read"), (OWN, "readwrite")]).await;
    let both = Somebody::with(&scene.larder, &both).await;
    for (number, somebody) in [(1, &both), (2, &scene.owner)] {
        let mut path = twin(40 + number);
        path.chunks[..4].clone_from_slice(&scene.secret.chunks[..4]);
        let need = BoxMessage::Need { batch: 0, indexes: (4..8).collect() };
        assert_eq!(somebody.push(OWN, &path, false).await, [need]);
        let path = scene.secret.named(&format!("copy-{number}"));
        assert_eq!(somebody.push(OWN, &path, false).await, [BoxMessage::Done(PushOutcome::Stored)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_only_be_written_cannot_be_brought_to_where_it_can_be_read() {
    let scene = Scene::new().await;
    let writer = scene.owner.token(&[(VAULT, "write"), (OWN, "readwrite")]).await;
    let writer = Somebody::with(&scene.larder, &writer).await;
    for path in [scene.secret.named("taken"), twin(10)] {
        assert_eq!(writer.push(OWN, &path, false).await, asked_for_all());
    }
    let known = [BoxMessage::Done(PushOutcome::Known)];
    assert_eq!(writer.push(VAULT, &scene.secret, false).await, known);
    scene.assert_kept().await;
}
