//! What the appliance does, whoever asks and over whatever wire.
//!
//! A service is a handle: cloning it copies a pointer, and all clones are the same service.
//! Transports see the store through here alone, so the types of it that they meet are named here
//! too.

pub mod auth;
pub mod caches;
pub mod chain;
pub mod check;
pub mod clock;
pub mod lookup;
pub mod metrics;
mod narinfo_cache;
pub mod pairing;
pub mod publish;
mod secrets;
mod signing;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;
pub mod tokens;
pub mod upkeep;

use std::sync::Arc;

use crate::formats::BoxName;
use crate::services::narinfo_cache::NarInfoCache;
use crate::store::Store;
use crate::wire::DeviceId;

pub use crate::store::{
    Cache, CheckProgress, CheckReport, NarFile, Right, SigningMode, StoreError, StoreStats, Token,
    TokenId, UnixSeconds,
};
pub use auth::{Auth, AuthError, Caller};
pub use caches::{CacheRequest, Caches, CreateCacheError, Scope};
pub use check::{CheckState, Checks};
pub use lookup::{Lookup, NarBytes};
pub use metrics::Metrics;
pub use narinfo_cache::NarInfoText;
pub use pairing::{CreateCodeError, Pairing};
pub use publish::{Begun, PublishError, Publisher, Upload};
pub use status::{Status, StatusReport};
pub use tokens::{CreateTokenError, TokenRequest, Tokens};

/// What the services must know of the box.
#[derive(Clone, Debug)]
pub struct ServicesOptions {
    /// What the box calls itself.
    pub box_name: BoxName,
    /// The middle of the names of managed keys that are made from now on, `CACHE.HOST-N`.
    pub key_host: String,
    /// Who the box is; tokens for another are refused.
    pub device_id: DeviceId,
}

/// Everything the appliance can do, wired once in `daemon::run` and never changed after.
#[derive(Clone, Debug)]
pub struct Services {
    /// Knows tokens.
    pub auth: Auth,
    /// Knows caches, and makes them.
    pub caches: Caches,
    /// Makes, lists and revokes tokens.
    pub tokens: Tokens,
    /// Makes tokens for those who have a code.
    pub pairing: Pairing,
    /// Answers readers.
    pub lookup: Lookup,
    /// Takes pushes.
    pub publish: Publisher,
    /// Scrubs the store on request.
    pub checks: Checks,
    /// Knows how the box is.
    pub status: Status,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Services {
    /// Wires the services of an open store. Nothing runs by itself but
    /// [`upkeep::run`], which the caller keeps going.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the caches cannot be read.
    pub async fn start(store: Store, options: ServicesOptions) -> Result<Self, StoreError> {
        let ServicesOptions { box_name, key_host, device_id } = options;
        let metrics = Arc::new(Metrics::new());
        let narinfos = Arc::new(NarInfoCache::new());
        let caches = Caches::open(store.clone(), key_host).await?;
        let checks = Checks::new(store.clone(), Arc::clone(&narinfos));
        let tokens = Tokens::new(store.clone(), caches.clone(), device_id);
        let lookup = Lookup::new(store.clone(), Arc::clone(&narinfos), Arc::clone(&metrics));
        Ok(Self {
            auth: Auth::new(store.clone(), device_id),
            pairing: Pairing::new(tokens.clone()),
            tokens,
            publish: Publisher::new(store.clone(), caches.clone(), narinfos, Arc::clone(&metrics)),
            status: Status::new(store, box_name, device_id, caches.clone(), Arc::clone(&metrics)),
            caches,
            lookup,
            checks,
            metrics,
        })
    }
}
