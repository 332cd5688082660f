//! What the limits of caches and box ask of a collection.

use rusqlite::Connection;

use crate::store::collect::CollectRequest;
use crate::store::error::StoreError;
use crate::store::index::caches::{Cache, CacheId};
use crate::store::index::{caches, paths, use_days};
use crate::store::uses::Use;

/// What is beyond some limit; nothing has to be looked for where all are `None`.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    /// By cache.
    pub(super) caches: Vec<BeyondCache>,
    /// By how many bytes all caches together are beyond the box's quota.
    pub(super) box_bytes: u64,
}

/// What of one cache is beyond its limits.
#[derive(Debug)]
pub(super) struct BeyondCache {
    pub(super) cache: CacheId,
    /// Paths that were used last before that are too old.
    pub(super) old_before: Option<Use>,
    /// By how many bytes it is beyond its quota.
    pub(super) bytes: u64,
}

impl Beyond {
    /// Compares every cache that the request is about with its limits, and their sum with
    /// `box_quota`; the latter not where it is about one cache.
    pub(super) fn read(
        connection: &Connection,
        request: &CollectRequest,
        box_quota: Option<u64>,
    ) -> Result<Self, StoreError> {
        let box_quota = box_quota.filter(|_| request.cache.is_none());
        let (mut beyond, mut sum) = (Self::default(), 0_u64);
        for cache in caches::all(connection)? {
            if request.cache.is_some_and(|only| only != cache.id) {
                continue;
            }
            let quota = cache.limits.quota_bytes;
            if quota.is_some() || box_quota.is_some() {
                let stored = paths::stored_bytes(connection, cache.id)?;
                sum = sum.saturating_add(stored);
                let bytes = quota.map_or(0, |quota| stored.saturating_sub(quota));
                beyond.add(connection, request, &cache, bytes)?;
            } else {
                beyond.add(connection, request, &cache, 0)?;
            }
        }
        beyond.box_bytes = box_quota.map_or(0, |quota| sum.saturating_sub(quota));
        Ok(beyond)
    }

    /// Whether nothing is.
    pub(super) const fn is_nothing(&self) -> bool {
        self.caches.is_empty() && self.box_bytes == 0
    }

    fn add(
        &mut self,
        connection: &Connection,
        request: &CollectRequest,
        cache: &Cache,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let old_before = old_before(connection, request, cache)?;
        if old_before.is_some() || bytes > 0 {
            self.caches.push(BeyondCache { cache: cache.id, old_before, bytes });
        }
        Ok(())
    }
}

/// Before which place of the order of uses paths are too old, if some are.
fn old_before(
    connection: &Connection,
    request: &CollectRequest,
    cache: &Cache,
) -> Result<Option<Use>, StoreError> {
    let (Some(now), Some(days)) = (request.trusted_now, cache.limits.retention_days) else {
        return Ok(None);
    };
    let Some(place) = use_days::before(connection, now, days)? else { return Ok(None) };
    Ok(paths::has_used_before(connection, cache.id, place)?.then_some(place))
}
