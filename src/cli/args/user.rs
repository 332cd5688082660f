//! Options of the commands on a user's machine.

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::client::host::Host;
use crate::formats::CacheName;
use crate::wire::{DeviceId, PairingCode};

#[derive(Args, Debug)]
pub(in crate::cli) struct PairArgs {
    /// The box [default: as --host]
    #[arg(value_name = "BOX")]
    pub(in crate::cli) host: Option<Host>,
    /// The code that the box printed; fetches a token
    #[arg(long, value_name = "CODE")]
    pub(in crate::cli) code: Option<PairingCode>,
    /// The device ID that the box must have, so that nobody is asked
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) device_id: Option<DeviceId>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct AuthtokenArgs {
    /// The token; visible to others on this machine while the command runs
    #[arg(value_name = "TOKEN", required_unless_present = "stdin", conflicts_with = "stdin")]
    pub(in crate::cli) token: Option<String>,
    /// Read it from standard input
    #[arg(long)]
    pub(in crate::cli) stdin: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConfigCommand {
    /// All that is set, without the tokens themselves
    List,
    /// The value of one key
    Get {
        /// host, boxes.HOST or tokens.DEVICEID
        #[arg(value_name = "KEY")]
        key: ConfigKey,
    },
    /// Set a key: the host that is meant when nobody says which
    Set {
        /// host; 'larder pair' and 'larder authtoken' set the others
        #[arg(value_name = "KEY")]
        key: ConfigKey,
        /// A URL, HOST[:PORT] or a box's name
        #[arg(value_name = "VALUE")]
        value: Host,
    },
    /// Forget a key: the host, a pairing, or a token
    Unset {
        /// host, boxes.HOST or tokens.DEVICEID
        #[arg(value_name = "KEY")]
        key: ConfigKey,
    },
}

/// A key of the client's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum ConfigKey {
    /// The box that is meant when nobody says which.
    Host,
    /// Who answers there.
    Box(Host),
    /// The token for a box.
    Token(DeviceId),
}

impl FromStr for ConfigKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        match text.split_once('.') {
            None if matches!(text, "host" | "hostname") => Ok(Self::Host),
            Some(("boxes", host)) => host.parse().map(Self::Box).map_err(|error| said(&error)),
            Some(("tokens", id)) => id.parse().map(Self::Token).map_err(|error| said(&error)),
            _ => Err("the keys are host, boxes.HOST and tokens.DEVICEID".to_owned()),
        }
    }
}

impl fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Box(host) => write!(f, "boxes.{host}"),
            Self::Token(device_id) => write!(f, "tokens.{device_id}"),
        }
    }
}

#[derive(Args, Debug)]
pub(in crate::cli) struct GenerateKeypairArgs {
    /// The self-signed cache
    #[arg(value_name = "CACHE")]
    pub(in crate::cli) cache: CacheName,
    /// Make a further key although this machine has one for the cache
    #[arg(long)]
    pub(in crate::cli) another: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct PushArgs {
    /// The cache
    #[arg(value_name = "CACHE")]
    pub(in crate::cli) cache: CacheName,
    /// Store paths, or symlinks to them such as ./result [default: read from standard input]
    #[arg(value_name = "PATH")]
    pub(in crate::cli) paths: Vec<PathBuf>,
    /// Large paths to read at a time [default: twice the processors, at most 8]
    #[arg(short, long, value_name = "N")]
    pub(in crate::cli) jobs: Option<NonZero<u32>>,
    /// zstd's level
    #[arg(short = 'l', long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(i32).range(1..=19))]
    pub(in crate::cli) compression_level: i32,
    /// Leave out which derivation built a path
    #[arg(long)]
    pub(in crate::cli) omit_deriver: bool,
    /// Leave out the logs of the builds
    #[arg(long)]
    pub(in crate::cli) no_logs: bool,
    /// Push these paths alone, without what they refer to
    #[arg(long)]
    pub(in crate::cli) no_closure: bool,
    /// Offer also what the box has, so that it gets this machine's signature
    #[arg(long)]
    pub(in crate::cli) sign_known: bool,
    /// List what would be sent, and send nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}
