//! What all parts of an open store share: the folder, the packs, and what is kept in memory.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::Semaphore;

use crate::store::barrier::Barrier;
use crate::store::error::StoreError;
use crate::store::filter::PathFilter;
use crate::store::heal;
use crate::store::index::chunks;
use crate::store::index::chunks::{ChunkIndex, ChunkRow};
use crate::store::index::damage;
use crate::store::index::db::Readers;
use crate::store::layout::Folder;
use crate::store::leases::Leases;
use crate::store::pack::{Appender, Kind, PackReader, Wanted};
use crate::store::pending::Pending;
use crate::store::space::Room;
use crate::store::trouble::Trouble;
use crate::store::uses::Uses;
use crate::store::writer::Writer;
use crate::wire::message::ChunkId;

/// What the writer and everybody else share.
#[derive(Debug)]
pub(in crate::store) struct Shared {
    pub(in crate::store) folder: Folder,
    pub(in crate::store) appender: Appender,
    pub(in crate::store) packs: PackReader,
    pub(in crate::store) chunks: ChunkIndex,
    pub(in crate::store) pending: Pending,
    pub(in crate::store) filter: PathFilter,
    pub(in crate::store) leases: Arc<Leases>,
    pub(in crate::store) barrier: Barrier,
    pub(in crate::store) uses: Uses,
    pub(in crate::store) trouble: Trouble,
}

/// The open store. Jobs of the writer must not hold it: its drop waits for the writer.
#[derive(Debug)]
pub(in crate::store) struct Inner {
    pub(in crate::store) writer: Writer,
    pub(in crate::store) readers: Arc<Readers>,
    pub(in crate::store) shared: Arc<Shared>,
    /// Level of zstd for what the box compresses itself.
    pub(in crate::store) compression_level: i32,
    /// Room on the disk.
    pub(in crate::store) room: Arc<Room>,
    /// Places for windows of NARs that are being read.
    pub(in crate::store) windows: Arc<Semaphore>,
    /// Places for windows that are read before they are asked for.
    pub(in crate::store) prefetches: Arc<Semaphore>,
}

impl Inner {
    /// Reads the frames of `rows`, each verified. Neighbours are read in one call.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] with the chunks that are not what was written; they have been
    /// recorded. Frames that are sound are not returned then.
    pub(in crate::store) fn read_frames(&self, rows: &[ChunkRow]) -> Result<Vec<Bytes>, ReadError> {
        let mut rows = rows.to_vec();
        // A collection may move a chunk between the look at its row and the reading.
        for _attempt in 0..ATTEMPTS_MAX {
            let wanted: Vec<_> = rows.iter().map(wanted).collect();
            match self.shared.packs.read_run(&wanted) {
                Ok(frames) => return Ok(frames),
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(ReadError::Store(error.into())),
            }
            let damaged = self.unreadable(&rows)?;
            let numbers: Vec<_> = rows.iter().map(|row| row.number).collect();
            let now = self.readers.read(|connection| chunks::rows(connection, &numbers))?;
            let moved = rows
                .iter()
                .zip(&now)
                .any(|(row, now)| now.as_ref().is_some_and(|now| now.location != row.location));
            if damaged.is_empty() || moved {
                rows = rows.into_iter().zip(now).map(|(row, now)| now.unwrap_or(row)).collect();
                continue;
            }
            heal::record(self, &damaged)?;
            return Err(ReadError::Damaged(damaged));
        }
        Err(ReadError::Damaged(rows))
    }

    /// Those of `rows` whose frames are not what was written.
    fn unreadable(&self, rows: &[ChunkRow]) -> Result<Vec<ChunkRow>, ReadError> {
        let mut damaged = Vec::new();
        for row in rows {
            match self.shared.packs.read(wanted(row)) {
                Ok(_sound) => {}
                Err(error) if error.is_damage() => damaged.push(row.clone()),
                Err(error) => return Err(ReadError::Store(error.into())),
            }
        }
        Ok(damaged)
    }

    /// The chunk's newest row, and whether it is recorded as damaged.
    pub(in crate::store) fn look_up(
        &self,
        connection: &Connection,
        id: ChunkId,
    ) -> Result<Option<(ChunkRow, bool)>, StoreError> {
        let found = self.shared.chunks.look_up(connection, &[id])?.pop().flatten();
        found.map(|row| Ok((row.clone(), damage::is_recorded(connection, row.number)?))).transpose()
    }
}

/// How often frames are looked for in another place before it is given up.
const ATTEMPTS_MAX: u32 = 8;

fn wanted(row: &ChunkRow) -> Wanted {
    Wanted { kind: Kind::Chunk, location: row.location, id: Some(row.id.0) }
}

/// Why frames could not be read.
#[derive(Debug)]
pub(in crate::store) enum ReadError {
    /// These are not what was written.
    Damaged(Vec<ChunkRow>),
    /// Anything else.
    Store(StoreError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
