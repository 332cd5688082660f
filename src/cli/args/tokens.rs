//! Options of `larder token`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::cli::duration::Lifetime;
use crate::client::administration::{Grant, TokenRight};
use crate::formats::cache_name::ParseCacheNameError;
use crate::wire::DeviceId;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    /// Create a token and print it, this once
    ///
    /// Without --cache it is a personal one, which may do everything on the box. Anyone who may
    /// write to a managed cache can give its users any path.
    Create(TokenCreateArgs),
    /// List the tokens
    List,
    /// Revoke a token, from the next request on
    ///
    /// Pushes and downloads that are under way with it are broken off.
    Revoke {
        /// Its number in 'larder token list'
        #[arg(value_name = "ID")]
        id: i64,
        /// Revoke the last personal token too
        #[arg(long)]
        yes: bool,
    },
    /// Make a new personal token on the box itself, for an owner who has none
    ///
    /// The box must be stopped. The token goes into admin.token in the data folder.
    Recover {
        /// The data folder [default: ./larder-data]
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

#[derive(Args, Debug)]
pub(in crate::cli) struct TokenCreateArgs {
    /// A cache that it is for, and what for: 'read', 'write' or 'readwrite'
    #[arg(long = "cache", value_name = "NAME[:RIGHT]")]
    pub(in crate::cli) caches: Vec<CacheRight>,
    /// A word for people
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) label: Option<String>,
    /// How long it is good, such as 12h, 30d or 1w [default: until it is revoked]
    #[arg(long, value_name = "DURATION")]
    pub(in crate::cli) expires: Option<Lifetime>,
    /// The ID of the only device that may use it [default: any]
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) device: Option<DeviceId>,
    /// Print a short code in the place of the token: good for one 'larder pair' in 10 minutes
    #[arg(long)]
    pub(in crate::cli) pairing_code: bool,
}

/// `NAME`, `NAME:read`, `NAME:write` or `NAME:readwrite`; without a right it is both.
#[derive(Clone, Debug)]
pub(in crate::cli) struct CacheRight(pub(in crate::cli) Grant);

/// Why a text is none.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum ParseCacheRightError {
    #[error("{0}")]
    Name(ParseCacheNameError),
    #[error("'{0}' is no right; it is 'read', 'write' or 'readwrite'")]
    Right(String),
}

impl FromStr for CacheRight {
    type Err = ParseCacheRightError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, right) = text.split_once(':').unwrap_or((text, "readwrite"));
        let right = match right {
            "read" => TokenRight::Read,
            "write" => TokenRight::Write,
            "readwrite" => TokenRight::ReadWrite,
            other => return Err(ParseCacheRightError::Right(other.to_owned())),
        };
        let cache = name.parse().map_err(ParseCacheRightError::Name)?;
        Ok(Self(Grant { cache, right }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_as_people_write_them() {
        let right = |text: &str| text.parse::<CacheRight>().map(|right| right.0.right).ok();
        assert_eq!(right("main"), Some(TokenRight::ReadWrite));
        assert_eq!(right("main:read"), Some(TokenRight::Read));
        assert_eq!(right("main:write"), Some(TokenRight::Write));
        for text in ["main:", "main:admin", ":read", "nar:read"] {
            assert_eq!(right(text), None, "{text}");
        }
    }
}
