//! NARs: the archive that is hashed, signed, cut and served.
//!
//! Source of the grammar: `src/libutil/archive.cc` (Nix 2.34; unchanged since 2.8). A NAR is a
//! sequence of strings, each a little-endian `u64` length, the bytes, and zeros up to the next
//! multiple of eight.

mod find;
mod listing;
mod look_up;
mod parser;
mod token;
mod writer;

#[cfg(test)]
mod tests;

pub use find::{Entry, find};
pub use listing::ListingBuilder;
pub use parser::{Event, NarParser};
pub use token::NarError;
pub use writer::{NarWriter, padding_len};

/// The first string of every NAR.
pub const MAGIC: &[u8] = b"nix-archive-1";
