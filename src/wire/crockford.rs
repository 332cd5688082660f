//! Crockford's base-32: what people read aloud and type, so `I` and `L` are ones, `O` is a zero
//! and case does not matter. Written in lower case, most significant digit first, no check digit.
//!
//! Source: <https://www.crockford.com/base32.html>.

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Writes `bytes`; 5 bits a character, the last one filled up with zero bits.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 8).div_ceil(5));
    let (mut pending, mut pending_bits) = (0_u16, 0_u32);
    for byte in bytes {
        pending = pending << 8 | u16::from(*byte);
        pending_bits += 8;
        while pending_bits >= 5 {
            pending_bits -= 5;
            text.push(digit(pending >> pending_bits));
            pending &= (1 << pending_bits) - 1;
        }
    }
    if pending_bits > 0 {
        text.push(digit(pending << (5 - pending_bits)));
    }
    text
}

/// Reads exactly `LEN` bytes; `None` for another length, a foreign character, or bits beyond the
/// last byte, so that a value has one spelling apart from the lenient characters.
pub(crate) fn decode<const LEN: usize>(text: &[u8]) -> Option<[u8; LEN]> {
    if text.len() != (LEN * 8).div_ceil(5) {
        return None;
    }
    let mut bytes = [0_u8; LEN];
    let mut places = bytes.iter_mut();
    let (mut pending, mut pending_bits) = (0_u16, 0_u32);
    for character in text {
        pending = pending << 5 | value_of(*character)?;
        pending_bits += 5;
        if pending_bits >= 8 {
            pending_bits -= 8;
            *places.next()? = u8::try_from(pending >> pending_bits).ok()?;
            pending &= (1 << pending_bits) - 1;
        }
    }
    (pending == 0).then_some(bytes)
}

fn digit(value: u16) -> char {
    ALPHABET.get(usize::from(value & 31)).copied().map_or('0', char::from)
}

fn value_of(character: u8) -> Option<u16> {
    let plain = match character.to_ascii_lowercase() {
        b'i' | b'l' => b'1',
        b'o' => b'0',
        other => other,
    };
    ALPHABET.iter().zip(0_u16..).find_map(|(digit, value)| (*digit == plain).then_some(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_digits_are_those_of_crockford() {
        assert_eq!(encode(&[0, 0, 0, 0, 0]), "00000000");
        assert_eq!(encode(&[0xff; 5]), "zzzzzzzz");
        // 00000 00001 00010 ... 00111: the first eight digits.
        assert_eq!(encode(&[0x00, 0x44, 0x32, 0x14, 0xc7]), "01234567");
        assert_eq!(encode(&[0x80]), "g0");
    }

    #[test]
    fn look_alikes_are_read_as_what_they_look_like() {
        assert_eq!(decode::<5>(b"OIL0oilO"), decode::<5>(b"01100110"));
        assert_eq!(decode::<5>(b"ABCDEFGH"), decode::<5>(b"abcdefgh"));
        assert_eq!(decode::<5>(b"0000000u"), None);
        assert_eq!(decode::<5>(b"0000000"), None);
        assert_eq!(decode::<1>(b"zz"), None, "bits beyond the last byte");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in any::<[u8; 32]>()) {
            prop_assert_eq!(decode::<32>(encode(&bytes).as_bytes()), Some(bytes));
        }
    }
}
