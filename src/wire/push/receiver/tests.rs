use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::formats::limits::{BATCH_CHUNKS_MAX, CHUNK_BYTES_MAX, INLINE_NAR_BYTES_MAX};
use crate::formats::{PathInfo, Sha256Hash};
use crate::wire::message::ChunkId;

const HASH: &str = "7h7qgvs4kgzsn8a6rb273saxyqh4jxlz";

fn offer(nar_size: u64) -> Offer {
    let info = PathInfo {
        store_path: format!("{HASH}-hello").parse().unwrap(),
        nar_hash: Sha256Hash::of(b"nar"),
        nar_size,
        references: Vec::new(),
        deriver: None,
        ca: None,
        signatures: Vec::new(),
    };
    Offer { info, device_signature: vec![0; 64] }
}

fn chunk(number: u8, raw_len: u32) -> ChunkRef {
    ChunkRef { id: ChunkId([number; 32]), raw_len }
}

fn frame(number: u8) -> Bytes {
    Bytes::from(vec![number; 10])
}

fn open(offer: Offer, inline: Vec<InlineChunk>) -> ReceiverEvent {
    let cache = "main".parse().unwrap();
    ReceiverEvent::Client(ClientMessage::Offer { cache, offer, inline })
}

fn batch(number: u32, chunks: Vec<ChunkRef>) -> ReceiverEvent {
    ReceiverEvent::Client(ClientMessage::Batch { number, chunks })
}

fn chunk_of(batch: u32, index: u32, number: u8) -> ReceiverEvent {
    ReceiverEvent::Client(ClientMessage::Chunk { batch, index, frame: frame(number) })
}

/// A receiver and the actions that came of each event.
struct Driven {
    receiver: Receiver,
    now: Instant,
}

impl Driven {
    fn new() -> Self {
        let now = Instant::now();
        Self { receiver: Receiver::new(now), now }
    }

    /// A receiver whose offer of 10 chunks of 1000 bytes was accepted.
    fn streaming() -> Self {
        let mut driven = Self::new();
        let began = driven.does(open(offer(10_000), Vec::new()));
        assert!(matches!(began[..], [ReceiverAction::Begin { .. }]), "{began:?}");
        assert_eq!(driven.does(ReceiverEvent::Began), []);
        driven
    }

    fn does(&mut self, event: ReceiverEvent) -> Vec<ReceiverAction> {
        self.receiver.handle(self.now, event);
        self.actions()
    }

    fn actions(&mut self) -> Vec<ReceiverAction> {
        std::iter::from_fn(|| self.receiver.next_action()).collect()
    }

    fn refuses(&mut self, event: ReceiverEvent) -> Refusal {
        match self.does(event).as_slice() {
            [ReceiverAction::Send(BoxMessage::Refused(refusal)), ReceiverAction::Close] => {
                refusal.clone()
            }
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn need(batch: u32, indexes: &[u32]) -> ReceiverAction {
    ReceiverAction::Send(BoxMessage::Need { batch, indexes: indexes.to_vec() })
}

fn taken(batch: u32) -> ReceiverAction {
    ReceiverAction::Send(BoxMessage::Taken { batch })
}

fn chunks(numbers: std::ops::Range<u8>) -> Vec<ChunkRef> {
    numbers.map(|number| chunk(number, 1000)).collect()
}

#[test]
fn a_streamed_push_asks_only_for_what_the_store_lacks() {
    let mut driven = Driven::streaming();
    assert_eq!(driven.does(batch(0, chunks(0..4))), [ReceiverAction::LookUp(chunks(0..4))]);
    assert_eq!(driven.does(ReceiverEvent::LookedUp(vec![1, 3])), [need(0, &[1, 3])]);

    let take = driven.does(chunk_of(0, 1, 1));
    assert_eq!(take, [ReceiverAction::Take(vec![(1, frame(1))])]);
    assert_eq!(driven.does(chunk_of(0, 3, 3)), [], "the store is busy");
    let take = driven.does(ReceiverEvent::Took(Vec::new()));
    assert_eq!(take, [ReceiverAction::Take(vec![(3, frame(3))])]);
    let end = driven.does(ReceiverEvent::Took(Vec::new()));
    assert_eq!(end, [ReceiverAction::Take(Vec::new())]);
    assert_eq!(driven.does(ReceiverEvent::Took(Vec::new())), [taken(0)]);

    let finish = driven.does(ReceiverEvent::Client(ClientMessage::Finish));
    assert_eq!(finish, [ReceiverAction::Finish]);
    let done = driven.does(ReceiverEvent::Done(PushOutcome::Stored));
    let said = ReceiverAction::Send(BoxMessage::Done(PushOutcome::Stored));
    assert_eq!(done, [said, ReceiverAction::Close]);
}

#[test]
fn nothing_is_done_before_the_store_said_so() {
    let mut driven = Driven::streaming();
    driven.does(batch(0, chunks(0..1)));
    driven.does(ReceiverEvent::Client(ClientMessage::Finish));
    driven.does(ReceiverEvent::LookedUp(Vec::new()));
    assert_eq!(driven.does(ReceiverEvent::Took(Vec::new())), [taken(0), ReceiverAction::Finish]);
    let no = Refusal::new(RefusalCode::WrongNarHash, "no");
    assert_eq!(driven.refuses(ReceiverEvent::Failed(no.clone())), no);
    assert_eq!(driven.does(ReceiverEvent::Done(PushOutcome::Stored)), [], "it is closed");
}

#[test]
fn a_known_path_is_answered_at_once() {
    let mut driven = Driven::new();
    driven.does(open(offer(10_000), Vec::new()));
    assert_eq!(driven.does(batch(0, chunks(0..4))), [], "batches may come before the answer");
    let done = driven.does(ReceiverEvent::Done(PushOutcome::Known));
    let said = ReceiverAction::Send(BoxMessage::Done(PushOutcome::Known));
    assert_eq!(done, [said, ReceiverAction::Close]);
}

#[test]
fn the_next_batch_is_looked_up_while_the_first_is_taken() {
    let mut driven = Driven::streaming();
    driven.does(batch(0, chunks(0..2)));
    driven.does(batch(1, chunks(2..4)));
    let both = driven.does(ReceiverEvent::LookedUp(vec![0]));
    assert_eq!(both, [need(0, &[0]), ReceiverAction::LookUp(chunks(2..4))]);
    assert_eq!(driven.does(ReceiverEvent::LookedUp(vec![0, 1])), [need(1, &[0, 1])]);
    let violation = driven.refuses(batch(2, chunks(4..6)));
    assert_eq!(violation, Violation::BatchesInFlight.into());
}

#[test]
fn a_damaged_chunk_is_asked_for_again_while_later_ones_are_on_their_way() {
    let mut driven = Driven::streaming();
    driven.does(batch(0, chunks(0..2)));
    driven.does(batch(1, chunks(2..4)));
    driven.does(ReceiverEvent::LookedUp(Vec::new()));
    let next = driven.does(ReceiverEvent::LookedUp(vec![0, 1]));
    assert_eq!(next, [need(1, &[0, 1]), ReceiverAction::Take(Vec::new())]);

    assert_eq!(driven.does(ReceiverEvent::Took(vec![1])), [need(0, &[1])]);
    assert_eq!(driven.does(chunk_of(1, 0, 2)), [], "a later batch's chunk overtook");
    let take = driven.does(chunk_of(0, 1, 1));
    assert_eq!(take, [ReceiverAction::Take(vec![(1, frame(1))])]);
    driven.does(ReceiverEvent::Took(Vec::new()));
    let next = driven.does(ReceiverEvent::Took(Vec::new()));
    assert_eq!(next, [taken(0), ReceiverAction::Take(vec![(0, frame(2))])]);
}

#[test]
fn a_store_that_asks_for_ever_ends_the_push() {
    let mut driven = Driven::streaming();
    driven.does(batch(0, chunks(0..2)));
    driven.does(ReceiverEvent::LookedUp(Vec::new()));
    driven.does(ReceiverEvent::Took(vec![1]));
    driven.does(chunk_of(0, 1, 1));
    let refusal = driven.refuses(ReceiverEvent::Took(vec![1]));
    assert_eq!(refusal.code, RefusalCode::Internal);
}

#[test]
fn a_small_nar_needs_no_question() {
    let inline = |number| InlineChunk { chunk: chunk(number, 50), frame: frame(number) };
    let mut driven = Driven::new();
    driven.does(open(offer(100), vec![inline(0), inline(1)]));
    let take = driven.does(ReceiverEvent::Began);
    assert_eq!(take, [ReceiverAction::TakeWhole(vec![inline(0), inline(1)])]);
    let done = BoxMessage::Done(PushOutcome::Stored);
    let said = driven.does(ReceiverEvent::Done(PushOutcome::Stored));
    assert_eq!(said, [ReceiverAction::Send(done), ReceiverAction::Close]);

    let refusal = Driven::new().refuses(open(offer(99), vec![inline(0), inline(1)]));
    assert_eq!(refusal.code, RefusalCode::WrongNarSize, "more chunks than the NarSize");
}

#[test]
fn what_cannot_be_in_an_offer_is_refused() {
    let path = |name: &str| format!("{HASH}-{name}").parse().unwrap();
    let mut unsorted = offer(10);
    unsorted.info.references = vec![path("b"), path("a")];
    let mut doubled = offer(10);
    doubled.info.references = vec![path("a"), path("a")];
    let mut with_a_line = offer(10);
    with_a_line.info.ca = Some("text:x\nSig: y".into());
    let mut unsigned = offer(10);
    unsigned.device_signature.pop();
    for (offer, violation) in [
        (offer(0), Violation::PathFacts),
        (unsorted, Violation::PathFacts),
        (doubled, Violation::PathFacts),
        (with_a_line, Violation::ContentAddress),
        (unsigned, Violation::DeviceSignature),
    ] {
        assert_eq!(Driven::new().refuses(open(offer, Vec::new())), violation.into());
    }
    let inline = vec![InlineChunk { chunk: chunk(0, 10), frame: frame(0) }];
    let refusal = Driven::new().refuses(open(offer(INLINE_NAR_BYTES_MAX + 1), inline));
    assert_eq!(refusal, Violation::Inline.into());
    let empty = vec![InlineChunk { chunk: chunk(0, 10), frame: Bytes::new() }];
    assert_eq!(Driven::new().refuses(open(offer(10), empty)), Violation::FrameSize.into());
}

#[test]
fn what_cannot_be_in_a_batch_is_refused() {
    for (number, chunks, violation) in [
        (1, chunks(0..1), Violation::BatchNumber(1)),
        (0, Vec::new(), Violation::BatchSize),
        (0, vec![chunk(0, 1); BATCH_CHUNKS_MAX + 1], Violation::BatchSize),
        (0, vec![chunk(0, CHUNK_BYTES_MAX); 17], Violation::BatchSize),
        (0, vec![chunk(0, 0)], Violation::ChunkSize),
        (0, vec![chunk(0, CHUNK_BYTES_MAX + 1)], Violation::ChunkSize),
    ] {
        assert_eq!(Driven::streaming().refuses(batch(number, chunks)), violation.into());
    }
    let refusal = Driven::streaming().refuses(batch(0, chunks(0..11)));
    assert_eq!(refusal.code, RefusalCode::WrongNarSize, "more chunks than the NarSize");
}

#[test]
fn a_chunk_that_was_not_asked_for_is_refused() {
    for event in [chunk_of(0, 0, 0), chunk_of(0, 3, 3), chunk_of(1, 1, 1), chunk_of(0, 99, 0)] {
        let mut driven = Driven::streaming();
        driven.does(batch(0, chunks(0..4)));
        driven.does(ReceiverEvent::LookedUp(vec![1, 3]));
        assert_eq!(driven.refuses(event), Violation::ChunkOrder.into());
    }
    let mut driven = Driven::streaming();
    driven.does(batch(0, chunks(0..4)));
    driven.does(ReceiverEvent::LookedUp(vec![1]));
    let long = Bytes::from(vec![0; FRAME_BYTES_MAX + 1]);
    let long = ClientMessage::Chunk { batch: 0, index: 1, frame: long };
    assert_eq!(driven.refuses(ReceiverEvent::Client(long)), Violation::FrameSize.into());
}

#[test]
fn a_silent_client_is_let_go_but_a_slow_store_is_waited_for() {
    let mut driven = Driven::streaming();
    driven.does(batch(0, chunks(0..4)));
    assert_eq!(driven.receiver.deadline(), None, "the store looks up");
    driven.does(ReceiverEvent::LookedUp(vec![1]));
    assert_eq!(driven.receiver.deadline(), Some(driven.now + STREAM_IDLE_MAX));
    driven.receiver.tick(driven.now + STREAM_IDLE_MAX - Duration::from_millis(1));
    assert_eq!(driven.actions(), []);
    // A message that comes in slowly is progress.
    driven.now += STREAM_IDLE_MAX;
    driven.receiver.note_progress(driven.now);
    driven.receiver.tick(driven.now);
    assert_eq!(driven.receiver.deadline(), Some(driven.now + STREAM_IDLE_MAX));
    driven.receiver.tick(driven.now + STREAM_IDLE_MAX);
    let actions = driven.actions();
    let [ReceiverAction::Send(BoxMessage::Refused(refusal)), ReceiverAction::Close] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(refusal.code, RefusalCode::TimedOut);
}

#[test]
fn reading_stops_while_the_store_is_behind() {
    let mut driven = Driven::new();
    driven.does(open(offer(u64::from(CHUNK_BYTES_MAX) * 10), Vec::new()));
    driven.does(ReceiverEvent::Began);
    driven.does(batch(0, vec![chunk(0, CHUNK_BYTES_MAX); 8]));
    driven.does(ReceiverEvent::LookedUp((0..8).collect()));
    let big = Bytes::from(vec![0; 256 << 10]);
    let chunk_of = |index| ClientMessage::Chunk { batch: 0, index, frame: big.clone() };
    for index in 0..8 {
        driven.does(ReceiverEvent::Client(chunk_of(index)));
    }
    assert!(!driven.receiver.wants_message(), "all are here, most of them wait");
    driven.does(ReceiverEvent::Took(Vec::new()));
    assert!(driven.receiver.wants_message(), "they were handed on");
}

fn any_event() -> impl Strategy<Value = ReceiverEvent> {
    let places = || proptest::collection::vec(0_usize..6, 0..4);
    let refs = proptest::collection::vec((any::<u8>(), 0_u32..70_000), 0..5);
    prop_oneof![
        (0_u64..200_000, 0_u8..3).prop_map(|(nar_size, inline)| {
            let chunk = |number| InlineChunk { chunk: chunk(number, 9), frame: frame(number) };
            open(offer(nar_size), (0..inline).map(chunk).collect())
        }),
        (0_u32..4, refs).prop_map(|(number, refs)| {
            batch(number, refs.into_iter().map(|(id, len)| chunk(id, len)).collect())
        }),
        (0_u32..4, 0_u32..6).prop_map(|(batch, index)| chunk_of(batch, index, 0)),
        Just(ReceiverEvent::Client(ClientMessage::Finish)),
        Just(ReceiverEvent::Client(ClientMessage::Abort { reason: String::new() })),
        Just(ReceiverEvent::Began),
        Just(ReceiverEvent::Done(PushOutcome::Stored)),
        places().prop_map(ReceiverEvent::LookedUp),
        places().prop_map(ReceiverEvent::Took),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_events_makes_it_panic_or_talk_after_its_end(
        events in proptest::collection::vec(any_event(), 0..40),
    ) {
        let mut driven = Driven::new();
        let mut closed = false;
        for event in events {
            for action in driven.does(event) {
                prop_assert!(!closed, "{action:?} after the end");
                closed = action == ReceiverAction::Close;
            }
            prop_assert_eq!(closed, driven.receiver.phase == Phase::Closed);
        }
    }
}
