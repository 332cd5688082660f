//! Collections: on request, every hour, when a push finds no room, and when much was pushed to what
//! has a quota. One at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::formats::CacheName;
use crate::services::caches::Caches;
use crate::services::chain::Chain;
use crate::services::clock::{self, Clock};
use crate::services::metrics::Metrics;
use crate::services::narinfo_cache::NarInfoCache;
use crate::store::{
    Cache, CollectReport, CollectRequest, LeavingPath, Space, Store, StoreError, UnixSeconds,
};

/// How often what nobody needs is taken away. A collection that finds nothing reads the index once.
const EVERY: Duration = Duration::from_secs(60 * 60);
/// What is made free beyond what is wanted just now, so that not every push waits for its own
/// collection: some packs.
const AHEAD_BYTES: u64 = 512 << 20;
/// A collection begins when a quota's so-manieth part was pushed: by so much, and what comes while
/// it runs, a quota may be passed.
const QUOTA_PART: u64 = 16;
/// Paths that a report names; it counts all.
const PATHS_NAMED_MAX: usize = 1000;

/// A collection that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectionRequest {
    /// Only paths of this cache leave; `None`: of all.
    pub cache: Option<CacheName>,
    /// Bytes that are to be free on the disk in the end; `None`: what the settings say.
    pub target_free_bytes: Option<u64>,
    /// Nothing leaves: it is only told what would.
    pub dry_run: bool,
}

/// Why none was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartCollectionError {
    /// Another has not ended.
    #[error("a collection runs already; wait for its end")]
    Runs,
    /// There is no such cache.
    #[error("there is no cache called '{0}'; `larder cache list` shows those that there are")]
    NoSuchCache(CacheName),
}

/// How collections stand.
#[derive(Clone, Debug, Default)]
pub struct CollectionState {
    /// Since when one runs.
    pub running_since: Option<UnixSeconds>,
    /// The last one that ended since the box started.
    pub last: Option<EndedCollection>,
}

/// A collection that has ended.
#[derive(Clone, Debug)]
pub struct EndedCollection {
    /// When it began.
    pub started_at: UnixSeconds,
    /// When it ended.
    pub ended_at: UnixSeconds,
    /// Whether it only told what would go.
    pub dry_run: bool,
    /// What it did; or, for people, what kept it.
    pub result: Result<CollectionReport, String>,
}

/// What a collection did, or would do.
#[derive(Clone, Debug, Default)]
pub struct CollectionReport {
    /// Paths that left, the first thousand: the name of the cache, the path, bytes of its NAR.
    pub paths: Vec<(String, LeavingPath)>,
    /// How many left.
    pub paths_count: u64,
    /// All else.
    pub store: CollectReport,
}

/// Takes away what nobody needs.
#[derive(Clone, Debug)]
pub struct Collections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    caches: Caches,
    narinfos: Arc<NarInfoCache>,
    metrics: Arc<Metrics>,
    clock: Clock,
    state: Mutex<State>,
    asked: Notify,
    /// Bytes of NARs that were pushed since a collection began for a quota.
    pushed_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    shown: CollectionState,
    /// What is asked for and has not begun.
    wanted: Option<CollectionRequest>,
    /// Bytes that pushes wait for, and whom to tell when that was tried.
    wanted_bytes: u64,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Collections {
    pub(super) fn new(
        store: Store,
        caches: Caches,
        narinfos: Arc<NarInfoCache>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            caches,
            narinfos,
            metrics,
            clock,
            state: Mutex::default(),
            asked: Notify::new(),
            pushed_bytes: AtomicU64::new(0),
        }))
    }

    /// Asks for a collection; it runs in the background.
    ///
    /// # Errors
    ///
    /// [`StartCollectionError`]; none was started then.
    pub fn start(
        &self,
        request: CollectionRequest,
    ) -> Result<CollectionState, StartCollectionError> {
        if let Some(name) = request.cache.as_ref().filter(|name| self.0.caches.get(name).is_none())
        {
            return Err(StartCollectionError::NoSuchCache(name.clone()));
        }
        let mut state = self.lock();
        if state.shown.running_since.is_some() {
            return Err(StartCollectionError::Runs);
        }
        state.shown.running_since = Some(clock::now());
        state.wanted = Some(request);
        self.0.asked.notify_one();
        Ok(state.shown.clone())
    }

    /// How collections stand now.
    #[must_use]
    pub fn state(&self) -> CollectionState {
        self.lock().shown.clone()
    }

    /// Room on the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::File`] if the system does not tell it.
    pub fn space(&self) -> Result<Space, StoreError> {
        self.0.store.space()
    }

    /// Has a collection free so many bytes and waits for its end: of one that begins after this.
    /// It may find less.
    pub(super) async fn make_room(&self, bytes: u64) {
        let (tell, told) = oneshot::channel();
        {
            let mut state = self.lock();
            state.wanted_bytes += bytes;
            state.waiting.push(tell);
        }
        self.0.asked.notify_one();
        let _box_stops = told.await;
    }

    /// Notes that a NAR of that size was pushed to a cache. Has a collection begin when that may
    /// have brought something a good deal beyond its quota.
    pub(super) fn note_pushed(&self, cache: &Cache, nar_size: u64) {
        let quotas = [cache.limits.quota_bytes, self.0.store.quota_bytes()];
        let Some(least) = quotas.into_iter().flatten().min() else { return };
        let pushed = self.0.pushed_bytes.fetch_add(nar_size, Ordering::Relaxed);
        if pushed.saturating_add(nar_size) >= least / QUOTA_PART {
            self.0.pushed_bytes.store(0, Ordering::Relaxed);
            self.0.asked.notify_one();
        }
    }

    /// Runs the collections that are due or asked for, for ever. When it is dropped one under way
    /// ends with its step, or when the store is closed.
    pub(super) async fn run(&self) {
        let mut due = interval(EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A tick comes at once; a start has other things to do.
        due.reset();
        loop {
            tokio::select! {
                _ = due.tick() => {}
                () = self.0.asked.notified() => {}
            }
            self.run_once().await;
            while self.is_wanted() {
                self.run_once().await;
            }
        }
    }

    fn is_wanted(&self) -> bool {
        let state = self.lock();
        state.wanted.is_some() || !state.waiting.is_empty()
    }

    /// Runs what was asked for; else makes room for the pushes that wait for it.
    async fn run_once(&self) {
        let (request, wanted_bytes, waiting, started_at) = {
            let mut state = self.lock();
            let since = *state.shown.running_since.get_or_insert_with(clock::now);
            match state.wanted.take() {
                // It may be a dry run, or of one cache: that makes nobody room.
                Some(request) => (request, 0, Vec::new(), since),
                None => {
                    let bytes = std::mem::take(&mut state.wanted_bytes);
                    let waiting = std::mem::take(&mut state.waiting);
                    (CollectionRequest::default(), bytes, waiting, since)
                }
            }
        };
        let dry_run = request.dry_run;
        let result = self.collect(request, wanted_bytes).await;
        if let Err(error) = &result {
            warn!(error = %Chain(error), "The collection ended early");
        }
        let result = result.map_err(|error| Chain(&error).to_string());
        let ended = EndedCollection { started_at, ended_at: clock::now(), dry_run, result };
        self.lock().shown = CollectionState { running_since: None, last: Some(ended) };
        for tell in waiting {
            let _may_be_gone = tell.send(());
        }
    }

    async fn collect(
        &self,
        request: CollectionRequest,
        wanted_bytes: u64,
    ) -> Result<CollectionReport, StoreError> {
        let CollectionRequest { cache, target_free_bytes, dry_run } = request;
        let space = self.0.store.space()?;
        let missing = missing_bytes(&space, target_free_bytes, wanted_bytes);
        let all = self.0.caches.all();
        let cache = cache.and_then(|name| self.0.caches.get(&name)).map(|cache| cache.id);
        let narinfos = Arc::clone(&self.0.narinfos);
        let left = Arc::new(move |paths: &[_]| paths.iter().for_each(|it| narinfos.forget(*it)));
        let trusted_now = self.0.clock.trusted_now();
        let request = CollectRequest { cache, free_bytes: missing, dry_run, trusted_now };
        let mut store = self.0.store.collect(request, left).await?;
        if !dry_run {
            self.0.metrics.collected(&store);
        }
        let paths = std::mem::take(&mut store.paths);
        let paths_count = u64::try_from(paths.len()).unwrap_or(u64::MAX);
        let name = |it: &LeavingPath| {
            all.iter().find(|cache| cache.id == it.cache).map(|cache| cache.name.to_string())
        };
        let paths = paths.into_iter().take(PATHS_NAMED_MAX);
        let paths = paths.map(|it| (name(&it).unwrap_or_default(), it)).collect();
        Ok(CollectionReport { paths, paths_count, store })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much more has to become free.
fn missing_bytes(space: &Space, target_free_bytes: Option<u64>, wanted_bytes: u64) -> u64 {
    let kept = space.kept_free_bytes.saturating_add(space.promised_bytes);
    let is_short = wanted_bytes > 0 || space.available_bytes < kept;
    let ahead = if is_short { wanted_bytes.saturating_add(AHEAD_BYTES) } else { 0 };
    let target = target_free_bytes.unwrap_or_else(|| kept.saturating_add(ahead));
    target.saturating_sub(space.available_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space {
        total_bytes: 100 << 30,
        available_bytes: 10 << 30,
        kept_free_bytes: 2 << 30,
        promised_bytes: 0,
        quota_bytes: None,
    };

    #[test]
    fn where_there_is_room_nothing_has_to_become_free() {
        assert_eq!(missing_bytes(&SPACE, None, 0), 0);
        assert_eq!(missing_bytes(&SPACE, Some(10 << 30), 0), 0);
        assert_eq!(missing_bytes(&SPACE, None, 1 << 30), 0);
    }

    #[test]
    fn what_is_wanted_becomes_free_and_some_more() {
        let full = Space { available_bytes: 1 << 30, ..SPACE };
        assert_eq!(missing_bytes(&full, None, 0), (1 << 30) + AHEAD_BYTES);
        assert_eq!(missing_bytes(&full, None, 7), (1 << 30) + AHEAD_BYTES + 7);
        assert_eq!(missing_bytes(&full, Some(5 << 30), 0), 4 << 30);
    }
}
