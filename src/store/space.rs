//! Room on the disk: what is left, what has to stay free, and what pushes under way will take.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::error::StoreError;

/// Room on the disk that the data folder is on, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All there is.
    pub total_bytes: u64,
    /// What the box may still write, other users' reserves aside (statvfs(3), `f_bavail`).
    pub available_bytes: u64,
    /// What has to stay free, with a pack's worth of room for a collection.
    pub kept_free_bytes: u64,
    /// What pushes under way may still take.
    pub promised_bytes: u64,
    /// The quota of all caches together, if there is one.
    pub quota_bytes: Option<u64>,
}

impl Space {
    /// Whether a further push may take so much.
    #[must_use]
    pub const fn has_left(&self, bytes: u64) -> bool {
        self.left_bytes() >= bytes
    }

    /// What a further push may take.
    #[must_use]
    pub const fn left_bytes(&self) -> u64 {
        self.available_bytes
            .saturating_sub(self.kept_free_bytes)
            .saturating_sub(self.promised_bytes)
    }
}

/// Gives room out.
#[derive(Debug)]
pub(in crate::store) struct Room {
    folder: PathBuf,
    kept_free_bytes: u64,
    promised_bytes: AtomicU64,
    /// Beyond which paths leave; no push is refused for it.
    pub(in crate::store) quota_bytes: Option<u64>,
}

/// Room that was given to one push; what is left of it goes back when this is dropped.
#[derive(Debug)]
pub(in crate::store) struct Promised {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    /// On the disk of `folder`.
    pub(in crate::store) const fn new(
        folder: PathBuf,
        kept_free_bytes: u64,
        quota_bytes: Option<u64>,
    ) -> Self {
        Self { folder, kept_free_bytes, promised_bytes: AtomicU64::new(0), quota_bytes }
    }

    /// How much there is now.
    pub(in crate::store) fn measure(&self) -> Result<Space, StoreError> {
        let found = rustix::fs::statvfs(&self.folder)
            .map_err(|error| StoreError::file("measure the disk of", &self.folder)(error.into()))?;
        Ok(Space {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            kept_free_bytes: self.kept_free_bytes,
            promised_bytes: self.promised_bytes.load(Ordering::Relaxed),
            quota_bytes: self.quota_bytes,
        })
    }

    /// Room for a push that has none yet.
    pub(in crate::store) fn nothing(self: &Arc<Self>) -> Promised {
        Promised { room: Arc::clone(self), bytes: 0 }
    }
}

impl Promised {
    /// Gives room for so many bytes more.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSpace`] if there is not so much; nothing is given then.
    pub(in crate::store) fn grow(&mut self, bytes: u64) -> Result<(), StoreError> {
        if bytes == 0 {
            return Ok(());
        }
        let space = self.room.measure()?;
        // Two at a time may both find the last bytes: what stays free is larger than that.
        if bytes > space.left_bytes() {
            return Err(StoreError::NoSpace {
                needed_bytes: bytes,
                left_bytes: space.left_bytes(),
            });
        }
        self.room.promised_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        Ok(())
    }

    /// Takes back what has been written, or is not needed after all.
    pub(in crate::store) fn shrink(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.room.promised_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}
