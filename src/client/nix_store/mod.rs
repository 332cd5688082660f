//! The Nix store of this machine, read without Nix's help: facts from its database, bytes from
//! its folder. Nothing here writes.
//!
//! Everything blocks; call it on a thread that may. A [`NixStore`] may move between threads but
//! serves one at a time; [`dump`](fn@dump) needs only a folder, so any number of threads may dump.

mod closure;
mod dump;
mod error;
mod location;
mod path_info;
mod resolve;

pub use dump::dump;
pub use error::NixStoreError;
pub use location::Location;
pub use resolve::split_arguments;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::formats::StorePath;

/// The version of the database that Nix has used since 2.0 (`nixSchemaVersion` in
/// `src/libstore/local-store.hh`, Nix 2.34; the tables are in `schema.sql`).
const SCHEMA_VERSION: &str = "10";

/// How long a query waits for Nix where the database has no write-ahead log, which it has by
/// default.
const BUSY_MAX: Duration = Duration::from_secs(60);

/// The machine's Nix store, opened for reading.
#[derive(Debug)]
pub struct NixStore {
    location: Location,
    database: Connection,
}

impl NixStore {
    /// Opens the store's database, read-only. It shows what was committed when a query begins;
    /// builds and collections go on beside it.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Open`] where there is no database or it may not be read (SQLite needs to
    /// write beside a database with a write-ahead log, so ordinary users cannot);
    /// [`NixStoreError::Schema`] for one of another version.
    pub fn open(location: Location) -> Result<Self, NixStoreError> {
        let folder = location.database_folder();
        let file = folder.join("db.sqlite");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let database = Connection::open_with_flags(&file, flags)?;
            database.busy_timeout(BUSY_MAX)?;
            // SQLite opens the file no earlier than this.
            database.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))?;
            Ok(database)
        };
        let database =
            open().map_err(|source| NixStoreError::Open { path: file.clone(), source })?;
        let path = folder.join("schema");
        let schema = fs::read_to_string(&path).map_err(|source| NixStoreError::File {
            action: "read",
            path,
            source,
        })?;
        match schema.trim() {
            SCHEMA_VERSION => Ok(Self { location, database }),
            other => Err(NixStoreError::Schema { found: other.to_owned() }),
        }
    }

    /// Where the files of `path` are; what [`dump`](fn@dump) takes.
    #[must_use]
    pub fn folder(&self, path: &StorePath) -> PathBuf {
        self.location.folder(path)
    }
}
