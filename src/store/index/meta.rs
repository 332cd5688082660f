//! What the index knows about itself: the store's UUID, and up to where it has read the packs.

use data_encoding::HEXLOWER;
use rusqlite::{Connection, OptionalExtension, params};

use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::pack::Position;

/// The UUID of the store, where the index has one.
pub(in crate::store) fn store_uuid(
    connection: &Connection,
) -> Result<Option<[u8; 16]>, StoreError> {
    let sql = "SELECT value FROM meta WHERE name = 'store'";
    Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?)
}

pub(in crate::store) fn set_store_uuid(
    connection: &Connection,
    uuid: [u8; 16],
) -> Result<(), StoreError> {
    connection.execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('store', ?)", [uuid])?;
    Ok(())
}

/// Up to where the packs are in the index; the very beginning for a new index.
pub(in crate::store) fn position(connection: &Connection) -> Result<Position, StoreError> {
    let sql = "SELECT value FROM meta WHERE name = 'position'";
    let bytes: Option<[u8; 12]> =
        connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    let Some([a, b, c, d, offset @ ..]) = bytes else { return Ok(Position::default()) };
    Ok(Position { pack: u32::from_le_bytes([a, b, c, d]), offset: u64::from_le_bytes(offset) })
}

pub(in crate::store) fn set_position(
    connection: &Connection,
    position: Position,
) -> Result<(), StoreError> {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&position.pack.to_le_bytes());
    bytes[4..].copy_from_slice(&position.offset.to_le_bytes());
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES ('position', ?)")?
        .execute(params![bytes])?;
    Ok(())
}

/// The revision of a NAR's first encoding: higher than any that a NAR had which is gone. So a URL
/// that was given out never stands for other bytes, and of two manifests the higher one counts.
pub(in crate::store) fn first_revision(connection: &Connection) -> Result<u32, StoreError> {
    Ok(number(connection, "first-revision")?.and_then(|it| u32::try_from(it).ok()).unwrap_or(1))
}

/// A NAR of that revision goes away.
pub(in crate::store) fn pass_revision(
    connection: &Connection,
    revision: u32,
) -> Result<(), StoreError> {
    if revision >= first_revision(connection)? {
        set_number(connection, "first-revision", u64::from(revision) + 1)?;
    }
    Ok(())
}

/// The highest chunk number of which it is known that it was given out and is free again: not to
/// be given out a second time.
pub(in crate::store) fn passed_number(connection: &Connection) -> Result<u64, StoreError> {
    Ok(number(connection, "passed-number")?.unwrap_or(0))
}

/// A chunk of that number goes away.
pub(in crate::store) fn pass_number(
    connection: &Connection,
    passed: u64,
) -> Result<(), StoreError> {
    if passed > passed_number(connection)? {
        set_number(connection, "passed-number", passed)?;
    }
    Ok(())
}

/// How far the order of uses of paths had come when it was written down last.
pub(in crate::store) fn uses(connection: &Connection) -> Result<u64, StoreError> {
    Ok(number(connection, "uses")?.unwrap_or(0))
}

pub(in crate::store) fn set_uses(connection: &Connection, uses: u64) -> Result<(), StoreError> {
    set_number(connection, "uses", uses)
}

fn number(connection: &Connection, name: &str) -> Result<Option<u64>, StoreError> {
    let sql = "SELECT value FROM meta WHERE name = ?";
    let bytes: Option<[u8; 8]> =
        connection.prepare_cached(sql)?.query_row([name], |row| row.get(0)).optional()?;
    Ok(bytes.map(u64::from_le_bytes))
}

fn set_number(connection: &Connection, name: &str, value: u64) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)")?
        .execute(params![name, value.to_le_bytes()])?;
    Ok(())
}

/// Before the UUID, in hexadecimal, of a cache that no pack tells of yet.
const UNLOGGED_CACHE: &str = "unlogged-cache-";

/// Notes a cache whose record is still to be appended.
pub(in crate::store) fn add_unlogged_cache(
    connection: &Connection,
    uuid: [u8; 16],
) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)";
    connection.execute(sql, params![unlogged_name(uuid), uuid])?;
    Ok(())
}

/// Forgets that note.
pub(in crate::store) fn remove_unlogged_cache(
    connection: &Connection,
    uuid: [u8; 16],
) -> Result<(), StoreError> {
    connection.execute("DELETE FROM meta WHERE name = ?", [unlogged_name(uuid)])?;
    Ok(())
}

/// The caches whose records are still to be appended.
pub(in crate::store) fn unlogged_caches(
    connection: &Connection,
) -> Result<Vec<[u8; 16]>, StoreError> {
    let mut statement = connection.prepare("SELECT value FROM meta WHERE name LIKE ? || '%'")?;
    let rows = statement.query_map([UNLOGGED_CACHE], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn unlogged_name(uuid: [u8; 16]) -> String {
    format!("{UNLOGGED_CACHE}{}", HEXLOWER.encode(&uuid))
}

/// What a restart has to know of the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockMark {
    /// What it said last.
    pub seen: UnixSeconds,
    /// The highest that it said while it was believed.
    pub highest: UnixSeconds,
    /// How many seconds the box has to run until it is believed; 0 if it is.
    pub pause_left: u64,
}

/// What was written down of the wall clock; nothing before a first start.
pub(in crate::store) fn clock_mark(
    connection: &Connection,
) -> Result<Option<ClockMark>, StoreError> {
    let sql = "SELECT value FROM meta WHERE name = 'clock'";
    let bytes: Option<[u8; 24]> =
        connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(0);
    Ok(bytes.map(|bytes| ClockMark {
        seen: number(&bytes[..8]),
        highest: number(&bytes[8..16]),
        pause_left: number(&bytes[16..]),
    }))
}

pub(in crate::store) fn set_clock_mark(
    connection: &Connection,
    mark: ClockMark,
) -> Result<(), StoreError> {
    let bytes = [mark.seen, mark.highest, mark.pause_left].map(u64::to_le_bytes).concat();
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES ('clock', ?)")?
        .execute(params![bytes])?;
    Ok(())
}
