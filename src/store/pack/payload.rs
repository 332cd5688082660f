//! What the records say that are no chunks: postcard, the first byte a version.
//!
//! A payload is read back with what its version has; FORMAT.md lists the fields.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::formats::signature::Signature;
use crate::formats::{
    AttachmentName, CacheName, FilePath, Keep, PathInfo, PinName, Sha256Hash, StorePath,
    StorePathHash,
};
use crate::store::UnixSeconds;
use crate::store::pack::PackError;

/// The version of every payload that is written.
const VERSION: u8 = 1;

/// One chunk of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store) struct ManifestChunk {
    pub(in crate::store) id: [u8; 32],
    pub(in crate::store) raw_len: u32,
    pub(in crate::store) stored_len: u32,
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

/// Reads a payload of this version that has no bytes behind it.
pub(in crate::store) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, PackError> {
    let ((version, payload), rest) =
        postcard::take_from_bytes::<(u8, T)>(bytes).map_err(PackError::Payload)?;
    if version == VERSION && rest.is_empty() {
        Ok(payload)
    } else {
        Err(PackError::Version(version))
    }
}
