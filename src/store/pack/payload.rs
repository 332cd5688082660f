//! What the records say that are no chunks: postcard, the first byte a version.
//!
//! A payload is read back with what its version has; FORMAT.md lists the fields.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::formats::signature::Signature;
use crate::formats::{
    AttachmentName, CacheLimits, CacheName, FilePath, Keep, PathInfo, PinName, Sha256Hash,
    StorePath, StorePathHash,
};
use crate::store::UnixSeconds;
use crate::store::pack::PackError;

/// The version of every payload that is written, but those of paths, manifests and caches.
const VERSION: u8 = 1;
/// The version of a path's payload: 1, and behind it whether the record stands alone.
const PATH_VERSION: u8 = 2;
/// The version of a manifest's payload: 1, and behind each chunk the sum of its frame.
const MANIFEST_VERSION: u8 = 2;

/// The version of a cache's payload: 1, and behind it its limits.
const CACHE_VERSION: u8 = 2;

/// One chunk of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct ManifestChunk {
    pub(in crate::store) id: [u8; 32],
    pub(in crate::store) raw_len: u32,
    pub(in crate::store) stored_len: u32,
    /// XXH3-64 of its frame, little-endian: the one that the NAR's FileHash was made with.
    pub(in crate::store) sum: [u8; 8],
}

/// A chunk of a manifest of before frames had their sums in it.
#[derive(Deserialize)]
struct ManifestChunk1 {
    id: [u8; 32],
    raw_len: u32,
    stored_len: u32,
}

#[derive(Deserialize)]
struct Manifest1 {
    nar_hash: Sha256Hash,
    nar_size: u64,
    revision: u32,
    file_hash: Sha256Hash,
    file_size: u64,
    chunks: Vec<ManifestChunk1>,
}

/// The ordered chunks of one NAR, and what its stored form hashes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Manifest {
    pub(in crate::store) nar_hash: Sha256Hash,
    pub(in crate::store) nar_size: u64,
    pub(in crate::store) revision: u32,
    pub(in crate::store) file_hash: Sha256Hash,
    pub(in crate::store) file_size: u64,
    pub(in crate::store) chunks: Vec<ManifestChunk>,
}

/// The listing of a NAR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Listing {
    pub(in crate::store) nar_hash: Sha256Hash,
    /// Bytes of the JSON.
    pub(in crate::store) json_len: u32,
    /// The JSON as one zstd frame.
    pub(in crate::store) json_zstd: Vec<u8>,
}

/// The settings of a cache; its secret keys are nowhere in a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Cache {
    pub(in crate::store) uuid: [u8; 16],
    pub(in crate::store) name: CacheName,
    pub(in crate::store) is_public: bool,
    pub(in crate::store) self_signed: bool,
    pub(in crate::store) priority: u32,
    pub(in crate::store) root_position: Option<u32>,
    pub(in crate::store) description: String,
    pub(in crate::store) created_at: UnixSeconds,
}

/// A path in a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Path {
    pub(in crate::store) cache: [u8; 16],
    pub(in crate::store) info: PathInfo,
    pub(in crate::store) nar_revision: u32,
    /// Whether it waited for references when it was written; a replay finds out anew.
    pub(in crate::store) hidden: bool,
    pub(in crate::store) pushed_at: UnixSeconds,
    pub(in crate::store) device_key: [u8; 32],
    /// 64 bytes.
    pub(in crate::store) device_signature: Vec<u8>,
}

/// Signatures that a path got after it was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Signatures {
    pub(in crate::store) cache: [u8; 16],
    pub(in crate::store) path: StorePathHash,
    pub(in crate::store) signatures: Vec<Signature>,
}

/// Something went away; what came before counts no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) enum Delete {
    /// A path of a cache.
    Path {
        /// The cache.
        cache: [u8; 16],
        /// The path.
        path: StorePathHash,
    },
    /// A cache with all its paths.
    Cache {
        /// The cache.
        uuid: [u8; 16],
    },
    /// A path of a cache, told in another place before: what stands before *that* counts no
    /// longer.
    MovedPath {
        /// The cache.
        cache: [u8; 16],
        /// The path.
        path: StorePathHash,
        /// The pack in which it was told first.
        pack: u32,
        /// Where in that pack.
        offset: u64,
    },
}

/// What belongs to paths of a cache without being part of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct Attachment {
    pub(in crate::store) cache: [u8; 16],
    pub(in crate::store) name: AttachmentName,
    /// Bytes of the contents.
    pub(in crate::store) raw_len: u32,
    /// The contents as one zstd frame.
    pub(in crate::store) zstd: Vec<u8>,
}

/// What became of a pin of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) enum Pin {
    /// A revision was made.
    Made {
        /// The cache.
        cache: [u8; 16],
        /// The pin's name.
        name: PinName,
        /// Its number.
        revision: u32,
        /// The path that it holds.
        path: StorePath,
        /// Files of it with a URL of their own.
        artifacts: Vec<FilePath>,
        /// How long revisions stay.
        keep: Keep,
        /// When.
        pinned_at: UnixSeconds,
    },
    /// Revisions were removed, or have ended.
    Ended {
        /// The cache.
        cache: [u8; 16],
        /// The pin's name.
        name: PinName,
        /// The last of them.
        up_to: u32,
    },
}

/// Writes a payload.
pub(in crate::store) fn encode(payload: &impl Serialize) -> Result<Vec<u8>, PackError> {
    postcard::to_stdvec(&(VERSION, payload)).map_err(PackError::Payload)
}

/// Writes the payload of a manifest.
pub(in crate::store) fn encode_manifest(manifest: &Manifest) -> Result<Vec<u8>, PackError> {
    postcard::to_stdvec(&(MANIFEST_VERSION, manifest)).map_err(PackError::Payload)
}

/// Reads the payload of a manifest, and whether it knows the sums of its frames; all of them are 0
/// if not.
pub(in crate::store) fn decode_manifest(bytes: &[u8]) -> Result<(Manifest, bool), PackError> {
    if bytes.first() == Some(&MANIFEST_VERSION) {
        return decode_as(MANIFEST_VERSION, bytes).map(|manifest| (manifest, true));
    }
    let Manifest1 { nar_hash, nar_size, revision, file_hash, file_size, chunks } = decode(bytes)?;
    let chunks = chunks
        .into_iter()
        .map(|ManifestChunk1 { id, raw_len, stored_len }| ManifestChunk {
            id,
            raw_len,
            stored_len,
            sum: [0; 8],
        })
        .collect();
    Ok((Manifest { nar_hash, nar_size, revision, file_hash, file_size, chunks }, false))
}

/// Writes the payload of a path. If it stands alone, no earlier record under the name of the path
/// counts.
pub(in crate::store) fn encode_path(path: &Path, alone: bool) -> Result<Vec<u8>, PackError> {
    postcard::to_stdvec(&(PATH_VERSION, path, alone)).map_err(PackError::Payload)
}

/// Reads the payload of a path, and whether it stands alone.
pub(in crate::store) fn decode_path(bytes: &[u8]) -> Result<(Path, bool), PackError> {
    if bytes.first() == Some(&PATH_VERSION) {
        return decode_as(PATH_VERSION, bytes);
    }
    decode(bytes).map(|path| (path, false))
}

/// Writes the payload of a cache.
pub(in crate::store) fn encode_cache(
    cache: &Cache,
    limits: CacheLimits,
) -> Result<Vec<u8>, PackError> {
    postcard::to_stdvec(&(CACHE_VERSION, cache, limits)).map_err(PackError::Payload)
}

/// Reads the payload of a cache, and its limits; none from before there were any.
pub(in crate::store) fn decode_cache(bytes: &[u8]) -> Result<(Cache, CacheLimits), PackError> {
    if bytes.first() == Some(&CACHE_VERSION) {
        return decode_as(CACHE_VERSION, bytes);
    }
    decode(bytes).map(|cache| (cache, CacheLimits::default()))
}

/// Reads any other payload.
pub(in crate::store) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PackError> {
    decode_as(VERSION, bytes)
}

/// Reads a payload of a version that has no bytes behind it.
fn decode_as<T: DeserializeOwned>(expected: u8, bytes: &[u8]) -> Result<T, PackError> {
    let ((version, payload), rest) =
        postcard::take_from_bytes::<(u8, T)>(bytes).map_err(PackError::Payload)?;
    if version == expected && rest.is_empty() {
        Ok(payload)
    } else {
        Err(PackError::Version(version))
    }
}
