//! The two machines of a push, alone against anything and with each other.
//!
//! Alone: one piece of work at a time, nothing after the end, and what is held stays bounded where
//! messages are read only while they are wanted. With each other, in any order of events: the
//! push ends as the store says, and the store got every chunk that it asked for, in its place.
#![no_main]

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use larder::formats::limits::{BATCH_CHUNKS_MAX, BATCHES_IN_FLIGHT_MAX};
use larder::formats::{PathInfo, Sha256Hash};
use larder::wire::message::{BoxMessage, ChunkId, ChunkRef, ClientMessage, Offer, PushOutcome};
use larder::wire::push::{
    Receiver, ReceiverAction, ReceiverEvent, Sender, SenderAction, SenderEvent,
};
use larder::wire::{Refusal, RefusalCode};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

fn offer(nar_size: u64) -> Offer {
    let path = "7h7qgvs4kgzsn8a6rb273saxyqh4jxlz-x".parse().unwrap();
    let info = PathInfo {
        store_path: path,
        nar_hash: Sha256Hash::of(b""),
        nar_size,
        references: Vec::new(),
        deriver: None,
        ca: None,
        signatures: Vec::new(),
    };
    Offer { info, device_signature: vec![0; 64] }
}

fn chunk(number: usize, raw_len: u32) -> ChunkRef {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number as u64).to_le_bytes());
    ChunkRef { id: ChunkId(id), raw_len }
}

fn some(of: usize, u: &mut Unstructured<'_>) -> Result<Vec<usize>> {
    (0..of)
        .filter_map(|place| u.arbitrary().map(|is: bool| is.then_some(place)).transpose())
        .collect()
}

fn any_client_message(u: &mut Unstructured<'_>) -> Result<ClientMessage> {
    Ok(match u.int_in_range(0..=9)? {
        0 => ClientMessage::Offer {
            cache: "main".parse().unwrap(),
            offer: offer(u.arbitrary()?),
            inline: Vec::new(),
        },
        1..=3 => {
            let count = u.int_in_range(0..=4)?;
            let chunks = (0..count).map(|number| Ok(chunk(number, u.int_in_range(0..=300_000)?)));
            let chunks = chunks.collect::<Result<_>>()?;
            ClientMessage::Batch { number: u.int_in_range(0..=3)?, chunks }
        }
        4..=7 => {
            let frame = Bytes::from(vec![7; u.int_in_range(0..=300_000)?]);
            ClientMessage::Chunk {
                batch: u.int_in_range(0..=3)?,
                index: u.int_in_range(0..=5)?,
                frame,
            }
        }
        8 => ClientMessage::Finish,
        _ => ClientMessage::Abort { reason: String::new() },
    })
}

/// A box against any client and any store.
fn receiver_alone(u: &mut Unstructured<'_>) -> Result<()> {
    let now = Instant::now();
    let mut machine = Receiver::new(now);
    let (mut at_work, mut closed, mut held, mut asked) = (false, false, 0_usize, BTreeSet::new());
    let mut opened = false;
    while !u.is_empty() {
        let event = if at_work && u.arbitrary()? {
            at_work = false;
            match u.int_in_range(0..=7)? {
                0 | 1 => ReceiverEvent::Began,
                2 | 3 => ReceiverEvent::LookedUp(some(4, u)?),
                4 | 5 => ReceiverEvent::Took(if u.arbitrary()? { Vec::new() } else { some(4, u)? }),
                6 => ReceiverEvent::Done(PushOutcome::Stored),
                _ => ReceiverEvent::Failed(Refusal::new(RefusalCode::Internal, "x")),
            }
        } else {
            let message = if opened {
                any_client_message(u)?
            } else {
                opened = true;
                ClientMessage::Offer {
                    cache: "main".parse().unwrap(),
                    offer: offer(1 << 30),
                    inline: Vec::new(),
                }
            };
            if let ClientMessage::Chunk { frame, .. } = &message {
                if !machine.wants_message() {
                    continue;
                }
                held += frame.len();
            }
            ReceiverEvent::Client(message)
        };
        machine.handle(now, event);
        while let Some(action) = machine.next_action() {
            assert!(!closed, "{action:?} after the end");
            match action {
                ReceiverAction::Close => closed = true,
                ReceiverAction::Send(BoxMessage::Need { batch, indexes }) => {
                    assert!(!indexes.is_empty() && indexes.is_sorted_by(|one, next| one < next));
                    assert!(indexes.iter().all(|index| (*index as usize) < BATCH_CHUNKS_MAX));
                    asked.insert(batch);
                }
                ReceiverAction::Send(_) => {}
                work => {
                    assert!(!at_work, "two pieces of work at a time");
                    at_work = true;
                    if let ReceiverAction::Take(frames) = &work {
                        held -= frames.iter().map(|(_, frame)| frame.len()).sum::<usize>();
                    }
                }
            }
        }
        assert!(closed || held <= BATCHES_IN_FLIGHT_MAX * BATCH_CHUNKS_MAX * 2 * (258 << 10));
        if closed {
            assert!(!machine.wants_message() && machine.deadline().is_none());
            return Ok(());
        }
        // Whose turn it is is never open: the store's, or the client's until a deadline.
        assert_eq!(machine.deadline().is_none(), at_work);
    }
    Ok(())
}

fn any_box_message(u: &mut Unstructured<'_>) -> Result<BoxMessage> {
    Ok(match u.int_in_range(0..=6)? {
        0..=2 => {
            let count = u.int_in_range(0..=3)?;
            let indexes = (0..count).map(|_| u.int_in_range(0..=5)).collect::<Result<_>>()?;
            BoxMessage::Need { batch: u.int_in_range(0..=3)?, indexes }
        }
        3 | 4 => BoxMessage::Taken { batch: u.int_in_range(0..=3)? },
        5 => BoxMessage::Done(PushOutcome::Known),
        _ => BoxMessage::Refused(Refusal::new(RefusalCode::Busy, "x")),
    })
}

/// A client against any box and any NAR.
fn sender_alone(u: &mut Unstructured<'_>) -> Result<()> {
    let now = Instant::now();
    let cache = "main".parse().unwrap();
    let mut machine = Sender::streamed(now, cache, offer(1 << 30), 2);
    let (mut reading, mut compressing, mut ended) = (false, VecDeque::new(), false);
    let (mut batches, mut forgotten) = (0_usize, 0_usize);
    loop {
        while let Some(action) = machine.next_action() {
            assert!(!ended, "{action:?} after the end");
            match action {
                SenderAction::ReadBatch => {
                    assert!(!reading && batches - forgotten < BATCHES_IN_FLIGHT_MAX);
                    reading = true;
                }
                SenderAction::Compress { batch, index, .. } => {
                    compressing.push_back((batch, index))
                }
                SenderAction::Forget => forgotten += 1,
                SenderAction::End(_) => ended = true,
                SenderAction::Send(_) => {}
            }
        }
        if ended || u.is_empty() {
            return Ok(());
        }
        let event = match u.int_in_range(0..=3)? {
            0 if reading => {
                reading = false;
                let count = u.int_in_range(0..=4)?;
                batches += usize::from(count > 0);
                let raw = Bytes::from_static(b"raw");
                SenderEvent::Batch(
                    (0..count).map(|number| (chunk(number, 3), raw.clone())).collect(),
                )
            }
            1 if !compressing.is_empty() => {
                let (batch, index) = compressing.pop_front().unwrap();
                SenderEvent::Compressed { batch, index, frame: Bytes::from_static(b"frame") }
            }
            2 if u.ratio(1, 20)? => SenderEvent::SourceFailed("x".to_owned()),
            _ => SenderEvent::Box(any_box_message(u)?),
        };
        machine.handle(now, event);
    }
}

/// What an honest store does with a push.
#[derive(Default)]
struct HonestStore {
    work: Option<ReceiverAction>,
    /// Of each batch that was looked up: what is lacking, in order.
    lacking: VecDeque<Vec<usize>>,
    got: usize,
    asked: usize,
}

impl HonestStore {
    fn answer(&mut self, u: &mut Unstructured<'_>) -> Result<Option<ReceiverEvent>> {
        Ok(Some(match self.work.take() {
            None => return Ok(None),
            Some(ReceiverAction::Begin { .. }) => ReceiverEvent::Began,
            Some(ReceiverAction::LookUp(chunks)) => {
                let lacking = some(chunks.len(), u).unwrap_or_default();
                self.asked += lacking.len();
                self.lacking.push_back(lacking.clone());
                ReceiverEvent::LookedUp(lacking)
            }
            Some(ReceiverAction::Take(frames)) => {
                let first = self.lacking.front_mut().expect("a batch is under way");
                assert!(frames.len() <= first.len(), "no more than was asked for");
                let places = frames.iter().map(|(place, _)| *place);
                assert!(places.eq(first.drain(..frames.len())), "in the order asked for");
                self.got += frames.len();
                if frames.is_empty() {
                    assert!(first.is_empty(), "a batch ends when all is there");
                    self.lacking.pop_front();
                }
                ReceiverEvent::Took(Vec::new())
            }
            Some(ReceiverAction::Finish) => {
                assert!(self.lacking.is_empty() && self.got == self.asked);
                ReceiverEvent::Done(PushOutcome::Stored)
            }
            Some(other) => panic!("{other:?}"),
        }))
    }
}

fn together(u: &mut Unstructured<'_>) -> Result<()> {
    let now = Instant::now();
    let (batches, each) = (u.int_in_range(0..=5)?, u.int_in_range(1..=6)?);
    let size = (batches * each * 1000).max(1) as u64;
    let mut client = Sender::streamed(now, "main".parse().unwrap(), offer(size), 2);
    let (mut receiver, mut store) = (Receiver::new(now), HonestStore::default());
    let (mut up, mut down) = (VecDeque::new(), VecDeque::new());
    let (mut reading, mut read, mut compressing, mut result) = (false, 0, VecDeque::new(), None);
    for _ in 0..5000 {
        while let Some(action) = client.next_action() {
            match action {
                SenderAction::Send(message) => up.push_back(message),
                SenderAction::ReadBatch => reading = true,
                SenderAction::Compress { batch, index, .. } => {
                    compressing.push_back((batch, index))
                }
                SenderAction::Forget => {}
                SenderAction::End(end) => result = Some(end),
            }
        }
        while let Some(action) = receiver.next_action() {
            match action {
                ReceiverAction::Send(message) => down.push_back(message),
                ReceiverAction::Close => {}
                work => assert!(store.work.replace(work).is_none()),
            }
        }
        if let Some(result) = result {
            assert_eq!(result, Ok(PushOutcome::Stored));
            return Ok(());
        }
        // Beyond the input the rest happens in turn, so every push ends.
        match u.int_in_range(0..=4).unwrap_or(0) {
            turn if u.is_empty() || turn == 0 => {}
            1 => {
                if let Some(answer) = store.answer(u)? {
                    receiver.handle(now, answer);
                }
                continue;
            }
            2 if receiver.wants_message() => {
                up.pop_front()
                    .into_iter()
                    .for_each(|message| receiver.handle(now, ReceiverEvent::Client(message)));
                continue;
            }
            3 => {
                down.pop_front()
                    .into_iter()
                    .for_each(|message| client.handle(now, SenderEvent::Box(message)));
                continue;
            }
            _ => continue,
        }
        if reading {
            reading = false;
            let raw = Bytes::from_static(b"raw");
            let chunks = if read == batches {
                Vec::new()
            } else {
                (0..each).map(|number| (chunk(number, 1000), raw.clone())).collect()
            };
            read = (read + 1).min(batches);
            client.handle(now, SenderEvent::Batch(chunks));
        } else if let Some((batch, index)) = compressing.pop_front() {
            client.handle(
                now,
                SenderEvent::Compressed { batch, index, frame: Bytes::from_static(b"f") },
            );
        } else if let Some(message) = down.pop_front() {
            client.handle(now, SenderEvent::Box(message));
        } else if let Some(answer) = store.answer(u)? {
            receiver.handle(now, answer);
        } else if let Some(message) = up.pop_front() {
            assert!(receiver.wants_message(), "nobody is at work and nothing is wanted");
            receiver.handle(now, ReceiverEvent::Client(message));
        } else {
            panic!("the push stands still");
        }
    }
    panic!("the push does not end")
}

fuzz_target!(|data: &[u8]| {
    let Some((which, rest)) = data.split_first() else { return };
    let mut u = Unstructured::new(rest);
    // What is too short for what it began is no finding.
    let _short = match which % 3 {
        0 => receiver_alone(&mut u),
        1 => sender_alone(&mut u),
        _ => together(&mut u),
    };
});
