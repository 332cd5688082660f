//! Pairing codes: short, for one use within minutes, in the place of a token's long text.
//!
//! A code says which token is to be made; the token is made when somebody shows the code. Codes
//! live in memory alone, so a restart of the box forgets them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::services::secrets::{NoRandomness, random};
use crate::services::tokens::{CreateTokenError, TokenRequest, Tokens};
use crate::wire::{PairingCode, Refusal, RefusalCode, TokenText};

/// How long a code is good.
pub const CODE_LIFETIME: Duration = Duration::from_secs(600);
/// How long a code that is good no more is told from one that never was.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Wrong codes that may be shown before all codes are given up: of 2^40 codes, somebody who
/// guesses then hits one of [`CODES_MAX`] with a chance of 1 in three thousand million.
const WRONG_MAX: u32 = 10;
/// Codes at a time.
const CODES_MAX: usize = 32;

/// Why there is no code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateCodeError {
    /// There could be no such token.
    #[error(transparent)]
    Token(#[from] CreateTokenError),
    /// Too many wait to be used.
    #[error("{CODES_MAX} pairing codes wait to be used; wait until some are 10 minutes old")]
    TooMany,
    /// No random numbers.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// Why a code is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedeemError {
    /// Nobody made it, or not since the box was started.
    #[error("the pairing code is wrong; copy it again, or have a new one made on the box")]
    Wrong,
    /// It had its one use.
    #[error("the pairing code was used already; have a new one made on the box")]
    Used,
    /// It is too old.
    #[error("the pairing code is older than 10 minutes; have a new one made on the box")]
    Expired,
    /// Somebody may be guessing.
    #[error("too many wrong pairing codes came; have a new one made on the box")]
    GivenUp,
    /// The token cannot be made now.
    #[error("the token cannot be made")]
    Token(#[from] CreateTokenError),
}

impl From<RedeemError> for Refusal {
    fn from(error: RedeemError) -> Self {
        let code = match &error {
            RedeemError::Token(_) => RefusalCode::Internal,
            _ => RefusalCode::Unauthorised,
        };
        Self::new(code, error.to_string())
    }
}

/// Makes pairing codes and takes them. Cloning copies a pointer.
#[derive(Clone)]
pub struct Pairing {
    tokens: Tokens,
    codes: Arc<Mutex<Codes>>,
}

impl fmt::Debug for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pairing")
    }
}

impl Pairing {
    pub(super) fn new(tokens: Tokens) -> Self {
        Self { tokens, codes: Arc::default() }
    }

    /// A code for a token like this, good for [`CODE_LIFETIME`].
    ///
    /// # Errors
    ///
    /// [`CreateCodeError`].
    pub fn create(&self, request: TokenRequest) -> Result<PairingCode, CreateCodeError> {
        self.tokens.check(&request)?;
        let random = random()?;
        let code = random.first_chunk().copied().map(PairingCode::new).ok_or(NoRandomness)?;
        self.codes().add(code, request, Instant::now())?;
        info!("Made a pairing code");
        Ok(code)
    }

    /// The token that a code stands for. The code is used up, even if the token cannot be made.
    ///
    /// # Errors
    ///
    /// [`RedeemError`].
    pub async fn redeem(&self, code: PairingCode) -> Result<TokenText, RedeemError> {
        let taken = self.codes().take(code, Instant::now());
        let request = taken.inspect_err(|error| warn!("Refused a pairing code: {error}"))?;
        let (_, text) = self.tokens.create(request).await?;
        Ok(text)
    }

    fn codes(&self) -> std::sync::MutexGuard<'_, Codes> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Codes {
    known: Vec<Known>,
    wrong: u32,
}

struct Known {
    code: PairingCode,
    made_at: Instant,
    state: State,
}

enum State {
    Waiting(TokenRequest),
    Used,
    GivenUp,
}

impl Known {
    fn is_waiting(&self, now: Instant) -> bool {
        matches!(self.state, State::Waiting(_)) && self.age(now) < CODE_LIFETIME
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made_at)
    }
}

impl Codes {
    fn add(
        &mut self,
        code: PairingCode,
        request: TokenRequest,
        now: Instant,
    ) -> Result<(), CreateCodeError> {
        self.known.retain(|known| known.age(now) < REMEMBERED);
        let waiting = self.known.iter().filter(|known| known.is_waiting(now)).count();
        if waiting >= CODES_MAX {
            return Err(CreateCodeError::TooMany);
        }
        if waiting == 0 {
            self.wrong = 0;
        }
        self.known.push(Known { code, made_at: now, state: State::Waiting(request) });
        Ok(())
    }

    fn take(&mut self, code: PairingCode, now: Instant) -> Result<TokenRequest, RedeemError> {
        let Some(known) = self.known.iter_mut().find(|known| known.code.is(&code)) else {
            return Err(self.note_wrong());
        };
        let is_old = known.age(now) >= CODE_LIFETIME;
        match std::mem::replace(&mut known.state, State::Used) {
            State::Waiting(_) if is_old => Err(RedeemError::Expired),
            State::Waiting(request) => Ok(request),
            State::Used if is_old => Err(RedeemError::Expired),
            State::Used => Err(RedeemError::Used),
            State::GivenUp => {
                known.state = State::GivenUp;
                Err(RedeemError::GivenUp)
            }
        }
    }

    fn note_wrong(&mut self) -> RedeemError {
        self.wrong = self.wrong.saturating_add(1);
        if self.wrong < WRONG_MAX {
            return RedeemError::Wrong;
        }
        for known in &mut self.known {
            if matches!(known.state, State::Waiting(_)) {
                known.state = State::GivenUp;
            }
        }
        RedeemError::GivenUp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(number: u8) -> PairingCode {
        PairingCode::new([number; 5])
    }

    fn request() -> TokenRequest {
        TokenRequest { label: String::new(), expires_in_seconds: None, grants: None, device: None }
    }

    #[test]
    fn a_code_has_one_use_within_ten_minutes() {
        let (mut codes, start) = (Codes::default(), Instant::now());
        codes.add(code(1), request(), start).unwrap();
        codes.add(code(2), request(), start).unwrap();
        let end = start + CODE_LIFETIME;

        let just = end.checked_sub(Duration::from_millis(1)).unwrap();
        assert!(codes.take(code(1), just).is_ok());
        assert!(matches!(codes.take(code(1), just), Err(RedeemError::Used)));
        assert!(matches!(codes.take(code(2), end), Err(RedeemError::Expired)));
        assert!(matches!(codes.take(code(2), end), Err(RedeemError::Expired)));
        assert!(matches!(codes.take(code(3), end), Err(RedeemError::Wrong)));
    }

    #[test]
    fn who_guesses_gets_a_few_tries_and_then_no_code_counts() {
        let (mut codes, now) = (Codes::default(), Instant::now());
        codes.add(code(1), request(), now).unwrap();
        for _ in 1..WRONG_MAX {
            assert!(matches!(codes.take(code(9), now), Err(RedeemError::Wrong)));
        }
        assert!(matches!(codes.take(code(9), now), Err(RedeemError::GivenUp)));
        for _ in 0..2 {
            assert!(matches!(codes.take(code(1), now), Err(RedeemError::GivenUp)));
        }
        codes.add(code(2), request(), now).unwrap();
        assert!(matches!(codes.take(code(9), now), Err(RedeemError::Wrong)));
        assert!(codes.take(code(2), now).is_ok());
    }

    #[test]
    fn no_more_codes_wait_than_are_allowed() {
        let (mut codes, now) = (Codes::default(), Instant::now());
        for number in 0..u8::try_from(CODES_MAX).unwrap() {
            codes.add(code(number), request(), now).unwrap();
        }
        assert!(codes.add(code(99), request(), now).is_err());
        assert!(codes.add(code(99), request(), now + CODE_LIFETIME).is_ok());
        codes.add(code(98), request(), now + REMEMBERED).unwrap();
        assert_eq!(codes.known.len(), 2);
    }
}
