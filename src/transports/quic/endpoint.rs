//! The box's UDP socket: connections come in, are bounded, and are served until the stop.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{Endpoint, Incoming, ServerConfig, TokioRuntime};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::formats::limits::{CONNECTIONS_NEAR, HANDSHAKE_MAX, QUIC_DRAIN_MAX};
use crate::services::admission::Guest;
use crate::transports::origin::counted_origin;
use crate::transports::quic::identity::{Identity, IdentityError};
use crate::transports::quic::link::Link;
use crate::transports::quic::session::{Sessions, Shared, serve_connection};
use crate::transports::quic::transport;

/// Why a box cannot speak QUIC.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// The socket cannot be used.
    #[error("cannot use the UDP socket")]
    Socket(#[from] io::Error),
    /// The identity cannot be used.
    #[error("cannot show the device key to TLS")]
    Identity(#[from] IdentityError),
}

/// A box's QUIC socket, bound and not served yet.
#[derive(Debug)]
pub struct QuicServer {
    endpoint: Endpoint,
    shared: Arc<Shared>,
}

impl QuicServer {
    /// Takes a bound socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`QuicError`] if the socket or the identity cannot be used.
    pub fn new(
        socket: UdpSocket,
        identity: &Identity,
        sessions: Sessions,
    ) -> Result<Self, QuicError> {
        let mut config = ServerConfig::with_crypto(Arc::new(identity.server_crypto()?));
        let waiting_max = sessions.0.parts.admission.quic_connections();
        config.transport_config(transport::of_box()).max_incoming(waiting_max);
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(identity.endpoint_config()?, Some(config), socket, runtime)?;
        Ok(Self { endpoint, shared: sessions.0 })
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// [`QuicError::Socket`] if the system does not say.
    pub fn local_address(&self) -> Result<SocketAddr, QuicError> {
        Ok(self.endpoint.local_addr()?)
    }

    /// Serves until `stop` fires; then takes nothing new, and gives what is under way
    /// [`QUIC_DRAIN_MAX`] to end.
    pub async fn run(self, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => break,
                incoming = self.endpoint.accept() => incoming,
                Some(ended) = connections.join_next() => {
                    note_panic(ended);
                    continue;
                }
            };
            let Some(incoming) = incoming else { break };
            if let Some(admitted) = admitted(incoming, connections.len(), &self.shared) {
                let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
                connections.spawn(greet_and_serve(admitted, shared, stop));
            }
        }
        self.endpoint.set_server_config(None);
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                note_panic(ended);
            }
            // The last packets tell the clients why.
            self.endpoint.wait_idle().await;
        };
        if timeout(QUIC_DRAIN_MAX + HANDSHAKE_MAX, drained).await.is_err() {
            debug!(connections.left = connections.len(), "Cut the connections that did not end");
        }
        connections.shutdown().await;
    }
}

/// A first packet that a handshake may follow.
struct Admitted {
    incoming: Incoming,
    /// One of the connections that its address may have, if those are counted.
    guest: Option<Guest>,
    /// One of the handshakes whose address may be somebody else's.
    unproven: Option<OwnedSemaphorePermit>,
}

/// Refuses beyond the connections that [`Admission`](crate::services::Admission) grants and beyond
/// an address's share; this machine has some more. From half of it on, or with many handshakes
/// under way, it asks for proof of the address, so that nobody fills the box with other people's
/// (RFC 9000, section 8.1).
fn admitted(incoming: Incoming, connections: usize, shared: &Shared) -> Option<Admitted> {
    let (most, refused) =
        (shared.parts.admission.quic_connections(), &shared.parts.metrics.quic_connections_refused);
    let is_near = counted_origin(incoming.remote_address()).is_none();
    if connections >= most + if is_near { CONNECTIONS_NEAR } else { 0 } {
        refused.inc();
        debug!(address = %incoming.remote_address(), "There are enough connections");
        incoming.refuse();
        return None;
    }
    let unproven = Arc::clone(&shared.unproven_handshakes).try_acquire_owned().ok();
    let is_busy = connections >= most / 2 || unproven.is_none();
    let incoming = if is_busy && incoming.may_retry() {
        incoming.retry().err()?.into_incoming()
    } else {
        incoming
    };
    let counted = counted_origin(incoming.remote_address());
    let guest = counted.map(|from| shared.parts.admission.quic_connection(from));
    if matches!(guest, Some(None)) {
        refused.inc();
        debug!(address = %incoming.remote_address(), "An address has enough connections");
        incoming.refuse();
        return None;
    }
    Some(Admitted { incoming, guest: guest.flatten(), unproven })
}

async fn greet_and_serve(admitted: Admitted, shared: Arc<Shared>, stop: CancellationToken) {
    let Admitted { incoming, guest: _guest, unproven } = admitted;
    let address = incoming.remote_address();
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return debug!(%address, %error, "No connection came of a first packet"),
    };
    let shaken = timeout(HANDSHAKE_MAX, connecting).await;
    drop(unproven);
    match shaken {
        Ok(Ok(connection)) => serve_connection(Link::Quic(connection), shared, stop).await,
        Ok(Err(error)) => debug!(%address, %error, "A handshake failed"),
        Err(_elapsed) => debug!(%address, "A handshake took too long"),
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "A connection's task panicked; the others go on");
    }
}
