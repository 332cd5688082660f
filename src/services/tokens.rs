//! Making, listing and revoking tokens.

use tracing::info;

use crate::formats::CacheName;
use crate::services::caches::Caches;
use crate::services::clock;
use crate::services::secrets::{NoRandomness, random};
use crate::store::{CacheId, NewToken, Right, Store, StoreError, Token, TokenId};
use crate::wire::{DeviceId, TokenText};

/// Longest label of a token, in characters.
pub const LABEL_CHARS_MAX: usize = 100;
/// Caches that one token may be for.
pub const GRANTS_MAX: usize = 100;

/// A token to be made.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// What it is for, in its owner's words.
    pub label: String,
    /// How long it is good, in seconds from now; `None`: until it is revoked.
    pub expires_in_seconds: Option<u64>,
    /// The caches it is for; `None`: a personal token, which may do everything.
    pub grants: Option<Vec<(CacheName, Right)>>,
}

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateTokenError {
    /// The label is too long, or has more than one line.
    #[error("a label is one line of at most {LABEL_CHARS_MAX} characters")]
    Label,
    /// It would expire at once, or at no time that can be written.
    #[error("a token must be good for at least a second, and end before the end of time")]
    Expiry,
    /// A list of no caches, of too many, or with one twice.
    #[error(
        "a token is for 1 to {GRANTS_MAX} caches, each named once; leave the list out for a \
         personal token"
    )]
    Grants,
    /// There is no such cache.
    #[error("there is no cache called '{0}'; `larder cache list` shows those that there are")]
    NoSuchCache(CacheName),
    /// No secret could be made.
    #[error("the secret cannot be made")]
    NoRandomness(#[from] NoRandomness),
    /// The store refused.
    #[error("the token cannot be written down")]
    Store(#[from] StoreError),
}

/// Makes, lists and revokes tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Store,
    caches: Caches,
    device_id: DeviceId,
}

impl Tokens {
    pub(super) const fn new(store: Store, caches: Caches, device_id: DeviceId) -> Self {
        Self { store, caches, device_id }
    }

    /// Makes a token. Its text is in the answer and nowhere else: only a hash is kept.
    ///
    /// # Errors
    ///
    /// [`CreateTokenError`]; nothing was made then.
    pub async fn create(
        &self,
        request: TokenRequest,
    ) -> Result<(Token, TokenText), CreateTokenError> {
        let TokenRequest { label, expires_in_seconds, grants } = request;
        check_label(&label)?;
        let now = clock::now();
        let text = TokenText::new(self.device_id, random()?);
        let new = NewToken {
            secret_hash: text.secret_hash(),
            label,
            created_at: now,
            expires_at: expires_in_seconds.map(|seconds| end_of(now, seconds)).transpose()?,
            grants: grants.map(|grants| self.resolve(&grants)).transpose()?,
        };
        let token = self.store.create_token(new).await?;
        info!(token.id = token.id.0, "Made the token {}", token.id.0);
        Ok((token, text))
    }

    /// Whether such a token could be made.
    ///
    /// # Errors
    ///
    /// [`CreateTokenError`] as from [`create`](Self::create).
    pub fn check(&self, request: &TokenRequest) -> Result<(), CreateTokenError> {
        check_label(&request.label)?;
        request.expires_in_seconds.map(|seconds| end_of(clock::now(), seconds)).transpose()?;
        request.grants.as_deref().map(|grants| self.resolve(grants)).transpose()?;
        Ok(())
    }

    /// All tokens without their secrets, oldest first; revoked and expired ones too.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if they cannot be read.
    pub async fn list(&self) -> Result<Vec<Token>, StoreError> {
        self.store.tokens().await
    }

    /// Revokes a token, from the next request on; a second time changes nothing. False if there
    /// is none of that number.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if that cannot be written down; the token is still good then.
    pub async fn revoke(&self, id: TokenId) -> Result<bool, StoreError> {
        let revoked = self.store.revoke_token(id, clock::now()).await?;
        if revoked {
            info!(token.id = id.0, "Revoked the token {}", id.0);
        }
        Ok(revoked)
    }

    fn resolve(
        &self,
        grants: &[(CacheName, Right)],
    ) -> Result<Vec<(CacheId, Right)>, CreateTokenError> {
        let is_twice = |place: usize, name: &CacheName| {
            grants.iter().take(place).any(|(other, _)| other == name)
        };
        if grants.is_empty()
            || grants.len() > GRANTS_MAX
            || grants.iter().enumerate().any(|(place, (name, _))| is_twice(place, name))
        {
            return Err(CreateTokenError::Grants);
        }
        let resolve = |(name, right): &(CacheName, Right)| {
            let cache = self.caches.get(name);
            let cache = cache.ok_or_else(|| CreateTokenError::NoSuchCache(name.clone()))?;
            Ok((cache.id, *right))
        };
        grants.iter().map(resolve).collect()
    }
}

fn check_label(label: &str) -> Result<(), CreateTokenError> {
    let fits = label.chars().count() <= LABEL_CHARS_MAX && !label.contains(char::is_control);
    if fits { Ok(()) } else { Err(CreateTokenError::Label) }
}

/// Ends beyond what SQLite can count are refused: its numbers are signed.
fn end_of(now: u64, seconds: u64) -> Result<u64, CreateTokenError> {
    let end = now.checked_add(seconds).filter(|end| seconds > 0 && i64::try_from(*end).is_ok());
    end.ok_or(CreateTokenError::Expiry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lasts_at_least_a_second_and_not_past_all_time() {
        assert!(matches!(end_of(100, 1), Ok(101)));
        for seconds in [0, u64::MAX, u64::MAX - 100, 1 << 63] {
            assert!(matches!(end_of(100, seconds), Err(CreateTokenError::Expiry)), "{seconds}");
        }
    }
}
