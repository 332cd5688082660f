//! Chunk numbers of a NAR as a compact blob: each number as the zigzag LEB128 of its difference
//! to the one before it plus one. Chunks that came together have neighbouring numbers, so most
//! take one byte.

use std::ops::Range;

use bytes::{Buf, Bytes};

use crate::store::error::StoreError;

/// Number of a chunk in this data folder, from 1; never used again for another while the index
/// lives.
pub(in crate::store) type ChunkNumber = u64;

/// Writes numbers as a blob.
pub(in crate::store) fn encode(numbers: impl Iterator<Item = ChunkNumber>) -> Vec<u8> {
    let mut blob = Vec::new();
    let mut expected = 0_u64;
    for number in numbers {
        let difference = number.wrapping_sub(expected).cast_signed();
        let mut rest = ((difference << 1) ^ (difference >> 63)).cast_unsigned();
        while rest >= 0x80 {
            let [low, ..] = rest.to_le_bytes();
            blob.push(low | 0x80);
            rest >>= 7;
        }
        blob.push(rest.to_le_bytes()[0]);
        expected = number.wrapping_add(1);
    }
    blob
}

/// Reads a blob, number by number.
#[derive(Clone, Debug)]
pub(in crate::store) struct Decoder {
    blob: Bytes,
    expected: u64,
}

impl Decoder {
    pub(in crate::store) fn new(blob: impl Into<Bytes>) -> Self {
        Self { blob: blob.into(), expected: 0 }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.blob.try_get_u8().ok()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl Iterator for Decoder {
    type Item = Result<ChunkNumber, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.blob.is_empty() {
            return None;
        }
        let Some(zigzag) = self.varint() else {
            self.blob.clear();
            return Some(Err(StoreError::BadRow("list of chunk numbers")));
        };
        let difference = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        let number = self.expected.wrapping_add(difference);
        self.expected = number.wrapping_add(1);
        Some(Ok(number))
    }
}

/// Runs of neighbouring numbers, without doubles, in rising order.
pub(in crate::store) fn runs(numbers: &[ChunkNumber]) -> Vec<Range<ChunkNumber>> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<Range<ChunkNumber>> = Vec::new();
    for number in sorted {
        match runs.last_mut() {
            Some(run) if run.end == number => run.end = number + 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

/// A set of chunk numbers: a bit for each up to the highest.
#[derive(Default)]
pub(in crate::store) struct NumberSet(Vec<u64>);

impl NumberSet {
    /// Adds a number.
    pub(in crate::store) fn insert(&mut self, number: ChunkNumber) {
        let Ok(word) = usize::try_from(number / 64) else { return };
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (number % 64);
        }
    }

    /// Whether a number is in the set.
    pub(in crate::store) fn contains(&self, number: ChunkNumber) -> bool {
        let word = usize::try_from(number / 64).ok().and_then(|word| self.0.get(word));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

impl std::fmt::Debug for NumberSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        write!(f, "NumberSet({count})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(numbers in proptest::collection::vec(any::<u64>(), 0..200)) {
            let blob = encode(numbers.iter().copied());
            let again: Result<Vec<_>, _> = Decoder::new(blob.clone()).collect();
            prop_assert_eq!(again.unwrap(), numbers);
        }

        #[test]
        fn no_blob_makes_the_decoder_loop_or_panic(
            blob in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(Decoder::new(blob.clone()).count() <= blob.len());
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let mut set = NumberSet::default();
        [1, 63, 64, 100_000].into_iter().for_each(|number| set.insert(number));
        let found: Vec<_> = (0..200_000).filter(|number| set.contains(*number)).collect();
        assert_eq!(found, [1, 63, 64, 100_000]);
    }

    #[test]
    fn neighbours_take_one_byte() {
        assert_eq!(encode(1000..2000).len(), 2 + 999);
    }

    #[test]
    fn runs_are_neighbours_without_doubles() {
        assert_eq!(runs(&[5, 3, 4, 4, 9]), [3..6, 9..10]);
        assert_eq!(runs(&[]), []);
    }
}
