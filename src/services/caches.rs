//! The caches of a box, kept in memory as they are in the store.

mod change;
mod snapshot;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::formats::signature::{PublicKey, SecretKey};
use crate::formats::{CacheLimits, CacheName};
use crate::services::auth::Caller;
use crate::services::clock;
use crate::services::keys;
use crate::services::secrets::random;
use crate::store::{Cache, CacheUpdate, NewCache, SigningMode, Store, StoreError};

pub use change::{
    CacheChanges, CacheError, CacheRequest, DESCRIPTION_CHARS_MAX, PRIORITY_DEFAULT, RootPlace,
    SigningRequest,
};
pub use snapshot::Scope;
pub(super) use snapshot::ScopeKey;

use change::{check_description, check_limits, check_priority};
use snapshot::Snapshot;

/// The caches of a box.
#[derive(Clone, Debug)]
pub struct Caches(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    key_host: String,
    /// Replaced as a whole after every change.
    snapshot: RwLock<Arc<Snapshot>>,
    /// Changes under way: what has begun runs to its end also when whoever asked goes away, or
    /// memory would go on with what the store no longer has.
    changes: TaskTracker,
    /// Held from reading a cache to changing it.
    changing: Mutex<()>,
    /// Snapshots so far.
    versions: AtomicU64,
    public_names: watch::Sender<Vec<CacheName>>,
}

impl Caches {
    /// Reads the caches of `store`. Keys of caches that are made later are named after
    /// `key_host`.
    pub(super) async fn open(store: Store, key_host: String) -> Result<Self, StoreError> {
        let snapshot = Snapshot::of(store.caches().await?, 0);
        let public_names = watch::Sender::new(snapshot.public_names());
        Ok(Self(Arc::new(Inner {
            store,
            key_host,
            snapshot: RwLock::new(Arc::new(snapshot)),
            changes: TaskTracker::new(),
            changing: Mutex::new(()),
            versions: AtomicU64::new(1),
            public_names,
        })))
    }

    /// The cache of that name; from memory.
    #[must_use]
    pub fn get(&self, name: &CacheName) -> Option<Arc<Cache>> {
        self.snapshot().all.iter().find(|cache| cache.name == *name).cloned()
    }

    /// All caches, by name; from memory.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Cache>> {
        self.snapshot().all.clone()
    }

    /// Where the caller asks the root: its public caches, and the private ones that the caller
    /// may read; from memory.
    #[must_use]
    pub fn root_scope(&self, caller: Option<&Caller>) -> Scope {
        self.snapshot().root_scope(caller)
    }

    /// Where the caller asks the cache of that name; from memory. `None` for a cache that there
    /// is not, and for a private one that the caller may not read.
    #[must_use]
    pub fn scope(&self, name: &str, caller: Option<&Caller>) -> Option<Scope> {
        self.snapshot().scope(name, caller)
    }

    /// Names of the public caches, and every change of them.
    #[must_use]
    pub fn public_names(&self) -> watch::Receiver<Vec<CacheName>> {
        self.0.public_names.subscribe()
    }

    /// Makes a cache. A managed one gets a new key, which is called `NAME.HOST-1`.
    ///
    /// # Errors
    ///
    /// [`CacheError`]; nothing was made then.
    pub async fn create(&self, request: CacheRequest) -> Result<Arc<Cache>, CacheError> {
        self.to_its_end(|caches| async move { caches.do_create(request).await }).await
    }

    async fn do_create(&self, request: CacheRequest) -> Result<Arc<Cache>, CacheError> {
        let CacheRequest { name, is_public, signing, description, priority, root, limits } =
            request;
        check_description(&description)?;
        check_priority(priority)?;
        check_limits(limits)?;
        let (signing, key, public_keys) = match signing {
            SigningRequest::Managed => {
                (SigningMode::Managed, Some(self.first_key(&name)?), Vec::new())
            }
            SigningRequest::SelfSigned { public_keys } => {
                (SigningMode::SelfSigned, None, public_keys)
            }
        };
        let _no_other = self.0.changing.lock().await;
        let public_keys = keys::check_more(&self.all(), &[], public_keys)?;
        let new = NewCache {
            name,
            is_public,
            signing,
            priority,
            root_position: self.root_position(root),
            description,
            limits,
            key,
            public_keys,
            created_at: clock::now(),
        };
        let made = self.0.store.create_cache(new).await.map_err(|error| match error {
            StoreError::CacheExists(name) => CacheError::Exists(name),
            other => other.into(),
        })?;
        info!(cache = %made.name, public = made.is_public, "Made the cache {}", made.name);
        self.reload().await?;
        Ok(Arc::new(made))
    }

    /// Changes a cache, from the next request on. A cache that becomes managed and never was gets
    /// a key; one that becomes self-signed keeps its keys, unused.
    ///
    /// # Errors
    ///
    /// [`CacheError`]; nothing is otherwise then.
    pub async fn update(
        &self,
        name: &CacheName,
        changes: CacheChanges,
    ) -> Result<Arc<Cache>, CacheError> {
        let name = name.clone();
        self.to_its_end(|caches| async move { caches.do_update(&name, changes).await }).await
    }

    async fn do_update(
        &self,
        name: &CacheName,
        changes: CacheChanges,
    ) -> Result<Arc<Cache>, CacheError> {
        let _no_other = self.0.changing.lock().await;
        let cache = self.get(name).ok_or_else(|| CacheError::NoSuchCache(name.clone()))?;
        let limits = self.limits(&cache, &changes).await?;
        let CacheChanges { is_public, signing, description, priority, root, force, .. } = changes;
        let description = description.unwrap_or_else(|| cache.description.clone());
        check_description(&description)?;
        let priority = priority.unwrap_or(cache.priority);
        check_priority(priority)?;
        let (signing, first_key, public_keys) = self.signing(&cache, signing, force).await?;
        let update = CacheUpdate {
            is_public: is_public.unwrap_or(cache.is_public),
            signing,
            priority,
            root_position: root
                .map_or(cache.root_position, |place| self.moved_to(place, cache.root_position)),
            description,
            limits,
            first_key,
            public_keys,
        };
        let changed = self.0.store.change_cache(cache.id, update).await?;
        info!(cache = %name, public = changed.is_public, "Changed the cache {name}");
        self.reload().await?;
        Ok(Arc::new(changed))
    }

    /// Deletes a cache with its paths, keys and the rights of tokens on it; returns it as it was.
    /// Who reads from it now may finish, who pushes to it is refused. Its room on the disk is
    /// given back when the store is collected.
    ///
    /// # Errors
    ///
    /// [`CacheError`]; it is still there then.
    pub async fn delete(&self, name: &CacheName) -> Result<Arc<Cache>, CacheError> {
        let name = name.clone();
        self.to_its_end(|caches| async move { caches.do_delete(&name).await }).await
    }

    async fn do_delete(&self, name: &CacheName) -> Result<Arc<Cache>, CacheError> {
        let _no_other = self.0.changing.lock().await;
        let cache = self.get(name).ok_or_else(|| CacheError::NoSuchCache(name.clone()))?;
        self.0.store.delete_cache(cache.id).await?;
        info!(cache = %name, "Deleted the cache {name}");
        self.reload().await?;
        Ok(cache)
    }

    /// What becomes of a cache's limits. A quota that paths would have to leave for is refused
    /// where nobody insists.
    async fn limits(
        &self,
        cache: &Cache,
        changes: &CacheChanges,
    ) -> Result<CacheLimits, CacheError> {
        let CacheLimits { retention_days, quota_bytes } = cache.limits;
        let limits = CacheLimits {
            retention_days: changes.retention_days.unwrap_or(retention_days),
            quota_bytes: changes.quota_bytes.unwrap_or(quota_bytes),
        };
        check_limits(limits)?;
        if let Some(Some(quota_bytes)) = changes.quota_bytes
            && !changes.force
        {
            let stored_bytes = self.0.store.stored_bytes(cache.id).await?;
            if stored_bytes > quota_bytes {
                return Err(CacheError::QuotaBelow { stored_bytes, quota_bytes });
            }
        }
        Ok(limits)
    }

    async fn to_its_end<F>(&self, change: impl FnOnce(Self) -> F) -> Result<Arc<Cache>, CacheError>
    where
        F: Future<Output = Result<Arc<Cache>, CacheError>> + Send + 'static,
    {
        self.0.changes.spawn(change(self.clone())).await.map_err(StoreError::from)?
    }

    /// What becomes of a cache's signing: mode, the key that it needs if it has none, and keys to
    /// register.
    async fn signing(
        &self,
        cache: &Cache,
        wanted: Option<SigningRequest>,
        force: bool,
    ) -> Result<(SigningMode, Option<SecretKey>, Vec<PublicKey>), CacheError> {
        match wanted {
            None => Ok((cache.signing, None, Vec::new())),
            Some(SigningRequest::Managed) => {
                Ok((SigningMode::Managed, Some(self.first_key(&cache.name)?), Vec::new()))
            }
            Some(SigningRequest::SelfSigned { public_keys }) => {
                let public_keys = keys::check_more(&self.all(), &cache.public_keys, public_keys)?;
                if cache.signing == SigningMode::Managed && !force {
                    let keys = cache.public_keys.iter().chain(&public_keys).cloned().collect();
                    self.check_signed(cache, keys).await?;
                }
                Ok((SigningMode::SelfSigned, None, public_keys))
            }
        }
    }

    /// Checks that every path that is served is signed by one of `keys`.
    async fn check_signed(&self, cache: &Cache, keys: Vec<PublicKey>) -> Result<(), CacheError> {
        match self.0.store.count_signed(cache.id, keys).await? {
            (_, 0) => Ok(()),
            (signed, unsigned) => Err(CacheError::Unsigned { unsigned, paths: signed + unsigned }),
        }
    }

    fn first_key(&self, cache: &CacheName) -> Result<SecretKey, CacheError> {
        let name = format!("{cache}.{}-1", self.0.key_host);
        Ok(SecretKey::from_seed(&name, &random()?)?)
    }

    fn root_position(&self, place: RootPlace) -> Option<u32> {
        match place {
            RootPlace::Out => None,
            RootPlace::Last => Some(self.snapshot().last_root_position()),
            RootPlace::At(position) => Some(position),
        }
    }

    /// As [`root_position`](Self::root_position), for a cache that may be in the list: one that
    /// is the last stays where it is.
    fn moved_to(&self, place: RootPlace, from: Option<u32>) -> Option<u32> {
        let last = self.snapshot().last_root_position();
        match (place, from) {
            (RootPlace::Last, Some(from)) if from.saturating_add(1) == last => Some(from),
            _ => self.root_position(place),
        }
    }

    /// What the keys of caches made from now on are named after, behind the cache's own name.
    pub(super) fn key_host(&self) -> &str {
        &self.0.key_host
    }

    /// Held while something about a cache changes.
    pub(super) async fn changing(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock().await
    }

    /// Reads the caches again, after something about them was changed in the store.
    pub(super) async fn reload(&self) -> Result<(), StoreError> {
        // Taken before the store is read: the snapshot with the highest one has seen most.
        let version = self.0.versions.fetch_add(1, Ordering::SeqCst);
        let newer = Snapshot::of(self.0.store.caches().await?, version);
        let mut snapshot = self.0.snapshot.write().unwrap_or_else(PoisonError::into_inner);
        if snapshot.version < version {
            self.0.public_names.send_replace(newer.public_names());
            *snapshot = Arc::new(newer);
        }
        Ok(())
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }
}
