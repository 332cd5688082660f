//! Backups of a running box: one at a time, made in the background, fetched in parts, and gone
//! from the disk soon after.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::services::chain::Chain;
use crate::services::clock;
use crate::store::{Backup, BackupProgress, Store, StoreError, TokenId, UnixSeconds};

/// How long a backup that nobody asks for stays: longer than a laptop takes to change networks.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// How long a backup that somebody fetches is not replaced by the next one.
const FETCHED_FOR: Duration = Duration::from_secs(30);

/// One backup is under way already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("somebody else's backup is being made or fetched; try again in a minute")]
pub struct BackupRuns;

/// How a backup stands. A box remembers the last one alone.
#[derive(Clone, Debug)]
pub struct BackupState {
    /// Its number since the box started, from 1; 0 if none was asked for.
    pub id: u64,
    /// When it was asked for; what it has is not older.
    pub made_at: UnixSeconds,
    /// How far it is.
    pub progress: BackupProgress,
    /// Its bytes, once it can be fetched.
    pub bytes: Option<u64>,
    /// Why it could not be made, for people.
    pub error: Option<String>,
}

/// Makes backups and gives them out.
#[derive(Clone, Debug)]
pub struct Backups(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    settings_file: Option<PathBuf>,
    last: Mutex<Last>,
    changed: Notify,
}

/// The last backup that was asked for.
#[derive(Debug)]
struct Last {
    id: u64,
    made_at: UnixSeconds,
    progress: BackupProgress,
    outcome: Outcome,
    asked: Instant,
}

#[derive(Debug)]
enum Outcome {
    None,
    Making,
    Ready(Arc<Backup>),
    Failed(String),
}

impl Last {
    fn state(&self) -> BackupState {
        let (bytes, error) = match &self.outcome {
            Outcome::None | Outcome::Making => (None, None),
            Outcome::Ready(backup) => (Some(backup.bytes()), None),
            Outcome::Failed(why) => (None, Some(why.clone())),
        };
        let Self { id, made_at, progress, .. } = *self;
        BackupState { id, made_at, progress, bytes, error }
    }
}

impl Backups {
    pub(super) fn new(store: Store, settings_file: Option<PathBuf>) -> Self {
        let last = Mutex::new(Last {
            id: 0,
            made_at: 0,
            progress: BackupProgress::default(),
            outcome: Outcome::None,
            asked: Instant::now(),
        });
        Self(Arc::new(Inner { store, settings_file, last, changed: Notify::new() }))
    }

    /// Asks for a backup with the token `by`, which the log names: whoever has a backup has every
    /// secret of the box. The one before it is gone.
    ///
    /// # Errors
    ///
    /// [`BackupRuns`] while one is made, or was fetched from a moment ago.
    pub fn start(&self, by: TokenId) -> Result<BackupState, BackupRuns> {
        let mut last = self.lock();
        let is_fetched = last.asked.elapsed() < FETCHED_FOR;
        match last.outcome {
            Outcome::Making => return Err(BackupRuns),
            Outcome::Ready(_) if is_fetched => return Err(BackupRuns),
            _ => {}
        }
        *last = Last {
            id: last.id + 1,
            made_at: clock::now(),
            progress: BackupProgress::default(),
            outcome: Outcome::Making,
            asked: Instant::now(),
        };
        info!(token.id = by.0, backup.id = last.id, "Making a backup");
        self.0.changed.notify_one();
        Ok(last.state())
    }

    /// How the last one stands.
    #[must_use]
    pub fn state(&self) -> BackupState {
        self.lock().state()
    }

    /// At most `length` bytes of backup `id` from `offset` on, fewer at its end; `None` if it is
    /// not there, or not any more.
    ///
    /// # Errors
    ///
    /// [`StoreError::File`] if it cannot be read.
    pub async fn read(
        &self,
        id: u64,
        offset: u64,
        length: usize,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let backup = {
            let mut last = self.lock();
            match &last.outcome {
                Outcome::Ready(backup) if last.id == id => {
                    let backup = Arc::clone(backup);
                    last.asked = Instant::now();
                    backup
                }
                _ => return Ok(None),
            }
        };
        spawn_blocking(move || backup.read(offset, length).map(Some)).await?
    }

    /// Takes a backup that was fetched off the disk. False if it is not there.
    pub fn remove(&self, id: u64) -> bool {
        let mut last = self.lock();
        let is_there = last.id == id && matches!(last.outcome, Outcome::Ready(_));
        if is_there {
            last.outcome = Outcome::None;
        }
        is_there
    }

    /// Makes the backups that are asked for, and forgets those that nobody fetches, for ever.
    pub(super) async fn run(&self) {
        loop {
            let (is_asked, is_ready, forgotten_at) = {
                let Last { outcome, asked, .. } = &*self.lock();
                let is_ready = matches!(outcome, Outcome::Ready(_));
                (matches!(outcome, Outcome::Making), is_ready, *asked + KEPT_FOR)
            };
            if is_asked {
                self.make().await;
                continue;
            }
            tokio::select! {
                () = self.0.changed.notified() => {}
                () = sleep_until(forgotten_at), if is_ready => self.forget(),
            }
        }
    }

    async fn make(&self) {
        let made_at = self.lock().made_at;
        let backups = self.clone();
        let progress = move |progress| backups.lock().progress = progress;
        let settings = self.0.settings_file.clone();
        let made = self.0.store.back_up(settings, made_at, Arc::new(progress)).await;
        let mut last = self.lock();
        last.asked = Instant::now();
        last.outcome = match made {
            Ok(backup) => {
                info!(bytes = backup.bytes(), "Made a backup");
                Outcome::Ready(Arc::new(backup))
            }
            Err(error) => {
                warn!(error = %Chain(&error), "A backup could not be made");
                Outcome::Failed(Chain(&error).to_string())
            }
        };
    }

    fn forget(&self) {
        let mut last = self.lock();
        if matches!(last.outcome, Outcome::Ready(_)) && last.asked.elapsed() >= KEPT_FOR {
            info!("Forgot a backup that nobody fetched");
            last.outcome = Outcome::None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
