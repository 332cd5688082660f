//! Everything that touches the data folder, and the only user of its SQLite index.
//!
//! [`Ingest`] is the only way in and [`NarStream`] the only way out. Packs are the log and the
//! index a cache of them: an index that lags behind is brought up by a replay of the packs'
//! tails when the store is opened, and one that is lost by a replay of all of them. FORMAT.md
//! describes the folder byte by byte.

mod assemble;
mod check;
mod commit;
mod error;
mod filter;
mod heal;
mod index;
mod ingest;
mod keys;
mod layout;
mod leases;
mod listing;
mod open;
mod options;
mod pack;
mod pending;
mod rebuild;
mod replay;
mod shared;
mod stats;
mod writer;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use tracing::warn;

use crate::formats::signature::Signature;
use crate::formats::{Sha256Hash, StorePathHash};

pub use assemble::NarStream;
pub use check::{CheckProgress, CheckReport};
pub use commit::{CommitOutcome, NarSource};
pub use error::{IngestError, StoreError};
pub use index::caches::{Cache, CacheId, NewCache, SigningMode};
pub use index::keys::ManagedKey;
pub use index::nars::{NarFile, NarId};
pub use index::paths::{NewPath, PathRecord, Pusher};
pub use index::tokens::{NewToken, Right, Token, TokenId};
pub use ingest::{Added, FinishedNar, Ingest};
pub use options::StoreOptions;
pub use rebuild::rebuild_index;
pub use stats::StoreStats;

use assemble::Form;
use index::{caches, nars, paths, tokens};
use shared::Inner;

/// Seconds since 1970.
pub type UnixSeconds = u64;

/// A handle to the open store. Cloning it copies one pointer; all clones are the same store.
///
/// Reads run on blocking threads, a few at a time; writes on one thread of their own, several
/// in one commit. Dropping the future of a write does not undo it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

impl Store {
    /// Opens the data folder, or makes it: lock, version, identity, then the packs' tails are
    /// brought into the index. Blocking.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] if another process has it, [`StoreError::NewerFormat`] if a later
    /// larder wrote it, and whatever keeps its files from being read.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        open::open(&options, Box::new(pack::RealDisk)).map(|inner| Self(Arc::new(inner)))
    }

    /// Waits for the writes that are queued, syncs, and lets go of the folder. Everything that
    /// is called later fails with [`StoreError::Closed`].
    ///
    /// # Errors
    ///
    /// Whatever kept the last commit from being made; nothing that was acknowledged is lost.
    pub async fn close(&self) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            let outcome = inner.writer.close();
            inner.windows.close();
            inner.readers.close();
            inner.shared.appender.close();
            inner.shared.folder.unlock();
            outcome
        })
        .await?
    }

    /// The Ed25519 seed of the box, made when the folder was.
    #[must_use]
    pub fn identity_seed(&self) -> [u8; 32] {
        self.0.shared.folder.identity_seed()
    }

    /// Makes a cache.
    ///
    /// # Errors
    ///
    /// [`StoreError::CacheExists`] if the name is taken.
    pub async fn create_cache(&self, new: NewCache) -> Result<Cache, StoreError> {
        let uuid = layout::new_uuid()?;
        let made = self.0.writer.run(move |group| {
            let id = commit::cache(group, uuid, &new)?;
            caches::get(group.tx, id)
        });
        let made = made.await?;
        if let Err(error) = self.0.writer.run(commit::log_caches).await {
            // The cache is made; only a rebuild of the index would not know it.
            warn!(error = %error, "A cache is not in the packs yet; the next start tries again");
        }
        Ok(made)
    }

    /// All caches, by name.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`] or [`StoreError::BadRow`].
    pub async fn caches(&self) -> Result<Vec<Cache>, StoreError> {
        self.0.readers.run(caches::all).await
    }

    /// Makes a token.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`], also for a secret that another token has.
    pub async fn create_token(&self, new: NewToken) -> Result<Token, StoreError> {
        self.0.writer.run(move |group| tokens::insert(group.tx, &new)).await
    }

    /// All tokens, oldest first; revoked and expired ones too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`] or [`StoreError::BadRow`].
    pub async fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        self.0.readers.run(tokens::all).await
    }

    /// The token whose secret has that SHA-256; also when it is revoked or expired, which is for
    /// the caller to see.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`] or [`StoreError::BadRow`].
    pub async fn find_token(&self, secret_hash: [u8; 32]) -> Result<Option<Token>, StoreError> {
        self.0.readers.run(move |connection| tokens::find(connection, secret_hash)).await
    }

    /// Revokes a token; a second time changes nothing. False if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::CommitFailed`] and the like.
    pub async fn revoke_token(&self, id: TokenId, at: UnixSeconds) -> Result<bool, StoreError> {
        self.0.writer.run(move |group| tokens::revoke(group.tx, id, at)).await
    }

    /// Writes down that a token was used. Costs a commit: call it now and then.
    ///
    /// # Errors
    ///
    /// [`StoreError::CommitFailed`] and the like.
    pub async fn touch_token(&self, id: TokenId, at: UnixSeconds) -> Result<(), StoreError> {
        self.0.writer.run(move |group| tokens::touch(group.tx, id, at)).await
    }

    /// Which of these the cache has neither visible nor hidden. Order kept. A path whose NAR is
    /// damaged counts as missing, so that a push heals it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`].
    pub async fn missing(
        &self,
        cache: CacheId,
        hashes: Vec<StorePathHash>,
    ) -> Result<Vec<StorePathHash>, StoreError> {
        self.0.readers.run(move |connection| paths::missing(connection, cache, hashes)).await
    }

    /// A path in a cache, visible or hidden.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`] or [`StoreError::BadRow`].
    pub async fn path(
        &self,
        cache: CacheId,
        hash: StorePathHash,
    ) -> Result<Option<PathRecord>, StoreError> {
        self.0.readers.run(move |connection| paths::get(connection, cache, hash)).await
    }

    /// False only if the path is certainly not visible in any cache; from memory, no I/O. About
    /// one absent path in some hundred answers true.
    #[must_use]
    pub fn may_have_path(&self, hash: StorePathHash) -> bool {
        self.0.shared.filter.may_have(hash)
    }

    /// The NAR, if these bytes are visible to the token: all caches are readable by everybody in
    /// this version, so any path that has it will do. `None` also while it is damaged, so that
    /// it is sent again and heals.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`].
    pub async fn known_nar(
        &self,
        nar_hash: Sha256Hash,
        _token: TokenId,
    ) -> Result<Option<NarFile>, StoreError> {
        let known = move |connection: &rusqlite::Connection| {
            let Some(nar) = nars::by_hash(connection, nar_hash)? else { return Ok(None) };
            let known = nars::has_path(connection, nar.id)? && nars::is_sound(connection, nar.id)?;
            Ok(known.then_some(nar))
        };
        self.0.readers.run(known).await
    }

    /// The NAR, if a visible path of one of these caches has it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`].
    pub async fn nar_in(
        &self,
        caches: Vec<CacheId>,
        nar_hash: Sha256Hash,
    ) -> Result<Option<NarFile>, StoreError> {
        let find = move |connection: &rusqlite::Connection| {
            let Some(nar) = nars::by_hash(connection, nar_hash)? else { return Ok(None) };
            Ok(nars::is_visible_in(connection, nar.id, &caches)?.then_some(nar))
        };
        self.0.readers.run(find).await
    }

    /// How many paths of a cache are visible, and how many hidden. Counts rows.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`].
    pub async fn count_paths(&self, cache: CacheId) -> Result<(u64, u64), StoreError> {
        self.0.readers.run(move |connection| paths::count_in(connection, cache)).await
    }

    /// The JSON of a NAR's listing, made at ingest. `None` if it has none, because it has too
    /// many entries.
    ///
    /// # Errors
    ///
    /// [`StoreError::Pack`] if its record is damaged.
    pub async fn listing(&self, nar: NarId) -> Result<Option<Bytes>, StoreError> {
        let at = self.0.readers.run(move |connection| nars::listing(connection, nar)).await?;
        let Some(at) = at else { return Ok(None) };
        let inner = Arc::clone(&self.0);
        let read = move || listing::read(&inner.shared.packs, at).map(Some);
        tokio::task::spawn_blocking(read).await?
    }

    /// Starts taking in one NAR. The value is used on blocking threads.
    #[must_use]
    pub fn begin_ingest(
        &self,
        nar_hash: Sha256Hash,
        nar_size: u64,
        token: TokenId,
        at: UnixSeconds,
    ) -> Ingest {
        Ingest::new(&self.0, nar_hash, nar_size, token, at)
    }

    /// Commits a path; returns when its packs are synced and its rows durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::ChunksVanished`] if the NAR must be sent again, [`StoreError::CommitFailed`]
    /// if the disk refused, [`StoreError::OtherNar`] if facts and NAR do not belong together.
    pub async fn commit_path(
        &self,
        path: NewPath,
        nar: NarSource,
    ) -> Result<CommitOutcome, StoreError> {
        self.0.writer.run(move |group| commit::path(group, &path, nar)).await
    }

    /// Adds signatures to a path, visible or hidden. Returns how many were new; 0 also if there
    /// is no such path.
    ///
    /// # Errors
    ///
    /// [`StoreError::CommitFailed`] and the like.
    pub async fn add_signatures(
        &self,
        cache: CacheId,
        path: StorePathHash,
        signatures: Vec<Signature>,
    ) -> Result<usize, StoreError> {
        self.0.writer.run(move |group| commit::signatures(group, cache, path, &signatures)).await
    }

    /// Reads a stored NAR as its zstd file: `length` bytes from `offset` of the file.
    #[must_use]
    pub fn read_file(&self, nar: &NarFile, offset: u64, length: u64) -> NarStream {
        NarStream::new(&self.0, nar, Form::Stored, offset, length)
    }

    /// Reads a stored NAR decompressed: `length` bytes from `offset` of the NAR.
    #[must_use]
    pub fn read_raw(&self, nar: &NarFile, offset: u64, length: u64) -> NarStream {
        NarStream::new(&self.0, nar, Form::Raw, offset, length)
    }

    /// What is in the store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`], or the folder cannot be read.
    pub async fn stats(&self) -> Result<StoreStats, StoreError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || stats::read(&inner)).await?
    }

    /// Reads every record of every pack and verifies it; what is damaged is recorded. Works on
    /// the open store, beside everything else. `progress` is called a few times a second, on a
    /// blocking thread.
    ///
    /// # Errors
    ///
    /// Whatever keeps the packs from being read at all; damage is no error but in the report.
    pub async fn check(
        &self,
        progress: Arc<dyn Fn(CheckProgress) + Send + Sync>,
    ) -> Result<CheckReport, StoreError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || check::check(&inner, &*progress)).await?
    }
}
