//! What commits touch while a collection is under way.
//!
//! A collection decides by what it read at its beginning, and acts later, step by step, between
//! commits. Whatever a commit has touched since then it leaves alone. Both happen on the thread
//! that writes, so nothing comes between a look and the act.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::formats::{PathInfo, StorePathHash};
use crate::store::index::caches::CacheId;
use crate::store::index::numbers::{ChunkNumber, NumberSet};

/// Notes what commits touch, while somebody wants to know.
#[derive(Debug, Default)]
pub(in crate::store) struct Barrier {
    touched: Mutex<Option<Touched>>,
}

#[derive(Debug, Default)]
struct Touched {
    /// Paths that were pushed, and what they refer to.
    paths: HashSet<(CacheId, StorePathHash)>,
    chunks: NumberSet,
}

/// The barrier is up until this is dropped.
#[derive(Debug)]
pub(in crate::store) struct Raised<'a>(&'a Barrier);

impl Barrier {
    /// Begins to take notes; `None` if somebody else has them taken.
    pub(in crate::store) fn raise(&self) -> Option<Raised<'_>> {
        let mut touched = self.lock();
        if touched.is_some() {
            return None;
        }
        *touched = Some(Touched::default());
        Some(Raised(self))
    }

    /// A path was pushed, also one that was there already.
    pub(in crate::store) fn note_path(&self, cache: CacheId, info: &PathInfo) {
        if let Some(touched) = &mut *self.lock() {
            touched.paths.insert((cache, info.store_path.hash()));
            touched.paths.extend(info.references.iter().map(|it| (cache, it.hash())));
        }
    }

    /// A path has to stay.
    pub(in crate::store) fn note(&self, cache: CacheId, path: StorePathHash) {
        if let Some(touched) = &mut *self.lock() {
            touched.paths.insert((cache, path));
        }
    }

    /// A NAR that is in use has these chunks.
    pub(in crate::store) fn note_chunks(&self, chunks: &[ChunkNumber]) {
        if let Some(touched) = &mut *self.lock() {
            chunks.iter().for_each(|chunk| touched.chunks.insert(*chunk));
        }
    }

    /// Whether a path was pushed, or referred to by one that was.
    pub(in crate::store) fn has_path(&self, cache: CacheId, path: StorePathHash) -> bool {
        self.lock().as_ref().is_none_or(|touched| touched.paths.contains(&(cache, path)))
    }

    /// Whether a chunk came into use.
    pub(in crate::store) fn has_chunk(&self, chunk: ChunkNumber) -> bool {
        self.lock().as_ref().is_none_or(|touched| touched.chunks.contains(chunk))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Touched>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}
