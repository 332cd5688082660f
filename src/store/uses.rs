//! The order in which paths were read or pushed, for collections: a counter, no clock.
//!
//! Uses gather in memory and are written down now and then, many in one commit; a loss of power
//! costs the order of the last minutes, and no path.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::formats::StorePathHash;
use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::group::Group;
use crate::store::index::caches::CacheId;
use crate::store::index::{meta, paths, use_days};

/// Locks that do not wait for each other.
const SHARDS: usize = 16;
/// Paths that each lock remembers, 40 bytes each; what is used beyond is not noted until they
/// are written down.
const PATHS_MAX: usize = 16_384;

/// A place in the order; the higher, the later.
pub(in crate::store) type Use = u64;

/// What was used since it was written down last.
#[derive(Debug)]
pub(in crate::store) struct Uses {
    next: AtomicU64,
    shards: [Mutex<Shard>; SHARDS],
}

type Shard = HashMap<(CacheId, StorePathHash), Use>;

impl Uses {
    /// Goes on behind what was written down.
    pub(in crate::store) fn after(last: Use) -> Self {
        Self { next: AtomicU64::new(last + 1), shards: Default::default() }
    }

    /// The next place in the order.
    pub(in crate::store) fn next(&self) -> Use {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes that a path was read, if the cache has it.
    pub(in crate::store) fn note(&self, cache: CacheId, path: StorePathHash) {
        let mut shard = self.shard(path);
        let place = self.next();
        if shard.len() < PATHS_MAX || shard.contains_key(&(cache, path)) {
            shard.insert((cache, path), place);
        }
    }

    /// Writes down what was noted, and how far the order has come; with the day where it is `now`.
    pub(in crate::store) fn write(
        &self,
        group: &Group<'_>,
        now: Option<UnixSeconds>,
    ) -> Result<(), StoreError> {
        for shard in &self.shards {
            let noted = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
            for ((cache, path), place) in noted {
                paths::set_used(group.tx, cache, path, place)?;
            }
        }
        let next = self.next.load(Ordering::Relaxed);
        if let Some(now) = now {
            use_days::note(group.tx, now, next)?;
        }
        // In one commit with the day, or a crash would let later uses come before it.
        meta::set_uses(group.tx, next)
    }

    fn shard(&self, path: StorePathHash) -> MutexGuard<'_, Shard> {
        let [.., last] = path.as_bytes();
        let shard = &self.shards[usize::from(*last) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
