//! A NAR as chunks: read once, cut by content, its hash checked at the end.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::client::push::nar::{Nar, NarReadError};
use crate::client::push::one_line;
use crate::client::push::progress::{PushEvent, Tell};
use crate::formats::Sha256Hash;
use crate::formats::chunking::Chunker;
use crate::formats::frame::Compressor;
use crate::formats::hash::Sha256Hasher;
use crate::formats::limits::{BATCH_BYTES_MAX, BATCH_CHUNKS_MAX, INLINE_NAR_BYTES_MAX};
use crate::transports::quic::{ChunkSource, SourceError};
use crate::wire::message::{ChunkId, ChunkRef};

/// Compressors that all paths of a push share: as many as threads compress at a time, about 1 MiB
/// each.
#[derive(Clone)]
pub(super) struct Compressors(Arc<Idle>);

struct Idle {
    level: i32,
    compressors: Mutex<Vec<Compressor>>,
}

impl Compressors {
    pub(super) fn new(level: i32) -> Self {
        Self(Arc::new(Idle { level, compressors: Mutex::default() }))
    }

    fn compress(&self, raw: &[u8]) -> io::Result<Bytes> {
        let idle = self.idle().pop();
        let mut compressor = idle.map_or_else(|| Compressor::new(self.0.level), Ok)?;
        let mut frame = compressor.compress(raw)?;
        self.idle().push(compressor);
        // The buffer was made for the worst case.
        frame.shrink_to_fit();
        Ok(frame.into())
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Compressor>> {
        self.0.compressors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Compressors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compressors")
    }
}

/// How much of a NAR was read so far, for whoever has to take it back.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadBytes(Arc<AtomicU64>);

impl ReadBytes {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The chunks of one NAR. A large one holds a batch, a chunker and the pieces ahead: 6 MiB at
/// most.
pub(super) struct NarChunks {
    expected: Expected,
    state: State,
    compressors: Compressors,
    read_bytes: ReadBytes,
    tell: Tell,
}

/// A path and what the Nix database says of its NAR.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Where the path's files are.
    pub(super) root: PathBuf,
    pub(super) nar_hash: Sha256Hash,
    pub(super) nar_size: u64,
}

enum State {
    Unopened,
    Reading(Box<Reading>),
    Ended,
}

struct Reading {
    nar: Nar,
    /// Nothing at the end of the NAR.
    chunker: Option<Chunker>,
    hasher: Sha256Hasher,
    ready: VecDeque<(ChunkRef, Bytes)>,
    ready_bytes: u64,
}

impl NarChunks {
    pub(super) fn new(
        expected: Expected,
        compressors: Compressors,
        read_bytes: ReadBytes,
        tell: Tell,
    ) -> Self {
        Self { expected, state: State::Unopened, compressors, read_bytes, tell }
    }

    fn read_batch(&mut self) -> Result<Vec<(ChunkRef, Bytes)>, SourceError> {
        let expected = &self.expected;
        if let State::Unopened = self.state {
            let nar = Nar::open(expected.root.clone(), expected.nar_size, INLINE_NAR_BYTES_MAX);
            self.state = State::Reading(Box::new(Reading::new(nar.map_err(unreadable)?)));
        }
        let State::Reading(reading) = &mut self.state else { return Ok(Vec::new()) };
        let already = self.read_bytes.get();
        let mut read = already;
        while !reading.has_batch() && reading.chunker.is_some() {
            read += reading.read_on().map_err(unreadable)?;
            if read > expected.nar_size {
                return Err(changed("it is larger than the Nix database says"));
            }
        }
        let batch = reading.take_batch();
        if batch.is_empty() {
            reading.check_end(read, expected)?;
            self.state = State::Ended;
        }
        self.read_bytes.0.store(read, Ordering::Relaxed);
        self.tell.tell(PushEvent::Read { bytes: read - already });
        Ok(batch)
    }
}

impl ChunkSource for NarChunks {
    fn next_batch(&mut self) -> Result<Vec<(ChunkRef, Bytes)>, SourceError> {
        let batch = self.read_batch();
        if batch.is_err() {
            self.state = State::Ended;
        }
        batch
    }

    fn compress(&mut self, raw: &[u8]) -> Result<Bytes, SourceError> {
        self.compressors
            .compress(raw)
            .map_err(|error| SourceError(format!("cannot compress a chunk: {error}")))
    }
}

impl Reading {
    fn new(nar: Nar) -> Self {
        Self {
            nar,
            chunker: Some(Chunker::new()),
            hasher: Sha256Hasher::new(),
            ready: VecDeque::new(),
            ready_bytes: 0,
        }
    }

    fn has_batch(&self) -> bool {
        self.ready_bytes >= BATCH_BYTES_MAX || self.ready.len() >= BATCH_CHUNKS_MAX
    }

    /// Reads a piece and cuts it; how many bytes it had.
    fn read_on(&mut self) -> Result<u64, NarReadError> {
        let piece = self.nar.next_piece()?;
        let (ready, ready_bytes) = (&mut self.ready, &mut self.ready_bytes);
        let mut on_chunk = |raw: &[u8]| {
            let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
            let id = ChunkId(*blake3::hash(raw).as_bytes());
            ready.push_back((ChunkRef { id, raw_len }, Bytes::copy_from_slice(raw)));
            *ready_bytes += u64::from(raw_len);
        };
        let Some(piece) = piece else {
            if let Some(chunker) = self.chunker.take() {
                chunker.finish(&mut on_chunk);
            }
            return Ok(0);
        };
        self.hasher.update(&piece);
        if let Some(chunker) = &mut self.chunker {
            chunker.feed(&piece, &mut on_chunk);
        }
        Ok(u64::try_from(piece.len()).unwrap_or(u64::MAX))
    }

    fn take_batch(&mut self) -> Vec<(ChunkRef, Bytes)> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((chunk, _)) = self.ready.front()
            && batch.len() < BATCH_CHUNKS_MAX
            && bytes + u64::from(chunk.raw_len) <= BATCH_BYTES_MAX
        {
            bytes += u64::from(chunk.raw_len);
            batch.extend(self.ready.pop_front());
        }
        self.ready_bytes -= bytes;
        batch
    }

    fn check_end(&mut self, read: u64, expected: &Expected) -> Result<(), SourceError> {
        let hasher = std::mem::take(&mut self.hasher);
        if read != expected.nar_size {
            return Err(changed("it is smaller than the Nix database says"));
        }
        if hasher.finish() != expected.nar_hash {
            return Err(changed("its hash is not the one in the Nix database"));
        }
        Ok(())
    }
}

fn changed(how: &str) -> SourceError {
    SourceError(format!(
        "the path has changed since it was registered: {how}; 'nix-store --verify-path' tells more"
    ))
}

fn unreadable(error: NarReadError) -> SourceError {
    SourceError(format!("the path cannot be read: {}", one_line(&error)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

    use tempfile::TempDir;

    use super::*;
    use crate::client::nix_store::dump;
    use crate::formats::frame;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 7_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .flatten()
        .take(length)
        .collect()
    }

    /// A file as a store path, and what a database would say of it.
    struct TestPath {
        _folder: TempDir,
        nar: Vec<u8>,
        expected: Expected,
        told: Arc<Mutex<u64>>,
    }

    impl TestPath {
        fn of(contents: &[u8]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("path");
            fs::write(&root, contents).unwrap();
            let mut nar = Vec::new();
            dump(&root, &mut nar).unwrap();
            let nar_size = u64::try_from(nar.len()).unwrap();
            let expected = Expected { root, nar_hash: Sha256Hash::of(&nar), nar_size };
            Self { _folder: folder, nar, expected, told: Arc::default() }
        }

        fn source(&self) -> NarChunks {
            let told = Arc::clone(&self.told);
            let tell = Tell::to(move |event| {
                if let PushEvent::Read { bytes } = event {
                    *told.lock().unwrap() += bytes;
                }
            });
            let (expected, read) = (self.expected.clone(), ReadBytes::default());
            NarChunks::new(expected, Compressors::new(3), read, tell)
        }
    }

    fn read_all(chunks: &mut NarChunks) -> Result<Vec<(ChunkRef, Bytes)>, SourceError> {
        let mut all = Vec::new();
        loop {
            let batch = chunks.next_batch()?;
            if batch.is_empty() {
                return Ok(all);
            }
            let bytes: usize = batch.iter().map(|(_, raw)| raw.len()).sum();
            assert!(batch.len() <= BATCH_CHUNKS_MAX);
            assert!(u64::try_from(bytes).unwrap() <= BATCH_BYTES_MAX);
            all.extend(batch);
        }
    }

    #[test]
    fn the_chunks_are_the_nar() {
        for length in [0, 1, 500, 16 << 10, 127 << 10, 128 << 10, 9_000_000] {
            let path = TestPath::of(&noise(length));
            let mut chunks = path.source();
            let all = read_all(&mut chunks).unwrap();
            let raw: Vec<u8> = all.iter().flat_map(|(_, raw)| raw.iter().copied()).collect();
            assert!(raw == path.nar, "{length} bytes");
            for (chunk, raw) in all.iter().take(3) {
                assert_eq!(chunk.id.0, *blake3::hash(raw).as_bytes());
                let sent = chunks.compress(raw).unwrap();
                assert_eq!(frame::accept(&sent, chunk.raw_len).unwrap(), raw.to_vec());
            }
            assert_eq!(*path.told.lock().unwrap(), path.expected.nar_size);
            assert!(chunks.next_batch().unwrap().is_empty());
        }
    }

    #[test]
    fn a_path_that_changed_is_named_and_never_finished() {
        for length in [100, 6_000_000] {
            let contents = noise(length);
            let mut other = contents.clone();
            other[length / 2] ^= 1;
            for (now, how) in [
                (other, "its hash is not"),
                (contents[..length - 9].to_vec(), "it is smaller"),
                ([contents.clone(), vec![0; 9]].concat(), "it is larger"),
                ([contents, vec![0; 200_000]].concat(), "it is larger"),
            ] {
                let path = TestPath::of(&noise(length));
                fs::write(&path.expected.root, now).unwrap();
                let error = read_all(&mut path.source()).unwrap_err().to_string();
                assert!(error.contains(how), "{length}: {error}");
            }
        }
    }

    #[test]
    fn a_path_that_is_gone_says_so() {
        for length in [1, 1_000_000] {
            let path = TestPath::of(&noise(length));
            fs::remove_file(&path.expected.root).unwrap();
            let error = path.source().next_batch().unwrap_err().to_string();
            assert!(error.starts_with("the path cannot be read: "), "{error}");
            assert!(error.contains("No such file"), "{error}");
        }
    }
}
