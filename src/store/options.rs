//! What the owner of a box may choose about the store.

use std::path::{Path, PathBuf};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The data folder; made if missing (its parent must exist).
    pub folder: PathBuf,
    /// Read-only connections to the index, at least 1. Each costs about 1 MiB once it is warm.
    pub readers: usize,
    /// Level of zstd for what the box compresses itself (listings); 1 to 19.
    pub compression_level: i32,
    /// Size at which a pack is sealed and the next one begun, in bytes.
    pub pack_bytes_max: u64,
    /// Bytes that stay free on the disk, whatever is pushed.
    pub min_free_bytes: u64,
    /// Bytes of NARs of all caches, in their stored form and counted for each path, beyond which
    /// paths leave.
    pub quota_bytes: Option<u64>,
}

impl StoreOptions {
    /// Read-only connections where nobody says otherwise.
    pub const READERS: usize = 3;
    /// Level of zstd where nobody says otherwise.
    pub const COMPRESSION_LEVEL: i32 = 3;
    /// Size of a pack where nobody says otherwise: large enough that a disk of 500 GB has some
    /// 800 of them, small enough to be rewritten in a few seconds.
    pub const PACK_BYTES_MAX: u64 = 256 << 20;

    /// Bytes that stay free where nobody says otherwise: for everybody else on the disk.
    pub const MIN_FREE_BYTES: u64 = 1 << 30;

    /// The defaults, in `folder`.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            readers: Self::READERS,
            compression_level: Self::COMPRESSION_LEVEL,
            pack_bytes_max: Self::PACK_BYTES_MAX,
            min_free_bytes: Self::MIN_FREE_BYTES,
            quota_bytes: None,
        }
    }
}
