//! Everything that touches the data folder, and the only user of its SQLite index.
//!
//! [`Ingest`] is the only way in and [`NarStream`] the only way out. Packs are the log and the
//! index a cache of them: an index that lags behind is brought up by a replay of the packs'
//! tails when the store is opened, and one that is lost by a replay of all of them. FORMAT.md
//! describes the folder byte by byte.

mod assemble;
mod attachment;
mod barrier;
mod backup;
mod check;
mod claims;
mod collect;
mod commit;
mod error;
mod filter;
mod group;
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
mod pins;
mod rebuild;
mod replay;
mod restore;
mod shared;
mod space;
mod stats;
mod trouble;
mod uses;
mod writer;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tracing::warn;

use crate::formats::signature::{PublicKey, Signature};
use crate::formats::{AttachmentName, Sha256Hash, StorePathHash};

pub use assemble::NarStream;
pub use attachment::Attachment;
pub use backup::{Backup, BackupProgress};
pub use check::{CheckProgress, CheckReport};
pub use collect::{
    CollectReport, CollectRequest, LeavingPath, LeavingReason, OnLeft, Removal, RemovePath,
};
pub use commit::{CommitOutcome, NarSource};
pub use error::{IngestError, StoreError};
pub use index::caches::{Cache, CacheId, CacheUpdate, NewCache, SigningMode};
pub use index::keys::ManagedKey;
pub use index::log::{LogEntry, LogPlace};
pub use index::meta::ClockMark;
pub use index::nars::{NarFile, NarId};
pub use index::paths::{NewPath, PathRecord, Pusher};
pub use index::pins::{Pin, PinPlace};
pub use index::tokens::{KnownToken, NewToken, Right, Token, TokenId};
pub use ingest::{Added, FinishedNar, Ingest};
pub use options::StoreOptions;
pub use pins::{NewPin, PinOutcome};
pub use rebuild::rebuild_index;
pub use restore::{RestoreOptions, RestoreReport, restore};
pub use space::Space;
pub use stats::StoreStats;

use assemble::Form;
use index::sight::Sight;
use index::{attachments, caches, log, meta, nars, paths, tokens, uploads};
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

    /// Changes a cache; returns it as it is then.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchCache`] if it was deleted, [`StoreError::CommitFailed`] and the like.
    pub async fn change_cache(
        &self,
        id: CacheId,
        update: CacheUpdate,
    ) -> Result<Cache, StoreError> {
        self.0.writer.run(move |group| commit::change_cache(group, id, &update)).await
    }

    /// Deletes a cache with its paths, keys and the rights of tokens on it. NARs stay until they
    /// are collected, so whoever reads one now can go on; a push that is under way ends with
    /// [`StoreError::NoSuchCache`]. Its number is never used again.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchCache`] if it was deleted, [`StoreError::CommitFailed`] and the like.
    pub async fn delete_cache(&self, id: CacheId) -> Result<(), StoreError> {
        self.0.writer.run(move |group| commit::delete_cache(group, id)).await
    }

    /// How many visible paths of a cache carry a signature by one of these keys, and how many do
    /// not. Reads all of them.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`] or [`StoreError::BadRow`].
    pub async fn count_signed(
        &self,
        cache: CacheId,
        keys: Vec<PublicKey>,
    ) -> Result<(u64, u64), StoreError> {
        self.0.readers.run(move |connection| paths::count_signed(connection, cache, &keys)).await
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
    pub async fn tokens(&self) -> Result<Vec<KnownToken>, StoreError> {
        self.tokens_after(TokenId::NOBODY, u32::MAX).await
    }

    /// At most `limit` tokens with a higher number than `after`, oldest first; revoked and
    /// expired ones too.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`] or [`StoreError::BadRow`].
    pub async fn tokens_after(
        &self,
        after: TokenId,
        limit: u32,
    ) -> Result<Vec<KnownToken>, StoreError> {
        self.0.readers.run(move |connection| tokens::page(connection, after, limit)).await
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

    /// Who pushed what to a cache since then, oldest first: at most `limit` of its paths, from
    /// behind `after` on. Of a path that came again it is who brought what is there.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`] or [`StoreError::BadRow`].
    pub async fn log(
        &self,
        cache: CacheId,
        since: UnixSeconds,
        after: Option<LogPlace>,
        limit: u32,
    ) -> Result<Vec<LogEntry>, StoreError> {
        let read = move |connection: &_| log::page(connection, cache, since, after, limit);
        self.0.readers.run(read).await
    }

    /// Who pushed a path of a cache.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`] or [`StoreError::BadRow`].
    pub async fn log_of(
        &self,
        cache: CacheId,
        path: StorePathHash,
    ) -> Result<Option<LogEntry>, StoreError> {
        self.0.readers.run(move |connection| log::of_path(connection, cache, path)).await
    }

    /// False only if the path is certainly not visible in any cache; from memory, no I/O. About
    /// one absent path in some hundred answers true.
    #[must_use]
    pub fn may_have_path(&self, hash: StorePathHash) -> bool {
        self.0.shared.filter.may_have(hash)
    }

    /// The NAR that a path has, if its pusher may name it to the path's cache: because a cache
    /// that the token may read has it, or that very cache. `None` also while it is damaged, so
    /// that it is sent again and heals.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`].
    pub async fn known_nar(&self, path: &NewPath) -> Result<Option<NarFile>, StoreError> {
        let (nar_hash, cache, pusher) = (path.info.nar_hash, path.cache, path.pusher.clone());
        let known = move |connection: &rusqlite::Connection| {
            let sight = Sight::of(connection, pusher.token, cache, pusher.at)?;
            let id = nars::id_of(connection, nar_hash)?;
            // One that is not there is looked for as one that must not be told of.
            let seen = sight.has_nar(connection, id.unwrap_or(NarId(0)))?;
            match id.filter(|_| seen) {
                Some(id) if nars::is_sound(connection, id)? => nars::by_id(connection, id),
                _ => Ok(None),
            }
        };
        self.0.readers.run(known).await
    }

    /// Forgets who sent chunks longer than a day ago, which counts for nothing any more. Costs
    /// some commits, and a look at every row: call it now and then.
    ///
    /// # Errors
    ///
    /// [`StoreError::CommitFailed`] and the like.
    pub async fn forget_old_uploads(&self, now: UnixSeconds) -> Result<(), StoreError> {
        while self.0.writer.run(move |group| uploads::forget_old(group.tx, now)).await? {}
        Ok(())
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

    /// The JSON of a NAR's listing, made at ingest. `None` if it has none, because it has too
    /// many entries.
    ///
    /// # Errors
    ///
    /// [`StoreError::Pack`] if its record is damaged.
    pub async fn listing(&self, nar: NarId) -> Result<Option<Bytes>, StoreError> {
        let mut tried = None;
        loop {
            let at = self.0.readers.run(move |connection| nars::listing(connection, nar)).await?;
            let Some(at) = at else { return Ok(None) };
            let inner = Arc::clone(&self.0);
            let read = move || listing::read(&inner.shared.packs, at).map(Some);
            match tokio::task::spawn_blocking(read).await? {
                // A collection may have moved it since its place was looked up.
                Err(_) if tried != Some(at) => tried = Some(at),
                outcome => return outcome,
            }
        }
    }

    /// Starts taking in one NAR for a path of a cache. The value is used on blocking threads.
    #[must_use]
    pub fn begin_ingest(
        &self,
        cache: CacheId,
        nar_hash: Sha256Hash,
        nar_size: u64,
        token: TokenId,
        at: UnixSeconds,
    ) -> Ingest {
        Ingest::new(&self.0, cache, nar_hash, nar_size, token, at)
    }

    /// Commits a path; returns when its packs are synced and its rows durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::ChunksVanished`] if the NAR must be sent again, because something that was
    /// not sent is gone, or the token may not name it any more; [`StoreError::CommitFailed`]
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

    /// Keeps an attachment of a cache; returns when that is durable. False if there is one of that
    /// name, which stays unless its record is damaged.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoSuchCache`], [`StoreError::CommitFailed`] and the like.
    pub async fn attach(
        &self,
        cache: CacheId,
        name: AttachmentName,
        contents: Attachment,
    ) -> Result<bool, StoreError> {
        self.0.writer.run(move |group| attachment::commit(group, cache, name, contents)).await
    }

    /// An attachment of a cache; `None` also where its record is damaged.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`].
    pub async fn attachment(
        &self,
        cache: CacheId,
        name: AttachmentName,
    ) -> Result<Option<Attachment>, StoreError> {
        let (name, mut tried) = (Arc::new(name), None);
        loop {
            let name = Arc::clone(&name);
            let find = move |connection: &_| attachments::find(connection, cache, &name);
            let at = self.0.readers.run(find).await?;
            // A collection may have moved it since its place was looked up.
            let Some(at) = at.filter(|at| tried != Some(*at)) else { return Ok(None) };
            let inner = Arc::clone(&self.0);
            let read = move || attachment::read(&inner.shared.packs, at);
            match tokio::task::spawn_blocking(read).await? {
                None => tried = Some(at),
                found => return Ok(found),
            }
        }
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

    /// Takes away what nobody needs, and as many paths as have to go for space. Works on the open
    /// store, beside everything else. `left` is called, on a blocking thread, with paths that have
    /// just left some cache.
    ///
    /// # Errors
    ///
    /// [`StoreError::CollectionRuns`], or whatever keeps the store from being read or written;
    /// nothing that was acknowledged is lost then either.
    pub async fn collect(
        &self,
        request: CollectRequest,
        left: OnLeft,
    ) -> Result<CollectReport, StoreError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || collect::collect(&inner, &request, &*left)).await?
    }

    /// Room on the disk that the data folder is on. One call of the system, which reads nothing
    /// from the disk.
    ///
    /// # Errors
    ///
    /// [`StoreError::File`] if the system does not tell it.
    pub fn space(&self) -> Result<Space, StoreError> {
        self.0.room.measure()
    }

    /// The quota of all caches together, if there is one.
    #[must_use]
    pub fn quota_bytes(&self) -> Option<u64> {
        self.0.room.quota_bytes
    }

    /// Notes that a path was read, if the cache has it, for the order in which paths leave.
    pub fn note_use(&self, cache: CacheId, path: StorePathHash) {
        self.0.shared.uses.note(cache, path);
    }

    /// Writes down what was noted. Costs a commit: call it now and then.
    ///
    /// # Errors
    ///
    /// [`StoreError::CommitFailed`] and the like.
    pub async fn write_uses(&self) -> Result<(), StoreError> {
        self.0.writer.run(|group| group.shared.uses.write(group, None)).await
    }

    /// What was written down of the wall clock last.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`].
    pub async fn clock_mark(&self) -> Result<Option<ClockMark>, StoreError> {
        self.0.readers.run(meta::clock_mark).await
    }

    /// Writes down what a restart has to know of the wall clock. Costs a commit.
    ///
    /// # Errors
    ///
    /// [`StoreError::CommitFailed`] and the like.
    pub async fn keep_clock_mark(&self, mark: ClockMark) -> Result<(), StoreError> {
        self.0.writer.run(move |group| meta::set_clock_mark(group.tx, mark)).await
    }

    /// Copies everything that no pack holds into one file: the index as it is at one moment, the
    /// identity, the first token, and the settings file at `settings`. FORMAT.md describes it.
    /// The writer is not held up. `progress` is called now and then, on a blocking thread.
    ///
    /// # Errors
    ///
    /// [`StoreError::File`] where there is no room for the index twice, [`StoreError::Index`], or
    /// [`StoreError::Closed`] if the store is closed meanwhile.
    pub async fn back_up(
        &self,
        settings: Option<PathBuf>,
        made_at: UnixSeconds,
        progress: Arc<dyn Fn(BackupProgress) + Send + Sync>,
    ) -> Result<Backup, StoreError> {
        let inner = Arc::clone(&self.0);
        let make = move || backup::make(&inner, settings.as_deref(), made_at, &*progress);
        tokio::task::spawn_blocking(make).await?
    }
}
