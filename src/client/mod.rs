//! What runs on a user's machine: the local Nix store, pushes, the client's own configuration.

pub mod acquaintance;
pub mod administration;
pub mod backup;
pub mod box_client;
pub mod config;
pub mod device_key;
pub mod host;
pub mod nix_config;
pub mod nix_store;
pub mod places;
pub mod push;
mod secret_file;
pub mod signing_keys;
pub mod tokens;
