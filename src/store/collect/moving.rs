//! What becomes of each record of a pack that is emptied: what counts is appended again. FORMAT.md
//! says why that changes nothing for a replay.

use crate::store::collect::mark::Marks;
use crate::store::commit;
use crate::store::error::StoreError;
use crate::store::group::Group;
use crate::store::index::numbers::{ChunkNumber, Decoder};
use crate::store::index::{
    attachments, cache_chunks, caches, chunks, damage, meta, nars, paths, pins, uploads,
};
use crate::store::pack::record::{RECORD_HEADER_BYTES, RecordHeader};
use crate::store::pack::{Kind, Location, Position, payload};
use crate::wire::message::ChunkId;

/// A record that was read from a pack.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) header: RecordHeader,
    pub(super) at: Location,
    pub(super) payload: Vec<u8>,
}

/// What became of some records.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Bytes of records that were appended again.
    pub(super) bytes: u64,
    /// Chunks that do not count.
    pub(super) gone: Vec<(ChunkId, ChunkNumber)>,
}

/// Moves one record if it counts. `oldest` is the oldest of the other packs.
pub(super) fn carry(
    group: &Group<'_>,
    marks: &Marks,
    taken: &Taken,
    oldest: u32,
    moved: &mut Moved,
) -> Result<(), StoreError> {
    let Taken { header, at, payload } = taken;
    let was_moved = match header.kind {
        Kind::Chunk => chunk(group, marks, taken, &mut moved.gone)?,
        Kind::Manifest => manifest(group, payload)?,
        Kind::Listing => listing(group, *at, payload)?,
        Kind::Cache => cache(group, payload)?,
        Kind::Path => path(group, payload)?,
        Kind::Signatures => signatures(group, payload)?,
        Kind::Attachment => attachment(group, *at, payload)?,
        Kind::Pin => pin(group, payload)?,
        Kind::Delete => end(group, at.place(), payload, oldest)?,
    };
    if was_moved {
        moved.bytes += RECORD_HEADER_BYTES + u64::from(header.stored_len);
    }
    Ok(())
}

/// Takes chunks out of the index that do not count; the ways to them stay behind.
pub(super) fn remove_chunks(
    group: &Group<'_>,
    gone: &[(ChunkId, ChunkNumber)],
) -> Result<(), StoreError> {
    let numbers: Vec<_> = gone.iter().map(|(_id, number)| *number).collect();
    let Some(last) = numbers.iter().max() else { return Ok(()) };
    meta::pass_number(group.tx, *last)?;
    for number in &numbers {
        chunks::remove(group.tx, *number)?;
        damage::forget(group.tx, *number)?;
        uploads::forget(group.tx, *number)?;
    }
    cache_chunks::remove(group.tx, &numbers)
}

fn chunk(
    group: &Group<'_>,
    marks: &Marks,
    taken: &Taken,
    gone: &mut Vec<(ChunkId, ChunkNumber)>,
) -> Result<bool, StoreError> {
    let Taken { header, at, payload } = taken;
    let id = ChunkId(header.id);
    let found = group.shared.chunks.look_up(group.tx, &[id])?.pop().flatten();
    let Some(row) = found.filter(|row| row.location == *at) else { return Ok(false) };
    if !marks.counts(group.shared, row.number) {
        gone.push((id, row.number));
        return Ok(false);
    }
    let to = group.append_chunk(header.id, header.raw_len, payload)?;
    chunks::relocate(group.tx, row.number, to)?;
    Ok(true)
}

fn manifest(group: &Group<'_>, bytes: &[u8]) -> Result<bool, StoreError> {
    let Ok((mut record, has_sums)) = payload::decode_manifest(bytes) else { return Ok(false) };
    let Some(nar) = nars::by_hash(group.tx, record.nar_hash)? else { return Ok(false) };
    if nar.revision != record.revision {
        return Ok(false);
    }
    if !has_sums && nars::is_sound(group.tx, nar.id)? {
        let blob = nars::chunks(group.tx, nar.id)?.unwrap_or_default();
        let numbers = Decoder::new(blob).collect::<Result<Vec<_>, _>>()?;
        for (chunk, row) in record.chunks.iter_mut().zip(chunks::rows(group.tx, &numbers)?) {
            chunk.sum = row.map_or([0; 8], |row| row.sum.to_le_bytes());
        }
        group.append(Kind::Manifest, &payload::encode_manifest(&record)?)?;
    } else {
        group.append(Kind::Manifest, bytes)?;
    }
    Ok(true)
}

fn listing(group: &Group<'_>, at: Location, bytes: &[u8]) -> Result<bool, StoreError> {
    let Ok(record) = payload::decode::<payload::Listing>(bytes) else { return Ok(false) };
    let Some(nar) = nars::by_hash(group.tx, record.nar_hash)? else { return Ok(false) };
    if nars::listing(group.tx, nar.id)? != Some(at) {
        return Ok(false);
    }
    nars::set_listing(group.tx, nar.id, group.append(Kind::Listing, bytes)?)?;
    Ok(true)
}

/// As it is now: the last record of a cache counts, wherever that stood.
fn cache(group: &Group<'_>, bytes: &[u8]) -> Result<bool, StoreError> {
    let Ok((record, _limits)) = payload::decode_cache(bytes) else { return Ok(false) };
    let Some(id) = caches::by_uuid(group.tx, record.uuid)? else { return Ok(false) };
    commit::append_cache(group, caches::get(group.tx, id)?)?;
    Ok(true)
}

/// As it is now, with all its signatures; and alone, for what stood before it under its name has
/// not gone yet.
fn path(group: &Group<'_>, bytes: &[u8]) -> Result<bool, StoreError> {
    let Ok((record, _alone)) = payload::decode_path(bytes) else { return Ok(false) };
    let Some(cache) = caches::by_uuid(group.tx, record.cache)? else { return Ok(false) };
    let now = paths::to_record(group.tx, cache, record.cache, record.info.store_path.hash())?;
    let is_same = |now: &payload::Path| {
        now.info.store_path == record.info.store_path
            && now.info.nar_hash == record.info.nar_hash
            && now.info.references == record.info.references
    };
    let Some(now) = now.filter(is_same) else { return Ok(false) };
    commit::append_path(group, &now, true)?;
    Ok(true)
}

fn signatures(group: &Group<'_>, bytes: &[u8]) -> Result<bool, StoreError> {
    let Ok(record) = payload::decode::<payload::Signatures>(bytes) else { return Ok(false) };
    let Some(cache) = caches::by_uuid(group.tx, record.cache)? else { return Ok(false) };
    let Some(standing) = paths::standing(group.tx, cache, record.path)? else { return Ok(false) };
    // Else they were of another path under that name.
    let counts = record.signatures.iter().all(|it| standing.signatures.contains(it));
    if counts {
        group.append(Kind::Signatures, bytes)?;
    }
    Ok(counts)
}

fn attachment(group: &Group<'_>, at: Location, bytes: &[u8]) -> Result<bool, StoreError> {
    let Ok(record) = payload::decode::<payload::Attachment>(bytes) else { return Ok(false) };
    let Some(cache) = caches::by_uuid(group.tx, record.cache)? else { return Ok(false) };
    if attachments::find(group.tx, cache, &record.name)? != Some(at) {
        return Ok(false);
    }
    attachments::put(group.tx, cache, &record.name, group.append(Kind::Attachment, bytes)?)?;
    Ok(true)
}

/// A revision that has not ended; and every end, for a record that it ends may be in another pack.
fn pin(group: &Group<'_>, bytes: &[u8]) -> Result<bool, StoreError> {
    let counts = match payload::decode::<payload::Pin>(bytes) {
        Ok(payload::Pin::Made { cache, name, revision, .. }) => {
            match caches::by_uuid(group.tx, cache)? {
                Some(cache) => pins::has(group.tx, cache, &name, revision)?,
                None => false,
            }
        }
        Ok(payload::Pin::Ended { cache, .. }) => caches::by_uuid(group.tx, cache)?.is_some(),
        Err(_payload) => false,
    };
    if counts {
        group.append(Kind::Pin, bytes)?;
    }
    Ok(counts)
}

/// The end of a path is told for as long as a pack may have a record that it ends; that of a cache
/// always.
fn end(group: &Group<'_>, at: Position, bytes: &[u8], oldest: u32) -> Result<bool, StoreError> {
    let Ok(record) = payload::decode::<payload::Delete>(bytes) else { return Ok(false) };
    let (cache, path, told) = match record {
        payload::Delete::Cache { .. } => {
            group.append(Kind::Delete, bytes)?;
            return Ok(true);
        }
        payload::Delete::Path { cache, path } => (cache, path, at),
        payload::Delete::MovedPath { cache, path, pack, offset } => {
            (cache, path, Position { pack, offset })
        }
    };
    if oldest > told.pack {
        return Ok(false);
    }
    let Position { pack, offset } = told;
    let record = payload::Delete::MovedPath { cache, path, pack, offset };
    group.append(Kind::Delete, &payload::encode(&record)?)?;
    Ok(true)
}
