//! One connection of a client: the greeting, then one task a request stream.

use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span};

use crate::formats::limits::{
    CONNECTIONS_MAX, HANDSHAKE_MAX, QUIC_DRAIN_MAX, RECEIVE_BYTES_MAX, STREAM_IDLE_MAX,
};
use crate::services::{Auth, Caches, Caller, Pairing, Publisher};
use crate::transports::quic::link::{Link, RecvHalf, SendHalf};
use crate::transports::quic::receive;
use crate::transports::quic::stream::{MessageReader, MessageWriter, StreamError};
use crate::transports::quic::transport::CloseReason;
use crate::transports::tls::streams::Streams;
use crate::wire::framing::FramingError;
use crate::wire::hello::{CacheAccess, HELLO_BYTES_MAX, Hello, Limits, Signing, Welcome};
use crate::wire::message::{AdminRequest, AdminResponse, BoxMessage, ClientMessage, Message};
use crate::wire::missing;
use crate::wire::pairing::Paired;
use crate::wire::{Refusal, RefusalCode, Violation};

/// How long a last message may take to arrive before its connection is closed.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Answers administrative requests of personal tokens: the admin router behind a function.
pub type AdminHandler =
    Arc<dyn Fn(AdminRequest, Caller) -> BoxFuture<'static, AdminResponse> + Send + Sync>;

/// What a box needs to answer clients.
#[derive(Clone)]
pub struct QuicParts {
    /// The box's name, such as `office`.
    pub box_name: String,
    /// Knows tokens.
    pub auth: Auth,
    /// Knows pairing codes.
    pub pairing: Pairing,
    /// Knows caches.
    pub caches: Caches,
    /// Takes pushes.
    pub publish: Publisher,
    /// Answers administrative requests.
    pub admin: AdminHandler,
}

/// What all connections of a box share.
pub(super) struct Shared {
    pub(super) parts: QuicParts,
    /// Bytes of frames that are kept for the store; see [`RECEIVE_BYTES_MAX`].
    pub(super) frame_bytes: Arc<Semaphore>,
    /// Room for connections by TLS; QUIC counts its own.
    tls_room: Semaphore,
}

/// Answers clients, however their connections are carried. Cloning copies a pointer.
#[derive(Clone)]
pub struct Sessions(pub(super) Arc<Shared>);

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

impl Sessions {
    /// Sessions of a box.
    #[must_use]
    pub fn new(parts: QuicParts) -> Self {
        Self(Arc::new(Shared::new(parts)))
    }

    /// Serves a client that came by TLS over TCP, to its end.
    pub(in crate::transports) async fn serve_tls<S>(
        &self,
        stream: S,
        address: SocketAddr,
        stop: CancellationToken,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok(_room) = self.0.tls_room.try_acquire() else {
            return debug!(%address, "Too many clients by TLS; let one more go");
        };
        match Streams::of_box(stream, address).await {
            Ok(streams) => serve_connection(Link::Tls(streams), Arc::clone(&self.0), stop).await,
            Err(error) => debug!(%address, %error, "A connection by TLS broke"),
        }
    }
}

impl Shared {
    fn new(parts: QuicParts) -> Self {
        let frame_bytes = Arc::new(Semaphore::new(RECEIVE_BYTES_MAX));
        Self { parts, frame_bytes, tls_room: Semaphore::new(CONNECTIONS_MAX) }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("box_name", &self.parts.box_name).finish_non_exhaustive()
    }
}

/// Why a request was not answered.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// The client is told.
    Refused(Refusal),
    /// There is nobody to tell.
    Lost(StreamError),
}

impl From<StreamError> for Unanswered {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Framing(error) => Self::Refused(error.into()),
            lost => Self::Lost(lost),
        }
    }
}

impl From<FramingError> for Unanswered {
    fn from(error: FramingError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Violation> for Unanswered {
    fn from(violation: Violation) -> Self {
        Self::Refused(violation.into())
    }
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Greets a client and serves its requests until it goes, or until `stop` and a drain.
pub(super) async fn serve_connection(
    connection: Link,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let address = connection.remote_address();
    let span = info_span!("client", client.address = %address);
    let session = async {
        match timeout(HANDSHAKE_MAX, greeting(&connection, &shared)).await {
            Ok(Ok((hello, control))) => {
                let session = Arc::new(Session { shared, hello });
                let reason = serve_requests(&connection, &session, &stop).await;
                drop(control);
                connection.close(reason).await;
            }
            Ok(Err(reason)) => connection.close(reason).await,
            Err(_elapsed) => connection.close(CloseReason::Refused).await,
        }
    };
    session.instrument(span).await;
}

/// The greeting on the client's first stream, which stays open for as long as the connection;
/// otherwise the reason to close with.
async fn greeting(
    connection: &Link,
    shared: &Shared,
) -> Result<(Hello, (MessageReader, MessageWriter)), CloseReason> {
    let accepted = connection.accept_bi().await;
    let (send, recv) = accepted.map_err(|_gone| CloseReason::Refused)?;
    let mut reader = MessageReader::new(recv, HELLO_BYTES_MAX);
    let mut writer = MessageWriter::new(send);
    let welcomed = AssertUnwindSafe(welcome(shared, &mut reader, &mut writer));
    match unwound(welcomed.catch_unwind().await) {
        Ok(Some(hello)) => {
            debug!(client.agent = hello.agent, "Greeted a client");
            Ok((hello, (reader, writer)))
        }
        Ok(None) => {
            writer.finish();
            let _late = timeout(FAREWELL_MAX, writer.arrived()).await;
            Err(CloseReason::Done)
        }
        Err(unanswered) => {
            refuse(&mut writer, unanswered).await;
            let _late = timeout(FAREWELL_MAX, writer.arrived()).await;
            Err(CloseReason::Refused)
        }
    }
}

/// Answers the first message; nothing more comes of a pairing.
async fn welcome(
    shared: &Shared,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Result<Option<Hello>, Unanswered> {
    let hello = match reader.next().await? {
        Some(ClientMessage::Hello(hello)) => hello,
        Some(ClientMessage::Pair(pair)) => {
            let token = shared.parts.pairing.redeem(pair.checked()?).await;
            let token = token.map_err(Refusal::from)?.to_secret_text().into();
            let box_name = shared.parts.box_name.clone();
            writer.send(&BoxMessage::Paired(Paired { box_name, token })).await?;
            return Ok(None);
        }
        Some(other) => {
            let place = "at the start of a connection";
            return Err(Violation::OutOfTurn { message: other.name(), place }.into());
        }
        None => return Err(StreamError::Cut.into()),
    };
    let protocol = hello.choose_protocol()?;
    let caller = shared.parts.auth.check(hello.token.as_str()).await.map_err(Refusal::from)?;
    let welcome = Welcome {
        protocol,
        box_name: shared.parts.box_name.clone(),
        personal: caller.is_personal(),
        caches: accesses(&shared.parts.caches, &caller),
        limits: Limits::ours(),
    };
    writer.send(&BoxMessage::Welcome(welcome)).await?;
    Ok(Some(hello))
}

fn accesses(caches: &Caches, caller: &Caller) -> Vec<CacheAccess> {
    let access = |cache: &_| {
        let (may_read, may_write) = (caller.may_read(cache), caller.may_write(cache));
        // A managed cache has a key from its creation on; a self-signed one never has any.
        let managed = cache.keys.iter().map(|key| key.public_key()).collect::<Vec<_>>();
        let signing = if managed.is_empty() { Signing::SelfSigned } else { Signing::Managed };
        let public_keys = if managed.is_empty() { cache.public_keys.clone() } else { managed };
        let name = cache.name.clone();
        CacheAccess { name, may_read, may_write, signing, public_keys }
    };
    let all = caches.all();
    let mut accesses: Vec<_> = all.iter().map(|cache| access(cache)).collect();
    accesses.retain(|access| access.may_read || access.may_write);
    accesses.sort_by(|one, next| one.name.cmp(&next.name));
    accesses
}

/// A greeted client.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    /// What it said of itself. The token in it is checked again for each request, so that a
    /// revoked one is refused from the next request on.
    pub(super) hello: Hello,
}

async fn serve_requests(
    connection: &Link,
    session: &Arc<Session>,
    stop: &CancellationToken,
) -> CloseReason {
    let mut requests = JoinSet::new();
    let stopped = loop {
        tokio::select! {
            () = stop.cancelled() => break true,
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let request = serve_request(Arc::clone(session), send, recv);
                    requests.spawn(request.in_current_span());
                }
                Err(_gone) => break false,
            },
            Some(_ended) = requests.join_next() => {}
        }
    };
    if !stopped {
        requests.shutdown().await;
        return CloseReason::Done;
    }
    let drained = async { while requests.join_next().await.is_some() {} };
    tokio::select! {
        _done_or_late = timeout(QUIC_DRAIN_MAX, drained) => {}
        () = refuse_new(connection) => {}
    }
    requests.shutdown().await;
    CloseReason::ShuttingDown
}

/// Tells every new request that the box goes down; ends when the connection does.
async fn refuse_new(connection: &Link) {
    while let Ok((send, _recv)) = connection.accept_bi().await {
        let mut writer = MessageWriter::new(send);
        let refusal = Refusal::new(RefusalCode::ShuttingDown, "the box is shutting down");
        refuse(&mut writer, refusal.into()).await;
    }
}

/// Answers one request. Whatever happens inside, the stream gets an answer, if only `internal`.
async fn serve_request(session: Arc<Session>, send: SendHalf, recv: RecvHalf) {
    let mut reader = MessageReader::unlimited(recv);
    let mut writer = MessageWriter::new(send);
    let answered = AssertUnwindSafe(answer(&session, &mut reader, &mut writer));
    if let Err(unanswered) = unwound(answered.catch_unwind().await) {
        refuse(&mut writer, unanswered).await;
    }
    writer.finish();
}

/// Turns a panic, whose message went to standard error already, into a refusal.
fn unwound<T>(ended: std::thread::Result<Result<T, Unanswered>>) -> Result<T, Unanswered> {
    ended.unwrap_or_else(|_panic| {
        error!("A request panicked; its client was refused");
        Err(Refusal::new(RefusalCode::Internal, "the box failed; its log says how").into())
    })
}

async fn refuse(writer: &mut MessageWriter, unanswered: Unanswered) {
    match unanswered {
        Unanswered::Refused(refusal) => {
            debug!(refusal.code = u16::from(refusal.code), "Refused a request: {refusal}");
            let sent = timeout(STREAM_IDLE_MAX, writer.send(&BoxMessage::Refused(refusal))).await;
            if !matches!(sent, Ok(Ok(()))) {
                debug!("The client did not wait for the refusal");
            }
            writer.finish();
        }
        Unanswered::Lost(error) => debug!(%error, "A client went away during a request"),
    }
}

async fn answer(
    session: &Session,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Result<(), Unanswered> {
    let first = timeout(STREAM_IDLE_MAX, reader.next())
        .await
        .map_err(|_elapsed| Refusal::new(RefusalCode::TimedOut, "no request came on the stream"))?;
    let Some(first) = first? else { return Err(StreamError::Cut.into()) };
    let parts = &session.shared.parts;
    let caller = parts.auth.check(session.hello.token.as_str()).await.map_err(Refusal::from)?;
    let reply = match first {
        ClientMessage::Missing { cache, hashes } => {
            missing::check_question(&hashes)?;
            let asked = hashes.clone();
            let missing = parts.publish.missing(&caller, &cache, hashes).await;
            let missing = missing.map_err(Refusal::from)?;
            BoxMessage::Missing { indexes: missing::places_of(&asked, &missing) }
        }
        ClientMessage::Admin(request) => {
            BoxMessage::Admin(administer(parts, request, caller).await?)
        }
        push @ ClientMessage::Offer { .. } => {
            return receive::push(session, &caller, push, reader, writer).await;
        }
        other => {
            let place = "at the start of a request";
            return Err(Violation::OutOfTurn { message: other.name(), place }.into());
        }
    };
    writer.queue(&reply)?;
    timeout(STREAM_IDLE_MAX, writer.flush()).await.unwrap_or(Ok(()))?;
    Ok(())
}

async fn administer(
    parts: &QuicParts,
    request: AdminRequest,
    caller: Caller,
) -> Result<AdminResponse, Refusal> {
    if !caller.is_personal() {
        let sentence = "administration needs a personal token, and this one is for caches";
        return Err(Refusal::new(RefusalCode::Forbidden, sentence));
    }
    Ok((parts.admin)(request, caller).await)
}
