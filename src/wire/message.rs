//! The messages, as postcard writes them. **The order of an enum's variants is the number on the
//! wire**: new ones go to the end, none is ever taken out. PROTOCOL.md lists them field by field,
//! with the numbers that are reserved for later ones.

use std::fmt;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::formats::{AttachmentName, CacheName, PathInfo, StorePathHash};
use crate::wire::blob;
use crate::wire::hello::{Hello, Welcome};
use crate::wire::pairing::{Pair, Paired};
use crate::wire::refusal::Refusal;

/// BLAKE3 of a chunk's raw bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChunkId(pub [u8; 32]);

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One chunk of a NAR, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkRef {
    /// What it is.
    pub id: ChunkId,
    /// Its size before compression, in bytes; 1 to `CHUNK_BYTES_MAX`.
    pub raw_len: u32,
}

/// What became of a pushed path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushOutcome {
    /// Stored and visible.
    Stored,
    /// It was there already, the same.
    Known,
    /// Stored but hidden until these references are there.
    Hidden {
        /// Base names of the references that are not visible in the cache.
        missing: Vec<String>,
    },
    /// Another NarHash is visible under that name; the first was kept.
    KeptFirst,
}

/// An administrative request, the same as over HTTP: `GET /api/larder/v1/…`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// JSON, or empty.
    pub body: Vec<u8>,
}

/// The answer to an [`AdminRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminResponse {
    /// The HTTP status.
    pub status: u16,
    /// JSON, or empty.
    pub body: Vec<u8>,
}

/// The facts of a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The path, with all signatures that came with it.
    pub info: PathInfo,
    /// By the client's device key, over the fingerprint; 64 bytes.
    pub device_signature: Vec<u8>,
}

/// A chunk that travels inside the offer of a small NAR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineChunk {
    /// What it is.
    pub chunk: ChunkRef,
    /// Its zstd frame.
    #[serde(with = "blob")]
    pub frame: Bytes,
}

/// What a client says to a box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientMessage {
    /// 0: first on the control stream.
    Hello(Hello),
    /// 1: which of these does the cache lack?
    Missing {
        /// The cache that is asked about.
        cache: CacheName,
        /// At most `MISSING_HASHES_MAX`.
        hashes: Vec<StorePathHash>,
    },
    /// 2: opens a push.
    Offer {
        /// Where it goes.
        cache: CacheName,
        /// What it is.
        offer: Offer,
        /// The whole NAR, if it is small; empty if its chunks follow in batches.
        inline: Vec<InlineChunk>,
    },
    /// 3: the next chunks of the NAR, in order.
    Batch {
        /// Counts from 0.
        number: u32,
        /// 1 to `BATCH_CHUNKS_MAX`, at most `BATCH_BYTES_MAX` raw bytes.
        chunks: Vec<ChunkRef>,
    },
    /// 4: one chunk that the box asked for.
    Chunk {
        /// The batch it is in.
        batch: u32,
        /// Its place there.
        index: u32,
        /// Its zstd frame.
        #[serde(with = "blob")]
        frame: Bytes,
    },
    /// 5: there are no more batches.
    Finish,
    /// 6: the client cannot go on; the box keeps what it took for a later push.
    Abort {
        /// Why, for the box's log.
        reason: String,
    },
    /// 7: a request to the administration of the box.
    Admin(AdminRequest),
    /// 8: first on the control stream, in the place of Hello: a code for a token.
    Pair(Pair),
    /// 9: a build log or a realisation; where both sides have the capability.
    Attach {
        /// Where it goes.
        cache: CacheName,
        /// What it is.
        name: AttachmentName,
        /// Its contents as one zstd frame, at most `ATTACHMENT_FRAME_BYTES_MAX`.
        #[serde(with = "blob")]
        frame: Bytes,
    },
}

/// What a box says to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BoxMessage {
    /// 0: ends the conversation on this stream.
    Refused(Refusal),
    /// 1: answers Hello.
    Welcome(Welcome),
    /// 2: answers Missing.
    Missing {
        /// Places in the question of the hashes that the cache lacks, ascending.
        indexes: Vec<u32>,
    },
    /// 3: chunks of a batch that the box wants, ascending; may come again for a batch.
    Need {
        /// The batch.
        batch: u32,
        /// Places in it.
        indexes: Vec<u32>,
    },
    /// 4: the batch is in; its bytes will not be asked for again.
    Taken {
        /// The batch.
        batch: u32,
    },
    /// 5: the push is durable and this became of it.
    Done(PushOutcome),
    /// 6: answers Admin.
    Admin(AdminResponse),
    /// 7: answers Pair.
    Paired(Paired),
    /// 8: answers Attach: it is durable.
    Attached {
        /// Whether there was none of that name; else the first was kept.
        is_new: bool,
    },
}

/// A set of messages that one side may send.
pub trait Message: Serialize + DeserializeOwned {
    /// How many numbers are in use, from 0.
    const NUMBERS: u32;

    /// The message's name in PROTOCOL.md.
    fn name(&self) -> &'static str;

    /// Whether the message with that number begins with the versions that its sender speaks, in
    /// every version alike.
    #[must_use]
    fn greets(number: u32) -> bool;

    /// Whether bytes behind the last field are a later version's, and passed over.
    #[must_use]
    fn may_grow(&self) -> bool;
}

impl Message for ClientMessage {
    const NUMBERS: u32 = 10;

    fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Missing { .. } => "Missing",
            Self::Offer { .. } => "Offer",
            Self::Batch { .. } => "Batch",
            Self::Chunk { .. } => "Chunk",
            Self::Finish => "Finish",
            Self::Abort { .. } => "Abort",
            Self::Admin(_) => "Admin",
            Self::Pair(_) => "Pair",
            Self::Attach { .. } => "Attach",
        }
    }

    fn greets(number: u32) -> bool {
        matches!(number, 0 | 8)
    }

    fn may_grow(&self) -> bool {
        matches!(self, Self::Hello(_))
    }
}

impl Message for BoxMessage {
    const NUMBERS: u32 = 9;

    fn name(&self) -> &'static str {
        match self {
            Self::Refused(_) => "Refused",
            Self::Welcome(_) => "Welcome",
            Self::Missing { .. } => "Missing",
            Self::Need { .. } => "Need",
            Self::Taken { .. } => "Taken",
            Self::Done(_) => "Done",
            Self::Admin(_) => "Admin",
            Self::Paired(_) => "Paired",
            Self::Attached { .. } => "Attached",
        }
    }

    fn greets(_number: u32) -> bool {
        false
    }

    fn may_grow(&self) -> bool {
        matches!(self, Self::Welcome(_))
    }
}
