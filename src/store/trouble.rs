//! Whether the data folder can be written, for people and for what watches the box.
//!
//! An error of the disk refuses what met it and ends nothing: reading goes on, and so does whatever
//! is tried next. What it leaves is this note, until a try shows that the disk takes bytes again.

use std::error::Error;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::info;

use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::group::Group;
use crate::store::index::meta;
use crate::store::layout;
use crate::store::layout::Folder;

/// A file in `tmp/` that is written to see whether that works.
const TRIAL: &str = "trial";
/// More than a file system has room for beside a file's facts.
const TRIAL_BYTES: usize = 64 << 10;

/// What the disk refused last, if it has done nothing since.
#[derive(Debug, Default)]
pub(in crate::store) struct Trouble(Mutex<Option<String>>);

impl Trouble {
    /// Notes an error, if it is one of the disk's.
    pub(in crate::store) fn note(&self, error: &StoreError) {
        if error.is_of_disk() {
            *self.lock() = Some(told(error));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// What the disk of the data folder refused, for people, until it is seen to take bytes
    /// again. Reading may go on meanwhile.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.0.shared.trouble.lock().clone()
    }

    /// Where there is trouble: tries whether it has ended. Call it now and then.
    pub async fn try_disk(&self) {
        if self.trouble().is_none() {
            return;
        }
        // A group that fails has noted why; a job alone leaves that to whoever asked for it.
        match self.0.writer.run(write_trial).await {
            Ok(()) => {
                self.0.shared.trouble.lock().take();
                info!("The data folder can be written again");
            }
            Err(error) => self.0.shared.trouble.note(&error),
        }
    }
}

/// Writes to the folder, and to the index.
fn write_trial(group: &Group<'_>) -> Result<(), StoreError> {
    let folder: &Folder = &group.shared.folder;
    let path = folder.tmp().join(TRIAL);
    let written = layout::write_synced(&path, &vec![1; TRIAL_BYTES]);
    // It is in the way of nobody, and the next start removes it.
    let _removed = fs::remove_file(&path);
    written?;
    meta::set_position(group.tx, meta::position(group.tx)?)
}

/// An error with its causes, each said once.
fn told(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
