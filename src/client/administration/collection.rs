//! Collections, as administration shows them.

use serde::{Deserialize, Serialize};

use crate::formats::CacheName;

/// A collection to be made.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NewCollection {
    /// Only paths of this cache leave; `None`: of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheName>,
    /// Bytes that are to be free on the box's disk in the end; `None`: what its settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_free_bytes: Option<u64>,
    /// Nothing leaves: it is only told what would.
    pub dry_run: bool,
}

/// How collections stand. Times are seconds since 1970 by the box's clock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CollectionFacts {
    /// Since when one runs.
    pub running_since: Option<u64>,
    /// The last one that ended since the box started.
    pub last: Option<EndedCollection>,
}

/// A collection that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedCollection {
    /// When it began.
    pub started_at: u64,
    /// When it ended.
    pub ended_at: u64,
    /// Whether it only told what would go.
    pub dry_run: bool,
    /// What kept it from its end.
    pub error: Option<String>,
    /// Paths that left, or would: a thousand at most.
    pub paths: Vec<LeavingPath>,
    /// How many they are.
    pub paths_count: u64,
    /// NARs that no path has any more.
    pub nars: u64,
    /// Chunks that no NAR has any more.
    pub chunks: u64,
    /// Packs that were emptied.
    pub packs: u64,
    /// Bytes that became free, or would.
    pub freed_bytes: u64,
    /// Bytes that had to be written anew.
    pub moved_bytes: u64,
}

/// A path that leaves its cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeavingPath {
    /// The name of the cache.
    pub cache: String,
    /// The store path.
    pub path: String,
    /// Bytes of its NAR as it is stored.
    pub file_size: u64,
    /// Why: `retention`, `quota`, `box-quota` or `space`; empty from a box that does not say.
    #[serde(default)]
    pub reason: String,
}

/// Room on the box's disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceFacts {
    /// All there is.
    pub total_bytes: u64,
    /// What may still be written.
    pub available_bytes: u64,
    /// What has to stay free.
    pub kept_free_bytes: u64,
    /// What pushes under way may still take.
    pub promised_bytes: u64,
    /// Bytes of NARs of all caches together beyond which paths leave.
    pub quota_bytes: Option<u64>,
}
