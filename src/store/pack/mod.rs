//! Packs: append-only files of records, the log that the index is a cache of.

mod appender;
pub(in crate::store) mod payload;
mod reader;
pub(in crate::store) mod record;
pub(in crate::store) mod scan;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub(in crate::store) use appender::{Appender, Disk, RealDisk};
pub(in crate::store) use reader::{PackReader, Wanted};
pub(in crate::store) use record::{HeaderKey, Kind};

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Location {
    /// The pack, from 1.
    pub(in crate::store) pack: u32,
    /// Where the record's header begins, in bytes of the file.
    pub(in crate::store) offset: u64,
    /// Bytes behind the header.
    pub(in crate::store) stored_len: u32,
}

impl Location {
    /// Where it begins.
    pub(in crate::store) const fn place(&self) -> Position {
        Position { pack: self.pack, offset: self.offset }
    }
}

/// A place in the packs: behind it nothing has been written, or read, yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Position {
    /// The pack.
    pub(in crate::store) pack: u32,
    /// Bytes from the beginning of the file.
    pub(in crate::store) offset: u64,
}

/// Why packs could not be worked with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Stored bytes are not what was written.
    #[error("the record at byte {offset} of pack {pack} is damaged")]
    Damaged {
        /// The pack.
        pack: u32,
        /// Where the record begins.
        offset: u64,
    },
    /// Records that were counted on were lost with an earlier failed write or sync.
    #[error("records were lost with a failed write to their pack")]
    Lost,
    /// The store was closed.
    #[error("the packs are closed")]
    Closed,
    /// A record is larger than its kind may be.
    #[error("a record of {0} bytes is too large for a pack")]
    TooLarge(usize),
    /// A payload is no payload of its kind.
    #[error("a record's payload cannot be read or written")]
    Payload(#[source] postcard::Error),
    /// A payload has a version that this larder does not know.
    #[error("a record's payload has version {0}")]
    Version(u8),
}

impl PackError {
    /// Whether the bytes on disk are at fault, so that they must be had from elsewhere.
    pub(in crate::store) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::File { action, source, .. } => {
                source.kind() == io::ErrorKind::NotFound
                    // One that cannot be opened is a fault of more than these bytes.
                    || (*action == "read" && source.raw_os_error() == Some(EIO))
            }
            _ => false,
        }
    }

    /// Whether the file is not there.
    pub(in crate::store) fn is_gone(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            // Nothing is lost with a folder that is not there: its disk is.
            let is_away = source.kind() == io::ErrorKind::NotFound
                && path.parent().is_some_and(|folder| !folder.exists());
            let source = if is_away { io::Error::other(FOLDER_AWAY) } else { source };
            Self::File { action, path, source }
        }
    }
}

const FOLDER_AWAY: &str = "its folder is not there; the disk that it is on has to be mounted";

/// Linux's number for "the medium cannot be read".
const EIO: i32 = 5;

/// The file of a pack.
pub(in crate::store) fn path_of(folder: &Path, pack: u32) -> PathBuf {
    folder.join(format!("{pack:08}.pack"))
}
