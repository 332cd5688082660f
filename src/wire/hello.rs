//! The greeting on the control stream: who speaks which versions, and what the token allows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::formats::CacheName;
use crate::formats::limits::{BATCHES_IN_FLIGHT_MAX, INLINE_NAR_BYTES_MAX, MISSING_HASHES_MAX};
use crate::formats::signature::PublicKey;
use crate::wire::refusal::{Refusal, RefusalCode};
use crate::wire::violation::Violation;

/// TLS's name for the protocol; a later one that shares nothing with this has another number.
pub const ALPN: &[u8] = b"larder/1";

/// Longest Hello, so that who has shown no token costs little.
pub const HELLO_BYTES_MAX: usize = 4 << 10;

const NAME_CHARS_MAX: usize = 100;

/// The versions that somebody speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// The oldest.
    pub lowest: u16,
    /// The newest.
    pub highest: u16,
}

impl ProtocolRange {
    /// What this program speaks.
    pub const OURS: Self = Self { lowest: 2, highest: 2 };

    /// The newest version that is in both ranges.
    #[must_use]
    pub fn newest_in_common(self, other: Self) -> Option<u16> {
        let newest = self.highest.min(other.highest);
        (newest >= self.lowest.max(other.lowest)).then_some(newest)
    }

    /// The version to speak with a client that speaks these, on the box's side.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that says what the box speaks.
    pub fn choose(self) -> Result<u16, Refusal> {
        if self.lowest > self.highest {
            return Err(Violation::ProtocolRange.into());
        }
        let ours = Self::OURS;
        ours.newest_in_common(self).ok_or_else(|| {
            Refusal::new(
                RefusalCode::UnsupportedVersion,
                format!(
                    "this box speaks versions {} to {} of the protocol, the client {} to {}; \
                     update the older one",
                    ours.lowest, ours.highest, self.lowest, self.highest
                ),
            )
        })
    }

    fn contains(self, version: u16) -> bool {
        (self.lowest..=self.highest).contains(&version)
    }
}

/// What one side can do beyond the version, a bit each. A bit that this program does not know means
/// nothing to it; what a bit stands for is used only where both sides have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Bit 0: attachments, which are build logs and realisations.
    pub const ATTACHMENTS: Self = Self(1);
    /// What this program can do.
    pub const OURS: Self = Self::ATTACHMENTS;

    /// Whether all of `other` is among these.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A token's text as it was presented, not checked yet. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PresentedToken(String);

impl PresentedToken {
    /// The text, for the one place that checks it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for PresentedToken {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedToken(…)")
    }
}

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The versions that the client speaks.
    pub protocols: ProtocolRange,
    /// Program and version, for the box's log; 1 to 100 characters.
    pub agent: String,
    /// The token's text; empty to hear only what everybody may read.
    pub token: PresentedToken,
    /// The client's Ed25519 device key, whose signatures come with its pushes.
    pub device_key: [u8; 32],
    /// What the client can do. Later versions may say more behind it.
    pub capabilities: Capabilities,
}

impl Hello {
    /// The version to speak, on the box's side.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that says what the box speaks, or what is wrong with the message.
    pub fn choose_protocol(&self) -> Result<u16, Refusal> {
        check_name(&self.agent)?;
        self.protocols.choose()
    }
}

/// Who signs what a cache serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signing {
    /// 0: the box, with a key that it keeps.
    Managed,
    /// 1: who pushes, with a registered key.
    SelfSigned,
}

/// One cache that the token may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheAccess {
    /// Its name.
    pub name: CacheName,
    /// Whether the token may read it.
    pub may_read: bool,
    /// Whether the token may push to it.
    pub may_write: bool,
    /// Who signs.
    pub signing: Signing,
    /// Keys whose signatures the cache serves, newest first.
    pub public_keys: Vec<PublicKey>,
    /// Whether everybody may read it, without a token.
    pub is_public: bool,
}

/// How much the client may ask at once; never more than the protocol's own limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Hashes in one Missing.
    pub missing_hashes: u32,
    /// Largest NAR, in bytes, that may travel with its offer.
    pub inline_nar_bytes: u64,
    /// Batches of one push that may be under way.
    pub batches_in_flight: u32,
}

impl Limits {
    /// What this program takes as a box.
    #[must_use]
    pub fn ours() -> Self {
        Self {
            missing_hashes: u32::try_from(MISSING_HASHES_MAX).unwrap_or(u32::MAX),
            inline_nar_bytes: INLINE_NAR_BYTES_MAX,
            batches_in_flight: u32::try_from(BATCHES_IN_FLIGHT_MAX).unwrap_or(u32::MAX),
        }
    }
}

/// What a box says to a client whose token is good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both speak from here on.
    pub protocol: u16,
    /// The box's name, such as `office`.
    pub box_name: String,
    /// Whether the token is a personal one: it may do everything, administration too.
    pub personal: bool,
    /// The caches that the token may use, in the order of their names.
    pub caches: Vec<CacheAccess>,
    /// How much may be asked at once.
    pub limits: Limits,
    /// The TCP port on which the box serves HTTP.
    pub http_port: u16,
    /// What the box can do. Later versions may say more behind it.
    pub capabilities: Capabilities,
}

impl Welcome {
    /// Checks it on the client's side and brings the limits under the client's own.
    ///
    /// # Errors
    ///
    /// [`Violation`] for a version that was not offered, a name that cannot be shown, or a limit
    /// under which nothing can be done.
    pub fn checked(mut self) -> Result<Self, Violation> {
        check_name(&self.box_name)?;
        let ours = Limits::ours();
        let limits = &mut self.limits;
        limits.missing_hashes = limits.missing_hashes.min(ours.missing_hashes);
        limits.inline_nar_bytes = limits.inline_nar_bytes.min(ours.inline_nar_bytes);
        limits.batches_in_flight = limits.batches_in_flight.min(ours.batches_in_flight);
        let useless = limits.missing_hashes == 0 || limits.batches_in_flight == 0;
        if useless || !ProtocolRange::OURS.contains(self.protocol) {
            return Err(Violation::ProtocolRange);
        }
        Ok(self)
    }
}

pub(super) fn check_name(name: &str) -> Result<(), Violation> {
    let sane = !name.is_empty()
        && name.chars().count() <= NAME_CHARS_MAX
        && !name.chars().any(char::is_control);
    if sane { Ok(()) } else { Err(Violation::Name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(lowest: u16, highest: u16) -> Hello {
        Hello {
            protocols: ProtocolRange { lowest, highest },
            agent: "larder 0.1.0".into(),
            token: "secret".to_owned().into(),
            device_key: [1; 32],
            capabilities: Capabilities::OURS,
        }
    }

    fn welcome() -> Welcome {
        Welcome {
            protocol: 2,
            box_name: "office".into(),
            personal: true,
            caches: Vec::new(),
            limits: Limits::ours(),
            http_port: 5273,
            capabilities: Capabilities::OURS,
        }
    }

    #[test]
    fn the_newest_version_in_common_is_spoken() {
        let range = |lowest, highest| ProtocolRange { lowest, highest };
        assert_eq!(range(1, 3).newest_in_common(range(2, 5)), Some(3));
        assert_eq!(range(2, 5).newest_in_common(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).newest_in_common(range(2, 5)), None);
        assert_eq!(hello(1, 9).choose_protocol(), Ok(2));
    }

    #[test]
    fn a_client_from_another_time_is_told_what_the_box_speaks() {
        let refusal = hello(3, 4).choose_protocol().unwrap_err();
        assert_eq!(refusal.code, RefusalCode::UnsupportedVersion);
        assert!(refusal.sentence.contains("2 to 2"), "{refusal}");
        assert_eq!(hello(2, 1).choose_protocol().unwrap_err().code, RefusalCode::BadRequest);
    }

    #[test]
    fn names_that_would_break_a_log_line_are_refused() {
        for agent in ["", "a\nb", "a\u{1b}[31m", &"x".repeat(101)] {
            let hello = Hello { agent: agent.into(), ..hello(2, 2) };
            assert_eq!(hello.choose_protocol().unwrap_err().code, RefusalCode::BadRequest);
        }
    }

    #[test]
    fn a_welcome_is_brought_under_our_limits() {
        let generous = Limits {
            missing_hashes: u32::MAX,
            inline_nar_bytes: u64::MAX,
            batches_in_flight: u32::MAX,
        };
        let checked = Welcome { limits: generous, ..welcome() }.checked().unwrap();
        assert_eq!(checked.limits, Limits::ours());
        let useless = Limits { batches_in_flight: 0, ..generous };
        assert!(Welcome { limits: useless, ..welcome() }.checked().is_err());
        assert!(Welcome { protocol: 3, ..welcome() }.checked().is_err());
    }

    #[test]
    fn debug_shows_no_token() {
        assert!(!format!("{:?}", hello(1, 1)).contains("secret"));
    }
}
