//! Nix's own formats as values: bytes in, values out. No I/O, no clock, nothing asynchronous.
//!
//! Text is parsed once, here; what comes out is a type that has been checked, and nothing
//! downstream looks at the text again.

pub mod base32;
pub mod hash;
pub mod limits;
pub mod path_info;
pub mod signature;
pub mod store_path;

pub use hash::Sha256Hash;
pub use path_info::PathInfo;
pub use store_path::{StorePath, StorePathHash};
