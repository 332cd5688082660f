use proptest::prelude::*;

use super::*;

const NOW: UnixSeconds = 1_800_000_000;
const DAY: u64 = 86_400;

/// A box with a clock that somebody sets.
struct Machine {
    watch: Watch,
    wall: UnixSeconds,
    running: u64,
    synchronised: bool,
}

impl Machine {
    fn started(mark: Option<ClockMark>, wall: UnixSeconds) -> Self {
        let watch = Watch::new(mark);
        let mut machine = Self { watch, wall, running: 0, synchronised: false };
        machine.see();
        machine
    }

    fn see(&mut self) -> Option<ClockEvent> {
        let Self { wall, running, synchronised, .. } = *self;
        self.watch.see(Seen { wall, running, synchronised })
    }

    /// Time passes, seen every ten minutes.
    fn run(&mut self, seconds: u64) -> Vec<ClockEvent> {
        let mut events = Vec::new();
        let mut left = seconds;
        while left > 0 {
            let step = left.min(600);
            self.wall += step;
            self.running += step;
            events.extend(self.see());
            left -= step;
        }
        events
    }

    fn set(&mut self, wall: UnixSeconds) -> Option<ClockEvent> {
        self.wall = wall;
        self.see()
    }

    fn restarted(&self, wall: UnixSeconds) -> Self {
        Self::started(self.watch.mark(), wall)
    }

    fn is_trusted(&self) -> bool {
        self.watch.trusted() == Some(self.wall)
    }
}

#[test]
fn a_clock_that_goes_on_is_believed() {
    let mut machine = Machine::started(None, NOW);
    assert!(machine.is_trusted());
    assert_eq!(machine.run(3 * DAY), []);
    assert!(machine.is_trusted());
    machine.set(machine.wall + DAY / 2);
    machine.set(machine.wall - DAY / 2);
    assert!(machine.is_trusted());
    assert!(machine.restarted(machine.wall + 100).is_trusted());
    assert!(machine.restarted(machine.wall - 100).is_trusted());
}

#[test]
fn a_jump_pauses_for_a_day_of_running() {
    for to in [NOW + 40 * DAY, NOW - 40 * DAY] {
        let mut machine = Machine::started(None, NOW);
        assert_eq!(machine.set(to), Some(ClockEvent::Jumped { expected: NOW, found: to }));
        assert!(!machine.is_trusted());
        assert_eq!(machine.run(DAY - 1), []);
        assert_eq!((machine.is_trusted(), machine.watch.pause_left()), (false, 1));
        assert_eq!(machine.run(1), [ClockEvent::Trusted]);
        assert!(machine.is_trusted());
        assert_eq!(machine.run(DAY), [], "where it is now it may stay");
        assert!(machine.is_trusted());
    }
}

#[test]
fn a_box_that_was_off_for_long_waits_unless_its_clock_is_synchronised() {
    let machine = Machine::started(None, NOW);
    let later = NOW + 10 * DAY;
    let mut again = machine.restarted(later);
    assert!(!again.is_trusted());
    again.run(DAY / 2);
    let mut once_more = again.restarted(again.wall + 60);
    assert_eq!(once_more.watch.pause_left(), DAY / 2, "the pause goes on");
    assert_eq!(once_more.run(DAY / 2), [ClockEvent::Trusted]);

    let mut watch = Watch::new(machine.watch.mark());
    watch.see(Seen { wall: later, running: 0, synchronised: true });
    assert_eq!(watch.trusted(), Some(later));
    // Not even then does it go back.
    let mut watch = Watch::new(machine.watch.mark());
    watch.see(Seen { wall: NOW - 10 * DAY, running: 0, synchronised: true });
    assert_eq!(watch.trusted(), None);
}

#[test]
fn a_clock_that_was_never_set_is_not_believed_and_leaves_no_mark() {
    for wrong in [0, 86_400, 4_102_444_800] {
        let mut machine = Machine::started(None, wrong);
        assert_eq!((machine.watch.mark(), machine.watch.trusted()), (None, None));
        machine.run(3 * DAY);
        assert_eq!((machine.watch.mark(), machine.watch.trusted()), (None, None));
        // When the network is there it is set.
        machine.set(NOW);
        assert!(machine.is_trusted());
        let mut again = machine.restarted(wrong);
        assert!(!again.is_trusted());
        assert_eq!(again.watch.mark(), machine.watch.mark());
        again.set(NOW + 100);
        assert!(again.is_trusted(), "it was off for a moment and has no clock of its own");
    }
}

#[test]
fn a_right_clock_that_is_set_wrong_and_right_again_pauses() {
    let mut machine = Machine::started(None, NOW);
    assert_eq!(machine.set(7), Some(ClockEvent::Impossible { found: 7 }));
    machine.running += 60;
    assert_eq!(machine.set(NOW + 60), None);
    assert!(!machine.is_trusted());
    machine.run(DAY);
    assert!(machine.is_trusted());
}

#[test]
fn many_small_steps_back_are_a_jump() {
    let mut machine = Machine::started(None, NOW);
    let events: Vec<_> = (1..=3).filter_map(|step| machine.set(NOW - step * DAY * 2 / 3)).collect();
    assert!(matches!(events.as_slice(), [ClockEvent::Jumped { .. }, ..]), "{events:?}");
    assert!(!machine.is_trusted());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Run(u64),
    Set(i64),
    Restart(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let by = prop_oneof![-2_000_000_000_i64..2_000_000_000, -200_000_i64..200_000];
    prop_oneof![
        (1..200_000_u64).prop_map(Step::Run),
        by.clone().prop_map(Step::Set),
        by.prop_map(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn nothing_ages_within_a_day_of_running_behind_a_jump(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut machine = Machine::started(None, NOW);
        // Seconds run since the last jump; a day at the beginning.
        let mut since = DAY;
        for step in steps {
            match step {
                Step::Run(seconds) => {
                    machine.run(seconds);
                    since = since.saturating_add(seconds);
                }
                Step::Set(by) => {
                    let wall = machine.wall.saturating_add_signed(by);
                    let is_begun = machine.watch.base.is_some();
                    let known = machine.watch.mark().map(|mark| mark.seen);
                    machine.set(wall);
                    // Before it was right once, it is held against what it said last.
                    let is_off = match known {
                        Some(known) if !is_begun => known.abs_diff(wall) > DAY,
                        _ => by.unsigned_abs() > DAY,
                    };
                    if is_off && is_possible(wall) && known.is_some() {
                        since = 0;
                    }
                }
                Step::Restart(by) => {
                    let known = machine.watch.mark().map(|mark| mark.seen);
                    let wall = machine.wall.saturating_add_signed(by);
                    machine = machine.restarted(wall);
                    if known.is_some_and(|known| known.abs_diff(wall) > DAY) && is_possible(wall) {
                        since = 0;
                    }
                }
            }
            if let Some(trusted) = machine.watch.trusted() {
                prop_assert_eq!(trusted, machine.wall);
                prop_assert!(is_possible(trusted));
                prop_assert!(since >= DAY, "{}", since);
            }
            prop_assert!(machine.watch.pause_left() <= PAUSE_SECONDS);
        }
    }

    #[test]
    fn a_pause_always_ends(steps in proptest::collection::vec(step(), 1..20), at in NOW..LATEST - 4 * DAY) {
        let mut machine = Machine::started(None, NOW);
        for step in steps {
            match step {
                Step::Run(seconds) => drop(machine.run(seconds)),
                Step::Set(by) => drop(machine.set(machine.wall.saturating_add_signed(by))),
                Step::Restart(by) => machine = machine.restarted(machine.wall.saturating_add_signed(by)),
            }
        }
        machine.set(at);
        machine.run(DAY + 600);
        prop_assert!(machine.is_trusted());
    }
}
