//! The Nix store of this machine: facts from its database, or from the Nix daemon where that may
//! not be read; bytes from its folder. Nothing here writes.
//!
//! Everything blocks; call it on a thread that may. A [`NixStore`] may move between threads but
//! serves one at a time; [`dump`](fn@dump) needs only a folder, so any number of threads may dump.

mod build_log;
mod closure;
mod daemon;
mod database;
mod dump;
mod error;
mod facts;
mod location;
mod resolve;
mod shown;

pub use build_log::build_log;
pub use daemon::DaemonError;
pub use dump::dump;
pub use error::NixStoreError;
pub use location::Location;
pub use resolve::split_arguments;

use std::path::PathBuf;

use tracing::debug;

use crate::client::nix_store::daemon::Daemon;
use crate::client::nix_store::database::Database;
use crate::client::nix_store::location::Access;
use crate::formats::realisation::Realisation;
use crate::formats::{PathInfo, StorePath};

/// The machine's Nix store, opened for reading.
#[derive(Debug)]
pub struct NixStore {
    location: Location,
    source: Source,
}

/// Who knows the facts.
#[derive(Debug)]
enum Source {
    Database(Database),
    Daemon(Daemon),
}

impl NixStore {
    /// Opens the store's database, read-only; or connects to the Nix daemon where the location
    /// names one, or where it allows one and the database cannot be opened.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Open`] or [`NixStoreError::Schema`] where there is only the database;
    /// [`NixStoreError::Daemon`] where there is only the daemon; [`NixStoreError::NoWay`] where
    /// both were tried.
    pub fn open(location: Location) -> Result<Self, NixStoreError> {
        let source = match location.access() {
            Access::Database => Source::Database(Database::open(&location)?),
            Access::Daemon(socket) => Source::Daemon(Daemon::connect(socket)?),
            Access::Either(socket) => match Database::open(&location) {
                Ok(database) => Source::Database(database),
                Err(database) => {
                    debug!(%database, "Asking the Nix daemon instead");
                    let daemon =
                        Daemon::connect(socket).map_err(|daemon| NixStoreError::NoWay {
                            database: Box::new(database),
                            daemon: Box::new(daemon),
                        })?;
                    Source::Daemon(daemon)
                }
            },
        };
        Ok(Self { location, source })
    }

    /// Where the files of `path` are; what [`dump`](fn@dump) takes.
    #[must_use]
    pub fn folder(&self, path: &StorePath) -> PathBuf {
        self.location.folder(path)
    }

    /// The facts about one path; `None` if it is not valid. No file of the path is touched.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Query`] or [`NixStoreError::Daemon`], and [`NixStoreError::Fact`] where
    /// a fact cannot be.
    pub fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>, NixStoreError> {
        match &self.source {
            Source::Database(database) => database.path_info(path),
            Source::Daemon(daemon) => daemon.path_info(path),
        }
    }

    /// The realisations of outputs that became this path, where Nix's database has any: by
    /// content-addressed derivations. The daemon is not asked.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Query`].
    pub fn realisations(&self, path: &StorePath) -> Result<Vec<Realisation>, NixStoreError> {
        match &self.source {
            Source::Database(database) => database.realisations(path),
            Source::Daemon(_) => Ok(Vec::new()),
        }
    }

    /// Whether Nix takes the path for valid.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Query`] or [`NixStoreError::Daemon`].
    pub fn is_valid(&self, path: &StorePath) -> Result<bool, NixStoreError> {
        match &self.source {
            Source::Database(database) => database.is_valid(path),
            Source::Daemon(daemon) => daemon.is_valid(path),
        }
    }
}
