//! Behaviour through public surfaces: the command, HTTP, QUIC and files, with a real Nix.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
