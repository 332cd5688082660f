//! "Have it" is a promise: chunks that an ingest was told are here are leased until it ends, so
//! that nothing that frees space takes them meanwhile. Leases live in memory; a restart drops
//! them, and clients ask again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::index::numbers::ChunkNumber;

/// All leases of the store.
#[derive(Debug, Default)]
pub(in crate::store) struct Leases {
    counts: Mutex<HashMap<ChunkNumber, u32>>,
}

/// The leases of one ingest; given back when this is dropped.
#[derive(Debug)]
pub(in crate::store) struct LeaseSet {
    home: Arc<Leases>,
    taken: Vec<ChunkNumber>,
}

impl Leases {
    /// Whether a chunk is leased.
    pub(in crate::store) fn has(&self, number: ChunkNumber) -> bool {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&number)
    }

    /// How many chunks are leased.
    pub(in crate::store) fn count(&self) -> usize {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl LeaseSet {
    pub(in crate::store) fn new(home: &Arc<Leases>) -> Self {
        Self { home: Arc::clone(home), taken: Vec::new() }
    }

    /// Leases one more chunk.
    pub(in crate::store) fn take(&mut self, number: ChunkNumber) {
        let mut counts = self.home.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(number).or_insert(0) += 1;
        self.taken.push(number);
    }
}

impl Drop for LeaseSet {
    fn drop(&mut self) {
        let mut counts = self.home.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for number in &self.taken {
            if let Some(count) = counts.get_mut(number) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(number);
                }
            }
        }
        if counts.is_empty() {
            counts.shrink_to_fit();
        }
    }
}
