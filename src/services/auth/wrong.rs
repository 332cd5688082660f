//! Secrets that no token has: answered at a bounded pace for each address.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::formats::limits::{ORIGINS_MAX, WRONG_SECRET_EVERY, WRONG_SECRETS_AT_ONCE};
use crate::services::admission::Origin;
use crate::services::pace::Pace;

/// Wrong secrets of one address that are remembered.
const REMEMBERED_MAX: usize = 4;

/// Paces whoever guesses. Nobody can guess 256 random bits, at whatever pace; but trying must
/// not be free either.
///
/// The same wrong secret again is no new guess: it is what a machine shows whose token the box
/// has lost, with each of the thousand requests of a build, and those must not be slow.
#[derive(Debug)]
pub(super) struct WrongSecrets {
    pace: Pace<Origin>,
    remembered: Mutex<HashMap<Origin, VecDeque<[u8; 8]>>>,
}

impl WrongSecrets {
    pub(super) fn new() -> Self {
        let pace = Pace::new(WRONG_SECRET_EVERY, WRONG_SECRETS_AT_ONCE);
        Self { pace, remembered: Mutex::default() }
    }

    /// Waits until the address may be told that the secret with that hash is wrong.
    pub(super) async fn shown(&self, from: Origin, secret_hash: &[u8; 32]) {
        if self.is_new(from, secret_hash) {
            self.pace.turn(from).await;
        }
    }

    fn is_new(&self, from: Origin, secret_hash: &[u8; 32]) -> bool {
        let start = secret_hash.first_chunk().copied().unwrap_or_default();
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= ORIGINS_MAX && !remembered.contains_key(&from) {
            remembered.clear();
        }
        let last = remembered.entry(from).or_default();
        if last.contains(&start) {
            return false;
        }
        if last.len() == REMEMBERED_MAX {
            last.pop_front();
        }
        last.push_back(start);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::formats::Sha256Hash;

    fn secret(number: u32) -> [u8; 32] {
        *Sha256Hash::of(&number.to_le_bytes()).as_bytes()
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_guesses_take_their_time() {
        let wrong = WrongSecrets::new();
        let (guesser, other) = (Origin([1; 16]), Origin([2; 16]));
        let begun = Instant::now();
        for number in 0..10_000 {
            wrong.shown(guesser, &secret(number)).await;
        }
        let (took, least) = (begun.elapsed(), WRONG_SECRET_EVERY * 9_980);
        assert!(took >= least, "{took:?}");
        wrong.shown(other, &secret(0)).await;
        assert_eq!(begun.elapsed(), took, "another address does not wait for the guesser");
    }

    #[tokio::test(start_paused = true)]
    async fn who_shows_the_same_lost_token_again_and_again_is_not_slowed() {
        let wrong = WrongSecrets::new();
        let begun = Instant::now();
        for number in 0..10_000 {
            wrong.shown(Origin([1; 16]), &secret(number % 3)).await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[test]
    fn the_table_stays_small() {
        let wrong = WrongSecrets::new();
        for number in 0..30_000_u32 {
            let mut origin = [0; 16];
            origin[..4].copy_from_slice(&number.to_le_bytes());
            assert!(wrong.is_new(Origin(origin), &secret(1)));
        }
        assert!(wrong.remembered.lock().unwrap().len() <= ORIGINS_MAX);
    }
}
