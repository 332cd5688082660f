//! What a client hears of a push that was not taken.

use tracing::error;

use crate::services::chain::Chain;
use crate::services::publish::{AttachError, PublishError};
use crate::store::{IngestError, StoreError};
use crate::wire::{Refusal, RefusalCode};

impl From<PublishError> for Refusal {
    /// A failure of the store is logged here; the client hears no more than that there was one.
    fn from(error: PublishError) -> Self {
        let code = match &error {
            PublishError::NoSuchCache(_) => RefusalCode::NoSuchCache,
            PublishError::Forbidden { .. } => RefusalCode::Forbidden,
            PublishError::BadFacts(_)
            | PublishError::FramesMissing
            | PublishError::FramesUnasked => RefusalCode::BadRequest,
            PublishError::BadSignature | PublishError::Unsigned(_) => RefusalCode::BadSignature,
            PublishError::Attach(error) => of_attach(error),
            PublishError::Ingest(IngestError::Store(cause)) | PublishError::Store(cause) => {
                return of_store(cause);
            }
            PublishError::Ingest(cause) => {
                return Self::new(of_ingest(cause), Chain(cause).to_string());
            }
        };
        Self::new(code, error.to_string())
    }
}

fn of_attach(error: &AttachError) -> RefusalCode {
    match error {
        AttachError::TooLarge { .. } => RefusalCode::TooLarge,
        AttachError::Frame { .. } => RefusalCode::BadFrame,
        AttachError::Unsigned(_) => RefusalCode::BadSignature,
        AttachError::Name | AttachError::Realisation(_) => RefusalCode::BadRequest,
    }
}

fn of_ingest(error: &IngestError) -> RefusalCode {
    match error {
        IngestError::Nar(_) => RefusalCode::BadNar,
        IngestError::WrongHash { .. } => RefusalCode::WrongNarHash,
        IngestError::WrongSize { .. } => RefusalCode::WrongNarSize,
        IngestError::BadFrame { .. } => RefusalCode::BadFrame,
        IngestError::WrongChunk { .. } => RefusalCode::WrongChunk,
        IngestError::NotLookedUp { .. } | IngestError::ChunkLength { .. } => {
            RefusalCode::BadRequest
        }
        IngestError::TooManyChunks => RefusalCode::TooLarge,
        IngestError::Store(_) => RefusalCode::Internal,
    }
}

fn of_store(error: &StoreError) -> Refusal {
    if let StoreError::Closed = error {
        return Refusal::new(RefusalCode::ShuttingDown, "the box is shutting down");
    }
    if let StoreError::NoSuchCache = error {
        let sentence = "the cache was deleted while the push was under way; nothing was kept";
        return Refusal::new(RefusalCode::NoSuchCache, sentence);
    }
    if error.is_no_space() {
        error!(error = %Chain(error), "There is no room for a push");
        let sentence = match error {
            StoreError::NoSpace { .. } => error.to_string(),
            _ => "the box's disk is full".to_owned(),
        };
        return Refusal::new(RefusalCode::NoSpace, sentence);
    }
    if error.is_transient() {
        let sentence = if error.is_of_disk() {
            error!(error = %Chain(error), "The disk failed during a push");
            "the box could not write to its disk, and acknowledged nothing of it; 'larder status' \
             and its log say why. Push again"
        } else {
            "some of what the box had promised to have is gone; push again"
        };
        return Refusal::new(RefusalCode::Busy, sentence);
    }
    error!(error = %Chain(error), "The store failed during a push");
    let sentence = if error.is_of_disk() {
        "the box cannot write to its disk; 'larder status' and its log say why. It goes on taking \
         pushes by itself as soon as it can"
    } else {
        "the box's store failed; its log says how"
    };
    Refusal::new(RefusalCode::Internal, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Sha256Hash;

    #[test]
    fn a_client_hears_a_code_and_what_happened() {
        let (expected, found) = (Sha256Hash::of(b"a"), Sha256Hash::of(b"b"));
        let wrong = PublishError::Ingest(IngestError::WrongHash { expected, found });
        let refusal = Refusal::from(wrong);
        assert_eq!(refusal.code, RefusalCode::WrongNarHash);
        assert!(refusal.sentence.contains(&found.to_string()), "{refusal}");

        let cache = "main".parse().unwrap();
        let refusal = Refusal::from(PublishError::Forbidden { cache });
        assert_eq!(refusal.code, RefusalCode::Forbidden);
        assert!(refusal.sentence.contains("'main'"), "{refusal}");
    }

    #[test]
    fn chunks_that_vanished_are_worth_another_try() {
        let vanished = StoreError::ChunksVanished { nar_hash: Sha256Hash::of(b"a"), count: 1 };
        assert_eq!(Refusal::from(PublishError::Store(vanished)).code, RefusalCode::Busy);
        let deleted = Refusal::from(PublishError::Store(StoreError::NoSuchCache));
        assert_eq!(deleted.code, RefusalCode::NoSuchCache);
        assert_eq!(
            Refusal::from(PublishError::Store(StoreError::Closed)).code,
            RefusalCode::ShuttingDown
        );
    }
}
