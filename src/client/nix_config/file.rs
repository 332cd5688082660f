//! Files of Nix's configuration: read whole, changed in one step, given back as they were.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::client::nix_config::error::NixConfigError;
use crate::client::nix_config::settings;

/// Nix's store, whose files nobody edits.
const STORE: &str = "/nix/store";
/// What the copy of a file from before our first change is called behind the file's name.
const BACKUP: &str = ".before-larder";

/// A file with what it holds and what it shall hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileChange {
    /// Where it really is: symlinks were followed.
    pub(super) path: PathBuf,
    /// Its bytes; nothing if it is not there.
    pub(super) before: Option<Vec<u8>>,
    /// What it shall be; nothing to take it away.
    pub(super) after: Option<Vec<u8>>,
    /// Whether it holds passwords, so that only its owner may read it.
    pub(super) is_secret: bool,
    /// Whether a copy is kept of what it was before.
    pub(super) keeps_backup: bool,
}

impl FileChange {
    /// Reads a file that may be changed; for now nothing is to change.
    pub(super) fn open(path: &Path) -> Result<Self, NixConfigError> {
        let path = real(path)?;
        let before = settings::read(&path)?;
        let after = before.clone();
        Ok(Self { path, before, after, is_secret: false, keeps_backup: false })
    }

    /// The same of a file with passwords; it has to belong to who runs this.
    pub(super) fn open_secret(path: &Path, user: u32) -> Result<Self, NixConfigError> {
        let path = real(path)?;
        if let Ok(metadata) = fs::metadata(&path) {
            let owner = metadata.uid();
            let of_folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
            // Root may write into somebody's home, and the file stays theirs.
            let is_homes = user == 0 && of_folder.is_some_and(|folder| folder.uid() == owner);
            if owner != user && !is_homes {
                return Err(NixConfigError::Owner { path, owner, user });
            }
        }
        Ok(Self { is_secret: true, ..Self::open(&path)? })
    }

    pub(super) fn text(&self) -> &[u8] {
        self.before.as_deref().unwrap_or_default()
    }

    /// What stays when all that is ours is gone: nothing where the file was ours altogether.
    pub(super) fn leave(&mut self, rest: Vec<u8>) {
        let was_there = !rest.is_empty() || self.backup().exists();
        self.after = was_there.then_some(rest);
    }

    pub(super) fn changes(&self) -> bool {
        self.before != self.after
    }

    /// Where the copy from before our first change is.
    pub(super) fn backup(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(BACKUP);
        PathBuf::from(name)
    }

    /// Does it: the file is the old one or the new one, never half.
    pub(super) fn apply(&self) -> Result<(), NixConfigError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| NixConfigError::Write { action, path, source }
        };
        if !self.changes() {
            return Ok(());
        }
        let backup = self.backup();
        if let Some(before) = self.before.as_ref().filter(|_| self.keeps_backup)
            && !backup.exists()
        {
            self.write(&backup, before).map_err(failed("write the copy", &backup))?;
        }
        match &self.after {
            Some(after) => {
                self.write(&self.path, after).map_err(failed("write", &self.path))?;
            }
            None => fs::remove_file(&self.path).map_err(failed("remove", &self.path))?,
        }
        // As it was before us: the copy has done its service.
        if !self.keeps_backup && self.after.is_some() && fs::read(&backup).ok() == self.after {
            fs::remove_file(&backup).map_err(failed("remove", &backup))?;
        }
        Ok(())
    }

    fn write(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new().prefix(".larder-").tempfile_in(folder)?;
        file.write_all(contents)?;
        let old = fs::metadata(&self.path).ok();
        let mode = match (&old, self.is_secret) {
            (_, true) => 0o600,
            (Some(old), false) => old.mode() & 0o7777,
            (None, false) => 0o644,
        };
        // The owner first: changing it takes some bits of the mode away.
        if let Some(old) = old {
            let new = file.as_file().metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                chown(file.path(), Some(old.uid()), Some(old.gid()))?;
            }
        }
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        fs::File::open(folder)?.sync_all()
    }
}

/// Where a file really is, so that a symlink to it stays one.
fn real(path: &Path) -> Result<PathBuf, NixConfigError> {
    match fs::canonicalize(path) {
        Ok(target) if target.starts_with(STORE) => {
            Err(NixConfigError::Generated { path: path.to_owned(), target })
        }
        Ok(target) => Ok(target),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) if target.starts_with(STORE) => {
                Err(NixConfigError::Generated { path: path.to_owned(), target })
            }
            Ok(_dangling) => Err(NixConfigError::Read { path: path.to_owned(), source: error }),
            Err(_nothing_there) => Ok(path.to_owned()),
        },
        Err(source) => Err(NixConfigError::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn change(path: &Path, after: &[u8]) -> FileChange {
        let mut change = FileChange::open(path).unwrap();
        change.after = Some(after.to_vec());
        change.keeps_backup = true;
        change
    }

    #[test]
    fn modes_and_symlinks_stay_and_the_first_text_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("real.conf"), folder.path().join("nix.conf"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        symlink("real.conf", &link).unwrap();
        change(&link, b"new").apply().unwrap();
        change(&link, b"newer").apply().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).unwrap(), b"newer");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        let backup = folder.path().join("real.conf.before-larder");
        assert_eq!(fs::read(&backup).unwrap(), b"old");

        let mut back = FileChange::open(&link).unwrap();
        back.leave(b"old".to_vec());
        back.apply().unwrap();
        assert_eq!((fs::read(&file).unwrap(), backup.exists()), (b"old".to_vec(), false));
    }

    #[test]
    fn a_file_of_ours_alone_goes_and_an_empty_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        for (name, before) in [("none", None), ("empty", Some(""))] {
            let file = folder.path().join(name);
            if let Some(before) = before {
                fs::write(&file, before).unwrap();
            }
            change(&file, b"ours").apply().unwrap();
            let mut back = FileChange::open(&file).unwrap();
            back.leave(Vec::new());
            back.apply().unwrap();
            assert_eq!(fs::read_to_string(&file).ok().as_deref(), before);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_nixos_made_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("nix.conf");
        symlink("/nix/store/00000000000000000000000000000000-nix.conf", &link).unwrap();
        let error = FileChange::open(&link).unwrap_err();
        assert!(matches!(error, NixConfigError::Generated { .. }), "{error}");
    }
}
