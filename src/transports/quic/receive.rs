//! Runs `wire::push::Receiver` on a stream, between a client and the publisher.

use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use tokio::time::sleep_until;
use tracing::debug;

use crate::formats::CacheName;
use crate::formats::limits::STREAM_IDLE_MAX;
use crate::services::{Begun, Caller, PublishError, Publisher, PusherId, Turn, Turns, Upload};
use crate::transports::quic::session::{Session, Unanswered};
use crate::transports::quic::stream::{MessageReader, MessageWriter};
use crate::wire::message::{ChunkRef, ClientMessage, InlineChunk, Offer};
use crate::wire::push::{Receiver, ReceiverAction, ReceiverEvent};
use crate::wire::{Refusal, RefusalCode};

/// Takes a push whose first message is `offer`, to its end.
pub(super) async fn push(
    session: &Session,
    caller: &Caller,
    offer: ClientMessage,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Result<(), Unanswered> {
    let mut push = Push {
        machine: Receiver::new(Instant::now()),
        publish: &session.shared.parts.publish,
        caller,
        device_key: session.hello.device_key,
        frame_bytes: session.shared.frame_bytes.clone(),
        upload: None,
        work: None.into(),
        admission: None.into(),
        waiting: None,
        held: None,
    };
    push.machine.handle(Instant::now(), ReceiverEvent::Client(offer));
    let (mut client_ended, mut received_bytes) = (false, 0);
    while !push.do_actions(writer)? {
        // Who waits for room of ours is not silent.
        let deadline = push.machine.deadline().filter(|_| push.waiting.is_none());
        if client_ended && deadline.is_some() {
            debug!("A client ended its push half-way");
            return Ok(());
        }
        let wants_message = !client_ended && push.waiting.is_none() && push.machine.wants_message();
        tokio::select! {
            Some((upload, event)) = &mut push.work => {
                push.work = None.into();
                push.upload = upload;
                push.machine.handle(Instant::now(), event);
            }
            Some(room) = &mut push.admission => push.admit(room),
            message = reader.next(), if wants_message => match message? {
                Some(message) => push.hear(message),
                None => client_ended = true,
            },
            flushed = writer.flush(), if writer.pending_bytes() > 0 => flushed?,
            () = sleep_until(deadline.unwrap_or_else(far_off).into()), if deadline.is_some() => {
                let before = std::mem::replace(&mut received_bytes, reader.received_bytes());
                if received_bytes > before {
                    push.machine.note_progress(Instant::now());
                } else {
                    push.machine.tick(Instant::now());
                }
            }
        }
    }
    let flushed = tokio::time::timeout(STREAM_IDLE_MAX, writer.flush()).await;
    Ok(flushed.unwrap_or(Ok(()))?)
}

fn far_off() -> Instant {
    Instant::now() + STREAM_IDLE_MAX
}

/// What comes of work for the store: the upload, if it goes on, and the event.
type Worked = (Option<Upload>, ReceiverEvent);

struct Push<'a> {
    machine: Receiver,
    publish: &'a Publisher,
    caller: &'a Caller,
    device_key: [u8; 32],
    frame_bytes: Turns<PusherId>,
    upload: Option<Upload>,
    work: OptionFuture<BoxFuture<'a, Worked>>,
    /// Room for the frame of the message that waits.
    admission: OptionFuture<BoxFuture<'a, Turn<PusherId>>>,
    waiting: Option<ClientMessage>,
    /// The room that the frames take which the machine holds.
    held: Option<Turn<PusherId>>,
}

impl Push<'_> {
    /// Does what the machine wants; true when the push is over.
    fn do_actions(&mut self, writer: &mut MessageWriter) -> Result<bool, Unanswered> {
        while let Some(action) = self.machine.next_action() {
            match action {
                ReceiverAction::Send(message) => writer.queue(&message)?,
                ReceiverAction::Close => return Ok(true),
                ReceiverAction::Begin { cache, offer } => self.begin(cache, offer),
                ReceiverAction::TakeWhole(chunks) => self.take_whole(chunks),
                ReceiverAction::LookUp(chunks) => self.look_up(chunks),
                ReceiverAction::Take(frames) => self.take(frames),
                ReceiverAction::Finish => self.finish(),
            }
        }
        Ok(false)
    }

    /// Hands a message to the machine, once there is room for the frame in it.
    fn hear(&mut self, message: ClientMessage) {
        if let ClientMessage::Chunk { frame, .. } = &message {
            let token = self.caller.token.id;
            let pusher = PusherId { token, device_key: self.device_key };
            let (frame_bytes, bytes) = (self.frame_bytes.clone(), frame.len());
            let room = async move { frame_bytes.take(pusher, bytes).await };
            self.admission = Some(room.boxed()).into();
            self.waiting = Some(message);
        } else {
            self.machine.handle(Instant::now(), ReceiverEvent::Client(message));
        }
    }

    fn admit(&mut self, room: Turn<PusherId>) {
        self.admission = None.into();
        match &mut self.held {
            Some(held) => held.merge(room),
            none => *none = Some(room),
        }
        if let Some(message) = self.waiting.take() {
            self.machine.handle(Instant::now(), ReceiverEvent::Client(message));
        }
    }

    fn begin(&mut self, cache: CacheName, offer: Offer) {
        let (publish, caller, device_key) = (self.publish.clone(), self.caller, self.device_key);
        let caller = caller.clone();
        let begin = async move {
            match publish.begin(&caller, &cache, device_key, offer).await {
                Ok(Begun::Done(outcome)) => (None, ReceiverEvent::Done(outcome)),
                Ok(Begun::Upload(upload)) => (Some(upload), ReceiverEvent::Began),
                Err(error) => (None, failed(error)),
            }
        };
        self.work = Some(begin.boxed()).into();
    }

    fn take_whole(&mut self, chunks: Vec<InlineChunk>) {
        self.on_upload(|upload| {
            async move {
                let taken = upload.whole(chunks).await.map(ReceiverEvent::Done);
                (None, taken.unwrap_or_else(failed))
            }
            .boxed()
        });
    }

    fn look_up(&mut self, chunks: Vec<ChunkRef>) {
        self.on_upload(|mut upload| {
            async move {
                let looked_up = upload.batch(chunks).await.map(ReceiverEvent::LookedUp);
                (Some(upload), looked_up.unwrap_or_else(failed))
            }
            .boxed()
        });
    }

    fn take(&mut self, frames: Vec<(usize, Bytes)>) {
        // All that is held is of batches up to this one but for what overtook a chunk that had
        // to be sent again; letting that go early makes the bound a little soft, and no more.
        let room = self.held.take();
        self.on_upload(|mut upload| {
            async move {
                let took = upload.frames(frames).await.map(ReceiverEvent::Took);
                drop(room);
                (Some(upload), took.unwrap_or_else(failed))
            }
            .boxed()
        });
    }

    fn finish(&mut self) {
        self.on_upload(|upload| {
            async move {
                let finished = upload.finish().await.map(ReceiverEvent::Done);
                (None, finished.unwrap_or_else(failed))
            }
            .boxed()
        });
    }

    fn on_upload(&mut self, work: impl FnOnce(Upload) -> BoxFuture<'static, Worked>) {
        let started = match self.upload.take() {
            Some(upload) => work(upload),
            None => {
                let refusal = Refusal::new(RefusalCode::Internal, "the upload is gone");
                std::future::ready((None, ReceiverEvent::Failed(refusal))).boxed()
            }
        };
        self.work = Some(started).into();
    }
}

fn failed(error: PublishError) -> ReceiverEvent {
    ReceiverEvent::Failed(error.into())
}
