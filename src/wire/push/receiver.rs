//! The box's half of a push.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::time::Instant;

use bytes::Bytes;

use crate::formats::CacheName;
use crate::formats::limits::{BATCHES_IN_FLIGHT_MAX, FRAME_BYTES_MAX, STREAM_IDLE_MAX};
use crate::wire::message::{
    BoxMessage, ChunkRef, ClientMessage, InlineChunk, Message, Offer, PushOutcome,
};
use crate::wire::push::check;
use crate::wire::refusal::{Refusal, RefusalCode};
use crate::wire::violation::Violation;

/// Bytes of frames that are kept while the store is busy; then the stream is left to wait, and
/// QUIC's flow control holds the client back.
const BUFFERED_BYTES_MAX: usize = 1 << 20;

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum ReceiverEvent {
    /// A message of the client.
    Client(ClientMessage),
    /// [`Begin`](ReceiverAction::Begin) was done and the bytes are wanted.
    Began,
    /// [`Begin`](ReceiverAction::Begin), [`TakeWhole`](ReceiverAction::TakeWhole) or
    /// [`Finish`](ReceiverAction::Finish) was done and nothing more is needed.
    Done(PushOutcome),
    /// [`LookUp`](ReceiverAction::LookUp) was done: places of the chunks to be sent, ascending.
    LookedUp(Vec<usize>),
    /// [`Take`](ReceiverAction::Take) was done: places of known chunks that turned out damaged.
    Took(Vec<usize>),
    /// What was asked of the store failed, or the box goes down.
    Failed(Refusal),
}

/// What the machine wants done. Of the first five one at a time is under way, and each is
/// answered by an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiverAction {
    /// Check the offer; answered by `Began`, `Done` or `Failed`.
    Begin {
        /// Where the path goes.
        cache: CacheName,
        /// What it is.
        offer: Offer,
    },
    /// Take the NAR that came whole with its offer, check it and commit it durably.
    TakeWhole(Vec<InlineChunk>),
    /// Look up the chunks of the next batch. It may come while an earlier batch is still being
    /// taken; the chunks of `Take` are always of the oldest batch that is not taken.
    LookUp(Vec<ChunkRef>),
    /// Take these frames of the oldest batch, in order, with their places in it. An empty list
    /// ends the batch: all frames asked for were given, and if the answer is empty too it is
    /// taken.
    Take(Vec<(usize, Bytes)>),
    /// Check the whole NAR and commit it durably.
    Finish,
    /// Say this to the client.
    Send(BoxMessage),
    /// Nothing more comes: close the stream and let go of the upload.
    Close,
}

/// The receiving half of a push, as a pure state machine.
///
/// Feed it with [`handle`](Self::handle), and do what [`next_action`](Self::next_action) says
/// until that returns `None`. It holds at most two batches' frames, and normally about
/// `BUFFERED_BYTES_MAX`, if messages are read only while
/// [`wants_message`](Self::wants_message).
#[derive(Debug)]
pub struct Receiver {
    phase: Phase,
    batches: VecDeque<OpenBatch>,
    /// Number of the next batch; as many have come.
    next_number: u32,
    /// Raw bytes of the NAR that no batch has named yet.
    left_bytes: u64,
    /// The chunks that came with the offer of a small NAR, until they are handed on.
    inline: Vec<InlineChunk>,
    /// Whether the client has named all chunks.
    all_named: bool,
    /// Whether the store is at work for this push.
    busy: bool,
    actions: VecDeque<ReceiverAction>,
    last_heard: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Start,
    Beginning,
    Streaming,
    Finishing,
    Closed,
}

impl Phase {
    const fn place(self) -> &'static str {
        match self {
            Self::Start => "at the start of a push",
            Self::Beginning | Self::Streaming => "there in a push",
            Self::Finishing | Self::Closed => "behind the end of a push",
        }
    }
}

#[derive(Debug)]
struct OpenBatch {
    number: u32,
    chunks: Vec<ChunkRef>,
    stage: Stage,
    /// Places that were asked for and have not come.
    wanted: VecDeque<usize>,
    /// Frames that came and are not handed on.
    frames: Vec<(usize, Bytes)>,
    /// Places that were asked for a second time: none is asked for a third time.
    again: BTreeSet<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    LookingUp,
    Filling,
    /// The empty `Take` is under way.
    Ending,
}

impl Receiver {
    /// A receiver that waits for an offer.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Start,
            batches: VecDeque::new(),
            next_number: 0,
            left_bytes: 0,
            inline: Vec::new(),
            all_named: false,
            busy: false,
            actions: VecDeque::new(),
            last_heard: now,
        }
    }

    /// Takes an event that happened at `now`. What the client did wrong becomes a refusal.
    pub fn handle(&mut self, now: Instant, event: ReceiverEvent) {
        if self.phase == Phase::Closed {
            return;
        }
        self.last_heard = now;
        let handled = match event {
            ReceiverEvent::Client(message) => self.on_message(message),
            answer => {
                self.busy = false;
                self.on_answer(answer)
            }
        };
        match handled {
            Ok(()) => self.next_work(),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Bytes of a message came that is not whole: the client is slow, and not silent.
    pub fn note_progress(&mut self, now: Instant) {
        self.last_heard = now;
    }

    /// Refuses if the client has been silent for too long; call it at the
    /// [`deadline`](Self::deadline).
    pub fn tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.refuse(Refusal::new(
                RefusalCode::TimedOut,
                format!("the client was silent for {} s", STREAM_IDLE_MAX.as_secs()),
            ));
        }
    }

    /// When to [`tick`](Self::tick): only while it is the client's turn.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let clients_turn = !self.busy && self.phase != Phase::Closed;
        clients_turn.then(|| self.last_heard + STREAM_IDLE_MAX)
    }

    /// Whether another message should be read now.
    #[must_use]
    pub fn wants_message(&self) -> bool {
        let Some(first) = self.batches.front() else { return self.phase != Phase::Closed };
        // While the oldest batch lacks frames, they may stand behind those of a later one.
        let lacks_frames = first.stage == Stage::Filling && !first.wanted.is_empty();
        self.phase != Phase::Closed && (lacks_frames || self.buffered() < BUFFERED_BYTES_MAX)
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<ReceiverAction> {
        self.actions.pop_front()
    }

    fn buffered(&self) -> usize {
        let frames = self.batches.iter().flat_map(|batch| &batch.frames);
        frames.map(|(_, frame)| frame.len()).sum()
    }

    fn on_message(&mut self, message: ClientMessage) -> Result<(), Refusal> {
        match (self.phase, message) {
            (Phase::Start, ClientMessage::Offer { cache, offer, inline }) => {
                self.on_offer(cache, offer, inline)
            }
            (Phase::Beginning | Phase::Streaming, ClientMessage::Batch { number, chunks })
                if !self.all_named =>
            {
                self.on_batch(number, chunks)
            }
            (Phase::Streaming, ClientMessage::Chunk { batch, index, frame }) => {
                self.on_chunk(batch, index, frame)
            }
            (Phase::Beginning | Phase::Streaming, ClientMessage::Finish) if !self.all_named => {
                self.all_named = true;
                Ok(())
            }
            (Phase::Beginning | Phase::Streaming, ClientMessage::Abort { .. }) => {
                self.close();
                Ok(())
            }
            (phase, message) => {
                Err(Violation::OutOfTurn { message: message.name(), place: phase.place() }.into())
            }
        }
    }

    fn on_offer(
        &mut self,
        cache: CacheName,
        offer: Offer,
        inline: Vec<InlineChunk>,
    ) -> Result<(), Refusal> {
        check::offer(&offer)?;
        self.left_bytes = offer.info.nar_size;
        if !inline.is_empty() {
            check::inline(&offer.info, &inline)?;
            self.count(&inline.iter().map(|chunk| chunk.chunk).collect::<Vec<_>>())?;
            self.all_named = true;
            self.inline = inline;
        }
        self.phase = Phase::Beginning;
        self.start(ReceiverAction::Begin { cache, offer });
        Ok(())
    }

    fn on_batch(&mut self, number: u32, chunks: Vec<ChunkRef>) -> Result<(), Refusal> {
        if number != self.next_number {
            return Err(Violation::BatchNumber(number).into());
        }
        if self.batches.len() >= BATCHES_IN_FLIGHT_MAX {
            return Err(Violation::BatchesInFlight.into());
        }
        self.count(&chunks)?;
        self.batches.push_back(OpenBatch {
            number: self.next_number,
            chunks,
            stage: Stage::New,
            wanted: VecDeque::new(),
            frames: Vec::new(),
            again: BTreeSet::new(),
        });
        self.next_number = self.next_number.saturating_add(1);
        Ok(())
    }

    /// Checks chunks that were named, and takes them off what is left of the NAR.
    fn count(&mut self, chunks: &[ChunkRef]) -> Result<(), Refusal> {
        let raw_bytes = check::batch(chunks)?;
        self.left_bytes = self.left_bytes.checked_sub(raw_bytes).ok_or_else(|| {
            Refusal::new(RefusalCode::WrongNarSize, "the chunks are more than the NarSize")
        })?;
        Ok(())
    }

    fn on_chunk(&mut self, number: u32, index: u32, frame: Bytes) -> Result<(), Refusal> {
        if frame.is_empty() || frame.len() > FRAME_BYTES_MAX {
            return Err(Violation::FrameSize.into());
        }
        let place = usize::try_from(index).map_err(|_wider| Violation::Indexes)?;
        for batch in &mut self.batches {
            if batch.number == number {
                let next = batch.wanted.pop_front_if(|wanted| *wanted == place);
                batch.frames.push((next.ok_or(Violation::ChunkOrder)?, frame));
                return Ok(());
            }
            // A later batch may overtake only what was asked for again while it was on its way.
            if !batch.wanted.is_empty() && batch.again.is_empty() {
                break;
            }
        }
        Err(Violation::ChunkOrder.into())
    }

    fn on_answer(&mut self, answer: ReceiverEvent) -> Result<(), Refusal> {
        match (self.phase, answer) {
            (_, ReceiverEvent::Failed(refusal)) => Err(refusal),
            (Phase::Beginning | Phase::Finishing, ReceiverEvent::Done(outcome)) => {
                self.actions.push_back(ReceiverAction::Send(BoxMessage::Done(outcome)));
                self.close();
                Ok(())
            }
            (Phase::Beginning, ReceiverEvent::Began) => {
                self.phase = Phase::Streaming;
                Ok(())
            }
            (Phase::Streaming, ReceiverEvent::LookedUp(places)) => self.on_looked_up(&places),
            (Phase::Streaming, ReceiverEvent::Took(damaged)) => self.on_took(&damaged),
            (_, _) => Err(internal("the store answered what was not asked")),
        }
    }

    fn on_looked_up(&mut self, places: &[usize]) -> Result<(), Refusal> {
        let looking = |batch: &&mut OpenBatch| batch.stage == Stage::LookingUp;
        let Some(batch) = self.batches.iter_mut().find(looking) else {
            return Err(internal("no batch is being looked up"));
        };
        batch.stage = Stage::Filling;
        let number = batch.number;
        self.ask(number, places)
    }

    fn on_took(&mut self, damaged: &[usize]) -> Result<(), Refusal> {
        let Some(first) = self.batches.front_mut() else {
            return Err(internal("no batch is being taken"));
        };
        let number = first.number;
        if !damaged.is_empty() {
            first.stage = Stage::Filling;
            if !damaged.iter().all(|place| first.again.insert(*place)) {
                return Err(internal("the store asks for a chunk a third time"));
            }
            return self.ask(number, damaged);
        }
        if first.stage == Stage::Ending {
            self.batches.pop_front();
            let taken = BoxMessage::Taken { batch: number };
            self.actions.push_back(ReceiverAction::Send(taken));
        }
        Ok(())
    }

    /// Asks the client for chunks of a batch.
    fn ask(&mut self, number: u32, places: &[usize]) -> Result<(), Refusal> {
        let Some(batch) = self.batches.iter_mut().find(|batch| batch.number == number) else {
            return Err(internal("the batch is gone"));
        };
        if !places.is_sorted_by(|one, next| one < next)
            || places.last().is_some_and(|last| *last >= batch.chunks.len())
        {
            return Err(internal("the store asks for chunks that are not in the batch"));
        }
        if !places.is_empty() {
            batch.wanted.extend(places);
            let narrow = |place: &usize| u32::try_from(*place).ok();
            let indexes = places.iter().filter_map(narrow).collect();
            let need = BoxMessage::Need { batch: number, indexes };
            self.actions.push_back(ReceiverAction::Send(need));
        }
        Ok(())
    }

    /// Gives the store its next piece of work, if it is idle and there is some.
    fn next_work(&mut self) {
        if self.busy || self.phase != Phase::Streaming {
            return;
        }
        if !self.inline.is_empty() {
            self.phase = Phase::Finishing;
            let chunks = mem::take(&mut self.inline);
            return self.start(ReceiverAction::TakeWhole(chunks));
        }
        // Looking up comes first: the sooner the client knows, the less anybody waits.
        if let Some(new) = self.batches.iter_mut().find(|batch| batch.stage == Stage::New) {
            new.stage = Stage::LookingUp;
            let chunks = new.chunks.clone();
            return self.start(ReceiverAction::LookUp(chunks));
        }
        match self.batches.front_mut() {
            Some(first) if !first.frames.is_empty() => {
                let frames = mem::take(&mut first.frames);
                self.start(ReceiverAction::Take(frames));
            }
            Some(first) if first.wanted.is_empty() => {
                first.stage = Stage::Ending;
                self.start(ReceiverAction::Take(Vec::new()));
            }
            Some(_waits_for_frames) => {}
            None if self.all_named => {
                self.phase = Phase::Finishing;
                self.start(ReceiverAction::Finish);
            }
            None => {}
        }
    }

    fn start(&mut self, work: ReceiverAction) {
        self.busy = true;
        self.actions.push_back(work);
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.actions.push_back(ReceiverAction::Send(BoxMessage::Refused(refusal)));
        self.close();
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.batches.clear();
        self.inline.clear();
        self.actions.push_back(ReceiverAction::Close);
    }
}

fn internal(sentence: &str) -> Refusal {
    Refusal::new(RefusalCode::Internal, sentence)
}

#[cfg(test)]
mod tests;
