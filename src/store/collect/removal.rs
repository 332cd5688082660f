//! Taking one path out of a cache because its owner says so, with what refers to it if he says
//! that too; and its bytes at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::formats::{StorePath, StorePathHash};
use crate::store::collect::mark::Marks;
use crate::store::collect::{CollectReport, remove_nars, remove_path, step, sweep};
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::{cache_chunks, chunks, paths, pins, uploads, visibility};
use crate::store::shared::Inner;

/// A path that is to go.
#[derive(Clone, Copy, Debug)]
pub struct RemovePath {
    /// The cache.
    pub cache: CacheId,
    /// The path.
    pub path: StorePathHash,
    /// Whether what refers to it goes too.
    pub with_referrers: bool,
    /// Whether its bytes go at once, as far as nothing else has them.
    pub purge: bool,
}

/// What became of a path that was to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The cache does not have it.
    NoSuchPath,
    /// These paths of the cache refer to it, themselves or by way of others. Nothing was removed.
    Needed(Vec<StorePath>),
    /// One of the paths that would go is pinned. Nothing was removed.
    Pinned(StorePath),
    /// A push came in between. Nothing was removed.
    Changed,
    /// These are gone; what refers to others came first.
    Removed {
        /// The paths.
        paths: Vec<StorePath>,
        /// Bytes that became free, of a purge.
        freed_bytes: u64,
    },
}

/// Removes a path. Blocking; reads all references of the cache.
pub(in crate::store) fn remove(
    inner: &Inner,
    what: RemovePath,
    left: &dyn Fn(&[StorePathHash]),
) -> Result<Removal, StoreError> {
    let _raised = inner.shared.barrier.raise().ok_or(StoreError::CollectionRuns)?;
    // The group that is being committed may have begun before the barrier was up.
    inner.writer.run_blocking(|_group| Ok(()))?;
    let Some(found) = Found::read(inner, what)? else { return Ok(Removal::NoSuchPath) };
    if let Some(pinned) = found.pinned {
        return Ok(Removal::Pinned(pinned));
    }
    let referrers: Vec<_> =
        found.paths.iter().filter(|path| path.hash() != what.path).cloned().collect();
    if !referrers.is_empty() && !what.with_referrers {
        return Ok(Removal::Needed(referrers));
    }
    let mut report = CollectReport::default();
    if !take_out(inner, what.cache, &found, &mut report.steps)? {
        return Ok(Removal::Changed);
    }
    left(&found.paths.iter().map(StorePath::hash).collect::<Vec<_>>());
    if what.purge {
        forget_uploads(inner, &found.chunks, &mut report.steps)?;
        remove_nars(inner, &mut report.steps)?;
        let marks = Arc::new(Marks::read(inner, &HashSet::new())?);
        sweep::purge(inner, &marks, &found.packs, &mut report)?;
    }
    Ok(Removal::Removed { paths: found.paths, freed_bytes: report.freed_bytes })
}

/// Removes the paths in one commit, unless a push touched one of them since they were read.
fn take_out(
    inner: &Inner,
    cache: CacheId,
    found: &Found,
    steps: &mut Vec<Duration>,
) -> Result<bool, StoreError> {
    let going: Vec<_> = found.paths.iter().map(StorePath::hash).collect();
    let waiting = found.waiting.clone();
    step(inner, steps, move |group| {
        if going.iter().any(|path| group.shared.barrier.has_path(cache, *path)) {
            return Ok(false);
        }
        for path in &going {
            remove_path(group, cache, *path)?;
        }
        for (gone, hidden) in &waiting {
            visibility::wait(group.tx, cache, *gone, *hidden)?;
        }
        Ok(true)
    })
}

/// Chunks at a time of which it is forgotten who sent them.
const CHUNKS_AT_A_TIME: usize = 512;

/// Forgets who sent these chunks: what somebody sent within a day stays, and would stay here.
fn forget_uploads(
    inner: &Inner,
    numbers: &[ChunkNumber],
    steps: &mut Vec<Duration>,
) -> Result<(), StoreError> {
    for some in numbers.chunks(CHUNKS_AT_A_TIME) {
        let some = some.to_vec();
        step(inner, steps, move |group| {
            some.iter().try_for_each(|number| uploads::forget(group.tx, *number))
        })?;
    }
    Ok(())
}

/// What is there of a path, and what goes with it.
struct Found {
    /// What would go: referrers before what they refer to, the path last.
    paths: Vec<StorePath>,
    /// One of them that is pinned.
    pinned: Option<StorePath>,
    /// Which of them hidden paths that stay have to wait for, and these.
    waiting: Vec<(StorePathHash, StorePathHash)>,
    /// Their chunks, and the packs that have them.
    chunks: Vec<ChunkNumber>,
    packs: HashSet<u32>,
}

impl Found {
    fn read(inner: &Inner, what: RemovePath) -> Result<Option<Self>, StoreError> {
        let RemovePath { cache, path, .. } = what;
        inner.readers.read(|connection| {
            if paths::get(connection, cache, path)?.is_none() {
                return Ok(None);
            }
            let mut going = vec![path];
            loop {
                let before = going.len();
                paths::for_each_reference(connection, cache, |from, visible, to| {
                    if visible && going.contains(&to) && !going.contains(&from) {
                        going.push(from);
                    }
                })?;
                if going.len() == before {
                    break;
                }
            }
            let mut waiting = Vec::new();
            paths::for_each_reference(connection, cache, |from, visible, to| {
                if !visible && going.contains(&to) && !going.contains(&from) {
                    waiting.push((to, from));
                }
            })?;
            let roots = pins::roots(connection, cache)?;
            let mut found = Self {
                paths: Vec::new(),
                pinned: None,
                waiting,
                chunks: Vec::new(),
                packs: HashSet::new(),
            };
            for hash in going.iter().rev() {
                let Some(record) = paths::get(connection, cache, *hash)? else { continue };
                let numbers = cache_chunks::chunks_of(connection, record.nar.id)?;
                let rows = chunks::rows(connection, &numbers)?.into_iter().flatten();
                found.packs.extend(rows.map(|row| row.location.pack));
                found.chunks.extend(numbers);
                if roots.contains(hash) {
                    found.pinned = Some(record.info.store_path.clone());
                }
                found.paths.push(record.info.store_path);
            }
            Ok(Some(found))
        })
    }
}
