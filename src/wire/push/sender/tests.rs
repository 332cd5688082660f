use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::formats::{PathInfo, Sha256Hash};
use crate::wire::message::ChunkId;
use crate::wire::refusal::RefusalCode;

fn offer() -> Offer {
    let info = PathInfo {
        store_path: "7h7qgvs4kgzsn8a6rb273saxyqh4jxlz-hello".parse().unwrap(),
        nar_hash: Sha256Hash::of(b"nar"),
        nar_size: 1000,
        references: Vec::new(),
        deriver: None,
        ca: None,
        signatures: Vec::new(),
    };
    Offer { info, device_signature: vec![0; 64] }
}

fn raw(number: u8) -> Bytes {
    Bytes::from(vec![number; 100])
}

fn batch(numbers: std::ops::Range<u8>) -> SenderEvent {
    let chunk = |number| (ChunkRef { id: ChunkId([number; 32]), raw_len: 100 }, raw(number));
    SenderEvent::Batch(numbers.map(chunk).collect())
}

struct Driven {
    sender: Sender,
    now: Instant,
}

impl Driven {
    /// A push whose offer was said and whose source was asked for its first batch.
    fn streamed() -> Self {
        let now = Instant::now();
        let sender = Sender::streamed(now, "main".parse().unwrap(), offer(), 2);
        let mut driven = Self { sender, now };
        let first = driven.actions();
        let [SenderAction::Send(ClientMessage::Offer { .. }), SenderAction::ReadBatch] = &first[..]
        else {
            panic!("{first:?}")
        };
        driven
    }

    fn does(&mut self, event: SenderEvent) -> Vec<SenderAction> {
        self.sender.handle(self.now, event);
        self.actions()
    }

    fn hears(&mut self, message: BoxMessage) -> Vec<SenderAction> {
        self.does(SenderEvent::Box(message))
    }

    fn actions(&mut self) -> Vec<SenderAction> {
        std::iter::from_fn(|| self.sender.next_action()).collect()
    }

    fn gives_up(&mut self, event: SenderEvent) -> SenderError {
        match self.does(event).as_slice() {
            [SenderAction::Send(ClientMessage::Abort { .. }), SenderAction::End(Err(error))] => {
                error.clone()
            }
            other => panic!("not given up: {other:?}"),
        }
    }
}

#[test]
fn two_batches_are_under_way_and_no_more() {
    let mut driven = Driven::streamed();
    let first = driven.does(batch(0..3));
    assert!(matches!(first[1], SenderAction::ReadBatch), "{first:?}");
    let second = driven.does(batch(3..5));
    assert!(
        matches!(second[..], [SenderAction::Send(ClientMessage::Batch { number: 1, .. })]),
        "{second:?}"
    );
    let taken = driven.hears(BoxMessage::Taken { batch: 0 });
    assert_eq!(taken, [SenderAction::Forget, SenderAction::ReadBatch]);
    let end = driven.does(SenderEvent::Batch(Vec::new()));
    assert_eq!(end, [SenderAction::Send(ClientMessage::Finish)]);
    assert_eq!(
        driven.hears(BoxMessage::Done(PushOutcome::Stored)),
        [SenderAction::End(Ok(PushOutcome::Stored))]
    );
}

#[test]
fn only_what_was_asked_for_is_compressed_and_sent() {
    let mut driven = Driven::streamed();
    driven.does(batch(0..3));
    let wanted = driven.hears(BoxMessage::Need { batch: 0, indexes: vec![0, 2] });
    let compress =
        |index: u8| SenderAction::Compress { batch: 0, index: u32::from(index), raw: raw(index) };
    assert_eq!(wanted, [compress(0), compress(2)]);
    let frame = Bytes::from_static(b"frame");
    let sent = driven.does(SenderEvent::Compressed { batch: 0, index: 0, frame: frame.clone() });
    let chunk = ClientMessage::Chunk { batch: 0, index: 0, frame };
    assert_eq!(sent, [SenderAction::Send(chunk)]);
    let again = driven.hears(BoxMessage::Need { batch: 0, indexes: vec![1] });
    assert_eq!(again, [compress(1)], "a chunk that was damaged on the box");
}

#[test]
fn a_box_that_breaks_the_protocol_is_left() {
    let need = |batch, indexes: &[u32]| BoxMessage::Need { batch, indexes: indexes.to_vec() };
    for message in [
        need(1, &[0]),
        need(0, &[]),
        need(0, &[3]),
        need(0, &[u32::MAX]),
        need(0, &[1, 0]),
        need(0, &[1, 1]),
        BoxMessage::Taken { batch: 1 },
        BoxMessage::Missing { indexes: Vec::new() },
    ] {
        let mut driven = Driven::streamed();
        driven.does(batch(0..3));
        let error = driven.gives_up(SenderEvent::Box(message.clone()));
        assert!(matches!(error, SenderError::Violation(_)), "{message:?}: {error:?}");
    }
}

#[test]
fn a_refusal_ends_the_push_with_its_words() {
    let mut driven = Driven::streamed();
    let refusal = Refusal::new(RefusalCode::NoSpace, "the store is full");
    let end = driven.hears(BoxMessage::Refused(refusal.clone()));
    assert_eq!(end, [SenderAction::End(Err(SenderError::Refused(refusal)))]);
    assert_eq!(driven.does(batch(0..3)), [], "nothing comes after the end");
}

#[test]
fn a_path_that_changes_is_not_pushed() {
    let mut driven = Driven::streamed();
    let error = driven.gives_up(SenderEvent::SourceFailed("it changed".into()));
    assert_eq!(error, SenderError::Source("it changed".into()));
}

#[test]
fn a_silent_box_is_left_but_ones_own_work_is_not_counted() {
    let mut driven = Driven::streamed();
    assert_eq!(driven.sender.deadline(), None, "the source is being read");
    driven.does(batch(0..3));
    driven.does(batch(3..5));
    assert_eq!(driven.sender.deadline(), Some(driven.now + STREAM_IDLE_MAX));
    driven.sender.tick(driven.now + STREAM_IDLE_MAX - Duration::from_millis(1));
    assert_eq!(driven.actions(), []);
    driven.sender.tick(driven.now + STREAM_IDLE_MAX);
    assert_eq!(driven.actions().last(), Some(&SenderAction::End(Err(SenderError::TimedOut))));
}

fn any_event() -> impl Strategy<Value = SenderEvent> {
    let indexes = proptest::collection::vec(0_u32..6, 0..4);
    let refused = Refusal::new(RefusalCode::Busy, "busy");
    prop_oneof![
        (0_u8..6).prop_map(|until| batch(0..until)),
        (0_u32..4, indexes)
            .prop_map(|(batch, indexes)| SenderEvent::Box(BoxMessage::Need { batch, indexes })),
        (0_u32..4).prop_map(|batch| SenderEvent::Box(BoxMessage::Taken { batch })),
        (0_u32..4, 0_u32..6).prop_map(|(batch, index)| SenderEvent::Compressed {
            batch,
            index,
            frame: Bytes::from_static(b"x")
        }),
        Just(SenderEvent::SourceFailed(String::new())),
        Just(SenderEvent::Box(BoxMessage::Done(PushOutcome::Known))),
        Just(SenderEvent::Box(BoxMessage::Refused(refused))),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_events_makes_it_panic_or_talk_after_its_end(
        events in proptest::collection::vec(any_event(), 0..40),
    ) {
        let mut driven = Driven::streamed();
        let mut ended = false;
        for event in events {
            // A source that is not asked gives nothing.
            let is_asked = ended || driven.sender.source == Source::Reading;
            if matches!(event, SenderEvent::Batch(_)) && !is_asked {
                continue;
            }
            for action in driven.does(event) {
                prop_assert!(!ended, "{action:?} after the end");
                ended = matches!(action, SenderAction::End(_));
            }
            prop_assert!(driven.sender.batches.len() <= 2, "the source was not asked for more");
        }
    }
}
