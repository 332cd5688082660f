//! Store paths: `/nix/store/`, 32 characters of Nix base-32, a hyphen and a name.
//!
//! Source of the rules: `src/libstore/path.cc` (Nix 2.34): names are 1 to 211 characters of
//! `[0-9a-zA-Z+-._?=]`; `.` and `..`, alone or before a hyphen, are refused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::formats::base32;

/// The one store directory that a cache is for; `StoreDir` in `nix-cache-info`.
pub const STORE_DIR: &str = "/nix/store";

/// Longest name behind the hash: Nix's `maxPathLen`.
pub const NAME_LEN_MAX: usize = 211;

/// The part of a store path that names it in a cache: 20 bytes, 32 characters of Nix base-32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StorePathHash([u8; Self::LEN_BYTES]);

/// Why a text is no store path, or no hash part of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParsePathError {
    /// The hash part is not 32 digits of Nix base-32.
    #[error(
        "the hash part of a store path is {} characters of Nix base-32",
        StorePathHash::LEN_CHARS
    )]
    Hash,
    /// There is no hyphen and name behind the hash part.
    #[error("a store path is a hash part, a hyphen and a name")]
    NoName,
    /// The name is too long.
    #[error("a store path's name has at most {NAME_LEN_MAX} characters; this has {0}")]
    NameLength(usize),
    /// A character that Nix does not allow in a name.
    #[error("'{}' is not allowed in a store path's name", char::from(*.0).escape_default())]
    NameCharacter(u8),
    /// The name is `.` or `..`, or begins with one and a hyphen.
    #[error("a store path's name is not '.' or '..', nor begins with one of them and a hyphen")]
    NameDots,
    /// The path is not directly in the store directory.
    #[error("the path is not directly in {STORE_DIR}")]
    StoreDir,
}

impl StorePathHash {
    /// Bytes of a hash part.
    pub const LEN_BYTES: usize = 20;
    /// Characters of a hash part.
    pub const LEN_CHARS: usize = 32;

    /// Takes the bytes of a hash part.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }
}

impl FromStr for StorePathHash {
    type Err = ParsePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = base32::decode(text.as_bytes()).map_err(|_digits| ParsePathError::Hash)?;
        bytes.try_into().map(Self).map_err(|_length| ParsePathError::Hash)
    }
}

impl fmt::Display for StorePathHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32::encode(&self.0))
    }
}

impl fmt::Debug for StorePathHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A store path. Shown as its base name; ordered by it too, as Nix orders references.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorePath {
    base_name: Box<str>,
}

impl StorePath {
    /// Reads an absolute path directly in [`STORE_DIR`].
    ///
    /// # Errors
    ///
    /// [`ParsePathError`], also for a path further down.
    pub fn from_absolute(path: &str) -> Result<Self, ParsePathError> {
        path.strip_prefix(STORE_DIR)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or(ParsePathError::StoreDir)?
            .parse()
    }

    /// The part that names the path in a cache.
    #[must_use]
    pub fn hash(&self) -> StorePathHash {
        let mut bytes = [0_u8; StorePathHash::LEN_BYTES];
        // The text was checked when the value was made, so this always decodes to 20 bytes.
        if let Ok(decoded) = base32::decode(&self.base_name.as_bytes()[..StorePathHash::LEN_CHARS])
        {
            bytes.copy_from_slice(&decoded);
        }
        StorePathHash(bytes)
    }

    /// The part behind the hash and the hyphen.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.base_name[StorePathHash::LEN_CHARS + 1..]
    }

    /// Hash part, hyphen and name.
    #[must_use]
    pub fn base_name(&self) -> &str {
        &self.base_name
    }

    /// The path as Nix shows it, with the store directory.
    #[must_use]
    pub fn to_absolute(&self) -> String {
        format!("{STORE_DIR}/{}", self.base_name)
    }
}

impl FromStr for StorePath {
    type Err = ParsePathError;

    fn from_str(base_name: &str) -> Result<Self, Self::Err> {
        let hash = base_name.get(..StorePathHash::LEN_CHARS).ok_or(ParsePathError::Hash)?;
        hash.parse::<StorePathHash>()?;
        let name = base_name[StorePathHash::LEN_CHARS..].strip_prefix('-');
        check_name(name.ok_or(ParsePathError::NoName)?)?;
        Ok(Self { base_name: base_name.into() })
    }
}

fn check_name(name: &str) -> Result<(), ParsePathError> {
    if name.is_empty() {
        return Err(ParsePathError::NoName);
    }
    if name.len() > NAME_LEN_MAX {
        return Err(ParsePathError::NameLength(name.len()));
    }
    if name.split('-').next().is_some_and(|first| first == "." || first == "..") {
        return Err(ParsePathError::NameDots);
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte);
    match name.bytes().find(|byte| !allowed(byte)) {
        Some(byte) => Err(ParsePathError::NameCharacter(byte)),
        None => Ok(()),
    }
}

impl TryFrom<String> for StorePath {
    type Error = ParsePathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<StorePath> for String {
    fn from(path: StorePath) -> Self {
        path.base_name.into()
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base_name)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "7h7qgvs4kgzsn8a6rb273saxyqh4jxlz";

    #[test]
    fn a_path_keeps_its_parts() {
        let path = StorePath::from_absolute(&format!("/nix/store/{HASH}-hello-2.12?=+_")).unwrap();
        assert_eq!(path.hash().to_string(), HASH);
        assert_eq!(path.name(), "hello-2.12?=+_");
        assert_eq!(path.to_absolute(), format!("/nix/store/{HASH}-hello-2.12?=+_"));
    }

    #[test]
    fn what_is_no_store_path_is_refused() {
        for (text, error) in [
            (String::new(), ParsePathError::Hash),
            ("hello".to_owned(), ParsePathError::Hash),
            (HASH.to_owned(), ParsePathError::NoName),
            (format!("{HASH}-"), ParsePathError::NoName),
            (format!("{HASH}x"), ParsePathError::NoName),
            (format!("e{}-x", &HASH[1..]), ParsePathError::Hash),
            (format!("{HASH}-a/b"), ParsePathError::NameCharacter(b'/')),
            (format!("{HASH}-a\0"), ParsePathError::NameCharacter(0)),
            (format!("{HASH}-.."), ParsePathError::NameDots),
            (format!("{HASH}-.-x"), ParsePathError::NameDots),
            (format!("{HASH}-{}", "x".repeat(212)), ParsePathError::NameLength(212)),
            (format!("{}é-x", &HASH[1..]), ParsePathError::Hash),
        ] {
            assert_eq!(text.parse::<StorePath>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_path_below_a_store_path_is_not_one() {
        for text in [format!("/nix/store/{HASH}-a/b"), format!("/tmp/{HASH}-a")] {
            assert!(StorePath::from_absolute(&text).is_err(), "{text}");
        }
    }
}
