//! The two fixed headers of a pack: of the file, and of each record in it. FORMAT.md draws them.

use std::fmt;

use twox_hash::XxHash3_64;

use crate::formats::limits;

/// Bytes of a pack's own header.
pub(in crate::store) const PACK_HEADER_LEN: u64 = 32;
/// Bytes of a record's header.
pub(in crate::store) const RECORD_HEADER_LEN: usize = 64;
/// The same, as an offset.
pub(in crate::store) const RECORD_HEADER_BYTES: u64 = 64;

const PACK_MAGIC: &[u8; 8] = b"LARDPACK";
const PACK_VERSION: u32 = 2;
pub(in crate::store) const RECORD_MAGIC: &[u8; 4] = b"LdRc";
const HEADER_KEY_CONTEXT: &str = "larder 2026 header of a record";

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Kind {
    /// A chunk's zstd frame.
    Chunk,
    /// The ordered chunks of a NAR.
    Manifest,
    /// The listing of a NAR.
    Listing,
    /// The settings of a cache.
    Cache,
    /// A path in a cache.
    Path,
    /// Signatures that a path got later.
    Signatures,
    /// What went away.
    Delete,
    /// A build log or a realisation.
    Attachment,
    /// A revision of a pin, or the end of some.
    Pin,
}

impl Kind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Chunk => 1,
            Self::Manifest => 2,
            Self::Listing => 3,
            Self::Cache => 4,
            Self::Path => 5,
            Self::Signatures => 6,
            Self::Delete => 7,
            Self::Attachment => 8,
            Self::Pin => 9,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Chunk,
            2 => Self::Manifest,
            3 => Self::Listing,
            4 => Self::Cache,
            5 => Self::Path,
            6 => Self::Signatures,
            7 => Self::Delete,
            8 => Self::Attachment,
            9 => Self::Pin,
            _ => return None,
        })
    }

    /// Most bytes that a record of this kind stores; held whole while it is read.
    pub(in crate::store) fn stored_len_max(self) -> usize {
        match self {
            Self::Chunk => limits::FRAME_BYTES_MAX,
            // 1.6 million chunks: a NAR of 100 GB.
            Self::Manifest | Self::Listing => 64 << 20,
            // References and signatures at their bounds are 4 MiB.
            Self::Cache | Self::Path | Self::Signatures | Self::Delete => 8 << 20,
            // A frame of one message, and its name.
            Self::Attachment => 2 << 20,
            Self::Pin => 64 << 10,
        }
    }
}

/// What the header of a record is sealed with: made from the store's UUID, which no client is ever
/// told. So nobody can send bytes that pass for a record where they come to lie.
#[derive(Clone, Copy)]
pub(in crate::store) struct HeaderKey([u8; blake3::KEY_LEN]);

impl HeaderKey {
    /// The key of the store with this UUID.
    pub(in crate::store) fn of(store: [u8; 16]) -> Self {
        Self(blake3::derive_key(HEADER_KEY_CONTEXT, &store))
    }
}

impl fmt::Debug for HeaderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderKey")
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct RecordHeader {
    pub(in crate::store) kind: Kind,
    pub(in crate::store) stored_len: u32,
    pub(in crate::store) raw_len: u32,
    pub(in crate::store) id: [u8; 32],
    pub(in crate::store) payload_sum: u64,
}

impl RecordHeader {
    /// The header as it stands at `offset` of pack `pack` of the store with that key.
    pub(in crate::store) fn to_bytes(
        self,
        key: &HeaderKey,
        pack: u32,
        offset: u64,
    ) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[..4].copy_from_slice(RECORD_MAGIC);
        bytes[4] = self.kind.to_byte();
        bytes[8..12].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[16..48].copy_from_slice(&self.id);
        bytes[48..56].copy_from_slice(&self.payload_sum.to_le_bytes());
        let seal = header_seal(&bytes[..56], key, pack, offset);
        bytes[56..].copy_from_slice(&seal);
        bytes
    }

    /// Reads a header that stands at `offset` of pack `pack`; `None` if it is none, or belongs
    /// to another place or store, or is larger than its kind may be.
    pub(in crate::store) fn from_bytes(
        bytes: &[u8; RECORD_HEADER_LEN],
        key: &HeaderKey,
        pack: u32,
        offset: u64,
    ) -> Option<Self> {
        let (body, seal) = bytes.split_at(56);
        if &body[..4] != RECORD_MAGIC || body[5..8] != [0; 3] {
            return None;
        }
        if seal != header_seal(body, key, pack, offset) {
            return None;
        }
        let kind = Kind::from_byte(body[4])?;
        let stored_len = u32::from_le_bytes(body[8..12].try_into().ok()?);
        if usize::try_from(stored_len).ok()? > kind.stored_len_max() {
            return None;
        }
        Some(Self {
            kind,
            stored_len,
            raw_len: u32::from_le_bytes(body[12..16].try_into().ok()?),
            id: body[16..48].try_into().ok()?,
            payload_sum: u64::from_le_bytes(body[48..56].try_into().ok()?),
        })
    }
}

/// The checksum of stored bytes.
pub(in crate::store) fn payload_sum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// Of the place too, so that a record that was moved does not pass. BLAKE3 rather than a seeded
/// checksum, because what a stranger chose the bytes of is searched for headers after damage.
fn header_seal(bytes: &[u8], key: &HeaderKey, pack: u32, offset: u64) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(&pack.to_le_bytes()).update(&offset.to_le_bytes()).update(bytes);
    let mut seal = [0; 8];
    hasher.finalize_xof().fill(&mut seal);
    seal
}

/// The header of a pack file.
pub(in crate::store) fn pack_header(pack: u32, store: [u8; 16]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(PACK_MAGIC);
    bytes[8..12].copy_from_slice(&PACK_VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&pack.to_le_bytes());
    bytes[16..].copy_from_slice(&store);
    bytes
}

/// The UUID of the store in the header of pack `pack`; `None` if it is no such header.
pub(in crate::store) fn store_of_header(bytes: &[u8; 32], pack: u32) -> Option<[u8; 16]> {
    let store = bytes[16..].try_into().ok()?;
    (*bytes == pack_header(pack, store)).then_some(store)
}
