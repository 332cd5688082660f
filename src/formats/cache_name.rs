//! Names of caches.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a cache, in characters.
pub const CACHE_NAME_LEN_MAX: usize = 40;

/// First segments of paths that the root of a box serves or will serve; no cache may be called
/// one of these, or its own paths could not be told from the root's.
pub const RESERVED: [&str; 19] = [
    "admin",
    "api",
    "assets",
    "build-trace",
    "build-trace-v2",
    "debuginfo",
    "favicon",
    "healthz",
    "larder",
    "log",
    "metrics",
    "nar",
    "nix-cache-info",
    "page",
    "readyz",
    "realisations",
    "robots",
    "serve",
    "static",
];

/// The name of a cache: `[a-z][a-z0-9]*(-[a-z0-9]+)*`, at most 40 characters, none of
/// [`RESERVED`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CacheName(Box<str>);

/// Why a text cannot name a cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCacheNameError {
    /// Something other than the pattern.
    #[error(
        "a cache's name begins with a letter and has lower-case letters, digits and single hyphens"
    )]
    Pattern,
    /// Too long.
    #[error("a cache's name has at most {CACHE_NAME_LEN_MAX} characters; this has {0}")]
    Length(usize),
    /// One of [`RESERVED`].
    #[error("'{0}' is a word that the box needs for itself; choose another name")]
    Reserved(&'static str),
}

impl CacheName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CacheName {
    type Err = ParseCacheNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > CACHE_NAME_LEN_MAX {
            return Err(ParseCacheNameError::Length(text.chars().count()));
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let word = |word: &str| !word.is_empty() && word.bytes().all(plain);
        if !text.starts_with(|first: char| first.is_ascii_lowercase()) || !text.split('-').all(word)
        {
            return Err(ParseCacheNameError::Pattern);
        }
        if let Some(reserved) = RESERVED.into_iter().find(|reserved| *reserved == text) {
            return Err(ParseCacheNameError::Reserved(reserved));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for CacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CacheName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CacheName {
    type Error = ParseCacheNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CacheName> for String {
    fn from(name: CacheName) -> Self {
        name.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern() {
        for text in ["main", "a", "office-2", "a-b-c", "x1"] {
            assert!(text.parse::<CacheName>().is_ok(), "{text}");
        }
        for text in ["", "-a", "a-", "a--b", "A", "1a", "a_b", "a.b", "ä", "a b", "../x"] {
            assert_eq!(text.parse::<CacheName>(), Err(ParseCacheNameError::Pattern), "{text:?}");
        }
        assert_eq!("x".repeat(41).parse::<CacheName>(), Err(ParseCacheNameError::Length(41)));
    }

    #[test]
    fn the_words_of_the_root_are_reserved() {
        for word in RESERVED {
            assert!(word.parse::<CacheName>().is_err(), "{word}");
        }
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn every_first_segment_that_a_nix_asks_for_is_reserved() {
        // `src/libstore/binary-cache-store.cc`, Nix 2.8 to 2.35; the rest is HASH.narinfo and
        // HASH.ls, which are no names.
        for word in ["nix-cache-info", "nar", "log", "debuginfo", "realisations", "build-trace-v2"]
        {
            assert!(RESERVED.contains(&word), "{word}");
        }
    }

    #[test]
    fn the_page_on_caches_lists_the_reserved_words() {
        let page = include_str!("../../docs/caches.md");
        let words = page.split("no cache's name:").nth(1).unwrap().split("\n\n").next().unwrap();
        let words: Vec<_> =
            words.split(',').map(|word| word.trim().trim_matches(['`', '.'])).collect();
        assert_eq!(words, RESERVED);
    }
}
