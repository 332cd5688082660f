//! The wall clock. Nothing else reads it: time is an argument everywhere below.
//!
//! A wall clock is set by people and by other machines, and a Raspberry Pi starts in 1970. So
//! whatever takes something away because it is old asks [`Clock::trusted_now`], and does nothing
//! without an answer.

mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use crate::services::clock::watch::{ClockEvent, Seen, Watch};
use crate::store::{ClockMark, Store, StoreError, UnixSeconds};

/// Seconds since 1970; 0 on a machine that believes it is earlier. For what is shown and written
/// down, and for what ends of itself; what takes something away asks [`Clock::trusted_now`].
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> UnixSeconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The mark is written down when the clock has gone on by so much: a commit an hour.
const WRITTEN_EVERY_SECONDS: u64 = 3600;

/// Whether the wall clock is believed. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    started: Instant,
    is_synchronised: fn() -> bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    watch: Watch,
    written: Option<ClockMark>,
}

/// How the clock stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockState {
    /// Whether what ends by age may end.
    pub trusted: bool,
    /// How many seconds the box has to run until a clock that goes on is trusted again; 0 also
    /// for one that has to be set first.
    pub pause_left: u64,
    /// Why it is not trusted, for people.
    pub problem: Option<&'static str>,
}

const JUMPED: &str = "the clock has jumped by more than a day; what ends by age waits until the box has run for a \
                      day with it";
const IMPOSSIBLE: &str = "the clock cannot be right; what ends by age waits until it is set";

impl Clock {
    /// Goes on from what the store has of the clock, and looks at it.
    pub(super) async fn open(
        store: Store,
        is_synchronised: fn() -> bool,
    ) -> Result<Self, StoreError> {
        let written = store.clock_mark().await?;
        let state = Mutex::new(State { watch: Watch::new(written), written });
        let clock =
            Self(Arc::new(Inner { store, started: Instant::now(), is_synchronised, state }));
        drop(clock.look());
        Ok(clock)
    }

    /// Seconds since 1970, where that can be believed. `None` while the clock says what cannot
    /// be, and until the box has run for a day after a jump of more than a day: retention, the
    /// end of pins and keys, and whatever else takes something away by age, wait then.
    #[must_use]
    pub fn trusted_now(&self) -> Option<UnixSeconds> {
        self.look().watch.trusted()
    }

    /// How the clock stands now.
    #[must_use]
    pub fn state(&self) -> ClockState {
        let state = self.look();
        let trusted = state.watch.trusted().is_some();
        let problem = match (trusted, state.watch.is_possible()) {
            (true, _) => None,
            (false, true) => Some(JUMPED),
            (false, false) => Some(IMPOSSIBLE),
        };
        ClockState { trusted, pause_left: state.watch.pause_left(), problem }
    }

    /// Looks at the clock, and writes down what a restart has to know if that has changed.
    pub(super) async fn keep(&self, is_last: bool) -> Result<(), StoreError> {
        let due = {
            let state = self.look();
            let mark = state.watch.mark();
            mark.filter(|mark| {
                is_last && state.written != Some(*mark) || is_due(*mark, state.written)
            })
        };
        let Some(mark) = due else { return Ok(()) };
        self.0.store.keep_clock_mark(mark).await?;
        self.lock().written = Some(mark);
        Ok(())
    }

    fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let seen = Seen {
            wall: now(),
            running: self.0.started.elapsed().as_secs(),
            synchronised: (self.0.is_synchronised)(),
        };
        match state.watch.see(seen) {
            Some(ClockEvent::Jumped { expected, found }) => {
                warn!(expected, found, "{JUMPED}");
            }
            Some(ClockEvent::Impossible { found }) => warn!(found, "{IMPOSSIBLE}"),
            Some(ClockEvent::Trusted) => info!("The clock is trusted again"),
            None => {}
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a restart would believe what it should not, or has come an hour behind.
fn is_due(mark: ClockMark, written: Option<ClockMark>) -> bool {
    written.is_none_or(|written| {
        mark.pause_left > written.pause_left
            || (mark.pause_left == 0) != (written.pause_left == 0)
            || mark.seen.abs_diff(written.seen) >= WRITTEN_EVERY_SECONDS
    })
}
