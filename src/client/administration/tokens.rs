//! Tokens, and what was pushed with them, as administration shows and takes them.

use serde::{Deserialize, Serialize};

use crate::formats::CacheName;

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

/// A pairing code that was just made; it is shown this once.
#[derive(Clone, Serialize, Deserialize)]
pub struct MadeCode {
    /// Its text.
    pub code: String,
    /// How long it is good.
    pub expires_in_seconds: u64,
}
