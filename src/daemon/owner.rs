//! Who may write into the data folder of a stopped box: the user who runs the box.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Why a data folder is left alone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// Files that were made now would be somebody else's than the box's.
    #[error(
        "the data folder {} belongs to the user with the number {owner}, and this runs as \
         {runs_as}; the box could not read what is made now. Run it as that user, such as with \
         `sudo -u larder`", path.display()
    )]
    OtherUser {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        runs_as: u32,
    },
    /// The folder cannot be looked at.
    #[error("cannot look at {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Who runs this must be who runs the box.
///
/// # Errors
///
/// [`OwnerError`]; also if there is no folder.
pub(super) fn check_owner(folder: &Path) -> Result<(), OwnerError> {
    let unseen = |path: &Path| {
        let path = path.to_owned();
        move |source| OwnerError::Folder { path, source }
    };
    let owner = fs::metadata(folder).map_err(unseen(folder))?.uid();
    // A process's own folder belongs to its effective user (proc(5)).
    let own = Path::new("/proc/self");
    let runs_as = fs::metadata(own).map_err(unseen(own))?.uid();
    if owner == runs_as {
        return Ok(());
    }
    Err(OwnerError::OtherUser { path: folder.to_owned(), owner, runs_as })
}
