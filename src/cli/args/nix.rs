//! Options of the commands that change Nix's configuration.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::client::nix_config::{Mode, Wish};
use crate::formats::CacheName;
use crate::formats::signature::PublicKey;
use crate::wire::DeviceId;

/// `CACHE` or `CACHE@DEVICEID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct MeantCache {
    pub(in crate::cli) cache: CacheName,
    /// Its box, where that was said.
    pub(in crate::cli) device_id: Option<DeviceId>,
}

impl FromStr for MeantCache {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (cache, device_id) = match text.split_once('@') {
            Some((cache, id)) => (cache, Some(id.parse::<DeviceId>().map_err(said)?)),
            None => (text, None),
        };
        Ok(Self { cache: cache.parse::<CacheName>().map_err(said)?, device_id })
    }
}

fn said(error: impl ToString) -> String {
    error.to_string()
}

#[derive(Args, Debug)]
pub(in crate::cli) struct UseArgs {
    /// The cache, and the device ID that its box must have
    #[arg(value_name = "CACHE[@DEVICEID]")]
    pub(in crate::cli) cache: MeantCache,
    /// Have Nix trust this key and no other; repeatable
    #[arg(long, value_name = "NAME:BASE64")]
    pub(in crate::cli) public_key: Vec<PublicKey>,
    /// Trust whoever answers, this once, without anybody being asked
    #[arg(long)]
    pub(in crate::cli) trust_on_first_use: bool,
    #[command(flatten)]
    pub(in crate::cli) place: PlaceArgs,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct RemoveArgs {
    /// The cache, and the device ID of its box where several have one of that name
    #[arg(value_name = "CACHE[@DEVICEID]")]
    pub(in crate::cli) cache: MeantCache,
    #[command(flatten)]
    pub(in crate::cli) place: PlaceArgs,
    /// Show what would be taken out, and change nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
}

/// Which files.
#[derive(Args, Debug)]
pub(in crate::cli) struct PlaceArgs {
    /// What to write [default: what fits the machine and the user]
    #[arg(short, long, value_enum, value_name = "MODE")]
    mode: Option<ModeArg>,
    /// Where NixOS's configuration is [default: /etc/nixos]
    #[arg(short = 'd', long, value_name = "DIR")]
    nixos_folder: Option<PathBuf>,
    /// A folder for a nix.conf and a netrc of their own, instead of those that are in use
    #[arg(short = 'O', long, value_name = "DIR", conflicts_with_all = ["mode", "nixos_folder"])]
    output_directory: Option<PathBuf>,
}

impl PlaceArgs {
    /// The same, with absolute paths: they are written into files.
    pub(in crate::cli) fn into_wish(self) -> std::io::Result<Wish> {
        let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
        Ok(Wish {
            mode: self.mode.map(Mode::from),
            nixos_folder: absolute(self.nixos_folder)?,
            directory: absolute(self.output_directory)?,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// A module for NixOS
    Nixos,
    /// The machine's nix.conf
    RootNixconf,
    /// The user's nix.conf
    UserNixconf,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Nixos => Self::Nixos,
            ModeArg::RootNixconf => Self::RootNixconf,
            ModeArg::UserNixconf => Self::UserNixconf,
        }
    }
}
