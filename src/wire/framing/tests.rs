use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::formats::{CacheName, StorePathHash};
use crate::wire::hello::{Capabilities, Hello, ProtocolRange};
use crate::wire::message::{
    AdminRequest, BoxMessage, ChunkId, ChunkRef, ClientMessage, PushOutcome,
};
use crate::wire::pairing::Pair;

fn decode_all<M: Message>(pieces: &[&[u8]]) -> Result<Vec<M>, FramingError> {
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    let mut messages = Vec::new();
    for piece in pieces {
        decoder.feed(piece);
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
    }
    Ok(messages)
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat()
}

#[test]
fn the_bytes_are_those_of_the_document() {
    let taken = encode(&BoxMessage::Taken { batch: 300 }).unwrap();
    assert_eq!(taken, [3, 0, 0, 0, 4, 0xac, 0x02]);
    assert_eq!(encode(&ClientMessage::Finish).unwrap(), [1, 0, 0, 0, 5]);
    let chunk = ClientMessage::Chunk { batch: 1, index: 2, frame: Bytes::from_static(b"abc") };
    assert_eq!(encode(&chunk).unwrap(), [7, 0, 0, 0, 4, 1, 2, 3, b'a', b'b', b'c']);
}

#[test]
fn every_message_has_its_number() {
    let cache: CacheName = "main".parse().unwrap();
    let admin = AdminRequest { method: "GET".into(), path: "/".into(), body: Vec::new() };
    let hello = Hello {
        protocols: ProtocolRange::OURS,
        agent: "test".into(),
        token: "ldr_".to_owned().into(),
        device_key: [0; 32],
        capabilities: Capabilities::OURS,
    };
    let pair = Pair {
        protocols: ProtocolRange::OURS,
        agent: "test".into(),
        code: "3f7k-92mx".to_owned().into(),
    };
    let messages = [
        (0, ClientMessage::Hello(hello)),
        (1, ClientMessage::Missing { cache, hashes: Vec::new() }),
        (3, ClientMessage::Batch { number: 0, chunks: Vec::new() }),
        (4, ClientMessage::Chunk { batch: 0, index: 0, frame: Bytes::new() }),
        (5, ClientMessage::Finish),
        (6, ClientMessage::Abort { reason: String::new() }),
        (7, ClientMessage::Admin(admin)),
        (8, ClientMessage::Pair(pair)),
    ];
    for (number, message) in messages {
        assert_eq!(encode(&message).unwrap()[LENGTH_BYTES], number, "{}", message.name());
    }
}

#[test]
fn a_number_of_a_later_version_is_refused() {
    for number in [ClientMessage::NUMBERS, 20, 1000] {
        let body = postcard::to_stdvec(&number).unwrap();
        let error = decode_all::<ClientMessage>(&[&framed(&body)]).unwrap_err();
        assert_eq!(error, FramingError::UnknownNumber(number));
        assert_eq!(Refusal::from(error).code, RefusalCode::UnknownMessage);
    }
    let error = decode_all::<BoxMessage>(&[&framed(&[20])]).unwrap_err();
    assert_eq!(error, FramingError::UnknownNumber(20));
}

#[test]
fn a_message_longer_than_allowed_is_refused_by_its_length_alone() {
    let mut decoder = Decoder::new(100);
    decoder.feed(&101_u32.to_le_bytes());
    let error = decoder.next_message::<ClientMessage>().unwrap_err();
    assert_eq!(error, FramingError::TooLong { len_bytes: 101, max_bytes: 100 });

    let mut decoder = Decoder::new(usize::MAX);
    decoder.feed(&u32::MAX.to_le_bytes());
    assert!(decoder.next_message::<ClientMessage>().is_err());

    let frame = Bytes::from(vec![0_u8; MESSAGE_BYTES_MAX]);
    let message = ClientMessage::Chunk { batch: 0, index: 0, frame };
    assert!(matches!(encode(&message), Err(FramingError::TooLong { .. })));
}

#[test]
fn bytes_behind_a_message_are_refused() {
    let error = decode_all::<ClientMessage>(&[&framed(&[5, 0])]).unwrap_err();
    assert_eq!(error, FramingError::Trailing(1));
    assert!(decode_all::<ClientMessage>(&[&framed(&[])]).is_err(), "a message has a number");
}

fn chunk_ref() -> impl Strategy<Value = ChunkRef> {
    (any::<[u8; 32]>(), any::<u32>())
        .prop_map(|(id, raw_len)| ChunkRef { id: ChunkId(id), raw_len })
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
    let hashes = proptest::collection::vec(any::<[u8; 20]>(), 0..40);
    prop_oneof![
        hashes.prop_map(|hashes| ClientMessage::Missing {
            cache: "office-2".parse().unwrap(),
            hashes: hashes.into_iter().map(StorePathHash::from_bytes).collect(),
        }),
        (any::<u32>(), proptest::collection::vec(chunk_ref(), 0..20))
            .prop_map(|(number, chunks)| ClientMessage::Batch { number, chunks }),
        (any::<u32>(), any::<u32>(), bytes()).prop_map(|(batch, index, frame)| {
            ClientMessage::Chunk { batch, index, frame: frame.into() }
        }),
        Just(ClientMessage::Finish),
        ".{0,40}".prop_map(|reason| ClientMessage::Abort { reason }),
        ("[A-Z]{3,6}", ".{0,40}", bytes()).prop_map(|(method, path, body)| {
            ClientMessage::Admin(AdminRequest { method, path, body })
        }),
    ]
}

fn box_message() -> impl Strategy<Value = BoxMessage> {
    let indexes = || proptest::collection::vec(any::<u32>(), 0..40);
    prop_oneof![
        (any::<u16>(), ".{0,40}").prop_map(|(code, sentence)| {
            BoxMessage::Refused(Refusal::new(RefusalCode::from(code), sentence))
        }),
        indexes().prop_map(|indexes| BoxMessage::Missing { indexes }),
        (any::<u32>(), indexes()).prop_map(|(batch, indexes)| BoxMessage::Need { batch, indexes }),
        any::<u32>().prop_map(|batch| BoxMessage::Taken { batch }),
        proptest::collection::vec(".{0,20}", 0..5)
            .prop_map(|missing| BoxMessage::Done(PushOutcome::Hidden { missing })),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        client in proptest::collection::vec(client_message(), 0..5),
        boxes in proptest::collection::vec(box_message(), 0..5),
    ) {
        let bytes: Vec<u8> = client.iter().flat_map(|message| encode(message).unwrap()).collect();
        prop_assert_eq!(decode_all::<ClientMessage>(&[&bytes]).unwrap(), client);
        let bytes: Vec<u8> = boxes.iter().flat_map(|message| encode(message).unwrap()).collect();
        prop_assert_eq!(decode_all::<BoxMessage>(&[&bytes]).unwrap(), boxes);
    }

    #[test]
    fn the_cut_into_pieces_does_not_matter(
        messages in proptest::collection::vec(client_message(), 1..4),
        piece_len in 1_usize..50,
    ) {
        let bytes: Vec<u8> = messages.iter().flat_map(|message| encode(message).unwrap()).collect();
        let pieces: Vec<&[u8]> = bytes.chunks(piece_len).collect();
        prop_assert_eq!(decode_all::<ClientMessage>(&pieces).unwrap(), messages);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _any_answer = decode_all::<ClientMessage>(&[&bytes]);
        let _any_answer = decode_all::<BoxMessage>(&[&framed(&bytes)]);
        let _any_answer = decode_all::<ClientMessage>(&[&framed(&bytes)]);
    }

    #[test]
    fn a_changed_byte_does_not_make_the_decoder_panic(
        message in client_message(),
        place in any::<proptest::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = encode(&message).unwrap();
        let place = place.index(bytes.len());
        bytes[place] = value;
        let _any_answer = decode_all::<ClientMessage>(&[&bytes]);
    }
}

#[test]
fn a_greeting_may_say_more_than_we_know() {
    let hello = ClientMessage::Hello(Hello {
        protocols: ProtocolRange { lowest: 2, highest: 7 },
        agent: "from next year".into(),
        token: String::new().into(),
        device_key: [0; 32],
        capabilities: Capabilities::OURS,
    });
    let mut body = postcard::to_stdvec(&hello).unwrap();
    body.extend_from_slice(b"what nobody knows yet");
    let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
    decoder.feed(&framed(&body));
    assert_eq!(decoder.next_message::<ClientMessage>().unwrap(), Some(hello));
}

#[test]
fn who_greets_in_another_version_is_told_so_whatever_follows() {
    for number in [0_u32, 8] {
        let head = (number, ProtocolRange { lowest: 1, highest: 1 }, "larder 0.1.0");
        let mut decoder = Decoder::new(MESSAGE_BYTES_MAX);
        decoder.feed(&framed(&postcard::to_stdvec(&head).unwrap()));
        let error = decoder.next_message::<ClientMessage>().unwrap_err();
        let refusal = Refusal::from(error);
        assert_eq!(refusal.code, RefusalCode::UnsupportedVersion, "{refusal}");
        assert!(refusal.sentence.contains("update the older one"), "{refusal}");
    }
}
