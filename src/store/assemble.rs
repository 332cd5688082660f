//! The only way out: a NAR's frames, read and verified a window at a time.
//!
//! The frames of a NAR, one behind the other, are its zstd file, so serving it is reading
//! extents and handing them on. A frame that is not what was written breaks the transfer; it
//! never ends cleanly before its declared end.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::formats::Sha256Hash;
use crate::formats::frame;
use crate::store::error::StoreError;
use crate::store::index::chunks;
use crate::store::index::chunks::ChunkRow;
use crate::store::index::nars;
use crate::store::index::nars::NarFile;
use crate::store::index::numbers;
use crate::store::shared::{Inner, ReadError};

/// Bytes that are read at a time for one transfer (one chunk at least). A transfer holds one
/// window, or two while the next is read ahead: a hundred transfers hold some 15 MiB.
const WINDOW_BYTES: u64 = 128 << 10;
/// Windows that may be read at a time, each on a blocking thread.
pub(in crate::store) const WINDOWS_READ_MAX: usize = 16;
/// Windows that may be read ahead, all transfers together.
pub(in crate::store) const PREFETCHES_MAX: usize = 16;
/// Rows that are fetched from the index at a time.
const ROWS_AT_A_TIME: usize = 256;

/// Which bytes of a NAR go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Form {
    /// The zstd file.
    Stored,
    /// The NAR itself.
    Raw,
}

/// Bytes of a NAR on their way out.
///
/// Reading happens off the async threads; the next window is read while the last one is sent,
/// as far as memory allows.
#[derive(Debug)]
pub struct NarStream {
    ready: VecDeque<Bytes>,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle(Box<Reading>),
    Busy(JoinHandle<Window>),
    /// More was asked for than there is.
    Refused(Sha256Hash),
    Over,
}

/// A reading, and the window that it read.
type Window = (Box<Reading>, Result<Vec<Bytes>, StoreError>);

impl NarStream {
    pub(in crate::store) fn new(
        inner: &Arc<Inner>,
        nar: &NarFile,
        form: Form,
        offset: u64,
        length: u64,
    ) -> Self {
        let whole = match form {
            Form::Stored => nar.file_size,
            Form::Raw => nar.nar_size,
        };
        if offset.checked_add(length).is_none_or(|end| end > whole) {
            return Self { ready: VecDeque::new(), state: State::Refused(nar.nar_hash) };
        }
        let reading = Reading {
            inner: Arc::clone(inner),
            nar: nar.clone(),
            form,
            at: 0,
            start: offset,
            end: offset + length,
            numbers: None,
            rows: VecDeque::new(),
        };
        Self { ready: VecDeque::new(), state: State::Idle(Box::new(reading)) }
    }

    /// The next piece; `None` at the end. After an error nothing more comes, and the transfer
    /// must be broken: a clean end would pass off a part as the whole.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::OutOfRange`] for a range beyond the end; [`StoreError::NoSuchNar`] if the
    /// NAR went away or changed its encoding; [`StoreError::DamagedNar`].
    pub async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece));
            }
            if let State::Idle(reading) = &self.state {
                if reading.is_done() {
                    self.state = State::Over;
                    return None;
                }
                let window = Arc::clone(&reading.inner.windows).acquire_owned().await;
                match window {
                    Ok(window) => self.start(window, None),
                    Err(_closed) => {
                        self.state = State::Over;
                        return Some(Err(StoreError::Closed));
                    }
                }
            }
            if let State::Refused(nar_hash) = self.state {
                self.state = State::Over;
                return Some(Err(StoreError::OutOfRange(nar_hash)));
            }
            let State::Busy(task) = &mut self.state else { return None };
            let ended = task.await;
            self.state = State::Over;
            let (reading, pieces) = match ended {
                Ok((reading, Ok(pieces))) => (reading, pieces),
                Ok((_reading, Err(error))) => return Some(Err(error)),
                Err(error) => return Some(Err(error.into())),
            };
            self.ready.extend(pieces);
            self.state = State::Idle(reading);
            self.read_ahead();
        }
    }

    /// Starts reading the next window if there is one, and room for it.
    fn read_ahead(&mut self) {
        let State::Idle(reading) = &self.state else { return };
        if reading.is_done() {
            return;
        }
        let window = Arc::clone(&reading.inner.windows).try_acquire_owned();
        let ahead = Arc::clone(&reading.inner.prefetches).try_acquire_owned();
        if let (Ok(window), Ok(ahead)) = (window, ahead) {
            self.start(window, Some(ahead));
        }
    }

    /// `window` is given back when the window is read; `ahead` when it is taken from the task.
    fn start(&mut self, window: OwnedSemaphorePermit, ahead: Option<OwnedSemaphorePermit>) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Idle(mut reading) => {
                self.state = State::Busy(spawn_blocking(move || {
                    let pieces = reading.window();
                    drop((window, ahead));
                    (reading, pieces)
                }));
            }
            other => self.state = other,
        }
    }
}

/// Where a transfer is. Blocking.
#[derive(Debug)]
struct Reading {
    inner: Arc<Inner>,
    nar: NarFile,
    form: Form,
    /// Where the first of `rows` begins, in bytes of the form.
    at: u64,
    start: u64,
    end: u64,
    /// Chunks whose rows are not fetched yet; `None` before the first window.
    numbers: Option<numbers::Decoder>,
    rows: VecDeque<ChunkRow>,
}

impl Reading {
    fn is_done(&self) -> bool {
        self.start >= self.end
    }

    /// Reads the next pieces; at least one, unless the transfer is done.
    fn window(&mut self) -> Result<Vec<Bytes>, StoreError> {
        let rows = self.next_rows()?;
        let frames = self.inner.read_frames(&rows).map_err(|error| match error {
            ReadError::Damaged(_chunks) => self.damaged(),
            ReadError::Store(error) => error,
        })?;
        let mut pieces = Vec::with_capacity(frames.len());
        for (row, frame) in rows.iter().zip(frames) {
            let bytes = match self.form {
                Form::Stored => frame,
                Form::Raw => {
                    let raw = frame::accept(&frame, row.raw_len);
                    raw.map_err(|_frame| self.damaged())?.into()
                }
            };
            pieces.extend(self.cut(bytes)?);
        }
        Ok(pieces)
    }

    fn damaged(&self) -> StoreError {
        StoreError::DamagedNar { nar_hash: self.nar.nar_hash }
    }

    /// The part of the next chunk that was asked for.
    fn cut(&mut self, bytes: Bytes) -> Result<Option<Bytes>, StoreError> {
        let wrong = |_width| StoreError::BadRow("length of a chunk");
        let length = u64::try_from(bytes.len()).map_err(wrong)?;
        let from = self.start.saturating_sub(self.at).min(length);
        let to = self.end.saturating_sub(self.at).min(length);
        self.at += length;
        self.start = self.start.max(self.at.min(self.end));
        let range = usize::try_from(from).map_err(wrong)?..usize::try_from(to).map_err(wrong)?;
        Ok((!range.is_empty()).then(|| bytes.slice(range)))
    }

    /// The rows of the next window.
    fn next_rows(&mut self) -> Result<Vec<ChunkRow>, StoreError> {
        let mut window = Vec::new();
        let mut bytes = 0;
        let mut ahead = self.at;
        while ahead < self.end {
            if self.rows.is_empty() && !self.fetch_rows()? {
                return Err(StoreError::BadRow("manifest"));
            }
            let Some(row) = self.rows.front() else { break };
            let length = self.length(row);
            if ahead + length <= self.start {
                self.at += length;
                self.rows.pop_front();
            } else if window.is_empty() || bytes + length <= WINDOW_BYTES {
                bytes += length;
                window.extend(self.rows.pop_front());
            } else {
                break;
            }
            ahead += length;
        }
        Ok(window)
    }

    fn length(&self, row: &ChunkRow) -> u64 {
        u64::from(match self.form {
            Form::Stored => row.location.stored_len,
            Form::Raw => row.raw_len,
        })
    }

    /// Fetches more rows; false if there are none.
    fn fetch_rows(&mut self) -> Result<bool, StoreError> {
        let (nar, numbers) = (&self.nar, &mut self.numbers);
        let rows = self.inner.readers.read(|connection| {
            let decoder = match numbers {
                Some(decoder) => decoder,
                None => {
                    let blob = nars::chunks_to_serve(connection, nar.id, nar.revision)?
                        .ok_or(StoreError::NoSuchNar(nar.nar_hash))?;
                    numbers.insert(numbers::Decoder::new(blob))
                }
            };
            let next = decoder.take(ROWS_AT_A_TIME).collect::<Result<Vec<_>, _>>()?;
            chunks::rows(connection, &next)
        })?;
        for row in rows {
            self.rows.push_back(row.ok_or(StoreError::NoSuchNar(self.nar.nar_hash))?);
        }
        Ok(!self.rows.is_empty())
    }
}
