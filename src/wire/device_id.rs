//! Device IDs: who a box or a client is, as a person can compare it.

use std::fmt;
use std::str::FromStr;

use crate::formats::Sha256Hash;
use crate::wire::crockford;

/// The first 20 bytes of the SHA-256 of an Ed25519 public key (its 32 raw bytes).
///
/// Shown as 32 characters of Crockford's base-32 (lower case) in groups of four joined by
/// hyphens, and [without hyphens](Self::to_compact) inside tokens. Read with or without hyphens,
/// in either case, with `I`, `L` and `O` taken for the digits they look like.
/// PROTOCOL.md, "Identity".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub [u8; Self::LEN_BYTES]);

/// A text that is no device ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a device ID is {} letters and digits in groups of {GROUP_CHARS}, joined by hyphens",
    DeviceId::LEN_CHARS
)]
pub struct ParseDeviceIdError;

const GROUP_CHARS: usize = 4;

impl DeviceId {
    /// Bytes of a device ID.
    pub const LEN_BYTES: usize = 20;
    /// Characters of a device ID, hyphens not counted.
    pub const LEN_CHARS: usize = 32;

    /// The ID of whoever holds the secret half of this Ed25519 key.
    #[must_use]
    pub fn of_public_key(key: &[u8; 32]) -> Self {
        let hash = Sha256Hash::of(key);
        let mut id = [0_u8; Self::LEN_BYTES];
        for (to, from) in id.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
        Self(id)
    }

    /// The 32 characters without hyphens, as they stand in tokens.
    #[must_use]
    pub fn to_compact(&self) -> String {
        crockford::encode(&self.0)
    }
}

impl FromStr for DeviceId {
    type Err = ParseDeviceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        crockford::decode(&plain).map(Self).ok_or(ParseDeviceIdError)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, character) in self.to_compact().chars().enumerate() {
            if place > 0 && place.is_multiple_of(GROUP_CHARS) {
                f.write_str("-")?;
            }
            write!(f, "{character}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_id_is_the_head_of_the_keys_hash() {
        // `head -c 32 /dev/zero | sha256sum` begins 66687aadf862bd776c8fc18b8e9f8e2008971485.
        let id = DeviceId::of_public_key(&[0; 32]);
        assert_eq!(id.0[..4], [0x66, 0x68, 0x7a, 0xad]);
        assert_eq!(id.0[16..], [0x08, 0x97, 0x14, 0x85]);
        assert_eq!(id.to_compact().len(), DeviceId::LEN_CHARS);
        assert_eq!(id.to_string(), "csm7-nbfr-cayq-ev4f-r65r-x7we-4049-e545");
    }

    #[test]
    fn an_id_is_read_as_people_type_it() {
        let id = DeviceId::of_public_key(&[0; 32]);
        for text in [
            "csm7-nbfr-cayq-ev4f-r65r-x7we-4049-e545",
            "csm7nbfrcayqev4fr65rx7we4049e545",
            "CSM7-NBFR-CAYQ-EV4F-R65R-X7WE-4O49-E545",
        ] {
            assert_eq!(text.parse(), Ok(id), "{text}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "csm7", "csm7-nbfr-cayq-ev4f-r65r-x7we-4049-e54u", "é", "----"] {
            assert_eq!(text.parse::<DeviceId>(), Err(ParseDeviceIdError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(bytes in any::<[u8; 20]>()) {
            let id = DeviceId(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(id.to_compact().parse(), Ok(id));
        }
    }
}
