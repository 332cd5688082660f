//! The QUIC protocol as messages and pure state machines: no socket, no clock; time is an
//! argument. PROTOCOL.md is the full text.

mod blob;
mod crockford;
pub mod device_id;
pub mod framing;
pub mod hello;
pub mod message;
pub mod missing;
pub mod pairing;
pub mod push;
pub mod refusal;
pub mod token;
mod violation;

pub use device_id::DeviceId;
pub use pairing::PairingCode;
pub use refusal::{Refusal, RefusalCode};
pub use token::TokenText;
pub use violation::Violation;
