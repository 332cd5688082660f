//! From the packs to the index: what lies behind the index's position is applied. A start does it
//! with the tails, a rebuild with everything.
//!
//! Records that were moved by a collection stand behind others that were told of later, so the
//! order of the packs is not the order in which things happened. What comes first is read first:
//! chunks and ends (of paths and caches) while the packs are read, and then, stage by stage,
//! caches, manifests, listings, paths, and what is added to paths. Within a stage the order of the
//! packs counts, for of two records about one thing that were not moved the later one is behind,
//! and one that was moved is the one that counts.
//!
//! Applying a record that the index has already changes nothing, and the position is moved when all
//! stages are through; so a replay that is cut off begins anew.
//! A chunk that no manifest refers to is in no cache, and nobody is told of it. A manifest whose chunk was damaged
//! keeps its place with the chunk recorded as damaged, so that a push heals it. A path of a
//! cache that no record tells of goes to a cache of its own, private and detached.

use std::collections::HashSet;

use data_encoding::HEXLOWER;
use rusqlite::Connection;

use crate::formats::signature::Signature;
use crate::formats::{CacheLimits, CacheName, StorePathHash};
use crate::store::check::CheckReport;
use crate::store::error::StoreError;
use crate::store::heal;
use crate::store::index::caches::{CacheId, NewCache, SigningMode};
use crate::store::index::chunks::{ChunkIndex, ChunkRow};
use crate::store::index::nars::{NarId, NewNar};
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::paths::{NewPath, Pusher, Standing};
use crate::store::index::pins::Pin;
use crate::store::index::tokens::TokenId;
use crate::store::index::{
    attachments, cache_chunks, caches, chunks, damage, meta, nars, numbers, paths, pins,
    replay_state, visibility,
};
use crate::store::pack::record::{RECORD_HEADER_BYTES, RecordHeader};
use crate::store::pack::scan::Found;
use crate::store::pack::{Kind, Location, PackError, PackReader, Position, Wanted, payload};
use crate::wire::message::ChunkId;

/// Where a chunk is that no pack has in sound form; there is no pack 0.
pub(in crate::store) const NOWHERE: Location = Location { pack: 0, offset: 0, stored_len: 0 };

/// Records that are applied in one transaction.
const RECORDS_AT_A_TIME: u64 = 4096;

/// Kinds in the order in which they are applied, after chunks and ends.
const STAGES: [Kind; 7] = [
    Kind::Cache,
    Kind::Manifest,
    Kind::Listing,
    Kind::Path,
    Kind::Signatures,
    Kind::Attachment,
    Kind::Pin,
];

/// A replay under way: takes what a scan meets, commits now and then.
#[derive(Debug)]
pub(in crate::store) struct Replay<'a> {
    connection: &'a Connection,
    index: &'a ChunkIndex,
    /// The packs that there are.
    packs: &'a [u32],
    /// Up to where the index knew the packs before.
    known: Position,
    next_number: ChunkNumber,
    applied: u64,
    ended_caches: HashSet<[u8; 16]>,
    /// NARs that this replay has entered or changed.
    nars: Vec<NarId>,
    /// Chunks that only manifests tell of.
    nowhere: Vec<ChunkNumber>,
    report: CheckReport,
}

impl<'a> Replay<'a> {
    /// Begins the first transaction on `connection`, which nobody else uses meanwhile. `packs` are
    /// those that there are, rising.
    pub(in crate::store) fn begin(
        connection: &'a mut Connection,
        index: &'a ChunkIndex,
        packs: &'a [u32],
        next_number: ChunkNumber,
    ) -> Result<Self, StoreError> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        replay_state::clear(connection)?;
        Ok(Self {
            known: meta::position(connection)?,
            connection,
            index,
            packs,
            next_number,
            applied: 0,
            ended_caches: HashSet::new(),
            nars: Vec::new(),
            nowhere: Vec::new(),
            report: CheckReport::default(),
        })
    }

    /// Takes what a scan of `pack` met; most of it waits for [`end`](Self::end).
    pub(in crate::store) fn take(
        &mut self,
        pack: u32,
        found: &Found<'_>,
    ) -> Result<(), StoreError> {
        match found {
            Found::Record { header, location, payload } => {
                self.report.records += 1;
                self.report.bytes += RECORD_HEADER_BYTES + u64::from(header.stored_len);
                self.take_record(header, *location, payload)?;
            }
            Found::Damaged { start, end } => {
                let place = format!("bytes {start} to {end} of pack {pack} are damaged");
                self.report.damaged.push(place);
            }
        }
        self.pause()
    }

    /// Notes a loss, for people.
    pub(in crate::store) fn lost(&mut self, sentence: String) {
        self.report.damaged.push(sentence);
    }

    /// Applies what waits, and ends at the end of the packs.
    pub(in crate::store) fn end(
        mut self,
        reader: &PackReader,
        end: Position,
    ) -> Result<CheckReport, StoreError> {
        for (stage, kind) in (0..).zip(STAGES) {
            let mut after = Position::default();
            loop {
                let records = replay_state::deferred(self.connection, stage, after)?;
                let Some(last) = records.last() else { break };
                after = last.place();
                for at in records {
                    match reader.read(Wanted { kind, location: at, id: None }) {
                        Ok(bytes) => self.apply(kind, at, &bytes)?,
                        Err(PackError::Damaged { .. }) => self.cannot_be_understood(at),
                        // The scan has read it a moment ago. A path is not given up because of it.
                        Err(error) => return Err(error.into()),
                    }
                    self.pause()?;
                }
            }
        }
        self.settle_nars()?;
        replay_state::clear(self.connection)?;
        meta::set_position(self.connection, end)?;
        self.connection.execute_batch("COMMIT")?;
        Ok(self.report)
    }

    /// Commits now and then, so that the index's log stays short.
    fn pause(&mut self) -> Result<(), StoreError> {
        self.applied += 1;
        if self.applied.is_multiple_of(RECORDS_AT_A_TIME) {
            self.connection.execute_batch("COMMIT; BEGIN IMMEDIATE")?;
        }
        Ok(())
    }

    fn take_record(
        &mut self,
        header: &RecordHeader,
        at: Location,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        match header.kind {
            Kind::Chunk => return self.chunk(header, at),
            Kind::Delete => {
                match payload::decode::<payload::Delete>(bytes) {
                    Ok(delete) => self.delete(&delete, at.place())?,
                    Err(_payload) => self.cannot_be_understood(at),
                }
                return Ok(());
            }
            Kind::Path => {
                if let Ok((path, true)) = payload::decode_path(bytes) {
                    let (cache, hash) = (path.cache, path.info.store_path.hash());
                    replay_state::end_path(self.connection, cache, hash, at.place())?;
                }
            }
            _ => {}
        }
        match (0..).zip(STAGES).find(|(_stage, kind)| *kind == header.kind) {
            Some((stage, _kind)) => replay_state::defer(self.connection, stage, at),
            None => Ok(()),
        }
    }

    fn apply(&mut self, kind: Kind, at: Location, bytes: &[u8]) -> Result<(), StoreError> {
        let understood = match kind {
            Kind::Manifest => {
                payload::decode_manifest(bytes).map(|(it, sums)| self.manifest(&it, sums, at))
            }
            Kind::Listing => payload::decode(bytes).map(|it| self.listing(&it, at)),
            Kind::Cache => payload::decode_cache(bytes).map(|(it, limits)| self.cache(it, limits)),
            Kind::Path => payload::decode_path(bytes).map(|(it, _alone)| self.path(it, at)),
            Kind::Signatures => payload::decode(bytes).map(|it| self.signatures(&it, at)),
            Kind::Attachment => payload::decode(bytes).map(|it| self.attachment(&it, at)),
            Kind::Pin => payload::decode(bytes).map(|it| self.pin(it)),
            Kind::Chunk | Kind::Delete => Ok(Ok(())),
        };
        understood.unwrap_or_else(|_payload| {
            self.cannot_be_understood(at);
            Ok(())
        })
    }

    fn cannot_be_understood(&mut self, at: Location) {
        let Location { pack, offset, .. } = at;
        self.lost(format!("the record at byte {offset} of pack {pack} cannot be understood"));
    }

    fn chunk(&mut self, header: &RecordHeader, location: Location) -> Result<(), StoreError> {
        let id = ChunkId(header.id);
        let known = self.index.look_up(self.connection, &[id])?.pop().flatten();
        let damaged = match known {
            Some(row) if damage::is_recorded(self.connection, row.number)? => Some(row),
            // Moved, and the pack that it was in went away.
            Some(row) if self.packs.binary_search(&row.location.pack).is_err() => {
                if (row.sum, row.location.stored_len) == (header.payload_sum, header.stored_len) {
                    return chunks::relocate(self.connection, row.number, location);
                }
                Some(row)
            }
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

    fn manifest(
        &mut self,
        manifest: &payload::Manifest,
        has_sums: bool,
        at: Location,
    ) -> Result<(), StoreError> {
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
        self.nars.push(id);
        // A frame that took the place of a damaged one, which nothing else tells of any more.
        let mut stale = false;
        for (chunk, row) in
            manifest.chunks.iter().zip(chunks::rows(self.connection, &chunk_numbers)?)
        {
            stale |= row.is_some_and(|row| {
                let is_another = if has_sums {
                    row.sum.to_le_bytes() != chunk.sum
                } else {
                    row.location.place() > at.place()
                };
                row.location.pack != NOWHERE.pack && is_another
            });
        }
        if stale {
            nars::replace_chunks(self.connection, id, &new.chunks, true)?;
        }
        cache_chunks::add_nar(self.connection, id)?;
        nars::set_damaged(self.connection, id, damage::touches(self.connection, new.chunks)?)
    }

    fn numbers_of(&mut self, manifest: &payload::Manifest) -> Result<Vec<ChunkNumber>, StoreError> {
        let mut numbers = Vec::with_capacity(manifest.chunks.len());
        for chunk in &manifest.chunks {
            // One at a time: a chunk that is gone may be met again in the same manifest.
            let id = ChunkId(chunk.id);
            match self.index.look_up(self.connection, &[id])?.pop().flatten() {
                Some(row) => numbers.push(row.number),
                None => {
                    let location = Location { stored_len: chunk.stored_len, ..NOWHERE };
                    let number = self.number();
                    let row = ChunkRow { number, id, location, raw_len: chunk.raw_len, sum: 0 };
                    self.index.insert(self.connection, std::slice::from_ref(&row))?;
                    damage::record(self.connection, &[number])?;
                    self.nowhere.push(number);
                    numbers.push(number);
                }
            }
        }
        Ok(numbers)
    }

    /// Takes out NARs that no path has: they had gone, and their manifests had not yet. Of the
    /// others it is told what they lack.
    fn settle_nars(&mut self) -> Result<(), StoreError> {
        let mut lacking = HashSet::new();
        for id in std::mem::take(&mut self.nars) {
            if !nars::has_path(self.connection, id)? {
                nars::delete(self.connection, id)?;
                continue;
            }
            let chunks = cache_chunks::chunks_of(self.connection, id)?;
            let gone: HashSet<_> =
                chunks.into_iter().filter(|it| self.nowhere.binary_search(it).is_ok()).collect();
            if let (false, Some(nar)) = (gone.is_empty(), nars::by_id(self.connection, id)?) {
                self.lost(format!("{} chunks of the NAR {} are lost", gone.len(), nar.nar_hash));
            }
            lacking.extend(gone);
        }
        for number in std::mem::take(&mut self.nowhere) {
            if !lacking.contains(&number) {
                damage::forget(self.connection, number)?;
                self.index.delete(self.connection, number)?;
            }
        }
        Ok(())
    }

    fn listing(&mut self, listing: &payload::Listing, at: Location) -> Result<(), StoreError> {
        match nars::by_hash(self.connection, listing.nar_hash)? {
            Some(nar) => nars::set_listing(self.connection, nar.id, at),
            None => Ok(()),
        }
    }

    fn cache(&mut self, record: payload::Cache, limits: CacheLimits) -> Result<(), StoreError> {
        let uuid = record.uuid;
        if self.ended_caches.contains(&uuid) {
            return Ok(());
        }
        let signing =
            if record.self_signed { SigningMode::SelfSigned } else { SigningMode::Managed };
        let mut new = NewCache {
            name: record.name,
            is_public: record.is_public,
            signing,
            priority: record.priority,
            root_position: record.root_position,
            description: record.description,
            limits,
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
            limits: CacheLimits::default(),
            key: None,
            public_keys: Vec::new(),
            created_at: 0,
        };
        self.report
            .damaged
            .push(format!("the settings of a cache are lost; it is now {}", new.name));
        caches::insert(self.connection, uuid, &new)
    }

    /// Whether a record about a path of a cache still counts.
    fn counts(
        &self,
        cache: [u8; 16],
        path: StorePathHash,
        at: Location,
    ) -> Result<bool, StoreError> {
        Ok(!self.ended_caches.contains(&cache)
            && replay_state::counts(self.connection, cache, path, at.place())?)
    }

    fn path(&mut self, record: payload::Path, at: Location) -> Result<(), StoreError> {
        if !self.counts(record.cache, record.info.store_path.hash(), at)? {
            return Ok(());
        }
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
        if let Some(standing) = paths::standing(self.connection, cache, hash)? {
            if standing.is(&new) {
                return self.add_signatures(cache, hash, standing, &new.info.signatures);
            }
            if standing.visible {
                return Ok(());
            }
        }
        // In the order in which they came; what was read since then nobody knows.
        let used = meta::uses(self.connection)? + 1;
        meta::set_uses(self.connection, used)?;
        paths::put_hidden(self.connection, &new, nar.id, used)?;
        let chunks = cache_chunks::chunks_of(self.connection, nar.id)?;
        cache_chunks::add(self.connection, cache, &chunks)?;
        visibility::settle(self.connection, cache, &new.info).map(drop)
    }

    fn signatures(&mut self, record: &payload::Signatures, at: Location) -> Result<(), StoreError> {
        if !self.counts(record.cache, record.path, at)? {
            return Ok(());
        }
        let Some(cache) = caches::by_uuid(self.connection, record.cache)? else { return Ok(()) };
        match paths::standing(self.connection, cache, record.path)? {
            Some(standing) => self.add_signatures(cache, record.path, standing, &record.signatures),
            None => Ok(()),
        }
    }

    fn add_signatures(
        &self,
        cache: CacheId,
        path: StorePathHash,
        standing: Standing,
        signatures: &[Signature],
    ) -> Result<(), StoreError> {
        let mut all = standing.signatures;
        let before = all.len();
        for signature in signatures {
            if !all.contains(signature) {
                all.push(signature.clone());
            }
        }
        if all.len() == before {
            return Ok(());
        }
        paths::set_signatures(self.connection, cache, path, &all)
    }

    fn attachment(&mut self, record: &payload::Attachment, at: Location) -> Result<(), StoreError> {
        if self.ended_caches.contains(&record.cache) {
            return Ok(());
        }
        let cache = self.cache_of(record.cache)?;
        attachments::put(self.connection, cache, &record.name, at)
    }

    fn pin(&mut self, record: payload::Pin) -> Result<(), StoreError> {
        match record {
            payload::Pin::Made { cache, .. } | payload::Pin::Ended { cache, .. }
                if self.ended_caches.contains(&cache) =>
            {
                Ok(())
            }
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

    fn delete(&mut self, record: &payload::Delete, at: Position) -> Result<(), StoreError> {
        let (uuid, path, end) = match record {
            payload::Delete::Cache { uuid } => {
                self.ended_caches.insert(*uuid);
                return match caches::by_uuid(self.connection, *uuid)? {
                    Some(cache) => caches::delete(self.connection, cache),
                    None => Ok(()),
                };
            }
            payload::Delete::Path { cache, path } => (*cache, *path, at),
            payload::Delete::MovedPath { cache, path, pack, offset } => {
                (*cache, *path, Position { pack: *pack, offset: *offset })
            }
        };
        replay_state::end_path(self.connection, uuid, path, end)?;
        // What the index knew was before that, unless it knew of this end already.
        match caches::by_uuid(self.connection, uuid)? {
            Some(cache) if end >= self.known => self.delete_path(cache, path),
            _ => Ok(()),
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
