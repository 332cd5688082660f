//! One file with all that no pack holds: the index, the identity, the first token, the settings.
//!
//! The index is copied through SQLite's online backup from a connection of its own that holds one
//! read transaction, so the copy is of one moment and the writer goes on. Copy and backup are in
//! `tmp/`; the backup has no name there, so that nothing is left of it however the box ends.

use std::fs;
use std::fs::File;
use std::io;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::backup::StepResult;
use tempfile::NamedTempFile;
use tracing::info;

use crate::formats::backup::{END_LEN, Sealer, header};
use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::index::db;
use crate::store::layout;
use crate::store::layout::Folder;
use crate::store::shared::Inner;

/// The names of what is in a backup, in their order; those in the middle may be missing.
pub(in crate::store) const VERSION: &str = "VERSION";
pub(in crate::store) const IDENTITY: &str = "identity.key";
pub(in crate::store) const ADMIN_TOKEN: &str = "admin.token";
pub(in crate::store) const SETTINGS: &str = "larder.toml";
pub(in crate::store) const INDEX: &str = "larder.db";

/// The longest of the files that are no index.
pub(in crate::store) const SMALL_BYTES_MAX: u64 = 1 << 20;

/// Pages of the index that are copied in one step, 2 MiB.
const PAGES_AT_A_TIME: i32 = 512;

/// zstd's level: an index is mostly hashes, which no level makes smaller.
const LEVEL: i32 = 1;

/// How far a backup has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupProgress {
    /// Bytes of the index that were copied, and then packed.
    pub done_bytes: u64,
    /// All that there are to copy and to pack; 0 before it is known.
    pub total_bytes: u64,
}

/// A backup that is whole. Its bytes are on the disk until this is dropped.
#[derive(Debug)]
pub struct Backup {
    file: File,
    bytes: u64,
}

impl Backup {
    /// How many bytes it has.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// At most `length` bytes from `offset` on; fewer at the end. Blocking.
    ///
    /// # Errors
    ///
    /// [`StoreError::File`] if they cannot be read.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let left = usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(StoreError::file("read", Path::new("the backup")))?;
        Ok(bytes)
    }
}

/// Makes a backup. Blocking.
pub(in crate::store) fn make(
    inner: &Inner,
    settings: Option<&Path>,
    made_at: UnixSeconds,
    progress: &dyn Fn(BackupProgress),
) -> Result<Backup, StoreError> {
    let folder = &inner.shared.folder;
    let tmp = folder.tmp();
    let copy = NamedTempFile::with_prefix_in("index-", &tmp)
        .map_err(StoreError::file("make a file in", &tmp))?;
    let is_closed = || inner.windows.is_closed();
    let bytes = copy_index(&folder.index(), copy.path(), &|done, total| {
        progress(BackupProgress { done_bytes: done, total_bytes: 2 * total });
        if is_closed() { Err(StoreError::Closed) } else { Ok(()) }
    })?;
    let file = tempfile::tempfile_in(&tmp).map_err(StoreError::file("make a file in", &tmp))?;
    let failed = StoreError::file("write a backup in", &tmp);
    let mut packer = Packer::new(file, made_at).map_err(failed)?;
    for (name, path) in [
        (VERSION, Some(folder.root().join(VERSION))),
        (IDENTITY, Some(folder.root().join(IDENTITY))),
        (ADMIN_TOKEN, Some(folder.root().join(ADMIN_TOKEN))),
        (SETTINGS, settings.map(Path::to_owned)),
    ] {
        let Some(path) = path else { continue };
        if let Some(bytes) = layout::read_small(&path, SMALL_BYTES_MAX)? {
            packer.add(name, &bytes).map_err(StoreError::file("write a backup in", &tmp))?;
        }
    }
    let index = copy.path();
    let mut copied = File::open(index).map_err(StoreError::file("open", index))?;
    let packed = packer.add_from(INDEX, bytes, &mut copied, &mut |done| {
        progress(BackupProgress { done_bytes: bytes + done, total_bytes: 2 * bytes });
        if is_closed() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    if is_closed() {
        return Err(StoreError::Closed);
    }
    let ended = packed.and_then(|()| packer.end());
    let (file, bytes) = ended.map_err(StoreError::file("write a backup in", &tmp))?;
    Ok(Backup { file, bytes })
}

/// Copies the index at `from`, as it is at one moment, to `to`; its bytes. `each` hears how many
/// were copied, of how many, and may end it.
pub(in crate::store) fn copy_index(
    from: &Path,
    to: &Path,
    each: &dyn Fn(u64, u64) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let from = db::open_reader(from)?;
    // Without it a commit in between would make the copy begin again, for ever on a busy box.
    let snapshot = from.unchecked_transaction()?;
    let page_bytes: u64 = snapshot.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let _begun: i64 = snapshot.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?;
    let mut copy = Connection::open(to)?;
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")?;
    {
        let backup = rusqlite::backup::Backup::new(&snapshot, &mut copy)?;
        loop {
            let step = backup.step(PAGES_AT_A_TIME)?;
            let at = backup.progress();
            let pages = |count: i32| u64::try_from(count).unwrap_or(0) * page_bytes;
            let total = pages(at.pagecount);
            each(total.saturating_sub(pages(at.remaining)), total)?;
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // Nobody else has the copy, and readers wait for nobody.
                _locked => return Err(StoreError::TakenBack),
            }
        }
    }
    drop(copy);
    let file = File::open(to).map_err(StoreError::file("open", to))?;
    file.sync_all().map_err(StoreError::file("sync", to))?;
    Ok(file.metadata().map_err(StoreError::file("look at", to))?.len())
}

/// Copies the index, before a migration changes its tables, to where the error of an older larder
/// says that it is.
pub(in crate::store) fn keep_before_migration(folder: &Folder) -> Result<(), StoreError> {
    let (copy, kept) = (folder.tmp().join(INDEX), folder.index_before_migration());
    layout::touch_private(&copy)?;
    copy_index(&folder.index(), &copy, &|_done, _total| Ok(()))?;
    fs::rename(&copy, &kept).map_err(StoreError::file("rename", &copy))?;
    layout::sync_folder(folder.root())?;
    info!(copy = %kept.display(), "Copied the index before its tables are brought up to date");
    Ok(())
}

/// Writes a backup.
struct Packer(zstd::stream::write::Encoder<'static, Summed>);

/// A file whose bytes are summed up as they are written.
struct Summed {
    file: File,
    sealer: Sealer,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sealer.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Packer {
    fn new(file: File, made_at: UnixSeconds) -> io::Result<Self> {
        let mut summed = Summed { file, sealer: Sealer::default() };
        summed.write_all(&header(made_at))?;
        Ok(Self(zstd::stream::write::Encoder::new(summed, LEVEL)?))
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).map_err(io::Error::other)?;
        self.add_from(name, length, &mut &*bytes, &mut |_done| Ok(()))
    }

    fn add_from(
        &mut self,
        name: &str,
        length: u64,
        from: &mut dyn Read,
        each: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> io::Result<()> {
        self.0.write_all(&[u8::try_from(name.len()).map_err(io::Error::other)?])?;
        self.0.write_all(name.as_bytes())?;
        self.0.write_all(&length.to_le_bytes())?;
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        while done < length {
            let want = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..want).unwrap_or_default();
            from.read_exact(part)?;
            self.0.write_all(part)?;
            done += u64::try_from(want).map_err(io::Error::other)?;
            each(done)?;
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<(File, u64)> {
        // A name of no bytes.
        self.0.write_all(&[0])?;
        let Summed { mut file, sealer } = self.0.finish()?;
        let end = sealer.end();
        file.write_all(&end)?;
        let bytes = file.seek(SeekFrom::End(0))?;
        debug_assert!(usize::try_from(bytes).is_ok_and(|bytes| bytes > END_LEN));
        Ok((file, bytes))
    }
}
