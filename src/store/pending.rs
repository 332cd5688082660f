//! Chunks that were appended to a pack and are not yet in the index.
//!
//! All ingests share them, so two pushes of the same chunk append it once. A chunk is appended
//! and entered here under one lock; so whoever holds the lock knows that every chunk before the
//! end of the packs is either in the index or here.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::UnixSeconds;
use crate::store::claims::Claims;
use crate::store::error::StoreError;
use crate::store::index::chunks::ChunkRow;
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::tokens::TokenId;
use crate::store::index::uploads::Upload;
use crate::store::pack::{Appender, Kind, Position};
use crate::wire::message::ChunkId;

/// The chunks, and the numbers that the next ones get.
#[derive(Debug)]
pub(in crate::store) struct Pending {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    chunks: HashMap<ChunkId, Entry>,
    claims: Claims,
    next_number: ChunkNumber,
    /// The appender's epoch when this was last brought in line with it.
    epoch: u64,
    /// Grows whenever chunks leave, so that whoever looked into the index in between looks again.
    departures: u64,
    /// Stored bytes of chunks that no group has taken up yet.
    fresh_bytes: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    row: ChunkRow,
    epoch: u64,
    /// In the transaction of the group that is being committed.
    taken_up: bool,
}

/// What a group takes up: everything that is pending, and the position that it reaches up to.
#[derive(Debug)]
pub(in crate::store) struct TakenUp {
    pub(in crate::store) chunks: Vec<ChunkRow>,
    pub(in crate::store) uploads: Vec<Upload>,
    pub(in crate::store) position: Position,
    pub(in crate::store) epoch: u64,
}

/// What came of an attempt to append.
#[derive(Debug)]
pub(in crate::store) enum AppendOutcome {
    /// The chunk is stored under this row; `fresh_bytes` have gathered since the last group.
    Stored { row: ChunkRow, fresh_bytes: u64 },
    /// Somebody else has stored it, or may have: look again, here and in the index.
    LookAgain,
}

impl Pending {
    /// Starts empty.
    pub(in crate::store) fn new(next_number: ChunkNumber, epoch: u64) -> Self {
        let state = State {
            chunks: HashMap::new(),
            claims: Claims::default(),
            next_number,
            epoch,
            departures: 0,
            fresh_bytes: 0,
        };
        Self { state: Mutex::new(state) }
    }

    /// The chunk, if it is pending.
    pub(in crate::store) fn find(&self, appender: &Appender, id: ChunkId) -> Option<ChunkRow> {
        self.in_line_with(appender).chunks.get(&id).map(|entry| entry.row.clone())
    }

    /// Notes that a token sent a chunk that is here already; for the index too.
    pub(in crate::store) fn claim(&self, upload: Upload) {
        self.lock().claims.insert(upload);
    }

    /// Whether a token sent that chunk, as far as the index does not say so yet.
    pub(in crate::store) fn is_claimed(&self, number: ChunkNumber, token: TokenId) -> bool {
        self.lock().claims.contains(number, token)
    }

    /// A mark to give to [`append`](Self::append): take it before looking into the index.
    pub(in crate::store) fn departures(&self) -> u64 {
        self.lock().departures
    }

    /// Stores a chunk that is not in the index, unless it is pending already or chunks went into
    /// the index since `departures`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Pack`] if the pack cannot be written.
    pub(in crate::store) fn append(
        &self,
        appender: &Appender,
        chunk: &NewChunk<'_>,
        departures: u64,
    ) -> Result<AppendOutcome, StoreError> {
        let mut state = self.in_line_with(appender);
        if state.chunks.contains_key(&chunk.id) || state.departures != departures {
            return Ok(AppendOutcome::LookAgain);
        }
        let appended = appender.append(Kind::Chunk, chunk.id.0, chunk.raw_len, chunk.frame)?;
        let row = ChunkRow {
            number: state.next_number,
            id: chunk.id,
            location: appended.location,
            raw_len: chunk.raw_len,
            sum: appended.payload_sum,
        };
        state.next_number += 1;
        state.fresh_bytes += u64::from(row.location.stored_len);
        let entry = Entry { row: row.clone(), epoch: appended.epoch, taken_up: false };
        state.chunks.insert(chunk.id, entry);
        state.claims.insert(Upload { number: row.number, token: chunk.token, at: chunk.at });
        // Behind the insert: a sync that failed since the append has taken this chunk too.
        state.align(appender.epoch());
        Ok(AppendOutcome::Stored { row, fresh_bytes: state.fresh_bytes })
    }

    /// Takes up all chunks for one group commit. End it with [`settle`](Self::settle).
    pub(in crate::store) fn take_up(&self, appender: &Appender) -> TakenUp {
        let mut state = self.in_line_with(appender);
        let mut chunks: Vec<_> = state
            .chunks
            .values_mut()
            .map(|entry| {
                entry.taken_up = true;
                entry.row.clone()
            })
            .collect();
        chunks.sort_unstable_by_key(|row| row.number);
        state.fresh_bytes = 0;
        let uploads = state.claims.take_up();
        TakenUp { chunks, uploads, position: appender.position(), epoch: state.epoch }
    }

    /// Ends a group: what it took up is in the index, or (not `committed`) still pending, unless
    /// its bytes were lost with a failed sync, or taken back with other records.
    pub(in crate::store) fn settle(&self, appender: &Appender, committed: bool) {
        let mut state = self.lock();
        if committed {
            state.chunks.retain(|_, entry| !entry.taken_up);
        } else {
            state.chunks.values_mut().for_each(|entry| entry.taken_up = false);
        }
        state.claims.settle(committed);
        state.departures += 1;
        state.align(appender.epoch());
        // Somebody else may have seen the new epoch first, while these were still taken up.
        state.forget_lost();
        if state.chunks.is_empty() {
            state.chunks.shrink_to(CHUNKS_KEPT_ROOM_FOR);
        }
    }

    /// Whether anything waits for a commit.
    pub(in crate::store) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.chunks.is_empty() && state.claims.is_empty()
    }

    fn in_line_with(&self, appender: &Appender) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.align(appender.epoch());
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets chunks whose bytes a failed write or sync took with it. Those that a group has
    /// taken up stay: the group finds out by itself.
    fn align(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.departures += 1;
            self.forget_lost();
        }
    }

    fn forget_lost(&mut self) {
        let epoch = self.epoch;
        self.chunks.retain(|_, entry| entry.taken_up || entry.epoch == epoch);
    }
}

/// Room that an empty table keeps, in chunks.
const CHUNKS_KEPT_ROOM_FOR: usize = 1024;

/// A chunk to be stored.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct NewChunk<'a> {
    pub(in crate::store) id: ChunkId,
    pub(in crate::store) raw_len: u32,
    pub(in crate::store) frame: &'a [u8],
    pub(in crate::store) token: TokenId,
    pub(in crate::store) at: UnixSeconds,
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;

    use super::*;
    use crate::store::pack::{Disk, RealDisk};

    /// A disk that cannot sync.
    #[derive(Debug)]
    struct NeverSyncs;

    impl Disk for NeverSyncs {
        fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
            RealDisk.write(file, bytes, offset)
        }

        fn sync(&self, _file: &File) -> io::Result<()> {
            Err(io::Error::other("told to fail"))
        }
    }

    #[test]
    fn a_chunk_that_a_sync_lost_is_forgotten_also_if_somebody_looked_before_the_group_ended() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Box::new(NeverSyncs);
        let appender =
            Appender::open(folder.path(), [1; 16], 1 << 20, Position::default(), disk).unwrap();
        let pending = Pending::new(1, appender.epoch());
        let (id, token) = (ChunkId([7; 32]), TokenId(1));
        let chunk = NewChunk { id, raw_len: 5, frame: b"frame", token, at: 0 };
        pending.append(&appender, &chunk, pending.departures()).unwrap();

        let taken = pending.take_up(&appender);
        assert_eq!(taken.chunks.len(), 1);
        appender.sync(taken.epoch).unwrap_err();
        let _looked = pending.find(&appender, id);
        pending.settle(&appender, false);

        assert!(pending.find(&appender, id).is_none(), "its bytes were cut off");
        assert!(pending.take_up(&appender).chunks.is_empty());
    }
}
