//! Bytes on the network: decode, call a service, encode.

pub mod http;
mod origin;
pub mod quic;
pub mod tls;
pub mod discovery;
