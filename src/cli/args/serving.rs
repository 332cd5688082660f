//! Options of the commands that run and watch the box.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Subcommand};

use crate::cli::duration::Since;
use crate::formats::{BoxName, CacheName};

#[derive(Args, Debug)]
pub(in crate::cli) struct ServeArgs {
    /// The data folder [default: ./larder-data]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data: Option<PathBuf>,
    /// Where HTTP listens (TCP); port 0 is any free one [default: [::]:5273]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(in crate::cli) listen: Option<SocketAddr>,
    /// Where pushes and administration are listened for (UDP) [default: as --listen]
    #[arg(long, value_name = "ADDR:PORT")]
    pub(in crate::cli) quic_listen: Option<SocketAddr>,
    /// Do not announce the box on the network
    #[arg(long)]
    pub(in crate::cli) no_mdns: bool,
    /// What the box is called on the network [default: after the machine]
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) name: Option<BoxName>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct FsckArgs {
    /// Make the index anew from the packs; the box must be stopped
    #[arg(long)]
    pub(in crate::cli) rebuild_index: bool,
    /// The data folder, for --rebuild-index [default: ./larder-data]
    #[arg(long, value_name = "DIR", requires = "rebuild_index")]
    pub(in crate::cli) data: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct GcArgs {
    /// Only show what would go
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Let paths of this cache alone leave
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) cache: Option<CacheName>,
    /// Let paths leave until so much of the disk is free, such as '20 GiB' [default: what
    /// store.min_free says]
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) target_free: Option<ByteSize>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct BackupArgs {
    /// The file to write, which must not be there yet
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    pub(in crate::cli) file: PathBuf,
    /// The data folder; made if it is missing [default: ./larder-data]
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub(in crate::cli) yes: bool,
    /// Take tokens and settings over to the packs of another store
    #[arg(long)]
    pub(in crate::cli) other_store: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum PathCommand {
    /// Show what is known of a path
    Show {
        /// The cache
        #[arg(value_name = "CACHE")]
        cache: CacheName,
        /// The store path, its base name or its hash part
        #[arg(value_name = "PATH")]
        path: String,
    },
    /// Take a path out of a cache
    ///
    /// It can be pushed again. One that others refer to, or that is pinned, stays.
    Rm(PathRmArgs),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct PathRmArgs {
    /// The cache
    #[arg(value_name = "CACHE")]
    pub(in crate::cli) cache: CacheName,
    /// The store path, its base name or its hash part
    #[arg(value_name = "PATH")]
    pub(in crate::cli) path: String,
    /// Take out what refers to it too
    #[arg(long)]
    pub(in crate::cli) with_referrers: bool,
    /// Take its bytes off the disk at once, as far as no other path has them
    #[arg(long)]
    pub(in crate::cli) purge: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct LogArgs {
    /// The cache
    #[arg(value_name = "CACHE")]
    pub(in crate::cli) cache: CacheName,
    /// This store path alone
    #[arg(value_name = "PATH")]
    pub(in crate::cli) path: Option<String>,
    /// From then on: 2026-11-23, '2026-11-23 06:25' (UTC), or how long ago, such as 12h or 7d
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) since: Option<Since>,
}
