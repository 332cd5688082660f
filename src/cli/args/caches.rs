//! Options of `larder cache`.

use std::str::FromStr;

use bytesize::ByteSize;
use clap::{Args, Subcommand};

use crate::formats::CacheName;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CacheCommand {
    /// Create a cache: public, and with a key that the box keeps, unless otherwise said
    Create(CacheCreateArgs),
    /// List the caches
    List,
    /// Show one cache
    Show {
        /// Its name
        #[arg(value_name = "NAME")]
        name: CacheName,
    },
    /// Change a cache, from the next request on
    ///
    /// What a change means for the paths that are there: docs/caches.md.
    Set(CacheSetArgs),
    /// Delete a cache with all its paths
    ///
    /// Asks first. The room that only its paths took on the disk is given back when the store is
    /// collected.
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: CacheName,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Let a new key sign what a managed cache serves
    ///
    /// The new key signs first; those before it go on signing for a while, so that their users
    /// can change over.
    RotateKey {
        /// The cache
        #[arg(value_name = "NAME")]
        name: CacheName,
        /// Days that the keys before it go on signing, counted while the box runs
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        retire_after: u32,
    },
    /// Register, list and take away the keys of a cache
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum KeyCommand {
    /// Register a public key with a self-signed cache
    Add {
        /// The cache
        #[arg(value_name = "NAME")]
        name: CacheName,
        /// The key, as NAME:BASE64
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// List the keys of a cache, retired ones too
    List {
        /// The cache
        #[arg(value_name = "NAME")]
        name: CacheName,
    },
    /// Take a registered key away, or retire a managed one at once
    Remove {
        /// The cache
        #[arg(value_name = "NAME")]
        name: CacheName,
        /// The key's name
        #[arg(value_name = "KEYNAME")]
        key: String,
    },
    /// Let a retired key of a managed cache sign again
    Restore {
        /// The cache
        #[arg(value_name = "NAME")]
        name: CacheName,
        /// The key's name
        #[arg(value_name = "KEYNAME")]
        key: String,
    },
}

#[derive(Args, Debug)]
pub(in crate::cli) struct CacheCreateArgs {
    /// Its name: lower-case letters, digits and single hyphens
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: CacheName,
    /// Let only those read it who have a token for it
    #[arg(long)]
    pub(in crate::cli) private: bool,
    /// Let those sign who push, with registered keys, and not the box
    #[arg(long)]
    pub(in crate::cli) self_signed: bool,
    /// A key by which paths may be signed
    #[arg(long = "public-key", value_name = "KEY", requires = "self_signed")]
    pub(in crate::cli) public_keys: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) common: CacheCommonArgs,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct CacheSetArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: CacheName,
    /// Let everybody read it
    #[arg(long, conflicts_with = "private")]
    pub(in crate::cli) public: bool,
    /// Let only those read it who have a token for it
    #[arg(long)]
    pub(in crate::cli) private: bool,
    /// Let the box sign what it serves
    #[arg(long, conflicts_with_all = ["self_signed", "public_keys"])]
    pub(in crate::cli) managed: bool,
    /// Let those sign who push, with registered keys, and not the box
    #[arg(long)]
    pub(in crate::cli) self_signed: bool,
    /// A key by which paths may be signed, beside those that are registered
    #[arg(long = "public-key", value_name = "KEY", requires = "self_signed")]
    pub(in crate::cli) public_keys: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) common: CacheCommonArgs,
    /// Do not let the box's root URL answer for it
    #[arg(long, conflicts_with = "root")]
    pub(in crate::cli) no_root: bool,
    /// Do it even if paths that are there would be good for nobody then, or leave
    #[arg(long)]
    pub(in crate::cli) force: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct CacheCommonArgs {
    /// What Nix compares substituters by; the lower is asked first [default: 30]
    #[arg(long, value_name = "N")]
    pub(in crate::cli) priority: Option<u32>,
    /// A line for people
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) description: Option<String>,
    /// Let the box's root URL answer for it too: as the last one, or by PLACE, the lower first
    #[arg(long, value_name = "PLACE", num_args = 0..=1, require_equals = true)]
    pub(in crate::cli) root: Option<Option<u32>>,
    /// Let paths leave that nobody has read for so many days; 'none': never [default: none]
    #[arg(long, value_name = "DAYS")]
    pub(in crate::cli) retention: Option<OrNone<u32>>,
    /// Let paths leave, those first that were read longest ago, where the cache has more than
    /// that, such as '20 GiB'; 'none': no limit [default: none]
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) quota: Option<OrNone<ByteSize>>,
}

/// A limit, or the word `none`.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct OrNone<T>(pub(in crate::cli) Option<T>);

impl<T: FromStr> FromStr for OrNone<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}
