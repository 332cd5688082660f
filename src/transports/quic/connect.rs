//! A client's way to a box: the first address that answers as a box whose ID a token carries.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use quinn::{ClientConfig, Endpoint};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};

use crate::formats::limits::{HANDSHAKE_MAX, MESSAGE_BYTES_MAX};
use crate::formats::signature::{ParseKeyError, SecretKey};
use crate::transports::quic::identity::{IdentityError, Pins, SERVER_NAME};
use crate::transports::quic::link::{Link, LinkError};
use crate::transports::quic::stream::{MessageReader, MessageWriter, StreamError};
use crate::transports::quic::transport;
use crate::transports::tls::streams;
use crate::wire::hello::{Capabilities, Hello, ProtocolRange, Welcome};
use crate::wire::message::{BoxMessage, ClientMessage, Message};
use crate::wire::{DeviceId, Refusal, TokenText, Violation};

/// Head start of an address before the next one is tried too (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Silence of QUIC after which TLS over TCP is tried beside it.
const TLS_AFTER: Duration = Duration::from_secs(1);
/// How long QUIC may take, all in all, before a connection by TLS is taken in its place.
const QUIC_PATIENCE: Duration = Duration::from_millis(2500);

/// Which box a client accepts, and what it says to it.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Addresses to try, in order; each gets a quarter of a second before the next joins in.
    pub addresses: Vec<SocketAddr>,
    /// Tokens at hand. A box is accepted if one of them is for it, and hears that one alone.
    pub tokens: Vec<TokenText>,
    /// Seed of this client's Ed25519 device key.
    pub device_seed: [u8; 32],
    /// Program and version, for the box's log; at most 100 characters.
    pub agent: String,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address was given.
    #[error("no address of a box is known")]
    NoAddress,
    /// No token was given, so that no box can be told from another.
    #[error("there is no token for any box; save one with 'larder authtoken'")]
    NoToken,
    /// Every address is silent.
    #[error("no box answers at {}", list(tried))]
    Unreachable {
        /// The addresses.
        tried: Vec<SocketAddr>,
        /// What the last one gave, if it gave anything.
        #[source]
        last: Option<LinkError>,
    },
    /// Somebody answers whose key is not the one that the token is for.
    #[error(
        "the box at {address} shows the device ID {found}, but the token is for {}; if it was set \
         up anew, get a new token from it, else somebody is in its place",
        list(expected)
    )]
    WrongDevice {
        /// Where it answers.
        address: SocketAddr,
        /// The boxes that the tokens at hand are for.
        expected: Vec<DeviceId>,
        /// Who answers.
        found: DeviceId,
    },
    /// The box said no.
    #[error("the box refused")]
    Refused(#[source] Refusal),
    /// The greeting did not come to its end.
    #[error("the box did not greet")]
    Greeting(#[source] Option<StreamError>),
    /// The box broke the protocol.
    #[error("the box broke the protocol")]
    Violation(#[from] Violation),
    /// No UDP socket on this machine.
    #[error("cannot open a UDP socket")]
    Socket(#[from] io::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] IdentityError),
    /// The device key cannot be used.
    #[error("cannot use the device key")]
    DeviceKey(#[from] ParseKeyError),
}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A connection that was greeted.
pub(super) struct Greeted {
    pub(super) endpoint: Option<Endpoint>,
    pub(super) link: Link,
    pub(super) device_id: DeviceId,
    pub(super) welcome: Welcome,
    /// The control stream; it stays open as long as the connection.
    pub(super) control: (MessageReader, MessageWriter),
}

/// Connects and greets.
pub(super) async fn connect(options: ConnectOptions) -> Result<Greeted, ConnectError> {
    let device = SecretKey::from_seed("device", &options.device_seed)?;
    if options.tokens.is_empty() {
        return Err(ConnectError::NoToken);
    }
    let accepted: Vec<DeviceId> = options.tokens.iter().map(TokenText::device_id).collect();
    let reached = reach(&options.addresses, &accepted).await?;
    let token = options.tokens.iter().find(|token| token.device_id() == reached.device_id);
    let token = token.ok_or(ConnectError::NoToken)?;
    let hello = Hello {
        protocols: ProtocolRange::OURS,
        agent: options.agent,
        token: token.to_secret_text().into(),
        device_key: *device.public_key().as_bytes(),
        capabilities: Capabilities::OURS,
    };
    let greeted = timeout(HANDSHAKE_MAX * 2, greet(&reached.link, hello)).await;
    let (welcome, control) = greeted.map_err(|_elapsed| ConnectError::Greeting(None))??;
    let Reached { endpoint, link, device_id } = reached;
    Ok(Greeted { endpoint, link, device_id, welcome, control })
}

pub(super) async fn greet(
    link: &Link,
    hello: Hello,
) -> Result<(Welcome, (MessageReader, MessageWriter)), ConnectError> {
    let broken = |error: StreamError| ConnectError::Greeting(Some(error));
    let opened = link.open_bi().await;
    let (send, recv) = opened.map_err(|error| broken(StreamError::Read(error)))?;
    let mut writer = MessageWriter::new(send);
    let mut reader = MessageReader::new(recv, MESSAGE_BYTES_MAX);
    // If the box closed already, its refusal is still to be read.
    let sent = writer.send(&ClientMessage::Hello(hello)).await;
    match reader.next().await.map_err(broken)? {
        Some(BoxMessage::Welcome(welcome)) => Ok((welcome.checked()?, (reader, writer))),
        Some(BoxMessage::Refused(refusal)) => Err(ConnectError::Refused(refusal)),
        Some(other) => {
            let place = "at the start of a connection";
            Err(Violation::OutOfTurn { message: other.name(), place }.into())
        }
        None => Err(ConnectError::Greeting(sent.err())),
    }
}

/// A connection whose box proved an ID that is accepted.
pub(super) struct Reached {
    pub(super) endpoint: Option<Endpoint>,
    pub(super) link: Link,
    pub(super) device_id: DeviceId,
}

/// Tries the addresses, each a little after the one before; the first that answers as an
/// accepted box wins, and the others are let go.
pub(super) async fn reach(
    addresses: &[SocketAddr],
    accepted: &[DeviceId],
) -> Result<Reached, ConnectError> {
    if addresses.is_empty() {
        return Err(ConnectError::NoAddress);
    }
    let mut left = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut next_at = Instant::now();
    let mut worst = Failure::Silent(None);
    loop {
        tokio::select! {
            () = sleep_until(next_at), if left.len() > 0 => {
                attempts.extend(left.next().map(|address| attempt(*address, accepted)));
                next_at = Instant::now() + HEAD_START;
            }
            Some(ended) = attempts.next() => match ended {
                Ok(reached) => return Ok(reached),
                Err(failure) => {
                    worst = worst.or(failure);
                    next_at = Instant::now();
                }
            },
            else => break,
        }
    }
    Err(match worst {
        Failure::Silent(last) => ConnectError::Unreachable { tried: addresses.to_vec(), last },
        Failure::Wrong(address, found) => {
            ConnectError::WrongDevice { address, expected: accepted.to_vec(), found }
        }
        Failure::Here(error) => error,
    })
}

/// Why an address gave no connection, the least telling first.
enum Failure {
    Silent(Option<LinkError>),
    Here(ConnectError),
    Wrong(SocketAddr, DeviceId),
}

impl Failure {
    const fn tells(&self) -> u8 {
        match self {
            Self::Silent(None) => 0,
            Self::Here(_) => 1,
            Self::Silent(Some(_)) => 2,
            Self::Wrong(..) => 3,
        }
    }

    /// Whether something at the address answered, so that packets get through.
    const fn is_answer(&self) -> bool {
        matches!(self, Self::Silent(Some(_)) | Self::Wrong(..))
    }

    fn or(self, other: Self) -> Self {
        if other.tells() >= self.tells() { other } else { self }
    }
}

/// Tries QUIC, and TLS too if QUIC stays silent. TLS waits a little for QUIC even when it is
/// there first: a slow box is no blocked port.
async fn attempt(address: SocketAddr, accepted: &[DeviceId]) -> Result<Reached, Failure> {
    let mut quic = pin!(by_quic(address, accepted));
    match timeout(TLS_AFTER, &mut quic).await {
        Ok(Err(failure)) if !failure.is_answer() => {
            return by_tls(address, accepted).await.map_err(|later| failure.or(later));
        }
        Ok(ended) => return ended,
        Err(_silent) => {}
    }
    let mut tls = pin!(by_tls(address, accepted));
    tokio::select! {
        ended = &mut quic => match ended {
            Err(failure) if !failure.is_answer() => tls.await.map_err(|later| failure.or(later)),
            ended => ended,
        },
        ended = &mut tls => match ended {
            Ok(reached) => match timeout(QUIC_PATIENCE.saturating_sub(TLS_AFTER), quic).await {
                Ok(Ok(better)) => Ok(better),
                _ => Ok(reached),
            },
            Err(failure) => quic.await.map_err(|later| failure.or(later)),
        },
    }
}

async fn by_quic(address: SocketAddr, accepted: &[DeviceId]) -> Result<Reached, Failure> {
    let here = |error: ConnectError| Failure::Here(error);
    let pins = Pins::new(accepted.to_vec());
    let crypto = pins.client_crypto().map_err(|error| here(error.into()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport::of_client());
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let endpoint = Endpoint::client(any).map_err(|error| here(error.into()))?;
    let connecting = endpoint
        .connect_with(config, address, SERVER_NAME)
        .map_err(|_address_cannot_be_dialled| Failure::Silent(None))?;
    let handshake = timeout(HANDSHAKE_MAX, connecting).await;
    let connection = pinned(handshake, address, &pins)?;
    let device_id = pins.met().ok_or(Failure::Silent(None))?;
    Ok(Reached { endpoint: Some(endpoint), link: Link::Quic(connection), device_id })
}

async fn by_tls(address: SocketAddr, accepted: &[DeviceId]) -> Result<Reached, Failure> {
    let pins = Pins::new(accepted.to_vec());
    let config = pins.client_tls().map_err(|error| Failure::Here(error.into()))?;
    let connected = timeout(HANDSHAKE_MAX, TcpStream::connect(address)).await;
    let Ok(Ok(stream)) = connected else { return Err(Failure::Silent(None)) };
    let handshake = timeout(HANDSHAKE_MAX, streams::dial(stream, config, address)).await;
    let streams = pinned(handshake, address, &pins)?;
    let device_id = pins.met().ok_or(Failure::Silent(None))?;
    Ok(Reached { endpoint: None, link: Link::Tls(streams), device_id })
}

/// What a handshake gave, or why not: whom it met tells more than how it ended.
fn pinned<T, E: Into<LinkError>>(
    handshake: Result<Result<T, E>, Elapsed>,
    address: SocketAddr,
    pins: &Pins,
) -> Result<T, Failure> {
    match handshake {
        Err(_elapsed) => Err(Failure::Silent(None)),
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(match pins.met() {
            Some(found) if !pins.accepts(found) => Failure::Wrong(address, found),
            _ => Failure::Silent(Some(error.into())),
        }),
    }
}
