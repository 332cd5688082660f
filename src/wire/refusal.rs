//! Refusals: a code for programs and a sentence for people.

use serde::{Deserialize, Serialize};

/// Why a box does not do what it was asked. PROTOCOL.md, "Refusals".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// What kind it is.
    pub code: RefusalCode,
    /// One sentence fragment for people, lower case, without a full stop: what and why.
    pub sentence: String,
}

impl Refusal {
    /// A refusal with its sentence.
    #[must_use]
    pub fn new(code: RefusalCode, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into() }
    }
}

/// The kinds of refusal, by their numbers on the wire. A number once given keeps its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
#[non_exhaustive]
pub enum RefusalCode {
    /// 1: no token, a malformed, unknown, expired or revoked one, or one for another box.
    Unauthorised,
    /// 2: the token is good but does not allow this.
    Forbidden,
    /// 3: the box has no cache of that name.
    NoSuchCache,
    /// 10: bytes or an order of messages that the protocol does not allow.
    BadRequest,
    /// 11: a message number that this box does not know.
    UnknownMessage,
    /// 12: no version of the protocol in common.
    UnsupportedVersion,
    /// 13: a message, or an answer to it, that is longer than messages may be.
    TooLarge,
    /// 14: the client was silent for too long.
    TimedOut,
    /// 20: the NAR is not well-formed.
    BadNar,
    /// 21: the NAR hashes to something else than its NarHash.
    WrongNarHash,
    /// 22: the NAR has another size than its NarSize.
    WrongNarSize,
    /// 23: a frame is not one plain zstd frame of the declared size.
    BadFrame,
    /// 24: a chunk's bytes do not hash to its ID.
    WrongChunk,
    /// 25: a signature is missing or does not verify.
    BadSignature,
    /// 30: no room that collection could make.
    NoSpace,
    /// 31: the box cannot do it now; the same request may succeed later.
    Busy,
    /// 32: the box is going down.
    ShuttingDown,
    /// 33: the box failed; its log says how.
    Internal,
    /// A number that this version does not know.
    Other(u16),
}

impl RefusalCode {
    /// Every code of this version with its number on the wire.
    pub const ALL: [(Self, u16); 18] = [
        (Self::Unauthorised, 1),
        (Self::Forbidden, 2),
        (Self::NoSuchCache, 3),
        (Self::BadRequest, 10),
        (Self::UnknownMessage, 11),
        (Self::UnsupportedVersion, 12),
        (Self::TooLarge, 13),
        (Self::TimedOut, 14),
        (Self::BadNar, 20),
        (Self::WrongNarHash, 21),
        (Self::WrongNarSize, 22),
        (Self::BadFrame, 23),
        (Self::WrongChunk, 24),
        (Self::BadSignature, 25),
        (Self::NoSpace, 30),
        (Self::Busy, 31),
        (Self::ShuttingDown, 32),
        (Self::Internal, 33),
    ];

    /// Whether the same request may succeed later without anybody doing anything.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Busy | Self::ShuttingDown | Self::TimedOut)
    }

    /// The exit code of a command that ends with this refusal: 3 not found, 4 not authorised,
    /// 5 box unreachable, 6 verification failed, 8 refused for space, 1 anything else.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::NoSuchCache => 3,
            Self::Unauthorised | Self::Forbidden => 4,
            Self::ShuttingDown => 5,
            Self::BadNar
            | Self::WrongNarHash
            | Self::WrongNarSize
            | Self::BadFrame
            | Self::WrongChunk
            | Self::BadSignature => 6,
            Self::NoSpace => 8,
            Self::BadRequest
            | Self::UnknownMessage
            | Self::UnsupportedVersion
            | Self::TooLarge
            | Self::TimedOut
            | Self::Busy
            | Self::Internal
            | Self::Other(_) => 1,
        }
    }
}

impl From<u16> for RefusalCode {
    fn from(number: u16) -> Self {
        let known = Self::ALL.into_iter().find(|(_, its)| *its == number);
        known.map_or(Self::Other(number), |(code, _)| code)
    }
}

impl From<RefusalCode> for u16 {
    fn from(code: RefusalCode) -> Self {
        if let RefusalCode::Other(number) = code {
            return number;
        }
        let known = RefusalCode::ALL.into_iter().find(|(its, _)| *its == code);
        known.map_or(0, |(_, number)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back_as_itself() {
        for number in 0..=u16::MAX {
            assert_eq!(u16::from(RefusalCode::from(number)), number);
        }
    }

    #[test]
    fn failed_verification_has_an_exit_code_of_its_own() {
        let of_six = RefusalCode::ALL.into_iter().filter(|(code, _)| code.exit_code() == 6);
        assert_eq!(of_six.map(|(_, number)| number).collect::<Vec<_>>(), [20, 21, 22, 23, 24, 25]);
    }
}
