//! Why the local Nix store could not give what was asked.

use std::io;
use std::path::PathBuf;

use crate::client::nix_store::SCHEMA_VERSION;
use crate::formats::StorePath;
use crate::formats::limits;
use crate::formats::store_path::{ParsePathError, STORE_DIR};

/// Why the local Nix store could not give what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NixStoreError {
    /// `NIX_REMOTE` names a store that is no local one.
    #[error("NIX_REMOTE is '{0}'; larder reads local stores only ('local', 'daemon', a folder)")]
    Remote(String),
    /// The store keeps its paths elsewhere.
    #[error("Nix's store directory is {}; larder is for {STORE_DIR}", .0.display())]
    StoreDir(PathBuf),
    /// The database is not there or may not be read.
    #[error("cannot open Nix's database {} (it takes root)", path.display())]
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
    /// A query failed.
    #[error("Nix's database refused a query")]
    Query(#[from] rusqlite::Error),
    /// The database says something that cannot be.
    #[error("Nix's database has a {field} of {path} that is none")]
    Row {
        /// The path it is about.
        path: String,
        /// What cannot be read.
        field: &'static str,
    },
    /// What the user named leads to no place in the store.
    #[error("'{}' is not in {STORE_DIR}: it leads to {}", argument.display(), leads_to.display())]
    NotInStore {
        /// As the user wrote it.
        argument: PathBuf,
        /// Where its symlinks end.
        leads_to: PathBuf,
    },
    /// What the user named is in the store, but its name is none of a store path.
    #[error("'{}' is in {STORE_DIR}, but not a store path", argument.display())]
    NotAStorePath {
        /// As the user wrote it.
        argument: PathBuf,
        /// What is wrong with it.
        source: ParsePathError,
    },
    /// The symlinks never end.
    #[error("'{}' has too many levels of symlinks", .0.display())]
    SymlinkLoop(PathBuf),
    /// The store does not have the path, or has not finished it.
    #[error("{} is not a valid path of the store: it was never built, or collected", .0.to_absolute())]
    NotValid(StorePath),
    /// The database has the path, the folder has not.
    #[error("{} is missing on disk though Nix takes it for valid; 'nix-store --repair-path' mends it", .0.to_absolute())]
    Vanished(StorePath),
    /// A file of the store could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file became longer or shorter, or something else, while it was read.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// Not a file, a directory or a symlink.
    #[error("{} is no file, directory or symlink; a NAR cannot hold it", .0.display())]
    Kind(PathBuf),
    /// More nested directories than a box takes.
    #[error("{} nests directories deeper than {}", .0.display(), limits::NAR_DEPTH_MAX)]
    Depth(PathBuf),
    /// Whoever takes the bytes of the NAR wants no more.
    #[error("the NAR could not be handed on")]
    Output(#[source] io::Error),
}
