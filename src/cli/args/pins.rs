//! Options of `larder pin`.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::formats::{CacheName, FilePath, Keep, PinName};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(in crate::cli) struct PinArgs {
    #[command(subcommand)]
    pub(in crate::cli) command: Option<PinCommand>,
    #[command(flatten)]
    pub(in crate::cli) new: Option<NewPinArgs>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PinCommand {
    /// List the pins of a cache
    List {
        /// The cache
        #[arg(value_name = "CACHE")]
        cache: CacheName,
    },
    /// Remove a pin with all its revisions
    ///
    /// The paths stay in the cache until it is collected.
    Remove {
        /// The cache
        #[arg(value_name = "CACHE")]
        cache: CacheName,
        /// The pin
        #[arg(value_name = "NAME")]
        name: PinName,
    },
}

#[derive(Args, Debug)]
pub(in crate::cli) struct NewPinArgs {
    /// The cache
    #[arg(value_name = "CACHE")]
    pub(in crate::cli) cache: CacheName,
    /// What to call the pin: letters, digits, '.', '_', '+' and '-'
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: PinName,
    /// The store path, or a symlink to it such as ./result; it must be in the cache
    #[arg(value_name = "PATH")]
    pub(in crate::cli) path: PathBuf,
    /// A file inside the path that gets a URL of its own, such as share/doc/manual.txt
    #[arg(short, long = "artifact", value_name = "FILE")]
    pub(in crate::cli) artifacts: Vec<FilePath>,
    /// Let go of revisions of this name that are older
    #[arg(long, value_name = "N", conflicts_with_all = ["keep_revisions", "keep_forever"])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    keep_days: Option<u32>,
    /// Let go of all revisions of this name but the newest ones
    #[arg(long, value_name = "N", conflicts_with = "keep_forever")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    keep_revisions: Option<u32>,
    /// Keep all revisions until the pin is removed; so it is where nothing is said
    #[arg(long)]
    keep_forever: bool,
}

impl NewPinArgs {
    /// How long revisions stay.
    pub(in crate::cli) fn keep(&self) -> Keep {
        let days = self.keep_days.and_then(NonZero::new).map(Keep::Days);
        let revisions = self.keep_revisions.and_then(NonZero::new).map(Keep::Revisions);
        days.or(revisions).unwrap_or(Keep::Forever)
    }
}
