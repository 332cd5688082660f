//! How often somebody may do something: beyond it he waits his turn, and is never refused.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::formats::limits::{ORIGINS_MAX, TURN_WAIT_MAX};

/// Turns, one `every` so long for each key, and some at once after a rest.
///
/// What is kept of a key is one moment: when its turns would all have been used at an even pace
/// (the generic cell rate algorithm, ITU-T I.371). A key whose moment has passed is forgotten,
/// and where [`ORIGINS_MAX`] keys are busy all others share one.
#[derive(Debug)]
pub struct Pace<K> {
    every: Duration,
    ahead_max: Duration,
    busy: Mutex<Busy<K>>,
}

#[derive(Debug)]
struct Busy<K> {
    used_until: HashMap<K, Instant>,
    others: Option<Instant>,
}

impl<K: Copy + Eq + Hash> Pace<K> {
    /// `at_once` turns after a rest, then one `every` so long.
    #[must_use]
    pub fn new(every: Duration, at_once: u32) -> Self {
        let busy = Mutex::new(Busy { used_until: HashMap::new(), others: None });
        Self { every, ahead_max: every * at_once.saturating_sub(1), busy }
    }

    /// `number` turns a second, and half of them more at once after a rest.
    #[must_use]
    pub fn per_second(number: u32) -> Self {
        let number = number.max(1);
        Self::new(Duration::from_secs(1) / number, number / 2)
    }

    /// Waits for a turn, at most [`TURN_WAIT_MAX`].
    pub async fn turn(&self, key: K) {
        let wait = self.take(key, Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    /// Takes a turn; how long it is until it comes.
    fn take(&self, key: K, now: Instant) -> Duration {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let used_until = busy.used_until.get(&key).copied().or(busy.others).unwrap_or(now).max(now);
        let wait = (used_until - now).saturating_sub(self.ahead_max);
        if wait > TURN_WAIT_MAX {
            // Who goes away while he waits has used his turn; that must not add up for ever.
            return TURN_WAIT_MAX;
        }
        busy.note(key, used_until + self.every, now);
        wait
    }
}

impl<K: Copy + Eq + Hash> Busy<K> {
    fn note(&mut self, key: K, until: Instant, now: Instant) {
        if self.used_until.len() >= ORIGINS_MAX && !self.used_until.contains_key(&key) {
            self.used_until.retain(|_, until| *until > now);
            if self.used_until.len() >= ORIGINS_MAX {
                self.others = Some(until);
                return;
            }
            self.others = self.others.filter(|until| *until > now);
        }
        self.used_until.insert(key, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn beyond_the_first_few_turns_come_at_an_even_pace() {
        let pace = Pace::new(EVERY, 5);
        let begun = Instant::now();
        for _ in 0..5 {
            pace.turn(1).await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            pace.turn(1).await;
        }
        let took = begun.elapsed();
        assert!(took.abs_diff(EVERY * 20) < EVERY, "{took:?}");
        pace.turn(2).await;
        assert_eq!(begun.elapsed(), took, "somebody else does not wait");
    }

    #[test]
    fn nobody_waits_for_ever_whoever_went_away() {
        let (pace, now) = (Pace::new(EVERY, 1), Instant::now());
        let waits: Vec<_> = (0..1000).map(|_| pace.take(1, now)).collect();
        assert_eq!(waits.iter().max(), Some(&TURN_WAIT_MAX));
        assert_eq!(pace.take(1, now + TURN_WAIT_MAX + EVERY * 2), Duration::ZERO);
    }

    #[test]
    fn the_table_stays_small_and_forgets_who_rests() {
        let (pace, now) = (Pace::new(EVERY, 1), Instant::now());
        for key in 0..ORIGINS_MAX + 5000 {
            pace.take(key, now);
        }
        let len = |pace: &Pace<usize>| pace.busy.lock().unwrap().used_until.len();
        assert_eq!(len(&pace), ORIGINS_MAX);
        assert!(pace.take(usize::MAX, now) > EVERY, "the many share one place");
        let later = now + TURN_WAIT_MAX * 2;
        assert_eq!(pace.take(usize::MAX - 1, later), Duration::ZERO);
        assert_eq!(len(&pace), 1);
    }

    #[test]
    fn a_rate_in_seconds_has_half_a_second_at_once() {
        let (pace, now) = (Pace::per_second(100), Instant::now());
        let free = (0..200).take_while(|_| pace.take(1, now).is_zero()).count();
        assert_eq!(free, 50);
        assert!(Pace::per_second(0).take(1, now).is_zero());
    }
}
