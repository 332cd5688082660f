//! Connections over real sockets: kept, broken, drained.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::with_path;
use crate::services::tests::{TestServices, noise};
use crate::transports::http::{HttpOptions, serve};

/// A server on a port of its own.
struct Served {
    address: SocketAddr,
    stop: CancellationToken,
    server: JoinSet<std::io::Result<()>>,
}

impl Served {
    async fn new(test: &TestServices) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let mut server = JoinSet::new();
        server.spawn(serve(listener, test.services.clone(), HttpOptions::default(), stop.clone()));
        Self { address, stop, server }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.server.join_next().await.unwrap().unwrap().unwrap();
    }
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads a head and as many bytes behind it as it promises.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "ended after {text}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_the_next_request() {
    let (test, _, _) = with_path(b"hello").await;
    let served = Served::new(&test).await;
    let mut stream = served.connect().await;
    for _ in 0..3 {
        ask(&mut stream, "/nix-cache-info").await;
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert_eq!(test.services.metrics.connections.get(), 1);
    served.stop().await;
    assert_eq!(test.services.metrics.connections.get(), 0);
    test.stop().await;
}

#[tokio::test]
async fn a_nar_that_cannot_be_read_breaks_the_connection() {
    let (test, _, path) = with_path(&noise(1, 3_000_000)).await;
    let served = Served::new(&test).await;
    test.damage();
    let url = format!("/nar/{}.nar", path.info.nar_hash.to_base32());
    let mut stream = served.connect().await;
    ask(&mut stream, &url).await;

    let mut bytes = Vec::new();
    let _reset_or_end = stream.read_to_end(&mut bytes).await;

    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(1000)]).into_owned();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "the damage is in the middle: {head}");
    assert!(head.contains(&format!("content-length: {}\r\n", path.nar.len())), "{head}");
    assert!(bytes.len() < path.nar.len(), "{} bytes came", bytes.len());

    // Now it is known from the start, and not even a status is said.
    let mut stream = served.connect().await;
    ask(&mut stream, &url).await;
    let mut bytes = Vec::new();
    let _reset_or_end = stream.read_to_end(&mut bytes).await;
    assert!(!bytes.starts_with(b"HTTP/1.1 200 OK") || bytes.len() < path.nar.len());
    served.stop().await;
    test.stop().await;
}

#[tokio::test]
async fn a_stop_lets_a_transfer_finish_and_closes_what_is_idle() {
    let (test, _, path) = with_path(&noise(1, 20_000_000)).await;
    let served = Served::new(&test).await;
    let mut idle = served.connect().await;
    ask(&mut idle, "/healthz").await;
    read_answer(&mut idle).await;
    let mut busy = served.connect().await;
    ask(&mut busy, &format!("/nar/{}.nar", path.info.nar_hash.to_base32())).await;
    let mut bytes = vec![0; 1000];
    busy.read_exact(&mut bytes).await.unwrap();

    let reader = async {
        assert_eq!(idle.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        busy.read_to_end(&mut bytes).await.unwrap();
    };
    tokio::join!(reader, served.stop());

    assert!(bytes.ends_with(&path.nar[path.nar.len() - 1000..]), "{} bytes came", bytes.len());
    test.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let (test, _, _) = with_path(b"hello").await;
    let served = Served::new(&test).await;
    let mut stream = served.connect().await;
    ask(&mut stream, &format!("/{}", "x".repeat(40_000))).await;
    let mut bytes = Vec::new();
    let _reset_or_end = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.starts_with("HTTP/1.1 431 ") || text.starts_with("HTTP/1.1 414 "), "{text}");
    served.stop().await;
    test.stop().await;
}

#[tokio::test]
async fn administration_over_a_socket_is_from_this_machine() {
    let (test, _, _) = with_path(b"hello").await;
    let served = Served::new(&test).await;
    let mut stream = served.connect().await;
    let request = format!(
        "GET /api/larder/v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        test.owner_token
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"http_connections\":1"), "{answer}");
    served.stop().await;
    test.stop().await;
}
