//! Both sides of one connection, over a pipe in memory.

use std::net::Ipv4Addr;

use tokio::io::duplex;

use super::*;

/// Both sides of one connection.
async fn pair() -> (Streams, Streams) {
    let (near, far) = duplex(64 << 10);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let (client, larder) =
        tokio::join!(Streams::of_client(near, address), Streams::of_box(far, address));
    (client.unwrap(), larder.unwrap())
}

async fn say(send: &mut SendHalf, bytes: &[u8]) {
    let mut pending = BytesMut::from(bytes);
    while !pending.is_empty() {
        send.write(&mut pending).await.unwrap().unwrap();
    }
}

async fn hear(recv: &mut RecvHalf) -> Vec<u8> {
    let mut heard = Vec::new();
    while let Some(piece) = recv.read().await.unwrap() {
        heard.extend_from_slice(&piece);
    }
    heard
}

#[tokio::test]
async fn streams_carry_both_ways_at_once_and_end() {
    let (client, larder) = pair().await;
    let long = vec![7; 3 << 20];
    let ask = async {
        let (mut first, mut first_answer) = client.open().await.unwrap();
        let (mut second, mut second_answer) = client.open().await.unwrap();
        say(&mut second, b"short").await;
        second.finish();
        assert_eq!(hear(&mut second_answer).await, b"short");
        let answer = async { hear(&mut first_answer).await };
        let question = async {
            say(&mut first, &long).await;
            first.finish();
        };
        let (answer, ()) = tokio::join!(answer, question);
        assert!(answer == long);
    };
    let echo = async {
        let mut streams = Vec::new();
        for _ in 0..2 {
            streams.push(larder.accept().await.unwrap());
        }
        for (mut send, mut recv) in streams.into_iter().rev() {
            while let Some(piece) = recv.read().await.unwrap() {
                say(&mut send, &piece).await;
            }
            send.finish();
        }
    };
    tokio::join!(ask, echo);
    assert!(client.sent_bytes() > 3 << 20);
}

#[tokio::test]
async fn who_stops_reading_can_still_answer() {
    let (client, larder) = pair().await;
    let (mut send, mut recv) = client.open().await.unwrap();
    say(&mut send, b"question").await;
    let (mut answer, mut question) = larder.accept().await.unwrap();
    assert_eq!(question.read().await.unwrap().unwrap().as_ref(), b"question");
    say(&mut answer, b"no").await;
    answer.finish();
    drop((answer, question));

    let mut pending = BytesMut::zeroed(8 << 20);
    while send.write(&mut pending).await.unwrap().is_some() {
        assert!(!pending.is_empty(), "nobody reads 8 MiB");
    }
    assert_eq!(recv.read().await.unwrap().unwrap().as_ref(), b"no");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_is_bounded() {
    let (client, larder) = pair().await;
    let mut sent = 0;
    let mut kept = Vec::new();
    for _ in 0..4 {
        let (mut send, recv) = client.open().await.unwrap();
        let mut pending = BytesMut::zeroed(4 << 20);
        let write = async { while send.write(&mut pending).await.unwrap().is_some() {} };
        assert!(timeout(Duration::from_secs(1), write).await.is_err());
        sent += (4 << 20) - pending.len();
        kept.push((send, recv));
    }
    let buffers = 4 * SEND_BUFFER_BYTES;
    let window = usize::try_from(QUIC_WINDOW_BYTES).unwrap();
    assert!((window..=window + buffers).contains(&sent), "{sent}");
    drop(larder);
}

#[tokio::test]
async fn what_was_said_last_arrives_before_the_end() {
    let (client, larder) = pair().await;
    let (mut send, mut recv) = client.open().await.unwrap();
    say(&mut send, b"x").await;
    let (mut answer, question) = larder.accept().await.unwrap();
    say(&mut answer, b"going down").await;
    answer.finish();
    drop((answer, question));
    let (heard, ()) = tokio::join!(recv.read(), larder.close());
    assert_eq!(heard.unwrap().unwrap().as_ref(), b"going down");
    assert!(larder.accept().await.is_none());
    drop((send, recv));
    assert!(client.open().await.is_err());
    client.close().await;
}
