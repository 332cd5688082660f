//! What is learnt of a NAR while it streams by, and its listing in a pack.

use bytes::Bytes;

use crate::formats::Sha256Hash;
use crate::formats::hash::Sha256Hasher;
use crate::formats::nar::{ListingBuilder, NarParser};
use crate::store::error::{IngestError, StoreError};
use crate::store::pack::payload;
use crate::store::pack::{Kind, Location, PackReader, Wanted};

/// Hash, structure and listing of a NAR, from its bytes as they come.
#[derive(Debug)]
pub(in crate::store) struct NarCheck {
    hasher: Sha256Hasher,
    parser: NarParser,
    listing: ListingBuilder,
}

impl NarCheck {
    pub(in crate::store) fn new() -> Self {
        Self {
            hasher: Sha256Hasher::new(),
            parser: NarParser::new(),
            listing: ListingBuilder::new(),
        }
    }

    /// Takes the next bytes of the NAR.
    pub(in crate::store) fn feed(&mut self, bytes: &[u8]) -> Result<(), IngestError> {
        self.hasher.update(bytes);
        self.parser.feed(bytes, &mut |event| self.listing.note(event))?;
        Ok(())
    }

    /// The NAR's hash, and the JSON of its listing unless it has too many entries.
    pub(in crate::store) fn finish(self) -> Result<(Sha256Hash, Option<String>), IngestError> {
        self.parser.finish()?;
        Ok((self.hasher.finish(), self.listing.finish()))
    }
}

/// A listing as it goes into a pack.
#[derive(Debug)]
pub(in crate::store) struct StoredListing {
    /// Bytes of the JSON.
    pub(in crate::store) json_len: u32,
    /// The JSON as one zstd frame.
    pub(in crate::store) json_zstd: Vec<u8>,
}

impl StoredListing {
    pub(in crate::store) fn compress(json: &str, level: i32) -> Result<Self, StoreError> {
        let json_len = u32::try_from(json.len()).map_err(|_width| StoreError::BadRow("listing"))?;
        let json_zstd = zstd::bulk::compress(json.as_bytes(), level).map_err(StoreError::Zstd)?;
        Ok(Self { json_len, json_zstd })
    }
}

/// Reads the JSON of the listing whose record is at `at`.
pub(in crate::store) fn read(packs: &PackReader, at: Location) -> Result<Bytes, StoreError> {
    let record = packs.read(Wanted { kind: Kind::Listing, location: at, id: None })?;
    let listing: payload::Listing = payload::decode(&record)?;
    let length =
        usize::try_from(listing.json_len).map_err(|_width| StoreError::BadRow("listing"))?;
    let json = zstd::bulk::decompress(&listing.json_zstd, length).map_err(StoreError::Zstd)?;
    Ok(json.into())
}
