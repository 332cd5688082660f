//! Conversations with earlier programs: the present one reads both sides, and answers the client's
//! as before.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;

use bytes::Bytes;
use larder::formats::{PathInfo, Sha256Hash};
use larder::wire::framing::{Decoder, LENGTH_BYTES, encode};
use larder::wire::message::{
    AdminRequest, BoxMessage, ChunkId, ChunkRef, ClientMessage, InlineChunk, Message, Offer,
};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;

use crate::fixture::larder::TestBox;
use crate::fixture::pushed::{frame_of, nar_of_file, signature_bytes};
use crate::fixture::raw_quic::{ANSWER_MAX, RawClient, device_key, hello};
use crate::samples::transcript::{Said, Side, Transcript};
use crate::samples::{KEPT, assert_none_lacks, data, kept};

const FIRST_PROTOCOL: u32 = 2;
/// The smallest chunk that is not the last.
const CUT: usize = 16 << 10;
/// What stands before a file's bytes in a NAR.
const NAR_HEAD: usize = 96;

/// What a client says next, and how many messages of the box come before it goes on.
struct Step {
    stream: usize,
    bytes: Vec<u8>,
    answers: usize,
}

fn step(stream: usize, message: &ClientMessage, answers: usize) -> Step {
    Step { stream, bytes: encode(message).unwrap(), answers }
}

/// A path that is made up: a file with these bytes.
struct MadeUp {
    info: PathInfo,
    chunks: Vec<Vec<u8>>,
}

impl MadeUp {
    /// Its NAR is cut at these places.
    fn new(digit: char, contents: &[u8], cuts: &[usize]) -> Self {
        let nar = nar_of_file(contents);
        let name = format!("/nix/store/{}-said", digit.to_string().repeat(32));
        let info = PathInfo {
            store_path: larder::formats::StorePath::from_absolute(&name).unwrap(),
            nar_hash: Sha256Hash::of(&nar),
            nar_size: u64::try_from(nar.len()).unwrap(),
            references: Vec::new(),
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        };
        let starts = [0].iter().chain(cuts);
        let ends = cuts.iter().copied().chain([nar.len()]);
        let chunks = starts.zip(ends).map(|(start, end)| nar[*start..end].to_vec()).collect();
        Self { info, chunks }
    }

    fn chunk(&self, place: usize) -> ChunkRef {
        let raw = &self.chunks[place];
        let id = ChunkId(*blake3::hash(raw).as_bytes());
        ChunkRef { id, raw_len: u32::try_from(raw.len()).unwrap() }
    }

    fn frame(&self, place: usize) -> Bytes {
        frame_of(&self.chunks[place])
    }

    fn offer(&self, inline: Vec<InlineChunk>) -> ClientMessage {
        let device_signature = signature_bytes(&device_key(), &self.info.fingerprint());
        let offer = Offer { info: self.info.clone(), device_signature };
        ClientMessage::Offer { cache: "main".parse().unwrap(), offer, inline }
    }

    fn offer_whole(&self) -> ClientMessage {
        let places = 0..self.chunks.len();
        let whole = places.map(|n| InlineChunk { chunk: self.chunk(n), frame: self.frame(n) });
        self.offer(whole.collect())
    }
}

/// One of each that a client says behind Hello; in step, so that all answers have one order.
fn script(token: &str) -> Vec<Step> {
    let small = MadeUp::new('1', b"a small file", &[]);
    // The fourth chunk is the second again.
    let part = |byte, count| std::iter::repeat_n(byte, count);
    let parts = [part(b'h', CUT - NAR_HEAD), part(b'a', CUT), part(b'b', CUT), part(b'a', CUT)];
    let contents: Vec<_> = parts.into_iter().flatten().chain(part(b'c', 100)).collect();
    let cut = MadeUp::new('2', &contents, &[CUT, 2 * CUT, 3 * CUT, 4 * CUT]);
    let missing = |cache: &str| ClientMessage::Missing {
        cache: cache.parse().unwrap(),
        hashes: [&small, &cut].map(|path| path.info.store_path.hash()).to_vec(),
    };
    let batch = |number, places: &[usize]| ClientMessage::Batch {
        number,
        chunks: places.iter().map(|place| cut.chunk(*place)).collect(),
    };
    let chunk =
        |batch, index, place| ClientMessage::Chunk { batch, index, frame: cut.frame(place) };
    let status = AdminRequest {
        method: "GET".to_owned(),
        path: "/api/larder/v1/status".to_owned(),
        body: Vec::new(),
    };
    vec![
        step(0, &hello(token), 1),
        step(1, &missing("main"), 1),
        step(2, &small.offer_whole(), 1),
        step(3, &cut.offer(Vec::new()), 0),
        step(3, &batch(0, &[0, 1]), 1),
        step(3, &chunk(0, 0, 0), 0),
        step(3, &chunk(0, 1, 1), 1),
        step(3, &batch(1, &[2, 3, 4]), 1),
        step(3, &chunk(1, 0, 2), 0),
        step(3, &chunk(1, 2, 4), 1),
        step(3, &ClientMessage::Finish, 1),
        step(4, &small.offer_whole(), 1),
        step(5, &missing("main"), 1),
        step(6, &ClientMessage::Admin(status), 1),
        step(7, &missing("nowhere"), 1),
        step(8, &batch(0, &[0]), 1),
    ]
}

/// Says all that, and hears the answers, each with its length.
async fn play(larder: &TestBox, steps: &[Step]) -> Vec<Said> {
    let client = RawClient::connect(larder.quic, larder.device_id.parse().unwrap()).await;
    let mut streams = BTreeMap::new();
    let mut said = Vec::new();
    for Step { stream, bytes, answers } in steps {
        if !streams.contains_key(stream) {
            streams.insert(*stream, client.connection.open_bi().await.unwrap());
        }
        let (send, recv): &mut (SendStream, RecvStream) = streams.get_mut(stream).unwrap();
        timeout(ANSWER_MAX, send.write_all(bytes)).await.unwrap().unwrap();
        let note = decoded::<ClientMessage>(bytes).name().to_owned();
        said.push(Said { stream: *stream, by: Side::Client, note, bytes: bytes.clone() });
        for _ in 0..*answers {
            let answer = timeout(ANSWER_MAX, hear(recv)).await.unwrap();
            let note = kind(&answer);
            said.push(Said { stream: *stream, by: Side::Box, note, bytes: answer });
        }
    }
    said
}

/// One message with its length.
async fn hear(recv: &mut RecvStream) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH_BYTES];
    recv.read_exact(&mut bytes).await.unwrap();
    let length = u32::from_le_bytes(bytes[..].try_into().unwrap());
    bytes.resize(LENGTH_BYTES + usize::try_from(length).unwrap(), 0);
    recv.read_exact(&mut bytes[LENGTH_BYTES..]).await.unwrap();
    bytes
}

fn decoded<M: Message>(bytes: &[u8]) -> M {
    let mut decoder = Decoder::new(bytes.len());
    decoder.feed(bytes);
    let message = decoder.next_message().unwrap().unwrap();
    assert!(decoder.is_between_messages());
    message
}

/// Checks that the present program reads the bytes and would write the same.
fn assert_same_bytes<M: Message + Debug>(bytes: &[u8]) {
    let message = decoded::<M>(bytes);
    assert_eq!(encode(&message).unwrap(), bytes, "{message:?}");
}

/// What of an answer is the same from every box.
fn kind(answer: &[u8]) -> String {
    match decoded(answer) {
        BoxMessage::Welcome(welcome) => format!("Welcome to version {}", welcome.protocol),
        BoxMessage::Refused(refusal) => format!("Refused: {:?}", refusal.code),
        BoxMessage::Admin(answer) => format!("Admin: {}", answer.status),
        BoxMessage::Paired(_) => "Paired".to_owned(),
        other => format!("{other:?}"),
    }
}

impl Transcript {
    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for Said { stream, by, bytes, .. } in &self.said {
            match by {
                Side::Client => {
                    steps.push(Step { stream: *stream, bytes: bytes.clone(), answers: 0 });
                }
                Side::Box => steps.last_mut().unwrap().answers += 1,
            }
        }
        steps
    }

    fn answers(&self) -> Vec<String> {
        self.said.iter().filter(|said| said.by == Side::Box).map(|said| kind(&said.bytes)).collect()
    }

    /// Says the same to a box of today: only the token is another, of the same length. Signatures
    /// stay good, since they are by the key that Hello names.
    async fn assert_answered_as_before(&self) {
        for said in &self.said {
            match said.by {
                Side::Client => assert_same_bytes::<ClientMessage>(&said.bytes),
                Side::Box => assert_same_bytes::<BoxMessage>(&said.bytes),
            }
        }
        let larder = TestBox::start();
        let mut steps = self.steps();
        let (old, new) = (self.token.as_bytes(), larder.token.as_bytes());
        let hello = &mut steps[0].bytes;
        let place = hello.windows(old.len()).position(|bytes| bytes == old).unwrap();
        hello[place..place + old.len()].copy_from_slice(new);
        let said = play(&larder, &steps).await;
        let now = Self { token: larder.token.clone(), said };
        assert_eq!(now.answers(), self.answers());
    }
}

#[tokio::test]
async fn kept_conversations_are_answered_as_before() {
    for name in kept("conversations", ".txt") {
        let text = fs::read_to_string(data("conversations").join(format!("{name}.txt"))).unwrap();
        Transcript::read(&text).assert_answered_as_before().await;
    }
}

#[tokio::test]
async fn a_conversation_of_today_is_answered_like_the_kept_ones() {
    let larder = TestBox::start();
    let said = play(&larder, &script(&larder.token)).await;
    let BoxMessage::Welcome(welcome) = decoded(&said[1].bytes) else { panic!("{:?}", said[1]) };
    let conversation = Transcript { token: larder.token.clone(), said };
    let text = conversation.to_text();
    assert_eq!(Transcript::read(&text), conversation);
    conversation.assert_answered_as_before().await;
    let present = welcome.protocol;
    assert_none_lacks("conversations", ".txt", "protocol-", FIRST_PROTOCOL, present.into());
    if KEPT {
        fs::write(data("conversations").join(format!("protocol-{present}.txt")), text).unwrap();
    }
}
