//! A client that pushes, written by PROTOCOL.md alone.

use std::collections::VecDeque;
use std::io::Write;

use ed25519_dalek::{Signer, SigningKey};
use quinn::{Connection, Endpoint};

use crate::fixture::larder::TestBox;
use crate::fixture::nix::{NixStore, SecondStore};
use crate::stranger::nar_path::{fingerprint, hash_part, sha256};
use crate::stranger::packs::Folder;
use crate::stranger::postcard::Writer;
use crate::stranger::quic::{Answer, CacheAccess, Outcome, Stream, connect};

/// Our own way to cut: any will do within the bounds.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_OF_A_BATCH: usize = (4 << 20) / CHUNK_BYTES;
const WINDOW_LOG: u32 = 18;
const BATCHES_UNDER_WAY: usize = 2;
const DEVICE_SEED: [u8; 32] = [42; 32];

/// A path of the local store.
struct LocalPath {
    base_name: String,
    nar: Vec<u8>,
    references: Vec<String>,
    deriver: Option<String>,
}

impl LocalPath {
    fn read(nix: &NixStore, absolute: &str) -> Self {
        let mut references = base_names(&nix.text("nix-store", &["-q", "--references", absolute]));
        references.sort_unstable();
        let mut derivers = base_names(&nix.text("nix-store", &["-q", "--deriver", absolute]));
        derivers.retain(|name| name != "unknown-deriver");
        Self {
            base_name: base_names(absolute).remove(0),
            nar: nix.output("nix-store", &["--dump", absolute]),
            references,
            deriver: derivers.pop(),
        }
    }

    fn nar_size(&self) -> u64 {
        u64::try_from(self.nar.len()).unwrap()
    }

    /// Offer, all of it up to `inline`.
    fn offer(&self, cache: &str) -> Writer {
        let nar_hash = sha256(&self.nar);
        let signed = fingerprint(&self.base_name, &nar_hash, self.nar_size(), &self.references);
        let signature = device_key().sign(signed.as_bytes()).to_bytes();
        Writer::default()
            .number(2_u8)
            .text(cache)
            .text(&self.base_name)
            .raw(&nar_hash)
            .number(self.nar_size())
            .list(&self.references, |writer, name| writer.text(name))
            .optional_text(self.deriver.as_deref())
            .optional_text(None)
            .list(&[], |writer, signature: &String| writer.text(signature))
            .bytes(&signature)
    }

    fn chunks(&self) -> Vec<&[u8]> {
        self.nar.chunks(CHUNK_BYTES).collect()
    }
}

fn base_names(absolute: &str) -> Vec<String> {
    absolute.lines().map(|line| line.trim_start_matches("/nix/store/").to_owned()).collect()
}

fn device_key() -> SigningKey {
    SigningKey::from_bytes(&DEVICE_SEED)
}

fn chunk_ref(writer: Writer, raw: &[u8]) -> Writer {
    writer.raw(blake3::hash(raw).as_bytes()).number(u32::try_from(raw.len()).unwrap())
}

/// A frame of another form than larder's: with a checksum, without its size, and so with a window.
fn frame(raw: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(WINDOW_LOG).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(raw).unwrap();
    encoder.finish().unwrap()
}

/// A client that has greeted.
struct Client {
    connection: Connection,
    inline_nar_bytes: u64,
    caches: Vec<CacheAccess>,
    _endpoint: Endpoint,
    _control: Stream,
}

impl Client {
    async fn greet(larder: &TestBox, token: &str) -> Self {
        let (endpoint, connection) = connect(larder.quic, &larder.device_id).await;
        let mut control = Stream::open(&connection).await;
        control.say(&hello(token)).await;
        let answer = control.hear().await;
        let Answer::Welcome { protocol, caches, inline_nar_bytes, http_port } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((protocol, http_port), (2, u64::from(larder.http.port())));
        Self { connection, inline_nar_bytes, caches, _endpoint: endpoint, _control: control }
    }

    async fn missing(&self, cache: &str, paths: &[&LocalPath]) -> Vec<u64> {
        let question = Writer::default()
            .number(1_u8)
            .text(cache)
            .list(paths, |writer, path| writer.raw(&hash_part(&path.base_name)));
        let mut stream = Stream::open(&self.connection).await;
        stream.say(&question.done()).await;
        let answer = stream.hear().await;
        stream.assert_over().await;
        let Answer::Missing { indexes } = answer else { panic!("{answer:?}") };
        indexes
    }

    async fn push(&self, cache: &str, path: &LocalPath) -> Outcome {
        let mut stream = Stream::open(&self.connection).await;
        let answer = if path.nar_size() <= self.inline_nar_bytes {
            let chunks = path.chunks();
            let whole = |writer, raw: &&[u8]| chunk_ref(writer, raw).bytes(&frame(raw));
            stream.say(&path.offer(cache).list(&chunks, whole).done()).await;
            stream.hear().await
        } else {
            stream.say(&path.offer(cache).number(0_u8).done()).await;
            push_batches(&mut stream, path).await
        };
        stream.assert_over().await;
        let Answer::Done { outcome } = answer else { panic!("{answer:?}") };
        outcome
    }
}

fn hello(token: &str) -> Vec<u8> {
    Writer::default()
        .number(0_u8)
        .number(2_u8)
        .number(2_u8)
        .text("a stranger")
        .text(token)
        .raw(device_key().verifying_key().as_bytes())
        .number(0_u8)
        .done()
}

/// Says all batches, two under way at a time, and brings what is asked for.
async fn push_batches(stream: &mut Stream, path: &LocalPath) -> Answer {
    let chunks = path.chunks();
    let batches: Vec<_> = chunks.chunks(CHUNKS_OF_A_BATCH).collect();
    let mut waiting: VecDeque<_> = (0_u32..).zip(&batches).collect();
    for _ in 0..BATCHES_UNDER_WAY {
        name_next(stream, &mut waiting).await;
    }
    loop {
        match stream.hear().await {
            Answer::Need { batch, indexes } => {
                let named = batches[usize::try_from(batch).unwrap()];
                for index in indexes {
                    stream.say(&chunk(batch, index, named)).await;
                }
            }
            Answer::Taken { batch } => {
                assert!(usize::try_from(batch).unwrap() < batches.len() - waiting.len());
                name_next(stream, &mut waiting).await;
            }
            other => return other,
        }
    }
}

/// Names the next batch, and with the last one says that it was the last.
async fn name_next(stream: &mut Stream, waiting: &mut VecDeque<(u32, &&[&[u8]])>) {
    let Some((number, chunks)) = waiting.pop_front() else { return };
    let named = Writer::default().number(3_u8).number(number);
    stream.say(&named.list(chunks, |writer, raw| chunk_ref(writer, raw)).done()).await;
    if waiting.is_empty() {
        stream.say(&Writer::default().number(5_u8).done()).await;
    }
}

fn chunk(batch: u64, index: u64, named: &[&[u8]]) -> Vec<u8> {
    let raw = named[usize::try_from(index).unwrap()];
    Writer::default().number(4_u8).number(batch).number(index).bytes(&frame(raw)).done()
}

#[tokio::test]
async fn nix_takes_what_a_stranger_pushed() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let graph = nix.build_graph("by-hand");
    // More than two batches, the last of them short.
    let big = nix.big_path("by-hand", 9_000_001);
    let paths: Vec<_> = graph
        .closure
        .iter()
        .chain([&big])
        .map(|path| LocalPath::read(&nix, &path.to_absolute()))
        .collect();
    let client = Client::greet(&larder, &larder.token).await;
    let main = client.caches.iter().find(|cache| cache.name == "main").unwrap();
    assert!(main.may_write);
    assert_eq!(main.public_keys, [larder.public_key.to_string()]);

    let all: Vec<_> = paths.iter().collect();
    assert_eq!(client.missing("main", &all).await, [0, 1, 2, 3, 4, 5]);
    for path in &paths {
        assert_eq!(client.push("main", path).await, Outcome::Stored);
    }
    assert_eq!(client.missing("main", &all).await, [0_u64; 0]);
    assert_eq!(client.push("main", &paths[5]).await, Outcome::Known);

    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&graph.top, &graph.closure);
    second.substitute_whole(&big, std::slice::from_ref(&big));
}

#[tokio::test]
async fn a_stranger_meets_the_other_ends_of_a_push() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let graph = nix.build_graph("other-ends");
    let client = Client::greet(&larder, &larder.token).await;
    let mut leaf = LocalPath::read(&nix, &graph.closure[0].to_absolute());
    assert_eq!(client.push("main", &leaf).await, Outcome::Stored);
    leaf.nar = nix.dump(&graph.top);
    assert_eq!(client.push("main", &leaf).await, Outcome::KeptFirst);

    let mut stream = Stream::open(&client.connection).await;
    stream.say(&leaf.offer("nowhere").number(0_u8).done()).await;
    assert_eq!(stream.refusal().await, 3);

    let big = LocalPath::read(&nix, &nix.big_path("other-ends", 200_000).to_absolute());
    let (short, rest) = big.nar.split_at(16_383);
    let mut stream = Stream::open(&client.connection).await;
    stream.say(&big.offer("main").number(0_u8).done()).await;
    let batch = Writer::default().number(3_u8).number(0_u8);
    stream.say(&batch.list(&[short, rest], |writer, raw| chunk_ref(writer, raw)).done()).await;
    let answer = stream.hear().await;
    assert!(matches!(answer, Answer::Need { batch: 0, .. }), "{answer:?}");
    for index in [0, 1] {
        stream.say(&chunk(0, index, &[short, rest])).await;
    }
    assert_eq!(stream.refusal().await, 10, "a chunk that is too small and not the last");
}

#[tokio::test]
async fn of_what_is_hidden_the_last_counts_until_it_can_be_read() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let graph = nix.build_graph("hidden");
    let client = Client::greet(&larder, &larder.token).await;
    let paths = graph.closure.iter().map(|path| LocalPath::read(&nix, &path.to_absolute()));
    let mut paths: Vec<_> = paths.collect();
    let mut top = paths.pop().unwrap();
    let honest = std::mem::replace(&mut top.nar, nix.dump(&graph.closure[0]));
    for nar in [top.nar.clone(), honest] {
        top.nar = nar;
        let outcome = client.push("main", &top).await;
        let Outcome::Hidden { missing } = outcome else { panic!("{outcome:?}") };
        let direct = top.references.iter().filter(|name| **name != top.base_name);
        assert_eq!(missing, direct.cloned().collect::<Vec<_>>());
    }
    for path in &paths {
        assert_eq!(client.push("main", path).await, Outcome::Stored);
    }
    let folder = Folder::read(&larder.data());
    assert_eq!(folder.path("main", &top.base_name).unwrap().nar_hash, sha256(&top.nar));
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&graph.top, &graph.closure);
}
