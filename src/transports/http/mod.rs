//! The substituter and the admin API over HTTP.

mod admin;
mod conditional;
mod credentials;
mod error;
mod health;
mod range;
mod router;
mod server;
mod stall;
mod substituter;
#[cfg(test)]
mod tests;

pub use admin::{AdminFunction, admin_handler};
pub use server::serve;
