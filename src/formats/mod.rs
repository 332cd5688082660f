//! Nix's own formats as values: bytes in, values out. No I/O, no clock, nothing asynchronous.
//!
//! Text is parsed once, here; what comes out is a type that has been checked, and nothing
//! downstream looks at the text again.

pub mod attachment;
pub mod backup;
pub mod base32;
pub mod box_name;
pub mod cache_info;
pub mod cache_limits;
pub mod cache_name;
pub mod chunking;
pub mod compression;
pub mod file_path;
pub mod frame;
pub mod hash;
pub mod limits;
pub mod nar;
pub mod narinfo;
pub mod path_info;
pub mod pin;
pub mod realisation;
pub mod signature;
pub mod store_path;

pub use attachment::AttachmentName;
pub use box_name::BoxName;
pub use cache_limits::CacheLimits;
pub use cache_name::CacheName;
pub use compression::Compression;
pub use file_path::FilePath;
pub use hash::Sha256Hash;
pub use narinfo::NarInfo;
pub use path_info::PathInfo;
pub use pin::{Keep, PinName};
pub use store_path::{StorePath, StorePathHash};
