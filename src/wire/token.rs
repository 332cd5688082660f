//! Tokens as text: `ldr_<device ID>_<secret>`.

use std::fmt;
use std::str::FromStr;

use crate::formats::Sha256Hash;
use crate::wire::crockford;
use crate::wire::device_id::DeviceId;

/// A token: the box it is for, and 32 random bytes that only that box and its owner know.
///
/// As text: `ldr_`, the device ID (32 characters without hyphens), `_`, and the secret in
/// Crockford's base-32 (52 characters); 89 in all. The text is shown once, when the token is
/// made; `Debug` leaves the secret out. PROTOCOL.md, "Tokens".
#[derive(Clone)]
pub struct TokenText {
    device_id: DeviceId,
    secret: [u8; Self::SECRET_LEN_BYTES],
}

/// A text that is no token. It tells nothing of the text, which may be nearly a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token is of the form ldr_ID_SECRET, 89 characters")]
pub struct ParseTokenError;

impl TokenText {
    /// Bytes of the secret part.
    pub const SECRET_LEN_BYTES: usize = 32;
    /// Characters of the whole text.
    pub const LEN_CHARS: usize = PREFIX.len() + DeviceId::LEN_CHARS + 1 + SECRET_CHARS;

    /// A token for the box `device_id`; the caller takes care that `secret` is random.
    #[must_use]
    pub const fn new(device_id: DeviceId, secret: [u8; Self::SECRET_LEN_BYTES]) -> Self {
        Self { device_id, secret }
    }

    /// The box that this token is for; it is said to no other.
    #[must_use]
    pub const fn device_id(&self) -> DeviceId {
        self.device_id
    }

    /// The secret part.
    #[must_use]
    pub const fn secret(&self) -> &[u8; Self::SECRET_LEN_BYTES] {
        &self.secret
    }

    /// SHA-256 of the secret's 32 bytes: what a box keeps.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        *Sha256Hash::of(&self.secret).as_bytes()
    }

    /// The text. Whoever reads it has what the token gives.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        format!("{PREFIX}{}_{}", self.device_id.to_compact(), crockford::encode(&self.secret))
    }
}

const PREFIX: &str = "ldr_";
const SECRET_CHARS: usize = (TokenText::SECRET_LEN_BYTES * 8).div_ceil(5);

impl FromStr for TokenText {
    type Err = ParseTokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(PREFIX).ok_or(ParseTokenError)?;
        let (device_id, secret) = rest.split_once('_').ok_or(ParseTokenError)?;
        let device_id = crockford::decode(device_id.as_bytes()).map(DeviceId);
        let secret = crockford::decode(secret.as_bytes());
        device_id.zip(secret).map(|(id, secret)| Self::new(id, secret)).ok_or(ParseTokenError)
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({PREFIX}{}_…)", self.device_id.to_compact())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> TokenText {
        TokenText::new(DeviceId([0xab; 20]), [0xcd; 32])
    }

    #[test]
    fn a_token_carries_its_box_and_its_secret() {
        let text = token().to_secret_text();
        assert_eq!(text.len(), TokenText::LEN_CHARS);
        assert_eq!(text.len(), 89);
        let again: TokenText = text.parse().unwrap();
        assert_eq!(again.device_id(), DeviceId([0xab; 20]));
        assert_eq!(again.secret(), &[0xcd; 32]);
        assert_eq!(again.secret_hash(), *Sha256Hash::of(&[0xcd; 32]).as_bytes());
    }

    #[test]
    fn debug_and_errors_show_no_secret() {
        let secret = crockford::encode(&[0xcd; 32]);
        assert!(!format!("{:?}", token()).contains(&secret[..8]));
        let nearly = token().to_secret_text().replace("ldr_", "ldr-");
        let error = nearly.parse::<TokenText>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret[..8]));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let text = token().to_secret_text();
        let broken = [
            String::new(),
            "ldr_".to_owned(),
            "ldr__".to_owned(),
            text[..88].to_owned(),
            format!("{text}0"),
            format!(" {text}"),
            format!("{}u", &text[..88]),
            format!("{}1", &text[..88]),
            text.replacen('_', "-", 2),
            token().device_id().to_string(),
        ];
        for text in broken {
            assert_eq!(text.parse::<TokenText>().unwrap_err(), ParseTokenError, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,100}") {
            let _any_answer = text.parse::<TokenText>();
        }
    }
}
