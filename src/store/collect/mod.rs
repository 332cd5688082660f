//! Collection: paths that have to leave, NARs that no path has, chunks that no NAR has, and packs
//! that are mostly made of such.
//!
//! Order of effects. Paths leave first: by the retention and the quota of their cache, by the box's
//! quota, then for room on the disk; least recently used first and never one that a visible path
//! of its cache refers to; each with a record that ends what stands before it. Then NARs without a
//! path leave the index. Then every chunk is marked that a NAR has, that somebody sent lately or
//! that is promised to a push; and packs with enough unmarked bytes are emptied: what counts is
//! appended again, in steps that each take a commit, and the file goes when nothing in it counts.
//! A crash leaves a pack that was emptied in part, whose records stand in two places; the next
//! collection goes on.
//!
//! What commits touch meanwhile is left alone: see [`barrier`](crate::store::barrier).

mod limits;
mod mark;
mod moving;
mod plan;
mod removal;
mod sweep;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use crate::formats::{StorePath, StorePathHash};
use crate::store::error::StoreError;
use crate::store::group::Group;
use crate::store::index::caches::CacheId;
use crate::store::index::nars::NarId;
use crate::store::index::{caches, meta, nars, paths, visibility};
use crate::store::pack::{Kind, payload};
use crate::store::shared::Inner;
use crate::store::{Store, UnixSeconds};

use mark::Marks;
use plan::Plan;

pub(in crate::store) use removal::remove;
pub use removal::{Removal, RemovePath};
pub(in crate::store) use sweep::finish;

/// Paths, or NARs, that leave in one commit.
const LEAVING_AT_A_TIME: usize = 64;

/// What a collection is to do.
#[derive(Clone, Debug, Default)]
pub struct CollectRequest {
    /// Only paths of this cache leave; `None`: of all.
    pub cache: Option<CacheId>,
    /// Bytes that are to become free on the disk. Paths leave until then; 0: none leaves, and only
    /// what nobody needs is taken away.
    pub free_bytes: u64,
    /// Nothing leaves: it is only told what would.
    pub dry_run: bool,
    /// Seconds since 1970 where the clock is believed; without it nothing leaves by its age.
    pub trusted_now: Option<UnixSeconds>,
}

/// Why a path leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeavingReason {
    /// Nobody has read it for as long as its cache keeps such paths.
    Retention,
    /// Its cache has more than its quota.
    CacheQuota,
    /// All caches together have more than the box's quota.
    BoxQuota,
    /// Room is wanted on the disk.
    Space,
}

/// A path that leaves its cache, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingPath {
    /// The cache.
    pub cache: CacheId,
    /// The path.
    pub path: StorePath,
    /// Bytes of its NAR in its stored form; less becomes free where other NARs share its chunks.
    pub file_size: u64,
    /// Why.
    pub reason: LeavingReason,
}

/// Told of paths that have just left some cache.
pub type OnLeft = Arc<dyn Fn(&[StorePathHash]) + Send + Sync>;

/// What a collection did, or would do.
#[derive(Clone, Debug, Default)]
pub struct CollectReport {
    /// Paths that left.
    pub paths: Vec<LeavingPath>,
    /// NARs that no path has any more.
    pub nars: u64,
    /// Chunks that no NAR has any more; of a real collection, those whose packs were emptied.
    pub chunks: u64,
    /// Bytes that became free on the disk; of a dry run, the bytes of those chunks.
    pub freed_bytes: u64,
    /// Bytes that were written anew, because they lay beside such chunks.
    pub moved_bytes: u64,
    /// Packs that were emptied.
    pub packs: u64,
    /// How long the thread that writes was held, step by step.
    pub steps: Vec<Duration>,
}

/// Collects. Blocking; everything else goes on beside it. `left` is called with paths that have
/// just left.
///
/// # Errors
///
/// [`StoreError::CollectionRuns`] if another one does. After any other error everything that was
/// acknowledged is where it was, and what was done stays done.
pub(in crate::store) fn collect(
    inner: &Inner,
    request: &CollectRequest,
    left: &dyn Fn(&[StorePathHash]),
) -> Result<CollectReport, StoreError> {
    let _raised = inner.shared.barrier.raise().ok_or(StoreError::CollectionRuns)?;
    // The group that is being committed may have begun before the barrier was up; and the order of
    // uses is wanted as it is.
    let now = request.trusted_now;
    inner.writer.run_blocking(move |group| group.shared.uses.write(group, now))?;
    let plan = Plan::make(inner, request)?;
    let mut report = CollectReport::default();
    if request.dry_run {
        report.paths = plan.leaving;
        report.nars = plan.nars;
        report.chunks = plan.dead_chunks;
        report.freed_bytes = plan.dead_bytes;
        return Ok(report);
    }
    report.paths = remove_paths(inner, &plan, left, &mut report.steps)?;
    report.nars = remove_nars(inner, &mut report.steps)?;
    let marks = Arc::new(Marks::read(inner, &HashSet::new())?);
    sweep::sweep(inner, &marks, request.free_bytes > 0, &mut report)?;
    info!(
        paths = report.paths.len(),
        nars = report.nars,
        chunks = report.chunks,
        packs = report.packs,
        freed_bytes = report.freed_bytes,
        moved_bytes = report.moved_bytes,
        "Collected"
    );
    Ok(report)
}

impl Store {
    /// Takes a path out of its cache.
    ///
    /// # Errors
    ///
    /// [`StoreError::CollectionRuns`], or whatever keeps the store from being read or written. If
    /// the bytes could not be taken away then, the path is gone all the same. `left` is told of
    /// the paths as soon as they are.
    pub async fn remove_path(&self, what: RemovePath, left: OnLeft) -> Result<Removal, StoreError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || remove(&inner, what, &*left)).await?
    }
}

/// Runs one step on the thread that writes, and notes how long that was held.
fn step<T: Send + 'static>(
    inner: &Inner,
    steps: &mut Vec<Duration>,
    work: impl FnOnce(&Group<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    // A box that stops does not wait for the end of a collection.
    if inner.windows.is_closed() {
        return Err(StoreError::Closed);
    }
    let (outcome, held) = inner.writer.run_blocking(move |group| {
        let begun = Instant::now();
        let outcome = work(group)?;
        Ok((outcome, begun.elapsed()))
    })?;
    steps.push(held);
    Ok(outcome)
}

/// Takes out the paths of the plan that nothing has touched since; those that left.
fn remove_paths(
    inner: &Inner,
    plan: &Plan,
    left: &dyn Fn(&[StorePathHash]),
    steps: &mut Vec<Duration>,
) -> Result<Vec<LeavingPath>, StoreError> {
    let mut gone = Vec::new();
    let mut kept = HashSet::new();
    for some in plan.leaving.chunks(LEAVING_AT_A_TIME) {
        let some = some.to_vec();
        let waiting = plan.waiting_for(&some);
        let (removed, still_kept) = step(inner, steps, move |group| {
            let mut removed = Vec::new();
            for leaving in some {
                let (cache, hash) = (leaving.cache, leaving.path.hash());
                if group.shared.barrier.has_path(cache, hash) || kept.contains(&(cache, hash)) {
                    // It keeps what it refers to, which comes later in the plan.
                    let references = paths::references(group.tx, cache, hash)?;
                    kept.extend(references.into_iter().map(|reference| (cache, reference)));
                    continue;
                }
                remove_path(group, cache, hash)?;
                for (_gone, hidden) in waiting.iter().filter(|(gone, _)| *gone == (cache, hash)) {
                    visibility::wait(group.tx, cache, hash, *hidden)?;
                }
                removed.push(leaving);
            }
            Ok((removed, kept))
        })?;
        kept = still_kept;
        left(&removed.iter().map(|it| it.path.hash()).collect::<Vec<_>>());
        gone.extend(removed);
    }
    Ok(gone)
}

/// Takes a path out of its cache. Nothing visible may refer to it.
fn remove_path(group: &Group<'_>, cache: CacheId, path: StorePathHash) -> Result<(), StoreError> {
    let record = payload::Delete::Path { cache: caches::uuid(group.tx, cache)?, path };
    group.append(Kind::Delete, &payload::encode(&record)?)?;
    paths::delete(group.tx, cache, path)
}

/// Takes out the NARs that no path has; how many.
fn remove_nars(inner: &Inner, steps: &mut Vec<Duration>) -> Result<u64, StoreError> {
    let mut count = 0;
    let mut after = NarId(0);
    loop {
        let some = inner.readers.read(|it| nars::without_path(it, after, LEAVING_AT_A_TIME))?;
        let Some(last) = some.last() else { return Ok(count) };
        after = *last;
        count += step(inner, steps, move |group| {
            let mut count = 0;
            for nar in some {
                // A path may have come to have it since it was read.
                if let (false, Some(file)) =
                    (nars::has_path(group.tx, nar)?, nars::by_id(group.tx, nar)?)
                {
                    meta::pass_revision(group.tx, file.revision)?;
                    nars::delete(group.tx, nar)?;
                    count += 1;
                }
            }
            Ok(count)
        })?;
    }
}
