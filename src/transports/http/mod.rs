//! The substituter and the admin API over HTTP, plain and inside TLS.

mod admin;
mod conditional;
mod credentials;
mod error;
mod head;
mod health;
mod peer;
mod range;
mod router;
mod server;
mod stall;
mod substituter;
#[cfg(test)]
mod tests;
mod visits;

pub use admin::{AdminFunction, admin_handler};
pub use peer::PlainTokens;
pub use server::{HttpOptions, Patience, serve};
#[cfg(fuzzing)]
pub use substituter::fuzzed;
