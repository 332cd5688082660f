//! Scrubbing: every record of every pack is read and verified, on the open store.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::store::error::StoreError;
use crate::store::heal;
use crate::store::index::chunks;
use crate::store::index::nars;
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::paths;
use crate::store::pack::record::RECORD_HEADER_BYTES;
use crate::store::pack::scan;
use crate::store::pack::scan::Found;
use crate::store::shared::Inner;

/// How far a check or a rebuild has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckProgress {
    /// Bytes of packs that were read.
    pub done_bytes: u64,
    /// Bytes of packs that there are.
    pub total_bytes: u64,
}

/// What a check or a rebuild found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Sound records.
    pub records: u64,
    /// Bytes of these records.
    pub bytes: u64,
    /// Paths, visible and hidden, that the index has at the end.
    pub paths: u64,
    /// What is damaged or lost, a sentence each, for people.
    pub damaged: Vec<String>,
}

/// Reads everything that was in the packs when it began. Blocking.
pub(in crate::store) fn check(
    inner: &Inner,
    progress: &dyn Fn(CheckProgress),
) -> Result<CheckReport, StoreError> {
    // What a failed write took with it is not damage; so nothing behind the last commit counts.
    inner.writer.run_blocking(|_group| Ok(()))?;
    let end = inner.shared.appender.position();
    let folder = inner.shared.folder.packs();
    let packs: Vec<_> =
        scan::pack_numbers(&folder)?.into_iter().filter(|pack| *pack <= end.pack).collect();
    let mut report = CheckReport::default();
    let mut seen = CheckProgress::default();
    for pack in &packs {
        seen.total_bytes += bytes_now(&folder, *pack)?;
    }
    for pack in &packs {
        // A collection may empty one meanwhile. If it was lost, that is found below.
        let bytes = bytes_now(&folder, *pack)?;
        if bytes == 0 {
            continue;
        }
        let limit = (*pack == end.pack).then_some(end.offset);
        let mut bad = Vec::new();
        let scanned = scan::scan(&folder, inner.shared.packs.key(), *pack, 0, limit, |found| {
            // A box that stops does not wait for hundreds of gigabytes to be read.
            if inner.windows.is_closed() {
                return Err(StoreError::Closed);
            }
            progress(CheckProgress { done_bytes: seen.done_bytes + found.end(), ..seen });
            match found {
                Found::Record { .. } => report.records += 1,
                Found::Damaged { start, end } => bad.push((start, end)),
            }
            Ok(())
        });
        let sound_to = match scanned {
            Err(StoreError::Pack(error)) if error.is_gone() => continue,
            scanned => scanned?,
        };
        report.bytes += sound_to;
        for (start, end) in bad {
            let chunks = note(inner, *pack, start, end)?;
            report.damaged.push(format!(
                "bytes {start} to {end} of pack {pack} are damaged ({chunks} chunks)"
            ));
        }
        // What the index has behind the last sound record is damaged too.
        let chunks = note(inner, *pack, sound_to, limit.unwrap_or(END))?;
        if chunks > 0 {
            let sentence = format!("pack {pack} ends at byte {sound_to}, before {chunks} chunks");
            report.damaged.push(sentence);
        }
        seen.done_bytes += bytes;
    }
    missing_packs(inner, &packs, &mut report)?;
    let (visible, hidden) = inner.readers.read(paths::count)?;
    report.paths = visible + hidden;
    progress(seen);
    Ok(report)
}

/// Bytes of a pack; 0 if it is gone.
fn bytes_now(folder: &Path, pack: u32) -> Result<u64, StoreError> {
    match scan::pack_bytes(folder, pack) {
        Err(error) if error.is_gone() => Ok(0),
        bytes => Ok(bytes?),
    }
}

/// Behind every record that a pack may have.
const END: u64 = u64::MAX >> 1;

/// Records the chunks whose records touch these bytes of a pack; returns how many.
fn note(inner: &Inner, pack: u32, start: u64, end: u64) -> Result<usize, StoreError> {
    let rows = inner.readers.read(|connection| {
        let sql = "SELECT number FROM chunks WHERE pack = ?1 AND offset < ?3
                   AND offset + ?4 + stored_len > ?2 ORDER BY number";
        let numbers = numbers(connection, sql, params![pack, start, end, RECORD_HEADER_BYTES])?;
        chunks::rows(connection, &numbers)
    })?;
    let rows: Vec<_> = rows.into_iter().flatten().collect();
    heal::record(inner, &rows)?;
    Ok(rows.len())
}

/// Records the chunks of packs that are not there.
fn missing_packs(inner: &Inner, packs: &[u32], report: &mut CheckReport) -> Result<(), StoreError> {
    let folder = inner.shared.folder.packs();
    let wanted = inner.readers.read(|connection| {
        numbers(connection, "SELECT DISTINCT pack FROM chunks WHERE pack > 0", [])
    })?;
    for pack in wanted.into_iter().filter_map(|pack| u32::try_from(pack).ok()) {
        if packs.binary_search(&pack).is_err() || bytes_now(&folder, pack)? == 0 {
            let chunks = note(inner, pack, 0, END)?;
            // An old index that was put back knows of some that were collected since.
            let wanted = inner.readers.read(|connection| {
                let mut numbers = chunks::all_in_pack(connection, pack)?;
                numbers.sort_unstable();
                for nar in nars::with_chunks(connection, &numbers)? {
                    if nars::has_path(connection, nar)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            })?;
            if !wanted {
                continue;
            }
            report.damaged.push(format!("pack {pack} is missing, with {chunks} chunks"));
        }
    }
    Ok(())
}

fn numbers(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> Result<Vec<ChunkNumber>, StoreError> {
    let mut statement = connection.prepare(sql)?;
    let numbers = statement.query_map(parameters, |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(numbers)
}
