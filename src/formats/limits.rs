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
/// Longest content address of a path. Nix writes 60 to 80 characters.
pub const CONTENT_ADDRESS_BYTES_MAX: usize = 255;
/// Signatures of one path.
pub const SIGNATURES_MAX: usize = 64;
/// Entries of a NAR that its listing tells; beyond it a path has no listing. About 80 bytes each
/// while it is made.
pub const LISTING_ENTRIES_MAX: usize = 100_000;
/// Bytes of a listing's JSON; beyond it a path has no listing. Held whole while a NAR comes in.
pub const LISTING_BYTES_MAX: usize = 8 << 20;

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
/// Largest zstd frame of an attachment: it travels in one message.
pub const ATTACHMENT_FRAME_BYTES_MAX: usize = 1_000_000;
/// Largest window of such a frame, as the power of two: what a reader needs to decompress it.
pub const ATTACHMENT_WINDOW_LOG_MAX: u32 = 20;
/// Largest build log.
pub const BUILD_LOG_BYTES_MAX: u32 = 64 << 20;
/// Largest realisation, as JSON.
pub const REALISATION_BYTES_MAX: u32 = 64 << 10;
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
/// Connections of the protocol at a time, QUIC and TLS each, unless the settings say otherwise; what
/// waits unread on one is bounded by [`QUIC_WINDOW_BYTES`].
pub const CONNECTIONS_DEFAULT: u32 = 256;

/// The most of them that the settings may ask for.
pub const CONNECTIONS_MAX: u32 = 1024;

/// Connections of this machine beside those, so that its owner gets in when they are all taken.
pub const CONNECTIONS_NEAR: usize = 8;
/// How long a handshake may take, and then the greeting.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long pushes under way may take to end once a box was told to stop.
pub const QUIC_DRAIN_MAX: Duration = Duration::from_secs(15);
/// Pause after which a silent connection says that it is alive: below the 30 s after which home
/// routers forget a UDP flow (RFC 4787 asks for two minutes; many do not listen).
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(15);
/// Bytes of one stream that may wait to be read: a message.
pub const QUIC_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of one connection that may wait to be read: 2.5 Gbit/s over 6 ms.
pub const QUIC_WINDOW_BYTES: u32 = 2 << 20;
/// Bytes of one connection that may be sent and not acknowledged.
pub const QUIC_SEND_WINDOW_BYTES: u64 = 4 << 20;
/// Bytes of frames that a box keeps for its store, all pushes together.
pub const RECEIVE_BYTES_MAX: usize = 16 << 20;
/// Bytes of messages that are half there, of one connection: all that a client of ours has under
/// way, which is 248 small NARs and some batches. Beyond it a request is refused as busy.
pub const HALF_MESSAGES_BYTES_MAX: usize = 48 << 20;
/// The same, all connections of a box together.
pub const HALF_MESSAGES_BYTES_OF_BOX_MAX: usize = 160 << 20;
/// Bytes of a half message that are not counted, so that small ones get through in any case.
pub const HALF_MESSAGE_BYTES_FREE: usize = 4 << 10;
/// Bytes of NAR that a client has under way, all pushes of a connection together.
pub const SEND_RAW_BYTES_MAX: usize = 32 << 20;

// Tokens, and who may come how often.

/// Tokens of a box that are neither revoked nor expired. With [`TOKENS_ENDED_KEPT_MAX`] about
/// 10 MiB in memory when there are that many, each for a few caches.
pub const TOKENS_MAX: usize = 10_000;
/// Revoked and expired tokens of which a box remembers, youngest first, why they are no good;
/// older ones are strangers to it.
pub const TOKENS_ENDED_KEPT_MAX: usize = 10_000;
/// Tokens in one page of their list: with [`GRANTS_MAX`] caches each they fit into a message.
pub const TOKENS_PAGE_MAX: u32 = 100;
/// Longest label of a token, in characters.
pub const LABEL_CHARS_MAX: usize = 100;
/// Caches that one token may be for.
pub const GRANTS_MAX: usize = 100;
/// Paths in one page of the log: at most 800 bytes each, so that they fit into a message.
pub const LOG_PAGE_MAX: u32 = 1000;
/// Artifacts of one revision of a pin.
pub const ARTIFACTS_MAX: usize = 32;
/// Bytes of their paths, all together. With [`PINS_PAGE_MAX`] this keeps a page within a message.
pub const ARTIFACTS_BYTES_MAX: usize = 4096;
/// Revisions in one page of the pins of a cache: at most 28 KiB each.
pub const PINS_PAGE_MAX: u32 = 32;
/// Addresses that are told apart at a time, for each bound that counts by address, and tokens for
/// each that counts by token: 64 to 256 bytes each. Beyond it the rest share one place.
pub const ORIGINS_MAX: usize = 4096;
/// Wrong secrets that an address may show one after another; then [`WRONG_SECRET_EVERY`] each.
pub const WRONG_SECRETS_AT_ONCE: u32 = 10;
/// The pace of wrong secrets, for each address.
pub const WRONG_SECRET_EVERY: Duration = Duration::from_millis(200);
/// Longest that anybody is made to wait for his turn: below every client's own patience.
pub const TURN_WAIT_MAX: Duration = Duration::from_secs(20);
/// Requests that an address, and a token, may make in a second, unless the settings say
/// otherwise. One Nix asks for some hundred; half of it more may come at once.
pub const REQUESTS_PER_SECOND_DEFAULT: u32 = 10_000;
/// Connections of one address at a time, HTTP and QUIC each, unless the settings say otherwise.
/// One Nix opens 25 (`http-connections`).
pub const CONNECTIONS_PER_ADDRESS_DEFAULT: u32 = 128;
/// QUIC handshakes under way from which on the next has to prove its address first (RFC 9000,
/// section 8.1): each costs a signature and some 10 KiB.
pub const HANDSHAKES_UNPROVEN_MAX: usize = 32;

// HTTP.

/// HTTP connections at a time, unless the settings say otherwise: each takes 10 to 20 KiB while it
/// is idle. Beyond it the one that was idle longest is let go for the next.
pub const HTTP_CONNECTIONS_DEFAULT: u32 = 2048;

/// The most of them that the settings may ask for. With [`HTTP_HEADER_BYTES_MAX`] this bounds what
/// requests hold before they are understood: 128 MiB, and 32 MiB with the default.
pub const HTTP_CONNECTIONS_MAX: u32 = 8192;

/// Connections of this machine beside those, so that its owner gets in when they are all taken.
pub const HTTP_SEATS_NEAR: usize = 16;

/// Connections that wait until there is room for them; beyond it one more is closed at once.
pub const HTTP_WAITING_MAX: usize = 256;

/// How long such a connection waits: below the patience of every client.
pub const HTTP_SEAT_WAIT_MAX: Duration = Duration::from_secs(20);

/// How long a connection has to end that was idle when its room was wanted.
pub const HTTP_LEAVE_MAX: Duration = Duration::from_secs(1);

/// Longest head of a request, of at most 100 headers; beyond it the answer is 431.
pub const HTTP_HEADER_BYTES_MAX: usize = 16 << 10;
/// How long the next request of a connection may take to arrive in full. Nix keeps connections
/// for 90 to 118 s (libcurl's `CURLOPT_MAXAGE_CONN`), so less than 120 s would cut it off.
pub const HTTP_IDLE_MAX: Duration = Duration::from_secs(150);
/// How long the head of a request may take from its first byte to its last, unless the settings say
/// otherwise. It is one packet of every client.
pub const HTTP_HEAD_MAX: Duration = Duration::from_secs(30);

/// How long a client may take none of the bytes that wait for it. Nix gives up after 300 s
/// (`stalled-download-timeout`), so a box that waits as long is never the first.
pub const HTTP_STALL_MAX: Duration = Duration::from_secs(300);
/// Bytes of an answer that wait for the network, per connection: pieces of a NAR that are in
/// memory anyway.
pub const HTTP_SEND_BUFFER_BYTES: usize = 256 << 10;
/// Requests of one HTTP/2 connection at a time, as RFC 9113, section 6.5.2, advises.
pub const HTTP_REQUESTS_MAX: u32 = 100;

/// Bytes of request bodies that may wait to be read, per HTTP/2 connection.
pub const HTTP_WINDOW_BYTES: u32 = 256 << 10;

/// Longest body of an administrative request. Held whole.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a backup that are given out at a time, in one message.
pub const BACKUP_PART_BYTES_MAX: usize = 512 << 10;
/// Narinfos that are kept as they are served, all together: about nine thousand.
pub const NARINFO_CACHE_BYTES_MAX: usize = 8 << 20;

const _: () = assert!(
    CHUNK_BYTES_MIN.is_multiple_of(2)
        && CHUNK_BYTES_AVERAGE.is_multiple_of(2)
        && CHUNK_BYTES_MAX.is_multiple_of(2),
    "fastcdc 5 wants even sizes"
);
