//! Damaged chunks: recorded when they are met, replaced when somebody sends the same bytes.
//!
//! A chunk that is replaced gets a new number, and the NARs that had it get their manifests
//! changed in one transaction. If its new frame is the very same, nothing that was published
//! changes. If not, those NARs are *stale* until their frames have been hashed anew, and are not
//! served meanwhile; then their revision grows, and with it URL, ETag and FileHash change
//! together. A crash in between leaves them stale; the next start goes on.

use rusqlite::Connection;
use tracing::warn;

use crate::formats::hash::Sha256Hasher;
use crate::store::commit;
use crate::store::error::StoreError;
use crate::store::index::chunks;
use crate::store::index::chunks::{ChunkIndex, ChunkRow};
use crate::store::index::nars::{NarFile, NarId, NewNar};
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::{cache_chunks, damage, nars, numbers, uploads};
use crate::store::pack::payload::ManifestChunk;
use crate::store::shared::{Inner, ReadError};

/// Frames that are read at a time to hash a NAR's stored form: 4 MiB at most.
const FRAMES_AT_A_TIME: usize = 16;

/// Records chunks as damaged, durably. Blocking.
pub(in crate::store) fn record(inner: &Inner, damaged: &[ChunkRow]) -> Result<(), StoreError> {
    if damaged.is_empty() {
        return Ok(());
    }
    for row in damaged {
        let place = row.location;
        warn!(chunk = ?row.id, pack = place.pack, offset = place.offset, "A chunk is damaged on disk");
    }
    let damaged = damaged.to_vec();
    inner.writer.run_blocking(move |group| {
        let numbers: Vec<_> = damaged.iter().map(|row| row.number).collect();
        let now = chunks::rows(group.tx, &numbers)?;
        // What was moved or collected meanwhile was met in its old place.
        let still_there = damaged.iter().zip(now).filter_map(|(row, now)| {
            now.is_some_and(|now| now.location == row.location).then_some(row.number)
        });
        damage::record(group.tx, &still_there.collect::<Vec<_>>())
    })?;
    Ok(())
}

/// Puts `new`, which is in a pack and pending, in the place of the damaged chunk `old`
/// everywhere. Blocking.
pub(in crate::store) fn replace(
    inner: &Inner,
    old: &ChunkRow,
    new: &ChunkRow,
) -> Result<(), StoreError> {
    let (old, new) = (old.clone(), new.clone());
    inner.writer.run_blocking(move |group| {
        if chunks::rows(group.tx, &[new.number])?.iter().any(Option::is_none) {
            return Err(StoreError::Lost);
        }
        group.shared.barrier.note_chunks(&[new.number]);
        replace_in_index(group.tx, &group.shared.chunks, &old, &new)
    })?;
    refresh(inner)
}

/// The part of [`replace`] that a replay does too. Both rows must be there.
pub(in crate::store) fn replace_in_index(
    tx: &Connection,
    index: &ChunkIndex,
    old: &ChunkRow,
    new: &ChunkRow,
) -> Result<(), StoreError> {
    let same_frame = old.sum == new.sum && old.location.stored_len == new.location.stored_len;
    damage::forget(tx, old.number)?;
    let affected = nars::with_chunks(tx, &[old.number])?;
    for nar in &affected {
        let Some(blob) = nars::chunks(tx, *nar)? else { continue };
        let renumbered = numbers::Decoder::new(blob)
            .map(|number| number.map(|n| if n == old.number { new.number } else { n }))
            .collect::<Result<Vec<_>, _>>()?;
        let blob = numbers::encode(renumbered.into_iter());
        nars::replace_chunks(tx, *nar, &blob, !same_frame)?;
        nars::set_damaged(tx, *nar, damage::touches(tx, blob)?)?;
    }
    cache_chunks::replace(tx, old.number, new.number)?;
    uploads::replace(tx, old.number, new.number)?;
    index.delete(tx, old.number)
}

/// Gives every stale NAR that is whole again its new revision. Blocking.
pub(in crate::store) fn refresh(inner: &Inner) -> Result<(), StoreError> {
    for nar in inner.readers.read(nars::to_refresh)? {
        if let Some(encoding) = encoding_of(inner, nar)? {
            inner.writer.run_blocking(move |group| {
                let unchanged = nars::chunks(group.tx, nar)?.as_ref() == Some(&encoding.new.chunks);
                if !unchanged || !nars::to_refresh(group.tx)?.contains(&nar) {
                    return Ok(());
                }
                nars::update(group.tx, nar, &encoding.new)?;
                match encoding.chunks {
                    Some(chunks) => commit::append_manifest(group, &encoding.new, chunks),
                    None => Ok(()),
                }
            })?;
        }
    }
    Ok(())
}

struct Encoding {
    new: NewNar,
    /// For the record; `None` if the encoding is what it was.
    chunks: Option<Vec<ManifestChunk>>,
}

/// What a stale NAR is now stored as; `None` if it cannot be read, which has been recorded.
fn encoding_of(inner: &Inner, nar: NarId) -> Result<Option<Encoding>, StoreError> {
    let read = inner
        .readers
        .read(|connection| Ok(nars::by_id(connection, nar)?.zip(nars::chunks(connection, nar)?)))?;
    let Some((file, blob)) = read else { return Ok(None) };
    let all = numbers::Decoder::new(blob.clone()).collect::<Result<Vec<_>, _>>()?;
    let mut hasher = Sha256Hasher::new();
    let mut file_size = 0;
    let mut described = Vec::with_capacity(all.len());
    for some in all.chunks(FRAMES_AT_A_TIME) {
        let Some(rows) = rows_of(inner, some)? else { return Ok(None) };
        let frames = match inner.read_frames(&rows) {
            Ok(frames) => frames,
            Err(ReadError::Damaged(_recorded)) => return Ok(None),
            Err(ReadError::Store(error)) => return Err(error),
        };
        frames.iter().for_each(|frame| hasher.update(frame));
        file_size += rows.iter().map(|row| u64::from(row.location.stored_len)).sum::<u64>();
        described.extend(rows.iter().map(|row| ManifestChunk {
            id: row.id.0,
            raw_len: row.raw_len,
            stored_len: row.location.stored_len,
            sum: row.sum.to_le_bytes(),
        }));
    }
    let file_hash = hasher.finish();
    // After a rebuild nobody remembers whether a frame that came back is the very same.
    let changed = file.file_hash != file_hash || file.file_size != file_size;
    let NarFile { nar_hash, nar_size, revision, .. } = file;
    let revision = if changed { revision + 1 } else { revision };
    let new = NewNar { nar_hash, nar_size, revision, file_hash, file_size, chunks: blob };
    Ok(Some(Encoding { new, chunks: changed.then_some(described) }))
}

fn rows_of(inner: &Inner, some: &[ChunkNumber]) -> Result<Option<Vec<ChunkRow>>, StoreError> {
    let rows = inner.readers.read(|connection| chunks::rows(connection, some))?;
    Ok(rows.into_iter().collect())
}
