//! Scrubbing the store of a running box: one at a time, in the background.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::services::chain::Chain;
use crate::services::clock;
use crate::services::narinfo_cache::NarInfoCache;
use crate::store::{CheckProgress, CheckReport, Store, UnixSeconds};

/// One check runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a check runs already; wait for its end")]
pub struct CheckRuns;

/// How checks stand.
#[derive(Clone, Debug, Default)]
pub struct CheckState {
    /// The one that runs.
    pub running: Option<RunningCheck>,
    /// The last one that ended since the box started.
    pub last: Option<EndedCheck>,
}

/// A check that runs, or is about to.
#[derive(Clone, Copy, Debug)]
pub struct RunningCheck {
    /// Since when.
    pub started_at: UnixSeconds,
    /// How far it has come.
    pub progress: CheckProgress,
}

/// A check that has ended.
#[derive(Clone, Debug)]
pub struct EndedCheck {
    /// When it began.
    pub started_at: UnixSeconds,
    /// When it ended.
    pub ended_at: UnixSeconds,
    /// What it found; or, for people, what kept it from looking.
    pub result: Result<CheckReport, String>,
}

/// Checks of the store: asked for here, and run by the upkeep of the box.
#[derive(Clone, Debug)]
pub struct Checks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    narinfos: Arc<NarInfoCache>,
    state: Mutex<CheckState>,
    asked: Notify,
}

impl Checks {
    pub(super) fn new(store: Store, narinfos: Arc<NarInfoCache>) -> Self {
        let inner = Inner { store, narinfos, state: Mutex::default(), asked: Notify::new() };
        Self(Arc::new(inner))
    }

    /// Asks for a check. It reads every record of every pack and verifies it.
    ///
    /// # Errors
    ///
    /// [`CheckRuns`] if one has not ended.
    pub fn start(&self) -> Result<CheckState, CheckRuns> {
        let mut state = self.lock();
        if state.running.is_some() {
            return Err(CheckRuns);
        }
        let progress = CheckProgress::default();
        state.running = Some(RunningCheck { started_at: clock::now(), progress });
        self.0.asked.notify_one();
        Ok(state.clone())
    }

    /// How checks stand now.
    #[must_use]
    pub fn state(&self) -> CheckState {
        self.lock().clone()
    }

    /// Runs the checks that are asked for, for ever. When it is dropped a check under way goes on
    /// reading until the store is closed.
    pub(super) async fn run(&self) {
        loop {
            self.0.asked.notified().await;
            self.run_once().await;
        }
    }

    async fn run_once(&self) {
        let Some(running) = self.lock().running else { return };
        info!("Checking every record of the store");
        let checks = self.clone();
        let progress = move |progress| {
            if let Some(running) = &mut checks.lock().running {
                running.progress = progress;
            }
        };
        let result = self.0.store.check(Arc::new(progress)).await;
        match &result {
            Ok(report) if report.damaged.is_empty() => {
                info!(records = report.records, "The check found no damage");
            }
            Ok(report) => {
                // What is damaged is not served any more, also where it was kept in memory.
                self.0.narinfos.forget_all();
                warn!(damaged = report.damaged.len(), "The check found damage");
            }
            Err(error) => warn!(error = %Chain(error), "The check could not be made"),
        }
        let result = result.map_err(|error| Chain(&error).to_string());
        let ended = EndedCheck { started_at: running.started_at, ended_at: clock::now(), result };
        *self.lock() = CheckState { running: None, last: Some(ended) };
    }

    fn lock(&self) -> MutexGuard<'_, CheckState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
