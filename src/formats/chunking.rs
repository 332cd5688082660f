//! Cuts a NAR by its content, so that what two NARs share gives the same chunks.
//!
//! FastCDC (version 2020) with 16, 64 and 256 KiB, and no other parameter, so that every pusher
//! cuts alike; PROTOCOL.md gives the cut, FORMAT.md the measurements behind the sizes.

use fastcdc::v2020::FastCDC;

use crate::formats::limits::{CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN};

/// Cuts bytes that are pushed in pieces of any size; the cut does not depend on the pieces.
///
/// Holds at most twice the largest chunk: 512 KiB.
#[derive(Debug, Default)]
pub struct Chunker {
    buffer: Vec<u8>,
}

/// The largest chunk as a length in memory.
const MAX: usize = usize_of(CHUNK_BYTES_MAX);

impl Chunker {
    /// A chunker at the start of a NAR.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and hands on every chunk that is whole.
    pub fn feed(&mut self, mut bytes: &[u8], on_chunk: &mut dyn FnMut(&[u8])) {
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at((2 * MAX - self.buffer.len()).min(bytes.len()));
            self.buffer.extend_from_slice(taken);
            bytes = rest;
            self.cut(MAX, on_chunk);
        }
    }

    /// Hands on what is left.
    pub fn finish(mut self, on_chunk: &mut dyn FnMut(&[u8])) {
        self.cut(1, on_chunk);
    }

    /// Cuts as long as at least `needed` bytes are there.
    fn cut(&mut self, needed: usize, on_chunk: &mut dyn FnMut(&[u8])) {
        let mut start = 0;
        while self.buffer.len() - start >= needed {
            let window = &self.buffer[start..self.buffer.len().min(start + MAX)];
            let length = cut_point(window);
            on_chunk(&window[..length]);
            start += length;
        }
        self.buffer.drain(..start);
    }
}

/// Where the first chunk of `window` ends; it has a whole largest chunk, or the end of the NAR.
fn cut_point(window: &[u8]) -> usize {
    let cdc = FastCDC::new(
        window,
        usize_of(CHUNK_BYTES_MIN),
        usize_of(CHUNK_BYTES_AVERAGE),
        usize_of(CHUNK_BYTES_MAX),
    );
    let (_hash, end) = cdc.cut(0, window.len());
    end.clamp(1, window.len())
}

/// `usize` has at least 32 bits wherever this runs.
#[expect(clippy::as_conversions, reason = "a constant; widening on every target that has an OS")]
const fn usize_of(bytes: u32) -> usize {
    bytes as usize
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
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

    fn chunks<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        let mut chunker = Chunker::new();
        for piece in pieces {
            chunker.feed(piece, &mut |chunk| chunks.push(chunk.to_vec()));
        }
        chunker.finish(&mut |chunk| chunks.push(chunk.to_vec()));
        chunks
    }

    #[test]
    fn chunks_keep_their_bounds_and_the_bytes() {
        let bytes = noise(3, 3_000_000);
        let chunks = chunks([bytes.as_slice()]);
        assert_eq!(chunks.concat(), bytes);
        let (_last, others) = chunks.split_last().unwrap();
        for chunk in others {
            assert!((16 << 10..=256 << 10).contains(&chunk.len()), "{}", chunk.len());
        }
        assert!((20..100).contains(&chunks.len()), "{} chunks", chunks.len());
    }

    #[test]
    fn the_cut_is_that_of_the_whole() {
        // The crate's own iterator over all the bytes at once is the oracle.
        for length in [0, 1, 16_384, 16_385, 1_000_000] {
            let bytes = noise(9, length);
            let expected: Vec<_> = FastCDC::new(&bytes, 16 << 10, 64 << 10, 256 << 10)
                .map(|chunk| bytes[chunk.offset..chunk.offset + chunk.length].to_vec())
                .collect();
            assert_eq!(chunks([bytes.as_slice()]), expected, "{length} bytes");
        }
    }

    #[test]
    fn a_small_nar_is_one_chunk() {
        let bytes = noise(1, 16 << 10);
        assert_eq!(chunks([bytes.as_slice()]), std::slice::from_ref(&bytes));
        assert!(chunks([]).is_empty());
    }

    #[test]
    fn a_change_in_the_middle_changes_few_chunks() {
        let bytes = noise(5, 4_000_000);
        let mut changed = bytes.clone();
        changed[2_000_000] ^= 1;
        let before: std::collections::HashSet<_> = chunks([bytes.as_slice()]).into_iter().collect();
        let after = chunks([changed.as_slice()]);
        let new = after.iter().filter(|chunk| !before.contains(*chunk)).count();
        assert!((1..=2).contains(&new), "{new} of {} are new", after.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_split_does_not_matter(
            seed in any::<u64>(),
            length in 0_usize..900_000,
            cuts in vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes = noise(seed, length);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
            cuts.sort_unstable();
            let starts = std::iter::once(0).chain(cuts.iter().copied());
            let ends = cuts.iter().copied().chain(std::iter::once(length));
            let pieces = starts.zip(ends).map(|(start, end)| &bytes[start..end]);
            prop_assert_eq!(chunks(pieces), chunks([bytes.as_slice()]));
        }
    }
}
