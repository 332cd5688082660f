//! Connections: accepted, bounded, served, and drained at the end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tracing::{debug, error, warn};

use crate::formats::limits::{
    HTTP_HEADER_BYTES_MAX, HTTP_IDLE_MAX, HTTP_SEND_BUFFER_BYTES, HTTP_STALL_MAX,
};
use crate::services::admission::Guest;
use crate::services::{Admission, Metrics, Services};
use crate::transports::http::router::{self, Peer};
use crate::transports::http::stall::StallGuard;
use crate::transports::origin::counted_origin;

/// Pause after the system refused to accept, so that it has time to recover.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers HTTP on `listener` until `stop` fires; then takes no new connection, lets every
/// request under way finish, and returns. Who calls bounds that wait: dropping the future cuts
/// what is left.
///
/// Of the connections that [`Admission`] grants, more wait in the system's queue; an address that
/// has its share finds further ones closed at once.
///
/// # Errors
///
/// None after the start: a listener that fails is tried again.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    stop: CancellationToken,
) -> io::Result<()> {
    let admission = services.admission.clone();
    let room = Arc::new(Semaphore::new(admission.http_connections()));
    let metrics = Arc::clone(&services.metrics);
    let router = router::router(services);
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer, permit) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room) => match accepted {
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
        let guest = counted_origin(peer).map(|from| admission.http_connection(from));
        if matches!(guest, Some(None)) {
            debug!(client.address = %peer, "An address has enough connections");
            continue;
        }
        let open = Open::new(&metrics, permit, guest.flatten());
        let (router, stop, admission) = (router.clone(), stop.clone(), admission.clone());
        connections.spawn(async move {
            serve_connection(stream, peer, router, admission, stop).await;
            drop(open);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

/// A connection that is counted while it is open.
struct Open {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
    _guest: Option<Guest>,
}

impl Open {
    fn new(metrics: &Arc<Metrics>, permit: OwnedSemaphorePermit, guest: Option<Guest>) -> Self {
        metrics.connections.inc();
        Self { metrics: Arc::clone(metrics), _permit: permit, _guest: guest }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

/// Serves one connection to its end. What a client does wrong ends it, and is its own affair.
async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    admission: Admission,
    stop: CancellationToken,
) {
    // Or small answers would wait for the client's delayed acknowledgements.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "A connection is gone already");
        return;
    }
    let answer =
        service_fn(move |request| answer(router.clone(), admission.clone(), peer, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // The wait for a next request counts as waiting for its head.
        .header_read_timeout(HTTP_IDLE_MAX)
        .max_header_size(HTTP_HEADER_BYTES_MAX)
        .max_buf_size(HTTP_SEND_BUFFER_BYTES)
        .serve_connection(TokioIo::new(StallGuard::new(stream, HTTP_STALL_MAX)), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, client.address = %peer, "An HTTP connection broke");
    }
}

async fn answer(
    mut router: Router,
    admission: Admission,
    peer: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Result<Response, Infallible> {
    if let Some(from) = counted_origin(peer) {
        admission.request(from).await;
    }
    let mut request: Request = request.map(Body::new);
    if router::asks_for_peer(request.uri().path()) {
        request.extensions_mut().insert(Peer(peer));
    }
    router.call(request).await
}
