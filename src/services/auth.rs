//! Tokens: from the text that somebody shows to what it allows.

mod known;
mod wrong;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::error;

use crate::services::admission::Origin;
use crate::services::auth::known::Known;
use crate::services::auth::wrong::WrongSecrets;
use crate::services::chain::Chain;
use crate::services::clock;
use crate::services::pace::Pace;
use crate::store::{
    Cache, CacheId, KnownToken, Right, Store, StoreError, Token, TokenId, UnixSeconds,
};
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
    /// It is for one device, and this is another, or nobody knows which.
    #[error(
        "the token is for the device {0} alone, and good for pushes and administration from there"
    )]
    OtherDevice(DeviceId),
}

/// Checks tokens, from memory.
///
/// All tokens are held as the store has them, and each change of them replaces what is held
/// before it is answered, so a revocation counts from the next request on.
#[derive(Clone, Debug)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    device_id: DeviceId,
    known: watch::Sender<Known>,
    wrong: WrongSecrets,
    requests: Pace<TokenId>,
    /// When tokens were used, as far as it is not written down; as many as there are tokens.
    used: Mutex<HashMap<TokenId, UnixSeconds>>,
}

impl Auth {
    /// Reads the tokens of `store`.
    pub(super) async fn open(
        store: Store,
        device_id: DeviceId,
        requests_per_second: u32,
    ) -> Result<Self, StoreError> {
        let mut known = Known::default();
        for token in store.tokens().await? {
            known.insert(token, clock::now());
        }
        Ok(Self(Arc::new(Inner {
            store,
            device_id,
            known: watch::Sender::new(known),
            wrong: WrongSecrets::new(),
            requests: Pace::per_second(requests_per_second),
            used: Mutex::default(),
        })))
    }

    /// Checks a token's text of somebody who shows neither an address nor a device; see
    /// [`check_from`](Self::check_from).
    ///
    /// # Errors
    ///
    /// [`AuthError`] says why it is no good.
    pub async fn check(&self, text: &str) -> Result<Caller, AuthError> {
        self.check_from(Origin::NOWHERE, None, text).await
    }

    /// Checks a token's text, shown by somebody at that address, on that device if it is known.
    /// That it was used is written down within half a minute. Waits until a request with that
    /// token has its turn; secrets that no token has are answered at a much lower pace, bounded
    /// for each address, and nobody else waits for those.
    ///
    /// # Errors
    ///
    /// [`AuthError`] says why it is no good.
    pub async fn check_from(
        &self,
        from: Origin,
        device: Option<DeviceId>,
        text: &str,
    ) -> Result<Caller, AuthError> {
        let presented: TokenText = text.parse().map_err(|_form| AuthError::Malformed)?;
        if presented.device_id() != self.0.device_id {
            return Err(AuthError::OtherBox(presented.device_id()));
        }
        let secret_hash = presented.secret_hash();
        let found = self.0.known.borrow().find(&secret_hash);
        let Some(token) = found else {
            self.0.wrong.shown(from, &secret_hash).await;
            return Err(AuthError::Unknown);
        };
        // The end of a token is a bound, not an age: it holds by whatever clock there is, and
        // nothing is taken away by it.
        let now = clock::now();
        check_at(&token, now)?;
        if let Some(only) = token.device_id.map(DeviceId)
            && device != Some(only)
        {
            return Err(AuthError::OtherDevice(only));
        }
        self.used().insert(token.id, now);
        self.0.requests.turn(token.id).await;
        Ok(Caller { token: Token::clone(&token) })
    }

    /// Ends when the token is no good any more, and says why: it was revoked, or has expired.
    /// Whatever goes on for long with a token's rights — a push, the body of an answer out of a
    /// private cache — is to be broken off then.
    pub fn revoked(&self, token: TokenId) -> impl Future<Output = AuthError> + Send + 'static {
        let auth = self.clone();
        async move {
            let mut changes = auth.0.known.subscribe();
            loop {
                let token = changes.borrow_and_update().get(token);
                let Some(token) = token else { return AuthError::Unknown };
                let now = clock::now();
                if let Err(error) = check_at(&token, now) {
                    return error;
                }
                tokio::select! {
                    // The sender is in `auth`: it does not go.
                    _changed = changes.changed() => {}
                    () = sleep(look_again_in(token.expires_at, now)) => {}
                }
            }
        }
    }

    /// What a token is called, if there is one of that number; of one that ended long ago
    /// nothing is known.
    #[must_use]
    pub fn token(&self, id: TokenId) -> Option<Arc<Token>> {
        self.0.known.borrow().get(id)
    }

    /// Whether the token of that number is good now.
    pub(super) fn is_good(&self, id: TokenId) -> bool {
        self.token(id).is_some_and(|token| check_at(&token, clock::now()).is_ok())
    }

    /// How many tokens are good now, and how many of them are personal.
    pub(super) fn count_good(&self) -> (usize, usize) {
        self.0.known.borrow().count_good(clock::now())
    }

    /// Holds a new token, which is in the store already.
    pub(super) fn learn(&self, token: KnownToken) {
        self.0.known.send_modify(|known| known.insert(token, clock::now()));
    }

    /// Holds a token as revoked, which it is in the store already.
    pub(super) fn note_revoked(&self, id: TokenId, at: UnixSeconds) {
        self.0.known.send_modify(|known| known.revoke(id, at));
    }

    /// Writes down when tokens were used last. What cannot be written is logged, and tried again
    /// the next time.
    pub(super) async fn write_last_uses(&self) {
        let used = self.used().clone();
        for (token, at) in used {
            if let Err(error) = self.0.store.touch_token(token, at).await {
                error!(error = %Chain(&error), "Cannot write down the last use of a token");
                return;
            }
            // Only now: who waited for this may have gone away in the middle of it.
            let mut used = self.used();
            if used.get(&token) == Some(&at) {
                used.remove(&token);
            }
        }
    }

    fn used(&self) -> std::sync::MutexGuard<'_, HashMap<TokenId, UnixSeconds>> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a good token may go unlooked at. The wall clock may be set, so never for long; and
/// near the end often enough that nothing goes on for a second.
fn look_again_in(expires_at: Option<UnixSeconds>, now: UnixSeconds) -> Duration {
    const LONGEST: u64 = 30;
    match expires_at.map(|end| end.saturating_sub(now)) {
        Some(0 | 1) => Duration::from_millis(200),
        Some(left) => Duration::from_secs((left - 1).min(LONGEST)),
        None => Duration::from_secs(LONGEST),
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
    fn from(error: AuthError) -> Self {
        Self::new(RefusalCode::Unauthorised, error.to_string())
    }
}

#[cfg(test)]
mod tests;
