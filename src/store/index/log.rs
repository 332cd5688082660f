//! Who pushed what: the rows of the paths, by time.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::formats::{StorePath, StorePathHash};
use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::index::tokens::TokenId;

/// A path of a cache, and who brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The path.
    pub store_path: StorePath,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Whether it is served.
    pub visible: bool,
    /// When it was pushed.
    pub pushed_at: UnixSeconds,
    /// The token that the push came with.
    pub token: TokenId,
    /// The Ed25519 public key of the pusher's device.
    pub device_key: [u8; 32],
}

/// Where a page of the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// When the last path of it was pushed.
    pub pushed_at: UnixSeconds,
    /// That path.
    pub path: StorePathHash,
}

impl LogEntry {
    /// Its place in the log.
    #[must_use]
    pub fn place(&self) -> LogPlace {
        LogPlace { pushed_at: self.pushed_at, path: self.store_path.hash() }
    }
}

const SELECT: &str = "SELECT base_name, nar_size, visible, pushed_at, token, device_key
     FROM paths JOIN nars ON nars.id = paths.nar";

/// Paths from `since` and behind `after`, oldest first; those of one second by their hash.
pub(in crate::store) fn page(
    connection: &Connection,
    cache: CacheId,
    since: UnixSeconds,
    after: Option<LogPlace>,
    limit: u32,
) -> Result<Vec<LogEntry>, StoreError> {
    // Every hash is behind the empty one.
    let (at, hash) = match &after {
        Some(place) if place.pushed_at >= since => (place.pushed_at, &place.path.as_bytes()[..]),
        _ => (since, &[][..]),
    };
    let sql = format!(
        "{SELECT} WHERE cache = ? AND (pushed_at, hash) > (?, ?)
         ORDER BY pushed_at, hash LIMIT ?"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![cache.0, at, hash, limit])?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push(entry(row)?);
    }
    Ok(entries)
}

/// One path.
pub(in crate::store) fn of_path(
    connection: &Connection,
    cache: CacheId,
    path: StorePathHash,
) -> Result<Option<LogEntry>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("{SELECT} WHERE cache = ? AND hash = ?"))?;
    let found = statement.query_row(params![cache.0, path.as_bytes()], |row| Ok(entry(row)));
    found.optional()?.transpose()
}

fn entry(row: &Row<'_>) -> Result<LogEntry, StoreError> {
    let base_name: String = row.get(0)?;
    Ok(LogEntry {
        store_path: base_name.parse().map_err(|_| StoreError::BadRow("store path"))?,
        nar_size: row.get(1)?,
        visible: row.get(2)?,
        pushed_at: row.get(3)?,
        token: TokenId(row.get(4)?),
        device_key: row.get(5)?,
    })
}
