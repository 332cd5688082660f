//! Who pushed what, when, with which token and device.

use std::sync::Arc;

use crate::formats::StorePathHash;
use crate::formats::limits::LOG_PAGE_MAX;
use crate::services::auth::Auth;
use crate::store::{Cache, LogEntry, LogPlace, Store, StoreError, TokenId, UnixSeconds};
use crate::wire::DeviceId;

/// A push, by what it left: of a path that came again, who brought what is there.
#[derive(Clone, Debug)]
pub struct LoggedPush {
    /// The path, its size, when it came, and with which token.
    pub entry: LogEntry,
    /// What the token is called, if it is still known.
    pub token_label: Option<String>,
    /// Who the pusher's device is.
    pub device_id: DeviceId,
}

/// Knows who pushed what. The rows of the paths are the log: a path that is gone has gone from
/// it too.
#[derive(Clone, Debug)]
pub struct PushLog {
    store: Store,
    auth: Auth,
}

impl PushLog {
    pub(super) const fn new(store: Store, auth: Auth) -> Self {
        Self { store, auth }
    }

    /// Pushes to a cache from `since` on and behind `after`, oldest first; at most `limit` and
    /// [`LOG_PAGE_MAX`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the index cannot be read.
    pub async fn page(
        &self,
        cache: &Arc<Cache>,
        since: UnixSeconds,
        after: Option<LogPlace>,
        limit: u32,
    ) -> Result<Vec<LoggedPush>, StoreError> {
        let limit = limit.min(LOG_PAGE_MAX);
        let entries = self.store.log(cache.id, since, after, limit).await?;
        Ok(entries.into_iter().map(|entry| self.logged(entry)).collect())
    }

    /// Who pushed one path.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the index cannot be read.
    pub async fn of_path(
        &self,
        cache: &Arc<Cache>,
        path: StorePathHash,
    ) -> Result<Option<LoggedPush>, StoreError> {
        let entry = self.store.log_of(cache.id, path).await?;
        Ok(entry.map(|entry| self.logged(entry)))
    }

    fn logged(&self, entry: LogEntry) -> LoggedPush {
        let device_id = DeviceId::of_public_key(&entry.device_key);
        let token_label = self.label(entry.token, entry.pushed_at);
        LoggedPush { entry, token_label, device_id }
    }

    /// Where an index was lost, numbers begin anew: a token that is younger than the push is
    /// another one.
    fn label(&self, token: TokenId, pushed_at: UnixSeconds) -> Option<String> {
        let token = self.auth.token(token).filter(|token| token.created_at <= pushed_at)?;
        Some(token.label.clone())
    }
}
