//! Nix's own database, read without Nix's help.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use crate::client::nix_store::error::NixStoreError;
use crate::client::nix_store::facts::Facts;
use crate::client::nix_store::location::Location;
use crate::formats::realisation::{DrvOutput, Realisation};
use crate::formats::{PathInfo, StorePath};

/// The version of the database that Nix has used since 2.0 (`nixSchemaVersion` in
/// `src/libstore/local-store.hh`, Nix 2.34; the tables are in `schema.sql`).
pub(super) const SCHEMA_VERSION: &str = "10";

/// How long a query waits for Nix where the database has no write-ahead log, which it has by
/// default.
const BUSY_MAX: Duration = Duration::from_secs(60);

/// Source: `schema.sql` and `LocalStore::queryPathInfoInternal` in `src/libstore/local-store.cc`
/// (Nix 2.34; the same since 2.0).
const FACTS: &str = "SELECT id, hash, narSize, deriver, sigs, ca FROM ValidPaths WHERE path = ?1";
const REFERENCES: &str = "SELECT ValidPaths.path FROM Refs \
                          JOIN ValidPaths ON ValidPaths.id = Refs.reference \
                          WHERE Refs.referrer = ?1";

/// Source: `ca-specific-schema.sql` and `queryRealisation` in `src/libstore/local-store.cc` (Nix 2.8).
const HAS_REALISATIONS: &str = "SELECT 1 FROM sqlite_schema WHERE name = 'Realisations'";
const REALISATIONS: &str = "SELECT Realisations.id, drvPath || '!' || outputName, signatures \
                            FROM Realisations \
                            JOIN ValidPaths ON ValidPaths.id = Realisations.outputPath \
                            WHERE ValidPaths.path = ?1";
const DEPENDENT: &str = "SELECT drvPath || '!' || outputName, path FROM RealisationsRefs \
                         JOIN Realisations ON Realisations.id = realisationReference \
                         JOIN ValidPaths ON ValidPaths.id = Realisations.outputPath \
                         WHERE RealisationsRefs.referrer = ?1";

/// The database, opened for reading.
#[derive(Debug)]
pub(super) struct Database(Connection);

impl Database {
    /// Opens it, read-only: it shows what was committed when a query begins, and builds and
    /// collections go on beside it. `immutable` is never said, which would overlook the log that
    /// Nix writes to.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::Open`] where there is no database or it may not be read. SQLite reads one
    /// with a write-ahead log if that and its index are there, as while Nix is at work, or can be
    /// made (<https://sqlite.org/wal.html>, "Read-Only Databases"), so ordinary users often
    /// cannot. [`NixStoreError::Schema`] for one of another version.
    pub(super) fn open(location: &Location) -> Result<Self, NixStoreError> {
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
            SCHEMA_VERSION => Ok(Self(database)),
            other => Err(NixStoreError::Schema { found: other.to_owned() }),
        }
    }

    /// Runs `reads` on one state of the database, which may not change from one query to the next.
    pub(super) fn at_one_moment<T>(
        &self,
        reads: impl FnOnce() -> Result<T, NixStoreError>,
    ) -> Result<T, NixStoreError> {
        let moment = self.0.unchecked_transaction()?;
        let result = reads();
        moment.finish()?;
        result
    }

    /// The facts about one path, by two look-ups; `None` if it is not valid.
    pub(super) fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>, NixStoreError> {
        let absolute = path.to_absolute();
        let mut facts = self.0.prepare_cached(FACTS)?;
        let Some((id, mut facts)) = facts.query_row([&absolute], read_facts).optional()? else {
            return Ok(None);
        };
        let mut references = self.0.prepare_cached(REFERENCES)?;
        let references = references.query_map([id], |row| row.get(0))?;
        facts.references = references.collect::<Result<_, _>>()?;
        facts.into_info(path).map(Some)
    }

    /// The realisations of outputs that became this path. A database without content-addressed
    /// derivations has no table of them.
    pub(super) fn realisations(&self, path: &StorePath) -> Result<Vec<Realisation>, NixStoreError> {
        if !self.0.prepare_cached(HAS_REALISATIONS)?.exists(())? {
            return Ok(Vec::new());
        }
        let mut statement = self.0.prepare_cached(REALISATIONS)?;
        let mut rows = statement.query([path.to_absolute()])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (number, text): (i64, String) = (row.get(0)?, row.get(1)?);
            let signatures: Option<String> = row.get(2)?;
            let signatures = signatures.unwrap_or_default();
            // What Nix wrote and we cannot read, a newer one may; here it is nothing.
            let Ok(id) = text.parse() else { continue };
            found.push(Realisation {
                id,
                out_path: path.clone(),
                signatures: signatures.split(' ').filter_map(|text| text.parse().ok()).collect(),
                dependent: self.dependent(number)?,
            });
        }
        Ok(found)
    }

    fn dependent(&self, number: i64) -> Result<BTreeMap<DrvOutput, StorePath>, NixStoreError> {
        let mut statement = self.0.prepare_cached(DEPENDENT)?;
        let pairs = statement
            .query_map([number], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let mut dependent = BTreeMap::new();
        for pair in pairs {
            let (id, path) = pair?;
            if let (Ok(id), Ok(path)) = (id.parse(), StorePath::from_absolute(&path)) {
                dependent.insert(id, path);
            }
        }
        Ok(dependent)
    }

    /// Whether the database takes the path for valid.
    pub(super) fn is_valid(&self, path: &StorePath) -> Result<bool, NixStoreError> {
        let mut facts = self.0.prepare_cached(FACTS)?;
        Ok(facts.exists([path.to_absolute()])?)
    }
}

/// A row of `ValidPaths`: its number, and the facts without references.
fn read_facts(row: &Row<'_>) -> rusqlite::Result<(i64, Facts)> {
    let nar_size: Option<i64> = row.get(2)?;
    let text = |column| {
        Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(column)?.unwrap_or_default())
    };
    let facts = Facts {
        nar_hash: row.get(1)?,
        nar_size: nar_size.and_then(|size| u64::try_from(size).ok()),
        references: Vec::new(),
        deriver: text(3)?,
        signatures: text(4)?.split(' ').map(str::to_owned).collect(),
        ca: text(5)?,
    };
    Ok((row.get(0)?, facts))
}
