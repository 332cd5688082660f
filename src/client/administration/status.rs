//! How a box is, as administration shows it.

use serde::{Deserialize, Serialize};

use crate::client::administration::{CacheFacts, CollectionFacts, SpaceFacts};

/// How the box is. Times are seconds since 1970 by the box's clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoxStatus {
    /// Its version of larder.
    pub version: String,
    /// What it calls itself.
    pub name: String,
    /// Who it is.
    pub device_id: String,
    /// When it started.
    pub started_at: u64,
    /// Its clock.
    pub now: u64,
    /// Its caches, by name.
    pub caches: Vec<CacheFacts>,
    /// What is in its store.
    pub store: StoreFacts,
    /// Pushes since it started.
    pub pushes: PushFacts,
    /// Who is connected.
    #[serde(flatten)]
    pub connections: ConnectionFacts,
    /// How checks stand.
    pub check: CheckFacts,
    /// How collections stand; a box of before there were any does not say.
    #[serde(default)]
    pub collection: CollectionFacts,
    /// Room on its disk.
    #[serde(default)]
    pub space: SpaceFacts,
    /// Whether its clock is believed; nothing from a box that does not say.
    pub clock: Option<ClockFacts>,
    /// What is wrong with the certificate for HTTPS, if anything.
    pub certificate_problem: Option<String>,
    /// What the disk of its data folder refused, if it takes no bytes.
    pub disk_problem: Option<String>,
}

/// Connections, now and since the box started; nothing from a box that does not say.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ConnectionFacts {
    /// HTTP connections that are open.
    pub http_connections: Option<u64>,
    /// HTTP connections that were closed at once, for want of room.
    pub http_connections_refused: Option<u64>,
    /// Connections of pushers and administrators that are open.
    pub quic_connections: Option<u64>,
    /// Connections of theirs that were refused, for want of room.
    pub quic_connections_refused: Option<u64>,
}

/// Whether a box's clock is believed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClockFacts {
    /// Whether what ends by age may end.
    pub trusted: bool,
    /// How many seconds the box has to run until a clock that goes on is trusted again.
    pub pause_left: u64,
    /// Why it is not trusted.
    pub problem: Option<String>,
}

/// What is in a box's store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreFacts {
    /// Paths that are served.
    pub paths_visible: u64,
    /// Paths that wait for references.
    pub paths_hidden: u64,
    /// Different NARs.
    pub nars: u64,
    /// Their bytes, uncompressed.
    pub nar_bytes: u64,
    /// Different chunks.
    pub chunks: u64,
    /// Chunks that are known to be damaged.
    pub damaged_chunks: u64,
    /// Files of chunks.
    pub pack_files: u64,
    /// Their bytes.
    pub pack_bytes: u64,
}

/// Pushes, counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PushFacts {
    /// Paths that are being pushed now.
    pub under_way: u64,
    /// Paths that were stored.
    pub stored: u64,
    /// Paths that were there already.
    pub known: u64,
    /// Paths that were stored and not shown.
    pub hidden: u64,
    /// Paths that were there with another NarHash.
    pub kept_first: u64,
    /// Paths that were refused.
    pub refused: u64,
}

/// How checks stand.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckFacts {
    /// The one that runs.
    pub running: Option<RunningCheck>,
    /// The last one that ended since the box started.
    pub last: Option<EndedCheck>,
}

/// How the last backup stands that a box was asked for.
#[derive(Clone, Debug, Deserialize)]
pub struct BackupFacts {
    /// Its number.
    pub id: u64,
    /// When it was asked for; what it has is not older.
    pub made_at: u64,
    /// Bytes that were copied and packed.
    pub done_bytes: u64,
    /// All that there are to copy and to pack; 0 before it is known.
    pub total_bytes: u64,
    /// Its bytes, once it can be fetched.
    pub bytes: Option<u64>,
    /// Why it could not be made.
    pub error: Option<String>,
}

/// A check that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCheck {
    /// Since when.
    pub started_at: u64,
    /// Bytes of packs that were read.
    pub done_bytes: u64,
    /// Bytes of packs that there are; 0 before it is known.
    pub total_bytes: u64,
}

/// A check that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedCheck {
    /// When it began.
    pub started_at: u64,
    /// When it ended.
    pub ended_at: u64,
    /// What kept it from looking.
    pub error: Option<String>,
    /// Sound records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Paths in the index.
    pub paths: u64,
    /// What is damaged or lost, a sentence each.
    pub damaged: Vec<String>,
}

impl EndedCheck {
    /// Whether it looked at everything and all was well.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.error.is_none() && self.damaged.is_empty()
    }
}
