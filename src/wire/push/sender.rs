//! The client's half of a push.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

use crate::formats::CacheName;
use crate::formats::limits::STREAM_IDLE_MAX;
use crate::wire::message::{
    BoxMessage, ChunkRef, ClientMessage, InlineChunk, Message, Offer, PushOutcome,
};
use crate::wire::push::check;
use crate::wire::refusal::Refusal;
use crate::wire::violation::Violation;

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum SenderEvent {
    /// A message of the box.
    Box(BoxMessage),
    /// [`ReadBatch`](SenderAction::ReadBatch) was done: the next chunks of the NAR with their
    /// raw bytes; none at its end.
    Batch(Vec<(ChunkRef, Bytes)>),
    /// [`Compress`](SenderAction::Compress) was done.
    Compressed {
        /// The batch.
        batch: u32,
        /// The place in it.
        index: u32,
        /// The chunk's zstd frame.
        frame: Bytes,
    },
    /// The NAR cannot be read on: it changed, or went away.
    SourceFailed(String),
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderAction {
    /// Say this to the box. Do it before the actions that follow.
    Send(ClientMessage),
    /// Read the next batch; answered by `Batch` or `SourceFailed`.
    ReadBatch,
    /// Make the frame of this chunk; answered by `Compressed` or `SourceFailed`, in the order
    /// of the actions.
    Compress {
        /// The batch.
        batch: u32,
        /// The place in it.
        index: u32,
        /// The chunk.
        raw: Bytes,
    },
    /// The bytes of the oldest batch are not needed any more.
    Forget,
    /// The end: what became of the push. Nothing more comes.
    End(Result<PushOutcome, SenderError>),
}

/// Why a push ended without an outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SenderError {
    /// The box said no.
    #[error("the box refused")]
    Refused(#[source] Refusal),
    /// The box broke the protocol.
    #[error("the box broke the protocol")]
    Violation(#[from] Violation),
    /// The box said nothing for too long while it was its turn.
    #[error("the box was silent for {} s", STREAM_IDLE_MAX.as_secs())]
    TimedOut,
    /// The NAR could not be read on.
    #[error("{0}")]
    Source(String),
}

/// The sending half of a push, as a pure state machine.
///
/// Feed it with [`handle`](Self::handle), and do what [`next_action`](Self::next_action) says
/// until that returns `None`. It holds the raw bytes of the batches under way: at most
/// `batches_in_flight` × `BATCH_BYTES_MAX`.
#[derive(Debug)]
pub struct Sender {
    batches: VecDeque<SentBatch>,
    batches_max: usize,
    next_number: u32,
    source: Source,
    /// Chunks asked for whose frames have not been made.
    compressing: usize,
    ended: bool,
    actions: VecDeque<SenderAction>,
    last_heard: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Idle,
    Reading,
    Ended,
}

#[derive(Debug)]
struct SentBatch {
    number: u32,
    chunks: Vec<(ChunkRef, Bytes)>,
}

impl Sender {
    /// Opens a push whose chunks follow in batches, `batches_in_flight` of them at a time.
    #[must_use]
    pub fn streamed(now: Instant, cache: CacheName, offer: Offer, batches_in_flight: u32) -> Self {
        let mut sender = Self::opened(now, cache, offer, Vec::new());
        sender.batches_max = usize::try_from(batches_in_flight).unwrap_or(1);
        sender.source = Source::Idle;
        sender.read_on();
        sender
    }

    /// Opens a push of a small NAR that travels whole with its offer.
    #[must_use]
    pub fn inline(now: Instant, cache: CacheName, offer: Offer, chunks: Vec<InlineChunk>) -> Self {
        Self::opened(now, cache, offer, chunks)
    }

    fn opened(now: Instant, cache: CacheName, offer: Offer, inline: Vec<InlineChunk>) -> Self {
        let first = SenderAction::Send(ClientMessage::Offer { cache, offer, inline });
        Self {
            batches: VecDeque::new(),
            batches_max: 0,
            next_number: 0,
            source: Source::Ended,
            compressing: 0,
            ended: false,
            actions: VecDeque::from([first]),
            last_heard: now,
        }
    }

    /// Takes an event that happened at `now`. What the box did wrong ends the push.
    pub fn handle(&mut self, now: Instant, event: SenderEvent) {
        if self.ended {
            return;
        }
        self.last_heard = now;
        let handled = match event {
            SenderEvent::Box(message) => self.on_message(message),
            SenderEvent::Batch(chunks) => self.on_batch(chunks),
            SenderEvent::Compressed { batch, index, frame } => {
                self.compressing = self.compressing.saturating_sub(1);
                let chunk = ClientMessage::Chunk { batch, index, frame };
                self.actions.push_back(SenderAction::Send(chunk));
                Ok(())
            }
            SenderEvent::SourceFailed(reason) => Err(SenderError::Source(reason)),
        };
        if let Err(error) = handled {
            self.give_up(error);
        }
    }

    /// Gives up if the box has been silent for too long; call it at the
    /// [`deadline`](Self::deadline).
    pub fn tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.give_up(SenderError::TimedOut);
        }
    }

    /// When to [`tick`](Self::tick): only while nothing is being read or compressed here.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let at_work = self.source == Source::Reading || self.compressing > 0;
        (!self.ended && !at_work).then(|| self.last_heard + STREAM_IDLE_MAX)
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<SenderAction> {
        self.actions.pop_front()
    }

    fn on_message(&mut self, message: BoxMessage) -> Result<(), SenderError> {
        match message {
            BoxMessage::Done(outcome) => {
                self.end(Ok(outcome));
                Ok(())
            }
            BoxMessage::Refused(refusal) => Err(SenderError::Refused(refusal)),
            BoxMessage::Need { batch, indexes } => self.on_need(batch, &indexes),
            BoxMessage::Taken { batch } => self.on_taken(batch),
            other => {
                let place = "in a push";
                Err(Violation::OutOfTurn { message: other.name(), place }.into())
            }
        }
    }

    fn on_need(&mut self, number: u32, indexes: &[u32]) -> Result<(), SenderError> {
        let batch = self.batches.iter().find(|batch| batch.number == number);
        let batch = batch.ok_or(Violation::BatchNumber(number))?;
        if indexes.is_empty() || !indexes.is_sorted_by(|one, next| one < next) {
            return Err(Violation::Indexes.into());
        }
        let wanted = indexes.iter().map(|index| {
            let place = usize::try_from(*index).ok()?;
            let (_, raw) = batch.chunks.get(place)?;
            Some(SenderAction::Compress { batch: number, index: *index, raw: raw.clone() })
        });
        let wanted: Vec<_> = wanted.collect::<Option<_>>().ok_or(Violation::Indexes)?;
        self.compressing += wanted.len();
        self.actions.extend(wanted);
        Ok(())
    }

    fn on_taken(&mut self, number: u32) -> Result<(), SenderError> {
        let oldest = self.batches.pop_front_if(|batch| batch.number == number);
        oldest.ok_or(Violation::BatchNumber(number))?;
        self.actions.push_back(SenderAction::Forget);
        self.read_on();
        Ok(())
    }

    fn on_batch(&mut self, chunks: Vec<(ChunkRef, Bytes)>) -> Result<(), SenderError> {
        if chunks.is_empty() {
            self.source = Source::Ended;
            self.actions.push_back(SenderAction::Send(ClientMessage::Finish));
            return Ok(());
        }
        let named: Vec<ChunkRef> = chunks.iter().map(|(chunk, _)| *chunk).collect();
        if let Err(wrong) = check::batch(&named) {
            return Err(SenderError::Source(wrong.to_string()));
        }
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        self.source = Source::Idle;
        self.batches.push_back(SentBatch { number, chunks });
        self.actions.push_back(SenderAction::Send(ClientMessage::Batch { number, chunks: named }));
        self.read_on();
        Ok(())
    }

    fn read_on(&mut self) {
        if self.source == Source::Idle && self.batches.len() < self.batches_max {
            self.source = Source::Reading;
            self.actions.push_back(SenderAction::ReadBatch);
        }
    }

    fn give_up(&mut self, error: SenderError) {
        let reason = match &error {
            SenderError::Source(reason) => Some(reason.clone()),
            SenderError::Violation(violation) => Some(violation.to_string()),
            SenderError::TimedOut => Some(error.to_string()),
            SenderError::Refused(_) => None,
        };
        if let Some(reason) = reason {
            self.actions.push_back(SenderAction::Send(ClientMessage::Abort { reason }));
        }
        self.end(Err(error));
    }

    fn end(&mut self, result: Result<PushOutcome, SenderError>) {
        self.ended = true;
        self.batches.clear();
        self.actions.push_back(SenderAction::End(result));
    }
}

#[cfg(test)]
mod tests;
