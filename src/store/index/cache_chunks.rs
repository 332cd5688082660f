//! Which chunks are in which cache: compressed sets of chunk numbers.
//!
//! What a token is told about chunks is asked here, so a chunk is entered in the transaction in
//! which a path of the cache is. It stays when the path goes: it *was* in the cache. A set is kept
//! in blocks, so that adding to it, or asking it, costs one row and not the set.

#[cfg(test)]
mod tests;

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::index::nars;
use crate::store::index::nars::NarId;
use crate::store::index::numbers;
use crate::store::index::numbers::ChunkNumber;

/// Chunks of a block.
const BLOCK_CHUNKS: u64 = 8192;
/// A block with a bit for each of its chunks; one that is shorter lists offsets.
const BITMAP_BYTES: usize = 1024;
/// Offsets that a list has at most; with one more it would be as long as the bits.
const LISTED_MAX: u16 = 511;

/// Enters chunks. Costs a row of at most 1 KiB for each block that changes.
pub(in crate::store) fn add(
    connection: &Connection,
    cache: CacheId,
    chunks: &[ChunkNumber],
) -> Result<(), StoreError> {
    let mut sorted = chunks.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    for chunks in sorted.chunk_by(|one, next| one / BLOCK_CHUNKS == next / BLOCK_CHUNKS) {
        let number = chunks.first().map_or(0, |first| first / BLOCK_CHUNKS);
        let mut block = Block::read(connection, cache, number)?;
        let before = block.count();
        chunks.iter().for_each(|chunk| block.set(*chunk, true));
        if block.count() != before {
            block.write(connection, cache, number)?;
        }
    }
    Ok(())
}

/// Takes chunks out of all sets, for they are gone.
pub(in crate::store) fn remove(
    connection: &Connection,
    chunks: &[ChunkNumber],
) -> Result<(), StoreError> {
    let mut sorted = chunks.to_vec();
    sorted.sort_unstable();
    for chunks in sorted.chunk_by(|one, next| one / BLOCK_CHUNKS == next / BLOCK_CHUNKS) {
        let number = chunks.first().map_or(0, |first| first / BLOCK_CHUNKS);
        for cache in caches_with_block(connection, number)? {
            let mut block = Block::read(connection, cache, number)?;
            let before = block.count();
            chunks.iter().for_each(|chunk| block.set(*chunk, false));
            if block.count() == 0 {
                let sql = "DELETE FROM cache_chunks WHERE cache = ? AND block = ?";
                connection.prepare_cached(sql)?.execute(params![cache.0, number])?;
            } else if block.count() != before {
                block.write(connection, cache, number)?;
            }
        }
    }
    Ok(())
}

/// Whether a chunk is in the cache. Reads one row.
pub(in crate::store) fn contains(
    connection: &Connection,
    cache: CacheId,
    chunk: ChunkNumber,
) -> Result<bool, StoreError> {
    let mut statement = connection.prepare_cached(SELECT)?;
    let mut rows = statement.query(params![cache.0, chunk / BLOCK_CHUNKS])?;
    let Some(row) = rows.next()? else { return Ok(false) };
    is_in_blob(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?, chunk)
}

/// Puts a chunk in the place of another in all caches that have the other.
pub(in crate::store) fn replace(
    connection: &Connection,
    old: ChunkNumber,
    new: ChunkNumber,
) -> Result<(), StoreError> {
    for cache in caches_with_block(connection, old / BLOCK_CHUNKS)? {
        if contains(connection, cache, old)? {
            let mut block = Block::read(connection, cache, old / BLOCK_CHUNKS)?;
            block.set(old, false);
            block.write(connection, cache, old / BLOCK_CHUNKS)?;
            add(connection, cache, &[new])?;
        }
    }
    Ok(())
}

/// Enters the chunks that a NAR has now into every cache with a path of it.
pub(in crate::store) fn add_nar(connection: &Connection, nar: NarId) -> Result<(), StoreError> {
    let chunks = chunks_of(connection, nar)?;
    nars::caches_with(connection, nar)?
        .into_iter()
        .try_for_each(|cache| add(connection, cache, &chunks))
}

/// The chunks of a NAR, in order.
pub(in crate::store) fn chunks_of(
    connection: &Connection,
    nar: NarId,
) -> Result<Vec<ChunkNumber>, StoreError> {
    numbers::Decoder::new(nars::chunks(connection, nar)?.unwrap_or_default()).collect()
}

/// Takes a cache's set away.
pub(in crate::store) fn forget(connection: &Connection, cache: CacheId) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM cache_chunks WHERE cache = ?")?.execute([cache.0])?;
    Ok(())
}

/// Fills the sets of an index that was written before there were any. Reads the manifest of
/// every NAR, once.
pub(in crate::store) fn fill_if_due(connection: &mut Connection) -> Result<(), StoreError> {
    let tx = connection.transaction()?;
    if tx.execute("DELETE FROM meta WHERE name = 'cache-chunks-due'", [])? > 0 {
        let mut statement = tx.prepare("SELECT DISTINCT nar FROM paths ORDER BY nar")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            add_nar(&tx, NarId(row.get(0)?))?;
        }
    }
    Ok(tx.commit()?)
}

const SELECT: &str = "SELECT bits FROM cache_chunks WHERE cache = ? AND block = ?";

fn caches_with_block(connection: &Connection, block: u64) -> Result<Vec<CacheId>, StoreError> {
    let sql = "SELECT cache FROM cache_chunks WHERE block = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let caches = statement.query_map([block], |row| row.get(0).map(CacheId))?;
    Ok(caches.collect::<Result<_, _>>()?)
}

/// The chunks of one block, a bit for each.
struct Block(Vec<u8>);

impl Block {
    fn read(connection: &Connection, cache: CacheId, number: u64) -> Result<Self, StoreError> {
        let mut statement = connection.prepare_cached(SELECT)?;
        let blob: Option<Vec<u8>> =
            statement.query_row(params![cache.0, number], |row| row.get(0)).optional()?;
        Self::from_blob(blob.unwrap_or_default())
    }

    fn write(
        &self,
        connection: &Connection,
        cache: CacheId,
        number: u64,
    ) -> Result<(), StoreError> {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO cache_chunks (cache, block, bits) VALUES (?, ?, ?)",
            )?
            .execute(params![cache.0, number, self.to_blob()])?;
        Ok(())
    }

    fn from_blob(blob: Vec<u8>) -> Result<Self, StoreError> {
        if blob.len() == BITMAP_BYTES {
            return Ok(Self(blob));
        }
        let mut block = Self(vec![0; BITMAP_BYTES]);
        listed(&blob)?
            .iter()
            .for_each(|offset| block.set(u16::from_le_bytes(*offset).into(), true));
        Ok(block)
    }

    fn to_blob(&self) -> Vec<u8> {
        if self.count() > LISTED_MAX.into() {
            return self.0.clone();
        }
        let bytes = self.0.iter().zip((0_u16..).step_by(8)).filter(|(byte, _first)| **byte != 0);
        bytes
            .flat_map(|(byte, first)| {
                (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| first + bit)
            })
            .flat_map(u16::to_le_bytes)
            .collect()
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }

    fn set(&mut self, chunk: ChunkNumber, is_in: bool) {
        let (place, bit) = place_of(chunk);
        if let Some(byte) = self.0.get_mut(place) {
            *byte = if is_in { *byte | bit } else { *byte & !bit };
        }
    }
}

fn is_in_blob(blob: &[u8], chunk: ChunkNumber) -> Result<bool, StoreError> {
    if blob.len() == BITMAP_BYTES {
        let (place, bit) = place_of(chunk);
        return Ok(blob.get(place).is_some_and(|byte| byte & bit != 0));
    }
    let offset = chunk % BLOCK_CHUNKS;
    let found =
        listed(blob)?.binary_search_by_key(&offset, |listed| u16::from_le_bytes(*listed).into());
    Ok(found.is_ok())
}

/// The offsets of a block that lists them.
fn listed(blob: &[u8]) -> Result<&[[u8; 2]], StoreError> {
    match blob.as_chunks() {
        (offsets, []) if offsets.len() <= LISTED_MAX.into() => Ok(offsets),
        _ => Err(StoreError::BadRow("set of chunk numbers")),
    }
}

/// The byte and the bit in it that stand for a chunk in the bits of its block.
fn place_of(chunk: ChunkNumber) -> (usize, u8) {
    let offset = chunk % BLOCK_CHUNKS;
    (usize::try_from(offset / 8).unwrap_or(0), 1 << (offset % 8))
}
