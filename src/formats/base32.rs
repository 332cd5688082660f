//! Nix's base-32: an alphabet of its own, least significant digit last, no padding.
//!
//! Source of the rule: `src/libutil/base-nix-32.cc` (Nix 2.34; `hash.cc` up to 2.28).

/// The 32 digits: digits and lower-case letters without `e`, `o`, `t` and `u`.
pub const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// Why a text is not Nix base-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A character that is not one of [`ALPHABET`].
    #[error("'{}' is not a digit of Nix base-32", char::from(*.0).escape_default())]
    Digit(u8),
    /// A length that no whole number of bytes encodes to, or bits set beyond the last byte.
    #[error("{0} characters are no whole number of bytes in Nix base-32")]
    Length(usize),
}

/// How many characters `bytes` bytes take.
#[must_use]
pub const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Writes `bytes` in Nix base-32.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    let digit = |position: usize| {
        let bit = position * 5;
        let (index, shift) = (bit / 8, bit % 8);
        let low = u16::from(bytes[index]);
        let high = u16::from(bytes.get(index + 1).copied().unwrap_or(0));
        let value = ((high << 8 | low) >> shift) & 31;
        char::from(ALPHABET[usize::from(value)])
    };
    (0..encoded_len(bytes.len())).rev().map(digit).collect()
}

/// Reads Nix base-32.
///
/// # Errors
///
/// [`DecodeError`] for a foreign character, or for a text that [`encode`] cannot have written.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let length = text.len() * 5 / 8;
    if encoded_len(length) != text.len() {
        return Err(DecodeError::Length(text.len()));
    }
    let mut bytes = vec![0_u8; length];
    for (position, character) in text.iter().rev().enumerate() {
        let value = value_of(*character).ok_or(DecodeError::Digit(*character))?;
        let bit = position * 5;
        let (index, shift) = (bit / 8, bit % 8);
        let [low, high] = (u16::from(value) << shift).to_le_bytes();
        bytes[index] |= low;
        match bytes.get_mut(index + 1) {
            Some(next) => *next |= high,
            None if high != 0 => return Err(DecodeError::Length(text.len())),
            None => {}
        }
    }
    Ok(bytes)
}

fn value_of(character: u8) -> Option<u8> {
    ALPHABET.iter().zip(0_u8..).find_map(|(digit, value)| (*digit == character).then_some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_empty_text_is_no_bytes() {
        assert_eq!(encode(b""), "");
        assert_eq!(decode(b""), Ok(Vec::new()));
    }

    #[test]
    fn a_known_hash_reads_as_nix_prints_it() {
        // `nix-hash --type sha256 --flat --base32` of an empty file.
        let text = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";
        let bytes = decode(text.as_bytes()).unwrap();
        assert_eq!(bytes[..4], [0xe3, 0xb0, 0xc4, 0x42]);
        assert_eq!(encode(&bytes), text);
    }

    #[test]
    fn bits_beyond_the_last_byte_are_refused() {
        assert_eq!(decode(b"zz"), Err(DecodeError::Length(2)));
        assert_eq!(decode(b"e0"), Err(DecodeError::Digit(b'e')));
        assert_eq!(decode(b"0"), Err(DecodeError::Length(1)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Ok(bytes));
        }

        #[test]
        fn a_text_has_one_reading(text in "[0-9a-df-np-sv-z]{0,60}") {
            if let Ok(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
