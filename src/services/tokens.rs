//! Making, listing and revoking tokens.

use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::info;

use crate::formats::CacheName;
use crate::formats::limits::{GRANTS_MAX, LABEL_CHARS_MAX, TOKENS_MAX, TOKENS_PAGE_MAX};
use crate::services::auth::Auth;
use crate::services::caches::Caches;
use crate::services::clock;
use crate::services::secrets::{NoRandomness, random};
use crate::store::{CacheId, KnownToken, NewToken, Right, Store, StoreError, Token, TokenId};
use crate::wire::{DeviceId, TokenText};

/// A token to be made.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// What it is for, in its owner's words.
    pub label: String,
    /// How long it is good, in seconds from now; `None`: until it is revoked.
    pub expires_in_seconds: Option<u64>,
    /// The caches it is for; `None`: a personal token, which may do everything.
    pub grants: Option<Vec<(CacheName, Right)>>,
    /// The only device that may use it; `None`: any.
    pub device: Option<DeviceId>,
}

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateTokenError {
    /// The label is too long, or has characters that a terminal takes for orders.
    #[error(
        "a label is one line of at most {LABEL_CHARS_MAX} characters, without control characters"
    )]
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
    /// There are [`TOKENS_MAX`] good ones.
    #[error("the box has {TOKENS_MAX} tokens, and holds no more; revoke some that are not used")]
    TooMany,
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

/// Why a token was not revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeTokenError {
    /// Nobody could administer the box after that.
    #[error(
        "the token {} is the only personal one that is good, and without one nobody can \
         administer the box; make another first with `larder token create`, or repeat with \
         --yes: then `larder token recover`, on the box itself, makes a new one",
        .0.0
    )]
    LastPersonal(TokenId),
    /// The store refused.
    #[error("the revocation cannot be written down")]
    Store(#[from] StoreError),
}

/// Makes, lists and revokes tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Store,
    caches: Caches,
    auth: Auth,
    device_id: DeviceId,
    /// Held from a change in the store until [`Auth`] knows of it, so that changes of one token
    /// reach it in their order.
    changing: Arc<Mutex<()>>,
}

impl Tokens {
    pub(super) fn new(store: Store, caches: Caches, auth: Auth, device_id: DeviceId) -> Self {
        Self { store, caches, auth, device_id, changing: Arc::default() }
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
        let TokenRequest { label, expires_in_seconds, grants, device } = request;
        check_label(&label)?;
        let now = clock::now();
        let text = TokenText::new(self.device_id, random()?);
        let new = NewToken {
            secret_hash: text.secret_hash(),
            label,
            created_at: now,
            expires_at: expires_in_seconds.map(|seconds| end_of(now, seconds)).transpose()?,
            grants: grants.map(|grants| self.resolve(&grants)).transpose()?,
            device_id: device.map(|device| device.0),
        };
        let _no_other = self.changing.lock().await;
        if self.auth.count_good().0 >= TOKENS_MAX {
            return Err(CreateTokenError::TooMany);
        }
        let secret_hash = new.secret_hash;
        let token = self.store.create_token(new).await?;
        self.auth.learn(KnownToken { secret_hash, token: token.clone() });
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

    /// Tokens with a higher number than `after`, without their secrets, oldest first; revoked and
    /// expired ones too. At most [`TOKENS_PAGE_MAX`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] if they cannot be read.
    pub async fn list(&self, after: TokenId, limit: u32) -> Result<Vec<Token>, StoreError> {
        let known = self.store.tokens_after(after, limit.min(TOKENS_PAGE_MAX)).await?;
        Ok(known.into_iter().map(|known| known.token).collect())
    }

    /// Revokes a token, from the next request on, and for what is under way; a second time changes
    /// nothing. False if there is none of that number.
    ///
    /// # Errors
    ///
    /// [`RevokeTokenError`]; the token is still good then.
    pub async fn revoke(&self, id: TokenId) -> Result<bool, RevokeTokenError> {
        let _no_other = self.changing.lock().await;
        let is_personal = self.auth.token(id).is_some_and(|token| token.grants.is_none());
        if is_personal && self.auth.is_good(id) && self.auth.count_good().1 == 1 {
            return Err(RevokeTokenError::LastPersonal(id));
        }
        Ok(self.write_revocation(id).await?)
    }

    /// Revokes as [`revoke`](Self::revoke) does, the last personal token too.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if that cannot be written down; the token is still good then.
    pub async fn revoke_even_last(&self, id: TokenId) -> Result<bool, StoreError> {
        let _no_other = self.changing.lock().await;
        self.write_revocation(id).await
    }

    async fn write_revocation(&self, id: TokenId) -> Result<bool, StoreError> {
        let now = clock::now();
        let revoked = self.store.revoke_token(id, now).await?;
        if revoked {
            self.auth.note_revoked(id, now);
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
    let fits = label.chars().count() <= LABEL_CHARS_MAX && !label.contains(is_order);
    if fits { Ok(()) } else { Err(CreateTokenError::Label) }
}

/// Whether a terminal would take it for an order, or it turns the direction of what follows
/// (Unicode's Bidi_Control), is not to be seen, or begins a new line.
fn is_order(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
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
    fn a_label_gives_no_orders() {
        for fine in ['a', ' ', 'ä', '構', '\u{1f512}', '-'] {
            assert!(!is_order(fine), "{fine:?}");
        }
        for order in ['\0', '\n', '\u{1b}', '\u{7f}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{2028}']
        {
            assert!(is_order(order), "{order:?}");
        }
    }

    #[test]
    fn a_token_lasts_at_least_a_second_and_not_past_all_time() {
        assert!(matches!(end_of(100, 1), Ok(101)));
        for seconds in [0, u64::MAX, u64::MAX - 100, 1 << 63] {
            assert!(matches!(end_of(100, seconds), Err(CreateTokenError::Expiry)), "{seconds}");
        }
    }
}
