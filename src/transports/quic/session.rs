//! One connection of a client: the greeting, then one task a request stream.

use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span};

use crate::formats::limits::{
    HALF_MESSAGES_BYTES_OF_BOX_MAX, HANDSHAKE_MAX, HANDSHAKES_UNPROVEN_MAX, QUIC_DRAIN_MAX,
    RECEIVE_BYTES_MAX, STREAM_IDLE_MAX,
};
use crate::formats::signature::SecretKey;
use crate::services::{
    Admission, Auth, Cache, Caches, Caller, Metrics, Origin, Pairing, Publisher, PusherId,
    SigningMode, TokenId, Turns,
};
use crate::transports::origin::{counted_origin, origin_of};
use crate::transports::quic::link::{Link, RecvHalf, SendHalf};
use crate::transports::quic::receive;
use crate::transports::quic::room::Room;
use crate::transports::quic::stream::{MessageReader, MessageWriter, StreamError};
use crate::transports::quic::transport::CloseReason;
use crate::transports::tls::streams::Streams;
use crate::wire::framing::FramingError;
use crate::wire::hello::{
    CacheAccess, Capabilities, HELLO_BYTES_MAX, Hello, Limits, Signing, Welcome,
};
use crate::wire::message::{AdminRequest, AdminResponse, BoxMessage, ClientMessage, Message};
use crate::wire::missing;
use crate::wire::pairing::Paired;
use crate::wire::{DeviceId, Refusal, RefusalCode, Violation};

/// How long a last message may take to arrive before its connection is closed.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Answers administrative requests, or refuses the token: the admin router behind a function.
pub type AdminHandler = Arc<
    dyn Fn(AdminRequest, Caller) -> BoxFuture<'static, Result<AdminResponse, Refusal>>
        + Send
        + Sync,
>;

/// What a box needs to answer clients.
#[derive(Clone)]
pub struct QuicParts {
    /// The box's name, such as `office`.
    pub box_name: String,
    /// Knows tokens.
    pub auth: Auth,
    /// Bounds what one address can take.
    pub admission: Admission,
    /// Counts connections.
    pub metrics: Arc<Metrics>,
    /// Knows pairing codes.
    pub pairing: Pairing,
    /// Knows caches.
    pub caches: Caches,
    /// The TCP port on which the box serves HTTP, for its clients.
    pub http_port: u16,
    /// Takes pushes.
    pub publish: Publisher,
    /// Answers administrative requests.
    pub admin: AdminHandler,
}

/// What all connections of a box share.
pub(super) struct Shared {
    pub(super) parts: QuicParts,
    /// Bytes of frames that are kept for the store; see [`RECEIVE_BYTES_MAX`].
    pub(super) frame_bytes: Turns<PusherId>,
    /// Bytes of messages that are half there.
    half_messages: Arc<Semaphore>,
    /// Handshakes that may be under way with addresses that nobody has proven.
    pub(super) unproven_handshakes: Arc<Semaphore>,
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
        let refused = &self.0.parts.metrics.quic_connections_refused;
        let Ok(_room) = self.0.tls_room.try_acquire() else {
            refused.inc();
            return debug!(%address, "Too many clients by TLS; let one more go");
        };
        let guest =
            counted_origin(address).map(|from| self.0.parts.admission.quic_connection(from));
        if matches!(guest, Some(None)) {
            refused.inc();
            return debug!(%address, "An address has enough connections");
        }
        match Streams::of_box(stream, address).await {
            Ok(streams) => serve_connection(Link::Tls(streams), Arc::clone(&self.0), stop).await,
            Err(error) => debug!(%address, %error, "A connection by TLS broke"),
        }
    }
}

impl Shared {
    fn new(parts: QuicParts) -> Self {
        let tls_room = Semaphore::new(parts.admission.quic_connections());
        Self {
            parts,
            frame_bytes: Turns::new(RECEIVE_BYTES_MAX),
            half_messages: Arc::new(Semaphore::new(HALF_MESSAGES_BYTES_OF_BOX_MAX)),
            unproven_handshakes: Arc::new(Semaphore::new(HANDSHAKES_UNPROVEN_MAX)),
            tls_room,
        }
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
            StreamError::NoRoom => {
                let sentence = "too many messages are half-way to the box; try again later";
                Self::Refused(Refusal::new(RefusalCode::Busy, sentence))
            }
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

/// A connection that is counted while it is open.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.quic_connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.quic_connections.dec();
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
    let _open = Open::new(&shared.parts.metrics);
    let session = async {
        let from = origin_of(address);
        match timeout(HANDSHAKE_MAX, greeting(&connection, &shared, from)).await {
            Ok(Ok((hello, caller, control))) => {
                let (token, end) = (caller.token.id, watch::Sender::new(None));
                let room = Room::new(Arc::clone(&shared.half_messages));
                let session = Arc::new(Session { shared, hello, from, token, room, end });
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
    from: Origin,
) -> Result<(Hello, Caller, (MessageReader, MessageWriter)), CloseReason> {
    let accepted = connection.accept_bi().await;
    let (send, recv) = accepted.map_err(|_gone| CloseReason::Refused)?;
    let mut reader = MessageReader::new(recv, HELLO_BYTES_MAX);
    let mut writer = MessageWriter::new(send);
    let welcomed = AssertUnwindSafe(welcome(shared, from, &mut reader, &mut writer));
    match unwound(welcomed.catch_unwind().await) {
        Ok(Some((hello, caller))) => {
            debug!(client.agent = hello.agent, token.id = caller.token.id.0, "Greeted a client");
            Ok((hello, caller, (reader, writer)))
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

/// Answers the first message; nothing more comes of a pairing, or of a greeting without a token.
async fn welcome(
    shared: &Shared,
    from: Origin,
    reader: &mut MessageReader,
    writer: &mut MessageWriter,
) -> Result<Option<(Hello, Caller)>, Unanswered> {
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
    let caller = match hello.token.as_str() {
        "" => None,
        _ => Some(check(&shared.parts.auth, from, &hello).await?),
    };
    let welcome = Welcome {
        protocol,
        box_name: shared.parts.box_name.clone(),
        personal: caller.as_ref().is_some_and(Caller::is_personal),
        caches: accesses(&shared.parts.caches, caller.as_ref()),
        limits: Limits::ours(),
        http_port: shared.parts.http_port,
        capabilities: Capabilities::OURS,
    };
    writer.send(&BoxMessage::Welcome(welcome)).await?;
    Ok(caller.map(|caller| (hello, caller)))
}

async fn check(auth: &Auth, from: Origin, hello: &Hello) -> Result<Caller, Refusal> {
    let device = DeviceId::of_public_key(&hello.device_key);
    Ok(auth.check_from(from, Some(device), hello.token.as_str()).await?)
}

fn accesses(caches: &Caches, caller: Option<&Caller>) -> Vec<CacheAccess> {
    let access = |cache: &Cache| {
        let may_read = caller.map_or(cache.is_public, |caller| caller.may_read(cache));
        let may_write = caller.is_some_and(|caller| caller.may_write(cache));
        let (signing, public_keys) = match cache.signing {
            SigningMode::Managed => {
                (Signing::Managed, cache.keys.iter().map(SecretKey::public_key).collect())
            }
            SigningMode::SelfSigned => {
                (Signing::SelfSigned, cache.public_keys.iter().rev().cloned().collect())
            }
        };
        let (name, is_public) = (cache.name.clone(), cache.is_public);
        CacheAccess { name, may_read, may_write, signing, public_keys, is_public }
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
    from: Origin,
    token: TokenId,
    room: Room,
    /// Why the token is no good any more, once it is not: what is under way is broken off then.
    end: watch::Sender<Option<Refusal>>,
}

impl Session {
    async fn revoked(&self) -> Refusal {
        let mut end = self.end.subscribe();
        // The sender is in the session: it does not go.
        let why = end.wait_for(Option::is_some).await;
        let why = why.ok().and_then(|why| Option::clone(&why));
        why.unwrap_or_else(|| Refusal::new(RefusalCode::Unauthorised, "the token has ended"))
    }
}

/// Why a connection takes no more requests.
enum End {
    Gone,
    Stopped,
    Revoked(Refusal),
}

async fn serve_requests(
    connection: &Link,
    session: &Arc<Session>,
    stop: &CancellationToken,
) -> CloseReason {
    let mut requests = JoinSet::new();
    let mut revoked = std::pin::pin!(session.shared.parts.auth.revoked(session.token));
    let end = loop {
        tokio::select! {
            () = stop.cancelled() => break End::Stopped,
            why = &mut revoked => break End::Revoked(why.into()),
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let request = serve_request(Arc::clone(session), send, recv);
                    requests.spawn(request.in_current_span());
                }
                Err(_gone) => break End::Gone,
            },
            Some(_ended) = requests.join_next() => {}
        }
    };
    let drained = async { while requests.join_next().await.is_some() {} };
    match end {
        End::Gone => {
            drop(drained);
            requests.shutdown().await;
            return CloseReason::Done;
        }
        End::Revoked(why) => {
            debug!("A token ended; what its client had under way is broken off: {why}");
            session.end.send_replace(Some(why));
            let _told_or_late = timeout(FAREWELL_MAX, drained).await;
            requests.shutdown().await;
            return CloseReason::Refused;
        }
        End::Stopped => {}
    }
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
    let mut reader = MessageReader::unlimited(recv).within(session.room.share());
    let mut writer = MessageWriter::new(send);
    let answered = AssertUnwindSafe(answer(&session, &mut reader, &mut writer));
    if let Err(unanswered) = unwound(answered.catch_unwind().await) {
        refuse(&mut writer, unanswered).await;
    }
    writer.finish();
    drop(reader);
    // The request may be what ends its own token: the connection is closed then, at once or a moment
    // from now, and would take along what has not arrived.
    let _late = timeout(FAREWELL_MAX, writer.arrived()).await;
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
    let first = reader.next_while_it_moves(STREAM_IDLE_MAX);
    let first = tokio::select! {
        first = first => first,
        why = session.revoked() => return Err(why.into()),
    };
    let first = first
        .ok_or_else(|| Refusal::new(RefusalCode::TimedOut, "no request came on the stream"))?;
    let Some(first) = first? else { return Err(StreamError::Cut.into()) };
    let parts = &session.shared.parts;
    let caller = check(&parts.auth, session.from, &session.hello).await?;
    let reply = match first {
        ClientMessage::Missing { cache, hashes } => {
            missing::check_question(&hashes)?;
            let asked = hashes.clone();
            let missing = parts.publish.missing(&caller, &cache, hashes).await;
            let missing = missing.map_err(Refusal::from)?;
            BoxMessage::Missing { indexes: missing::places_of(&asked, &missing) }
        }
        ClientMessage::Attach { cache, name, frame } => {
            let attached = parts.publish.attach(&caller, &cache, name, frame.to_vec()).await;
            BoxMessage::Attached { is_new: attached.map_err(Refusal::from)? }
        }
        ClientMessage::Admin(request) => BoxMessage::Admin((parts.admin)(request, caller).await?),
        push @ ClientMessage::Offer { .. } => {
            // The other requests are short, and one may be what revokes its own token.
            return tokio::select! {
                pushed = receive::push(session, &caller, push, reader, writer) => pushed,
                why = session.revoked() => Err(why.into()),
            };
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
