//! What the index knows about itself: the store's UUID, and up to where it has read the packs.

use rusqlite::{Connection, OptionalExtension, params};

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
