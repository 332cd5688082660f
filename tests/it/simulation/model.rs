//! A box that keeps chunks in memory: what the protocol may rely on, and no more. It takes time
//! for everything it does, forgets on a restart what a store would forget, and counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder::formats::{Sha256Hash, StorePathHash};
use larder::wire::message::{
    BoxMessage, ChunkId, ChunkRef, ClientMessage, InlineChunk, Offer, PushOutcome,
};
use larder::wire::push::{Receiver, ReceiverAction, ReceiverEvent};
use larder::wire::{Refusal, RefusalCode};
use quinn_proto::{Connection, Dir};

use super::channel::Channel;
use super::dice::Dice;

/// What survives a restart.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) chunks: BTreeMap<ChunkId, Bytes>,
    pub(crate) paths: BTreeMap<StorePathHash, Vec<u8>>,
    /// How often a frame of this chunk was taken.
    pub(crate) taken: BTreeMap<ChunkId, u64>,
    /// How often this chunk was found damaged.
    pub(crate) damaged: BTreeMap<ChunkId, u64>,
}

/// The running box: its disk and the pushes under way.
pub(crate) struct ModelBox {
    pub(crate) disk: Disk,
    pub(crate) dice: Dice,
    pub(crate) damage_percent: u64,
    /// By connection and stream.
    pushes: BTreeMap<(usize, u64), Push>,
}

struct Push {
    channel: Channel,
    receiver: Receiver,
    upload: Option<Upload>,
    /// The store's answer and when it comes.
    answer: Option<(Instant, ReceiverEvent)>,
    commit: Option<(StorePathHash, Vec<u8>)>,
    closed: bool,
}

/// What stands in for `services::Upload`: batches are looked up ahead of being taken.
struct Upload {
    offer: Offer,
    batches: Vec<(Vec<ChunkRef>, BTreeMap<usize, Bytes>)>,
    nar: Vec<u8>,
}

impl ModelBox {
    pub(crate) fn new(seed: u64, damage_percent: u64) -> Self {
        let (disk, dice) = (Disk::default(), Dice::new(seed));
        Self { disk, dice, damage_percent, pushes: BTreeMap::new() }
    }

    /// Forgets everything that is not on the disk.
    pub(crate) fn restart(&mut self) {
        self.pushes.clear();
    }

    /// Lets go of the pushes of connections that are gone.
    pub(crate) fn keep(&mut self, is_there: impl Fn(usize) -> bool) {
        self.pushes.retain(|(handle, _), _| is_there(*handle));
    }

    /// Takes new streams, and moves every push of a connection on.
    pub(crate) fn serve(&mut self, now: Instant, handle: usize, connection: &mut Connection) {
        while let Some(id) = connection.streams().accept(Dir::Bi) {
            let push = Push {
                channel: Channel::on(id),
                receiver: Receiver::new(now),
                upload: None,
                answer: None,
                commit: None,
                closed: false,
            };
            self.pushes.insert((handle, id.index()), push);
        }
        let mut store = Store {
            disk: &mut self.disk,
            dice: &mut self.dice,
            damage_percent: self.damage_percent,
        };
        for (_, push) in self.pushes.range_mut((handle, 0)..=(handle, u64::MAX)) {
            push.move_on(now, connection, &mut store);
        }
        self.pushes
            .retain(|(its, _), push| *its != handle || !push.closed || !push.channel.is_flushed());
    }

    /// When the next answer of the store or the next time-out is due.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        let due = |push: &Push| {
            let answer = push.answer.as_ref().map(|(at, _)| *at);
            answer.into_iter().chain(push.receiver.deadline()).min()
        };
        self.pushes.values().filter_map(due).min()
    }
}

struct Store<'a> {
    disk: &'a mut Disk,
    dice: &'a mut Dice,
    damage_percent: u64,
}

impl Push {
    fn move_on(&mut self, now: Instant, connection: &mut Connection, store: &mut Store<'_>) {
        if let Some((_, event)) = self.answer.take_if(|(at, _)| *at <= now) {
            if let Some((path, nar)) = self.commit.take() {
                store.disk.paths.insert(path, nar);
            }
            self.receiver.handle(now, event);
        }
        self.receiver.tick(now);
        self.act(now, store);
        while !self.closed && self.receiver.wants_message() {
            let Some(message) = self.channel.hear::<ClientMessage>(connection) else { break };
            self.receiver.handle(now, ReceiverEvent::Client(message));
            self.act(now, store);
        }
        self.channel.flush(connection);
    }

    fn act(&mut self, now: Instant, store: &mut Store<'_>) {
        while let Some(action) = self.receiver.next_action() {
            let event = match action {
                ReceiverAction::Send(message) => {
                    if let BoxMessage::Refused(refusal) = &message {
                        let sent_early = refusal.code == RefusalCode::TimedOut;
                        assert!(sent_early, "the model refuses nothing else: {refusal}");
                    }
                    self.channel.say(&message);
                    continue;
                }
                ReceiverAction::Close => {
                    self.closed = true;
                    self.channel.finish();
                    continue;
                }
                ReceiverAction::Begin { offer, .. } => self.begin(offer, store),
                ReceiverAction::TakeWhole(chunks) => self.take_whole(&chunks, store),
                ReceiverAction::LookUp(chunks) => self.look_up(chunks, store),
                ReceiverAction::Take(frames) => self.take(frames, store),
                ReceiverAction::Finish => self.finish(),
            };
            let delay = Duration::from_micros(store.dice.between(0, 20_000));
            assert!(self.answer.is_none(), "the store does one thing at a time for a push");
            self.answer = Some((now + delay, event));
        }
    }

    fn begin(&mut self, offer: Offer, store: &Store<'_>) -> ReceiverEvent {
        if store.disk.paths.contains_key(&offer.info.store_path.hash()) {
            return ReceiverEvent::Done(PushOutcome::Known);
        }
        self.upload = Some(Upload { offer, batches: Vec::new(), nar: Vec::new() });
        ReceiverEvent::Began
    }

    fn take_whole(&mut self, inline: &[InlineChunk], store: &mut Store<'_>) -> ReceiverEvent {
        let mut answer = self.look_up(inline.iter().map(|inline| inline.chunk).collect(), store);
        while !self.upload.as_ref().expect("begun").batches.is_empty() {
            let (ReceiverEvent::LookedUp(wanted) | ReceiverEvent::Took(wanted)) = answer else {
                panic!("{answer:?}")
            };
            let frame = |place: usize| (place, inline[place].frame.clone());
            answer = self.take(wanted.into_iter().map(frame).collect(), store);
        }
        self.finish()
    }

    fn look_up(&mut self, chunks: Vec<ChunkRef>, store: &Store<'_>) -> ReceiverEvent {
        let lacks = |chunk: &ChunkRef| !store.disk.chunks.contains_key(&chunk.id);
        let places = (0..chunks.len()).filter(|place| lacks(&chunks[*place])).collect();
        self.upload.as_mut().expect("begun").batches.push((chunks, BTreeMap::new()));
        ReceiverEvent::LookedUp(places)
    }

    fn take(&mut self, frames: Vec<(usize, Bytes)>, store: &mut Store<'_>) -> ReceiverEvent {
        let upload = self.upload.as_mut().expect("begun");
        let is_end = frames.is_empty();
        let (chunks, given) = upload.batches.first_mut().expect("a batch that was looked up");
        for (place, frame) in frames {
            let id = chunks[place].id;
            assert_eq!(blake3::hash(&frame).as_bytes(), &id.0, "the right frame at {place}");
            store.disk.chunks.insert(id, frame.clone());
            *store.disk.taken.entry(id).or_default() += 1;
            given.insert(place, frame);
        }
        if !is_end {
            return ReceiverEvent::Took(Vec::new());
        }
        let mut damaged = BTreeSet::new();
        for (place, chunk) in chunks.iter().enumerate() {
            if !given.contains_key(&place) && store.dice.percent(store.damage_percent) {
                store.disk.chunks.remove(&chunk.id);
                *store.disk.damaged.entry(chunk.id).or_default() += 1;
            }
            if !given.contains_key(&place) && !store.disk.chunks.contains_key(&chunk.id) {
                damaged.insert(place);
            }
        }
        if damaged.is_empty() {
            let (chunks, _given) = upload.batches.remove(0);
            for chunk in chunks {
                upload.nar.extend_from_slice(&store.disk.chunks[&chunk.id]);
            }
        }
        ReceiverEvent::Took(damaged.into_iter().collect())
    }

    fn finish(&mut self) -> ReceiverEvent {
        let Upload { offer, nar, .. } = self.upload.take().expect("begun");
        if Sha256Hash::of(&nar) != offer.info.nar_hash {
            let refusal = Refusal::new(RefusalCode::WrongNarHash, "another NarHash");
            return ReceiverEvent::Failed(refusal);
        }
        self.commit = Some((offer.info.store_path.hash(), nar));
        ReceiverEvent::Done(PushOutcome::Stored)
    }
}
