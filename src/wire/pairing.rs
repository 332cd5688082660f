//! Pairing: a short code in the place of a token. PROTOCOL.md, "Pairing".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::wire::crockford;
use crate::wire::hello::{PresentedToken, ProtocolRange, check_name};
use crate::wire::refusal::{Refusal, RefusalCode};

/// A code that people copy from the box to their machine: 40 random bits, as text `abcd-efgh`.
/// `Debug` does not show it.
#[derive(Clone, Copy)]
pub struct PairingCode([u8; 5]);

/// A text that is no pairing code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pairing code has 8 letters and digits, such as 3f7k-92mx")]
pub struct ParsePairingCodeError;

impl PairingCode {
    /// A code; the caller takes care that the bytes are random.
    #[must_use]
    pub const fn new(bytes: [u8; 5]) -> Self {
        Self(bytes)
    }

    /// Whether it is the same; how long that takes tells nothing.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |difference, (one, next)| difference | (one ^ next)) == 0
    }

    /// The text, in two groups. Whoever reads it first has the token.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        let text = crockford::encode(&self.0);
        let (first, last) = text.split_at(text.len() / 2);
        format!("{first}-{last}")
    }
}

impl FromStr for PairingCode {
    type Err = ParsePairingCodeError;

    /// Reads a code with or without its hyphen.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        crockford::decode(&digits).map(Self).ok_or(ParsePairingCodeError)
    }
}

impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingCode(…)")
    }
}

/// What a client without a token says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The versions that the client speaks.
    pub protocols: ProtocolRange,
    /// Program and version, for the box's log; 1 to 100 characters.
    pub agent: String,
    /// The code's text.
    pub code: PresentedToken,
}

impl Pair {
    /// The code, on the box's side.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that says what is wrong with the message.
    pub fn checked(&self) -> Result<PairingCode, Refusal> {
        check_name(&self.agent)?;
        self.protocols.choose()?;
        let code = self.code.as_str().parse();
        code.map_err(|error: ParsePairingCodeError| {
            Refusal::new(RefusalCode::Unauthorised, error.to_string())
        })
    }
}

/// What a box says to a client with a good code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// The box's name, such as `office`.
    pub box_name: String,
    /// The token's text.
    pub token: PresentedToken,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = PairingCode::new([0x00, 0x44, 0x32, 0x14, 0xc7]);
        assert_eq!(code.to_secret_text(), "0123-4567");
        for text in ["0123-4567", "01234567", "O123-4567", "oI23 4567".replace(' ', "").as_str()] {
            assert!(text.parse::<PairingCode>().unwrap().is(&code), "{text}");
        }
        for text in ["", "0123-456", "0123-45678", "0123-456u", "0123 4567"] {
            assert_eq!(text.parse::<PairingCode>().unwrap_err(), ParsePairingCodeError, "{text}");
        }
        assert!(!code.is(&PairingCode::new([0x01, 0x44, 0x32, 0x14, 0xc7])));
        assert!(!format!("{code:?}").contains("0123"));
    }
}
