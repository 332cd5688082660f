//! Single paths of a cache, as administration shows them.

use serde::{Deserialize, Serialize};

use crate::client::administration::PushRecord;

/// What a box knows of a path of a cache.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PathFacts {
    /// The store path.
    pub path: String,
    /// SHA-256 of its NAR.
    pub nar_hash: String,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Bytes of its NAR as it is stored.
    pub file_size: u64,
    /// What it refers to.
    pub references: Vec<String>,
    /// The derivation that it was built from.
    pub deriver: Option<String>,
    /// Its content address.
    pub ca: Option<String>,
    /// The signatures that it is served with.
    pub signatures: Vec<String>,
    /// Whether it is served.
    pub visible: bool,
    /// Whether its NAR is known to be damaged.
    pub damaged: bool,
    /// References that it waits for.
    pub missing: Vec<String>,
    /// Who pushed it.
    pub push: Option<PushRecord>,
}

/// Paths that were removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemovedPaths {
    /// The store paths, what refers to others first.
    pub paths: Vec<String>,
    /// Bytes that became free at once.
    pub freed_bytes: u64,
}
