//! How a verified NAR becomes a path of a cache: one job of the writer, all or nothing.
//!
//! In the job: what is there under the name decides first; then the NAR (stored once for each
//! NarHash), with every chunk checked again, also that the token may still name what it did not
//! send; then the path, hidden; then whatever becomes visible by it. Records go to the pack in that order too, so a replay meets them as they happened.

use std::borrow::Cow;

use rusqlite::{Connection, params};

use crate::formats::signature::Signature;
use crate::formats::{StorePathHash, limits};
use crate::store::error::StoreError;
use crate::store::group::Group;
use crate::store::index::caches::{Cache, CacheId, CacheUpdate, NewCache, SigningMode};
use crate::store::index::nars::{NarFile, NarId, NewNar};
use crate::store::index::numbers::runs;
use crate::store::index::paths::{NewPath, Standing};
use crate::store::index::sight::Sight;
use crate::store::index::{
    cache_chunks, caches, damage, meta, nars, numbers, paths, uploads, visibility,
};
use crate::store::ingest::FinishedNar;
use crate::store::pack::Kind;
use crate::store::pack::payload;
use crate::store::pack::payload::ManifestChunk;

/// The bytes of a path to be committed.
#[derive(Debug)]
pub enum NarSource {
    /// A NAR that is in the store.
    Known(NarId),
    /// One that was just taken in.
    Ingested(FinishedNar),
}

/// What became of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It is stored and visible.
    Stored {
        /// Hash parts of the paths that waited for it in the cache, and became visible with it.
        woken: Vec<StorePathHash>,
    },
    /// It was there already, the same; new signatures were added to it.
    Known,
    /// It is stored, and hidden until these references (base names) are visible too.
    Hidden {
        /// Base names of the references that are not visible in the cache.
        missing: Vec<String>,
    },
    /// Another NAR, or other references, are visible under that name; the first was kept.
    KeptFirst,
}

/// Commits a path.
pub(in crate::store) fn path(
    group: &Group<'_>,
    new: &NewPath,
    source: NarSource,
) -> Result<CommitOutcome, StoreError> {
    let uuid = caches::uuid(group.tx, new.cache)?;
    check_source(group.tx, new, &source)?;
    let hash = new.info.store_path.hash();
    let standing = paths::standing(group.tx, new.cache, hash)?;
    group.shared.barrier.note_path(new.cache, &new.info);
    // What waits under that name counts no longer, also where its record is met later.
    let alone = standing.is_some();
    let mut new = Cow::Borrowed(new);
    if let Some(hidden) = standing.as_ref().filter(|s| !s.visible && s.is(&new)) {
        keep_signatures(&mut new.to_mut().info.signatures, &hidden.signatures);
    }
    let new = &*new;
    if let Some(standing) = standing.filter(|s| s.visible) {
        if !standing.is(new) {
            return Ok(CommitOutcome::KeptFirst);
        }
        if let NarSource::Ingested(finished) = source {
            // Heals a damaged one that was cut in another way.
            nar_of(group, finished)?;
        }
        merge_signatures(group, new.cache, hash, &standing, &new.info.signatures)?;
        return Ok(CommitOutcome::Known);
    }
    let sight = Sight::of(group.tx, new.pusher.token, new.cache, new.pusher.at)?;
    let nar = match source {
        NarSource::Known(nar)
            if sight.has_nar(group.tx, nar)? && nars::is_sound(group.tx, nar)? =>
        {
            nar
        }
        NarSource::Known(_damaged_or_out_of_sight) => {
            return Err(StoreError::ChunksVanished { nar_hash: new.info.nar_hash, count: 1 });
        }
        NarSource::Ingested(finished) => {
            check_sight(group.tx, &sight, &finished)?;
            nar_of(group, finished)?
        }
    };
    let nar = nars::by_id(group.tx, nar)?.ok_or(StoreError::NoSuchNar(new.info.nar_hash))?;
    let used = group.shared.uses.next();
    meta::set_uses(group.tx, used)?;
    paths::put_hidden(group.tx, new, nar.id, used)?;
    let chunks = cache_chunks::chunks_of(group.tx, nar.id)?;
    group.shared.barrier.note_chunks(&chunks);
    cache_chunks::add(group.tx, new.cache, &chunks)?;
    if sight.reads_target() {
        uploads::attach(group.tx, new.pusher.token, &chunks)?;
    }
    let settled = visibility::settle(group.tx, new.cache, &new.info)?;
    group.shared.filter.add(group.tx, &settled.woken)?;
    let hidden = settled.woken.is_empty();
    append_path(group, &path_record(uuid, new, &nar, hidden), alone)?;
    let mut woken = settled.woken.into_iter();
    Ok(match woken.next() {
        Some(_itself) => CommitOutcome::Stored { woken: woken.collect() },
        None => CommitOutcome::Hidden { missing: settled.missing },
    })
}

impl Standing {
    /// Whether everything that is signed is the same.
    pub(in crate::store) fn is(&self, new: &NewPath) -> bool {
        self.nar_hash == new.info.nar_hash
            && self.base_name == new.info.store_path.base_name()
            && self.references == paths::join_references(&new.info.references)
    }
}

/// Adds to a visible or hidden path the signatures that it does not have; returns how many.
pub(in crate::store) fn signatures(
    group: &Group<'_>,
    cache: CacheId,
    hash: StorePathHash,
    signatures: &[Signature],
) -> Result<usize, StoreError> {
    match paths::standing(group.tx, cache, hash)? {
        Some(standing) => merge_signatures(group, cache, hash, &standing, signatures),
        None => Ok(0),
    }
}

/// Makes a cache. [`log_caches`] has to follow, in a later group: keys are in no pack, so a record
/// that a crash left without its row would come back as a cache that can sign nothing.
pub(in crate::store) fn cache(
    group: &Group<'_>,
    uuid: [u8; 16],
    new: &NewCache,
) -> Result<CacheId, StoreError> {
    let id = caches::insert(group.tx, uuid, new)?;
    meta::add_unlogged_cache(group.tx, uuid)?;
    Ok(id)
}

/// Appends the records of caches that have none yet.
pub(in crate::store) fn log_caches(group: &Group<'_>) -> Result<(), StoreError> {
    for uuid in meta::unlogged_caches(group.tx)? {
        if let Some(id) = caches::by_uuid(group.tx, uuid)? {
            append_cache(group, caches::get(group.tx, id)?)?;
        }
        meta::remove_unlogged_cache(group.tx, uuid)?;
    }
    Ok(())
}

/// Changes a cache. The record comes before the row: a crash in between leaves a change that
/// nobody was told of, and never a rebuilt index that has a cache public which was made private.
pub(in crate::store) fn change_cache(
    group: &Group<'_>,
    id: CacheId,
    update: &CacheUpdate,
) -> Result<Cache, StoreError> {
    caches::change(group.tx, id, update)?;
    let cache = caches::get(group.tx, id)?;
    append_cache(group, cache.clone())?;
    Ok(cache)
}

/// Deletes a cache with its paths. NARs and chunks stay until they are collected.
pub(in crate::store) fn delete_cache(group: &Group<'_>, id: CacheId) -> Result<(), StoreError> {
    let uuid = caches::uuid(group.tx, id)?;
    caches::delete(group.tx, id)?;
    meta::remove_unlogged_cache(group.tx, uuid)?;
    let record = payload::Delete::Cache { uuid };
    group.append(Kind::Delete, &payload::encode(&record)?)?;
    Ok(())
}

pub(in crate::store) fn append_cache(group: &Group<'_>, cache: Cache) -> Result<(), StoreError> {
    let limits = cache.limits;
    let record = payload::Cache {
        uuid: cache.uuid,
        name: cache.name,
        is_public: cache.is_public,
        self_signed: cache.signing == SigningMode::SelfSigned,
        priority: cache.priority,
        root_position: cache.root_position,
        description: cache.description,
        created_at: cache.created_at,
    };
    group.append(Kind::Cache, &payload::encode_cache(&record, limits)?)?;
    Ok(())
}

/// Appends the record of a NAR's chunks.
pub(in crate::store) fn append_manifest(
    group: &Group<'_>,
    nar: &NewNar,
    chunks: Vec<ManifestChunk>,
) -> Result<(), StoreError> {
    let record = payload::Manifest {
        nar_hash: nar.nar_hash,
        nar_size: nar.nar_size,
        revision: nar.revision,
        file_hash: nar.file_hash,
        file_size: nar.file_size,
        chunks,
    };
    group.append(Kind::Manifest, &payload::encode_manifest(&record)?)?;
    Ok(())
}

fn check_source(
    connection: &Connection,
    new: &NewPath,
    source: &NarSource,
) -> Result<(), StoreError> {
    let expected = new.info.nar_hash;
    let (found, size) = match source {
        NarSource::Known(nar) => {
            let vanished = StoreError::ChunksVanished { nar_hash: expected, count: 1 };
            let nar = nars::by_id(connection, *nar)?.ok_or(vanished)?;
            (nar.nar_hash, nar.nar_size)
        }
        NarSource::Ingested(finished) => (finished.nar_hash, finished.nar_size),
    };
    if found == expected && size == new.info.nar_size {
        Ok(())
    } else {
        Err(StoreError::OtherNar { expected, found })
    }
}

/// The NAR that was taken in; if the same one is here already, that one.
fn nar_of(group: &Group<'_>, finished: FinishedNar) -> Result<NarId, StoreError> {
    let known = nars::by_hash(group.tx, finished.nar_hash)?;
    if let Some(known) = &known
        && nars::is_sound(group.tx, known.id)?
    {
        return Ok(known.id);
    }
    check_chunks(group.tx, &finished)?;
    let new = NewNar {
        nar_hash: finished.nar_hash,
        nar_size: finished.nar_size,
        // A damaged one was cut in another way, or its chunks would have healed it.
        // A new one may have been here before, and its URL may be remembered: see `meta`.
        revision: match &known {
            Some(known) => known.revision + 1,
            None => meta::first_revision(group.tx)?,
        },
        file_hash: finished.file_hash,
        file_size: finished.file_size,
        chunks: numbers::encode(finished.numbers.iter().copied()),
    };
    let id = match known {
        Some(known) => {
            nars::update(group.tx, known.id, &new)?;
            nars::set_damaged(group.tx, known.id, false)?;
            cache_chunks::add_nar(group.tx, known.id)?;
            known.id
        }
        None => nars::insert(group.tx, &new)?,
    };
    append_manifest(group, &new, finished.chunks)?;
    if let Some(listing) = finished.listing {
        let record = payload::Listing {
            nar_hash: new.nar_hash,
            json_len: listing.json_len,
            json_zstd: listing.json_zstd,
        };
        nars::set_listing(group.tx, id, group.append(Kind::Listing, &payload::encode(&record)?)?)?;
    }
    Ok(id)
}

/// Checks that every chunk of the NAR is in the index and none is recorded as damaged: what was
/// promised to the ingest may have been lost since.
fn check_chunks(connection: &Connection, finished: &FinishedNar) -> Result<(), StoreError> {
    let mut count = 0;
    for run in runs(&finished.numbers) {
        let there: u64 = connection
            .prepare_cached("SELECT count(*) FROM chunks WHERE number >= ? AND number < ?")?
            .query_row(params![run.start, run.end], |row| row.get(0))?;
        count += (run.end - run.start).saturating_sub(there);
        count += damage::count_between(connection, run.start, run.end)?;
    }
    match count {
        0 => Ok(()),
        count => Err(StoreError::ChunksVanished { nar_hash: finished.nar_hash, count }),
    }
}

/// Checks that what the token did not send is still in its sight.
fn check_sight(
    connection: &Connection,
    sight: &Sight,
    finished: &FinishedNar,
) -> Result<(), StoreError> {
    let mut count = 0;
    for number in &finished.promised_numbers {
        count += u64::from(!sight.has_chunk(connection, *number)?);
    }
    match count {
        0 => Ok(()),
        count => Err(StoreError::ChunksVanished { nar_hash: finished.nar_hash, count }),
    }
}

fn merge_signatures(
    group: &Group<'_>,
    cache: CacheId,
    hash: StorePathHash,
    standing: &Standing,
    signatures: &[Signature],
) -> Result<usize, StoreError> {
    let mut all = standing.signatures.clone();
    for signature in signatures {
        if !all.contains(signature) && all.len() < limits::SIGNATURES_MAX {
            all.push(signature.clone());
        }
    }
    let added = all.split_off(standing.signatures.len());
    if added.is_empty() {
        return Ok(0);
    }
    let count = added.len();
    let record = payload::Signatures {
        cache: caches::uuid(group.tx, cache)?,
        path: hash,
        signatures: added.clone(),
    };
    let all: Vec<_> = standing.signatures.iter().cloned().chain(added).collect();
    paths::set_signatures(group.tx, cache, hash, &all)?;
    group.append(Kind::Signatures, &payload::encode(&record)?)?;
    Ok(count)
}

/// A path that waits loses no signature when it is pushed again.
fn keep_signatures(signatures: &mut Vec<Signature>, earlier: &[Signature]) {
    for signature in earlier {
        if !signatures.contains(signature) && signatures.len() < limits::SIGNATURES_MAX {
            signatures.push(signature.clone());
        }
    }
}

/// Appends the record of a path. If it stands alone, none before it under that name counts.
pub(in crate::store) fn append_path(
    group: &Group<'_>,
    record: &payload::Path,
    alone: bool,
) -> Result<(), StoreError> {
    group.append(Kind::Path, &payload::encode_path(record, alone)?)?;
    Ok(())
}

fn path_record(cache: [u8; 16], new: &NewPath, nar: &NarFile, hidden: bool) -> payload::Path {
    payload::Path {
        cache,
        info: new.info.clone(),
        nar_revision: nar.revision,
        hidden,
        pushed_at: new.pusher.at,
        device_key: new.pusher.device_key,
        device_signature: new.pusher.device_signature.to_vec(),
    }
}
