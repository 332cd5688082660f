//! What a replay under way remembers between its stages; empty at all other times.

use rusqlite::{Connection, OptionalExtension, params};

use crate::formats::StorePathHash;
use crate::store::error::StoreError;
use crate::store::pack::{Location, Position};

/// Records that are handed out at a time.
const RECORDS_AT_A_TIME: u32 = 4096;

/// Forgets everything.
pub(in crate::store) fn clear(connection: &Connection) -> Result<(), StoreError> {
    Ok(connection.execute_batch("DELETE FROM replay_later; DELETE FROM replay_ends;")?)
}

/// Keeps a record for a later stage.
pub(in crate::store) fn defer(
    connection: &Connection,
    stage: u8,
    at: Location,
) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO replay_later VALUES (?, ?, ?, ?)";
    let values = params![stage, at.pack, at.offset, at.stored_len];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The next records of a stage behind `after`, in the order of the packs; none at its end.
pub(in crate::store) fn deferred(
    connection: &Connection,
    stage: u8,
    after: Position,
) -> Result<Vec<Location>, StoreError> {
    let sql = "SELECT pack, offset, stored_len FROM replay_later
               WHERE stage = ? AND (pack, offset) > (?, ?) ORDER BY pack, offset LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement
        .query_map(params![stage, after.pack, after.offset, RECORDS_AT_A_TIME], |row| {
            Ok(Location { pack: row.get(0)?, offset: row.get(1)?, stored_len: row.get(2)? })
        })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Says that no record about a path before `end` counts. The last such place is kept.
pub(in crate::store) fn end_path(
    connection: &Connection,
    cache: [u8; 16],
    path: StorePathHash,
    end: Position,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO replay_ends VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT DO UPDATE SET pack = ?3, offset = ?4 WHERE (pack, offset) < (?3, ?4)";
    let values = params![cache, path.as_bytes(), end.pack, end.offset];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Whether a record about a path that stands at `at` counts.
pub(in crate::store) fn counts(
    connection: &Connection,
    cache: [u8; 16],
    path: StorePathHash,
    at: Position,
) -> Result<bool, StoreError> {
    let sql = "SELECT pack, offset FROM replay_ends WHERE cache = ? AND path = ?";
    let end = connection
        .prepare_cached(sql)?
        .query_row(params![cache, path.as_bytes()], |row| {
            Ok(Position { pack: row.get(0)?, offset: row.get(1)? })
        })
        .optional()?;
    Ok(end.is_none_or(|end| at >= end))
}
