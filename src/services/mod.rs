//! What the appliance does, whoever asks and over whatever wire.
//!
//! A service is a handle: cloning it copies a pointer, and all clones are the same service.
//! Transports see the store through here alone, so the types of it that they meet are named here
//! too.

pub mod admission;
pub mod auth;
pub mod backups;
pub mod caches;
pub mod chain;
pub mod check;
pub mod clock;
pub mod collections;
pub mod keys;
pub mod lookup;
pub mod metrics;
mod narinfo_cache;
pub mod pace;
pub mod pairing;
pub mod paths;
pub mod pins;
pub mod publish;
pub mod push_log;
mod secrets;
mod signing;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;
pub mod tokens;
pub mod turns;
pub mod upkeep;

use std::path::PathBuf;
use std::sync::Arc;

use crate::formats::BoxName;
use crate::services::narinfo_cache::NarInfoCache;
use crate::store::Store;
use crate::wire::DeviceId;

pub use crate::store::{
    Attachment, Cache, CheckProgress, CheckReport, LeavingReason, LogPlace, ManagedKey, NarFile,
    PinPlace, Right, SigningMode, Space, StoreError, StoreStats, Token, TokenId, UnixSeconds,
};
pub use admission::{Admission, AdmissionOptions, Origin};
pub use auth::{Auth, AuthError, Caller};
pub use backups::Backups;
pub use caches::{
    CacheChanges, CacheError, CacheRequest, Caches, RootPlace, Scope, SigningRequest,
};
pub use check::{CheckState, Checks};
pub use clock::{Clock, ClockState};
pub use collections::{
    CollectionRequest, CollectionState, Collections, EndedCollection, StartCollectionError,
};
pub use keys::{KeyError, Keys};
pub use lookup::{Lookup, NarBytes, NoFile, StoredFile};
pub use metrics::Metrics;
pub use narinfo_cache::NarInfoText;
pub use pairing::{CreateCodeError, Pairing};
pub use paths::Paths;
pub use pins::{KnownPin, PinError, PinRequest, Pins};
pub use publish::{AttachError, Begun, PublishError, Publisher, PusherId, Upload};
pub use push_log::{LoggedPush, PushLog};
pub use status::{Status, StatusReport};
pub use tokens::{CreateTokenError, RevokeTokenError, TokenRequest, Tokens};
pub use turns::{Turn, Turns};

/// What the services must know of the box.
#[derive(Clone, Debug)]
pub struct ServicesOptions {
    /// What the box calls itself.
    pub box_name: BoxName,
    /// The middle of the names of managed keys that are made from now on, `CACHE.HOST-N`.
    pub key_host: String,
    /// Who the box is; tokens for another are refused.
    pub device_id: DeviceId,
    /// What is granted to each address and token.
    pub admission: AdmissionOptions,
    /// Says whether the machine's clock is synchronised with others; asked often.
    pub is_clock_synchronised: fn() -> bool,
    /// The settings file, which goes into backups.
    pub settings_file: Option<PathBuf>,
}

/// Everything the appliance can do, wired once in `daemon::run` and never changed after.
#[derive(Clone, Debug)]
pub struct Services {
    /// Bounds what one address can take from the others.
    pub admission: Admission,
    /// Knows tokens.
    pub auth: Auth,
    /// Knows caches, and makes them.
    pub caches: Caches,
    /// Registers and rotates the keys of caches.
    pub keys: Keys,
    /// Makes, lists and revokes tokens.
    pub tokens: Tokens,
    /// Makes tokens for those who have a code.
    pub pairing: Pairing,
    /// Answers readers.
    pub lookup: Lookup,
    /// Takes pushes.
    pub publish: Publisher,
    /// Makes, lists and removes pins.
    pub pins: Pins,
    /// Knows single paths, and takes them out.
    pub paths: Paths,
    /// Knows who pushed what.
    pub push_log: PushLog,
    /// Scrubs the store on request.
    pub checks: Checks,
    /// Takes away what nobody needs.
    pub collections: Collections,
    /// Knows whether the wall clock can be believed.
    pub clock: Clock,
    /// Makes backups on request.
    pub backups: Backups,
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
    /// [`StoreError`] if the caches or the tokens cannot be read.
    pub async fn start(store: Store, options: ServicesOptions) -> Result<Self, StoreError> {
        let ServicesOptions {
            box_name,
            key_host,
            device_id,
            admission,
            is_clock_synchronised,
            settings_file,
        } = options;
        let clock = Clock::open(store.clone(), is_clock_synchronised).await?;
        let metrics = Arc::new(Metrics::new());
        let narinfos = Arc::new(NarInfoCache::new());
        let caches = Caches::open(store.clone(), key_host).await?;
        let rate = admission.requests_per_second;
        let auth = Auth::open(store.clone(), device_id, rate).await?;
        let checks = Checks::new(store.clone(), Arc::clone(&narinfos));
        let push_log = PushLog::new(store.clone(), auth.clone());
        let collections = Collections::new(
            store.clone(),
            caches.clone(),
            Arc::clone(&narinfos),
            Arc::clone(&metrics),
            clock.clone(),
        );
        let tokens = Tokens::new(store.clone(), caches.clone(), auth.clone(), device_id);
        let lookup = Lookup::new(store.clone(), Arc::clone(&narinfos), Arc::clone(&metrics));
        Ok(Self {
            admission: Admission::new(admission),
            backups: Backups::new(store.clone(), settings_file),
            keys: Keys::new(store.clone(), caches.clone()),
            pairing: Pairing::new(tokens.clone()),
            tokens,
            pins: Pins::new(store.clone(), auth.clone(), caches.clone(), lookup.clone()),
            paths: Paths::new(store.clone(), Arc::clone(&narinfos), push_log.clone()),
            push_log,
            auth,
            publish: Publisher::new(
                store.clone(),
                caches.clone(),
                collections.clone(),
                narinfos,
                Arc::clone(&metrics),
            ),
            collections,
            status: Status::new(
                store,
                box_name,
                device_id,
                caches.clone(),
                Arc::clone(&metrics),
                clock.clone(),
            ),
            clock,
            caches,
            lookup,
            checks,
            metrics,
        })
    }
}
