//! The caches of a box, kept in memory as they are in the store.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Mutex, MutexGuard, watch};
use tracing::info;

use crate::formats::CacheName;
use crate::formats::signature::{ParseKeyError, PublicKey, SecretKey};
use crate::services::clock;
use crate::services::keys;
use crate::services::keys::KeyError;
use crate::services::secrets::{NoRandomness, random};
use crate::store::{Cache, CacheId, NewCache, SigningMode, Store, StoreError};

/// Priority of a cache where nobody says otherwise: asked before cache.nixos.org, which has 40
/// (its `nix-cache-info`).
pub const PRIORITY_DEFAULT: u32 = 30;
/// Longest description of a cache, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 500;

/// A public cache to be made.
#[derive(Clone, Debug)]
pub struct CacheRequest {
    /// Its name.
    pub name: CacheName,
    /// A sentence for people.
    pub description: String,
    /// What `nix-cache-info` says; at most `i32::MAX`, for Nix reads an `int`
    /// (`src/libstore/binary-cache-store.cc`, 2.34).
    pub priority: u32,
    /// Whose signatures its paths carry.
    pub signing: SigningMode,
    /// The first keys of a self-signed cache.
    pub public_keys: Vec<PublicKey>,
}

/// Why a cache was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateCacheError {
    /// The name is taken.
    #[error("there is a cache called '{0}' already; choose another name")]
    Exists(CacheName),
    /// The priority is more than Nix can read.
    #[error("the priority is {0}; Nix reads numbers from 0 to {max}", max = i32::MAX)]
    Priority(u32),
    /// The description is too long, or has more than one line.
    #[error("a description is one line of at most {DESCRIPTION_CHARS_MAX} characters")]
    Description,
    /// Keys were registered with a managed cache.
    #[error("the box keeps the key of a managed cache; keys are registered with self-signed ones")]
    KeysOfManaged,
    /// A key cannot be registered.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// No key could be made.
    #[error("the signing key cannot be made")]
    NoRandomness(#[from] NoRandomness),
    /// The key's name cannot stand in a narinfo.
    #[error("the signing key cannot be named")]
    KeyName(#[from] ParseKeyError),
    /// The store refused.
    #[error("the cache cannot be written down")]
    Store(#[from] StoreError),
}

/// Where a reader asks: one public cache, or the box's root.
#[derive(Clone, Debug)]
pub struct Scope {
    key: ScopeKey,
    caches: Arc<[Arc<Cache>]>,
}

/// What tells one scope from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ScopeKey {
    Root,
    Cache(CacheId),
}

impl Scope {
    /// The caches to ask, in order.
    #[must_use]
    pub fn caches(&self) -> &[Arc<Cache>] {
        &self.caches
    }

    /// What `nix-cache-info` says here: the priority of the first cache.
    #[must_use]
    pub fn priority(&self) -> u32 {
        self.caches.first().map_or(PRIORITY_DEFAULT, |cache| cache.priority)
    }

    pub(super) const fn key(&self) -> ScopeKey {
        self.key
    }
}

/// The caches of a box.
#[derive(Clone, Debug)]
pub struct Caches(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    key_host: String,
    /// Replaced as a whole after every change.
    snapshot: RwLock<Arc<Snapshot>>,
    /// Held while something changes, so that an older snapshot never replaces a newer one.
    changing: Mutex<()>,
    public_names: watch::Sender<Vec<CacheName>>,
}

#[derive(Debug, Default)]
struct Snapshot {
    all: Vec<Arc<Cache>>,
    public: HashMap<Box<str>, Scope>,
    root: Arc<[Arc<Cache>]>,
}

impl Snapshot {
    fn of(mut caches: Vec<Cache>) -> Self {
        caches.sort_by(|one, next| one.name.cmp(&next.name));
        let all: Vec<_> = caches.into_iter().map(Arc::new).collect();
        let public = all.iter().filter(|cache| cache.is_public);
        let mut root: Vec<_> =
            public.clone().filter(|cache| cache.root_position.is_some()).cloned().collect();
        root.sort_by_key(|cache| (cache.root_position, cache.id));
        let scope = |cache: &Arc<Cache>| {
            let key = ScopeKey::Cache(cache.id);
            (cache.name.as_str().into(), Scope { key, caches: Arc::new([Arc::clone(cache)]) })
        };
        let public = public.map(scope).collect();
        Self { all, public, root: root.into() }
    }

    fn public_names(&self) -> Vec<CacheName> {
        let public = self.all.iter().filter(|cache| cache.is_public);
        public.map(|cache| cache.name.clone()).collect()
    }
}

impl Caches {
    /// Reads the caches of `store`. Keys of caches that are made later are named after
    /// `key_host`.
    pub(super) async fn open(store: Store, key_host: String) -> Result<Self, StoreError> {
        let snapshot = Snapshot::of(store.caches().await?);
        let public_names = watch::Sender::new(snapshot.public_names());
        let snapshot = RwLock::new(Arc::new(snapshot));
        let changing = Mutex::new(());
        Ok(Self(Arc::new(Inner { store, key_host, snapshot, changing, public_names })))
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

    /// The public caches that the box's root answers for, in order; from memory.
    #[must_use]
    pub fn root(&self) -> Vec<Arc<Cache>> {
        self.snapshot().root.to_vec()
    }

    /// Where one asks the root; from memory.
    #[must_use]
    pub fn root_scope(&self) -> Scope {
        Scope { key: ScopeKey::Root, caches: Arc::clone(&self.snapshot().root) }
    }

    /// Where one asks the public cache of that name, if there is one; from memory.
    #[must_use]
    pub fn public_scope(&self, name: &str) -> Option<Scope> {
        self.snapshot().public.get(name).cloned()
    }

    /// Names of the public caches, and every change of them.
    #[must_use]
    pub fn public_names(&self) -> watch::Receiver<Vec<CacheName>> {
        self.0.public_names.subscribe()
    }

    /// Makes a public cache; a managed one with a new key, which is called `NAME.HOST-1`.
    ///
    /// # Errors
    ///
    /// [`CreateCacheError`]; nothing was made then.
    pub async fn create(&self, request: CacheRequest) -> Result<Arc<Cache>, CreateCacheError> {
        let CacheRequest { name, description, priority, signing, public_keys } = request;
        check_description(&description)?;
        if i32::try_from(priority).is_err() {
            return Err(CreateCacheError::Priority(priority));
        }
        if signing == SigningMode::Managed && !public_keys.is_empty() {
            return Err(CreateCacheError::KeysOfManaged);
        }
        keys::check_first(&self.all(), &public_keys)?;
        let key = match signing {
            SigningMode::Managed => {
                let key_name = format!("{name}.{}-1", self.0.key_host);
                Some(SecretKey::from_seed(&key_name, &random()?)?)
            }
            SigningMode::SelfSigned => None,
        };
        let new = NewCache {
            name,
            is_public: true,
            signing,
            priority,
            root_position: None,
            description,
            key,
            public_keys,
            created_at: clock::now(),
        };
        let _no_other = self.0.changing.lock().await;
        let made = self.0.store.create_cache(new).await.map_err(|error| match error {
            StoreError::CacheExists(name) => CreateCacheError::Exists(name),
            other => other.into(),
        })?;
        info!(cache = %made.name, "Made the cache {}", made.name);
        self.reload().await?;
        Ok(Arc::new(made))
    }

    /// What the keys of caches made from now on are named after, behind the cache's own name.
    pub(super) fn key_host(&self) -> &str {
        &self.0.key_host
    }

    /// Held while something about a cache changes.
    pub(super) async fn changing(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock().await
    }

    /// Reads the caches again, after a change. The caller holds [`changing`](Self::changing).
    pub(super) async fn reload(&self) -> Result<(), StoreError> {
        let snapshot = Snapshot::of(self.0.store.caches().await?);
        self.0.public_names.send_replace(snapshot.public_names());
        *self.0.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        Ok(())
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn check_description(text: &str) -> Result<(), CreateCacheError> {
    let fits = text.chars().count() <= DESCRIPTION_CHARS_MAX && !text.contains(char::is_control);
    if fits { Ok(()) } else { Err(CreateCacheError::Description) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::tests::cache;

    #[test]
    fn the_root_has_its_public_caches_in_their_order() {
        let at = |id, name: &str, root_position, is_public| Cache {
            root_position,
            is_public,
            ..cache(id, name)
        };
        let snapshot = Snapshot::of(vec![
            at(1, "late", Some(7), true),
            at(2, "early", Some(1), true),
            at(3, "secret", Some(2), false),
            at(4, "elsewhere", None, true),
            at(5, "later", Some(7), true),
        ]);
        let root: Vec<_> = snapshot.root.iter().map(|cache| cache.name.as_str()).collect();
        assert_eq!(root, ["early", "late", "later"]);
        assert!(snapshot.public.contains_key("elsewhere"));
        assert!(!snapshot.public.contains_key("secret"));
        let names: Vec<_> = snapshot.all.iter().map(|cache| cache.name.as_str()).collect();
        assert_eq!(names, ["early", "elsewhere", "late", "later", "secret"]);
    }

    #[test]
    fn a_description_is_one_line() {
        assert!(check_description("For the office").is_ok());
        assert!(check_description("a\nb").is_err());
        assert!(check_description(&"ä".repeat(DESCRIPTION_CHARS_MAX)).is_ok());
        assert!(check_description(&"ä".repeat(DESCRIPTION_CHARS_MAX + 1)).is_err());
    }
}
