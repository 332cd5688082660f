//! Keys of caches: registered, taken away, followed by newer ones, and retired.

use std::sync::Arc;

use tracing::info;

use crate::formats::CacheName;
use crate::formats::signature::{ParseKeyError, PublicKey, SecretKey};
use crate::services::caches::Caches;
use crate::services::secrets::{NoRandomness, random};
use crate::store::{Cache, ManagedKey, SigningMode, Store, StoreError};

/// Most keys that a cache may have, registered or signing at a time.
pub const KEYS_MAX: usize = 32;
/// How long a managed key goes on signing when another follows, in days that the box runs.
pub const OVERLAP_DAYS_DEFAULT: u32 = 30;

const DAY_SECONDS: u64 = 86_400;

/// Why the keys of a cache stay as they are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no such cache.
    #[error("there is no cache called '{0}'; `larder cache list` shows those that there are")]
    NoSuchCache(CacheName),
    /// There is no such key.
    #[error("the cache '{cache}' has no key '{key}'; `larder cache key list {cache}` shows them")]
    NoSuchKey {
        /// The cache.
        cache: CacheName,
        /// The name that was said.
        key: String,
    },
    /// The box keeps the keys of that cache.
    #[error(
        "the box keeps the keys of the cache '{0}'; `larder cache rotate-key {0}` makes a new one"
    )]
    Managed(CacheName),
    /// The keys of that cache are elsewhere.
    #[error("who pushes to the cache '{0}' signs; `larder generate-keypair {0}` makes a new key")]
    SelfSigned(CacheName),
    /// The key is there already.
    #[error("the key '{0}' is registered already")]
    Registered(String),
    /// The same key is there under another name.
    #[error("that key is registered already, as '{0}'; a key has one name")]
    OtherName(String),
    /// Another key has that name on this box: Nix keeps one key of a name.
    #[error(
        "another key of the cache '{cache}' is called '{key}' already, and Nix trusts one key of a \
         name; give the new one another number"
    )]
    NameTaken {
        /// The cache that has it.
        cache: CacheName,
        /// The key's name.
        key: String,
    },
    /// There are as many keys as there may be.
    #[error("a cache has at most {KEYS_MAX} keys; take one away first")]
    TooMany,
    /// The newest key cannot be retired.
    #[error("'{0}' is the newest key of its cache and signs; let another follow first")]
    Newest(String),
    /// No key could be made.
    #[error("the signing key cannot be made")]
    NoRandomness(#[from] NoRandomness),
    /// The key's name cannot stand in a narinfo.
    #[error("the signing key cannot be named")]
    KeyName(#[from] ParseKeyError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// The keys of a cache.
#[derive(Clone, Debug)]
pub enum KeyList {
    /// Of a managed one, newest first, retired ones too.
    Managed(Vec<ManagedKey>),
    /// Of a self-signed one, in the order they were registered.
    Registered(Vec<PublicKey>),
}

/// Registers and rotates the keys of caches.
#[derive(Clone, Debug)]
pub struct Keys {
    store: Store,
    caches: Caches,
}

#[expect(clippy::missing_errors_doc, reason = "each variant of KeyError says when")]
impl Keys {
    pub(super) const fn new(store: Store, caches: Caches) -> Self {
        Self { store, caches }
    }

    /// The keys of a cache.
    pub async fn list(&self, name: &CacheName) -> Result<KeyList, KeyError> {
        let cache = self.cache(name)?;
        Ok(match cache.signing {
            SigningMode::Managed => KeyList::Managed(self.store.managed_keys(cache.id).await?),
            SigningMode::SelfSigned => KeyList::Registered(cache.public_keys.clone()),
        })
    }

    /// Registers a public key with a self-signed cache.
    pub async fn register(&self, name: &CacheName, key: PublicKey) -> Result<(), KeyError> {
        let _no_other = self.caches.changing().await;
        let cache = self.cache(name)?;
        if cache.signing == SigningMode::Managed {
            return Err(KeyError::Managed(name.clone()));
        }
        check_new(&self.caches.all(), &cache.public_keys, &key)?;
        let key_name = key.name().to_owned();
        self.store.register_key(cache.id, key).await?;
        self.caches.reload().await?;
        info!(cache = %name, key = key_name, "Registered the key {key_name} with the cache {name}");
        Ok(())
    }

    /// Takes a registered key away, or retires a managed one at once. Signatures by a registered
    /// one stay with the paths that have them.
    pub async fn remove(&self, name: &CacheName, key: &str) -> Result<(), KeyError> {
        let _no_other = self.caches.changing().await;
        let cache = self.cache(name)?;
        let removed = match cache.signing {
            SigningMode::SelfSigned => self.store.unregister_key(cache.id, key.to_owned()).await?,
            SigningMode::Managed if cache.keys.first().is_some_and(|first| first.name() == key) => {
                return Err(KeyError::Newest(key.to_owned()));
            }
            SigningMode::Managed => self.store.set_key_overlap(cache.id, key.to_owned(), 0).await?,
        };
        self.changed(name, key, removed, "Took away the key").await
    }

    /// Lets a retired key sign again, for as long as after a rotation.
    pub async fn restore(&self, name: &CacheName, key: &str, days: u32) -> Result<(), KeyError> {
        let _no_other = self.caches.changing().await;
        let cache = self.cache(name)?;
        if cache.signing == SigningMode::SelfSigned {
            return Err(KeyError::SelfSigned(name.clone()));
        }
        let overlap = u64::from(days) * DAY_SECONDS;
        let restored = self.store.set_key_overlap(cache.id, key.to_owned(), overlap).await?;
        self.changed(name, key, restored, "Restored the key").await
    }

    /// Makes a new key that signs first; those before it sign for `overlap_days` more, counted
    /// while the box runs. The new key's public half.
    pub async fn rotate(&self, name: &CacheName, overlap_days: u32) -> Result<PublicKey, KeyError> {
        let _no_other = self.caches.changing().await;
        let cache = self.cache(name)?;
        if cache.signing == SigningMode::SelfSigned {
            return Err(KeyError::SelfSigned(name.clone()));
        }
        if cache.keys.len() >= KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        let standing = self.store.managed_keys(cache.id).await?;
        let names: Vec<_> = standing.iter().map(|key| key.public_key.name()).collect();
        let key_name = next_name(name, &names, self.caches.key_host());
        let key = SecretKey::from_seed(&key_name, &random()?)?;
        let public_key = key.public_key();
        let overlap = u64::from(overlap_days) * DAY_SECONDS;
        self.store.rotate_key(cache.id, key, overlap).await?;
        self.changed(name, &key_name, true, "Made the key").await?;
        Ok(public_key)
    }

    /// Says that the box has run for `seconds` since this was called last; keys whose overlap
    /// ends by it are retired. No clock that somebody sets has a part in it.
    pub(super) async fn age(&self, seconds: u64) -> Result<(), StoreError> {
        let _no_other = self.caches.changing().await;
        let caches = self.caches.all();
        if caches.iter().all(|cache| cache.keys.len() < 2) {
            return Ok(());
        }
        if self.store.age_keys(seconds).await? {
            self.caches.reload().await?;
            info!("A managed key has come to the end of its overlap and is retired");
        }
        Ok(())
    }

    fn cache(&self, name: &CacheName) -> Result<Arc<Cache>, KeyError> {
        self.caches.get(name).ok_or_else(|| KeyError::NoSuchCache(name.clone()))
    }

    async fn changed(
        &self,
        cache: &CacheName,
        key: &str,
        is_changed: bool,
        what: &str,
    ) -> Result<(), KeyError> {
        if !is_changed {
            return Err(KeyError::NoSuchKey { cache: cache.clone(), key: key.to_owned() });
        }
        self.caches.reload().await?;
        info!(cache = %cache, key, "{what} {key} of the cache {cache}");
        Ok(())
    }
}

/// Checks the keys that are to be registered with a self-signed cache that has some already, and
/// leaves out those that it has under the same name.
pub(super) fn check_more(
    all: &[Arc<Cache>],
    registered: &[PublicKey],
    keys: Vec<PublicKey>,
) -> Result<Vec<PublicKey>, KeyError> {
    let mut together = registered.to_vec();
    for key in keys {
        if !together.contains(&key) {
            check_new(all, &together, &key)?;
            together.push(key);
        }
    }
    Ok(together.split_off(registered.len()))
}

/// Whether `key` may stand beside `registered` of its cache, and beside all others of the box.
fn check_new(
    all: &[Arc<Cache>],
    registered: &[PublicKey],
    key: &PublicKey,
) -> Result<(), KeyError> {
    if registered.len() >= KEYS_MAX {
        return Err(KeyError::TooMany);
    }
    if let Some(same) = registered.iter().find(|known| known.as_bytes() == key.as_bytes()) {
        let name = same.name().to_owned();
        let is_same = same.name() == key.name();
        return Err(if is_same { KeyError::Registered(name) } else { KeyError::OtherName(name) });
    }
    if registered.iter().any(|known| known.name() == key.name()) {
        return Err(KeyError::Registered(key.name().to_owned()));
    }
    let takes_name = |cache: &&Arc<Cache>| {
        let managed = cache.keys.iter().map(SecretKey::public_key);
        let mut known = managed.chain(cache.public_keys.iter().cloned());
        known.any(|known| known.name() == key.name() && known.as_bytes() != key.as_bytes())
    };
    match all.iter().find(takes_name) {
        Some(cache) => {
            Err(KeyError::NameTaken { cache: cache.name.clone(), key: key.name().to_owned() })
        }
        None => Ok(()),
    }
}

/// `CACHE.HOST-N`: the host of the newest key, for it is frozen with the first one, and one more
/// than the highest number.
fn next_name(cache: &CacheName, names: &[&str], key_host: &str) -> String {
    let numbered = |name: &&str| {
        name.rsplit_once('-').map(|(start, n)| (start.to_owned(), n.parse::<u64>().unwrap_or(0)))
    };
    let start = names.first().and_then(numbered).map(|(start, _)| start);
    let highest = names.iter().filter_map(numbered).map(|(_, number)| number).max();
    let start = start.unwrap_or_else(|| format!("{cache}.{key_host}"));
    format!("{start}-{}", highest.unwrap_or(0).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::tests::{TestServices, cache};

    fn public(name: &str, seed: u8) -> PublicKey {
        SecretKey::from_seed(name, &[seed; 32]).unwrap().public_key()
    }

    #[test]
    fn a_new_key_has_the_next_number_and_the_host_of_the_first() {
        let main = "main".parse().unwrap();
        assert_eq!(next_name(&main, &[], "box.local"), "main.box.local-1");
        let names = ["main.old-host.lan-9", "main.old-host.lan-10"];
        assert_eq!(next_name(&main, &names, "box.local"), "main.old-host.lan-11");
    }

    #[tokio::test]
    async fn an_overlap_ends_with_the_days_that_the_box_ran() {
        let test = TestServices::new().await;
        let (keys, caches) = (&test.services.keys, &test.services.caches);
        let main = "main".parse().unwrap();
        keys.rotate(&main, 1).await.unwrap();
        let names = || {
            let cache = caches.get(&main).unwrap();
            cache.keys.iter().map(|key| key.name().to_owned()).collect::<Vec<_>>()
        };
        keys.age(DAY_SECONDS - 1).await.unwrap();
        assert_eq!(names(), ["main.office.local-2", "main.office.local-1"]);
        keys.age(1).await.unwrap();
        assert_eq!(names(), ["main.office.local-2"]);
        keys.rotate(&main, 1).await.unwrap();
        keys.age(u64::from(u32::MAX)).await.unwrap();
        assert_eq!(names(), ["main.office.local-3"]);
        keys.restore(&main, "main.office.local-1", 30).await.unwrap();
        assert_eq!(names(), ["main.office.local-3", "main.office.local-1"]);
        test.stop().await;
    }

    #[test]
    fn a_key_has_one_name_and_a_name_one_key() {
        let mut other = cache(1, "other");
        other.keys = vec![SecretKey::from_seed("other.box.local-1", &[1; 32]).unwrap()];
        let all = [Arc::new(other)];
        let registered = [public("team-1", 2)];
        let check = |key| check_new(&all, &registered, &key);
        assert!(matches!(check(public("team-1", 2)), Err(KeyError::Registered(_))));
        assert!(matches!(check(public("team-1", 3)), Err(KeyError::Registered(_))));
        assert!(matches!(check(public("team-2", 2)), Err(KeyError::OtherName(_))));
        assert!(matches!(check(public("other.box.local-1", 3)), Err(KeyError::NameTaken { .. })));
        assert!(check(public("other.box.local-1", 1)).is_ok());
        assert!(check(public("team-2", 3)).is_ok());
        let twice = vec![public("a-1", 1), public("a-1", 1), public("b-1", 4)];
        let new = check_more(&[], &[public("b-1", 4)], twice).unwrap();
        assert_eq!(new, [public("a-1", 1)]);
        assert!(check_more(&[], &[], vec![public("a-1", 1), public("a-1", 2)]).is_err());
    }
}
