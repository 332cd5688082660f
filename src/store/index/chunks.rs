//! Where each chunk is.
//!
//! Rows lie in the order in which chunks came, which is cheap to write; the way to them from a
//! BLAKE3 is in [`prefixes`](super::prefixes). It only hints: a chunk is found when the row has
//! its whole BLAKE3.

#[cfg(test)]
#[cfg(figures)]
mod figures;
#[cfg(test)]
mod tests;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::store::error::StoreError;
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::prefixes::Prefixes;
use crate::store::pack::Location;
use crate::wire::message::ChunkId;

/// A stored chunk.
#[derive(Clone, Debug)]
pub(in crate::store) struct ChunkRow {
    pub(in crate::store) number: ChunkNumber,
    pub(in crate::store) id: ChunkId,
    pub(in crate::store) location: Location,
    pub(in crate::store) raw_len: u32,
    /// XXH3-64 of the stored frame.
    pub(in crate::store) sum: u64,
}

/// The way from BLAKE3 to rows. Only the thread that writes the index inserts and deletes.
#[derive(Debug)]
pub(in crate::store) struct ChunkIndex {
    prefixes: Prefixes,
}

impl ChunkIndex {
    /// Loads what is kept in memory: one scan over the newest quarter of a million chunks.
    pub(in crate::store) fn open(connection: &Connection) -> Result<Self, StoreError> {
        Ok(Self { prefixes: Prefixes::load(connection)? })
    }

    /// The newest row of each chunk, in order; `None` where there is none.
    pub(in crate::store) fn look_up(
        &self,
        connection: &Connection,
        ids: &[ChunkId],
    ) -> Result<Vec<Option<ChunkRow>>, StoreError> {
        ids.iter().map(|id| self.newest(connection, *id)).collect()
    }

    fn newest(&self, connection: &Connection, id: ChunkId) -> Result<Option<ChunkRow>, StoreError> {
        let mut newest: Option<ChunkRow> = None;
        for number in self.prefixes.numbers(connection, id)? {
            let Some(row) = row(connection, number)?.filter(|row| row.id == id) else { continue };
            if newest.as_ref().is_none_or(|newest| newest.number < row.number) {
                newest = Some(row);
            }
        }
        Ok(newest)
    }

    /// The newest row of a chunk of those that `may_tell` allows. As much is done for a chunk
    /// that is not there as for one that must not be told of: the way to its number, and one
    /// question about a number; no row is read for either.
    pub(in crate::store) fn look_up_if(
        &self,
        connection: &Connection,
        id: ChunkId,
        may_tell: impl Fn(ChunkNumber) -> Result<bool, StoreError>,
    ) -> Result<Option<ChunkRow>, StoreError> {
        let mut numbers = self.prefixes.numbers(connection, id)?;
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.is_empty() {
            may_tell(self.prefixes.stand_in(id))?;
        }
        let mut newest = None;
        for number in numbers {
            if may_tell(number)? {
                newest = row(connection, number)?.filter(|row| row.id == id).or(newest);
            }
        }
        Ok(newest)
    }

    /// Adds rows; their numbers are new.
    pub(in crate::store) fn insert(
        &self,
        tx: &Connection,
        rows: &[ChunkRow],
    ) -> Result<(), StoreError> {
        let mut statement = tx.prepare_cached(
            "INSERT INTO chunks (number, id, pack, offset, stored_len, raw_len, sum)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        for row in rows {
            statement.execute(params![
                row.number,
                row.id.0,
                row.location.pack,
                row.location.offset,
                row.location.stored_len,
                row.raw_len,
                row.sum.cast_signed(),
            ])?;
        }
        self.prefixes.insert(tx, rows.iter().map(|row| (row.id, row.number)))
    }

    /// Takes out the ways to chunks that are gone: less is written where neighbouring ones go
    /// together.
    pub(in crate::store) fn forget(
        &self,
        tx: &Connection,
        gone: &[(ChunkId, ChunkNumber)],
    ) -> Result<(), StoreError> {
        gone.iter().try_for_each(|(id, number)| self.prefixes.delete(tx, *id, *number))
    }

    /// Takes a chunk out.
    pub(in crate::store) fn delete(
        &self,
        tx: &Connection,
        number: ChunkNumber,
    ) -> Result<(), StoreError> {
        // What may be left of it in memory points at a number without a row, and is passed over.
        if let Some(row) = row(tx, number)? {
            self.prefixes.delete(tx, row.id, number)?;
        }
        remove(tx, number)
    }
}

/// Takes out the row of a chunk alone.
pub(in crate::store) fn remove(tx: &Connection, number: ChunkNumber) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM chunks WHERE number = ?")?.execute([number])?;
    Ok(())
}

/// Numbers of some chunks of a pack, at most [`IN_PACK_AT_A_TIME`].
pub(in crate::store) fn in_pack(
    connection: &Connection,
    pack: u32,
) -> Result<Vec<ChunkNumber>, StoreError> {
    numbers_in_pack(connection, pack, IN_PACK_AT_A_TIME)
}

/// Numbers of all chunks of a pack.
pub(in crate::store) fn all_in_pack(
    connection: &Connection,
    pack: u32,
) -> Result<Vec<ChunkNumber>, StoreError> {
    numbers_in_pack(connection, pack, u32::MAX)
}

/// Chunks that [`in_pack`] tells of.
const IN_PACK_AT_A_TIME: u32 = 512;

fn numbers_in_pack(
    connection: &Connection,
    pack: u32,
    limit: u32,
) -> Result<Vec<ChunkNumber>, StoreError> {
    let sql = "SELECT number FROM chunks INDEXED BY chunks_by_pack WHERE pack = ? LIMIT ?";
    let mut statement = connection.prepare_cached(sql)?;
    let numbers = statement.query_map([pack, limit], |row| row.get(0))?;
    Ok(numbers.collect::<Result<_, _>>()?)
}

/// Says where a chunk is now. Its frame is the same.
pub(in crate::store) fn relocate(
    tx: &Connection,
    number: ChunkNumber,
    to: Location,
) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE chunks SET pack = ?, offset = ? WHERE number = ?")?
        .execute(params![to.pack, to.offset, number])?;
    Ok(())
}

/// The rows of these numbers, in order; `None` where there is none.
pub(in crate::store) fn rows(
    connection: &Connection,
    numbers: &[ChunkNumber],
) -> Result<Vec<Option<ChunkRow>>, StoreError> {
    numbers.iter().map(|number| row(connection, *number)).collect()
}

fn row(connection: &Connection, number: ChunkNumber) -> Result<Option<ChunkRow>, StoreError> {
    Ok(connection
        .prepare_cached(
            "SELECT number, id, pack, offset, stored_len, raw_len, sum FROM chunks
             WHERE number = ?",
        )?
        .query_row([number], from_row)
        .optional()?)
}

fn from_row(row: &Row<'_>) -> Result<ChunkRow, rusqlite::Error> {
    let sum: i64 = row.get(6)?;
    Ok(ChunkRow {
        number: row.get(0)?,
        id: ChunkId(row.get(1)?),
        location: Location { pack: row.get(2)?, offset: row.get(3)?, stored_len: row.get(4)? },
        raw_len: row.get(5)?,
        sum: sum.cast_unsigned(),
    })
}
