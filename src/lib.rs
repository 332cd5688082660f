//! larder: a Nix binary cache that lives on the local network.
//!
//! One module a layer, lowest first; each may name only those before it. ARCHITECTURE.md says
//! what each may not do, and `tests/architecture.rs` keeps it so.

pub mod formats;
pub mod wire;
pub mod store;
pub mod services;
pub mod transports;
pub mod client;
pub mod daemon;
pub mod cli;
