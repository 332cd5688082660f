//! Why the local Nix store could not give what was asked.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::client::nix_store::daemon::DaemonError;
use crate::client::nix_store::database::SCHEMA_VERSION;
use crate::client::nix_store::shown::quoted;
use crate::formats::StorePath;
use crate::formats::limits;
use crate::formats::store_path::{ParsePathError, STORE_DIR};

/// Why the local Nix store could not give what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NixStoreError {
    /// `NIX_REMOTE` names a store that is no local one.
    #[error(
        "NIX_REMOTE is '{0}'; larder reads local stores only ('auto', 'local', 'daemon', 'unix://SOCKET', a folder)"
    )]
    Remote(String),
    /// The store keeps its paths elsewhere.
    #[error("Nix's store directory is {}; larder is for {STORE_DIR}", shown(.0))]
    StoreDir(PathBuf),
    /// The database is not there or may not be read.
    #[error("cannot open Nix's database {}", path.display())]
    Open {
        /// Its file.
        path: PathBuf,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// A database of a Nix that is older or newer than any we know.
    #[error("Nix's database has version {found}; larder reads version {SCHEMA_VERSION}")]
    Schema {
        /// What its `schema` file says.
        found: String,
    },
    /// The Nix daemon did not answer, or not well.
    #[error("cannot ask the Nix daemon at {}", socket.display())]
    Daemon {
        /// Where it should be.
        socket: PathBuf,
        /// What went wrong.
        source: DaemonError,
    },
    /// The database cannot be read, and the daemon that was asked instead did not answer.
    #[error("{database}; so the Nix daemon was asked")]
    NoWay {
        /// What came of the database.
        database: Box<NixStoreError>,
        /// What came of the daemon.
        #[source]
        daemon: Box<NixStoreError>,
    },
    /// A query failed.
    #[error("Nix's database refused a query")]
    Query(#[from] rusqlite::Error),
    /// Nix says something that cannot be.
    #[error("Nix tells a {field} of {} that is none", path.to_absolute())]
    Fact {
        /// The path it is about.
        path: StorePath,
        /// What cannot be read.
        field: &'static str,
    },
    /// What the user named leads to no place in the store.
    #[error("'{}' is not in {STORE_DIR}: it leads to {}", shown(argument), shown(leads_to))]
    NotInStore {
        /// As the user wrote it.
        argument: PathBuf,
        /// Where its symlinks end.
        leads_to: PathBuf,
    },
    /// What the user named is in the store, but its name is none of a store path.
    #[error("'{}' is in {STORE_DIR}, but not a store path", shown(argument))]
    NotAStorePath {
        /// As the user wrote it.
        argument: PathBuf,
        /// What is wrong with it.
        source: ParsePathError,
    },
    /// The symlinks never end.
    #[error("'{}' has too many levels of symlinks", shown(.0))]
    SymlinkLoop(PathBuf),
    /// The store does not have the path, or has not finished it.
    #[error("{} is not a valid path of the store: it was never built, or collected", .0.to_absolute())]
    NotValid(StorePath),
    /// The database has the path, the folder has not.
    #[error("{} is missing on disk though Nix takes it for valid; 'nix-store --repair-path' mends it", .0.to_absolute())]
    Vanished(StorePath),
    /// A file of the store could not be used.
    #[error("cannot {action} {}", shown(path))]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file became longer or shorter, or something else, while it was read.
    #[error("{} changed while it was read", shown(.0))]
    Changed(PathBuf),
    /// Not a file, a directory or a symlink.
    #[error("{} is no file, directory or symlink; a NAR cannot hold it", shown(.0))]
    Kind(PathBuf),
    /// More nested directories than a box takes.
    #[error("{} nests directories deeper than {}", shown(.0), limits::NAR_DEPTH_MAX)]
    Depth(PathBuf),
    /// Whoever takes the bytes of the NAR wants no more.
    #[error("the NAR could not be handed on")]
    Output(#[source] io::Error),
}

impl NixStoreError {
    /// Whether what the user named is at fault, so that the next name may fare better.
    #[must_use]
    pub fn is_about_argument(&self) -> bool {
        matches!(
            self,
            Self::NotInStore { .. }
                | Self::NotAStorePath { .. }
                | Self::SymlinkLoop(_)
                | Self::NotValid(_)
                | Self::Vanished(_)
                | Self::File { .. }
        )
    }
}

fn shown(path: &Path) -> String {
    quoted(path.as_os_str().as_bytes())
}
