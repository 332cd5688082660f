//! What must hold of numbers and lengths in a push, whoever sent them.

use crate::formats::PathInfo;
use crate::formats::limits::{
    BATCH_BYTES_MAX, BATCH_CHUNKS_MAX, CHUNK_BYTES_MAX, CONTENT_ADDRESS_BYTES_MAX, FRAME_BYTES_MAX,
    INLINE_NAR_BYTES_MAX, REFERENCES_MAX, SIGNATURES_MAX,
};
use crate::formats::signature::Signature;
use crate::wire::message::{ChunkRef, InlineChunk, Offer};
use crate::wire::violation::Violation;

/// The facts of a path that can be checked without a store.
pub(super) fn offer(offer: &Offer) -> Result<(), Violation> {
    let info = &offer.info;
    let plain = |ca: &String| {
        ca.len() <= CONTENT_ADDRESS_BYTES_MAX && ca.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if info.nar_size == 0
        || info.references.len() > REFERENCES_MAX
        || info.signatures.len() > SIGNATURES_MAX
        || !info.references.is_sorted_by(|one, next| one < next)
    {
        Err(Violation::PathFacts)
    } else if !info.ca.as_ref().is_none_or(plain) {
        Err(Violation::ContentAddress)
    } else if offer.device_signature.len() != Signature::LEN_BYTES {
        Err(Violation::DeviceSignature)
    } else {
        Ok(())
    }
}

/// The chunks of a batch; their raw bytes all together.
pub(super) fn batch(chunks: &[ChunkRef]) -> Result<u64, Violation> {
    if chunks.is_empty() || chunks.len() > BATCH_CHUNKS_MAX {
        return Err(Violation::BatchSize);
    }
    if chunks.iter().any(|chunk| chunk.raw_len == 0 || chunk.raw_len > CHUNK_BYTES_MAX) {
        return Err(Violation::ChunkSize);
    }
    let raw_bytes = chunks.iter().map(|chunk| u64::from(chunk.raw_len)).sum();
    if raw_bytes > BATCH_BYTES_MAX { Err(Violation::BatchSize) } else { Ok(raw_bytes) }
}

/// The chunks that travel with the offer of a small NAR.
pub(super) fn inline(info: &PathInfo, chunks: &[InlineChunk]) -> Result<(), Violation> {
    if info.nar_size > INLINE_NAR_BYTES_MAX {
        return Err(Violation::Inline);
    }
    let sane = |chunk: &InlineChunk| (1..=FRAME_BYTES_MAX).contains(&chunk.frame.len());
    if chunks.iter().all(sane) { Ok(()) } else { Err(Violation::FrameSize) }
}
