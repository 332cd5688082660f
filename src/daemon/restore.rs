//! Putting a backup into the data folder of a stopped box.

use crate::daemon::owner::{OwnerError, check_owner};
use crate::store::{CheckProgress, RestoreOptions, RestoreReport, StoreError, restore};

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Files that were made now would be somebody else's than the box's.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The backup or the folder cannot be used; [`StoreError::Locked`] while the box runs.
    #[error("the backup is not restored")]
    Store(#[from] StoreError),
}

/// Puts a backup into a data folder that no box uses, or a new one. What is replaced stays in the
/// folder under another name. Blocking.
///
/// # Errors
///
/// [`RestoreError`].
pub fn restore_backup(
    options: &RestoreOptions,
    progress: &dyn Fn(CheckProgress),
) -> Result<RestoreReport, RestoreError> {
    if options.folder.exists() {
        check_owner(&options.folder)?;
    }
    Ok(restore(options, progress)?)
}
