//! Messages of both sides: the same in pieces as at once; what is read writes back and reads the
//! same; a length costs the receiver no more than the sender. Greetings are checked too.
#![no_main]

use std::fmt::Debug;

use larder::formats::limits::MESSAGE_BYTES_MAX;
use larder::wire::framing::{Decoder, FramingError, LENGTH_BYTES, encode};
use larder::wire::hello::{HELLO_BYTES_MAX, Hello, Limits};
use larder::wire::message::{BoxMessage, ClientMessage, Message};
use larder_fuzz::{pieces, seed, within};
use libfuzzer_sys::fuzz_target;

fn read<'a, M: Message>(
    parts: impl Iterator<Item = &'a [u8]>,
    max_bytes: usize,
) -> (Vec<M>, Option<FramingError>) {
    let (mut decoder, mut messages) = (Decoder::new(max_bytes), Vec::new());
    for part in parts {
        decoder.feed(part);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        assert!(
            decoder.held_bytes() <= max_bytes.min(MESSAGE_BYTES_MAX) + LENGTH_BYTES + part.len()
        );
    }
    (messages, None)
}

fn laws<M: Message + Debug + PartialEq>(bytes: &[u8], seed: u64, max_bytes: usize) -> Vec<M> {
    // serde makes room for 1 MiB of items at most before it has seen them, for lists in lists
    // each; a value of a few bytes on the wire has some hundred in memory.
    let held = 256 * bytes.len() + (4 << 20);
    let (messages, error) = within(held, || read::<M>([bytes].into_iter(), max_bytes));
    let (again, again_error) = within(held, || read::<M>(pieces(bytes, seed), max_bytes));
    assert_eq!((&messages, &error), (&again, &again_error));
    for message in &messages {
        // What a number says in more bytes than it needs may not fit any more, but never grows.
        let written = encode(message).expect("what was read can be written");
        let (back, none) = read::<M>([written.as_slice()].into_iter(), MESSAGE_BYTES_MAX);
        assert_eq!((back.as_slice(), none), (std::slice::from_ref(message), None));
    }
    messages
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, bytes)) = seed(data) else { return };
    let max_bytes = if seed >> 63 == 0 { HELLO_BYTES_MAX } else { MESSAGE_BYTES_MAX };
    for message in laws::<ClientMessage>(bytes, seed, max_bytes) {
        match message {
            ClientMessage::Hello(hello) => {
                if let Ok(version) = hello.choose_protocol() {
                    let theirs = hello.protocols;
                    assert!((theirs.lowest..=theirs.highest).contains(&version));
                }
                let nameless = Hello { agent: String::new(), ..hello };
                assert!(!format!("{nameless:?}").contains("ldr_"), "a token is shown");
            }
            ClientMessage::Pair(pair) => {
                let _either_way = pair.checked();
            }
            _ => {}
        }
    }
    for message in laws::<BoxMessage>(bytes, seed, max_bytes) {
        if let BoxMessage::Welcome(welcome) = message
            && let Ok(welcome) = welcome.checked()
        {
            let (limits, ours) = (welcome.limits, Limits::ours());
            assert!((1..=ours.missing_hashes).contains(&limits.missing_hashes));
            assert!((1..=ours.batches_in_flight).contains(&limits.batches_in_flight));
            assert!(limits.inline_nar_bytes <= ours.inline_nar_bytes);
        }
    }
});
