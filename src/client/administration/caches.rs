//! Caches and their keys, as administration shows and takes them.

use serde::{Deserialize, Serialize, Serializer};

use crate::formats::CacheName;
use crate::formats::signature::PublicKey;

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
    /// Days after which what nobody reads leaves.
    pub retention_days: Option<u32>,
    /// Bytes of NARs beyond which paths leave.
    pub quota_bytes: Option<u64>,
    /// Seconds since 1970.
    pub created_at: u64,
    /// Paths that are served.
    pub paths_visible: u64,
    /// Paths that wait for references.
    pub paths_hidden: u64,
    /// Bytes of its NARs as they are stored, counted for each path; 0 from a box that does not say.
    #[serde(default)]
    pub stored_bytes: u64,
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
    /// Days after which what nobody reads leaves; `Some(None)`: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<Option<u32>>,
    /// Bytes of NARs beyond which paths leave; `Some(None)`: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_bytes: Option<Option<u64>>,
    /// Even if paths that are served now would be good for nobody then, or leave.
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

/// A key of a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFacts {
    /// `NAME:BASE64`.
    pub public_key: PublicKey,
    /// `registered`; or of a managed one `signs`, `overlap` or `retired`.
    pub state: String,
    /// Seconds of running that a managed key in `overlap` goes on signing.
    pub seconds_left: Option<u64>,
}
