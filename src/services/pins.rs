//! Pins: names for paths that are to stay, and for files inside them.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::info;

use crate::formats::limits::{ARTIFACTS_BYTES_MAX, ARTIFACTS_MAX, PINS_PAGE_MAX};
use crate::formats::{CacheName, FilePath, Keep, PinName, StorePath};
use crate::services::auth::{Auth, Caller};
use crate::services::caches::Caches;
use crate::services::clock;
use crate::services::lookup::{Lookup, NoFile};
use crate::store::{Cache, NewPin, Pin, PinOutcome, PinPlace, Store, StoreError, UnixSeconds};

/// What is to be pinned.
#[derive(Clone, Debug)]
pub struct PinRequest {
    /// Under which name.
    pub name: PinName,
    /// The path.
    pub path: StorePath,
    /// Files of it that are to have a URL under that name; one that is named twice counts once.
    pub artifacts: Vec<FilePath>,
    /// How long revisions of that name stay.
    pub keep: Keep,
}

/// A revision, and who made it.
#[derive(Clone, Debug)]
pub struct KnownPin {
    /// The revision.
    pub pin: Pin,
    /// What the token is called, if it is still known.
    pub token_label: Option<String>,
}

/// Why a pin was not made, shown or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinError {
    /// There is no such cache, or the token may do nothing with it.
    #[error("there is no cache called '{0}' that this token may use")]
    NoSuchCache(String),
    /// The token has no right to it.
    #[error("the token may not {verb} the cache '{cache}', which {what} takes")]
    Forbidden {
        /// What it may not.
        verb: &'static str,
        /// The cache.
        cache: CacheName,
        /// For what that is needed.
        what: &'static str,
    },
    /// The cache does not have the path.
    #[error(
        "the path {path} is not in the cache '{cache}'; push it first: larder push {cache} {path}"
    )]
    NoSuchPath {
        /// The cache.
        cache: CacheName,
        /// The path, absolute.
        path: String,
    },
    /// The cache has the path, and serves it to nobody.
    #[error(
        "the path {path} is hidden in the cache '{cache}', as something that it refers to is not \
         there; push it with all that it refers to: larder push {cache} {path}"
    )]
    Hidden {
        /// The cache.
        cache: CacheName,
        /// The path, absolute.
        path: String,
    },
    /// A file that is to be an artifact is none of the path's.
    #[error("'{file}' cannot be an artifact of {path}: {why}")]
    Artifact {
        /// The file.
        file: FilePath,
        /// The path, absolute.
        path: String,
        /// What is wrong about it.
        why: NoFile,
    },
    /// More artifacts than one revision may have.
    #[error(
        "a pin has at most {ARTIFACTS_MAX} artifacts, whose paths have {ARTIFACTS_BYTES_MAX} bytes \
         together"
    )]
    TooManyArtifacts,
    /// There is no such pin.
    #[error("the cache '{cache}' has no pin '{name}'; `larder pin list {cache}` shows its pins")]
    NoSuchPin {
        /// The cache.
        cache: CacheName,
        /// The name.
        name: PinName,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes, lists and removes pins: whoever may write to a cache may pin in it, whoever may read it
/// may list its pins.
#[derive(Clone, Debug)]
pub struct Pins {
    store: Store,
    auth: Auth,
    caches: Caches,
    lookup: Lookup,
}

impl Pins {
    pub(super) const fn new(store: Store, auth: Auth, caches: Caches, lookup: Lookup) -> Self {
        Self { store, auth, caches, lookup }
    }

    /// Ends the revisions whose days are over. Only where `now` can be believed.
    pub(super) async fn expire(&self, now: UnixSeconds) -> Result<(), StoreError> {
        let ended = self.store.expire_pins(now).await?;
        if ended > 0 {
            info!(revisions = ended, "Revisions of pins have ended, for their days are over");
        }
        Ok(())
    }

    /// Pins a path: a new revision under that name.
    ///
    /// # Errors
    ///
    /// [`PinError`]; nothing was pinned then.
    pub async fn pin(
        &self,
        caller: &Caller,
        cache: &str,
        request: PinRequest,
    ) -> Result<KnownPin, PinError> {
        let cache = self.writable(caller, cache)?;
        let PinRequest { name, path, mut artifacts, keep } = request;
        let mut seen = HashSet::new();
        artifacts.retain(|file| seen.insert(file.clone()));
        self.check_artifacts(&cache, &path, &artifacts).await?;
        let absolute = path.to_absolute();
        let (token, at) = (caller.token.id, clock::now());
        let new = NewPin { cache: cache.id, name, path, artifacts, keep, token, at };
        let outcome = self.store.pin(new).await.map_err(|error| gone(&cache, error))?;
        match outcome {
            PinOutcome::Made(pin) => {
                info!(
                    cache = %cache.name, pin = %pin.name, revision = pin.revision,
                    token.id = token.0, "Pinned {}", pin.path
                );
                Ok(self.known(pin))
            }
            PinOutcome::NoSuchPath => Err(no_such_path(&cache, absolute)),
            PinOutcome::Hidden => {
                Err(PinError::Hidden { cache: cache.name.clone(), path: absolute })
            }
        }
    }

    /// Revisions of the pins of a cache from behind `after`: by name, of each the newest first; at
    /// most `limit` and [`PINS_PAGE_MAX`].
    ///
    /// # Errors
    ///
    /// [`PinError`].
    pub async fn page(
        &self,
        caller: &Caller,
        cache: &str,
        after: Option<PinPlace>,
        limit: u32,
    ) -> Result<Vec<KnownPin>, PinError> {
        let cache = self.cache(caller, cache)?;
        if !caller.may_read(&cache) {
            let (verb, what) = ("read", "the list of its pins");
            return Err(PinError::Forbidden { verb, cache: cache.name.clone(), what });
        }
        let pins = self.store.pins(cache.id, after, limit.min(PINS_PAGE_MAX)).await?;
        Ok(pins.into_iter().map(|pin| self.known(pin)).collect())
    }

    /// Removes a pin with all its revisions; how many there were.
    ///
    /// # Errors
    ///
    /// [`PinError`].
    pub async fn remove(
        &self,
        caller: &Caller,
        cache: &str,
        name: PinName,
    ) -> Result<usize, PinError> {
        let cache = self.writable(caller, cache)?;
        let removed = self.store.remove_pin(cache.id, name.clone()).await;
        match removed.map_err(|error| gone(&cache, error))? {
            0 => Err(PinError::NoSuchPin { cache: cache.name.clone(), name }),
            count => {
                info!(cache = %cache.name, pin = %name, token.id = caller.token.id.0, "Unpinned");
                Ok(count)
            }
        }
    }

    async fn check_artifacts(
        &self,
        cache: &Arc<Cache>,
        path: &StorePath,
        artifacts: &[FilePath],
    ) -> Result<(), PinError> {
        let bytes: usize = artifacts.iter().map(|file| file.as_str().len()).sum();
        if artifacts.len() > ARTIFACTS_MAX || bytes > ARTIFACTS_BYTES_MAX {
            return Err(PinError::TooManyArtifacts);
        }
        if artifacts.is_empty() {
            return Ok(());
        }
        let record = self.store.path(cache.id, path.hash()).await?;
        let Some(record) = record.filter(|record| record.info.store_path == *path) else {
            return Err(no_such_path(cache, path.to_absolute()));
        };
        for file in artifacts {
            let found = self.lookup.file_in(path, record.nar.clone(), Some(file.clone())).await?;
            if let Err(why) = found {
                let (file, path) = (file.clone(), path.to_absolute());
                return Err(PinError::Artifact { file, path, why });
            }
        }
        Ok(())
    }

    fn writable(&self, caller: &Caller, cache: &str) -> Result<Arc<Cache>, PinError> {
        let cache = self.cache(caller, cache)?;
        if caller.may_write(&cache) {
            return Ok(cache);
        }
        let (verb, what) = ("write to", "pinning there");
        Err(PinError::Forbidden { verb, cache: cache.name.clone(), what })
    }

    /// The cache of that name. To who may do nothing with it, there is none.
    fn cache(&self, caller: &Caller, name: &str) -> Result<Arc<Cache>, PinError> {
        let found = name.parse().ok().and_then(|name| self.caches.get(&name));
        let seen = found.filter(|cache| caller.sees(cache));
        seen.ok_or_else(|| PinError::NoSuchCache(name.to_owned()))
    }

    /// Where an index was lost, numbers of tokens begin anew: one that is younger than the pin is
    /// another one.
    fn known(&self, pin: Pin) -> KnownPin {
        let token = self.auth.token(pin.token);
        let token = token.filter(|token| token.created_at <= pin.pinned_at);
        KnownPin { token_label: token.map(|token| token.label.clone()), pin }
    }
}

fn no_such_path(cache: &Cache, path: String) -> PinError {
    PinError::NoSuchPath { cache: cache.name.clone(), path }
}

/// A cache may be deleted between the look at it and the write.
fn gone(cache: &Cache, error: StoreError) -> PinError {
    match error {
        StoreError::NoSuchCache => PinError::NoSuchCache(cache.name.to_string()),
        other => other.into(),
    }
}
