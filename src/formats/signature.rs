//! Ed25519 keys and signatures in Nix's spelling, `NAME:BASE64`.
//!
//! Source of the rules: `src/libutil/signature/local-keys.cc` (Nix 2.34). A secret key's bytes
//! are the 32-byte seed followed by the 32-byte public key, as libsodium keeps them.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

/// Longest key name that is read; ours have at most 80 characters.
pub const KEY_NAME_LEN_MAX: usize = 255;

/// Why a text is no key or no signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseKeyError {
    /// No colon, nothing before it, or a name that would break a line of a narinfo.
    #[error("it must be a key's name, a colon and base64; the name has no spaces")]
    Name,
    /// The part behind the colon is not base64.
    #[error("the part behind the colon is not base64")]
    Base64,
    /// The base64 has the wrong number of bytes.
    #[error("the part behind the colon is {found} bytes, not {expected}")]
    Length {
        /// What a value of this kind has.
        expected: usize,
        /// What this one has.
        found: usize,
    },
    /// The bytes are no point on the curve, or the halves of a secret key do not belong together.
    #[error("the bytes are no Ed25519 key")]
    Key,
}

/// A signature over a fingerprint, with the name of the key that made it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature {
    key_name: Box<str>,
    bytes: [u8; Self::LEN_BYTES],
}

/// A public key that somebody may trust.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey {
    name: Box<str>,
    key: VerifyingKey,
}

/// A secret key. Its `Debug` shows the name alone; the bytes are wiped when it is dropped.
#[derive(Clone)]
pub struct SecretKey {
    name: Box<str>,
    key: SigningKey,
}

impl Signature {
    /// Bytes of an Ed25519 signature.
    pub const LEN_BYTES: usize = 64;

    /// The name of the key that made it.
    #[must_use]
    pub fn key_name(&self) -> &str {
        &self.key_name
    }

    /// The signature without the key's name.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN_BYTES] {
        &self.bytes
    }
}

impl PublicKey {
    /// Bytes of an Ed25519 public key.
    pub const LEN_BYTES: usize = 32;

    /// The name that signatures by this key carry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key without its name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN_BYTES] {
        self.key.as_bytes()
    }

    /// Whether `signature` carries this key's name and is its signature of `message`.
    ///
    /// Strict (RFC 8032 with the checks of "Taming the many EdDSAs"): one message and key have no
    /// second valid signature, and weak keys sign nothing.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let bytes = ed25519_dalek::Signature::from_bytes(&signature.bytes);
        *self.name == *signature.key_name && self.key.verify_strict(message, &bytes).is_ok()
    }
}

/// Whether `signature` is one of `message` by a key that has no name in Nix: a device's. As strict
/// as [`PublicKey::verifies`].
#[must_use]
pub fn verifies_unnamed(
    key: &[u8; PublicKey::LEN_BYTES],
    message: &[u8],
    signature: &[u8; Signature::LEN_BYTES],
) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    let key = VerifyingKey::from_bytes(key);
    key.is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

impl SecretKey {
    /// Bytes of the seed that a key is made from.
    pub const SEED_LEN_BYTES: usize = 32;

    /// The key that grows from `seed`; the caller takes care that it is random and stays secret.
    ///
    /// # Errors
    ///
    /// [`ParseKeyError::Name`] for a name that cannot stand in a narinfo.
    pub fn from_seed(name: &str, seed: &[u8; Self::SEED_LEN_BYTES]) -> Result<Self, ParseKeyError> {
        Ok(Self { name: checked_name(name)?, key: SigningKey::from_bytes(seed) })
    }

    /// The name that signatures by this key carry.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A key that came without its name, as cachix exports it: base64 of 64 bytes as in a text with
    /// a name, or of a seed.
    ///
    /// # Errors
    ///
    /// [`ParseKeyError`].
    pub fn from_bare_text(name: &str, text: &str) -> Result<Self, ParseKeyError> {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_text| ParseKeyError::Base64)?;
        match <[u8; Self::SEED_LEN_BYTES]>::try_from(bytes.as_slice()) {
            Ok(seed) => Self::from_seed(name, &seed),
            Err(_other_length) => format!("{name}:{text}").parse(),
        }
    }

    /// The same key under another name.
    ///
    /// # Errors
    ///
    /// [`ParseKeyError::Name`] for a name that cannot stand in a narinfo.
    pub fn renamed(&self, name: &str) -> Result<Self, ParseKeyError> {
        Ok(Self { name: checked_name(name)?, key: self.key.clone() })
    }

    /// The half that may be shown.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs `message`.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature { key_name: self.name.clone(), bytes: self.key.sign(message).to_bytes() }
    }

    /// The key as Nix keeps it in a file, `NAME:BASE64`. Whoever reads it can sign.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        format!("{}:{}", self.name, BASE64.encode(&self.key.to_keypair_bytes()))
    }
}

impl FromStr for Signature {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key_name, bytes) = parse(text)?;
        Ok(Self { key_name, bytes })
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, bytes) = parse(text)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_not_a_point| ParseKeyError::Key)?;
        Ok(Self { name, key })
    }
}

impl FromStr for SecretKey {
    type Err = ParseKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, bytes) = parse(text)?;
        let key = SigningKey::from_keypair_bytes(&bytes).map_err(|_halves| ParseKeyError::Key)?;
        Ok(Self { name, key })
    }
}

fn parse<const LEN: usize>(text: &str) -> Result<(Box<str>, [u8; LEN]), ParseKeyError> {
    let (name, encoded) = text.split_once(':').ok_or(ParseKeyError::Name)?;
    let name = checked_name(name)?;
    let bytes = BASE64.decode(encoded.as_bytes()).map_err(|_text| ParseKeyError::Base64)?;
    let found = bytes.len();
    let bytes = bytes.try_into().map_err(|_l| ParseKeyError::Length { expected: LEN, found })?;
    Ok((name, bytes))
}

fn checked_name(name: &str) -> Result<Box<str>, ParseKeyError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    if name.is_empty() || name.len() > KEY_NAME_LEN_MAX || !name.bytes().all(plain) {
        return Err(ParseKeyError::Name);
    }
    Ok(name.into())
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.key_name, BASE64.encode(&self.bytes))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, BASE64.encode(self.key.as_bytes()))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.name)
    }
}

impl TryFrom<String> for Signature {
    type Error = ParseKeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for PublicKey {
    type Error = ParseKeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> Self {
        signature.to_string()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> SecretKey {
        SecretKey::from_seed(name, &[7; 32]).unwrap()
    }

    #[test]
    fn a_signature_is_of_one_message_key_and_name() {
        let signature = key("main.box.local-1").sign(b"message");
        assert!(key("main.box.local-1").public_key().verifies(b"message", &signature));
        assert!(!key("main.box.local-1").public_key().verifies(b"massage", &signature));
        assert!(!key("main.box.local-2").public_key().verifies(b"message", &signature));
        let other = SecretKey::from_seed("main.box.local-1", &[8; 32]).unwrap();
        assert!(!other.public_key().verifies(b"message", &signature));
    }

    #[test]
    fn texts_come_back_as_they_were() {
        let secret = key("a-1");
        let again: SecretKey = secret.to_secret_text().parse().unwrap();
        assert_eq!(again.to_secret_text(), secret.to_secret_text());
        let public: PublicKey = secret.public_key().to_string().parse().unwrap();
        let signature: Signature = secret.sign(b"x").to_string().parse().unwrap();
        assert!(public.verifies(b"x", &signature));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let public = key("a-1").public_key().to_string();
        for text in ["", ":", "a", ":AAAA", "a b:AAAA", "a\n:AAAA", "a:????", "a:AAAA"] {
            assert!(text.parse::<PublicKey>().is_err(), "{text:?}");
            assert!(text.parse::<Signature>().is_err(), "{text:?}");
        }
        assert_eq!(
            public.parse::<Signature>(),
            Err(ParseKeyError::Length { expected: 64, found: 32 })
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", key("a-1")), "SecretKey(a-1)");
    }
}
