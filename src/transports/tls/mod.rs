//! TLS over TCP, on the port that plain HTTP has: HTTPS for anybody, and the protocol's streams for
//! clients that UDP does not reach.

mod acceptor;
mod certificate;
mod certificate_files;
pub(in crate::transports) mod streams;
mod validity;
mod watch;

pub(in crate::transports) use acceptor::Speaks;
pub use acceptor::TlsAcceptor;
pub use certificate_files::CertificatePaths;
pub(in crate::transports) use watch::Watched;
