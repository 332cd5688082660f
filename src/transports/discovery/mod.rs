//! Names on the local network, by multicast DNS (RFC 6762) and DNS-SD (RFC 6763).
//!
//! A box announces `_larder._udp` with its QUIC port and `_nix_binary_cache._tcp`, the type that
//! other tools for Nix look for, with its HTTP port; both point to `{box}.local`. Nothing that is
//! heard here is trusted: who a box is comes from its QUIC handshake.

pub mod announce;
pub mod browse;
mod record;

/// What finds larder's boxes.
const LARDER_TYPE: &str = "_larder._udp.local.";
/// What finds binary caches of any make.
const BINARY_CACHE_TYPE: &str = "_nix_binary_cache._tcp.local.";
