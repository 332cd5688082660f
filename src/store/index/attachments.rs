//! Build logs and realisations of caches: where the record of each is.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::formats::AttachmentName;
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::pack::Location;

/// Where the record of an attachment is.
pub(in crate::store) fn find(
    connection: &Connection,
    cache: CacheId,
    name: &AttachmentName,
) -> Result<Option<Location>, StoreError> {
    let sql = "SELECT pack, offset, stored_len FROM attachments
               WHERE cache = ? AND kind = ? AND name = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let location = |row: &Row<'_>| {
        Ok(Location { pack: row.get(0)?, offset: row.get(1)?, stored_len: row.get(2)? })
    };
    let found = statement.query_row(params![cache.0, name.kind(), name.to_string()], location);
    Ok(found.optional()?)
}

/// Says where the record of an attachment is, in the place of an older one: a second one is only
/// written where the first was damaged.
pub(in crate::store) fn put(
    connection: &Connection,
    cache: CacheId,
    name: &AttachmentName,
    at: Location,
) -> Result<(), StoreError> {
    let sql = "INSERT OR REPLACE INTO attachments (cache, kind, name, pack, offset, stored_len)
               VALUES (?, ?, ?, ?, ?, ?)";
    connection.prepare_cached(sql)?.execute(params![
        cache.0,
        name.kind(),
        name.to_string(),
        at.pack,
        at.offset,
        at.stored_len
    ])?;
    Ok(())
}
