//! Messages on a stream: a length (u32, little-endian), then that many bytes of postcard.
//!
//! The length is checked before anything is kept, and memory grows with the bytes that really
//! came, so a length costs the sender what it costs us.

use bytes::{Buf, BytesMut};

use crate::formats::limits::MESSAGE_BYTES_MAX;
use crate::wire::hello::ProtocolRange;
use crate::wire::message::Message;
use crate::wire::refusal::{Refusal, RefusalCode};

/// Why bytes are no message, or a message does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Longer than messages may be at this point of the conversation.
    #[error("the message has {len_bytes} bytes; {max_bytes} are allowed here")]
    TooLong {
        /// What it declares.
        len_bytes: usize,
        /// What is allowed.
        max_bytes: usize,
    },
    /// A number that this version does not know; the message is refused, not skipped.
    #[error("there is no message with the number {0}")]
    UnknownNumber(u32),
    /// Not the fields of that message.
    #[error("the bytes are not the message they claim to be")]
    Malformed(#[from] postcard::Error),
    /// Bytes behind the message, inside its length.
    #[error("{0} bytes follow the message inside its length")]
    Trailing(usize),
    /// By who greets in another version, whose other fields may be anything.
    #[error("{0}")]
    OtherVersion(Refusal),
}

impl From<FramingError> for Refusal {
    fn from(error: FramingError) -> Self {
        let code = match error {
            FramingError::OtherVersion(refusal) => return refusal,
            FramingError::TooLong { .. } => RefusalCode::TooLarge,
            FramingError::UnknownNumber(_) => RefusalCode::UnknownMessage,
            FramingError::Malformed(_) | FramingError::Trailing(_) => RefusalCode::BadRequest,
        };
        Self::new(code, error.to_string())
    }
}

/// Bytes of the length before each message.
pub const LENGTH_BYTES: usize = 4;

/// Writes a message with its length.
///
/// # Errors
///
/// [`FramingError::TooLong`] beyond [`MESSAGE_BYTES_MAX`].
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, FramingError> {
    let mut bytes = postcard::to_extend(message, vec![0_u8; LENGTH_BYTES])?;
    let len_bytes = bytes.len() - LENGTH_BYTES;
    let too_long = FramingError::TooLong { len_bytes, max_bytes: MESSAGE_BYTES_MAX };
    if len_bytes > MESSAGE_BYTES_MAX {
        return Err(too_long);
    }
    let length = u32::try_from(len_bytes).map_err(|_wider| too_long)?;
    for (to, from) in bytes.iter_mut().zip(length.to_le_bytes()) {
        *to = from;
    }
    Ok(bytes)
}

/// Finds messages in a stream of bytes, however it is cut into pieces.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    max_bytes: usize,
}

impl Decoder {
    /// A decoder that takes messages of at most `max_bytes`, and never more than
    /// [`MESSAGE_BYTES_MAX`].
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), max_bytes: max_bytes.min(MESSAGE_BYTES_MAX) }
    }

    /// Adds bytes of the stream. Ask for [`next_message`](Self::next_message) until it has none
    /// before adding more: then at most one message and one piece are held.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that are held: at most one message and one piece.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Whether the stream could end here: no message is half there.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    ///
    /// [`FramingError`]; nothing sensible follows on that stream.
    pub fn next_message<M: Message>(&mut self) -> Result<Option<M>, FramingError> {
        let Some(head) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len_bytes = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if len_bytes > self.max_bytes {
            return Err(FramingError::TooLong { len_bytes, max_bytes: self.max_bytes });
        }
        if self.buffer.len() - LENGTH_BYTES < len_bytes {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let body = self.buffer.split_to(len_bytes);
        if self.buffer.is_empty() {
            // Between messages nothing is kept, so that an idle stream costs no memory.
            self.buffer = BytesMut::new();
        }
        parse(&body).map(Some)
    }
}

fn parse<M: Message>(body: &[u8]) -> Result<M, FramingError> {
    let (number, fields) = postcard::take_from_bytes::<u32>(body)?;
    if number >= M::NUMBERS {
        return Err(FramingError::UnknownNumber(number));
    }
    if let Some(refusal) = M::greets(number).then(|| other_version(fields)).flatten() {
        return Err(FramingError::OtherVersion(refusal));
    }
    let (message, rest) = postcard::take_from_bytes::<M>(body)?;
    if rest.is_empty() || message.may_grow() {
        Ok(message)
    } else {
        Err(FramingError::Trailing(rest.len()))
    }
}

/// The refusal of a greeting whose versions are none of ours.
fn other_version(fields: &[u8]) -> Option<Refusal> {
    let (protocols, _fields) = postcard::take_from_bytes::<ProtocolRange>(fields).ok()?;
    protocols.choose().err().filter(|refusal| refusal.code == RefusalCode::UnsupportedVersion)
}

#[cfg(test)]
#[path = "framing/tests.rs"]
mod tests;
