//! Tokens: from the text that somebody shows to what it allows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::error;

use crate::services::chain::Chain;
use crate::services::clock;
use crate::store::{Cache, CacheId, Right, Store, StoreError, Token, TokenId, UnixSeconds};
use crate::wire::{DeviceId, Refusal, RefusalCode, TokenText};

/// Somebody with a checked token.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token; it was neither expired nor revoked when it was checked.
    pub token: Token,
}

impl Caller {
    /// Whether the token is its owner's own, with which everything may be done.
    #[must_use]
    pub const fn is_personal(&self) -> bool {
        self.token.grants.is_none()
    }

    /// Whether the token may take paths from `cache`.
    #[must_use]
    pub fn may_read(&self, cache: &Cache) -> bool {
        cache.is_public || self.has(cache, |right| matches!(right, Right::Read | Right::ReadWrite))
    }

    /// Whether the token may give paths to `cache`.
    #[must_use]
    pub fn may_write(&self, cache: &Cache) -> bool {
        self.has(cache, |right| matches!(right, Right::Write | Right::ReadWrite))
    }

    /// Whether the token may do anything at all with `cache`; to others there is none.
    #[must_use]
    pub fn sees(&self, cache: &Cache) -> bool {
        self.may_read(cache) || self.may_write(cache)
    }

    /// Those of `caches` that the token may read or write.
    #[must_use]
    pub fn caches_in_sight(&self, caches: &[Arc<Cache>]) -> Vec<CacheId> {
        caches.iter().filter(|cache| self.sees(cache)).map(|cache| cache.id).collect()
    }

    fn has(&self, cache: &Cache, enough: impl Fn(Right) -> bool) -> bool {
        self.token.grants.as_ref().is_none_or(|grants| {
            grants.iter().any(|(granted, right)| *granted == cache.id && enough(*right))
        })
    }
}

/// Why a token is no good.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The text is no token.
    #[error("the token is not of the form ldr_ID_SECRET; copy it again, all 89 characters")]
    Malformed,
    /// It carries the device ID of another box.
    #[error("the token is for the box {0}, not for this one")]
    OtherBox(DeviceId),
    /// No token of this box has that secret.
    #[error("the token is not known here; ask the owner of the box for another")]
    Unknown,
    /// It is too old.
    #[error("the token has expired; ask the owner of the box for another")]
    Expired,
    /// Somebody revoked it.
    #[error("the token was revoked; ask the owner of the box for another")]
    Revoked,
    /// The store could not answer.
    #[error("the token cannot be checked now")]
    Store(#[from] StoreError),
}

/// Checks tokens.
///
/// Each check reads the token's row, so a revocation counts from the next request on. The row is
/// found by the SHA-256 of the secret's 256 random bits: how long that takes tells somebody who
/// guesses nothing about the secret, for its hash cannot be steered.
#[derive(Clone, Debug)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    device_id: DeviceId,
    /// When tokens were used, as far as it is not written down; as many as there are tokens.
    used: Mutex<HashMap<TokenId, UnixSeconds>>,
}

impl Auth {
    pub(super) fn new(store: Store, device_id: DeviceId) -> Self {
        Self(Arc::new(Inner { store, device_id, used: Mutex::default() }))
    }

    /// Checks a token's text. That it was used is written down within half a minute.
    ///
    /// # Errors
    ///
    /// [`AuthError`] says why it is no good.
    pub async fn check(&self, text: &str) -> Result<Caller, AuthError> {
        let presented: TokenText = text.parse().map_err(|_form| AuthError::Malformed)?;
        if presented.device_id() != self.0.device_id {
            return Err(AuthError::OtherBox(presented.device_id()));
        }
        let found = self.0.store.find_token(presented.secret_hash()).await?;
        let token = found.ok_or(AuthError::Unknown)?;
        let now = clock::now();
        check_at(&token, now)?;
        self.used().insert(token.id, now);
        Ok(Caller { token })
    }

    /// Writes down when tokens were used last. What cannot be written is lost, and logged.
    pub(super) async fn write_last_uses(&self) {
        let used = std::mem::take(&mut *self.used());
        for (token, at) in used {
            if let Err(error) = self.0.store.touch_token(token, at).await {
                error!(error = %Chain(&error), "Cannot write down the last use of a token");
                return;
            }
        }
    }

    fn used(&self) -> std::sync::MutexGuard<'_, HashMap<TokenId, UnixSeconds>> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_at(token: &Token, now: UnixSeconds) -> Result<(), AuthError> {
    if token.revoked_at.is_some() {
        Err(AuthError::Revoked)
    } else if token.expires_at.is_some_and(|end| end <= now) {
        Err(AuthError::Expired)
    } else {
        Ok(())
    }
}

impl From<AuthError> for Refusal {
    /// A failure of the store is logged here; the client hears no more than that there was one.
    fn from(error: AuthError) -> Self {
        let code = match &error {
            AuthError::Store(cause) => {
                error!(error = %Chain(cause), "Cannot check a token");
                RefusalCode::Internal
            }
            _ => RefusalCode::Unauthorised,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            id: TokenId(1),
            label: String::new(),
            created_at: 100,
            expires_at: Some(200),
            last_used_at: None,
            revoked_at: None,
            grants: None,
        }
    }

    #[test]
    fn a_token_ends_at_the_second_it_says() {
        assert!(check_at(&token(), 199).is_ok());
        assert!(matches!(check_at(&token(), 200), Err(AuthError::Expired)));
        let forever = Token { expires_at: None, ..token() };
        assert!(check_at(&forever, u64::MAX).is_ok());
    }

    #[test]
    fn a_revoked_token_is_said_to_be_that_even_when_it_is_old() {
        let revoked = Token { revoked_at: Some(150), ..token() };
        assert!(matches!(check_at(&revoked, 300), Err(AuthError::Revoked)));
    }

    #[test]
    fn rights_are_of_one_cache() {
        use crate::services::tests::cache;
        let (one, two) = (cache(1, "one"), cache(2, "two"));
        let caller = |grants| Caller { token: Token { grants, ..token() } };
        let writer = caller(Some(vec![(one.id, Right::Write)]));
        assert!(writer.may_write(&one) && !writer.may_write(&two) && !writer.is_personal());
        let reader = caller(Some(vec![(one.id, Right::Read)]));
        assert!(!reader.may_write(&one));
        let hidden = Cache { is_public: false, ..cache(1, "one") };
        assert!(reader.may_read(&hidden) && !writer.may_read(&hidden));
        assert!(reader.may_read(&two), "everybody reads what is public");
        let owner = caller(None);
        assert!(owner.may_write(&two) && owner.may_read(&hidden) && owner.is_personal());
        assert!(!caller(Some(Vec::new())).may_write(&one));
    }
}
