//! What a push tells while it runs and when it is over, as values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::push::send::PushError;
use crate::formats::{PathInfo, StorePath};
use crate::transports::quic::RequestError;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// This much NAR was read, or need not be.
    Read {
        /// Bytes of NAR.
        bytes: u64,
    },
    /// This much NAR has to be read again.
    Unread {
        /// Bytes of NAR.
        bytes: u64,
    },
    /// A path is done with.
    Finished {
        /// Which.
        path: StorePath,
    },
    /// A build log or a realisation stayed here; the path that it belongs to goes all the same.
    LeftBehind {
        /// Its name.
        what: String,
        /// Why, on one line.
        why: String,
    },
    /// The connection broke and is made anew.
    Reconnecting {
        /// Counts from 1, and from 1 again after some progress.
        attempt: u32,
        /// After this pause.
        pause: Duration,
        /// What broke, on one line.
        why: String,
    },
}

/// Who listens. Called from many threads, and must be quick.
#[derive(Clone)]
pub struct Tell(Arc<dyn Fn(PushEvent) + Send + Sync>);

impl Tell {
    /// Tells `listener`.
    pub fn to(listener: impl Fn(PushEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    pub(super) fn tell(&self, event: PushEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tell")
    }
}

/// A path that the box keeps but does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenPath {
    /// The path.
    pub path: StorePath,
    /// Base names of the references that it waits for.
    pub missing: Vec<String>,
}

/// A path that did not get there.
#[derive(Debug)]
pub struct FailedPath {
    /// The path.
    pub path: StorePath,
    /// Why not.
    pub why: RequestError,
}

/// What came of a push. Each path of the closure is counted or listed exactly once.
#[derive(Debug, Default)]
pub struct PushReport {
    /// Paths that are visible in the cache now and were not before.
    pub stored: usize,
    /// Paths that were there already.
    pub known: usize,
    /// Paths that are kept and not shown.
    pub hidden: Vec<HiddenPath>,
    /// Paths that are there with another NarHash; the box kept the first.
    pub kept_first: Vec<StorePath>,
    /// Paths that the box refused or that could not be read.
    pub failed: Vec<FailedPath>,
    /// Paths that nobody got to, because the push was [`stopped`](Self::stopped).
    pub not_sent: Vec<PathInfo>,
    /// What ended the push early.
    pub stopped: Option<PushError>,
    /// Bytes on the wire, everything counted.
    pub sent_bytes: u64,
    /// From the first question to the last answer.
    pub took: Duration,
}
