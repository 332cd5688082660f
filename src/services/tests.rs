//! Services of a real store in a folder of its own, and values for the tests of this layer and
//! the ones above.

mod administration;
mod caches;
mod publish;
mod reading;
mod sight;

use std::path::PathBuf;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::formats::chunking::Chunker;
use crate::formats::frame::Compressor;
use crate::formats::nar::NarWriter;
use crate::formats::signature::SecretKey;
use crate::formats::{CacheLimits, CacheName, PathInfo, Sha256Hash, StorePath, base32};
use crate::services::{
    AdmissionOptions, Begun, CacheRequest, Caller, PublishError, Services, ServicesOptions,
    TokenRequest, Upload, upkeep,
};
use crate::store::{Cache, CacheId, NewCache, SigningMode, Store, StoreOptions};
use crate::wire::DeviceId;
use crate::wire::message::{ChunkId, ChunkRef, Offer, PushOutcome};

/// Who the box is.
pub(crate) const BOX: DeviceId = DeviceId([7; 20]);
const DEVICE_SEED: [u8; 32] = [9; 32];

/// A public, managed cache without keys.
pub(crate) fn cache(id: i64, name: &str) -> Cache {
    Cache {
        id: CacheId(id),
        uuid: [0; 16],
        name: name.parse().unwrap(),
        is_public: true,
        signing: SigningMode::Managed,
        priority: 30,
        root_position: None,
        description: String::new(),
        limits: CacheLimits::default(),
        created_at: 1,
        keys: Vec::new(),
        public_keys: Vec::new(),
    }
}

/// A store path whose hash is made from its name.
pub(crate) fn store_path(name: &str) -> StorePath {
    let hash = Sha256Hash::of(name.as_bytes());
    format!("{}-{name}", base32::encode(&hash.as_bytes()[..20])).parse().unwrap()
}

/// Facts of a path that refers to paths of these names.
pub(crate) fn path_info(name: &str, references: &[&str]) -> PathInfo {
    let mut info = PathInfo {
        store_path: store_path(name),
        nar_hash: Sha256Hash::of(b"nar"),
        nar_size: 112,
        references: references.iter().map(|name| store_path(name)).collect(),
        deriver: None,
        ca: None,
        signatures: Vec::new(),
    };
    info.sort_references();
    info
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = *Sha256Hash::of(&[seed]).as_bytes();
    while bytes.len() < length {
        bytes.extend_from_slice(&block);
        block = *Sha256Hash::of(&block).as_bytes();
    }
    bytes.truncate(length);
    bytes
}

/// A path as a client has it.
#[derive(Clone, Debug)]
pub(crate) struct TestPath {
    pub(crate) info: PathInfo,
    pub(crate) nar: Vec<u8>,
}

impl TestPath {
    /// One file with these contents.
    pub(crate) fn new(name: &str, references: &[&str], contents: &[u8]) -> Self {
        let mut nar = NarWriter::new(Vec::new()).unwrap();
        let size = u64::try_from(contents.len()).unwrap();
        nar.begin_regular(false, size).unwrap();
        nar.contents(contents).unwrap();
        nar.end_regular(size).unwrap();
        let nar = nar.into_inner();
        let mut info = path_info(name, references);
        info.nar_hash = Sha256Hash::of(&nar);
        info.nar_size = u64::try_from(nar.len()).unwrap();
        Self { info, nar }
    }

    /// The offer of a push, signed by the device.
    pub(crate) fn offer(&self) -> Offer {
        let signature = device_key().sign(self.info.fingerprint().as_bytes());
        Offer { info: self.info.clone(), device_signature: signature.as_bytes().to_vec() }
    }

    /// Chunks with their frames, in order.
    pub(crate) fn chunks(&self) -> Vec<(ChunkRef, Bytes)> {
        let mut compressor = Compressor::new(3).unwrap();
        let mut chunks = Vec::new();
        let mut add = |raw: &[u8]| {
            let id = ChunkId(*blake3::hash(raw).as_bytes());
            let raw_len = u32::try_from(raw.len()).unwrap();
            chunks.push((ChunkRef { id, raw_len }, compressor.compress(raw).unwrap().into()));
        };
        let mut chunker = Chunker::new();
        chunker.feed(&self.nar, &mut add);
        chunker.finish(&mut add);
        chunks
    }
}

fn device_key() -> SecretKey {
    SecretKey::from_seed("device", &DEVICE_SEED).unwrap()
}

/// Services of a store with the caches `main` and `other`, both of the root, in this order.
pub(crate) struct TestServices {
    pub(crate) services: Services,
    pub(crate) store: Store,
    /// A personal token.
    pub(crate) owner: Caller,
    pub(crate) owner_token: String,
    folder: TempDir,
    stop: CancellationToken,
    upkeep: JoinSet<()>,
}

impl TestServices {
    pub(crate) async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let store = Store::open(StoreOptions::at(&folder.path().join("data"))).unwrap();
        for (position, name) in [(1, "main"), (2, "other")] {
            store.create_cache(new_cache(name, Some(position))).await.unwrap();
        }
        let options = ServicesOptions {
            box_name: "office".parse().unwrap(),
            key_host: "office.local".to_owned(),
            device_id: BOX,
            admission: AdmissionOptions {
                requests_per_second: 1_000_000,
                http_connections: 64,
                quic_connections: 64,
                connections_per_address: 64,
                transfers: 64,
            },
            is_clock_synchronised: || false,
            settings_file: None,
        };
        let services = Services::start(store.clone(), options).await.unwrap();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(upkeep::run(services.clone(), stop.clone()));
        let personal = TokenRequest {
            label: "owner".to_owned(),
            expires_in_seconds: None,
            grants: None,
            device: None,
        };
        let (_, text) = services.tokens.create(personal).await.unwrap();
        let owner_token = text.to_secret_text();
        let owner = services.auth.check(&owner_token).await.unwrap();
        Self { services, store, owner, owner_token, folder, stop, upkeep: tasks }
    }

    /// Stops as a box does.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.upkeep.join_next().await.is_some() {}
        self.store.close().await.unwrap();
    }

    pub(crate) fn main() -> CacheName {
        "main".parse().unwrap()
    }

    pub(crate) async fn begin(
        &self,
        caller: &Caller,
        cache: &str,
        path: &TestPath,
    ) -> Result<Begun, PublishError> {
        let key = *device_key().public_key().as_bytes();
        let cache = cache.parse().unwrap();
        self.services.publish.begin(caller, &cache, key, path.offer()).await
    }

    /// Pushes a path as a client does.
    pub(crate) async fn push(
        &self,
        cache: &str,
        path: &TestPath,
    ) -> Result<PushOutcome, PublishError> {
        match self.begin(&self.owner, cache, path).await? {
            Begun::Done(outcome) => Ok(outcome),
            Begun::Upload(upload) => send(upload, path).await,
        }
    }

    /// Changes a byte in the middle of the first pack.
    pub(crate) fn damage(&self) {
        let pack = self.pack();
        let mut bytes = std::fs::read(&pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&pack, bytes).unwrap();
    }

    fn pack(&self) -> PathBuf {
        self.folder.path().join("data/packs/00000001.pack")
    }
}

pub(crate) fn new_cache(name: &str, root_position: Option<u32>) -> NewCache {
    NewCache {
        name: name.parse().unwrap(),
        is_public: true,
        signing: SigningMode::Managed,
        priority: 30,
        root_position,
        description: String::new(),
        limits: CacheLimits::default(),
        key: Some(SecretKey::from_seed(&format!("{name}.office.local-1"), &[1; 32]).unwrap()),
        public_keys: Vec::new(),
        created_at: 1,
    }
}

/// Sends what is asked for, in batches of three chunks.
async fn send(mut upload: Upload, path: &TestPath) -> Result<PushOutcome, PublishError> {
    for batch in path.chunks().chunks(3) {
        let mut wanted = upload.batch(batch.iter().map(|(chunk, _)| *chunk).collect()).await?;
        while !wanted.is_empty() {
            let frames = wanted.iter().map(|place| (*place, batch[*place].1.clone())).collect();
            wanted = upload.frames(frames).await?;
        }
        while let again @ [_, ..] = &*upload.frames(Vec::new()).await? {
            let frames = again.iter().map(|place| (*place, batch[*place].1.clone())).collect();
            assert!(upload.frames(frames).await?.is_empty(), "one damaged chunk at a time");
        }
    }
    upload.finish().await
}

/// Everything of a NAR's stored form.
pub(crate) async fn stored_bytes(test: &TestServices, path: &TestPath) -> Vec<u8> {
    let lookup = &test.services.lookup;
    let scope = test.services.caches.root_scope(None);
    let file = lookup.nar(&scope, path.info.nar_hash).await.unwrap().expect("the NAR");
    let mut stream = lookup.read_file(&file, 0, file.file_size);
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    bytes
}

/// A token for one cache.
pub(crate) fn per_cache(name: &str, right: crate::store::Right) -> TokenRequest {
    TokenRequest {
        label: String::new(),
        expires_in_seconds: None,
        grants: Some(vec![(name.parse().unwrap(), right)]),
        device: None,
    }
}
