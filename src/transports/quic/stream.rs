//! Messages on a stream: `wire::framing` with a link's streams under it.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use crate::formats::limits::MESSAGE_BYTES_MAX;
use crate::transports::quic::link::{LinkError, RecvHalf, SendHalf};
use crate::transports::quic::room::Share;
use crate::wire::framing::{self, Decoder, FramingError};
use crate::wire::message::Message;

/// Why no message came or went.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The bytes are no message, or the message does not fit.
    #[error("a message is malformed")]
    Framing(#[from] FramingError),
    /// The stream ended inside a message.
    #[error("the stream ended inside a message")]
    Cut,
    /// The stream or its connection broke.
    #[error("cannot read from the stream")]
    Read(#[source] LinkError),
    /// Too much of other messages is half there.
    #[error("there is no room for the message")]
    NoRoom,
    /// The stream or its connection broke.
    #[error("cannot write to the stream")]
    Write(#[source] LinkError),
    /// The other side does not read any more; it may still answer.
    #[error("the other side has stopped reading")]
    Stopped,
}

/// The half that messages come from.
#[derive(Debug)]
pub(super) struct MessageReader {
    stream: RecvHalf,
    decoder: Decoder,
    share: Option<Share>,
    received_bytes: u64,
}

impl MessageReader {
    /// A reader that takes messages of at most `max_bytes`.
    pub(super) fn new(stream: RecvHalf, max_bytes: usize) -> Self {
        Self { stream, decoder: Decoder::new(max_bytes), share: None, received_bytes: 0 }
    }

    /// The same reader, if what it holds of a message takes room.
    pub(super) fn within(self, share: Share) -> Self {
        Self { share: Some(share), ..self }
    }

    /// Takes room for what is held, and gives back what is not needed.
    fn hold(&mut self) -> Result<(), StreamError> {
        let bytes = self.decoder.held_bytes();
        let is_held = self.share.as_mut().is_none_or(|share| share.hold(bytes));
        if is_held { Ok(()) } else { Err(StreamError::NoRoom) }
    }

    /// A reader of messages as long as any may be.
    pub(super) fn unlimited(stream: RecvHalf) -> Self {
        Self::new(stream, MESSAGE_BYTES_MAX)
    }

    /// Bytes that came so far: who sends slowly is told from who sends nothing.
    pub(super) const fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// The next message; `None` if nothing came of it for as long as `patience`. How long it takes
    /// as a whole is not bounded.
    pub(super) async fn next_while_it_moves<M: Message>(
        &mut self,
        patience: Duration,
    ) -> Option<Result<Option<M>, StreamError>> {
        loop {
            let before = self.received_bytes;
            match timeout(patience, self.next()).await {
                Ok(next) => return Some(next),
                Err(_elapsed) if self.received_bytes > before => {}
                Err(_elapsed) => return None,
            }
        }
    }

    /// The next message; `None` if the stream ended behind the last one. Cancel-safe.
    pub(super) async fn next<M: Message>(&mut self) -> Result<Option<M>, StreamError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                self.hold()?;
                return Ok(Some(message));
            }
            self.hold()?;
            match self.stream.read().await.map_err(StreamError::Read)? {
                Some(piece) => {
                    let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                    self.received_bytes = self.received_bytes.saturating_add(length);
                    self.decoder.feed(&piece);
                }
                None if self.decoder.is_between_messages() => return Ok(None),
                None => return Err(StreamError::Cut),
            }
        }
    }
}

/// The half that messages go to. They are queued and then [`flushed`](Self::flush), so that a
/// task can wait for room and for other things at once.
#[derive(Debug)]
pub(super) struct MessageWriter {
    stream: SendHalf,
    pending: BytesMut,
}

impl MessageWriter {
    pub(super) fn new(stream: SendHalf) -> Self {
        Self { stream, pending: BytesMut::new() }
    }

    /// Adds a message to what is to be written.
    pub(super) fn queue<M: Message>(&mut self, message: &M) -> Result<(), FramingError> {
        let bytes = framing::encode(message)?;
        if self.pending.is_empty() {
            self.pending = BytesMut::from(bytes::Bytes::from(bytes));
        } else {
            self.pending.extend_from_slice(&bytes);
        }
        Ok(())
    }

    /// Bytes that are queued and not written.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Writes what is queued. Cancel-safe: what was not written stays queued.
    pub(super) async fn flush(&mut self) -> Result<(), StreamError> {
        while !self.pending.is_empty() {
            let written = self.stream.write(&mut self.pending).await;
            written.map_err(StreamError::Write)?.ok_or(StreamError::Stopped)?;
        }
        Ok(())
    }

    /// Queues a message and writes it.
    pub(super) async fn send<M: Message>(&mut self, message: &M) -> Result<(), StreamError> {
        self.queue(message)?;
        self.flush().await
    }

    /// Says that nothing more comes.
    pub(super) fn finish(&mut self) {
        self.stream.finish();
    }

    /// Forgets what was queued; the other side has no use for it.
    pub(super) fn discard(&mut self) {
        self.pending.clear();
    }

    /// Waits until all that was written arrived, or the other side gave up on it.
    pub(super) async fn arrived(&mut self) {
        self.stream.arrived().await;
    }
}
