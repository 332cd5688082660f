//! Why the store could not do what was asked.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::formats::backup::BackupError;
use crate::formats::frame::FrameError;
use crate::formats::nar::NarError;
use crate::formats::{CacheName, Sha256Hash, limits};
use crate::store::pack::PackError;

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was closed, or is about to be.
    #[error("the store is closed")]
    Closed,
    /// Another process has the data folder open.
    #[error("another larder is using {}", folder.display())]
    Locked {
        /// The data folder.
        folder: PathBuf,
    },
    /// The folder has no `VERSION`, but files that are not a data folder's.
    #[error("{} is no data folder of larder: it has {} in it", folder.display(), found.display())]
    NotADataFolder {
        /// The folder.
        folder: PathBuf,
        /// A file in it.
        found: OsString,
    },
    /// A later larder wrote the folder.
    #[error(
        "the data folder has format {found}, and this larder knows formats up to {ours}; use the \
         newer larder that wrote it, or go back with the box stopped: put VERSION.before-migration \
         and larder.db.before-migration, which lie in the folder, in the places of VERSION and \
         larder.db, and remove larder.db-wal and larder.db-shm"
    )]
    NewerFormat {
        /// What the folder says.
        found: u32,
        /// What this program writes.
        ours: u32,
    },
    /// A later larder has migrated the index.
    #[error(
        "the index has tables of version {found}, and this larder knows versions up to {ours}; use \
         the newer larder that wrote it, or go back with the box stopped: put \
         larder.db.before-migration, which lies in the folder, in the place of larder.db, and remove \
         larder.db-wal and larder.db-shm"
    )]
    NewerIndex {
        /// The index's `user_version`.
        found: u32,
        /// What this program writes.
        ours: u32,
    },
    /// The backup is of a data folder that a later larder wrote.
    #[error(
        "the backup is of a data folder of format {found}, and this larder knows formats up to \
         {ours}; restore it with the larder that made it, or a newer one"
    )]
    NewerBackup {
        /// What the backup says.
        found: u32,
        /// What this program writes.
        ours: u32,
    },
    /// The file is no backup, or not whole.
    #[error("{} cannot be restored", path.display())]
    BadBackup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BackupError,
    },
    /// The index that is to be made anew cannot be read just now, and what no pack has is in it.
    #[error(
        "{} cannot be read, and the keys and tokens in it are in no pack; nothing was changed: try \
         again when its disk is sound, or move it out of the data folder to do without them",
        index.display()
    )]
    OldIndex {
        /// The index.
        index: PathBuf,
        /// Why it cannot be read.
        source: Box<StoreError>,
    },
    /// The file has a good checksum, and lacks what a backup has.
    #[error("{} cannot be restored: it does not have {what}", path.display())]
    BackupLacks {
        /// The file.
        path: PathBuf,
        /// What it should have.
        what: &'static str,
    },
    /// The packs in the folder belong to another store than the backup.
    #[error(
        "{} is of another store than the packs in {}; its index and its keys are not theirs",
        backup.display(), folder.display()
    )]
    OtherStore {
        /// The folder of the packs.
        folder: PathBuf,
        /// The backup.
        backup: PathBuf,
    },
    /// A larder from before the format that this one reads wrote the folder.
    #[error(
        "the data folder has format {found}, which this larder no longer reads (it reads {ours}); use \
         the larder that wrote it, or begin another folder and push again"
    )]
    OlderFormat {
        /// What the folder says.
        found: u32,
        /// What this program writes.
        ours: u32,
    },
    /// `VERSION` is there and says nothing that a larder writes.
    #[error("{} does not say which format the data folder has", path.display())]
    BadVersion {
        /// The file.
        path: PathBuf,
    },
    /// The identity of the box is gone; making another would break every pinned client.
    #[error("{} is missing; put it back from the backup", path.display())]
    IdentityMissing {
        /// The file.
        path: PathBuf,
    },
    /// The identity is no 32 bytes in hexadecimal.
    #[error("{} is damaged; put it back from the backup", path.display())]
    BadIdentity {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
    /// Without the UUID no record can be told from damage. The index has none, and no pack's header
    /// has one that a record of that pack bears out.
    #[error(
        "the UUID of the store is lost: there is no index that tells it, and no pack in {} does; put \
         larder.db back from the backup, or begin with other packs",
        folder.display()
    )]
    UuidLost {
        /// The folder of the packs.
        folder: PathBuf,
    },
    /// A file could not be worked with.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The thread that writes could not be started.
    #[error("cannot start the thread that writes the index")]
    Thread(#[source] io::Error),
    /// A pack could not be read or written.
    #[error("a pack failed")]
    Pack(#[from] PackError),
    /// SQLite refused.
    #[error("the index refused a query")]
    Index(#[from] rusqlite::Error),
    /// The index could not be brought to this program's tables.
    #[error("the index cannot be migrated")]
    Migration(#[from] rusqlite_migration::Error),
    /// A row of the index has what this program never writes.
    #[error("the index has a bad {0}; `larder fsck --rebuild-index` makes it anew")]
    BadRow(&'static str),
    /// There is no room for it on the disk, with what has to stay free.
    #[error(
        "there is no room for {needed_bytes} bytes on the box's disk: {left_bytes} are left beside what \
         has to stay free"
    )]
    NoSpace {
        /// Bytes that were to be written.
        needed_bytes: u64,
        /// Bytes that are left.
        left_bytes: u64,
    },
    /// One collection runs already.
    #[error("a collection runs already; wait for its end")]
    CollectionRuns,
    /// There is a cache of that name.
    #[error("there is a cache called {0} already")]
    CacheExists(CacheName),
    /// There is no such cache.
    #[error("there is no such cache")]
    NoSuchCache,
    /// The NAR is not, or no longer, in the store in the form that was asked for.
    #[error("the NAR {0} is not in the store in this form")]
    NoSuchNar(Sha256Hash),
    /// Bytes were asked for beyond the end of a NAR.
    #[error("bytes were asked for beyond the end of the NAR {0}")]
    OutOfRange(Sha256Hash),
    /// The facts of a path name another NAR than the one that came with them.
    #[error("the path's NAR is {expected}, not {found}")]
    OtherNar {
        /// What the facts say.
        expected: Sha256Hash,
        /// What came along.
        found: Sha256Hash,
    },
    /// Stored bytes are not what was written. It has been recorded; a push of the same NAR heals
    /// it.
    #[error("a chunk of the NAR {nar_hash} is damaged on disk")]
    DamagedNar {
        /// The NAR that was being read.
        nar_hash: Sha256Hash,
    },
    /// Chunks that were promised to an ingest are gone: damaged meanwhile, or lost with a failed
    /// sync. Ask the client for them again.
    #[error("{count} chunks of the NAR {nar_hash} vanished before it was committed")]
    ChunksVanished {
        /// The NAR.
        nar_hash: Sha256Hash,
        /// How many are gone.
        count: u64,
    },
    /// A chunk that was to take the place of a damaged one was lost with a failed sync.
    #[error("a chunk was lost again before it could be replaced")]
    Lost,
    /// zstd has no memory, or failed on what the box itself gave it.
    #[error("zstd failed")]
    Zstd(#[source] io::Error),
    /// The commit that this call was part of failed as a whole; nothing of it was kept.
    #[error("the commit failed")]
    CommitFailed(#[source] Arc<StoreError>),
    /// SQLite took a transaction back by itself, as it does where the disk is full.
    #[error("the index took a commit back before it was whole")]
    TakenBack,
    /// A task of the store panicked or was cancelled.
    #[error("a task of the store ended early")]
    Task(#[from] tokio::task::JoinError),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody doing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::ChunksVanished { .. } | Self::CommitFailed(_) | Self::Lost)
    }

    /// Whether it failed for want of room on the disk.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::CommitFailed(cause) => cause.is_no_space(),
            Self::Pack(PackError::File { source, .. }) | Self::File { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Index(error) => error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        }
    }

    /// Whether the disk of the data folder refused to be written or read: full, failing,
    /// read-only, gone, or somebody else's. The same call may succeed when that has ended.
    #[must_use]
    pub fn is_of_disk(&self) -> bool {
        use rusqlite::ErrorCode::{
            CannotOpen, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure,
        };
        match self {
            Self::CommitFailed(cause) => cause.is_of_disk(),
            Self::Pack(PackError::File { .. }) | Self::File { .. } | Self::TakenBack => true,
            Self::Index(error) => matches!(
                error.sqlite_error_code(),
                Some(CannotOpen | DiskFull | PermissionDenied | ReadOnly | SystemIoFailure)
            ),
            _ => false,
        }
    }

    /// Makes the error for a failed `action` on `path`.
    pub(in crate::store) fn file(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

/// Why a NAR was not taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The bytes hash to something else than was declared.
    #[error("the NAR hashes to {found}; {expected} was declared")]
    WrongHash {
        /// What was declared.
        expected: Sha256Hash,
        /// What came.
        found: Sha256Hash,
    },
    /// More or fewer bytes than were declared.
    #[error("the NAR has {found} bytes; {expected} were declared")]
    WrongSize {
        /// What was declared.
        expected: u64,
        /// What came; where it is more than declared, what had come when that was found.
        found: u64,
    },
    /// The bytes are no NAR.
    #[error("it is no NAR")]
    Nar(#[from] NarError),
    /// What was sent as a chunk's frame is none.
    #[error("chunk {index} was refused")]
    BadFrame {
        /// Which chunk of the NAR, from 0.
        index: usize,
        /// Why.
        source: FrameError,
    },
    /// A chunk's raw bytes hash to something else than its name.
    #[error("the bytes of chunk {index} are not the ones its name stands for")]
    WrongChunk {
        /// Which chunk of the NAR, from 0.
        index: usize,
    },
    /// A chunk was given without its frame that was not promised to be known.
    #[error("chunk {index} came without its frame, and the box has not said that it has it")]
    NotLookedUp {
        /// Which chunk of the NAR, from 0.
        index: usize,
    },
    /// A chunk declares no bytes, more than a chunk may have, or so few that only the last chunk
    /// of a NAR may have them.
    #[error("chunk {index} declares {raw_len} bytes; a chunk has {min} to {max}, the last may have less",
        min = limits::CHUNK_BYTES_MIN, max = limits::CHUNK_BYTES_MAX)]
    ChunkLength {
        /// Which chunk of the NAR, from 0.
        index: usize,
        /// What it declares.
        raw_len: u32,
    },
    /// The NAR is larger than a manifest can tell.
    #[error("the NAR has too many chunks")]
    TooManyChunks,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
