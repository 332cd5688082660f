//! Chunks whose bytes on disk are not what was written.

use rusqlite::{Connection, params};

use crate::store::error::StoreError;
use crate::store::index::nars;
use crate::store::index::numbers;
use crate::store::index::numbers::ChunkNumber;

/// Records chunks as damaged, and every NAR that has one of them. Returns how many were not yet.
pub(in crate::store) fn record(
    connection: &Connection,
    found: &[ChunkNumber],
) -> Result<usize, StoreError> {
    let mut new = Vec::new();
    for number in found {
        let inserted = connection
            .prepare_cached("INSERT OR IGNORE INTO damage (number) VALUES (?)")?
            .execute(params![number])?;
        if inserted > 0 {
            new.push(*number);
        }
    }
    new.sort_unstable();
    if !new.is_empty() {
        for nar in nars::with_chunks(connection, &new)? {
            nars::set_damaged(connection, nar, true)?;
        }
    }
    Ok(new.len())
}

pub(in crate::store) fn is_recorded(
    connection: &Connection,
    number: ChunkNumber,
) -> Result<bool, StoreError> {
    Ok(connection.prepare_cached("SELECT 1 FROM damage WHERE number = ?")?.exists([number])?)
}

/// Whether one of the chunks of a manifest is recorded as damaged.
pub(in crate::store) fn touches(
    connection: &Connection,
    blob: Vec<u8>,
) -> Result<bool, StoreError> {
    for number in numbers::Decoder::new(blob) {
        if is_recorded(connection, number?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many of the numbers from `start` up to, not including, `end` are recorded.
pub(in crate::store) fn count_between(
    connection: &Connection,
    start: ChunkNumber,
    end: ChunkNumber,
) -> Result<u64, StoreError> {
    Ok(connection
        .prepare_cached("SELECT count(*) FROM damage WHERE number >= ? AND number < ?")?
        .query_row(params![start, end], |row| row.get(0))?)
}

pub(in crate::store) fn forget(
    connection: &Connection,
    number: ChunkNumber,
) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM damage WHERE number = ?")?.execute([number])?;
    Ok(())
}
