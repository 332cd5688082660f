//! A client that pushes paths until the box acknowledged each, whatever happens in between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use larder::formats::limits::{BATCH_BYTES_MAX, BATCHES_IN_FLIGHT_MAX, INLINE_NAR_BYTES_MAX};
use larder::formats::{PathInfo, Sha256Hash, base32};
use larder::wire::message::{ChunkId, ChunkRef, InlineChunk, Offer, PushOutcome};
use larder::wire::push::{Sender, SenderAction, SenderError, SenderEvent};
use quinn_proto::{ClientConfig, Connection};

use super::channel::Channel;
use super::dice::Dice;
use super::link::Node;

/// A path to push. Its frames are its chunks, uncompressed.
pub(crate) struct TestPath {
    pub(crate) offer: Offer,
    pub(crate) chunks: Vec<(ChunkRef, Bytes)>,
}

impl TestPath {
    pub(crate) fn new(dice: &mut Dice, number: usize) -> Self {
        let nar_len = match number % 3 {
            0 => dice.between(100, 2_000),
            1 => dice.between(2_000, 400_000),
            _ => dice.between(400_000, 9_000_000),
        };
        let nar = dice.bytes(usize::try_from(nar_len).expect("a small number"));
        let mut rest = Bytes::from(nar.clone());
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let longest = u64::try_from(rest.len()).expect("a small number").min(262_144);
            let length = usize::try_from(dice.between(longest.min(16_384), longest));
            let raw = rest.split_to(length.expect("a small number"));
            let id = ChunkId(*blake3::hash(&raw).as_bytes());
            let raw_len = u32::try_from(raw.len()).expect("a small number");
            chunks.push((ChunkRef { id, raw_len }, raw));
        }
        let info = PathInfo {
            store_path: format!("{}-path{number}", base32::encode(&dice.bytes(20)))
                .parse()
                .expect("a store path"),
            nar_hash: Sha256Hash::of(&nar),
            nar_size: nar_len,
            references: Vec::new(),
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        };
        Self { offer: Offer { info, device_signature: vec![0; 64] }, chunks }
    }

    pub(crate) fn nar(&self) -> Vec<u8> {
        self.chunks.iter().flat_map(|(_, raw)| raw.iter().copied()).collect()
    }
}

/// The client: what it wants pushed, and its connection.
pub(crate) struct Pusher {
    pub(crate) paths: Vec<TestPath>,
    pub(crate) done: Vec<Option<PushOutcome>>,
    /// Chunks that went out.
    pub(crate) sent_chunks: usize,
    pub(crate) connects: usize,
    config: ClientConfig,
    connection: Option<usize>,
    active: Vec<Active>,
}

struct Active {
    path: usize,
    channel: Channel,
    sender: Sender,
    /// Chunks that no batch has named yet.
    unread: VecDeque<(ChunkRef, Bytes)>,
}

const PUSHES_AT_ONCE: usize = 4;

impl Pusher {
    pub(crate) fn new(paths: Vec<TestPath>, config: ClientConfig) -> Self {
        let done = paths.iter().map(|_| None).collect();
        let active = Vec::new();
        Self { paths, done, sent_chunks: 0, connects: 0, config, connection: None, active }
    }

    /// Forgets everything but what was acknowledged to its user.
    pub(crate) fn restart(&mut self) {
        self.connection = None;
        self.active.clear();
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.iter().all(Option::is_some)
    }

    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.active.iter().filter_map(|active| active.sender.deadline()).min()
    }

    /// Connects if there is no connection, opens pushes, and moves them on.
    pub(crate) fn work(&mut self, now: Instant, node: &mut Node, to: std::net::SocketAddr) {
        if let Some(handle) = self.connection
            && node.connections.get(&handle).is_none_or(Connection::is_closed)
        {
            self.restart();
        }
        let handle = *self.connection.get_or_insert_with(|| {
            self.connects += 1;
            let config = self.config.clone();
            let connected = node.endpoint.connect(now, config, to, "larder").expect("connects");
            node.add(connected.0, connected.1)
        });
        let Some(connection) = node.connections.get_mut(&handle) else { return };
        self.open(now, connection);
        for active in &mut self.active {
            self.sent_chunks += active.move_on(now, connection, &mut self.done);
        }
        self.active.retain(|active| !active.channel.ended);
    }

    fn open(&mut self, now: Instant, connection: &mut Connection) {
        for path in 0..self.paths.len() {
            let is_active = self.active.iter().any(|active| active.path == path);
            if is_active || self.done[path].is_some() || self.active.len() >= PUSHES_AT_ONCE {
                continue;
            }
            let Some(channel) = Channel::open(connection) else { return };
            let TestPath { offer, chunks } = &self.paths[path];
            let cache = "main".parse().expect("a cache's name");
            let (sender, unread) = if offer.info.nar_size <= INLINE_NAR_BYTES_MAX {
                let inline = chunks
                    .iter()
                    .map(|(chunk, raw)| InlineChunk { chunk: *chunk, frame: raw.clone() });
                let inline = inline.collect();
                (Sender::inline(now, cache, offer.clone(), inline), VecDeque::new())
            } else {
                let in_flight = u32::try_from(BATCHES_IN_FLIGHT_MAX).expect("a small number");
                let sender = Sender::streamed(now, cache, offer.clone(), in_flight);
                (sender, chunks.iter().cloned().collect())
            };
            self.active.push(Active { path, channel, sender, unread });
        }
    }
}

impl Active {
    /// Moves the push on; how many chunks went out.
    fn move_on(
        &mut self,
        now: Instant,
        connection: &mut Connection,
        done: &mut [Option<PushOutcome>],
    ) -> usize {
        let mut sent = self.act(now, done);
        while let Some(message) = self.channel.hear(connection) {
            self.sender.handle(now, SenderEvent::Box(message));
            sent += self.act(now, done);
        }
        self.sender.tick(now);
        sent += self.act(now, done);
        self.channel.flush(connection);
        sent
    }

    fn act(&mut self, now: Instant, done: &mut [Option<PushOutcome>]) -> usize {
        let mut sent = 0;
        while let Some(action) = self.sender.next_action() {
            match action {
                SenderAction::Send(message) => self.channel.say(&message),
                SenderAction::ReadBatch => {
                    let batch = self.read();
                    self.sender.handle(now, SenderEvent::Batch(batch));
                }
                SenderAction::Compress { batch, index, raw } => {
                    sent += 1;
                    let event = SenderEvent::Compressed { batch, index, frame: raw };
                    self.sender.handle(now, event);
                }
                SenderAction::Forget => {}
                SenderAction::End(Ok(outcome)) => {
                    done[self.path] = Some(outcome);
                    self.channel.ended = true;
                }
                SenderAction::End(Err(SenderError::TimedOut | SenderError::Refused(_))) => {
                    self.channel.ended = true;
                }
                SenderAction::End(Err(error)) => panic!("{error:?}"),
            }
        }
        sent
    }

    fn read(&mut self) -> Vec<(ChunkRef, Bytes)> {
        let mut batch = Vec::new();
        let mut raw_bytes = 0;
        while let Some((chunk, raw)) = self.unread.pop_front() {
            raw_bytes += u64::from(chunk.raw_len);
            if raw_bytes > BATCH_BYTES_MAX / 4 {
                self.unread.push_front((chunk, raw));
                break;
            }
            batch.push((chunk, raw));
        }
        batch
    }
}

/// The client's settings for QUIC, trusting one box.
pub(crate) fn client_config(
    pins: &Arc<larder::transports::quic::identity::Pins>,
    transport: quinn_proto::TransportConfig,
) -> ClientConfig {
    let mut config = ClientConfig::new(Arc::new(pins.client_crypto().expect("TLS")));
    config.transport_config(Arc::new(transport));
    config
}
