//! Administration of a box: `/api/larder/v1/…` over the pinned connection, typed.
//! docs/admin-api.md describes the requests.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use crate::formats::signature::PublicKey;
use crate::formats::{CacheName, StorePathHash};
use crate::transports::quic::{BoxConnection, RequestError};
use crate::wire::message::AdminRequest;

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

/// A cache, as the box shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheFacts {
    /// Its name.
    pub name: String,
    /// Its place under the box's URL, such as `/main`.
    pub url_path: String,
    /// Whether anybody may read it.
    pub public: bool,
    /// `managed` or `self-signed`.
    pub signing: String,
    /// Keys whose signatures it serves, newest first.
    pub public_keys: Vec<String>,
    /// What Nix compares substituters by; the lower is asked first.
    pub priority: u32,
    /// Its place in the list that the box's root URL answers for.
    pub root_position: Option<u32>,
    /// For people.
    pub description: String,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Paths that are served.
    pub paths_visible: u64,
    /// Paths that wait for references.
    pub paths_hidden: u64,
}

/// A cache to be made; what is not said is as usual.
#[derive(Clone, Debug, Serialize)]
pub struct NewCache {
    /// Its name.
    pub name: CacheName,
    /// What else it is to be.
    #[serde(flatten)]
    pub changes: CacheChanges,
}

/// What is to be otherwise about a cache; what is not said stays.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CacheChanges {
    /// See [`CacheFacts::public`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
    /// Who signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing: Option<SigningMode>,
    /// Keys to register with a self-signed cache.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub public_keys: Vec<PublicKey>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// See [`CacheFacts::priority`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// See [`CacheFacts::root_position`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_position: Option<RootPlace>,
    /// Even if paths that are served now would be good for nobody then.
    #[serde(skip_serializing_if = "is_false")]
    pub force: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Who signs what a cache serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SigningMode {
    /// The box.
    Managed,
    /// Who pushes.
    SelfSigned,
}

/// A place in the list that the box's root URL answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootPlace {
    /// None.
    Out,
    /// Behind all others.
    Last,
    /// By its number; the lower is asked first.
    At(u32),
}

impl Serialize for RootPlace {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Out => to.serialize_none(),
            Self::Last => to.serialize_str("last"),
            Self::At(position) => to.serialize_u32(*position),
        }
    }
}

/// What a token may do with a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenRight {
    /// Read it.
    Read,
    /// Push to it.
    Write,
    /// Both.
    ReadWrite,
}

/// One cache that a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The cache.
    pub cache: CacheName,
    /// What may be done.
    pub right: TokenRight,
}

/// A token, without its secret. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFacts {
    /// Its number on the box.
    pub id: i64,
    /// For people.
    pub label: String,
    /// Whether it may do everything.
    pub personal: bool,
    /// The caches that it is for, if it is not personal.
    pub caches: Vec<Grant>,
    /// When it was made.
    pub created_at: u64,
    /// From when on it is no good.
    pub expires_at: Option<u64>,
    /// When it was used last; may be half a minute behind.
    pub last_used_at: Option<u64>,
    /// When it was revoked.
    pub revoked_at: Option<u64>,
    /// The ID of the only device that may use it.
    #[serde(default)]
    pub device: Option<String>,
}

/// A token to be made.
#[derive(Clone, Debug, Serialize)]
pub struct NewToken {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// How long it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// The caches that it is for; `None` makes a personal one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caches: Option<Vec<Grant>>,
    /// The only device that may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// A token that was just made; its text is shown this once.
#[derive(Clone, Serialize, Deserialize)]
pub struct MadeToken {
    /// The token.
    pub token: TokenFacts,
    /// Its text.
    pub secret: String,
}

/// A push, by what it left. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRecord {
    /// The store path.
    pub path: String,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Whether it is served.
    pub visible: bool,
    /// When it came.
    pub pushed_at: u64,
    /// The number of the token that it came with.
    pub token: i64,
    /// What that is called; `None` where the box does not know it any more.
    pub token_label: Option<String>,
    /// The ID of the pusher's device.
    pub device: String,
}

/// How the box is. Times are seconds since 1970 by the box's clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BoxStatus {
    /// Its version of larder.
    pub version: String,
    /// What it calls itself.
    pub name: String,
    /// Who it is.
    pub device_id: String,
    /// When it started.
    pub started_at: u64,
    /// Its clock.
    pub now: u64,
    /// Its caches, by name.
    pub caches: Vec<CacheFacts>,
    /// What is in its store.
    pub store: StoreFacts,
    /// Pushes since it started.
    pub pushes: PushFacts,
    /// How checks stand.
    pub check: CheckFacts,
}

/// What is in a box's store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreFacts {
    /// Paths that are served.
    pub paths_visible: u64,
    /// Paths that wait for references.
    pub paths_hidden: u64,
    /// Different NARs.
    pub nars: u64,
    /// Their bytes, uncompressed.
    pub nar_bytes: u64,
    /// Different chunks.
    pub chunks: u64,
    /// Chunks that are known to be damaged.
    pub damaged_chunks: u64,
    /// Files of chunks.
    pub pack_files: u64,
    /// Their bytes.
    pub pack_bytes: u64,
}

/// Pushes, counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PushFacts {
    /// Paths that are being pushed now.
    pub under_way: u64,
    /// Paths that were stored.
    pub stored: u64,
    /// Paths that were there already.
    pub known: u64,
    /// Paths that were stored and not shown.
    pub hidden: u64,
    /// Paths that were there with another NarHash.
    pub kept_first: u64,
    /// Paths that were refused.
    pub refused: u64,
}

/// How checks stand.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CheckFacts {
    /// The one that runs.
    pub running: Option<RunningCheck>,
    /// The last one that ended since the box started.
    pub last: Option<EndedCheck>,
}

/// A check that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCheck {
    /// Since when.
    pub started_at: u64,
    /// Bytes of packs that were read.
    pub done_bytes: u64,
    /// Bytes of packs that there are; 0 before it is known.
    pub total_bytes: u64,
}

/// A check that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedCheck {
    /// When it began.
    pub started_at: u64,
    /// When it ended.
    pub ended_at: u64,
    /// What kept it from looking.
    pub error: Option<String>,
    /// Sound records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Paths in the index.
    pub paths: u64,
    /// What is damaged or lost, a sentence each.
    pub damaged: Vec<String>,
}

impl EndedCheck {
    /// Whether it looked at everything and all was well.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.error.is_none() && self.damaged.is_empty()
    }
}

#[derive(Deserialize)]
struct Caches {
    caches: Vec<CacheFacts>,
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
    /// Over this connection, whose token must be a personal one.
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

    /// How the box is.
    pub async fn status(&self) -> Result<BoxStatus, AdminError> {
        self.get("/status").await
    }

    /// Starts a check of all stored records.
    pub async fn start_check(&self) -> Result<CheckFacts, AdminError> {
        read(&self.ask("POST", "/check", Vec::new()).await?)
    }

    /// How checks stand.
    pub async fn check(&self) -> Result<CheckFacts, AdminError> {
        self.get("/check").await
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
