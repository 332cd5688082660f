//! Administration of a box: `/api/larder/v1/…` over the pinned connection, typed.
//! docs/admin-api.md describes the requests.

mod caches;
mod collection;
mod paths;
mod pins;
mod status;
mod tokens;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::formats::file_path::percent_encoded;
use crate::formats::signature::PublicKey;
use crate::formats::{CacheName, StorePathHash};
use crate::transports::quic::{BoxConnection, RequestError};
use crate::wire::message::AdminRequest;

pub use caches::{CacheChanges, CacheFacts, KeyFacts, NewCache, RootPlace, SigningMode};
pub use collection::{CollectionFacts, EndedCollection, LeavingPath, NewCollection, SpaceFacts};
pub use paths::{PathFacts, RemovedPaths};
pub use pins::{ArtifactFacts, NewPin, PinFacts, PinPage};
pub use status::{
    BackupFacts, BoxStatus, CheckFacts, ClockFacts, ConnectionFacts, EndedCheck, PushFacts,
    RunningCheck, StoreFacts,
};
pub use tokens::{Grant, MadeCode, MadeToken, NewToken, PushRecord, TokenFacts, TokenRight};

const ROOT: &str = "/api/larder/v1";

/// Why the box did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The request did not get through, or was refused before administration saw it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Administration said no.
    #[error("{detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The box's sentence.
        detail: String,
    },
    /// The answer is not what this version of larder reads.
    #[error("the box's answer cannot be read; is it of another version?")]
    Answer(#[source] serde_json::Error),
    /// The question cannot be written.
    #[error("the request cannot be written")]
    Question(#[source] serde_json::Error),
}

#[derive(Deserialize)]
struct Caches {
    caches: Vec<CacheFacts>,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<KeyFacts>,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<TokenFacts>,
    next: Option<i64>,
}

/// A page of the log.
#[derive(Clone, Debug, Deserialize)]
pub struct LogPage {
    /// Oldest first.
    pub pushes: Vec<PushRecord>,
    /// Where the next page begins, if there may be one.
    pub next: Option<String>,
}

/// What a problem report says (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    detail: Option<String>,
    title: Option<String>,
}

/// The administration of one box. All methods fail with [`AdminError`].
#[derive(Clone, Debug)]
pub struct Administration(BoxConnection);

#[expect(clippy::missing_errors_doc, reason = "the type says it for all")]
impl Administration {
    /// Over this connection, whose token must be a personal one, but for pins.
    #[must_use]
    pub const fn over(connection: BoxConnection) -> Self {
        Self(connection)
    }

    /// All caches, by name.
    pub async fn caches(&self) -> Result<Vec<CacheFacts>, AdminError> {
        let answer: Caches = self.get("/caches").await?;
        Ok(answer.caches)
    }

    /// One cache.
    pub async fn cache(&self, name: &CacheName) -> Result<CacheFacts, AdminError> {
        self.get(&format!("/caches/{name}")).await
    }

    /// Makes a cache.
    pub async fn create_cache(&self, new: &NewCache) -> Result<CacheFacts, AdminError> {
        self.post("/caches", new).await
    }

    /// Changes a cache, from the next request on.
    pub async fn change_cache(
        &self,
        name: &CacheName,
        changes: &CacheChanges,
    ) -> Result<CacheFacts, AdminError> {
        self.send("PATCH", &format!("/caches/{name}"), changes).await
    }

    /// Deletes a cache with all its paths; what it was.
    pub async fn delete_cache(&self, name: &CacheName) -> Result<CacheFacts, AdminError> {
        read(&self.ask("DELETE", &format!("/caches/{name}"), Vec::new()).await?)
    }

    /// The keys of a cache, retired ones too.
    pub async fn keys(&self, cache: &CacheName) -> Result<Vec<KeyFacts>, AdminError> {
        let answer: Keys = self.get(&format!("/caches/{cache}/keys")).await?;
        Ok(answer.keys)
    }

    /// Registers a public key with a self-signed cache.
    pub async fn register_key(
        &self,
        cache: &CacheName,
        key: &PublicKey,
    ) -> Result<KeyFacts, AdminError> {
        let body = serde_json::json!({ "public_key": key });
        self.post(&format!("/caches/{cache}/keys"), &body).await
    }

    /// Takes a registered key away, or retires a managed one.
    pub async fn remove_key(&self, cache: &CacheName, key: &str) -> Result<(), AdminError> {
        let path = format!("/caches/{cache}/keys/{}", escaped(key));
        self.ask("DELETE", &path, Vec::new()).await.map(drop)
    }

    /// Lets a retired managed key sign again.
    pub async fn restore_key(&self, cache: &CacheName, key: &str) -> Result<(), AdminError> {
        let path = format!("/caches/{cache}/keys/{}/restore", escaped(key));
        self.ask("POST", &path, b"{}".to_vec()).await.map(drop)
    }

    /// Lets a new managed key follow; see [`KeyFacts::seconds_left`] of those before it.
    pub async fn rotate_key(
        &self,
        cache: &CacheName,
        retire_after_days: u32,
    ) -> Result<KeyFacts, AdminError> {
        let body = serde_json::json!({ "retire_after_days": retire_after_days });
        self.post(&format!("/caches/{cache}/rotate-key"), &body).await
    }

    /// All tokens, oldest first, revoked ones too.
    pub async fn tokens(&self) -> Result<Vec<TokenFacts>, AdminError> {
        let (mut tokens, mut after) = (Vec::new(), Some(0));
        while let Some(last) = after {
            let page: Tokens = self.get(&format!("/tokens?after={last}")).await?;
            tokens.extend(page.tokens);
            after = page.next.filter(|next| *next > last);
        }
        Ok(tokens)
    }

    /// Makes a token.
    pub async fn create_token(&self, new: &NewToken) -> Result<MadeToken, AdminError> {
        self.post("/tokens", new).await
    }

    /// Makes a code that `larder pair` gets such a token for.
    pub async fn create_pairing_code(&self, new: &NewToken) -> Result<MadeCode, AdminError> {
        self.post("/pairing-codes", new).await
    }

    /// Revokes a token, from the next request on and for what is under way; the last personal
    /// one only if that is meant.
    pub async fn revoke_token(&self, id: i64, even_last: bool) -> Result<(), AdminError> {
        let path = format!("/tokens/{id}?last={even_last}");
        self.ask("DELETE", &path, Vec::new()).await.map(drop)
    }

    /// Who pushed what to a cache since then: a page of it, from `after` on.
    pub async fn log(
        &self,
        cache: &CacheName,
        since: u64,
        after: Option<&str>,
    ) -> Result<LogPage, AdminError> {
        let after = after.map_or_else(String::new, |place| format!("&after={place}"));
        self.get(&format!("/caches/{cache}/log?since={since}{after}")).await
    }

    /// Who pushed a path of a cache.
    pub async fn log_of(
        &self,
        cache: &CacheName,
        path: StorePathHash,
        since: u64,
    ) -> Result<LogPage, AdminError> {
        self.get(&format!("/caches/{cache}/log?since={since}&path={path}")).await
    }

    /// Makes a revision of a pin. Takes the right to write to the cache, as removing does.
    pub async fn pin(&self, cache: &CacheName, new: &NewPin) -> Result<PinFacts, AdminError> {
        self.post(&format!("/caches/{cache}/pins"), new).await
    }

    /// The pins of a cache: a page of them, from `after` on. Takes the right to read it.
    pub async fn pins(
        &self,
        cache: &CacheName,
        after: Option<&str>,
    ) -> Result<PinPage, AdminError> {
        let after = after.map_or_else(String::new, |at| format!("?after={}", escaped(at)));
        self.get(&format!("/caches/{cache}/pins{after}")).await
    }

    /// Removes a pin; how many revisions it had.
    pub async fn remove_pin(&self, cache: &CacheName, name: &str) -> Result<u64, AdminError> {
        let path = format!("/caches/{cache}/pins/{}", escaped(name));
        let removed: pins::Removed = read(&self.ask("DELETE", &path, Vec::new()).await?)?;
        Ok(removed.revisions)
    }

    /// How the box is.
    pub async fn status(&self) -> Result<BoxStatus, AdminError> {
        self.get("/status").await
    }

    /// Starts a check of all stored records.
    pub async fn start_check(&self) -> Result<CheckFacts, AdminError> {
        read(&self.ask("POST", "/check", Vec::new()).await?)
    }

    /// What is known of a path.
    pub async fn path(
        &self,
        cache: &CacheName,
        path: StorePathHash,
    ) -> Result<PathFacts, AdminError> {
        self.get(&format!("/caches/{cache}/paths/{path}")).await
    }

    /// Takes a path out of a cache.
    pub async fn remove_path(
        &self,
        cache: &CacheName,
        path: StorePathHash,
        with_referrers: bool,
        purge: bool,
    ) -> Result<RemovedPaths, AdminError> {
        let how = format!("with_referrers={with_referrers}&purge={purge}");
        let path = format!("/caches/{cache}/paths/{path}?{how}");
        read(&self.ask("DELETE", &path, Vec::new()).await?)
    }

    /// Starts a collection.
    pub async fn start_collection(
        &self,
        new: &NewCollection,
    ) -> Result<CollectionFacts, AdminError> {
        self.post("/collection", new).await
    }

    /// How collections stand.
    pub async fn collection(&self) -> Result<CollectionFacts, AdminError> {
        self.get("/collection").await
    }

    /// How checks stand.
    pub async fn check(&self) -> Result<CheckFacts, AdminError> {
        self.get("/check").await
    }

    /// Has the box make a backup.
    pub async fn start_backup(&self) -> Result<BackupFacts, AdminError> {
        read(&self.ask("POST", "/backup", Vec::new()).await?)
    }

    /// How the last backup stands.
    pub async fn backup(&self) -> Result<BackupFacts, AdminError> {
        self.get("/backup").await
    }

    /// Bytes of a backup from `offset` on, as many as the box gives at a time; none at its end.
    pub async fn backup_part(&self, id: u64, offset: u64) -> Result<Vec<u8>, AdminError> {
        self.ask("GET", &format!("/backup/{id}?offset={offset}"), Vec::new()).await
    }

    /// Takes a backup off the box's disk.
    pub async fn remove_backup(&self, id: u64) -> Result<(), AdminError> {
        self.ask("DELETE", &format!("/backup/{id}"), Vec::new()).await.map(drop)
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.0.close().await;
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        read(&self.ask("GET", path, Vec::new()).await?)
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, AdminError> {
        self.send("POST", path, body).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T, AdminError> {
        let body = serde_json::to_vec(body).map_err(AdminError::Question)?;
        read(&self.ask(method, path, body).await?)
    }

    async fn ask(&self, method: &str, path: &str, body: Vec<u8>) -> Result<Vec<u8>, AdminError> {
        let (method, path) = (method.to_owned(), format!("{ROOT}{path}"));
        let response = self.0.admin(AdminRequest { method, path, body }).await?;
        if (200..300).contains(&response.status) {
            return Ok(response.body);
        }
        Err(refused(response.status, &response.body))
    }
}

/// A segment of a path (RFC 3986, 2.1 and 2.3).
fn escaped(segment: &str) -> String {
    percent_encoded(segment, b"-._~")
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(body).map_err(AdminError::Answer)
}

fn refused(status: u16, body: &[u8]) -> AdminError {
    let problem = serde_json::from_slice::<Problem>(body).ok();
    let detail = problem.and_then(|problem| problem.detail.or(problem.title));
    let detail = detail.unwrap_or_else(|| format!("the box answers with status {status}"));
    AdminError::Refused { status, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_boxs_sentence() {
        let body =
            br#"{"type":"about:blank","title":"Not Found","status":404,"detail":"no cache"}"#;
        assert_eq!(refused(404, body).to_string(), "no cache");
        assert_eq!(refused(404, br#"{"title":"Not Found"}"#).to_string(), "Not Found");
        assert_eq!(refused(500, b"<html>").to_string(), "the box answers with status 500");
    }

    #[test]
    fn requests_leave_out_what_was_not_said() {
        let name: CacheName = "main".parse().unwrap();
        let new = NewCache { name: name.clone(), changes: CacheChanges::default() };
        assert_eq!(serde_json::to_string(&new).unwrap(), r#"{"name":"main"}"#);
        for (place, expected) in [
            (RootPlace::Out, r#"{"root_position":null}"#),
            (RootPlace::Last, r#"{"root_position":"last"}"#),
            (RootPlace::At(3), r#"{"root_position":3}"#),
        ] {
            let changes = CacheChanges { root_position: Some(place), ..CacheChanges::default() };
            assert_eq!(serde_json::to_string(&changes).unwrap(), expected);
        }
        let caches = Some(vec![Grant { cache: name, right: TokenRight::ReadWrite }]);
        let new = NewToken { label: None, expires_in_seconds: Some(60), caches, device: None };
        assert_eq!(
            serde_json::to_string(&new).unwrap(),
            r#"{"expires_in_seconds":60,"caches":[{"cache":"main","right":"readwrite"}]}"#
        );
    }

    #[test]
    fn fields_that_a_later_box_adds_do_no_harm() {
        let facts: CheckFacts = read(br#"{"running":null,"last":null,"next":{"at":7}}"#).unwrap();
        assert!(facts.running.is_none());
        assert!(matches!(read::<CheckFacts>(b"[]"), Err(AdminError::Answer(_))));
    }
}
