//! What the other side did that the protocol does not allow.

use crate::formats::limits::{
    BATCH_BYTES_MAX, BATCH_CHUNKS_MAX, BATCHES_IN_FLIGHT_MAX, CHUNK_BYTES_MAX,
    CONTENT_ADDRESS_BYTES_MAX, FRAME_BYTES_MAX, INLINE_NAR_BYTES_MAX, MISSING_HASHES_MAX,
    REFERENCES_MAX, SIGNATURES_MAX,
};
use crate::wire::refusal::{Refusal, RefusalCode};

/// A message that breaks the protocol: out of its turn, or with a number or length that cannot
/// be. The conversation ends there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A message that does not belong there.
    #[error("'{message}' does not belong {place}")]
    OutOfTurn {
        /// The message's name in PROTOCOL.md.
        message: &'static str,
        /// Where the conversation was.
        place: &'static str,
    },
    /// An index beyond the list it points into, or not in ascending order.
    #[error("the indexes are not ascending, or point beyond the list they are for")]
    Indexes,
    /// A batch whose number is not the one that follows.
    #[error("batches are numbered from 0 without gaps; {0} is not the next")]
    BatchNumber(u32),
    /// No chunks, or too many.
    #[error("a batch has 1 to {BATCH_CHUNKS_MAX} chunks and at most {BATCH_BYTES_MAX} bytes")]
    BatchSize,
    /// More batches than may be under way.
    #[error("at most {BATCHES_IN_FLIGHT_MAX} batches may be under way")]
    BatchesInFlight,
    /// A chunk of no bytes or of too many.
    #[error("a chunk has 1 to {CHUNK_BYTES_MAX} bytes")]
    ChunkSize,
    /// A chunk that was not asked for, or not in the order asked.
    #[error("the chunk is not the one that was asked for next")]
    ChunkOrder,
    /// A frame of no bytes or of too many.
    #[error("a frame has 1 to {FRAME_BYTES_MAX} bytes")]
    FrameSize,
    /// Chunks inside an offer that are not a small NAR's.
    #[error("only a NAR of at most {INLINE_NAR_BYTES_MAX} bytes travels whole with its offer")]
    Inline,
    /// Facts of a path that cannot be: a size of 0, references unsorted or doubled, or too many.
    #[error(
        "the NAR has at least one byte; references are sorted, without doubles and at most \
         {REFERENCES_MAX}, signatures at most {SIGNATURES_MAX}"
    )]
    PathFacts,
    /// A content address that cannot stand in a narinfo.
    #[error("a content address is at most {CONTENT_ADDRESS_BYTES_MAX} visible ASCII characters")]
    ContentAddress,
    /// A device signature of another length.
    #[error("a device signature has 64 bytes")]
    DeviceSignature,
    /// Too many hashes in one question.
    #[error("one question asks for at most {MISSING_HASHES_MAX} hashes")]
    TooManyHashes,
    /// A protocol range the wrong way round, or an answer outside of it.
    #[error("the protocol version is outside the range that was offered")]
    ProtocolRange,
    /// A name that the client or the box gives itself and that is empty, long or not printable.
    #[error("a name is 1 to 100 characters without control characters")]
    Name,
}

impl From<Violation> for Refusal {
    fn from(violation: Violation) -> Self {
        Self::new(RefusalCode::BadRequest, violation.to_string())
    }
}
