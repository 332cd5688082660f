//! `nix-cache-info`: what a substituter says about itself.
//!
//! Source of the form: `BinaryCacheStore::init` in `src/libstore/binary-cache-store.cc`
//! (Nix 2.34).

use std::fmt;
use std::str::FromStr;

use crate::formats::store_path::STORE_DIR;

/// What a cache for [`STORE_DIR`] says about itself; shown as the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// Whether Nix may ask it for many paths at once: without that it leaves the cache out of its
    /// "which of these exist".
    pub want_mass_query: bool,
    /// Caches with a lower number are asked first; cache.nixos.org has 40. At most `i32::MAX`:
    /// Nix reads an `int` and fails on anything else.
    pub priority: u32,
}

/// What Nix takes where a cache tells no priority (`src/libstore/store-api.hh`).
const PRIORITY_DEFAULT: u32 = 0;

/// Why a text is no `nix-cache-info` of a cache that we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCacheInfoError {
    /// The cache is for another store directory.
    #[error("the cache is for the store directory '{}', not {STORE_DIR}", .0.escape_debug())]
    StoreDir(String),
    /// The priority is no number, or one that Nix cannot read.
    #[error("the cache's priority is no number from 0 to {}", i32::MAX)]
    Priority,
}

impl fmt::Display for CacheInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "StoreDir: {STORE_DIR}")?;
        writeln!(f, "WantMassQuery: {}", u8::from(self.want_mass_query))?;
        writeln!(f, "Priority: {}", self.priority)
    }
}

impl FromStr for CacheInfo {
    type Err = ParseCacheInfoError;

    /// Lines without a colon and unknown names mean nothing, values are trimmed, of two lines
    /// with one name the last counts; all as in Nix.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut info = Self { want_mass_query: false, priority: PRIORITY_DEFAULT };
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            match (name, value.trim()) {
                ("StoreDir", STORE_DIR) => {}
                ("StoreDir", other) => {
                    return Err(ParseCacheInfoError::StoreDir(other.to_owned()));
                }
                ("WantMassQuery", value) => info.want_mass_query = value == "1",
                ("Priority", value) => {
                    let number = value.parse::<i32>().ok();
                    info.priority = number
                        .and_then(|number| u32::try_from(number).ok())
                        .ok_or(ParseCacheInfoError::Priority)?;
                }
                _ => {}
            }
        }
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_ends() {
        let info = CacheInfo { want_mass_query: true, priority: 30 };
        let text = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n";
        assert_eq!(info.to_string(), text);
        assert_eq!(text.parse(), Ok(info));
    }

    #[test]
    fn what_nix_overlooks_is_overlooked() {
        let text = "hello\nStoreDir:/nix/store \r\nX: y\nWantMassQuery: yes\nPriority:  7";
        assert_eq!(text.parse(), Ok(CacheInfo { want_mass_query: false, priority: 7 }));
        assert_eq!(
            "".parse(),
            Ok(CacheInfo { want_mass_query: false, priority: PRIORITY_DEFAULT })
        );
    }

    #[test]
    fn what_nix_cannot_use_is_refused() {
        for text in ["Priority: x", "Priority: ", "Priority: -1", "Priority: 2147483648"] {
            assert_eq!(text.parse::<CacheInfo>(), Err(ParseCacheInfoError::Priority), "{text}");
        }
        let other = "StoreDir: /gnu/store".parse::<CacheInfo>();
        assert_eq!(other, Err(ParseCacheInfoError::StoreDir("/gnu/store".to_owned())));
    }
}
