//! What both pages take from Nix: its base-32, SHA-256, and the fingerprint of a path.

use ring::digest::{SHA256, digest};

const NIX_ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

/// Nix's base-32 (`printHash32` in `libutil/hash.cc`): the last digits of the number first.
pub(super) fn nix_base32(bytes: &[u8]) -> String {
    let digits = (bytes.len() * 8).div_ceil(5);
    let digit = |place: usize| {
        let (byte, shift) = (place * 5 / 8, place * 5 % 8);
        let high = bytes.get(byte + 1).copied().unwrap_or_default();
        let pair = u16::from_le_bytes([bytes[byte], high]);
        char::from(NIX_ALPHABET[usize::from(pair >> shift & 31)])
    };
    (0..digits).rev().map(digit).collect()
}

/// The 20 bytes of a base name's hash part.
pub(super) fn hash_part(base_name: &str) -> [u8; 20] {
    let mut bytes = [0; 20];
    for (place, digit) in base_name.bytes().take(32).collect::<Vec<_>>().iter().rev().enumerate() {
        let value = NIX_ALPHABET.iter().position(|known| known == digit).unwrap();
        let (byte, shift) = (place * 5 / 8, place * 5 % 8);
        let pair = (u16::try_from(value).unwrap() << shift).to_le_bytes();
        bytes[byte] |= pair[0];
        if let Some(next) = bytes.get_mut(byte + 1) {
            *next |= pair[1];
        }
    }
    bytes
}

/// The text that Nix signs, of a path by its base name and those of its references.
pub(super) fn fingerprint(
    base_name: &str,
    nar_hash: &[u8],
    nar_size: u64,
    references: &[String],
) -> String {
    let references: Vec<_> = references.iter().map(|name| format!("/nix/store/{name}")).collect();
    let hash = nix_base32(nar_hash);
    format!("1;/nix/store/{base_name};sha256:{hash};{nar_size};{}", references.join(","))
}
