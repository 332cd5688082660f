//! From the packs to the index: what lies behind the index's position is applied record by
//! record. A start does it with the tails, a rebuild with everything.
//!
//! Applying a record that the index has already changes nothing, so the position may lag behind.
//! A chunk that no manifest refers to is in no cache, and nobody is told of it. A manifest whose chunk was damaged
//! keeps its place with the chunk recorded as damaged, so that a push heals it. A path of a
//! cache that no record tells of goes to a cache of its own, private and detached.

use data_encoding::HEXLOWER;
use rusqlite::Connection;

use crate::formats::{CacheName, StorePathHash};
use crate::store::check::CheckReport;
use crate::store::error::StoreError;
use crate::store::heal;
use crate::store::index::caches::{CacheId, NewCache, SigningMode};
use crate::store::index::chunks::{ChunkIndex, ChunkRow};
use crate::store::index::nars::NewNar;
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::paths::{NewPath, Pusher};
use crate::store::index::pins::Pin;
use crate::store::index::tokens::TokenId;
use crate::store::index::{
    attachments, cache_chunks, caches, damage, meta, nars, numbers, paths, pins, visibility,
};
use crate::store::pack::record::{RECORD_HEADER_BYTES, RecordHeader};
use crate::store::pack::scan::Found;
use crate::store::pack::{Kind, Location, Position, payload};
use crate::wire::message::ChunkId;

/// Where a chunk is that no pack has in sound form; there is no pack 0.
const NOWHERE: Location = Location { pack: 0, offset: 0, stored_len: 0 };

/// Records that are applied in one transaction.
const RECORDS_AT_A_TIME: u64 = 4096;

/// A replay under way: takes what a scan meets, commits now and then.
#[derive(Debug)]
pub(in crate::store) struct Replay<'a> {
    connection: &'a Connection,
    index: &'a ChunkIndex,
    next_number: ChunkNumber,
    report: CheckReport,
}

impl<'a> Replay<'a> {
    /// Begins the first transaction on `connection`, which nobody else uses meanwhile.
    pub(in crate::store) fn begin(
        connection: &'a mut Connection,
        index: &'a ChunkIndex,
        next_number: ChunkNumber,
    ) -> Result<Self, StoreError> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        Ok(Self { connection, index, next_number, report: CheckReport::default() })
    }

    /// Applies what a scan of `pack` met.
    pub(in crate::store) fn take(
        &mut self,
        pack: u32,
        found: &Found<'_>,
    ) -> Result<(), StoreError> {
        match found {
            Found::Record { header, location, payload } => {
                self.report.records += 1;
                self.report.bytes += RECORD_HEADER_BYTES + u64::from(header.stored_len);
                self.apply(header, *location, payload)?;
            }
            Found::Damaged { start, end } => {
                let place = format!("bytes {start} to {end} of pack {pack} are damaged");
                self.report.damaged.push(place);
            }
        }
        if self.report.records.is_multiple_of(RECORDS_AT_A_TIME) {
            meta::set_position(self.connection, Position { pack, offset: found.end() })?;
            self.connection.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
        }
        Ok(())
    }

    /// Notes a loss, for people.
    pub(in crate::store) fn lost(&mut self, sentence: String) {
        self.report.damaged.push(sentence);
    }

    /// Ends at the end of the packs.
    pub(in crate::store) fn end(self, end: Position) -> Result<CheckReport, StoreError> {
        meta::set_position(self.connection, end)?;
        self.connection.execute_batch("COMMIT")?;
        Ok(self.report)
    }

    fn apply(
        &mut self,
        header: &RecordHeader,
        at: Location,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        match header.kind {
            Kind::Chunk => return self.chunk(header, at),
            Kind::Manifest => match payload::decode::<payload::Manifest>(bytes) {
                Ok(manifest) => return self.manifest(&manifest),
                Err(_payload) => {}
            },
            Kind::Listing => match payload::decode::<payload::Listing>(bytes) {
                Ok(listing) => return self.listing(&listing, at),
                Err(_payload) => {}
            },
            Kind::Cache => match payload::decode::<payload::Cache>(bytes) {
                Ok(cache) => return self.cache(cache),
                Err(_payload) => {}
            },
            Kind::Path => match payload::decode::<payload::Path>(bytes) {
                Ok(path) => return self.path(path),
                Err(_payload) => {}
            },
            Kind::Signatures => match payload::decode::<payload::Signatures>(bytes) {
                Ok(signatures) => return self.signatures(&signatures),
                Err(_payload) => {}
            },
            Kind::Attachment => match payload::decode::<payload::Attachment>(bytes) {
                Ok(attachment) => return self.attachment(&attachment, at),
                Err(_payload) => {}
            },
            Kind::Pin => match payload::decode::<payload::Pin>(bytes) {
                Ok(pin) => return self.pin(pin),
                Err(_payload) => {}
            },
            Kind::Delete => match payload::decode::<payload::Delete>(bytes) {
                Ok(delete) => return self.delete(&delete),
                Err(_payload) => {}
            },
        }
        let Location { pack, offset, .. } = at;
        self.report
            .damaged
            .push(format!("the record at byte {offset} of pack {pack} cannot be understood"));
        Ok(())
    }

    fn chunk(&mut self, header: &RecordHeader, location: Location) -> Result<(), StoreError> {
        let id = ChunkId(header.id);
        let known = self.index.look_up(self.connection, &[id])?.pop().flatten();
        let damaged = match known {
            Some(row) if damage::is_recorded(self.connection, row.number)? => Some(row),
            Some(_sound) => return Ok(()),
            None => None,
        };
        let row = ChunkRow {
            number: self.number(),
            id,
            location,
            raw_len: header.raw_len,
            sum: header.payload_sum,
        };
        self.index.insert(self.connection, std::slice::from_ref(&row))?;
        match damaged {
            Some(damaged) => heal::replace_in_index(self.connection, self.index, &damaged, &row),
            None => Ok(()),
        }
    }

    fn number(&mut self) -> ChunkNumber {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    fn manifest(&mut self, manifest: &payload::Manifest) -> Result<(), StoreError> {
        let known = nars::by_hash(self.connection, manifest.nar_hash)?;
        if known.as_ref().is_some_and(|nar| nar.revision >= manifest.revision) {
            return Ok(());
        }
        let chunk_numbers = self.numbers_of(manifest)?;
        let new = NewNar {
            nar_hash: manifest.nar_hash,
            nar_size: manifest.nar_size,
            revision: manifest.revision,
            file_hash: manifest.file_hash,
            file_size: manifest.file_size,
            chunks: numbers::encode(chunk_numbers.iter().copied()),
        };
        let id = match known {
            Some(nar) => {
                nars::update(self.connection, nar.id, &new)?;
                nar.id
            }
            None => nars::insert(self.connection, &new)?,
        };
        cache_chunks::add_nar(self.connection, id)?;
        nars::set_damaged(self.connection, id, damage::touches(self.connection, new.chunks)?)
    }

    fn numbers_of(&mut self, manifest: &payload::Manifest) -> Result<Vec<ChunkNumber>, StoreError> {
        let mut numbers = Vec::with_capacity(manifest.chunks.len());
        let mut gone = 0_u64;
        for chunk in &manifest.chunks {
            // One at a time: a chunk that is gone may be met again in the same manifest.
            let id = ChunkId(chunk.id);
            match self.index.look_up(self.connection, &[id])?.pop().flatten() {
                Some(row) => numbers.push(row.number),
                None => {
                    gone += 1;
                    let location = Location { stored_len: chunk.stored_len, ..NOWHERE };
                    let number = self.number();
                    let row = ChunkRow { number, id, location, raw_len: chunk.raw_len, sum: 0 };
                    self.index.insert(self.connection, std::slice::from_ref(&row))?;
                    damage::record(self.connection, &[number])?;
                    numbers.push(number);
                }
            }
        }
        if gone > 0 {
            self.report
                .damaged
                .push(format!("{gone} chunks of the NAR {} are lost", manifest.nar_hash));
        }
        Ok(numbers)
    }

    fn listing(&mut self, listing: &payload::Listing, at: Location) -> Result<(), StoreError> {
        match nars::by_hash(self.connection, listing.nar_hash)? {
            Some(nar) => nars::set_listing(self.connection, nar.id, at),
            None => Ok(()),
        }
    }

    fn cache(&mut self, record: payload::Cache) -> Result<(), StoreError> {
        let uuid = record.uuid;
        let signing =
            if record.self_signed { SigningMode::SelfSigned } else { SigningMode::Managed };
        let mut new = NewCache {
            name: record.name,
            is_public: record.is_public,
            signing,
            priority: record.priority,
            root_position: record.root_position,
            description: record.description,
            key: None,
            public_keys: Vec::new(),
            created_at: record.created_at,
        };
        let taken =
            caches::all(self.connection)?.into_iter().any(|c| c.name == new.name && c.uuid != uuid);
        if taken {
            new.name = recovered_name(uuid)?;
            new.root_position = None;
        }
        match caches::by_uuid(self.connection, uuid)? {
            Some(id) => caches::update(self.connection, id, &new),
            None => caches::insert(self.connection, uuid, &new).map(drop),
        }
    }

    /// The cache of that identity; one that nothing is known of comes back private and detached.
    fn cache_of(&mut self, uuid: [u8; 16]) -> Result<CacheId, StoreError> {
        if let Some(id) = caches::by_uuid(self.connection, uuid)? {
            return Ok(id);
        }
        let new = NewCache {
            name: recovered_name(uuid)?,
            is_public: false,
            signing: SigningMode::Managed,
            priority: RECOVERED_PRIORITY,
            root_position: None,
            description: "recovered from packs; its settings are lost".to_owned(),
            key: None,
            public_keys: Vec::new(),
            created_at: 0,
        };
        self.report
            .damaged
            .push(format!("the settings of a cache are lost; it is now {}", new.name));
        caches::insert(self.connection, uuid, &new)
    }

    fn path(&mut self, record: payload::Path) -> Result<(), StoreError> {
        let Some(nar) = nars::by_hash(self.connection, record.info.nar_hash)? else {
            let path = record.info.store_path.base_name();
            self.report
                .damaged
                .push(format!("the path {path} is lost: the record of its NAR is damaged"));
            return Ok(());
        };
        let cache = self.cache_of(record.cache)?;
        let hash = record.info.store_path.hash();
        let Ok(device_signature) = record.device_signature.try_into() else {
            return Ok(());
        };
        let new = NewPath {
            cache,
            info: record.info,
            pusher: Pusher {
                token: TokenId::NOBODY,
                device_key: record.device_key,
                device_signature,
                at: record.pushed_at,
            },
        };
        if let Some(standing) = paths::standing(self.connection, cache, hash)?
            && (standing.visible || standing.is(&new))
        {
            return Ok(());
        }
        paths::put_hidden(self.connection, &new, nar.id)?;
        let chunks = cache_chunks::chunks_of(self.connection, nar.id)?;
        cache_chunks::add(self.connection, cache, &chunks)?;
        visibility::settle(self.connection, cache, &new.info).map(drop)
    }

    fn signatures(&mut self, record: &payload::Signatures) -> Result<(), StoreError> {
        let Some(cache) = caches::by_uuid(self.connection, record.cache)? else { return Ok(()) };
        let Some(standing) = paths::standing(self.connection, cache, record.path)? else {
            return Ok(());
        };
        let mut all = standing.signatures;
        for signature in &record.signatures {
            if !all.contains(signature) {
                all.push(signature.clone());
            }
        }
        paths::set_signatures(self.connection, cache, record.path, &all)
    }

    fn attachment(&mut self, record: &payload::Attachment, at: Location) -> Result<(), StoreError> {
        let cache = self.cache_of(record.cache)?;
        attachments::put(self.connection, cache, &record.name, at)
    }

    fn pin(&mut self, record: payload::Pin) -> Result<(), StoreError> {
        match record {
            payload::Pin::Made { cache, name, revision, path, artifacts, keep, pinned_at } => {
                let cache = self.cache_of(cache)?;
                let token = TokenId::NOBODY;
                let pin = Pin { name, revision, path, artifacts, keep, pinned_at, token };
                pins::put(self.connection, cache, &pin)
            }
            payload::Pin::Ended { cache, name, up_to } => {
                match caches::by_uuid(self.connection, cache)? {
                    Some(cache) => pins::end(self.connection, cache, &name, up_to).map(drop),
                    None => Ok(()),
                }
            }
        }
    }

    fn delete(&mut self, record: &payload::Delete) -> Result<(), StoreError> {
        match record {
            payload::Delete::Path { cache, path } => {
                match caches::by_uuid(self.connection, *cache)? {
                    Some(cache) => self.delete_path(cache, *path),
                    None => Ok(()),
                }
            }
            payload::Delete::Cache { uuid } => match caches::by_uuid(self.connection, *uuid)? {
                Some(cache) => caches::delete(self.connection, cache),
                None => Ok(()),
            },
        }
    }

    fn delete_path(&mut self, cache: CacheId, path: StorePathHash) -> Result<(), StoreError> {
        paths::delete(self.connection, cache, path)?;
        visibility::hide_referrers(self.connection, cache, path)
    }
}

/// What `nix-cache-info` says of a recovered cache: behind cache.nixos.org's 40.
const RECOVERED_PRIORITY: u32 = 50;

fn recovered_name(uuid: [u8; 16]) -> Result<CacheName, StoreError> {
    let text = format!("recovered-{}", HEXLOWER.encode(&uuid));
    text.get(..CACHE_NAME_CHARS)
        .and_then(|name| name.parse().ok())
        .ok_or(StoreError::BadRow("identity of a cache"))
}

/// `recovered-` and 24 digits of the UUID.
const CACHE_NAME_CHARS: usize = 34;
