//! Many streams on one TLS connection: HTTP/2's frames (RFC 9113), which bound what waits to be
//! read on a stream and on the whole connection, as QUIC does. PROTOCOL.md, "The same messages
//! over TLS".

#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream, client, server};
use http_message::{Method, Request, Response};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::formats::limits::{
    HANDSHAKE_MAX, KEEP_ALIVE_EVERY, QUIC_STREAM_WINDOW_BYTES, QUIC_WINDOW_BYTES, STREAM_IDLE_MAX,
    STREAMS_MAX,
};
use crate::transports::quic::LinkError;
use crate::transports::quic::identity::SERVER_NAME;
use crate::transports::tls::watch::Watched;

/// How long the last frames may take when a connection is closed.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// Streams that were opened and are not taken up yet; more wait with HTTP/2.
const UNTAKEN_MAX: usize = 8;
/// Bytes of a frame: fewer heads, and still many streams get their turn.
const FRAME_BYTES: u32 = 64 << 10;
/// Bytes of a stream that wait for the network.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// Bytes of a stream's head. Nothing reads what is in it.
const HEAD_BYTES_MAX: u32 = 4 << 10;
/// What a client asks for to open a stream. It has no meaning.
const TARGET: &str = "https://larder/";

/// A connection that carries streams. Dropping it cuts it.
#[derive(Debug)]
pub(in crate::transports) struct Streams {
    remote_address: SocketAddr,
    sent_bytes: Arc<AtomicU64>,
    side: Side,
    closing: CancellationToken,
    driver: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
enum Side {
    Client(SendRequest<Bytes>),
    Box(Mutex<mpsc::Receiver<(SendHalf, RecvHalf)>>),
}

/// Connects as a client by TLS, on a fresh TCP connection to a box.
///
/// # Errors
///
/// [`LinkError`] if the handshake fails or the connection breaks.
pub(in crate::transports) async fn dial(
    stream: TcpStream,
    config: Arc<ClientConfig>,
    address: SocketAddr,
) -> Result<Streams, LinkError> {
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Streams::of_client(stream, address).await?)
}

impl Streams {
    /// The client's side of a fresh connection.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    async fn of_client<S>(stream: S, remote_address: SocketAddr) -> Result<Self, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Watched::new(stream, STREAM_IDLE_MAX);
        let sent_bytes = stream.sent_bytes();
        let (opener, mut connection) = client::Builder::new()
            .initial_window_size(QUIC_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(QUIC_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await?;
        let pings = connection.ping_pong();
        let closing = CancellationToken::new();
        let closed = closing.clone();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            tokio::select! {
                _broken_or_done = connection => {}
                () = keep_alive(pings) => {}
                () = closed.cancelled() => {}
            }
        });
        let side = Side::Client(opener);
        Ok(Self { remote_address, sent_bytes, side, closing, driver: Mutex::new(driver) })
    }

    /// The box's side of a fresh connection.
    ///
    /// # Errors
    ///
    /// If the connection breaks, or its first frames take longer than a handshake may.
    pub(in crate::transports) async fn of_box<S>(
        stream: S,
        remote_address: SocketAddr,
    ) -> Result<Self, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = Watched::new(stream, STREAM_IDLE_MAX);
        let sent_bytes = stream.sent_bytes();
        let greeted = server::Builder::new()
            .initial_window_size(QUIC_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(QUIC_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX + 1)
            .max_send_buffer_size(SEND_BUFFER_BYTES)
            .handshake(stream);
        let connection = timeout(HANDSHAKE_MAX, greeted)
            .await
            .unwrap_or_else(|_elapsed| Err(Reason::SETTINGS_TIMEOUT.into()))?;
        let (opened, untaken) = mpsc::channel(UNTAKEN_MAX);
        let closing = CancellationToken::new();
        let mut driver = JoinSet::new();
        driver.spawn(drive(connection, opened, closing.clone()));
        let side = Side::Box(Mutex::new(untaken));
        Ok(Self { remote_address, sent_bytes, side, closing, driver: Mutex::new(driver) })
    }

    pub(in crate::transports) const fn remote_address(&self) -> SocketAddr {
        self.remote_address
    }

    /// Bytes of TLS payload sent so far.
    pub(in crate::transports) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// Opens a stream, once the box allows one more. A box opens none.
    ///
    /// # Errors
    ///
    /// If the connection is broken or closed.
    pub(in crate::transports) async fn open(&self) -> Result<(SendHalf, RecvHalf), h2::Error> {
        let Side::Client(opener) = &self.side else { return Err(Reason::REFUSED_STREAM.into()) };
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http_message::Uri::from_static(TARGET);
        let (answer, send) = opener.clone().ready().await?.send_request(request, false)?;
        Ok((SendHalf(send), RecvHalf::Unanswered(answer)))
    }

    /// The next stream that the client opened; `None` once the connection has ended.
    pub(in crate::transports) async fn accept(&self) -> Option<(SendHalf, RecvHalf)> {
        match &self.side {
            Side::Client(_) => None,
            Side::Box(untaken) => untaken.lock().await.recv().await,
        }
    }

    /// Takes nothing new and ends; a box waits a little for its last frames to go out.
    pub(in crate::transports) async fn close(&self) {
        self.closing.cancel();
        let mut driver = self.driver.lock().await;
        let _late = timeout(FAREWELL_MAX, driver.join_next()).await;
    }
}

/// Keeps a box's connection going, and hands on the streams that the client opens.
async fn drive<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: server::Connection<S, Bytes>,
    opened: mpsc::Sender<(SendHalf, RecvHalf)>,
    closing: CancellationToken,
) {
    loop {
        let room = tokio::select! {
            room = opened.reserve() => room,
            _ended = poll_fn(|context| connection.poll_closed(context)) => return,
            () = closing.cancelled() => break,
        };
        let Ok(room) = room else { break };
        let request = tokio::select! {
            request = connection.accept() => request,
            () = closing.cancelled() => break,
            () = opened.closed() => break,
        };
        let Some(Ok((request, mut respond))) = request else { return };
        // A stream that was reset meanwhile is nobody's loss.
        if let Ok(send) = respond.send_response(Response::new(()), false) {
            room.send((SendHalf(send), RecvHalf::Open(request.into_body())));
        }
    }
    connection.graceful_shutdown();
    let ended = poll_fn(|context| connection.poll_closed(context));
    let _late = timeout(FAREWELL_MAX, ended).await;
}

/// Asks the box for a sign of life now and then; what never comes back is the watch's affair.
async fn keep_alive(pings: Option<PingPong>) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(KEEP_ALIVE_EVERY).await;
        if pings.ping(Ping::opaque()).await.is_err() {
            return;
        }
    }
}

/// The half of a stream that bytes go to.
#[derive(Debug)]
pub(in crate::transports) struct SendHalf(SendStream<Bytes>);

impl SendHalf {
    /// Takes what there is room for off the front of `pending`; `None` if the other side does
    /// not read any more. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the stream was reset or the connection broke.
    pub(in crate::transports) async fn write(
        &mut self,
        pending: &mut BytesMut,
    ) -> Result<Option<()>, h2::Error> {
        self.0.reserve_capacity(pending.len().min(SEND_BUFFER_BYTES));
        let room = match poll_fn(|context| self.0.poll_capacity(context)).await {
            Some(Ok(room)) => room,
            Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => return Ok(None),
            Some(Err(error)) => return Err(error),
            None => return Ok(None),
        };
        let piece = pending.split_to(room.min(pending.len())).freeze();
        self.0.send_data(piece, false)?;
        Ok(Some(()))
    }

    pub(in crate::transports) fn finish(&mut self) {
        let _closed_by_the_other_side = self.0.send_data(Bytes::new(), true);
    }

    /// Waits until the other side resets the stream or the connection ends.
    pub(in crate::transports) async fn given_up(&mut self) {
        let _reason_or_loss = poll_fn(|context| self.0.poll_reset(context)).await;
    }
}

/// The half of a stream that bytes come from.
#[derive(Debug)]
pub(in crate::transports) enum RecvHalf {
    /// A client's, before the box has taken the stream up.
    Unanswered(ResponseFuture),
    /// One that bytes can come on.
    Open(RecvStream),
}

impl RecvHalf {
    /// The next bytes; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// If the stream was reset or the connection broke.
    pub(in crate::transports) async fn read(&mut self) -> Result<Option<Bytes>, h2::Error> {
        loop {
            match self {
                Self::Unanswered(answer) => *self = Self::Open(answer.await?.into_body()),
                Self::Open(stream) => {
                    let Some(piece) = stream.data().await else { return Ok(None) };
                    let piece = piece?;
                    stream.flow_control().release_capacity(piece.len())?;
                    return Ok(Some(piece));
                }
            }
        }
    }
}
