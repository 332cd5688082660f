//! Administration of a box: `/api/larder/v1/…` over the pinned connection, typed.
//! docs/admin-api.md describes the requests.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::formats::CacheName;
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

/// A cache to be made.
#[derive(Clone, Debug, Serialize)]
pub struct NewCache {
    /// Its name.
    pub name: CacheName,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// See [`CacheFacts::priority`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
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
}

/// A token that was just made; its text is shown this once.
#[derive(Clone, Serialize, Deserialize)]
pub struct MadeToken {
    /// The token.
    pub token: TokenFacts,
    /// Its text.
    pub secret: String,
}

/// A pairing code that was just made; it is shown this once.
#[derive(Clone, Serialize, Deserialize)]
pub struct MadeCode {
    /// Its text.
    pub code: String,
    /// How long it is good.
    pub expires_in_seconds: u64,
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
    /// What is wrong with the certificate for HTTPS, if anything.
    pub certificate_problem: Option<String>,
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

    /// All tokens, oldest first, revoked ones too.
    pub async fn tokens(&self) -> Result<Vec<TokenFacts>, AdminError> {
        let answer: Tokens = self.get("/tokens").await?;
        Ok(answer.tokens)
    }

    /// Makes a token.
    pub async fn create_token(&self, new: &NewToken) -> Result<MadeToken, AdminError> {
        self.post("/tokens", new).await
    }

    /// Makes a code that `larder pair` gets such a token for.
    pub async fn create_pairing_code(&self, new: &NewToken) -> Result<MadeCode, AdminError> {
        self.post("/pairing-codes", new).await
    }

    /// Revokes a token, from the next request on.
    pub async fn revoke_token(&self, id: i64) -> Result<(), AdminError> {
        self.ask("DELETE", &format!("/tokens/{id}"), Vec::new()).await.map(drop)
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
        let body = serde_json::to_vec(body).map_err(AdminError::Question)?;
        read(&self.ask("POST", path, body).await?)
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
        let new = NewCache { name: name.clone(), description: None, priority: None };
        assert_eq!(serde_json::to_string(&new).unwrap(), r#"{"name":"main"}"#);
        let caches = Some(vec![Grant { cache: name, right: TokenRight::ReadWrite }]);
        let new = NewToken { label: None, expires_in_seconds: Some(60), caches };
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
