//! The store through its public surface, on real folders; and what it does to be tested hard:
//! damage, copies of the folder at any moment, disks that fail.

mod caches;
mod collect;
mod crash;
mod damage;
mod disk;
mod limits;
mod pins;
mod refusal;
mod restore;
mod round_trip;
mod sight;
mod visibility;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::formats::chunking::Chunker;
use crate::formats::frame::Compressor;
use crate::formats::nar::NarWriter;
use crate::formats::{CacheLimits, PathInfo, Sha256Hash, StorePath, base32};
use crate::store::index::caches::{CacheId, NewCache, SigningMode};
use crate::store::pack::{Disk, RealDisk};
use crate::store::{
    Added, CommitOutcome, FinishedNar, IngestError, NarFile, NarSource, NarStream, NewPath, Pusher,
    Store, StoreError, StoreOptions, TokenId, UnixSeconds, open,
};
use crate::wire::message::{ChunkId, ChunkRef};

const NOW: UnixSeconds = 1_800_000_000;
const TOKEN: TokenId = TokenId(7);
/// The outcome for a path that nothing waited for.
const STORED: CommitOutcome = CommitOutcome::Stored { woken: Vec::new() };

/// A real store in a folder of its own, removed when this is dropped.
struct TestStore {
    store: Store,
    cache: CacheId,
    folder: TempDir,
}

impl TestStore {
    async fn new() -> Self {
        Self::with(|options| options).await
    }

    async fn with(change: impl FnOnce(StoreOptions) -> StoreOptions) -> Self {
        let folder = TempDir::new().unwrap();
        let options = change(options_at(folder.path()));
        let store = Store::open(options).unwrap();
        let cache = store.create_cache(new_cache("main")).await.unwrap().id;
        Self { store, cache, folder }
    }

    /// On a disk that fails when it is told to.
    async fn on(disk: impl Disk + 'static) -> Self {
        let folder = TempDir::new().unwrap();
        let inner = open::open(&options_at(folder.path()), Box::new(disk)).unwrap();
        let store = Store(Arc::new(inner));
        let cache = store.create_cache(new_cache("main")).await.unwrap().id;
        Self { store, cache, folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn pack(&self, number: u32) -> PathBuf {
        self.data().join(format!("packs/{number:08}.pack"))
    }

    /// Closes the store and opens it again, as a restart would.
    async fn reopened(self) -> Self {
        self.store.close().await.unwrap();
        self.reopen().await
    }

    /// As [`reopened`](Self::reopened), with other options.
    async fn reopened_with(self, change: impl FnOnce(StoreOptions) -> StoreOptions) -> Self {
        self.store.close().await.unwrap();
        let store = Store::open(change(options_at(self.folder.path()))).unwrap();
        Self { store, ..self }
    }

    /// Opens the store that is in the folder, after the one that was open is closed.
    async fn reopen(self) -> Self {
        let store = Store::open(options_at(self.folder.path())).unwrap();
        Self { store, ..self }
    }

    /// A store on a copy of the folder as it is now: what a restart finds after the power went.
    async fn after_power_cut(&self) -> Self {
        let folder = TempDir::new().unwrap();
        copy_folder(&self.data(), &folder.path().join("data"));
        let store = Store::open(options_at(folder.path())).unwrap();
        let caches = store.caches().await.unwrap();
        let cache = caches.first().map_or(self.cache, |cache| cache.id);
        Self { store, cache, folder }
    }

    fn path(&self, nar: &TestNar, name: &str, references: &[&StorePath]) -> NewPath {
        new_path(self.cache, nar, name, references)
    }

    /// Pushes a path as a client does.
    async fn push(&self, nar: &TestNar, path: &NewPath) -> CommitOutcome {
        let finished = self.ingest(nar, TOKEN).await.unwrap();
        let source = NarSource::Ingested(finished);
        self.store.commit_path(path.clone(), source).await.unwrap()
    }

    async fn ingest(&self, nar: &TestNar, token: TokenId) -> Result<FinishedNar, IngestError> {
        let (store, cache, nar) = (self.store.clone(), self.cache, nar.clone());
        tokio::task::spawn_blocking(move || {
            ingest(&store, cache, &nar, token).map(|(nar, _sent)| nar)
        })
        .await
        .unwrap()
    }

    /// How many chunks of the NAR a push would send.
    async fn wanted(&self, nar: &TestNar, token: TokenId) -> usize {
        let (store, cache, nar) = (self.store.clone(), self.cache, nar.clone());
        tokio::task::spawn_blocking(move || {
            let mut ingest = store.begin_ingest(cache, nar.hash, nar.size(), token, NOW);
            ingest.look_up(&nar.refs()).unwrap().len()
        })
        .await
        .unwrap()
    }

    async fn file(&self, nar: &TestNar) -> NarFile {
        self.store.nar_in(vec![self.cache], nar.hash).await.unwrap().expect("the NAR")
    }

    async fn raw(&self, nar: &TestNar) -> Result<Vec<u8>, StoreError> {
        let file = self.file(nar).await;
        collect(self.store.read_raw(&file, 0, file.nar_size)).await
    }

    /// Asserts that the path is served, byte for byte, in both forms.
    async fn assert_served(&self, nar: &TestNar, path: &NewPath) {
        let hash = path.info.store_path.hash();
        let record = self.store.path(self.cache, hash).await.unwrap().expect("the path");
        assert!(record.visible && !record.damaged, "{record:?}");
        assert!(self.store.may_have_path(hash));
        assert!(self.raw(nar).await.unwrap() == *nar.bytes, "other bytes");
        let file = self.file(nar).await;
        let stored = collect(self.store.read_file(&file, 0, file.file_size)).await.unwrap();
        assert_eq!(Sha256Hash::of(&stored), file.file_hash);
        assert!(zstd::stream::decode_all(&stored[..]).unwrap() == *nar.bytes, "other bytes");
    }
}

fn options_at(folder: &Path) -> StoreOptions {
    StoreOptions::at(&folder.join("data"))
}

fn new_cache(name: &str) -> NewCache {
    NewCache {
        name: name.parse().unwrap(),
        is_public: true,
        signing: SigningMode::Managed,
        priority: 40,
        root_position: Some(0),
        description: String::new(),
        limits: CacheLimits::default(),
        key: None,
        public_keys: Vec::new(),
        created_at: NOW,
    }
}

fn new_path(cache: CacheId, nar: &TestNar, name: &str, references: &[&StorePath]) -> NewPath {
    let references = references.iter().map(|path| (*path).clone()).collect();
    let info = PathInfo {
        store_path: store_path(name),
        nar_hash: nar.hash,
        nar_size: nar.size(),
        references,
        deriver: None,
        ca: None,
        signatures: Vec::new(),
    };
    let pusher = Pusher { token: TOKEN, device_key: [1; 32], device_signature: [2; 64], at: NOW };
    NewPath { cache, info, pusher }
}

/// A store path whose hash is made from its name.
fn store_path(name: &str) -> StorePath {
    let hash = &Sha256Hash::of(name.as_bytes()).as_bytes()[..20].to_vec();
    format!("{}-{name}", base32::encode(hash)).parse().unwrap()
}

/// A NAR cut into chunks and frames, as a client does it.
#[derive(Clone)]
struct TestNar {
    bytes: Arc<Vec<u8>>,
    hash: Sha256Hash,
    chunks: Vec<(ChunkRef, Vec<u8>)>,
}

impl TestNar {
    /// Of one file.
    fn of(contents: &[u8]) -> Self {
        Self::at_level(contents, 3)
    }

    /// Of one file of `length` bytes that do not compress, different for each seed.
    fn random(seed: u8, length: usize) -> Self {
        let mut contents = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut contents);
        Self::of(&contents)
    }

    /// With frames that another client would send.
    fn at_level(contents: &[u8], level: i32) -> Self {
        let mut writer = NarWriter::new(Vec::new()).unwrap();
        let size = u64::try_from(contents.len()).unwrap();
        writer.regular(false, size, &mut &contents[..]).unwrap();
        Self::of_nar(writer.into_inner(), level)
    }

    fn of_nar(bytes: Vec<u8>, level: i32) -> Self {
        let mut compressor = Compressor::new(level).unwrap();
        let mut chunks = Vec::new();
        let mut on_chunk = |raw: &[u8]| {
            let id = ChunkId(*blake3::hash(raw).as_bytes());
            let raw_len = u32::try_from(raw.len()).unwrap();
            chunks.push((ChunkRef { id, raw_len }, compressor.compress(raw).unwrap()));
        };
        let mut chunker = Chunker::new();
        chunker.feed(&bytes, &mut on_chunk);
        chunker.finish(&mut on_chunk);
        Self { hash: Sha256Hash::of(&bytes), bytes: Arc::new(bytes), chunks }
    }

    /// The same NAR from a client that cuts by length.
    fn cut_every(&self, length: usize) -> Self {
        let mut compressor = Compressor::new(3).unwrap();
        let chunk = |raw: &[u8]| {
            let id = ChunkId(*blake3::hash(raw).as_bytes());
            let raw_len = u32::try_from(raw.len()).unwrap();
            (ChunkRef { id, raw_len }, compressor.compress(raw).unwrap())
        };
        let chunks = self.bytes.chunks(length).map(chunk).collect();
        Self { chunks, ..self.clone() }
    }

    fn size(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap()
    }

    fn refs(&self) -> Vec<ChunkRef> {
        self.chunks.iter().map(|(chunk, _frame)| *chunk).collect()
    }
}

/// Takes a NAR in as the box does; returns how many frames were sent.
fn ingest(
    store: &Store,
    cache: CacheId,
    nar: &TestNar,
    token: TokenId,
) -> Result<(FinishedNar, usize), IngestError> {
    let mut ingest = store.begin_ingest(cache, nar.hash, nar.size(), token, NOW);
    let mut sent = 0;
    for batch in nar.chunks.chunks(5) {
        let refs: Vec<_> = batch.iter().map(|(chunk, _frame)| *chunk).collect();
        let wanted = ingest.look_up(&refs)?;
        for (index, (chunk, frame)) in batch.iter().enumerate() {
            let mut frame = wanted.contains(&index).then_some(&frame[..]);
            sent += usize::from(frame.is_some());
            if ingest.add(*chunk, frame)? == Added::Resend {
                assert!(frame.is_none(), "a sent chunk is asked for again");
                frame = Some(&batch[index].1);
                sent += 1;
                assert_eq!(ingest.add(*chunk, frame)?, Added::Taken);
            }
        }
    }
    Ok((ingest.finish()?, sent))
}

async fn collect(mut stream: NarStream) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

/// Copies a folder that may be written to meanwhile: the index before its log, both before the
/// packs, so that what the copy's index says is in the copy's packs, as on a disk that stopped.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    let mut entries: Vec<_> = fs::read_dir(from).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Turns one bit of a file.
fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// The disk as it is, for tests that wrap it.
const REAL: RealDisk = RealDisk;
