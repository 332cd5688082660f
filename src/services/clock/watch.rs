//! Whether the wall clock can be believed, as a value: it is shown what the wall clock says, how
//! long the box has run, and whether the clock is synchronised, and reads nothing itself.
//!
//! A clock that goes on as time passes is believed. One that jumps by more than a day, in either
//! direction, is believed when the box has run for a day after the last jump: until then somebody
//! can notice. At a start nobody knows how long the box was off, so a synchronised clock is
//! believed at once, and another one is if it says nearly what it said last.

use crate::store::{ClockMark, UnixSeconds};

/// By how much the clock may be set without anything waiting for it.
pub(super) const JUMP_SECONDS: u64 = 86_400;
/// How long the box runs after a jump before the clock is believed again.
pub(super) const PAUSE_SECONDS: u64 = 86_400;

/// Before 2026 there was no larder: a clock that says so was never set.
const EARLIEST: UnixSeconds = 1_767_225_600;
/// From 2056 on a clock is more likely wrong than this program still run.
const LATEST: UnixSeconds = 2_713_910_400;

/// What was seen of the clock at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// What the wall clock says.
    pub(super) wall: UnixSeconds,
    /// How many seconds the box has run; does not jump.
    pub(super) running: u64,
    /// Whether the system says that the clock is synchronised with others.
    pub(super) synchronised: bool,
}

/// What a clock did that somebody should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockEvent {
    /// It went from one time to another that is more than a day off.
    Jumped {
        /// What it should have said.
        expected: UnixSeconds,
        /// What it says.
        found: UnixSeconds,
    },
    /// It says what cannot be.
    Impossible {
        /// What it says.
        found: UnixSeconds,
    },
    /// It is believed again.
    Trusted,
}

/// A clock that is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    mark: Option<ClockMark>,
    /// When the clock was seen last in this run; none before that.
    last: Option<Seen>,
    /// When it said last in this run what can be.
    base: Option<Seen>,
}

impl Watch {
    /// Goes on from what was written down; nothing was for a box that starts for the first time.
    pub(super) const fn new(mark: Option<ClockMark>) -> Self {
        Self { mark, last: None, base: None }
    }

    /// What is to be written down; none before the clock said what can be.
    pub(super) const fn mark(&self) -> Option<ClockMark> {
        self.mark
    }

    /// The wall clock, if it was believed when it was seen last.
    pub(super) fn trusted(&self) -> Option<UnixSeconds> {
        let wall = self.last?.wall;
        let is_paused = self.mark.is_none_or(|mark| mark.pause_left > 0);
        (is_possible(wall) && !is_paused).then_some(wall)
    }

    /// How many seconds the box has to run until a clock that goes on is believed.
    pub(super) fn pause_left(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.pause_left)
    }

    /// Whether the clock says what can be.
    pub(super) fn is_possible(&self) -> bool {
        self.last.is_some_and(|seen| is_possible(seen.wall))
    }

    /// Looks at the clock. `seen.running` does not go back.
    pub(super) fn see(&mut self, seen: Seen) -> Option<ClockEvent> {
        let was_trusted = self.trusted().is_some();
        let before = self.last.replace(seen);
        if !is_possible(seen.wall) {
            if self.base.is_some()
                && let Some(mark) = &mut self.mark
            {
                // It was right, and then was set.
                mark.pause_left = PAUSE_SECONDS;
            }
            let is_news = before.is_none_or(|before| is_possible(before.wall));
            return is_news.then_some(ClockEvent::Impossible { found: seen.wall });
        }
        let jumped = self.jump(seen);
        let right_before = before.filter(|before| is_possible(before.wall));
        let ran = right_before.map_or(0, |before| seen.running.saturating_sub(before.running));
        let mark = self.mark.get_or_insert_default();
        mark.pause_left = match jumped {
            Some(_jump) => PAUSE_SECONDS,
            None => mark.pause_left.saturating_sub(ran),
        };
        mark.seen = seen.wall;
        if mark.pause_left == 0 {
            // What was believed for a day is right, also where it is earlier.
            let is_back = is_day_before(seen.wall, mark.highest);
            mark.highest = if is_back { seen.wall } else { mark.highest.max(seen.wall) };
        }
        self.base = Some(seen);
        if let Some((expected, found)) = jumped {
            return Some(ClockEvent::Jumped { expected, found });
        }
        let is_news = !was_trusted && before.is_some() && self.trusted().is_some();
        is_news.then_some(ClockEvent::Trusted)
    }

    /// What the clock should have said and what it says, if that is more than a day apart.
    fn jump(&self, seen: Seen) -> Option<(UnixSeconds, UnixSeconds)> {
        let jump = |expected: UnixSeconds| {
            (expected.abs_diff(seen.wall) > JUMP_SECONDS).then_some((expected, seen.wall))
        };
        let mark = self.mark?;
        match self.base {
            Some(base) => {
                let passed = seen.running.saturating_sub(base.running);
                // Many small steps back are a jump too.
                let is_back = mark.pause_left == 0 && is_day_before(seen.wall, mark.highest);
                let steps = is_back.then_some((mark.highest, seen.wall));
                jump(base.wall.saturating_add(passed)).or(steps)
            }
            None if seen.synchronised && seen.wall >= mark.highest => None,
            None => jump(mark.seen),
        }
    }
}

fn is_day_before(wall: UnixSeconds, highest: UnixSeconds) -> bool {
    wall.saturating_add(JUMP_SECONDS) < highest
}

fn is_possible(wall: UnixSeconds) -> bool {
    (EARLIEST..LATEST).contains(&wall)
}

#[cfg(test)]
mod tests;
