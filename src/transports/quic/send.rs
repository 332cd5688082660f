//! Runs `wire::push::Sender` on a stream, between a source of chunks and a box.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;

use crate::formats::CacheName;
use crate::formats::limits::{BATCH_BYTES_MAX, MESSAGE_BYTES_MAX, QUIC_STREAM_WINDOW_BYTES};
use crate::transports::quic::client::RequestError;
use crate::transports::quic::stream::{MessageReader, MessageWriter, StreamError};
use crate::wire::hello::Limits;
use crate::wire::message::{ChunkRef, InlineChunk, Offer, PushOutcome};
use crate::wire::push::{Sender, SenderAction, SenderEvent};

/// Where a push takes its chunks from. Called on blocking threads, one call at a time, in order.
pub trait ChunkSource: Send + 'static {
    /// The next chunks of the NAR with their raw bytes, at most `BATCH_CHUNKS_MAX` and
    /// `BATCH_BYTES_MAX`; empty at the end.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if the NAR cannot be read on.
    fn next_batch(&mut self) -> Result<Vec<(ChunkRef, Bytes)>, SourceError>;

    /// The zstd frame of a chunk's raw bytes, one that `next_batch` gave.
    ///
    /// # Errors
    ///
    /// [`SourceError`] if zstd fails.
    fn compress(&mut self, raw: &[u8]) -> Result<Bytes, SourceError>;
}

/// Why a source cannot go on: the path changed while it was read, vanished, or does not hash to
/// its NarHash. A sentence fragment for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// What all pushes of a connection share.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// Bytes of NAR that may be under way.
    pub(super) raw_bytes: Arc<Semaphore>,
    /// Sources that may be at work: one a processor.
    pub(super) workers: Arc<Semaphore>,
}

/// A push to be made.
pub(super) struct Sending {
    pub(super) cache: CacheName,
    pub(super) offer: Offer,
    pub(super) source: Box<dyn ChunkSource>,
    pub(super) limits: Limits,
    pub(super) budget: Budget,
}

/// Makes a push on a fresh stream.
pub(super) async fn push(
    sending: Sending,
    reader: MessageReader,
    writer: MessageWriter,
) -> Result<PushOutcome, RequestError> {
    let Sending { cache, offer, source, limits, budget } = sending;
    let travels_whole = offer.info.nar_size <= limits.inline_nar_bytes && leaves_room(&offer);
    let (sender, source, room) = if travels_whole {
        let (source, chunks, room) = read_whole(source, &budget, offer.info.nar_size).await?;
        let sender = Sender::inline(Instant::now(), cache, offer, chunks);
        (sender, source, Some(room))
    } else {
        let in_flight = limits.batches_in_flight;
        (Sender::streamed(Instant::now(), cache, offer, in_flight), source, None)
    };
    let push = Push {
        sender,
        budget,
        source: Some(source),
        jobs: VecDeque::new(),
        working: None.into(),
        admission: None.into(),
        rooms: room.into_iter().collect(),
    };
    push.run(reader, writer).await
}

/// Whether a message with the offer's facts has room for a small NAR too.
fn leaves_room(offer: &Offer) -> bool {
    let names = offer.info.references.iter().map(|path| path.base_name().len() + 2);
    let signatures = offer.info.signatures.iter().map(|signature| signature.key_name().len() + 100);
    names.chain(signatures).sum::<usize>() < MESSAGE_BYTES_MAX / 2
}

type Whole = (Box<dyn ChunkSource>, Vec<InlineChunk>, OwnedSemaphorePermit);

/// All chunks of a small NAR with their frames.
async fn read_whole(
    mut source: Box<dyn ChunkSource>,
    budget: &Budget,
    nar_bytes: u64,
) -> Result<Whole, RequestError> {
    let room = room_for(budget, nar_bytes).await;
    let worker = Arc::clone(&budget.workers).acquire_owned().await;
    let read = spawn_blocking(move || {
        let _worker = worker;
        let mut chunks = Vec::new();
        loop {
            let batch = source.next_batch()?;
            if batch.is_empty() {
                return Ok((source, chunks));
            }
            for (chunk, raw) in batch {
                chunks.push(InlineChunk { chunk, frame: source.compress(&raw)? });
            }
        }
    });
    let read: Result<_, SourceError> = read.await.unwrap_or_else(|_panic| Err(panicked()));
    let (source, chunks) = read.map_err(|error| RequestError::Source(error.0))?;
    match room {
        Some(room) if !chunks.is_empty() => Ok((source, chunks, room)),
        _ => Err(RequestError::Source("the path has no bytes to send".to_owned())),
    }
}

async fn room_for(budget: &Budget, bytes: u64) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    Arc::clone(&budget.raw_bytes).acquire_many_owned(bytes).await.ok()
}

fn panicked() -> SourceError {
    SourceError("reading the path failed; this is a defect of larder".to_owned())
}

/// Work for the source.
enum Job {
    Read(OwnedSemaphorePermit),
    Compress { batch: u32, index: u32, raw: Bytes },
}

/// What comes of a job; the room that a read batch takes goes along.
struct Worked {
    source: Option<Box<dyn ChunkSource>>,
    room: Option<OwnedSemaphorePermit>,
    event: SenderEvent,
}

struct Push {
    sender: Sender,
    budget: Budget,
    source: Option<Box<dyn ChunkSource>>,
    jobs: VecDeque<Job>,
    working: OptionFuture<BoxFuture<'static, Worked>>,
    /// Room for the next batch. Compressing goes on while it is waited for, or two pushes that
    /// wait for each other's room would wait for ever.
    admission: OptionFuture<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    /// The rooms of the batches under way, the oldest first.
    rooms: VecDeque<OwnedSemaphorePermit>,
}

impl Push {
    async fn run(
        mut self,
        mut reader: MessageReader,
        mut writer: MessageWriter,
    ) -> Result<PushOutcome, RequestError> {
        let mut box_reads = true;
        loop {
            if let Some(outcome) = self.do_actions(&mut writer)? {
                // An Abort is sent as far as it goes at once; a reset says the same.
                let _box_may_be_gone = writer.flush().now_or_never();
                writer.finish();
                return outcome;
            }
            self.start_job(&writer);
            if !box_reads {
                writer.discard();
            }
            let deadline = self.sender.deadline();
            tokio::select! {
                Some(worked) = &mut self.working => self.on_worked(worked),
                Some(room) = &mut self.admission => {
                    self.admission = None.into();
                    self.jobs.extend(room.map(Job::Read));
                }
                message = reader.next() => match message? {
                    Some(message) => {
                        self.sender.handle(Instant::now(), SenderEvent::Box(message));
                    }
                    None => return Err(StreamError::Cut.into()),
                },
                flushed = writer.flush(), if writer.pending_bytes() > 0 => match flushed {
                    // The box has said all it will; its answer is still to be read.
                    Err(StreamError::Stopped) => box_reads = false,
                    flushed => flushed?,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now).into()),
                    if deadline.is_some() =>
                {
                    self.sender.tick(Instant::now());
                }
            }
        }
    }

    /// Does what the machine wants; the outcome when the push is over.
    fn do_actions(
        &mut self,
        writer: &mut MessageWriter,
    ) -> Result<Option<Result<PushOutcome, RequestError>>, RequestError> {
        while let Some(action) = self.sender.next_action() {
            match action {
                SenderAction::Send(message) => {
                    writer.queue(&message).map_err(StreamError::from)?;
                }
                SenderAction::ReadBatch => {
                    let budget = self.budget.clone();
                    let room = async move { room_for(&budget, BATCH_BYTES_MAX).await };
                    self.admission = Some(room.boxed()).into();
                }
                SenderAction::Compress { batch, index, raw } => {
                    self.jobs.push_back(Job::Compress { batch, index, raw });
                }
                SenderAction::Forget => drop(self.rooms.pop_front()),
                SenderAction::End(result) => {
                    return Ok(Some(result.map_err(RequestError::from)));
                }
            }
        }
        Ok(None)
    }

    /// Gives the source its next job if it is idle, unless the network is behind.
    fn start_job(&mut self, writer: &MessageWriter) {
        let behind = u32::try_from(writer.pending_bytes())
            .map_or(true, |pending| pending > QUIC_STREAM_WINDOW_BYTES);
        if behind || self.jobs.is_empty() {
            return;
        }
        let Some(source) = self.source.take() else { return };
        if let Some(job) = self.jobs.pop_front() {
            let workers = Arc::clone(&self.budget.workers);
            self.working = Some(work(source, job, workers).boxed()).into();
        }
    }

    fn on_worked(&mut self, worked: Worked) {
        self.working = None.into();
        self.source = worked.source;
        self.rooms.extend(worked.room);
        self.sender.handle(Instant::now(), worked.event);
    }
}

async fn work(source: Box<dyn ChunkSource>, job: Job, workers: Arc<Semaphore>) -> Worked {
    let worker = workers.acquire_owned().await;
    let worked = spawn_blocking(move || {
        let _worker = worker;
        do_job(source, job)
    });
    worked.await.unwrap_or_else(|_panic| Worked {
        source: None,
        room: None,
        event: SenderEvent::SourceFailed(panicked().0),
    })
}

fn do_job(mut source: Box<dyn ChunkSource>, job: Job) -> Worked {
    let (room, event) = match job {
        Job::Compress { batch, index, raw } => {
            let frame = source.compress(&raw);
            (None, frame.map(|frame| SenderEvent::Compressed { batch, index, frame }))
        }
        Job::Read(mut room) => {
            let batch = source.next_batch();
            let raw_bytes = batch
                .as_ref()
                .map_or(0, |batch| batch.iter().map(|(_, raw)| raw.len()).sum::<usize>());
            let unused = room.num_permits().saturating_sub(raw_bytes);
            drop(room.split(unused));
            let is_last = raw_bytes == 0;
            ((!is_last).then_some(room), batch.map(SenderEvent::Batch))
        }
    };
    let event = event.unwrap_or_else(|error| SenderEvent::SourceFailed(error.0));
    Worked { source: Some(source), room, event }
}
