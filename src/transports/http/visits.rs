//! Connections as guests of a house with so many seats: who finds none waits for one, and who has
//! sat longest without a request gives his up.
//!
//! Two hundred machines with the 25 connections of a Nix each are more than there are seats, and
//! nearly all of them are idle: letting one of those go costs its client a new connection later,
//! which every client makes by itself, while closing the door would cost somebody his download.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::formats::limits::{HTTP_SEAT_WAIT_MAX, HTTP_SEATS_NEAR, HTTP_WAITING_MAX};

/// All connections of a box. Cloning copies a pointer.
#[derive(Clone, Debug)]
pub(super) struct Visits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    seats: Arc<Semaphore>,
    /// For this machine alone, when all others are taken: its owner must get in.
    near: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    seated: Mutex<HashMap<u64, Arc<State>>>,
    next_number: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// Requests that were heard and are not answered to their last byte.
    under_way: AtomicUsize,
    /// Requests so far.
    requests: AtomicU64,
    /// Since when no request is under way.
    idle_since: Mutex<Instant>,
    leave: CancellationToken,
    /// Whether its seat is kept for this machine.
    is_kept: bool,
}

/// What a new connection finds.
pub(super) enum Welcome {
    /// A seat.
    Seat(Seat),
    /// None yet; the wait is bounded.
    Wait(Wait),
    /// None, and too many who wait.
    Full,
}

/// The right to a connection, until it is dropped.
pub(super) struct Seat {
    _permit: OwnedSemaphorePermit,
    /// Whether it is of no use to others.
    is_kept: bool,
}

/// Who waits for a seat.
pub(super) struct Wait {
    visits: Visits,
    _place: OwnedSemaphorePermit,
}

impl Visits {
    /// A house with so many seats, some for this machine beside them.
    pub(super) fn new(seats: usize) -> Self {
        Self(Arc::new(Inner {
            seats: Arc::new(Semaphore::new(seats)),
            near: Arc::new(Semaphore::new(HTTP_SEATS_NEAR)),
            waiting: Arc::new(Semaphore::new(HTTP_WAITING_MAX)),
            seated: Mutex::default(),
            next_number: AtomicU64::new(0),
        }))
    }

    /// Takes a seat for a connection, of this machine or another. Where there is none, the
    /// connection that has been idle longest is told to go.
    pub(super) fn enter(&self, is_near: bool) -> Welcome {
        let free = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned().ok();
        if let Some(permit) = free(&self.0.seats) {
            return Welcome::Seat(Seat { _permit: permit, is_kept: false });
        }
        if let Some(permit) = free(&self.0.near).filter(|_| is_near) {
            return Welcome::Seat(Seat { _permit: permit, is_kept: true });
        }
        match free(&self.0.waiting) {
            Some(place) => {
                self.let_one_go();
                Welcome::Wait(Wait { visits: self.clone(), _place: place })
            }
            None => Welcome::Full,
        }
    }

    /// The visit of who has a seat.
    pub(super) fn sit(&self, seat: Seat) -> Visit {
        let number = self.0.next_number.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(State {
            under_way: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            idle_since: Mutex::new(Instant::now()),
            leave: CancellationToken::new(),
            is_kept: seat.is_kept,
        });
        self.seated().insert(number, Arc::clone(&state));
        Visit { visits: self.clone(), number, state, _seat: seat }
    }

    fn let_one_go(&self) {
        let seated = self.seated();
        let idle = seated
            .values()
            .filter(|state| state.is_idle() && !state.is_kept && !state.leave.is_cancelled());
        if let Some(longest) = idle.min_by_key(|state| state.idle_since()) {
            longest.leave.cancel();
        }
    }

    fn seated(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<State>>> {
        self.0.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    /// The seat, in the order in which connections came; `None` if none became free for too long.
    pub(super) async fn seat(self) -> Option<Seat> {
        let seat = Arc::clone(&self.visits.0.seats).acquire_owned();
        let permit = timeout(HTTP_SEAT_WAIT_MAX, seat).await.ok()?.ok()?;
        Some(Seat { _permit: permit, is_kept: false })
    }
}

/// One connection that is served; its seat is free when it is dropped.
pub(super) struct Visit {
    visits: Visits,
    number: u64,
    state: Arc<State>,
    _seat: Seat,
}

impl Visit {
    /// What the parts of the connection see of the visit.
    pub(super) fn sight(&self) -> Sight {
        Sight(Arc::clone(&self.state))
    }

    /// Returns once the seat is wanted for somebody else.
    pub(super) async fn told_to_leave(&self) {
        self.state.leave.cancelled().await;
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.visits.seated().remove(&self.number);
    }
}

/// A visit, for those who are told of its requests.
#[derive(Clone, Debug)]
pub(super) struct Sight(Arc<State>);

impl Sight {
    /// A request was heard; it is under way until what this gives is dropped.
    pub(super) fn request(&self) -> UnderWay {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.0))
    }

    /// How many requests were heard, if none is under way.
    pub(super) fn requests_if_idle(&self) -> Option<u64> {
        self.is_idle().then(|| self.0.requests.load(Ordering::Relaxed))
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_idle()
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) == 0
    }

    fn idle_since(&self) -> Instant {
        *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is not answered to its last byte.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<State>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut since = self.0.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = Instant::now();
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(visits: &Visits, is_near: bool) -> Visit {
        match visits.enter(is_near) {
            Welcome::Seat(seat) => visits.sit(seat),
            Welcome::Wait(_) | Welcome::Full => panic!("there is no seat"),
        }
    }

    fn wait(visits: &Visits) -> Wait {
        match visits.enter(false) {
            Welcome::Wait(wait) => wait,
            Welcome::Seat(_) | Welcome::Full => panic!("he need not wait"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_idle_longest_gives_up_his_seat() {
        let visits = Visits::new(3);
        let (busy, old, young) = (seat(&visits, false), seat(&visits, false), seat(&visits, false));
        let under_way = busy.sight().request();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        drop(young.sight().request());
        let first = wait(&visits);
        assert!(old.state.leave.is_cancelled() && !young.state.leave.is_cancelled());
        drop(old);
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let _first = visits.sit(first.seat().await.expect("the seat of the old one"));
        let second = wait(&visits);
        assert!(young.state.leave.is_cancelled() && !busy.state.leave.is_cancelled());
        drop(second);
        drop(under_way);
        let waits = wait(&visits);
        assert!(waits.seat().await.is_none(), "nobody goes, and he does not wait for ever");
    }

    #[tokio::test]
    async fn this_machine_gets_in_when_the_house_is_full() {
        let visits = Visits::new(1);
        let _far = seat(&visits, false);
        let _waits: Vec<_> = (0..HTTP_WAITING_MAX).map(|_| wait(&visits)).collect();
        assert!(matches!(visits.enter(false), Welcome::Full));
        let _near: Vec<_> = (0..HTTP_SEATS_NEAR).map(|_| seat(&visits, true)).collect();
        assert!(matches!(visits.enter(true), Welcome::Full));
    }
}
