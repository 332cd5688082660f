//! Which paths leave.
//!
//! Of each cache every path is read once into memory, 48 bytes each, for how many visible paths
//! refer to it: whoever is referred to stays. What is left is taken by the order of last uses, and
//! may set free what it referred to.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use rusqlite::Connection;

use crate::formats::StorePathHash;
use crate::store::collect::limits::Beyond;
use crate::store::collect::mark::Marks;
use crate::store::collect::{CollectRequest, LeavingPath, LeavingReason};
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::index::nars::NarId;
use crate::store::index::paths::PathUse;
use crate::store::index::{caches, nars, paths, pins};
use crate::store::shared::Inner;
use crate::store::uses::Use;

/// What a collection will do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Paths in the order in which they leave: referrers before what they refer to.
    pub(super) leaving: Vec<LeavingPath>,
    /// What hidden paths refer to, and which.
    hidden: Vec<((CacheId, StorePathHash), StorePathHash)>,
    /// NARs that no path will have, and chunks that no NAR will have, with their bytes.
    pub(super) nars: u64,
    pub(super) dead_chunks: u64,
    pub(super) dead_bytes: u64,
}

impl Plan {
    /// Takes paths until enough would become free, or none is left that may leave.
    pub(super) fn make(inner: &Inner, request: &CollectRequest) -> Result<Self, StoreError> {
        let mut plan = Self::default();
        let mut candidates = None;
        let mut gone_nars: HashSet<_> =
            inner.readers.read(nars::all_without_path)?.into_iter().collect();
        let quota = inner.room.quota_bytes;
        let beyond = inner.readers.read(|it| Beyond::read(it, request, quota))?;
        if !beyond.is_nothing() {
            let candidates = candidates.insert(Candidates::read(inner, request.cache)?);
            plan.hidden.append(&mut candidates.hidden);
            let more = candidates.take_beyond(inner, &beyond)?;
            plan.add(inner, candidates, more, &mut gone_nars)?;
        }
        loop {
            let (chunks, bytes) = Marks::read(inner, &gone_nars)?.dead();
            (plan.dead_chunks, plan.dead_bytes) = (chunks, bytes);
            plan.nars = u64::try_from(gone_nars.len()).unwrap_or(0);
            let missing = request.free_bytes.saturating_sub(bytes);
            if missing == 0 {
                return Ok(plan);
            }
            let candidates = match &mut candidates {
                Some(candidates) => candidates,
                None => candidates.insert(Candidates::read(inner, request.cache)?),
            };
            plan.hidden.append(&mut candidates.hidden);
            let wanted = |next: &Next| next.taken_bytes < missing;
            let more = candidates.take(inner, LeavingReason::Space, None, wanted)?;
            if more.is_empty() {
                return Ok(plan);
            }
            plan.add(inner, candidates, more, &mut gone_nars)?;
        }
    }

    /// Adds paths, and the NARs that are gone with them.
    fn add(
        &mut self,
        inner: &Inner,
        candidates: &mut Candidates,
        more: Vec<(LeavingPath, NarId)>,
        gone_nars: &mut HashSet<NarId>,
    ) -> Result<(), StoreError> {
        for (leaving, nar) in more {
            if candidates.is_last_of(inner, nar)? {
                gone_nars.insert(nar);
            }
            self.leaving.push(leaving);
        }
        Ok(())
    }

    /// Hidden paths that refer to one of these, which they have to wait for.
    pub(super) fn waiting_for(
        &self,
        some: &[LeavingPath],
    ) -> Vec<((CacheId, StorePathHash), StorePathHash)> {
        if self.hidden.is_empty() {
            return Vec::new();
        }
        let some: HashSet<_> = some.iter().map(|it| (it.cache, it.path.hash())).collect();
        self.hidden.iter().filter(|(to, _)| some.contains(to)).copied().collect()
    }
}

/// Paths that may leave one day, and in which order.
struct Candidates {
    caches: Vec<CacheNodes>,
    /// How many paths have a NAR, of those NARs of which one leaves.
    left_of: HashMap<NarId, u64>,
    hidden: Vec<((CacheId, StorePathHash), StorePathHash)>,
}

struct CacheNodes {
    id: CacheId,
    /// By hash.
    nodes: Vec<Node>,
    /// Last use, place among the nodes: of paths that nothing visible refers to.
    free: BinaryHeap<Reverse<(Use, usize)>>,
}

/// The path that would be taken next.
struct Next {
    used: Use,
    /// Bytes of the NARs that were taken before it.
    taken_bytes: u64,
}

struct Node {
    hash: StorePathHash,
    used: Use,
    nar: NarId,
    referrers: u32,
    visible: bool,
}

impl Candidates {
    fn read(inner: &Inner, only: Option<CacheId>) -> Result<Self, StoreError> {
        inner.readers.read(|connection| {
            let mut all = Self { caches: Vec::new(), left_of: HashMap::new(), hidden: Vec::new() };
            for cache in caches::all(connection)? {
                if only.is_none_or(|only| only == cache.id) {
                    all.read_cache(connection, cache.id)?;
                }
            }
            Ok(all)
        })
    }

    fn read_cache(&mut self, connection: &Connection, cache: CacheId) -> Result<(), StoreError> {
        let mut nodes = Vec::new();
        // In the order of hashes, so that a path is found by bisection.
        paths::for_each_use(connection, cache, |path: PathUse| {
            let PathUse { hash, used, nar, visible } = path;
            nodes.push(Node { hash, used, nar, visible, referrers: 0 });
        })?;
        let hidden = &mut self.hidden;
        paths::for_each_reference(connection, cache, |from, visible, to| {
            if from == to {
                return;
            }
            if !visible {
                hidden.push(((cache, to), from));
            } else if let Ok(at) = nodes.binary_search_by_key(&to, |node| node.hash)
                && let Some(node) = nodes.get_mut(at)
            {
                node.referrers += 1;
            }
        })?;
        // What is pinned is referred to by its pin, and so stays with all that it refers to.
        for root in pins::roots(connection, cache)? {
            if let Ok(at) = nodes.binary_search_by_key(&root, |node| node.hash)
                && let Some(node) = nodes.get_mut(at)
            {
                node.referrers += 1;
            }
        }
        let free = nodes.iter().enumerate().filter(|(_, node)| node.referrers == 0);
        let free = free.map(|(at, node)| Reverse((node.used, at))).collect();
        self.caches.push(CacheNodes { id: cache, nodes, free });
        Ok(())
    }

    /// Takes what has to go by the limits: of each cache what is too old, then what is beyond its
    /// quota, and what all of them have beyond the box's then.
    fn take_beyond(
        &mut self,
        inner: &Inner,
        beyond: &Beyond,
    ) -> Result<Vec<(LeavingPath, NarId)>, StoreError> {
        let mut taken = Vec::new();
        let bytes =
            |of: &[(LeavingPath, NarId)]| of.iter().map(|(it, _)| it.file_size).sum::<u64>();
        for of in &beyond.caches {
            let Some(at) = self.caches.iter().position(|it| it.id == of.cache) else { continue };
            let is_old = |next: &Next| of.old_before.is_some_and(|place| next.used < place);
            let old = self.take(inner, LeavingReason::Retention, Some(at), is_old)?;
            let rest = of.bytes.saturating_sub(bytes(&old));
            taken.extend(old);
            let is_beyond = |next: &Next| next.taken_bytes < rest;
            taken.extend(self.take(inner, LeavingReason::CacheQuota, Some(at), is_beyond)?);
        }
        let rest = beyond.box_bytes.saturating_sub(bytes(&taken));
        let is_beyond = |next: &Next| next.taken_bytes < rest;
        taken.extend(self.take(inner, LeavingReason::BoxQuota, None, is_beyond)?);
        Ok(taken)
    }

    /// Takes paths by the order of their last uses, for as long as `wanted` says so of the next:
    /// of the cache at `only`, or of all.
    fn take(
        &mut self,
        inner: &Inner,
        reason: LeavingReason,
        only: Option<usize>,
        wanted: impl Fn(&Next) -> bool,
    ) -> Result<Vec<(LeavingPath, NarId)>, StoreError> {
        inner.readers.read(|connection| {
            let mut taken = Vec::new();
            let mut taken_bytes = 0;
            while let Some((used, cache, at)) = self.next(only)
                && wanted(&Next { used, taken_bytes })
            {
                if let Some(cache) = self.caches.get_mut(cache) {
                    cache.free.pop();
                }
                if let Some((leaving, nar)) = self.leave(connection, cache, at, reason)? {
                    taken_bytes += leaving.file_size;
                    taken.push((leaving, nar));
                }
            }
            Ok(taken)
        })
    }

    /// The path that was used longest ago: its last use, its cache, and its place there.
    fn next(&self, only: Option<usize>) -> Option<(Use, usize, usize)> {
        let caches = self.caches.iter().enumerate();
        let caches = caches.filter(|(cache, _)| only.is_none_or(|only| only == *cache));
        caches
            .filter_map(|(cache, of)| of.free.peek().map(|Reverse((used, at))| (*used, cache, *at)))
            .min()
    }

    /// Takes a path out, and frees what only it referred to.
    fn leave(
        &mut self,
        connection: &Connection,
        index: usize,
        at: usize,
        reason: LeavingReason,
    ) -> Result<Option<(LeavingPath, NarId)>, StoreError> {
        let Some(CacheNodes { id: cache, nodes, free }) = self.caches.get_mut(index) else {
            return Ok(None);
        };
        let Some(node) = nodes.get(at) else { return Ok(None) };
        let (hash, nar, visible) = (node.hash, node.nar, node.visible);
        let Some(record) = paths::get(connection, *cache, hash)? else { return Ok(None) };
        let references = record.info.references.iter().map(|it| it.hash());
        for reference in references.filter(|to| visible && *to != hash) {
            if let Ok(to) = nodes.binary_search_by_key(&reference, |node| node.hash)
                && let Some(node) = nodes.get_mut(to)
            {
                node.referrers = node.referrers.saturating_sub(1);
                if node.referrers == 0 {
                    free.push(Reverse((node.used, to)));
                }
            }
        }
        let file_size = record.nar.file_size;
        let path = record.info.store_path;
        let leaving = LeavingPath { cache: *cache, path, file_size, reason };
        Ok(Some((leaving, nar)))
    }

    /// Whether no path is left that has the NAR, after one more of them has left.
    fn is_last_of(&mut self, inner: &Inner, nar: NarId) -> Result<bool, StoreError> {
        let left = match self.left_of.get_mut(&nar) {
            Some(left) => left,
            None => {
                let count = inner.readers.read(|it| nars::count_paths(it, nar))?;
                self.left_of.entry(nar).or_insert(count)
            }
        };
        *left = left.saturating_sub(1);
        Ok(*left == 0)
    }
}
