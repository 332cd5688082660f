//! Single paths of caches: what is known of one, and taking one out.

use std::sync::Arc;

use tracing::info;

use crate::formats::{CacheName, StorePath, StorePathHash};
use crate::services::narinfo_cache::NarInfoCache;
use crate::services::push_log::{LoggedPush, PushLog};
use crate::services::signing;
use crate::store::{Cache, PathRecord, Removal, RemovePath, Store, StoreError};

/// What is known of a path of a cache.
#[derive(Clone, Debug)]
pub struct PathFacts {
    /// The path, with the signatures that it is served with.
    pub record: PathRecord,
    /// References that are not visible, which it waits for.
    pub missing: Vec<StorePath>,
    /// Who pushed it.
    pub push: Option<LoggedPush>,
}

/// Why a path was not taken out; nothing was then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemovePathError {
    /// The cache does not have it.
    #[error("the cache '{0}' does not have that path")]
    NoSuchPath(CacheName),
    /// Others refer to it.
    #[error(
        "{} of the cache's paths refer to it: {}{}; `--with-referrers` removes them too",
        .0.len(), named(.0), if .0.len() > NAMED_MAX { " and others" } else { "" }
    )]
    Needed(Vec<StorePath>),
    /// It is pinned, or what refers to it is.
    #[error(
        "{0} is pinned; `larder pin list` shows as what, and `larder pin remove` lets go of it"
    )]
    Pinned(StorePath),
    /// It was pushed, or referred to, meanwhile.
    #[error("a push came in between; try again")]
    Changed,
    /// The store failed, or a collection runs.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Paths that an error names.
const NAMED_MAX: usize = 5;

fn named(paths: &[StorePath]) -> String {
    let names = paths.iter().take(NAMED_MAX).map(StorePath::base_name);
    names.collect::<Vec<_>>().join(", ")
}

/// Paths that were taken out.
#[derive(Clone, Debug)]
pub struct RemovedPaths {
    /// The paths, what refers to others first.
    pub paths: Vec<StorePath>,
    /// Bytes that became free, where they had to go at once.
    pub freed_bytes: u64,
}

/// Knows single paths.
#[derive(Clone, Debug)]
pub struct Paths {
    store: Store,
    narinfos: Arc<NarInfoCache>,
    push_log: PushLog,
}

impl Paths {
    pub(super) const fn new(store: Store, narinfos: Arc<NarInfoCache>, push_log: PushLog) -> Self {
        Self { store, narinfos, push_log }
    }

    /// What is known of a path.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the index cannot be read.
    pub async fn show(
        &self,
        cache: &Arc<Cache>,
        path: StorePathHash,
    ) -> Result<Option<PathFacts>, StoreError> {
        let Some(mut record) = self.store.path(cache.id, path).await? else { return Ok(None) };
        record.info.signatures = signing::signatures(cache, &record.info);
        let mut missing = Vec::new();
        for reference in record.info.references.iter().filter(|it| it.hash() != path) {
            let found = self.store.path(cache.id, reference.hash()).await?;
            if !found.is_some_and(|found| found.visible) {
                missing.push(reference.clone());
            }
        }
        let push = self.push_log.of_path(cache, path).await?;
        Ok(Some(PathFacts { record, missing, push }))
    }

    /// Takes a path out, with what refers to it if that is said; with `purge` its bytes go at once,
    /// as far as nothing else has them.
    ///
    /// # Errors
    ///
    /// [`RemovePathError`]; nothing was taken out then.
    pub async fn remove(
        &self,
        cache: &Arc<Cache>,
        path: StorePathHash,
        with_referrers: bool,
        purge: bool,
    ) -> Result<RemovedPaths, RemovePathError> {
        let what = RemovePath { cache: cache.id, path, with_referrers, purge };
        let narinfos = Arc::clone(&self.narinfos);
        let left = Arc::new(move |paths: &[_]| paths.iter().for_each(|it| narinfos.forget(*it)));
        match self.store.remove_path(what, left).await? {
            Removal::NoSuchPath => Err(RemovePathError::NoSuchPath(cache.name.clone())),
            Removal::Needed(referrers) => Err(RemovePathError::Needed(referrers)),
            Removal::Pinned(pinned) => Err(RemovePathError::Pinned(pinned)),
            Removal::Changed => Err(RemovePathError::Changed),
            Removal::Removed { paths, freed_bytes } => {
                for path in &paths {
                    info!(cache = %cache.name, %path, purge, "Removed {path}");
                }
                Ok(RemovedPaths { paths, freed_bytes })
            }
        }
    }
}
