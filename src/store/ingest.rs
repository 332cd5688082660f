//! The only way in: one NAR, chunk by chunk in its order.
//!
//! Every byte of the NAR passes through here once, also of chunks that are known already: for
//! its SHA-256, for its structure, and for the SHA-256 of what will be served. Nothing is
//! trusted because it is here. A frame that is new goes to a pack at once; it counts for
//! nothing until a commit, so an ingest that fails leaves no trace but free space.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::formats::hash::Sha256Hasher;
use crate::formats::{Sha256Hash, frame, limits};
use crate::store::UnixSeconds;
use crate::store::error::{IngestError, StoreError};
use crate::store::heal;
use crate::store::index::caches::CacheId;
use crate::store::index::chunks::ChunkRow;
use crate::store::index::damage;
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::sight::Sight;
use crate::store::index::tokens::TokenId;
use crate::store::index::uploads::Upload;
use crate::store::leases::LeaseSet;
use crate::store::listing::{NarCheck, StoredListing};
use crate::store::pack::payload::ManifestChunk;
use crate::store::pending::{AppendOutcome, NewChunk};
use crate::store::shared::{Inner, ReadError};
use crate::store::space::Promised;
use crate::wire::message::{ChunkId, ChunkRef};

/// Stored bytes that may gather before a commit of the pending chunks is asked for.
const FLUSH_BYTES: u64 = 16 << 20;
/// Stored bytes that may gather before ingests wait for that commit: what a slow disk has to
/// write at a time.
const FLUSH_BYTES_WAIT: u64 = 64 << 20;
/// Raw bytes of known chunks that are read at a time.
const READ_AHEAD_BYTES: u64 = 512 << 10;

/// Chunks of one NAR: what a manifest record has room for, some 90 GB of NAR.
const CHUNKS_MAX: usize = 1_400_000;

/// One NAR on its way in. Every method blocks (disk, hashing): call it on a blocking thread.
///
/// Memory: about 50 bytes a chunk, so 850 KB for a GiB of NAR, and at most 768 KiB of frames.
#[derive(Debug)]
pub struct Ingest {
    inner: Arc<Inner>,
    /// Where the path goes that the NAR is of.
    cache: CacheId,
    nar_hash: Sha256Hash,
    nar_size: u64,
    token: TokenId,
    at: UnixSeconds,
    /// What the last look-up was told from.
    sight: Option<Sight>,
    /// Chunks that the caller was told it need not send, in order.
    promised: VecDeque<Promise>,
    /// Chunks that the caller was told to send and has not sent yet.
    awaited: HashSet<ChunkId>,
    /// Frames of the next promised chunks.
    read_ahead: VecDeque<(ChunkNumber, Bytes)>,
    check: NarCheck,
    raw_size: u64,
    file: Sha256Hasher,
    file_size: u64,
    numbers: Vec<ChunkNumber>,
    /// Those of them that are not sent with this NAR.
    promised_numbers: Vec<ChunkNumber>,
    chunks: Vec<ManifestChunk>,
    leases: LeaseSet,
    room: Promised,
}

#[derive(Debug)]
struct Promise {
    id: ChunkId,
    /// `None`: it comes earlier in the same NAR, and will be here by then.
    row: Option<ChunkRow>,
}

/// What [`Ingest::add`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// The chunk is in.
    Taken,
    /// The known chunk cannot be read after all: send its frame.
    Resend,
}

/// A NAR whose chunks are in packs and whose bytes are verified; not yet committed.
#[derive(Debug)]
pub struct FinishedNar {
    pub(in crate::store) nar_hash: Sha256Hash,
    pub(in crate::store) nar_size: u64,
    pub(in crate::store) file_hash: Sha256Hash,
    pub(in crate::store) file_size: u64,
    pub(in crate::store) numbers: Box<[ChunkNumber]>,
    /// Those of them that were not sent for this NAR.
    pub(in crate::store) promised_numbers: Box<[ChunkNumber]>,
    pub(in crate::store) chunks: Vec<ManifestChunk>,
    pub(in crate::store) listing: Option<StoredListing>,
    _leases: LeaseSet,
}

impl Ingest {
    pub(in crate::store) fn new(
        inner: &Arc<Inner>,
        cache: CacheId,
        nar_hash: Sha256Hash,
        nar_size: u64,
        token: TokenId,
        at: UnixSeconds,
    ) -> Self {
        Self {
            cache,
            nar_hash,
            nar_size,
            token,
            at,
            sight: None,
            promised: VecDeque::new(),
            awaited: HashSet::new(),
            read_ahead: VecDeque::new(),
            check: NarCheck::new(),
            raw_size: 0,
            file: Sha256Hasher::new(),
            file_size: 0,
            numbers: Vec::new(),
            promised_numbers: Vec::new(),
            chunks: Vec::new(),
            leases: LeaseSet::new(&inner.shared.leases),
            room: inner.room.nothing(),
            inner: Arc::clone(inner),
        }
    }

    /// Indexes into `batch` of the chunks that must be sent; the others are leased until this
    /// ingest (or the NAR that it makes) is dropped. Batches come in the order of the NAR, and
    /// may be looked up before earlier ones were added.
    ///
    /// # Errors
    ///
    /// [`IngestError::Store`]; with [`StoreError::NoSpace`] in it the same look-up can be tried
    /// again.
    pub fn look_up(&mut self, batch: &[ChunkRef]) -> Result<Vec<usize>, IngestError> {
        let inner = Arc::clone(&self.inner);
        let (sight, mut found) = inner.readers.read(|connection| {
            let sight = Sight::of(connection, self.token, self.cache, self.at)?;
            let find = |chunk: &ChunkRef| self.find(connection, &sight, chunk.id);
            let found = batch.iter().map(find).collect::<Result<Vec<_>, _>>()?;
            Ok((sight, found))
        })?;
        // Raw, for nobody knows yet how well they compress.
        let lacking = batch.iter().zip(&found).filter(|(_, row)| row.is_none());
        self.room.grow(lacking.map(|(chunk, _)| u64::from(chunk.raw_len)).sum())?;
        self.sight = Some(sight);
        let mut wanted = Vec::new();
        for (index, (chunk, row)) in batch.iter().zip(found.drain(..)).enumerate() {
            if let Some(row) = &row {
                self.leases.take(row.number);
            }
            if row.is_some() || self.awaited.contains(&chunk.id) {
                self.promised.push_back(Promise { id: chunk.id, row });
            } else {
                self.awaited.insert(chunk.id);
                wanted.push(index);
            }
        }
        Ok(wanted)
    }

    /// The chunk, if it is here, whole, and this push is told so. What is here and not told of
    /// takes the same steps as what is not here.
    fn find(
        &self,
        connection: &rusqlite::Connection,
        sight: &Sight,
        id: ChunkId,
    ) -> Result<Option<ChunkRow>, StoreError> {
        let shared = &self.inner.shared;
        let is_claimed = |number| shared.pending.is_claimed(number, self.token);
        let pending = shared.pending.find(&shared.appender, id);
        if let Some(row) = pending.filter(|row| is_claimed(row.number)) {
            return Ok(Some(row));
        }
        let may_tell = |number| Ok(is_claimed(number) | sight.has_chunk(connection, number)?);
        let Some(row) = shared.chunks.look_up_if(connection, id, may_tell)? else {
            return Ok(None);
        };
        Ok((!damage::is_recorded(connection, row.number)?).then_some(row))
    }

    /// Takes the next chunk of the NAR: with its frame, or `None` for one that
    /// [`look_up`](Self::look_up) did not ask for.
    ///
    /// # Errors
    ///
    /// [`IngestError`] if the frame is not what it should be, the NAR is too long or no NAR, or
    /// the store fails. The ingest is of no use after that.
    pub fn add(&mut self, chunk: ChunkRef, frame: Option<&[u8]>) -> Result<Added, IngestError> {
        let index = self.chunks.len();
        let size = self.check_length(index, chunk.raw_len)?;
        let Some((row, stored, raw)) = (match frame {
            Some(frame) => Some(self.take_sent(index, chunk, frame)?),
            None => self.take_known(index, chunk)?,
        }) else {
            self.awaited.insert(chunk.id);
            return Ok(Added::Resend);
        };
        self.check.feed(&raw)?;
        self.raw_size = size;
        self.file.update(&stored);
        self.file_size += u64::from(row.location.stored_len);
        self.numbers.push(row.number);
        self.chunks.push(ManifestChunk {
            id: chunk.id.0,
            raw_len: chunk.raw_len,
            stored_len: row.location.stored_len,
            sum: row.sum.to_le_bytes(),
        });
        Ok(Added::Taken)
    }

    /// Checks what the next chunk declares; returns the bytes of the NAR with it.
    fn check_length(&self, index: usize, raw_len: u32) -> Result<u64, IngestError> {
        let size = self.raw_size + u64::from(raw_len);
        if size > self.nar_size {
            return Err(IngestError::WrongSize { expected: self.nar_size, found: size });
        }
        if raw_len == 0 || raw_len > limits::CHUNK_BYTES_MAX {
            return Err(IngestError::ChunkLength { index, raw_len });
        }
        // Many short chunks would cost memory here and seeks ever after; only the last may be
        // short, and that it was not is known when another follows.
        let short = |last: &&ManifestChunk| last.raw_len < limits::CHUNK_BYTES_MIN;
        if let Some(last) = self.chunks.last().filter(short) {
            return Err(IngestError::ChunkLength { index: index - 1, raw_len: last.raw_len });
        }
        if index >= CHUNKS_MAX {
            return Err(IngestError::TooManyChunks);
        }
        Ok(size)
    }

    /// A known chunk: its row, frame and raw bytes; `None` if it cannot be read.
    fn take_known(
        &mut self,
        index: usize,
        chunk: ChunkRef,
    ) -> Result<Option<(ChunkRow, Bytes, Vec<u8>)>, IngestError> {
        while self.promised.front().is_some_and(|promise| promise.id != chunk.id) {
            self.promised.pop_front();
        }
        let promise = self.promised.pop_front().ok_or(IngestError::NotLookedUp { index })?;
        let sent_before = promise.row.is_none();
        let row = match (promise.row, &self.sight) {
            (None, Some(sight)) => {
                self.inner.readers.read(|connection| self.find(connection, sight, chunk.id))?
            }
            (row, _) => row,
        };
        let Some(row) = row else { return Ok(None) };
        if row.raw_len != chunk.raw_len {
            return Err(IngestError::ChunkLength { index, raw_len: chunk.raw_len });
        }
        match self.read_known(&row) {
            Ok(stored) => match frame::accept(&stored, row.raw_len) {
                Ok(raw) => {
                    if !sent_before {
                        self.promised_numbers.push(row.number);
                    }
                    Ok(Some((row, stored, raw)))
                }
                Err(_frame) => {
                    heal::record(&self.inner, &[row])?;
                    Ok(None)
                }
            },
            Err(ReadError::Damaged(_recorded)) => Ok(None),
            Err(ReadError::Store(error)) => Err(error.into()),
        }
    }

    /// The stored frame of a known chunk; reads those of the next known ones along with it.
    fn read_known(&mut self, row: &ChunkRow) -> Result<Bytes, ReadError> {
        while let Some((number, frame)) = self.read_ahead.pop_front() {
            if number == row.number {
                return Ok(frame);
            }
        }
        let mut run = vec![row.clone()];
        let mut bytes = u64::from(row.raw_len);
        for next in self.promised.iter().map_while(|promise| promise.row.as_ref()) {
            bytes += u64::from(next.raw_len);
            if bytes > READ_AHEAD_BYTES {
                break;
            }
            run.push(next.clone());
        }
        let frames = match self.inner.read_frames(&run) {
            // Which of them is damaged is told when its turn comes.
            Err(ReadError::Damaged(damaged)) if damaged.iter().all(|d| d.number != row.number) => {
                self.inner.read_frames(std::slice::from_ref(row))?
            }
            other => other?,
        };
        self.read_ahead = run.iter().map(|row| row.number).zip(frames).collect();
        match self.read_ahead.pop_front() {
            Some((_number, frame)) => Ok(frame),
            None => Err(ReadError::Damaged(vec![row.clone()])),
        }
    }

    /// A chunk that was sent: its row, stored frame and raw bytes.
    fn take_sent(
        &mut self,
        index: usize,
        chunk: ChunkRef,
        sent: &[u8],
    ) -> Result<(ChunkRow, Bytes, Vec<u8>), IngestError> {
        let raw = frame::accept(sent, chunk.raw_len)
            .map_err(|source| IngestError::BadFrame { index, source })?;
        if *blake3::hash(&raw).as_bytes() != chunk.id.0 {
            return Err(IngestError::WrongChunk { index });
        }
        self.awaited.remove(&chunk.id);
        let new = NewChunk {
            id: chunk.id,
            raw_len: chunk.raw_len,
            frame: sent,
            token: self.token,
            at: self.at,
        };
        let (row, stored) = self.store(&new)?;
        self.room.shrink(u64::from(chunk.raw_len));
        self.leases.take(row.number);
        Ok((row, stored, raw))
    }

    /// Stores a verified chunk unless it is here, which nobody is told; returns the frame that
    /// is kept. Either way the token has sent it.
    fn store(&self, new: &NewChunk<'_>) -> Result<(ChunkRow, Bytes), StoreError> {
        let shared = &self.inner.shared;
        loop {
            let departures = shared.pending.departures();
            let known = match shared.pending.find(&shared.appender, new.id) {
                Some(row) => Some((row, false)),
                None => {
                    self.inner.readers.read(|connection| self.inner.look_up(connection, new.id))?
                }
            };
            let damaged = match known {
                Some((row, true)) => Some(row),
                Some((row, false)) => match self.inner.read_frames(std::slice::from_ref(&row)) {
                    Ok(mut frames) => match frames.pop() {
                        Some(frame) => {
                            let Ingest { token, at, .. } = *self;
                            shared.pending.claim(Upload { number: row.number, token, at });
                            return Ok((row, frame));
                        }
                        None => continue,
                    },
                    // Recorded with a commit that also took up what was pending, so the next
                    // round finds it damaged in the index.
                    Err(ReadError::Damaged(_recorded)) => continue,
                    Err(ReadError::Store(error)) => return Err(error),
                },
                None => None,
            };
            let appended = shared.pending.append(&shared.appender, new, departures);
            let appended = appended.inspect_err(|error| shared.trouble.note(error))?;
            let AppendOutcome::Stored { row, fresh_bytes } = appended else { continue };
            if let Some(damaged) = damaged {
                heal::replace(&self.inner, &damaged, &row)?;
            }
            self.pace(fresh_bytes)?;
            return Ok((row, Bytes::copy_from_slice(new.frame)));
        }
    }

    /// Has pending chunks committed now and then, so that a push that breaks off resumes; and
    /// waits for it where the disk does not keep up.
    fn pace(&self, fresh_bytes: u64) -> Result<(), StoreError> {
        if fresh_bytes >= FLUSH_BYTES_WAIT {
            self.inner.writer.run_blocking(|_group| Ok(()))?;
        } else if fresh_bytes >= FLUSH_BYTES {
            self.inner.writer.flush();
        }
        Ok(())
    }

    /// Checks the end of the NAR, its size and hash.
    ///
    /// # Errors
    ///
    /// [`IngestError::WrongSize`], [`IngestError::WrongHash`], or that the NAR is none or ends
    /// too early.
    pub fn finish(self) -> Result<FinishedNar, IngestError> {
        if self.raw_size != self.nar_size {
            let (expected, found) = (self.nar_size, self.raw_size);
            return Err(IngestError::WrongSize { expected, found });
        }
        let (found, listing) = self.check.finish()?;
        if found != self.nar_hash {
            return Err(IngestError::WrongHash { expected: self.nar_hash, found });
        }
        let level = self.inner.compression_level;
        let listing = listing.map(|json| StoredListing::compress(&json, level)).transpose()?;
        Ok(FinishedNar {
            nar_hash: self.nar_hash,
            nar_size: self.nar_size,
            file_hash: self.file.finish(),
            file_size: self.file_size,
            numbers: self.numbers.into(),
            promised_numbers: self.promised_numbers.into(),
            chunks: self.chunks,
            listing,
            _leases: self.leases,
        })
    }
}
