//! Every bound on what a stranger can make us do, with the memory it implies.
//!
//! Sizes are bytes unless the name says otherwise. Settings that the owner of a box may change
//! have their defaults in `daemon::settings`; what stands here is part of the formats.

use std::time::Duration;

// NARs and narinfos.

/// Longest narinfo that is read; the same bound as Cachix's `nix-narinfo`. Held whole.
pub const NARINFO_BYTES_MAX: usize = 1 << 20;
/// Longest name of a directory entry in a NAR (Linux's `NAME_MAX`).
pub const NAR_NAME_BYTES_MAX: usize = 255;
/// Longest symlink target in a NAR (Linux's `PATH_MAX` less its NUL).
pub const NAR_TARGET_BYTES_MAX: usize = 4095;
/// Deepest nesting of directories in a NAR. The parser keeps one name a level: 64 KiB.
pub const NAR_DEPTH_MAX: usize = 256;
/// References of one path. glibc-sized closures have a few dozen; an environment some thousand.
pub const REFERENCES_MAX: usize = 16_384;
/// Signatures of one path.
pub const SIGNATURES_MAX: usize = 64;
/// Entries of a NAR that its listing tells; beyond it a path has no listing. About 100 bytes each
/// while it is made.
pub const LISTING_ENTRIES_MAX: usize = 100_000;

// Chunks and their frames.

/// Smallest chunk that content decides; shorter ones end a NAR.
pub const CHUNK_BYTES_MIN: u32 = 16 << 10;
/// Chunk size that the cut aims at.
pub const CHUNK_BYTES_AVERAGE: u32 = 64 << 10;
/// Largest chunk, and so the largest window a frame may ask for.
pub const CHUNK_BYTES_MAX: u32 = 256 << 10;
/// Largest frame: a chunk that cannot be compressed, with zstd's own bound on the growth.
pub const FRAME_BYTES_MAX: usize = 258 << 10;

// The QUIC protocol.

/// Longest message on a stream. Held whole while it is read.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Longest NAR that travels inside its push message (as frames).
pub const INLINE_NAR_BYTES_MAX: u64 = 128 << 10;
/// Store path hashes in one "missing?" question: 640 KiB of message.
pub const MISSING_HASHES_MAX: usize = 32_768;
/// Chunks in one batch of a push. With [`BATCH_BYTES_MAX`] this bounds what either side holds.
pub const BATCH_CHUNKS_MAX: usize = 256;
/// Bytes of NAR in one batch of a push.
pub const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Batches of one push under way at a time: 8 MiB of NAR a path on the client.
pub const BATCHES_IN_FLIGHT_MAX: usize = 2;
/// Request streams of one connection at a time.
pub const STREAMS_MAX: u32 = 256;
/// How long a stream may be silent before it is dropped.
pub const STREAM_IDLE_MAX: Duration = Duration::from_secs(120);

const _: () = assert!(
    CHUNK_BYTES_MIN.is_multiple_of(2)
        && CHUNK_BYTES_AVERAGE.is_multiple_of(2)
        && CHUNK_BYTES_MAX.is_multiple_of(2),
    "fastcdc 5 wants even sizes"
);
