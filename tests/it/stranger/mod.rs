//! Readers and clients that a stranger wrote: from FORMAT.md and PROTOCOL.md alone, with nothing of
//! larder in them. Where they fail, either the program or the page is wrong.

mod client;
mod nar_path;
mod packs;
mod payloads;
mod postcard;
mod quic;
mod records;
