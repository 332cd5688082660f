//! Which certificate a client gets, and what it speaks inside TLS.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::transports::quic::identity::{self, Identity, IdentityError};
use crate::transports::tls::certificate_files::{CertificateFiles, CertificatePaths};
use crate::wire::hello::ALPN;

/// ALPN's name for HTTP/2 (RFC 9113, section 3.2).
const HTTP_2: &[u8] = b"h2";
/// ALPN's name for HTTP/1.1 (RFC 7301, section 6).
const HTTP_1: &[u8] = b"http/1.1";

/// A box's half of TLS over TCP.
///
/// A client that offers `larder/1` gets the certificate on the box's own key, which it pins;
/// anybody else gets the configured one, or the same if none is configured or usable.
#[derive(Debug)]
pub struct TlsAcceptor {
    pinned: Arc<ServerConfig>,
    own: Arc<ServerConfig>,
    files: Option<CertificateFiles>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub(in crate::transports) struct Accepted {
    pub(in crate::transports) stream: TlsStream<TcpStream>,
    pub(in crate::transports) speaks: Speaks,
}

/// What a client speaks inside TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transports) enum Speaks {
    Http1,
    Http2,
    /// The protocol's messages.
    Messages,
}

impl TlsAcceptor {
    /// TLS on the box's identity, and on the files for HTTPS. Files that cannot be used are
    /// logged, and looked at again when they change.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if TLS cannot be set up at all.
    pub fn new(
        identity: &Identity,
        paths: Option<CertificatePaths>,
    ) -> Result<Self, IdentityError> {
        let pinned = Arc::new(identity.pinned_tls()?);
        let own = https(identity::server_tls(identity.certified_key()?)?);
        Ok(Self { pinned, own, files: paths.map(CertificateFiles::new) })
    }

    /// Why HTTPS does not show the configured certificate, or what is wrong with it.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.files.as_ref().and_then(CertificateFiles::problem)
    }

    /// Whether the configured certificate is for this host name.
    #[must_use]
    pub fn is_certified_for(&self, host: &str) -> bool {
        self.files.as_ref().is_some_and(|files| files.is_certified_for(host))
    }

    /// Makes the handshake on a connection. Who calls bounds its time.
    ///
    /// # Errors
    ///
    /// What the client does wrong, or that it is gone.
    pub(in crate::transports) async fn accept(&self, stream: TcpStream) -> io::Result<Accepted> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let pins = offers_messages(&start.client_hello());
        let config = if pins { Arc::clone(&self.pinned) } else { self.for_https().await };
        let stream = start.into_stream(config).await?;
        let speaks = match stream.get_ref().1.alpn_protocol() {
            Some(ALPN) => Speaks::Messages,
            Some(HTTP_2) => Speaks::Http2,
            _ => Speaks::Http1,
        };
        Ok(Accepted { stream, speaks })
    }

    async fn for_https(&self) -> Arc<ServerConfig> {
        let configured = match &self.files {
            Some(files) => files.current().await,
            None => None,
        };
        configured.unwrap_or_else(|| Arc::clone(&self.own))
    }
}

fn offers_messages(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == ALPN))
}

/// Settings as they are for ordinary clients.
pub(super) fn https(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    Arc::new(config)
}
