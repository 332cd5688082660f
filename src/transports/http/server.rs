//! Connections: accepted, bounded, served, and drained at the end.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, error, warn};

use crate::formats::limits::{
    HANDSHAKE_MAX, HTTP_HEAD_MAX, HTTP_HEADER_BYTES_MAX, HTTP_IDLE_MAX, HTTP_LEAVE_MAX,
    HTTP_REQUESTS_MAX, HTTP_SEND_BUFFER_BYTES, HTTP_STALL_MAX, HTTP_WINDOW_BYTES,
};
use crate::services::admission::Guest;
use crate::services::{Admission, Metrics, Services};
use crate::transports::http::head::{Answered, HeadGuard};
use crate::transports::http::peer::{Peer, PlainTokens, host_of};
use crate::transports::http::router;
use crate::transports::http::stall::StallGuard;
use crate::transports::http::visits::{Sight, Visit, Visits, Welcome};
use crate::transports::origin::counted_origin;
use crate::transports::quic::Sessions;
use crate::transports::tls::{Speaks, TlsAcceptor, Watched};

/// Pause after the system refused to accept, so that it has time to recover.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The first byte of a TLS connection: a handshake record (RFC 8446, section 5.1). No method of
/// HTTP begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// What else than plain HTTP is answered, and how strictly.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// TLS on the same port; without it only plain HTTP is spoken.
    pub tls: Option<Arc<TlsAcceptor>>,
    /// Who answers the protocol's messages that come by TLS.
    pub sessions: Option<Sessions>,
    /// Which tokens count over plain HTTP from other machines.
    pub plain_tokens: PlainTokens,
    /// How long anybody is waited for.
    pub patience: Patience,
}

/// How long a connection may make no progress. None of these bounds a transfer as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Between the first byte of a request's head and its last.
    pub head: Duration,
    /// Without a request.
    pub idle: Duration,
    /// Without taking a byte of those that wait.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: HTTP_HEAD_MAX, idle: HTTP_IDLE_MAX, stall: HTTP_STALL_MAX }
    }
}

/// What all connections share.
#[derive(Clone)]
struct Shared {
    router: Router,
    admission: Admission,
    options: HttpOptions,
    /// What the box calls itself, with `.local` and without.
    own_names: [String; 2],
    stop: CancellationToken,
}

/// Answers HTTP and TLS on `listener` until `stop` fires; then takes no new connection, lets every
/// request under way finish, and returns. Who calls bounds that wait: dropping the future cuts
/// what is left.
///
/// Beyond the connections that [`Admission`] grants, the one that was idle longest is let go for the
/// next; where none is idle, some wait, and more are closed at once. So are further ones of an
/// address that has its share. This machine gets in always.
///
/// # Errors
///
/// None after the start: a listener that fails is tried again.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    options: HttpOptions,
    stop: CancellationToken,
) -> io::Result<()> {
    let admission = services.admission.clone();
    let visits = Visits::new(admission.http_connections());
    let metrics = Arc::clone(&services.metrics);
    let name = services.status.box_name().to_string();
    let own_names = [format!("{name}.local"), name];
    let router = router::router(services);
    let shared = Shared { router, admission, options, own_names, stop: stop.clone() };
    let shared = Arc::new(shared);
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "Cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    error!(%error, "An HTTP connection's task failed");
                }
                continue;
            }
        };
        let Some(entered) = enter(peer, &shared.admission, &visits) else {
            metrics.connections_refused.inc();
            continue;
        };
        let (shared, visits, metrics) = (Arc::clone(&shared), visits.clone(), Arc::clone(&metrics));
        connections.spawn(async move {
            let Entered { welcome, guest: _guest } = entered;
            let seat = match welcome {
                Welcome::Seat(seat) => Some(seat),
                Welcome::Wait(wait) => tokio::select! {
                    seat = wait.seat() => seat,
                    () = shared.stop.cancelled() => return,
                },
                Welcome::Full => None,
            };
            let Some(seat) = seat else {
                metrics.connections_refused.inc();
                return debug!(client.address = %peer, "No room became free; closed a connection");
            };
            let (visit, _open) = (visits.sit(seat), Open::new(&metrics));
            serve_connection(stream, peer, &visit, &shared).await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// A connection that may stay, or wait.
struct Entered {
    welcome: Welcome,
    guest: Option<Guest>,
}

/// `None`: its address has enough connections, or too many wait.
fn enter(peer: SocketAddr, admission: &Admission, visits: &Visits) -> Option<Entered> {
    let counted = counted_origin(peer);
    let guest = match counted.map(|from| admission.http_connection(from)) {
        Some(None) => {
            debug!(client.address = %peer, "An address has enough connections");
            return None;
        }
        guest => guest.flatten(),
    };
    match visits.enter(counted.is_none()) {
        Welcome::Full => {
            debug!(client.address = %peer, "Too many connections wait; closed one");
            None
        }
        welcome => Some(Entered { welcome, guest }),
    }
}

/// A connection that is counted while it is open.
struct Open(Arc<Metrics>);

impl Open {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Serves one connection to its end. What a client does wrong ends it, and is its own affair.
async fn serve_connection(
    stream: TcpStream,
    address: SocketAddr,
    visit: &Visit,
    shared: &Arc<Shared>,
) {
    // Or small answers would wait for the client's delayed acknowledgements.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "A connection is gone already");
        return;
    }
    let first = tokio::select! {
        first = timeout(shared.options.patience.idle, first_byte(&stream)) => first,
        () = visit.told_to_leave() => return,
        () = shared.stop.cancelled() => return,
    };
    match (first, &shared.options.tls) {
        (Ok(Ok(Some(TLS_HANDSHAKE))), Some(tls)) => {
            serve_tls(stream, address, tls, visit, shared).await;
        }
        (Ok(Ok(Some(_))), _) => serve_http1(stream, Peer::plain(address), visit, shared).await,
        (Ok(Ok(None)) | Err(_), _) => {}
        (Ok(Err(error)), _) => debug!(%error, client.address = %address, "A connection broke"),
    }
}

/// The first byte, left where it is; nothing if the client ended without a word.
async fn first_byte(stream: &TcpStream) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let read = stream.peek(&mut byte).await?;
    Ok(byte.first().copied().filter(|_| read > 0))
}

async fn serve_tls(
    stream: TcpStream,
    address: SocketAddr,
    tls: &TlsAcceptor,
    visit: &Visit,
    shared: &Arc<Shared>,
) {
    let accepted = match timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return debug!(client.address = %address, %error, "A handshake failed"),
        Err(_elapsed) => return debug!(client.address = %address, "A handshake took too long"),
    };
    let peer = Peer::encrypted(address);
    match (accepted.speaks, &shared.options.sessions) {
        (Speaks::Http1, _) => serve_http1(accepted.stream, peer, visit, shared).await,
        (Speaks::Http2, _) => serve_http2(accepted.stream, peer, visit, shared).await,
        (Speaks::Messages, Some(sessions)) => {
            // Sessions have bounds of their own, on their number and their silence.
            let _under_way = visit.sight().request();
            sessions.serve_tls(accepted.stream, address, shared.stop.clone()).await;
        }
        (Speaks::Messages, None) => {}
    }
}

async fn serve_http1<S>(stream: S, peer: Peer, visit: &Visit, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = {
        let (shared, sight) = (Arc::clone(shared), visit.sight());
        service_fn(move |request| answer(Arc::clone(&shared), sight.clone(), peer, request))
    };
    let Patience { head, idle, stall } = shared.options.patience;
    let stream = StallGuard::new(HeadGuard::new(stream, visit.sight(), head), stall);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The wait for a next request counts as waiting for its head.
        .header_read_timeout(idle)
        .max_header_size(HTTP_HEADER_BYTES_MAX)
        .max_buf_size(HTTP_SEND_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = visit.told_to_leave() => {
            connection.as_mut().graceful_shutdown();
            leave(connection, visit).await
        }
        () = shared.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    note_end(ended, peer);
}

async fn serve_http2<S>(stream: S, peer: Peer, visit: &Visit, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = {
        let (shared, sight) = (Arc::clone(shared), visit.sight());
        service_fn(move |request| answer(Arc::clone(&shared), sight.clone(), peer, request))
    };
    // A client that waits for nothing and says nothing is let go; one that takes what it asked
    // for says so now and then.
    let stall = shared.options.patience.stall;
    let stream = StallGuard::new(Watched::new(stream, stall), stall);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP_REQUESTS_MAX)
        .initial_stream_window_size(HTTP_WINDOW_BYTES)
        .initial_connection_window_size(HTTP_WINDOW_BYTES)
        .max_header_list_size(http2_header_bytes())
        .max_send_buf_size(HTTP_SEND_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = visit.told_to_leave() => {
            connection.as_mut().graceful_shutdown();
            leave(connection, visit).await
        }
        () = shared.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    note_end(ended, peer);
}

/// The rest of a connection whose room is wanted: what is under way is answered; a request that is
/// only half there is not waited for.
async fn leave(
    mut connection: Pin<&mut impl Future<Output = hyper::Result<()>>>,
    visit: &Visit,
) -> hyper::Result<()> {
    match timeout(HTTP_LEAVE_MAX, &mut connection).await {
        Ok(ended) => ended,
        Err(_elapsed) if visit.sight().is_idle() => Ok(()),
        Err(_elapsed) => connection.await,
    }
}

/// [`HTTP_HEADER_BYTES_MAX`], as HTTP/2 counts.
fn http2_header_bytes() -> u32 {
    u32::try_from(HTTP_HEADER_BYTES_MAX).unwrap_or(u32::MAX)
}

fn note_end(ended: hyper::Result<()>, peer: Peer) {
    if let Err(error) = ended {
        debug!(%error, client.address = %peer.address, "An HTTP connection broke");
    }
}

async fn answer(
    shared: Arc<Shared>,
    sight: Sight,
    peer: Peer,
    request: hyper::Request<Incoming>,
) -> Result<Response, Infallible> {
    let under_way = sight.request();
    let mut request: Request = request.map(Body::new);
    if let Some(from) = counted_origin(peer.address) {
        shared.admission.request(from).await;
        request.extensions_mut().insert(from);
    }
    if router::asks_for_peer(&request) {
        let is_own_name = host_of(&request).is_some_and(|host| shared.is_own_name(host));
        let plain_tokens = shared.options.plain_tokens;
        request.extensions_mut().insert(Peer { is_own_name, plain_tokens, ..peer });
    }
    let response = shared.router.clone().call(request).await?;
    Ok(response.map(|body| Answered::body(body, under_way)))
}

impl Shared {
    /// Whether the box is asked by a name of its own: an address, or a name that it gave itself
    /// or that its certificate is for. With another, a page of somebody else may be behind it.
    fn is_own_name(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        bare.unwrap_or(&host).parse::<IpAddr>().is_ok()
            || host == "localhost"
            || self.own_names.contains(&host)
            || self.options.tls.as_ref().is_some_and(|tls| tls.is_certified_for(&host))
    }
}
