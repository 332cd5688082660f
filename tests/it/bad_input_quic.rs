//! Clients that break the protocol, against a real box: each is refused in words, nothing becomes
//! visible, and the box goes on.

use bytes::Bytes;
use larder::formats::signature::SecretKey;
use larder::formats::{CacheName, PathInfo, Sha256Hash, StorePathHash, base32};
use larder::wire::framing::encode;
use larder::wire::hello::{Capabilities, Hello, ProtocolRange};
use larder::wire::message::{
    AdminRequest, BoxMessage, ChunkId, ChunkRef, ClientMessage, InlineChunk, Offer, PushOutcome,
};
use larder::wire::{DeviceId, RefusalCode, TokenText};

use crate::fixture::larder::TestBox;
use crate::fixture::pushed::{frame_of, nar_of_file, push_word, signature_bytes};
use crate::fixture::raw_quic::{
    Heard, RawClient, RawStream, device_key, framed, hello, with_length,
};
use crate::fixture::served::get;

fn device_id(larder: &TestBox) -> DeviceId {
    larder.device_id.parse().unwrap()
}

async fn greeted(larder: &TestBox) -> (RawClient, RawStream) {
    RawClient::greeted(larder.quic, device_id(larder), &larder.token).await
}

/// A NAR of one file, and what goes with it.
struct TinyPath {
    info: PathInfo,
    nar: Vec<u8>,
}

impl TinyPath {
    fn new(contents: &[u8]) -> Self {
        Self::of_nar(nar_of_file(contents))
    }

    fn of_nar(nar: Vec<u8>) -> Self {
        let hash = base32::encode(&Sha256Hash::of(&nar).as_bytes()[..20]);
        let info = PathInfo {
            store_path: format!("{hash}-tiny").parse().unwrap(),
            nar_hash: Sha256Hash::of(&nar),
            nar_size: u64::try_from(nar.len()).unwrap(),
            references: Vec::new(),
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        };
        Self { info, nar }
    }

    fn chunk(&self) -> ChunkRef {
        let id = ChunkId(*blake3::hash(&self.nar).as_bytes());
        ChunkRef { id, raw_len: u32::try_from(self.nar.len()).unwrap() }
    }

    fn frame(&self) -> Bytes {
        frame_of(&self.nar)
    }

    fn offer(&self) -> ClientMessage {
        self.offer_with(self.chunk(), self.frame())
    }

    fn offer_with(&self, chunk: ChunkRef, frame: Bytes) -> ClientMessage {
        self.offer_of(vec![InlineChunk { chunk, frame }], &device_key())
    }

    fn offer_of(&self, inline: Vec<InlineChunk>, key: &SecretKey) -> ClientMessage {
        let device_signature = signature_bytes(key, &self.info.fingerprint());
        let offer = Offer { info: self.info.clone(), device_signature };
        ClientMessage::Offer { cache: main(), offer, inline }
    }

    fn is_served(&self, larder: &TestBox) -> bool {
        get(&larder.url(&format!("main/{}.narinfo", self.info.store_path.hash()))).is_some()
    }
}

fn main() -> CacheName {
    "main".parse().unwrap()
}

/// Pushes on a fresh stream and gives the answer.
async fn answer_to(client: &RawClient, message: &ClientMessage) -> BoxMessage {
    let mut stream = client.open().await;
    stream.say(message).await;
    stream.finish();
    match stream.hear().await {
        Heard::Message(answer) => answer,
        other => panic!("no answer: {other:?}"),
    }
}

async fn refusal_code(client: &RawClient, message: &ClientMessage) -> RefusalCode {
    match answer_to(client, message).await {
        BoxMessage::Refused(refusal) => refusal.code,
        other => panic!("not refused: {other:?}"),
    }
}

/// The box still takes pushes on the same connection.
async fn assert_goes_on(larder: &TestBox, client: &RawClient, number: u8) {
    let path = TinyPath::new(&[number; 77]);
    let done = answer_to(client, &path.offer()).await;
    assert_eq!(done, BoxMessage::Done(PushOutcome::Stored));
    assert!(path.is_served(larder));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_are_no_good_are_refused_before_anything_else() {
    let larder = TestBox::start();
    let unknown = TokenText::new(device_id(&larder), [9; 32]).to_secret_text();
    let elsewhere = TokenText::new(DeviceId([1; 20]), [9; 32]).to_secret_text();
    let longer = format!("{}0", larder.token);
    for token in ["ldr_", "hello", &unknown, &elsewhere, &longer, &larder.token[..88]] {
        let client = RawClient::connect(larder.quic, device_id(&larder)).await;
        let mut control = client.open().await;
        control.say(&hello(token)).await;
        let refusal = control.refusal().await;
        assert_eq!(refusal.code, RefusalCode::Unauthorised, "{token:?}: {refusal}");
        assert!(!refusal.sentence.contains("0000"), "the token is not repeated: {refusal}");
    }
    let (client, _control) = greeted(&larder).await;
    assert_goes_on(&larder, &client, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_one_hears_of_public_caches_and_no_more() {
    let larder = TestBox::start();
    larder.create_cache("secret", &["--private"]);
    let client = RawClient::connect(larder.quic, device_id(&larder)).await;
    let mut control = client.open().await;
    control.say(&hello("")).await;
    let Heard::Message(BoxMessage::Welcome(welcome)) = control.hear().await else {
        panic!("no welcome")
    };
    let [access] = &*welcome.caches else { panic!("{:?}", welcome.caches) };
    assert_eq!(access.name, main());
    assert!(access.is_public && access.may_read && !access.may_write && !welcome.personal);
    assert_eq!(access.public_keys, std::slice::from_ref(&larder.public_key));
    assert_eq!(welcome.http_port, larder.http.port());
    assert!(matches!(control.hear().await, Heard::Broken | Heard::End), "it is told more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greeting_that_is_none_is_refused() {
    let larder = TestBox::start();
    let future = ClientMessage::Hello(Hello {
        protocols: ProtocolRange { lowest: 40, highest: 41 },
        agent: "from the future".to_owned(),
        token: larder.token.clone().into(),
        device_key: [0; 32],
        capabilities: Capabilities::OURS,
    });
    let finish = encode(&ClientMessage::Finish).unwrap();
    for (bytes, code) in [
        (encode(&future).unwrap(), RefusalCode::UnsupportedVersion),
        (finish, RefusalCode::BadRequest),
        (with_length(4097, b""), RefusalCode::TooLarge),
        (framed(&[99]), RefusalCode::UnknownMessage),
        (framed(b""), RefusalCode::BadRequest),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), RefusalCode::TooLarge),
    ] {
        let client = RawClient::connect(larder.quic, device_id(&larder)).await;
        assert_eq!(client.refusal_of(&bytes).await.code, code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_none_are_refused_and_the_connection_goes_on() {
    let larder = TestBox::start();
    let (client, _control) = greeted(&larder).await;
    let missing = |hashes| ClientMessage::Missing { cache: main(), hashes };
    let too_many = missing(vec![StorePathHash::from_bytes([0; 20]); 32_769]);
    let finish = encode(&ClientMessage::Finish).unwrap();
    let mut trailing = encode(&missing(Vec::new())).unwrap();
    trailing[0] += 1;
    trailing.push(0);
    for (bytes, code) in [
        (with_length(u32::MAX, b""), RefusalCode::TooLarge),
        (with_length((1 << 20) + 1, &[1; 100]), RefusalCode::TooLarge),
        (framed(&[20]), RefusalCode::UnknownMessage),
        (framed(&[0xff, 0xff, 0xff, 0xff, 0x0f]), RefusalCode::UnknownMessage),
        (framed(&[1, 0xff, 0xff, 0xff]), RefusalCode::BadRequest),
        (framed(&[2, 4, b'm', b'a', b'i', b'n']), RefusalCode::BadRequest),
        (framed(&[1, 2, b'.', b'.', 0]), RefusalCode::BadRequest),
        (trailing, RefusalCode::BadRequest),
        (encode(&too_many).unwrap(), RefusalCode::BadRequest),
        (finish, RefusalCode::BadRequest),
        (encode(&hello(&larder.token)).unwrap(), RefusalCode::BadRequest),
    ] {
        assert_eq!(
            client.refusal_of(&bytes).await.code,
            code,
            "{:?}",
            &bytes[..bytes.len().min(20)]
        );
    }
    let nowhere = "nowhere".parse().unwrap();
    let elsewhere = ClientMessage::Missing { cache: nowhere, hashes: Vec::new() };
    assert_eq!(refusal_code(&client, &elsewhere).await, RefusalCode::NoSuchCache);
    assert_goes_on(&larder, &client, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_not_one_plain_frame_of_the_chunk_are_refused() {
    let larder = TestBox::start();
    let (client, _control) = greeted(&larder).await;
    let path = TinyPath::new(b"what is pushed");
    let (frame, chunk) = (path.frame(), path.chunk());
    let twice = [&frame[..], &frame[..]].concat();
    let halves = [frame_of(&path.nar[..40]), frame_of(&path.nar[40..])].concat();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0][..], &frame].concat();
    let mut wide = Vec::new();
    let mut encoder = zstd::stream::Encoder::new(&mut wide, 3).unwrap();
    encoder.window_log(22).unwrap();
    std::io::Write::write_all(&mut encoder, &path.nar).unwrap();
    encoder.finish().unwrap();
    // RFC 8878, section 3.1.1.1: the flag in the descriptor, then a dictionary ID of one byte.
    let with_dictionary = [&frame[..4], &[frame[4] | 1, 77], &frame[5..]].concat();
    let bomb = frame_of(&vec![0; 200_000]);
    for (what, frame) in [
        ("two frames", twice),
        ("two halves", halves),
        ("a skippable frame before it", skippable),
        ("a wide window", wide),
        ("a dictionary", with_dictionary),
        ("a bomb", bomb.to_vec()),
        ("cut short", frame[..frame.len() - 1].to_vec()),
        ("a byte behind it", [&frame[..], &[0]].concat()),
        ("no frame", path.nar.clone()),
    ] {
        let code = refusal_code(&client, &path.offer_with(chunk, frame.into())).await;
        assert_eq!(code, RefusalCode::BadFrame, "{what}");
        assert!(!path.is_served(&larder), "{what}");
    }
    let mut other = path.nar.clone();
    other[120] ^= 1;
    let code = refusal_code(&client, &path.offer_with(chunk, frame_of(&other))).await;
    assert_eq!(code, RefusalCode::WrongChunk);
    assert!(!path.is_served(&larder));
    assert_eq!(answer_to(&client, &path.offer()).await, BoxMessage::Done(PushOutcome::Stored));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_that_do_not_fit_the_nar_are_refused() {
    let larder = TestBox::start();
    let (client, _control) = greeted(&larder).await;

    let mut wrong_hash = TinyPath::new(b"one");
    wrong_hash.info.nar_hash = Sha256Hash::of(b"another");
    assert_eq!(refusal_code(&client, &wrong_hash.offer()).await, RefusalCode::WrongNarHash);

    let mut too_small = TinyPath::new(b"two");
    too_small.info.nar_size -= 1;
    assert_eq!(refusal_code(&client, &too_small.offer()).await, RefusalCode::WrongNarSize);
    let mut too_big = TinyPath::new(b"three");
    too_big.info.nar_size += 1;
    assert_eq!(refusal_code(&client, &too_big.offer()).await, RefusalCode::WrongNarSize);

    let truncated = nar_of_file(b"four");
    let truncated = TinyPath::of_nar(truncated[..truncated.len() - 8].to_vec());
    assert_eq!(refusal_code(&client, &truncated.offer()).await, RefusalCode::BadNar);
    let trailing = TinyPath::of_nar([nar_of_file(b"five"), vec![0; 8]].concat());
    assert_eq!(refusal_code(&client, &trailing.offer()).await, RefusalCode::BadNar);

    let unsigned = TinyPath::new(b"six");
    let other_key = SecretKey::from_seed("device", &[6; 32]).unwrap();
    let inline = vec![InlineChunk { chunk: unsigned.chunk(), frame: unsigned.frame() }];
    let offer = unsigned.offer_of(inline, &other_key);
    assert_eq!(refusal_code(&client, &offer).await, RefusalCode::BadSignature);

    for path in [wrong_hash, too_small, too_big, truncated, trailing, unsigned] {
        assert!(!path.is_served(&larder), "{}", path.info.store_path);
    }
    assert_goes_on(&larder, &client, 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stops_half_way_leaves_nothing_visible() {
    let larder = TestBox::start();
    let (client, _control) = greeted(&larder).await;
    let path = TinyPath::new(&vec![7; 300_000]);
    let whole = encode(&path.offer_of(Vec::new(), &device_key())).unwrap();

    let mut cut = client.open().await;
    cut.say_bytes(&whole[..whole.len() / 2]).await;
    cut.finish();
    assert!(matches!(cut.hear().await, Heard::End | Heard::Broken));

    let mut ended = client.open().await;
    ended.say_bytes(&whole).await;
    ended.finish();
    assert!(matches!(ended.hear().await, Heard::End | Heard::Broken));

    let mut reset = client.open().await;
    reset.say_bytes(&whole).await;
    reset.reset();

    let mut out_of_order = client.open().await;
    out_of_order.say_bytes(&whole).await;
    out_of_order.say(&ClientMessage::Batch { number: 1, chunks: vec![path.chunk()] }).await;
    assert_eq!(out_of_order.refusal().await.code, RefusalCode::BadRequest);

    let mut unasked = client.open().await;
    unasked.say_bytes(&whole).await;
    unasked.say(&ClientMessage::Chunk { batch: 0, index: 0, frame: path.frame() }).await;
    assert_eq!(unasked.refusal().await.code, RefusalCode::BadRequest);

    let mut nothing = client.open().await;
    nothing.say_bytes(&whole).await;
    nothing.say(&ClientMessage::Finish).await;
    assert_eq!(nothing.refusal().await.code, RefusalCode::WrongNarSize, "no chunks at all");

    assert!(!path.is_served(&larder));
    assert_goes_on(&larder, &client, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clients_that_push_the_same_path_at_once_are_both_told_the_truth() {
    let larder = TestBox::start();
    let (one, _one_control) = greeted(&larder).await;
    let (two, _two_control) = greeted(&larder).await;
    for number in 0..20 {
        let path = TinyPath::new(&[number; 900]);
        let offer = path.offer();
        let (first, second) = tokio::join!(answer_to(&one, &offer), answer_to(&two, &offer));
        for answer in [first, second] {
            let good = [PushOutcome::Stored, PushOutcome::Known].map(BoxMessage::Done);
            assert!(good.contains(&answer), "{answer:?}");
        }
        assert!(path.is_served(&larder));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administration_is_not_for_everybodys_paths() {
    let larder = TestBox::start();
    let (client, _control) = greeted(&larder).await;
    for path in ["", "nowhere", "/../../etc/passwd", "/api/larder/v1/no-such-thing", "http://x/"] {
        let request = AdminRequest { method: "GET".into(), path: path.into(), body: Vec::new() };
        match answer_to(&client, &ClientMessage::Admin(request)).await {
            BoxMessage::Admin(response) => {
                assert!((400..500).contains(&response.status), "{path}: {}", response.status);
            }
            BoxMessage::Refused(refusal) => {
                assert_eq!(refusal.code, RefusalCode::BadRequest, "{path}");
            }
            other => panic!("{path}: {other:?}"),
        }
    }
    assert_goes_on(&larder, &client, 9).await;
}

/// A NAR of a directory whose entries are symlinks with these names, in this order.
fn nar_of_names(names: &[&[u8]]) -> Vec<u8> {
    let mut nar = Vec::new();
    let mut say = |words: &[&[u8]]| words.iter().for_each(|word| push_word(&mut nar, word));
    say(&[b"nix-archive-1", b"(", b"type", b"directory"]);
    for name in names {
        say(&[b"entry", b"(", b"name", name, b"node"]);
        say(&[b"(", b"type", b"symlink", b"target", b"/etc/passwd", b")", b")"]);
    }
    say(&[b")"]);
    nar
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nars_that_no_directory_can_hold_are_refused() {
    let larder = TestBox::start();
    let (client, _control) = greeted(&larder).await;
    let planted: [&[&[u8]]; 9] = [
        &[b".."],
        &[b"."],
        &[b""],
        &[b"../../etc/cron.d/x"],
        &[b"a/b"],
        &[b"/"],
        &[b"a\0b"],
        &[b"b", b"a"],
        &[b"a", b"a"],
    ];
    for names in planted {
        let path = TinyPath::of_nar(nar_of_names(names));
        assert_eq!(refusal_code(&client, &path.offer()).await, RefusalCode::BadNar, "{names:?}");
        assert!(!path.is_served(&larder), "{names:?}");
    }
    let sound = TinyPath::of_nar(nar_of_names(&[b"a", b"b"]));
    assert_eq!(answer_to(&client, &sound.offer()).await, BoxMessage::Done(PushOutcome::Stored));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_that_are_no_store_paths_are_refused() {
    let larder = TestBox::start();
    let (client, _control) = greeted(&larder).await;
    let mut path = TinyPath::new(b"refers");
    let reference = format!("{}-reference", "0".repeat(32));
    path.info.references = vec![reference.parse().unwrap()];
    let good = encode(&path.offer()).unwrap();
    let place = good.windows(reference.len()).position(|text| text == reference.as_bytes());
    for wrong in [b'/', b'\n', b' ', 0, 0xff] {
        let mut bytes = good.to_vec();
        bytes[place.unwrap() + 35] = wrong;
        let mut stream = client.open().await;
        stream.say_bytes(&bytes).await;
        stream.finish();
        assert_eq!(stream.refusal().await.code, RefusalCode::BadRequest, "{wrong}");
        assert!(!path.is_served(&larder), "{wrong}");
    }
    let hidden = PushOutcome::Hidden { missing: vec![reference] };
    assert_eq!(answer_to(&client, &path.offer()).await, BoxMessage::Done(hidden));
    assert!(!path.is_served(&larder));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_nar_under_a_visible_name_is_told_that_the_first_was_kept() {
    let larder = TestBox::start();
    let (client, _control) = greeted(&larder).await;
    let first = TinyPath::new(b"built once");
    let mut second = TinyPath::new(b"built twice");
    second.info.store_path = first.info.store_path.clone();
    assert_eq!(answer_to(&client, &first.offer()).await, BoxMessage::Done(PushOutcome::Stored));

    let answer = answer_to(&client, &second.offer()).await;

    assert_eq!(answer, BoxMessage::Done(PushOutcome::KeptFirst));
    let narinfo = get(&larder.url(&format!("main/{}.narinfo", first.info.store_path.hash())));
    let narinfo = String::from_utf8(narinfo.unwrap()).unwrap();
    assert!(narinfo.contains(&first.info.nar_hash.to_string()), "{narinfo}");
}

#[tokio::test]
async fn messages_that_stay_half_there_take_a_bounded_share_and_nobody_elses() {
    const HALF_BYTES: usize = 1_000_000;
    let larder = TestBox::start();
    let before_kib = larder.rss_anon_kib();
    let (rude, _control) = greeted(&larder).await;
    let half = with_length(1 << 20, &vec![2; HALF_BYTES]);
    let mut streams = Vec::new();
    for _ in 0..80 {
        let mut stream = rude.open().await;
        stream.say_bytes(&half).await;
        streams.push(stream);
    }

    // The last that were said found no room.
    let refusal = streams.pop().unwrap().refusal().await;

    assert_eq!(refusal.code, RefusalCode::Busy, "{refusal}");
    let grown_kib = larder.rss_anon_kib() - before_kib;
    println!("80 half messages of 1 MB: the box grew by {} MiB", grown_kib >> 10);
    assert!(grown_kib < 120 << 10, "{grown_kib} KiB");
    let (polite, _control) = greeted(&larder).await;
    let path = TinyPath::new(b"in between");
    let mut push = polite.open().await;
    push.say(&path.offer()).await;
    let done = push.hear().await;
    let is_stored = matches!(done, Heard::Message(BoxMessage::Done(PushOutcome::Stored)));
    assert!(is_stored, "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_self_signed_cache_takes_no_path_without_its_signature() {
    let larder = TestBox::start();
    let key = SecretKey::from_seed("team-1", &[8; 32]).unwrap();
    let public = key.public_key().to_string();
    larder.json(["cache", "create", "team", "--self-signed", "--public-key", &public]);
    let path = TinyPath::new(b"signed by its makers");
    let other = TinyPath::new(b"another path");
    let imposter = SecretKey::from_seed("team-1", &[9; 32]).unwrap();
    let stranger = SecretKey::from_seed("else-1", &[9; 32]).unwrap();
    let of = |key: &SecretKey, path: &TinyPath| vec![key.sign(path.info.fingerprint().as_bytes())];
    let offer = |signatures: Vec<_>| {
        let info = PathInfo { signatures, ..path.info.clone() };
        let device_signature = signature_bytes(&device_key(), &info.fingerprint());
        let inline = vec![InlineChunk { chunk: path.chunk(), frame: path.frame() }];
        let offer = Offer { info, device_signature };
        ClientMessage::Offer { cache: "team".parse().unwrap(), offer, inline }
    };
    let url = larder.url(&format!("team/{}.narinfo", path.info.store_path.hash()));
    let (client, _control) = greeted(&larder).await;
    for signatures in [vec![], of(&key, &other), of(&imposter, &path), of(&stranger, &path)] {
        let BoxMessage::Refused(refusal) = answer_to(&client, &offer(signatures)).await else {
            panic!("it was not refused")
        };
        assert_eq!(refusal.code, RefusalCode::BadSignature, "{refusal}");
        assert!(refusal.sentence.contains("'team-1'"), "{refusal}");
        assert!(get(&url).is_none());
    }
    let done = answer_to(&client, &offer(of(&key, &path))).await;
    assert_eq!(done, BoxMessage::Done(PushOutcome::Stored));
    assert!(get(&url).is_some());
}
