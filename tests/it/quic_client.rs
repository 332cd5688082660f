//! The client's side of QUIC over real sockets: whom it trusts, what it says, and how a push
//! fares when the other end is slow, rude or gone.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use larder::formats::{CacheName, PathInfo, Sha256Hash, base32};
use larder::transports::quic::{
    BoxConnection, ChunkSource, ConnectError, ConnectOptions, Identity, RequestError, SourceError,
};
use larder::wire::framing::encode;
use larder::wire::message::{BoxMessage, ChunkId, ChunkRef, ClientMessage, Offer, PushOutcome};
use larder::wire::{DeviceId, Refusal, RefusalCode, TokenText};
use tokio::task::JoinSet;

use crate::fixture::scripted_box::{ScriptedBox, Stream, Taken, welcome};

fn options(addresses: &[SocketAddr], for_boxes: &[DeviceId]) -> ConnectOptions {
    ConnectOptions {
        addresses: addresses.to_vec(),
        tokens: for_boxes.iter().map(|id| TokenText::new(*id, [3; 32])).collect(),
        device_seed: [4; 32],
        agent: "test".to_owned(),
    }
}

#[tokio::test]
async fn a_box_hears_the_token_that_is_for_it_and_no_other() {
    let office = ScriptedBox::start(1);
    let other = DeviceId([7; 20]);
    let options = options(&[office.address()], &[other, office.device_id]);
    let mine = options.tokens[1].to_secret_text();

    let answer = welcome();
    let (connected, (_connection, (_control, hello))) =
        tokio::join!(BoxConnection::connect(options), office.greet(&answer));

    let connected = connected.unwrap();
    assert_eq!(connected.device_id(), office.device_id);
    assert_eq!(connected.welcome().box_name, "office");
    let ClientMessage::Hello(hello) = hello else { panic!("{hello:?}") };
    assert_eq!(hello.token.as_str(), mine);
    assert!(connected.sent_bytes() > 1200, "a first packet is padded");
}

#[tokio::test]
async fn another_device_is_refused_with_both_ids_and_hears_nothing() {
    let imposter = ScriptedBox::start(1);
    let mine = DeviceId([7; 20]);
    let options = options(&[imposter.address()], &[mine]);

    let accept = async { imposter.endpoint.accept().await.unwrap().await };
    let (connected, met) = tokio::join!(BoxConnection::connect(options), accept);

    let error = connected.unwrap_err();
    assert!(matches!(error, ConnectError::WrongDevice { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&mine.to_string()), "{text}");
    assert!(text.contains(&imposter.device_id.to_string()), "{text}");
    assert!(met.is_err(), "the handshake failed, so no stream was opened");
}

#[tokio::test]
async fn a_silent_address_and_a_wrong_one_do_not_keep_it_from_the_right_one() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (imposter, office) = (ScriptedBox::start(1), ScriptedBox::start(2));
    let addresses = [silent.local_addr().unwrap(), imposter.address(), office.address()];
    let options = options(&addresses, &[office.device_id]);

    let answer = welcome();
    let (connected, _, _) =
        tokio::join!(BoxConnection::connect(options), office.greet(&answer), async {
            imposter.endpoint.accept().await.unwrap().await.is_err()
        },);
    assert_eq!(connected.unwrap().device_id(), office.device_id);
}

#[tokio::test]
async fn another_protocol_on_the_port_is_no_box() {
    let identity = Identity::from_seed(&[1; 32]).unwrap();
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["larder".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&pair).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(pair.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let options = options(&[endpoint.local_addr().unwrap()], &[identity.device_id()]);

    let accept = async { endpoint.accept().await.unwrap().await.is_err() };
    let (connected, _) = tokio::join!(BoxConnection::connect(options), accept);

    let error = connected.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { last: Some(_), .. }), "{error:?}");
}

#[tokio::test]
async fn a_greeting_can_go_wrong_in_many_ways() {
    let unauthorised = Refusal::new(RefusalCode::Unauthorised, "the token was revoked");
    let refused = encode(&BoxMessage::Refused(unauthorised)).unwrap();
    let (office, garbage) = (ScriptedBox::start(1), b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    let out_of_turn = encode(&BoxMessage::Taken { batch: 0 }).unwrap();
    for (answer, wants) in [(refused, "Refused"), (garbage, "Greeting"), (out_of_turn, "Violation")]
    {
        let options = options(&[office.address()], &[office.device_id]);
        let (connected, _kept) =
            tokio::join!(BoxConnection::connect(options), office.greet(&answer));
        let error = format!("{:?}", connected.unwrap_err());
        assert!(error.starts_with(wants), "{error}");
    }
    let error = BoxConnection::connect(options(&[], &[office.device_id])).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoAddress), "{error:?}");
    let error = BoxConnection::connect(options(&[office.address()], &[])).await.unwrap_err();
    assert!(matches!(error, ConnectError::NoToken), "{error:?}");
}

/// A NAR that is made up while it is read.
struct TestSource {
    chunks_left: usize,
    chunk_len: usize,
    seed: u64,
    /// Bytes of NAR that are alive, and the most there ever were.
    alive: Arc<AtomicUsize>,
    most_alive: Arc<AtomicUsize>,
    fails_at: Option<usize>,
}

/// Counts its bytes as long as it lives.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::SeqCst);
    }
}

impl TestSource {
    fn new(seed: u64, chunks: usize, chunk_len: usize) -> Self {
        let (alive, most_alive) = (Arc::default(), Arc::default());
        Self { chunks_left: chunks, chunk_len, seed, alive, most_alive, fails_at: None }
    }

    fn chunk(&self, left: usize) -> Vec<u8> {
        let mut reader = blake3::Hasher::new();
        reader.update(&self.seed.to_le_bytes()).update(&left.to_le_bytes());
        let mut bytes = vec![0; self.chunk_len];
        reader.finalize_xof().fill(&mut bytes);
        bytes
    }

    fn offer(&self) -> Offer {
        let nar: Vec<u8> = (0..self.chunks_left).rev().flat_map(|left| self.chunk(left)).collect();
        let name = base32::encode(&Sha256Hash::of(&nar).as_bytes()[..20]);
        let info = PathInfo {
            store_path: format!("{name}-path").parse().unwrap(),
            nar_hash: Sha256Hash::of(&nar),
            nar_size: u64::try_from(nar.len()).unwrap(),
            references: Vec::new(),
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        };
        Offer { info, device_signature: vec![0; 64] }
    }
}

impl ChunkSource for TestSource {
    fn next_batch(&mut self) -> Result<Vec<(ChunkRef, Bytes)>, SourceError> {
        let mut batch = Vec::new();
        while self.chunks_left > 0 && (batch.len() + 1) * self.chunk_len <= 4 << 20 {
            if self.fails_at == Some(self.chunks_left) {
                return Err(SourceError("the path changed while it was read".to_owned()));
            }
            self.chunks_left -= 1;
            let raw = self.chunk(self.chunks_left);
            let id = ChunkId(*blake3::hash(&raw).as_bytes());
            let raw_len = u32::try_from(raw.len()).unwrap();
            let alive = self.alive.fetch_add(raw.len(), Ordering::SeqCst) + raw.len();
            self.most_alive.fetch_max(alive, Ordering::SeqCst);
            let raw = Bytes::from_owner(Counted(raw, Arc::clone(&self.alive)));
            batch.push((ChunkRef { id, raw_len }, raw));
        }
        Ok(batch)
    }

    fn compress(&mut self, raw: &[u8]) -> Result<Bytes, SourceError> {
        let frame = zstd::bulk::compress(raw, 1).map_err(|error| SourceError(error.to_string()))?;
        Ok(frame.into())
    }
}

async fn push(
    client: &BoxConnection,
    offer: Offer,
    source: TestSource,
) -> Result<PushOutcome, RequestError> {
    let cache: CacheName = "main".parse().unwrap();
    client.push(&cache, offer, Box::new(source)).await
}

/// A client and the box it is greeted by.
async fn pair(office: &ScriptedBox) -> (BoxConnection, quinn::Connection, Stream) {
    let options = options(&[office.address()], &[office.device_id]);
    let answer = welcome();
    let (connected, (connection, (control, _hello))) =
        tokio::join!(BoxConnection::connect(options), office.greet(&answer));
    (connected.unwrap(), connection, control)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_paths_at_once_stay_within_their_memory() {
    let office = ScriptedBox::start(1);
    let (client, connection, _control) = pair(&office).await;
    let (alive, most_alive) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut pushes = JoinSet::new();
    for seed in 0..24 {
        let chunks = if seed % 4 == 0 { 100 } else { 30 };
        let mut source = TestSource::new(seed, chunks, 128 << 10);
        (source.alive, source.most_alive) = (Arc::clone(&alive), Arc::clone(&most_alive));
        let (client, offer) = (client.clone(), source.offer());
        pushes.spawn(async move { push(&client, offer, source).await });
    }
    let taken = Taken::default();
    let pushed = async {
        while let Some(outcome) = pushes.join_next().await {
            assert_eq!(outcome.unwrap().unwrap(), PushOutcome::Stored);
        }
        client.close().await;
    };
    tokio::join!(taken.serve(&connection), pushed);

    let most = most_alive.load(Ordering::SeqCst);
    assert!(most <= 32 << 20, "{most} bytes of NAR at once");
    assert_eq!(alive.load(Ordering::SeqCst), 0, "all were let go");
    assert_eq!(taken.chunks.lock().unwrap().len(), 6 * 100 + 18 * 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_tiny_paths_go_through_one_connection() {
    let office = ScriptedBox::start(1);
    let (client, connection, _control) = pair(&office).await;
    let mut pushes = JoinSet::new();
    for seed in 0..2_000 {
        let source = TestSource::new(seed, 1, 300);
        let (client, offer) = (client.clone(), source.offer());
        pushes.spawn(async move { push(&client, offer, source).await });
    }
    let taken = Taken::default();
    let pushed = async {
        while let Some(outcome) = pushes.join_next().await {
            assert_eq!(outcome.unwrap().unwrap(), PushOutcome::Stored);
        }
        client.close().await;
    };
    tokio::join!(taken.serve(&connection), pushed);
    assert_eq!(taken.chunks.lock().unwrap().len(), 2_000);
}

#[tokio::test]
async fn a_refusal_is_heard_even_if_the_box_stops_reading() {
    let office = ScriptedBox::start(1);
    let (client, connection, _control) = pair(&office).await;
    let source = TestSource::new(1, 200, 128 << 10);
    let offer = source.offer();
    let full = Refusal::new(RefusalCode::NoSpace, "the store is full");
    let refuse = async {
        let (send, recv) = connection.accept_bi().await.unwrap();
        let mut stream = Stream::new(send, recv);
        let _offer = stream.hear().await.unwrap();
        let Some(ClientMessage::Batch { chunks, .. }) = stream.hear().await else { panic!() };
        let indexes = (0..u32::try_from(chunks.len()).unwrap()).collect();
        stream.say(&BoxMessage::Need { batch: 0, indexes }).await;
        let _one_chunk = stream.hear().await.unwrap();
        stream.say(&BoxMessage::Refused(full.clone())).await;
    };
    let (pushed, ()) = tokio::join!(push(&client, offer, source), refuse);
    let error = pushed.unwrap_err();
    assert_eq!(error.refusal(), Some(&full), "{error:?}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_path_that_changes_while_it_is_read_is_told_to_both_sides() {
    let office = ScriptedBox::start(1);
    let (client, connection, _control) = pair(&office).await;
    let mut source = TestSource::new(1, 100, 128 << 10);
    let offer = source.offer();
    source.fails_at = Some(50);
    let hear = async {
        let (send, recv) = connection.accept_bi().await.unwrap();
        let mut stream = Stream::new(send, recv);
        let mut last = None;
        while let Some(message) = stream.hear().await {
            last = Some(message);
        }
        last
    };
    let (pushed, last) = tokio::join!(push(&client, offer, source), hear);
    assert!(matches!(pushed, Err(RequestError::Source(_))), "{pushed:?}");
    assert!(matches!(last, Some(ClientMessage::Abort { .. })), "{last:?}");
}

#[tokio::test]
async fn a_box_that_was_started_again_is_noticed_at_once() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let office = ScriptedBox::on(socket.try_clone().unwrap(), 1);
    let (client, connection, _control) = pair(&office).await;
    let source = TestSource::new(1, 100, 128 << 10);
    let offer = source.offer();

    let killed = async {
        let (_send, _recv) = connection.accept_bi().await.unwrap();
        // A killed process says nothing more; here its answers go to nobody.
        office.endpoint.rebind(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).unwrap();
        let again = ScriptedBox::on(socket, 1);
        assert_eq!(again.address(), address);
        std::future::pending::<()>().await;
    };
    let pushed = tokio::select! {
        pushed = push(&client, offer, source) => pushed,
        () = killed => unreachable!(),
    };
    let error = pushed.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(format!("{error:?}").contains("Reset"), "{error:?}");
}
