//! The tokens of a box in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::formats::limits::{TOKENS_ENDED_KEPT_MAX, TOKENS_MAX};
use crate::services::auth::check_at;
use crate::store::{KnownToken, Token, TokenId, UnixSeconds};

/// All good tokens, and the younger ones of those that ended.
///
/// Found by the SHA-256 of the secret: first the place, by the hash's first eight bytes, then the
/// whole of it. Nobody can steer the hash of what he guesses, so the time that the place takes
/// tells him nothing of a secret; the whole is compared in constant time, so that this does not
/// even have to be believed of an implementation of `==`.
#[derive(Debug, Default)]
pub(super) struct Known {
    by_start: HashMap<[u8; 8], Vec<Arc<Held>>>,
    by_id: BTreeMap<TokenId, Arc<Held>>,
}

#[derive(Debug)]
struct Held {
    secret_hash: [u8; 32],
    token: Arc<Token>,
}

impl Known {
    pub(super) fn find(&self, secret_hash: &[u8; 32]) -> Option<Arc<Token>> {
        let place = self.by_start.get(&start_of(secret_hash))?;
        let is_it = |held: &&Arc<Held>| bool::from(held.secret_hash.ct_eq(secret_hash));
        place.iter().find(is_it).map(|held| Arc::clone(&held.token))
    }

    pub(super) fn get(&self, id: TokenId) -> Option<Arc<Token>> {
        self.by_id.get(&id).map(|held| Arc::clone(&held.token))
    }

    /// Holds a token, in the place of what was known of it.
    pub(super) fn insert(&mut self, known: KnownToken, now: UnixSeconds) {
        let KnownToken { secret_hash, token } = known;
        let id = token.id;
        self.remove(id);
        let held = Arc::new(Held { secret_hash, token: Arc::new(token) });
        self.by_start.entry(start_of(&secret_hash)).or_default().push(Arc::clone(&held));
        self.by_id.insert(id, held);
        self.forget(now);
    }

    pub(super) fn revoke(&mut self, id: TokenId, at: UnixSeconds) {
        let Some(held) = self.by_id.get(&id) else { return };
        let mut token = Token::clone(&held.token);
        token.revoked_at.get_or_insert(at);
        self.insert(KnownToken { secret_hash: held.secret_hash, token }, at);
    }

    /// How many are good, and how many of those are personal.
    pub(super) fn count_good(&self, now: UnixSeconds) -> (usize, usize) {
        let good = self.by_id.values().filter(|held| check_at(&held.token, now).is_ok());
        good.fold((0, 0), |(all, personal), held| {
            (all + 1, personal + usize::from(held.token.grants.is_none()))
        })
    }

    /// Lets the oldest go of those that ended, once there are too many in all.
    fn forget(&mut self, now: UnixSeconds) {
        if self.by_id.len() <= TOKENS_MAX + TOKENS_ENDED_KEPT_MAX {
            return;
        }
        let ended = |held: &&Arc<Held>| check_at(&held.token, now).is_err();
        let oldest = self.by_id.values().find(ended).map(|held| held.token.id);
        if let Some(id) = oldest {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: TokenId) {
        let Some(held) = self.by_id.remove(&id) else { return };
        let start = start_of(&held.secret_hash);
        if let Some(place) = self.by_start.get_mut(&start) {
            place.retain(|other| other.token.id != id);
            if place.is_empty() {
                self.by_start.remove(&start);
            }
        }
    }
}

fn start_of(hash: &[u8; 32]) -> [u8; 8] {
    hash.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;
    use crate::formats::Sha256Hash;

    fn known(id: i64, revoked_at: Option<u64>) -> KnownToken {
        let secret_hash = *Sha256Hash::of(&id.to_le_bytes()).as_bytes();
        KnownToken { secret_hash, token: token(id, revoked_at) }
    }

    fn token(id: i64, revoked_at: Option<u64>) -> Token {
        Token {
            id: TokenId(id),
            label: String::new(),
            created_at: 1,
            expires_at: None,
            last_used_at: None,
            revoked_at,
            grants: None,
            device_id: None,
        }
    }

    #[test]
    fn a_token_is_found_by_all_of_its_hash() {
        let mut tokens = Known::default();
        (1..50).for_each(|id| tokens.insert(known(id, None), 5));
        let hash = known(7, None).secret_hash;
        assert_eq!(tokens.find(&hash).unwrap().id, TokenId(7));
        for place in 0..32 {
            let mut nearly = hash;
            nearly[place] ^= 1;
            assert!(tokens.find(&nearly).is_none(), "byte {place}");
        }
        tokens.revoke(TokenId(7), 9);
        tokens.revoke(TokenId(7), 10);
        assert_eq!(tokens.find(&hash).unwrap().revoked_at, Some(9));
        assert_eq!(tokens.count_good(9), (48, 48));
    }

    #[test]
    fn the_oldest_that_ended_are_forgotten_and_no_good_one() {
        let mut tokens = Known::default();
        tokens.insert(known(0, None), 5);
        let count = i64::try_from(TOKENS_MAX + TOKENS_ENDED_KEPT_MAX).unwrap();
        (1..count + 10).for_each(|id| tokens.insert(known(id, Some(3)), 5));
        assert_eq!(tokens.by_id.len(), TOKENS_MAX + TOKENS_ENDED_KEPT_MAX);
        assert!(tokens.get(TokenId(0)).is_some() && tokens.get(TokenId(1)).is_none());
        assert!(tokens.find(&known(1, None).secret_hash).is_none());
        assert_eq!(tokens.by_start.len(), tokens.by_id.len());
    }

    /// Medians, so that a machine that is busy elsewhere does no harm.
    #[test]
    fn a_hash_that_is_nearly_right_takes_no_longer_than_any_other() {
        let mut tokens = Known::default();
        (0..1000).for_each(|id| tokens.insert(known(id, None), 5));
        let median = |hashes: &[[u8; 32]]| {
            let mut times: Vec<_> = hashes
                .iter()
                .map(|hash| {
                    let begun = Instant::now();
                    (0..20).for_each(|_| drop(black_box(tokens.find(black_box(hash)))));
                    begun.elapsed()
                })
                .collect();
            times.sort();
            times[times.len() / 2].as_secs_f64()
        };
        let with_wrong_byte = |place: usize| {
            let wrong = |id: i64| {
                let mut hash = known(id % 1000, None).secret_hash;
                hash[place] ^= 1;
                hash
            };
            (0..10_000).map(wrong).collect::<Vec<_>>()
        };
        let (early, late) = (median(&with_wrong_byte(9)), median(&with_wrong_byte(31)));
        println!("20 look-ups, wrong in byte 9: {early:.2e} s, in byte 31: {late:.2e} s");
        assert!((0.5..2.0).contains(&(late / early)), "{early} {late}");
    }
}
