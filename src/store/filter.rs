//! A filter over the hashes of all visible paths, so that most misses cost no query.
//!
//! A blocked Bloom filter: a store path hash picks one 64-bit word and six bits in it. The hashes
//! are random already, so their own bits serve as the hash functions. At 16 bits a path about
//! one absent path in two hundred passes; a path that is there always does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use rusqlite::Connection;

use crate::formats::StorePathHash;
use crate::store::error::StoreError;
use crate::store::index::paths;

/// Bits of filter for each path that it has room for.
const BITS_PER_PATH: u64 = 16;
/// Paths that the smallest filter has room for: 64 KiB.
const PATHS_MIN: u64 = 32_768;
/// Bits that each path sets in its word.
const BITS_SET: u32 = 6;

/// The filter. Only the writer adds; anybody asks.
#[derive(Debug)]
pub(in crate::store) struct PathFilter {
    words: RwLock<Words>,
}

struct Words {
    words: Box<[AtomicU64]>,
    /// Paths that may be added before the filter is made anew, twice as large.
    room: AtomicU64,
}

impl PathFilter {
    /// Fills a filter from the index, with room for as many paths again.
    pub(in crate::store) fn load(connection: &Connection) -> Result<Self, StoreError> {
        Ok(Self { words: RwLock::new(Words::load(connection)?) })
    }

    /// False only if `hash` was never added.
    pub(in crate::store) fn may_have(&self, hash: StorePathHash) -> bool {
        let words = self.words.read().unwrap_or_else(PoisonError::into_inner);
        let (index, mask) = words.place(hash);
        words.words.get(index).is_none_or(|word| word.load(Ordering::Acquire) & mask == mask)
    }

    /// Adds paths that are about to become visible in the transaction on `connection`. Call it
    /// before the commit: a commit that then fails leaves bits without a path, which is harmless.
    pub(in crate::store) fn add(
        &self,
        connection: &Connection,
        hashes: &[StorePathHash],
    ) -> Result<(), StoreError> {
        {
            let words = self.words.read().unwrap_or_else(PoisonError::into_inner);
            hashes.iter().for_each(|hash| words.set(*hash));
            if words.room.load(Ordering::Relaxed) > 0 {
                return Ok(());
            }
        }
        // The transaction sees its own paths, so the new filter has them too. What earlier jobs
        // of a group added and rolled back is not in it and need not be.
        let grown = Words::load(connection)?;
        hashes.iter().for_each(|hash| grown.set(*hash));
        *self.words.write().unwrap_or_else(PoisonError::into_inner) = grown;
        Ok(())
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Words").field("count", &self.words.len()).finish_non_exhaustive()
    }
}

impl Words {
    fn load(connection: &Connection) -> Result<Self, StoreError> {
        let (visible, _hidden) = paths::count(connection)?;
        let capacity = visible.saturating_mul(2).max(PATHS_MIN);
        let count = usize::try_from((capacity * BITS_PER_PATH / 64).next_power_of_two())
            .map_err(|_width| StoreError::BadRow("number of paths"))?;
        let words = Self {
            words: (0..count).map(|_| AtomicU64::new(0)).collect(),
            room: AtomicU64::new(capacity),
        };
        paths::for_each_visible(connection, |hash| words.set(hash))?;
        Ok(words)
    }

    fn set(&self, hash: StorePathHash) {
        let (index, mask) = self.place(hash);
        if let Some(word) = self.words.get(index) {
            word.fetch_or(mask, Ordering::AcqRel);
        }
        // Saturating: the writer alone adds, so nothing comes between.
        let room = self.room.load(Ordering::Relaxed);
        self.room.store(room.saturating_sub(1), Ordering::Relaxed);
    }

    /// Which word, and which bits of it, stand for `hash`.
    fn place(&self, hash: StorePathHash) -> (usize, u64) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = *hash.as_bytes();
        let word = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let bits = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
        let mask = (0..BITS_SET).fold(0, |mask, nth| mask | 1 << (bits >> (nth * 6) & 63));
        let last = self.words.len().saturating_sub(1);
        // The number of words is a power of two.
        (usize::try_from(word & u64::try_from(last).unwrap_or(0)).unwrap_or(0), mask)
    }
}
