//! What can be asked of caches, and why it is not done.

use crate::formats::signature::{ParseKeyError, PublicKey};
use crate::formats::{CacheLimits, CacheName};
use crate::services::keys::KeyError;
use crate::services::secrets::NoRandomness;
use crate::store::StoreError;

/// Priority of a cache where nobody says otherwise: asked before cache.nixos.org, which has 40
/// (its `nix-cache-info`).
pub const PRIORITY_DEFAULT: u32 = 30;
/// Longest description of a cache, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 500;

/// A cache to be made.
#[derive(Clone, Debug)]
pub struct CacheRequest {
    /// Its name.
    pub name: CacheName,
    /// Whether anybody may read it.
    pub is_public: bool,
    /// Whose signatures its paths carry.
    pub signing: SigningRequest,
    /// A sentence for people.
    pub description: String,
    /// What `nix-cache-info` says; at most `i32::MAX`, for Nix reads an `int`
    /// (`src/libstore/binary-cache-store.cc`, 2.34).
    pub priority: u32,
    /// Whether and where the root answers for it.
    pub root: RootPlace,
    /// What makes its paths leave.
    pub limits: CacheLimits,
}

impl CacheRequest {
    /// A cache as it is where nobody says otherwise: public, managed, and asked by its name alone.
    #[must_use]
    pub const fn named(name: CacheName) -> Self {
        Self {
            name,
            is_public: true,
            signing: SigningRequest::Managed,
            description: String::new(),
            priority: PRIORITY_DEFAULT,
            root: RootPlace::Out,
            limits: CacheLimits::NONE,
        }
    }
}

/// Whose signatures the paths of a cache are to carry.
#[derive(Clone, Debug)]
pub enum SigningRequest {
    /// The box's own.
    Managed,
    /// Those of the people who push.
    SelfSigned {
        /// Keys to register, beside those that are.
        public_keys: Vec<PublicKey>,
    },
}

/// A place in the list of caches that the root answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootPlace {
    /// Not in the list.
    Out,
    /// Behind all others.
    Last,
    /// With this number; the lower is asked first, and of equals the older cache.
    At(u32),
}

/// What is to be otherwise about a cache; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct CacheChanges {
    /// Whether anybody may read it; true from the next request on.
    pub is_public: Option<bool>,
    /// Whose signatures its paths carry.
    pub signing: Option<SigningRequest>,
    /// A sentence for people.
    pub description: Option<String>,
    /// What `nix-cache-info` says.
    pub priority: Option<u32>,
    /// Whether and where the root answers for it.
    pub root: Option<RootPlace>,
    /// Days after which what nobody reads leaves; `Some(None)`: never.
    pub retention_days: Option<Option<u32>>,
    /// Bytes of NARs beyond which paths leave; `Some(None)`: none.
    pub quota_bytes: Option<Option<u64>>,
    /// Do it also where paths that are served now would be good for nobody then, or leave.
    pub force: bool,
}

/// Why a cache was not made, changed or deleted; nothing is otherwise then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The name is taken.
    #[error("there is a cache called '{0}' already; choose another name")]
    Exists(CacheName),
    /// There is no such cache.
    #[error("there is no cache called '{0}'; `larder cache list` shows those that there are")]
    NoSuchCache(CacheName),
    /// The priority is more than Nix can read.
    #[error("the priority is {0}; Nix reads numbers from 0 to {max}", max = i32::MAX)]
    Priority(u32),
    /// The description is too long, or has more than one line.
    #[error("a description is one line of at most {DESCRIPTION_CHARS_MAX} characters")]
    Description,
    /// Nothing could stay, or for longer than the box remembers.
    #[error(
        "a retention is of 1 to {max} days, and a quota of at least one byte",
        max = CacheLimits::RETENTION_DAYS_MAX
    )]
    Limits,
    /// Paths would have to leave for the quota.
    #[error(
        "the cache has {stored_bytes} bytes of NARs, and paths of it would leave until they are \
         {quota_bytes}, those first that were read longest ago; say --force if they may"
    )]
    QuotaBelow {
        /// Bytes of NARs that it has, as a quota counts them.
        stored_bytes: u64,
        /// The quota.
        quota_bytes: u64,
    },
    /// Without the managed signatures, paths would have none that anybody can believe.
    #[error(
        "{unsigned} of {paths} paths carry no signature by a registered key, and without the box's \
         own nobody would take them; push them again with signatures first, or say --force"
    )]
    Unsigned {
        /// Visible paths without a signature by a registered key.
        unsigned: u64,
        /// Visible paths.
        paths: u64,
    },
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

pub(super) fn check_description(text: &str) -> Result<(), CacheError> {
    let fits = text.chars().count() <= DESCRIPTION_CHARS_MAX && !text.contains(char::is_control);
    if fits { Ok(()) } else { Err(CacheError::Description) }
}

pub(super) fn check_priority(priority: u32) -> Result<(), CacheError> {
    i32::try_from(priority).map(drop).map_err(|_too_large| CacheError::Priority(priority))
}

pub(super) fn check_limits(limits: CacheLimits) -> Result<(), CacheError> {
    if limits.is_possible() { Ok(()) } else { Err(CacheError::Limits) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_one_line() {
        assert!(check_description("For the office").is_ok());
        assert!(check_description("a\nb").is_err());
        assert!(check_description(&"ä".repeat(DESCRIPTION_CHARS_MAX)).is_ok());
        assert!(check_description(&"ä".repeat(DESCRIPTION_CHARS_MAX + 1)).is_err());
    }

    #[test]
    fn a_priority_is_what_nix_can_read() {
        assert!(check_priority(0).is_ok() && check_priority(2_147_483_647).is_ok());
        assert!(check_priority(2_147_483_648).is_err());
    }
}
