//! Which chunks count.

use std::collections::{BTreeMap, HashSet};

use rusqlite::Connection;

use crate::store::error::StoreError;
use crate::store::index::nars::NarId;
use crate::store::index::numbers::{ChunkNumber, Decoder, NumberSet};
use crate::store::pack::record::RECORD_HEADER_BYTES;
use crate::store::shared::{Inner, Shared};

/// The chunks that counted when they were marked: those of NARs, and those that somebody sent
/// lately. A bit for each chunk, 750 KB for six million.
#[derive(Debug)]
pub(super) struct Marks {
    marked: NumberSet,
    /// The highest number that there was. What came later counts.
    last: ChunkNumber,
    /// What each pack has in it.
    pub(super) packs: BTreeMap<u32, PackUse>,
}

/// What of a pack's chunks counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PackUse {
    pub(super) live_bytes: u64,
    pub(super) dead_bytes: u64,
    pub(super) dead_chunks: u64,
}

impl Marks {
    /// Marks from one snapshot of the index, as if the NARs in `except` were gone. Reads every
    /// manifest and the place of every chunk.
    pub(super) fn read(inner: &Inner, except: &HashSet<NarId>) -> Result<Self, StoreError> {
        inner.readers.read(|connection| {
            let mut marks = Self {
                marked: NumberSet::default(),
                last: last_number(connection)?,
                packs: BTreeMap::new(),
            };
            marks.mark_nars(connection, except)?;
            marks.mark_uploads(connection)?;
            marks.count(connection)?;
            Ok(marks)
        })
    }

    fn mark_nars(
        &mut self,
        connection: &Connection,
        except: &HashSet<NarId>,
    ) -> Result<(), StoreError> {
        let mut statement = connection.prepare("SELECT id, chunks FROM nars")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if except.contains(&NarId(row.get(0)?)) {
                continue;
            }
            for number in Decoder::new(row.get::<_, Vec<u8>>(1)?) {
                self.marked.insert(number?);
            }
        }
        Ok(())
    }

    /// How old they are is no matter here: those that are too old are forgotten elsewhere, by a
    /// clock that is trusted.
    fn mark_uploads(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare("SELECT DISTINCT number FROM uploads")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            self.marked.insert(row.get(0)?);
        }
        Ok(())
    }

    fn count(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let sql = "SELECT pack, number, stored_len FROM chunks INDEXED BY chunks_by_pack";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let bytes = RECORD_HEADER_BYTES + row.get::<_, u64>(2)?;
            let marked = self.marked.contains(row.get(1)?);
            let pack = self.packs.entry(row.get(0)?).or_default();
            if marked {
                pack.live_bytes += bytes;
            } else {
                pack.dead_bytes += bytes;
                pack.dead_chunks += 1;
            }
        }
        Ok(())
    }

    /// Whether a chunk counts now. To be asked on the thread that writes.
    pub(super) fn counts(&self, shared: &Shared, number: ChunkNumber) -> bool {
        number > self.last
            || self.marked.contains(number)
            || shared.barrier.has_chunk(number)
            || shared.leases.has(number)
    }

    /// Chunks that do not count, and the bytes of their records.
    pub(super) fn dead(&self) -> (u64, u64) {
        let add =
            |(chunks, bytes), pack: &PackUse| (chunks + pack.dead_chunks, bytes + pack.dead_bytes);
        self.packs.values().fold((0, 0), add)
    }
}

fn last_number(connection: &Connection) -> Result<ChunkNumber, StoreError> {
    Ok(connection.query_row("SELECT ifnull(max(number), 0) FROM chunks", [], |row| row.get(0))?)
}
