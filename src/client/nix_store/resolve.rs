//! From what a user names to the store path that is meant.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::client::nix_store::NixStore;
use crate::client::nix_store::error::NixStoreError;
use crate::formats::StorePath;
use crate::formats::store_path::{ParsePathError, STORE_DIR};

/// Symlinks that one argument may lead through; Linux stops at 40 as well.
const SYMLINKS_MAX: usize = 40;

/// The arguments in a text such as standard input: what stands between white space.
pub fn split_arguments(text: &[u8]) -> impl Iterator<Item = &OsStr> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(OsStr::from_bytes)
}

impl NixStore {
    /// The valid store path that `argument` names: a store path, a file inside one, or a symlink
    /// to either such as `./result`. Symlinks are followed up to the store and not further: a
    /// store path that is itself a symlink means itself, as in Nix. A relative argument begins
    /// at `here`.
    ///
    /// # Errors
    ///
    /// [`NixStoreError::NotInStore`], [`NixStoreError::NotAStorePath`],
    /// [`NixStoreError::SymlinkLoop`], [`NixStoreError::File`] for what names nothing,
    /// [`NixStoreError::NotValid`] and [`NixStoreError::Vanished`].
    pub fn resolve(&self, argument: &Path, here: &Path) -> Result<StorePath, NixStoreError> {
        let path = self.locate(argument, here)?;
        if !self.is_valid(&path)? {
            return Err(NixStoreError::NotValid(path));
        }
        let folder = self.folder(&path);
        match fs::symlink_metadata(&folder) {
            Ok(_) => Ok(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(NixStoreError::Vanished(path))
            }
            Err(source) => Err(NixStoreError::File { action: "look at", path: folder, source }),
        }
    }

    fn locate(&self, argument: &Path, here: &Path) -> Result<StorePath, NixStoreError> {
        let mut symlinks = 0;
        let mut done = PathBuf::from("/");
        let mut to_do = parts(&here.join(argument));
        loop {
            // The store's own name first: inside a store with another root it is no real folder.
            let whole: PathBuf = std::iter::once(done.as_os_str())
                .chain(to_do.iter().map(OsString::as_os_str))
                .collect();
            if let Some(name) = self.name_in_store(&whole) {
                return name.to_str().ok_or(ParsePathError::Hash).and_then(str::parse).map_err(
                    |source| NixStoreError::NotAStorePath { argument: argument.to_owned(), source },
                );
            }
            let Some(part) = to_do.pop_front() else {
                return Err(NixStoreError::NotInStore {
                    argument: argument.to_owned(),
                    leads_to: done,
                });
            };
            if part == ".." {
                done.pop();
                continue;
            }
            done.push(part);
            let file = |action, source| NixStoreError::File { action, path: done.clone(), source };
            let metadata = fs::symlink_metadata(&done).map_err(|e| file("find", e))?;
            if metadata.is_symlink() {
                symlinks += 1;
                if symlinks > SYMLINKS_MAX {
                    return Err(NixStoreError::SymlinkLoop(argument.to_owned()));
                }
                let target = fs::read_link(&done).map_err(|e| file("follow", e))?;
                done.pop();
                if target.is_absolute() {
                    done = PathBuf::from("/");
                }
                for part in parts(&target).into_iter().rev() {
                    to_do.push_front(part);
                }
            }
        }
    }

    /// The first name below the store's folder, if `path` is below it.
    fn name_in_store<'a>(&self, path: &'a Path) -> Option<&'a OsStr> {
        let below = path.strip_prefix(STORE_DIR);
        let below = below.or_else(|_| path.strip_prefix(self.location.real_store())).ok()?;
        below.iter().next()
    }
}

/// The names and `..` that a path is made of.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}
