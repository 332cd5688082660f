//! SHA-256 as Nix writes it: `sha256:` and Nix base-32, read in any base that Nix knows.
//!
//! Source of the accepted spellings: `Hash::parseAny` in `src/libutil/hash.cc` (Nix 2.34).

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::formats::base32;

/// A SHA-256, of a NAR or of a file. Shown as `sha256:` and 52 characters of Nix base-32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256Hash([u8; Self::LEN_BYTES]);

/// Why a text is no SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseHashError {
    /// The text does not begin with `sha256:` or `sha256-`.
    #[error("a hash must begin with 'sha256:' or 'sha256-'")]
    Algorithm,
    /// The digits have a length that none of the bases gives for 32 bytes.
    #[error("{0} characters are no SHA-256 in base 16, 32 or 64")]
    Length(usize),
    /// A character outside the base that the length points to, or bits beyond the end.
    #[error("the digits of the hash are not of their base")]
    Digits,
}

impl Sha256Hash {
    /// Bytes of a SHA-256.
    pub const LEN_BYTES: usize = 32;

    /// Takes the bytes of a finished hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN_BYTES]) -> Self {
        Self(bytes)
    }

    /// Hashes bytes that are at hand as a whole.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Sha256Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.0
    }

    /// The 52 characters of Nix base-32, without the algorithm.
    #[must_use]
    pub fn to_base32(&self) -> String {
        base32::encode(&self.0)
    }

    /// Reads the 52 characters that [`to_base32`](Self::to_base32) writes.
    ///
    /// # Errors
    ///
    /// [`ParseHashError`] for another length or a foreign digit.
    pub fn from_base32(text: &str) -> Result<Self, ParseHashError> {
        if text.len() != base32::encoded_len(Self::LEN_BYTES) {
            return Err(ParseHashError::Length(text.len()));
        }
        let bytes = base32::decode(text.as_bytes()).map_err(|_digits| ParseHashError::Digits)?;
        Self::from_slice(&bytes)
    }

    fn from_slice(bytes: &[u8]) -> Result<Self, ParseHashError> {
        bytes.try_into().map(Self).map_err(|_length| ParseHashError::Digits)
    }
}

impl FromStr for Sha256Hash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // What begins with a hyphen is SRI, which knows base 64 alone.
        let sri = text.strip_prefix("sha256-");
        let digits = sri.or_else(|| text.strip_prefix("sha256:"));
        let digits = digits.ok_or(ParseHashError::Algorithm)?;
        let decoded = match digits.len() {
            44 => BASE64.decode(digits.as_bytes()),
            length if sri.is_some() => return Err(ParseHashError::Length(length)),
            64 => HEXLOWER_PERMISSIVE.decode(digits.as_bytes()),
            _ => return Self::from_base32(digits),
        };
        Self::from_slice(&decoded.map_err(|_digits| ParseHashError::Digits)?)
    }
}

impl fmt::Display for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.to_base32())
    }
}

impl fmt::Debug for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sha256Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Sha256Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; Self::LEN_BYTES]>::deserialize(deserializer).map(Self)
        }
    }
}

/// A SHA-256 in the making.
///
/// `ring`'s, because it has assembly for processors without SHA instructions too (the small
/// boards this runs on), and is in the program already for TLS.
#[derive(Clone)]
pub struct Sha256Hasher(ring::digest::Context);

impl Sha256Hasher {
    /// Starts with no bytes.
    #[must_use]
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes that were added.
    #[must_use]
    pub fn finish(self) -> Sha256Hash {
        let mut bytes = [0_u8; Sha256Hash::LEN_BYTES];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Sha256Hash(bytes)
    }
}

impl Default for Sha256Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: [&str; 4] = [
        "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    ];

    #[test]
    fn every_spelling_of_nix_is_the_same_hash() {
        for text in EMPTY {
            let hash: Sha256Hash = text.parse().unwrap();
            assert_eq!(hash, Sha256Hash::of(b""), "{text}");
            assert_eq!(hash.to_string(), EMPTY[0]);
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for (text, error) in [
            ("", ParseHashError::Algorithm),
            ("md5:0mdqa9w1p6cmli6976v4wi0sw9", ParseHashError::Algorithm),
            ("sha256:", ParseHashError::Length(0)),
            ("sha256:0mdq", ParseHashError::Length(4)),
            (&EMPTY[0].replace(':', "-"), ParseHashError::Length(52)),
            (&EMPTY[1].replace(':', "-"), ParseHashError::Length(64)),
            ("sha256:emdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73", ParseHashError::Digits),
        ] {
            assert_eq!(text.parse::<Sha256Hash>(), Err(error), "{text}");
        }
    }
}
