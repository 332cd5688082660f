//! Opening the store: from a folder to everything that runs.
//!
//! Order: lock and version; a rebuild that was cut off is finished; the index is opened and
//! brought up with what lies behind its position in the packs; the appender goes on behind the
//! last sound record; then readers, filter and writer start. NARs that a heal left stale are
//! finished last.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::store::assemble::{PREFETCHES_MAX, WINDOWS_READ_MAX};
use crate::store::backup;
use crate::store::barrier::Barrier;
use crate::store::check::{CheckProgress, CheckReport};
use crate::store::collect;
use crate::store::commit;
use crate::store::error::StoreError;
use crate::store::filter::PathFilter;
use crate::store::heal;
use crate::store::index::chunks::ChunkIndex;
use crate::store::index::db::{self, Readers};
use crate::store::index::meta;
use crate::store::index::paths;
use crate::store::layout;
use crate::store::layout::Folder;
use crate::store::leases::Leases;
use crate::store::options::StoreOptions;
use crate::store::pack::record::PACK_HEADER_LEN;
use crate::store::pack::{Appender, Disk, HeaderKey, PackReader, Position, scan};
use crate::store::pending::Pending;
use crate::store::rebuild;
use crate::store::replay::Replay;
use crate::store::shared::{Inner, Shared};
use crate::store::space::Room;
use crate::store::trouble::Trouble;
use crate::store::uses::Uses;
use crate::store::writer::Writer;

/// What [`bring_up`] leaves.
#[derive(Debug)]
pub(in crate::store) struct BroughtUp {
    pub(in crate::store) report: CheckReport,
    uuid: [u8; 16],
    pub(in crate::store) end: Position,
    index: ChunkIndex,
}

/// Opens everything. Blocking.
pub(in crate::store) fn open(
    options: &StoreOptions,
    disk: Box<dyn Disk>,
) -> Result<Inner, StoreError> {
    let folder = Folder::open(&options.folder)?;
    rebuild::finish(&folder)?;
    if db::is_to_be_migrated(&folder.index())? {
        backup::keep_before_migration(&folder)?;
    }
    let mut connection = db::open_writer(&folder.index())?;
    // Names in it may be from a start that failed to make them safe.
    layout::sync_folder(folder.root())?;
    collect::finish(&connection, &folder)?;
    let BroughtUp { report, uuid, end, index } = bring_up(&mut connection, &folder, &|_| ())?;
    if report.records > 0 {
        info!(records = report.records, "Brought the index up to the packs");
    }
    for lost in &report.damaged {
        warn!("{lost}");
    }
    let appender = Appender::open(&folder.packs(), uuid, options.pack_bytes_max, end, disk)?;
    let readers = Arc::new(Readers::open(&folder.index(), options.readers)?);
    let next_number = next_number(&connection)?;
    let shared = Arc::new(Shared {
        packs: PackReader::new(&folder.packs(), HeaderKey::of(uuid)),
        pending: Pending::new(next_number, appender.epoch()),
        filter: PathFilter::load(&connection)?,
        leases: Arc::new(Leases::default()),
        barrier: Barrier::default(),
        uses: Uses::after(meta::uses(&connection)?),
        trouble: Trouble::default(),
        chunks: index,
        appender,
        folder,
    });
    // A collection writes what it moves before it removes the pack that it was in.
    let kept_free = options.min_free_bytes.saturating_add(options.pack_bytes_max);
    let inner = Inner {
        room: Arc::new(Room::new(shared.folder.root().to_owned(), kept_free, options.quota_bytes)),
        writer: Writer::start(connection, Arc::clone(&shared))?,
        readers,
        shared,
        compression_level: options.compression_level,
        windows: Arc::new(Semaphore::new(WINDOWS_READ_MAX)),
        prefetches: Arc::new(Semaphore::new(PREFETCHES_MAX)),
    };
    if !inner.readers.read(meta::unlogged_caches)?.is_empty() {
        inner.writer.run_blocking(commit::log_caches)?;
    }
    heal::refresh(&inner)?;
    Ok(inner)
}

/// Brings the index on `connection` up to the end of the packs.
pub(in crate::store) fn bring_up(
    connection: &mut Connection,
    folder: &Folder,
    progress: &dyn Fn(CheckProgress),
) -> Result<BroughtUp, StoreError> {
    let folder = folder.packs();
    let packs = scan::pack_numbers(&folder)?;
    let position = meta::position(connection)?;
    let uuid = identity(connection, &folder, &packs, position)?;
    let key = HeaderKey::of(uuid);
    let next_number = next_number(connection)?;
    let index = ChunkIndex::open(connection)?;
    let mut replay = Replay::begin(connection, &index, &packs, next_number)?;
    let mut end = position;
    if cut_short(&folder, &packs, position)? {
        replay.lost(format!("pack {} is not as long as the index knows it", position.pack));
        // Its number is not used again: rows still point into it.
        end = Position { pack: position.pack + 1, offset: 0 };
    }
    let from = end;
    let behind: Vec<_> = packs.iter().copied().filter(|pack| *pack >= from.pack).collect();
    let mut seen = CheckProgress::default();
    for pack in &behind {
        seen.total_bytes += scan::pack_bytes(&folder, *pack)?;
    }
    for pack in behind {
        let start = if pack == from.pack { from.offset } else { 0 };
        let offset = scan::scan(&folder, &key, pack, start, None, |found| {
            progress(CheckProgress { done_bytes: seen.done_bytes + found.end(), ..seen });
            replay.take(pack, &found)
        })?;
        seen.done_bytes += scan::pack_bytes(&folder, pack)?;
        end = Position { pack, offset };
    }
    progress(seen);
    let mut report = replay.end(&PackReader::new(&folder, key), end)?;
    let (visible, hidden) = paths::count(connection)?;
    report.paths = visible + hidden;
    Ok(BroughtUp { report, uuid, end, index })
}

/// Whether bytes are gone that were in the index's packs when it was committed.
fn cut_short(folder: &Path, packs: &[u32], position: Position) -> Result<bool, StoreError> {
    Ok(match packs.binary_search(&position.pack) {
        Ok(_there) => scan::pack_bytes(folder, position.pack)? < position.offset,
        // Where later packs are, a collection may have emptied it: the index is an old one.
        Err(behind) => position.offset > 0 && behind == packs.len(),
    })
}

/// The UUID of the store: of an index that has read packs already, its own; else the one that the
/// packs' records are sealed with; else the index's, or a new one.
///
/// With a wrong one every record would look torn, and be cut off; so one that nothing bears out is
/// taken only where there is nothing to lose.
fn identity(
    connection: &Connection,
    folder: &Path,
    packs: &[u32],
    position: Position,
) -> Result<[u8; 16], StoreError> {
    let known = meta::store_uuid(connection)?;
    if let Some(known) = known
        && position > Position::default()
    {
        return Ok(known);
    }
    let uuid = match (borne_out(folder, packs, known)?, known) {
        (Some(uuid), _) | (None, Some(uuid)) => uuid,
        (None, None) if has_bytes(folder, packs)? => {
            return Err(StoreError::UuidLost { folder: folder.to_owned() });
        }
        (None, None) => layout::new_uuid()?,
    };
    meta::set_store_uuid(connection, uuid)?;
    Ok(uuid)
}

/// The first UUID, of those that the packs' headers say and `known`, under which a pack has a
/// sound record.
fn borne_out(
    folder: &Path,
    packs: &[u32],
    known: Option<[u8; 16]>,
) -> Result<Option<[u8; 16]>, StoreError> {
    for pack in packs {
        let said = scan::store_uuid(folder, *pack)?;
        for uuid in said.into_iter().chain(known) {
            if scan::has_record(folder, &HeaderKey::of(uuid), *pack)? {
                return Ok(Some(uuid));
            }
        }
    }
    Ok(None)
}

/// Whether there is anything in the packs behind their headers.
fn has_bytes(folder: &Path, packs: &[u32]) -> Result<bool, StoreError> {
    for pack in packs {
        if scan::pack_bytes(folder, *pack)? > PACK_HEADER_LEN {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number that the next chunk gets: never one that somebody is remembered for, also not if
/// the chunk that had it was lost.
fn next_number(connection: &Connection) -> Result<u64, StoreError> {
    let sql = "SELECT 1 + max((SELECT ifnull(max(number), 0) FROM chunks),
                              (SELECT ifnull(max(number), 0) FROM uploads), ?)";
    let passed = meta::passed_number(connection)?;
    Ok(connection.query_row(sql, [passed], |row| row.get(0))?)
}
