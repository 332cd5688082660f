//! Fetching a backup of a box into a file: beside its place, checked, then renamed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::time::sleep;

use crate::client::administration::{AdminError, Administration, BackupFacts};
use crate::formats::backup::{BackupError, Checker};

/// How often the box is asked how far it has come.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchBackupError {
    /// A backup is not written over.
    #[error("{} is there already, and is not written over", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The box does not do it, or was lost.
    #[error("the box makes no backup")]
    Box(#[from] AdminError),
    /// The box could not make it.
    #[error("the box could not make the backup: {0}")]
    Failed(String),
    /// The box was restarted, or made one for somebody else.
    #[error("the box has forgotten the backup; was it restarted?")]
    Forgotten,
    /// What came is not what the box wrote.
    #[error("the backup that came cannot be used")]
    Damaged(#[from] BackupError),
}

/// A place for a backup, into which nothing has been written yet.
#[derive(Debug)]
pub struct BackupPlace {
    path: PathBuf,
    file: NamedTempFile,
}

/// A backup that is in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchedBackup {
    /// Its bytes.
    pub bytes: u64,
    /// When it was asked for, by the box's clock, in seconds since 1970.
    pub made_at: u64,
}

impl BackupPlace {
    /// Makes sure that a backup can be written to `path`, before a box is bothered with it. Only
    /// its owner will be able to read it.
    ///
    /// # Errors
    ///
    /// [`FetchBackupError::Exists`] or [`FetchBackupError::Write`].
    pub fn new(path: &Path) -> Result<Self, FetchBackupError> {
        let path = path.to_owned();
        if fs::symlink_metadata(&path).is_ok() {
            return Err(FetchBackupError::Exists { path });
        }
        // Temporary files are made with mode 0600.
        let beside = tempfile::Builder::new().prefix(".larder-").tempfile_in(folder_of(&path));
        match beside {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(FetchBackupError::Write { path, source }),
        }
    }

    /// Has the box make a backup, and fetches it. `each` hears how many bytes are done of how
    /// many, first of making it and then of fetching it.
    ///
    /// # Errors
    ///
    /// [`FetchBackupError`]; nothing is left at the place then.
    pub async fn fetch(
        mut self,
        administration: &Administration,
        each: impl Fn(u64, u64),
    ) -> Result<FetchedBackup, FetchBackupError> {
        let made = made(administration, &each).await?;
        let fetched = self.fetch_parts(administration, &made, &each).await;
        // The box forgets it by itself too.
        let _gone_already = administration.remove_backup(made.id).await;
        let bytes = fetched?;
        let Self { path, file } = self;
        let failed = |source| FetchBackupError::Write { path: path.clone(), source };
        file.as_file().sync_all().map_err(failed)?;
        match file.persist_noclobber(&path) {
            Ok(_file) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(FetchBackupError::Exists { path });
            }
            Err(error) => return Err(failed(error.error)),
        }
        fs::File::open(folder_of(&path)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(FetchedBackup { bytes, made_at: made.made_at })
    }

    async fn fetch_parts(
        &mut self,
        administration: &Administration,
        made: &BackupFacts,
        each: &impl Fn(u64, u64),
    ) -> Result<u64, FetchBackupError> {
        let total = made.bytes.unwrap_or(0);
        let mut checker = Checker::default();
        let mut done = 0;
        while done < total {
            let part = administration.backup_part(made.id, done).await?;
            if part.is_empty() {
                break;
            }
            checker.update(&part);
            let written = self.file.write_all(&part);
            written
                .map_err(|source| FetchBackupError::Write { path: self.path.clone(), source })?;
            done += u64::try_from(part.len()).unwrap_or(u64::MAX);
            each(done, total);
        }
        checker.finish()?;
        Ok(done)
    }
}

/// Waits until a backup can be fetched.
async fn made(
    administration: &Administration,
    each: &impl Fn(u64, u64),
) -> Result<BackupFacts, FetchBackupError> {
    let mut facts = administration.start_backup().await?;
    let ours = facts.id;
    loop {
        if facts.id != ours {
            return Err(FetchBackupError::Forgotten);
        }
        if let Some(why) = facts.error {
            return Err(FetchBackupError::Failed(why));
        }
        if facts.bytes.is_some() {
            return Ok(facts);
        }
        each(facts.done_bytes, facts.total_bytes);
        sleep(ASK_EVERY).await;
        facts = administration.backup().await?;
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
