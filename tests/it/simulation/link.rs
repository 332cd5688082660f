//! Two QUIC endpoints, a link between them that loses, delays, doubles and reorders datagrams,
//! and a clock that only this file moves.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, ServerConfig,
};

use super::dice::Dice;

/// How bad a link is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) loss_percent: u64,
    pub(crate) double_percent: u64,
    /// Each datagram takes between these two, so later ones overtake earlier ones.
    pub(crate) delay_ms: (u64, u64),
}

/// One side: an endpoint and its connections.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: Endpoint,
    pub(crate) connections: BTreeMap<usize, Connection>,
}

impl Node {
    pub(crate) fn new(port: u16, config: EndpointConfig, server: Option<ServerConfig>) -> Self {
        let endpoint = Endpoint::new(Arc::new(config), server.map(Arc::new), true, None);
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        Self { address, endpoint, connections: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, handle: ConnectionHandle, connection: Connection) -> usize {
        self.connections.insert(handle.0, connection);
        handle.0
    }
}

/// A datagram on its way.
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// The link and the time.
pub(crate) struct Link {
    pub(crate) now: Instant,
    pub(crate) dice: Dice,
    pub(crate) weather: Weather,
    /// By arrival and a running number.
    on_their_way: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
}

impl Link {
    pub(crate) fn new(seed: u64, weather: Weather) -> Self {
        let dice = Dice::new(seed);
        Self { now: Instant::now(), dice, weather, on_their_way: BTreeMap::new(), sent: 0 }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let copies = 1 + u64::from(self.dice.percent(self.weather.double_percent));
        for _copy in 0..copies {
            if self.dice.percent(self.weather.loss_percent) {
                continue;
            }
            let (least, most) = self.weather.delay_ms;
            let delay = Duration::from_millis(self.dice.between(least, most));
            self.sent += 1;
            let datagram = Datagram { from, to, bytes: bytes.to_vec() };
            self.on_their_way.insert((self.now + delay, self.sent), datagram);
        }
    }

    /// Gives `node` what arrived for it and sends what it has to say, until it is quiet.
    pub(crate) fn drive(&mut self, node: &mut Node) {
        self.deliver(node);
        let mut gone = Vec::new();
        for (handle, connection) in &mut node.connections {
            if connection.poll_timeout().is_some_and(|due| due <= self.now) {
                connection.handle_timeout(self.now);
            }
            while let Some(event) = connection.poll_endpoint_events() {
                let drained = event.is_drained();
                let reply = node.endpoint.handle_event(ConnectionHandle(*handle), event);
                if let Some(reply) = reply {
                    connection.handle_event(reply);
                }
                if drained {
                    gone.push(*handle);
                }
            }
            let mut buffer = Vec::new();
            while let Some(transmit) = connection.poll_transmit(self.now, 1, &mut buffer) {
                self.send(node.address, transmit.destination, &buffer);
                buffer.clear();
            }
        }
        for handle in gone {
            node.connections.remove(&handle);
        }
    }

    fn deliver(&mut self, node: &mut Node) {
        let due = (self.now, u64::MAX);
        let arrived: Vec<_> = self
            .on_their_way
            .range(..=due)
            .filter(|(_, datagram)| datagram.to == node.address)
            .map(|(key, _)| *key)
            .collect();
        for key in arrived {
            let Some(Datagram { from, bytes, .. }) = self.on_their_way.remove(&key) else { break };
            let mut buffer = Vec::new();
            let bytes = BytesMut::from(&bytes[..]);
            match node.endpoint.handle(self.now, from, None, None, bytes, &mut buffer) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(connection) = node.connections.get_mut(&handle.0) {
                        connection.handle_event(event);
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => {
                    match node.endpoint.accept(incoming, self.now, &mut buffer, None) {
                        Ok((handle, connection)) => _ = node.add(handle, connection),
                        Err(error) => {
                            if let Some(transmit) = error.response {
                                self.send(node.address, transmit.destination, &buffer);
                            }
                        }
                    }
                }
                Some(DatagramEvent::Response(transmit)) => {
                    self.send(node.address, transmit.destination, &buffer);
                }
                None => {}
            }
        }
    }

    /// Drops what is on its way to nobody: to a client that was killed.
    pub(crate) fn drop_strays(&mut self, there: [SocketAddr; 2]) {
        self.on_their_way.retain(|_, datagram| there.contains(&datagram.to));
    }

    /// When the next thing happens on the link or in a node.
    pub(crate) fn next_event(&mut self, nodes: [&mut Node; 2]) -> Option<Instant> {
        let arrival = self.on_their_way.keys().next().map(|(at, _)| *at);
        let timers = nodes
            .into_iter()
            .flat_map(|node| node.connections.values_mut())
            .filter_map(Connection::poll_timeout);
        timers.chain(arrival).min()
    }
}
