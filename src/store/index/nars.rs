//! NARs: the ordered chunks of each, and what its stored form hashes to.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::formats::Sha256Hash;
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::index::numbers;
use crate::store::index::numbers::ChunkNumber;
use crate::store::pack::Location;

/// A NAR, within this data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NarId(pub i64);

/// The stored form of one NAR: concatenated zstd frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarFile {
    /// Its number in this data folder.
    pub id: NarId,
    /// SHA-256 of the NAR, uncompressed.
    pub nar_hash: Sha256Hash,
    /// Bytes of the NAR, uncompressed.
    pub nar_size: u64,
    /// Goes into the URL and the ETag; grows when the stored frames had to change. From 1.
    pub revision: u32,
    /// SHA-256 of the stored form.
    pub file_hash: Sha256Hash,
    /// Bytes of the stored form.
    pub file_size: u64,
}

/// What [`insert`] writes.
#[derive(Debug)]
pub(in crate::store) struct NewNar {
    pub(in crate::store) nar_hash: Sha256Hash,
    pub(in crate::store) nar_size: u64,
    pub(in crate::store) revision: u32,
    pub(in crate::store) file_hash: Sha256Hash,
    pub(in crate::store) file_size: u64,
    pub(in crate::store) chunks: Vec<u8>,
}

const COLUMNS: &str = "id, nar_hash, nar_size, revision, file_hash, file_size";

/// Columns in the order that [`from_row`] reads them, for joins; from table `nars`.
pub(in crate::store) const JOINED: &str = "nars.id, nars.nar_hash, nars.nar_size, \
    nars.revision, nars.file_hash, nars.file_size, nars.damaged OR nars.stale";

/// Reads the columns of [`JOINED`] but the last from column `first` on.
pub(in crate::store) fn from_row(row: &Row<'_>, first: usize) -> Result<NarFile, rusqlite::Error> {
    Ok(NarFile {
        id: NarId(row.get(first)?),
        nar_hash: Sha256Hash::from_bytes(row.get(first + 1)?),
        nar_size: row.get(first + 2)?,
        revision: row.get(first + 3)?,
        file_hash: Sha256Hash::from_bytes(row.get(first + 4)?),
        file_size: row.get(first + 5)?,
    })
}

/// Writes a NAR; there must be none of that hash.
pub(in crate::store) fn insert(connection: &Connection, new: &NewNar) -> Result<NarId, StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO nars (nar_hash, nar_size, revision, file_hash, file_size, chunks)
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            new.nar_hash.as_bytes(),
            new.nar_size,
            new.revision,
            new.file_hash.as_bytes(),
            new.file_size,
            new.chunks,
        ])?;
    Ok(NarId(connection.last_insert_rowid()))
}

/// Brings a NAR that is there to another encoding.
pub(in crate::store) fn update(
    connection: &Connection,
    id: NarId,
    new: &NewNar,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE nars SET revision = ?, file_hash = ?, file_size = ?, chunks = ?, stale = 0
             WHERE id = ?",
        )?
        .execute(params![
            new.revision,
            new.file_hash.as_bytes(),
            new.file_size,
            new.chunks,
            id.0
        ])?;
    Ok(())
}

/// The NAR with that hash.
pub(in crate::store) fn by_hash(
    connection: &Connection,
    nar_hash: Sha256Hash,
) -> Result<Option<NarFile>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM nars WHERE nar_hash = ?");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([nar_hash.as_bytes()], |row| from_row(row, 0)).optional()?)
}

/// The NAR with that number.
pub(in crate::store) fn by_id(
    connection: &Connection,
    id: NarId,
) -> Result<Option<NarFile>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM nars WHERE id = ?");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([id.0], |row| from_row(row, 0)).optional()?)
}

/// Whether a NAR can be read as a whole, as far as is known.
pub(in crate::store) fn is_sound(connection: &Connection, id: NarId) -> Result<bool, StoreError> {
    let sound = connection
        .prepare_cached("SELECT NOT (damaged OR stale) FROM nars WHERE id = ?")?
        .query_row([id.0], |row| row.get(0))
        .optional()?;
    Ok(sound.unwrap_or(false))
}

/// The blob of chunk numbers, if the NAR is there in this revision and sound.
pub(in crate::store) fn chunks_to_serve(
    connection: &Connection,
    id: NarId,
    revision: u32,
) -> Result<Option<Vec<u8>>, StoreError> {
    let sql = "SELECT chunks FROM nars WHERE id = ? AND revision = ? AND NOT stale";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row(params![id.0, revision], |row| row.get(0)).optional()?)
}

/// The blob of chunk numbers.
pub(in crate::store) fn chunks(
    connection: &Connection,
    id: NarId,
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT chunks FROM nars WHERE id = ?")?;
    Ok(statement.query_row([id.0], |row| row.get(0)).optional()?)
}

/// Whether a path that is visible in one of `caches` has the NAR.
pub(in crate::store) fn is_visible_in(
    connection: &Connection,
    id: NarId,
    caches: &[CacheId],
) -> Result<bool, StoreError> {
    let sql = "SELECT cache FROM paths WHERE nar = ? AND visible";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([id.0])?;
    while let Some(row) = rows.next()? {
        if caches.contains(&CacheId(row.get(0)?)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether any path of a cache, visible or hidden, has the NAR.
pub(in crate::store) fn is_in(
    connection: &Connection,
    id: NarId,
    cache: CacheId,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM paths INDEXED BY paths_by_nar WHERE nar = ? AND cache = ? LIMIT 1";
    Ok(connection.prepare_cached(sql)?.exists([id.0, cache.0])?)
}

/// The caches with a path, visible or hidden, that has the NAR.
pub(in crate::store) fn caches_with(
    connection: &Connection,
    id: NarId,
) -> Result<Vec<CacheId>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT DISTINCT cache FROM paths WHERE nar = ?")?;
    let caches = statement.query_map([id.0], |row| row.get(0).map(CacheId))?;
    Ok(caches.collect::<Result<_, _>>()?)
}

/// Whether any path of any cache has the NAR.
pub(in crate::store) fn has_path(connection: &Connection, id: NarId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM paths INDEXED BY paths_by_nar WHERE nar = ? LIMIT 1";
    Ok(connection.prepare_cached(sql)?.exists([id.0])?)
}

/// How many paths, of all caches, have the NAR.
pub(in crate::store) fn count_paths(connection: &Connection, id: NarId) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM paths INDEXED BY paths_by_nar WHERE nar = ?";
    Ok(connection.prepare_cached(sql)?.query_row([id.0], |row| row.get(0))?)
}

/// The next NARs behind `after` that no path has, at most `limit`.
pub(in crate::store) fn without_path(
    connection: &Connection,
    after: NarId,
    limit: usize,
) -> Result<Vec<NarId>, StoreError> {
    let sql = "SELECT id FROM nars WHERE id > ?
               AND NOT EXISTS (SELECT 1 FROM paths INDEXED BY paths_by_nar WHERE nar = nars.id)
               ORDER BY id LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let ids = statement.query_map(params![after.0, limit], |row| row.get(0).map(NarId))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// All NARs that no path has.
pub(in crate::store) fn all_without_path(
    connection: &Connection,
) -> Result<Vec<NarId>, StoreError> {
    without_path(connection, NarId(0), usize::MAX)
}

/// Takes a NAR out. Its chunks stay until they are collected.
pub(in crate::store) fn delete(connection: &Connection, id: NarId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM nars WHERE id = ?")?.execute([id.0])?;
    Ok(())
}

/// The number of the NAR with that hash, from the index on the hashes alone.
pub(in crate::store) fn id_of(
    connection: &Connection,
    nar_hash: Sha256Hash,
) -> Result<Option<NarId>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id FROM nars WHERE nar_hash = ?")?;
    let id = statement.query_row([nar_hash.as_bytes()], |row| row.get(0).map(NarId)).optional()?;
    Ok(id)
}

/// Remembers where the record of the NAR's listing is.
pub(in crate::store) fn set_listing(
    connection: &Connection,
    id: NarId,
    at: Location,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE nars SET listing_pack = ?, listing_offset = ?, listing_len = ? WHERE id = ?",
        )?
        .execute(params![at.pack, at.offset, at.stored_len, id.0])?;
    Ok(())
}

/// Where the record of the NAR's listing is; `None` if it has none.
pub(in crate::store) fn listing(
    connection: &Connection,
    id: NarId,
) -> Result<Option<Location>, StoreError> {
    let sql = "SELECT listing_pack, listing_offset, listing_len FROM nars
               WHERE id = ? AND listing_pack IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let location = |row: &Row<'_>| {
        Ok(Location { pack: row.get(0)?, offset: row.get(1)?, stored_len: row.get(2)? })
    };
    Ok(statement.query_row([id.0], location).optional()?)
}

/// All NARs that one of `numbers` (sorted) is a chunk of. Reads every manifest: only for when
/// something is damaged.
pub(in crate::store) fn with_chunks(
    connection: &Connection,
    sorted: &[ChunkNumber],
) -> Result<Vec<NarId>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id, chunks FROM nars ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        for number in numbers::Decoder::new(row.get::<_, Vec<u8>>(1)?) {
            if sorted.binary_search(&number?).is_ok() {
                found.push(NarId(row.get(0)?));
                break;
            }
        }
    }
    Ok(found)
}

/// Writes whether a chunk of the NAR is recorded as damaged.
pub(in crate::store) fn set_damaged(
    connection: &Connection,
    id: NarId,
    damaged: bool,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE nars SET damaged = ? WHERE id = ?")?
        .execute(params![damaged, id.0])?;
    Ok(())
}

/// Puts other chunk numbers into a NAR; `stale` if its frames are no longer those that its
/// `file_hash` was made of.
pub(in crate::store) fn replace_chunks(
    connection: &Connection,
    id: NarId,
    blob: &[u8],
    stale: bool,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE nars SET chunks = ?, stale = stale OR ? WHERE id = ?")?
        .execute(params![blob, stale, id.0])?;
    Ok(())
}

/// NARs whose frames were replaced and are whole again, so that their encoding can be told anew.
pub(in crate::store) fn to_refresh(connection: &Connection) -> Result<Vec<NarId>, StoreError> {
    let sql = "SELECT id FROM nars WHERE (damaged OR stale) AND stale AND NOT damaged";
    let mut statement = connection.prepare_cached(sql)?;
    let ids = statement.query_map([], |row| row.get(0).map(NarId))?.collect::<Result<_, _>>()?;
    Ok(ids)
}
