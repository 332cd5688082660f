//! Emptying packs that have much in them that does not count.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::Arc;

use tracing::warn;

use crate::store::collect::mark::Marks;
use crate::store::collect::moving::{Moved, Taken};
use crate::store::collect::{CollectReport, moving, step};
use crate::store::error::StoreError;
use crate::store::group::Group;
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::{chunks, damage, emptied, meta};
use crate::store::layout;
use crate::store::pack::record::RECORD_HEADER_BYTES;
use crate::store::pack::scan::Found;
use crate::store::pack::{PackError, scan};
use crate::store::replay::NOWHERE;
use crate::store::shared::Inner;
use crate::wire::message::ChunkId;

/// Bytes, and records, that are moved in one commit: how long the thread that writes is kept from
/// others.
const STEP_BYTES: u64 = 512 << 10;
const STEP_RECORDS: usize = 128;
/// Of a hundred bytes of a pack, those that must not count for it to be emptied: where there is
/// room, and where room is wanted.
const DEAD_PERCENT: u64 = 30;
const DEAD_PERCENT_SHORT: u64 = 3;
/// Ways from IDs to chunks that are gone, which are taken out together: those of one page at a
/// time, where there are many.
const ENTRIES_AT_A_TIME: usize = 512;
/// How many of them gather at most, 48 bytes each.
const ENTRIES_MAX: usize = 65_536;

/// Empties packs, those first in which least counts.
pub(super) fn sweep(
    inner: &Inner,
    marks: &Arc<Marks>,
    is_short: bool,
    report: &mut CollectReport,
) -> Result<(), StoreError> {
    let mut sweep = Sweep { inner, marks, report, gone: Vec::new() };
    if is_short {
        sweep.close_last()?;
    }
    for pack in sweep.candidates(is_short)? {
        match sweep.empty(pack) {
            Ok(()) => {}
            // What cannot be read stays; the other packs can do without it.
            Err(StoreError::Pack(PackError::File { action: "read" | "open", path, source })) => {
                let path = path.display();
                warn!(pack, error = %source, "Cannot read {path}; it is not collected");
            }
            Err(error) => return Err(error),
        }
    }
    sweep.drop_nowhere()?;
    sweep.forget_entries()
}

/// Empties those of `packs` that have chunks in them that do not count, however few.
pub(super) fn purge(
    inner: &Inner,
    marks: &Arc<Marks>,
    packs: &HashSet<u32>,
    report: &mut CollectReport,
) -> Result<(), StoreError> {
    let mut sweep = Sweep { inner, marks, report, gone: Vec::new() };
    let last = inner.shared.appender.position().pack;
    if packs.contains(&last) {
        inner.shared.appender.end_pack();
        step(inner, &mut sweep.report.steps, |_group| Ok(()))?;
    }
    for (pack, of) in &marks.packs {
        if *pack != NOWHERE.pack && packs.contains(pack) && of.dead_chunks > 0 {
            sweep.empty(*pack)?;
        }
    }
    sweep.drop_nowhere()?;
    sweep.forget_entries()
}

struct Sweep<'a> {
    inner: &'a Inner,
    marks: &'a Arc<Marks>,
    report: &'a mut CollectReport,
    /// Chunks that are gone and to which there is still a way from their ID.
    gone: Vec<(ChunkId, ChunkNumber)>,
}

impl Sweep<'_> {
    /// Has the next record begin a pack, if much of the one that is written to does not count.
    fn close_last(&mut self) -> Result<(), StoreError> {
        let last = self.inner.shared.appender.position();
        let of = self.marks.packs.get(&last.pack).copied().unwrap_or_default();
        if of.dead_bytes.saturating_mul(100) < last.offset.saturating_mul(DEAD_PERCENT_SHORT) {
            return Ok(());
        }
        self.inner.shared.appender.end_pack();
        // The index has read it to its end with the next commit.
        step(self.inner, &mut self.report.steps, |_group| Ok(()))
    }

    /// Packs that are worth it: wholly dead ones first, then by their dead share. Never one that
    /// is written to, or that the index has not read to its end.
    fn candidates(&self, is_short: bool) -> Result<Vec<u32>, StoreError> {
        let read_to = self.inner.readers.read(meta::position)?;
        let least = if is_short { DEAD_PERCENT_SHORT } else { DEAD_PERCENT };
        let folder = self.inner.shared.folder.packs();
        let mut found = Vec::new();
        for (pack, of) in &self.marks.packs {
            if *pack == NOWHERE.pack || *pack >= read_to.pack {
                continue;
            }
            let bytes = match scan::pack_bytes(&folder, *pack) {
                Err(error) if error.is_gone() => 0,
                bytes => bytes?,
            };
            let percent = of.dead_bytes.saturating_mul(100) / bytes.max(1);
            if of.dead_chunks > 0 && (percent >= least || of.live_bytes == 0) {
                found.push((of.live_bytes > 0, 100 - percent.min(100), *pack));
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(.., pack)| pack).collect())
    }

    /// Moves what counts out of a pack and removes it.
    fn empty(&mut self, pack: u32) -> Result<(), StoreError> {
        let (folder, key) = (self.inner.shared.folder.packs(), *self.inner.shared.packs.key());
        let bytes = match scan::pack_bytes(&folder, pack) {
            // Lost; or emptied before an old index was put back.
            Err(error) if error.is_gone() => return self.settle_rest(pack),
            bytes => bytes?,
        };
        let others = scan::pack_numbers(&folder)?.into_iter().filter(|other| *other != pack);
        let oldest = others.min().unwrap_or(pack);
        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        let moved_before = self.report.moved_bytes;
        scan::scan(&folder, &key, pack, 0, None, |found| {
            let Found::Record { header, location, payload } = found else {
                return Ok::<_, StoreError>(());
            };
            batch.push(Taken { header, at: location, payload: payload.to_vec() });
            batch_bytes += RECORD_HEADER_BYTES + u64::from(header.stored_len);
            if batch_bytes >= STEP_BYTES || batch.len() >= STEP_RECORDS {
                batch_bytes = 0;
                self.carry(std::mem::take(&mut batch), oldest)?;
            }
            Ok(())
        })?;
        self.carry(batch, oldest)?;
        self.settle_rest(pack)?;
        self.remove(pack)?;
        self.report.packs += 1;
        let moved = self.report.moved_bytes - moved_before;
        self.report.freed_bytes += bytes.saturating_sub(moved);
        Ok(())
    }

    fn carry(&mut self, batch: Vec<Taken>, oldest: u32) -> Result<(), StoreError> {
        let marks = Arc::clone(self.marks);
        let moved = step(self.inner, &mut self.report.steps, move |group| {
            let mut moved = Moved::default();
            for taken in &batch {
                moving::carry(group, &marks, taken, oldest, &mut moved)?;
            }
            moving::remove_chunks(group, &moved.gone)?;
            Ok(moved)
        })?;
        self.report.moved_bytes += moved.bytes;
        self.note_gone(moved.gone)
    }

    /// Rows of a pack that no sound record bore out: their chunks are in no pack any more.
    fn settle_rest(&mut self, pack: u32) -> Result<(), StoreError> {
        loop {
            let numbers = self.inner.readers.read(|it| chunks::in_pack(it, pack))?;
            if numbers.is_empty() {
                return Ok(());
            }
            let marks = Arc::clone(self.marks);
            let gone = step(self.inner, &mut self.report.steps, move |group| {
                let mut gone = Vec::new();
                let mut lost = Vec::new();
                for row in chunks::rows(group.tx, &numbers)?.into_iter().flatten() {
                    if marks.counts(group.shared, row.number) {
                        let nowhere = crate::store::pack::Location {
                            stored_len: row.location.stored_len,
                            ..NOWHERE
                        };
                        chunks::relocate(group.tx, row.number, nowhere)?;
                        lost.push(row.number);
                    } else {
                        gone.push((row.id, row.number));
                    }
                }
                damage::record(group.tx, &lost)?;
                moving::remove_chunks(group, &gone)?;
                Ok(gone)
            })?;
            self.note_gone(gone)?;
        }
    }

    /// Takes out chunks that are in no pack and that nobody wants.
    fn drop_nowhere(&mut self) -> Result<(), StoreError> {
        if self.marks.packs.get(&NOWHERE.pack).is_none_or(|of| of.dead_chunks == 0) {
            return Ok(());
        }
        let numbers = self.inner.readers.read(|it| chunks::all_in_pack(it, NOWHERE.pack))?;
        for some in numbers.chunks(ENTRIES_AT_A_TIME) {
            let (marks, some) = (Arc::clone(self.marks), some.to_vec());
            let gone = step(self.inner, &mut self.report.steps, move |group| {
                let rows = chunks::rows(group.tx, &some)?.into_iter().flatten();
                let gone: Vec<_> = rows
                    .filter(|row| !marks.counts(group.shared, row.number))
                    .map(|row| (row.id, row.number))
                    .collect();
                moving::remove_chunks(group, &gone)?;
                Ok(gone)
            })?;
            self.note_gone(gone)?;
        }
        Ok(())
    }

    fn note_gone(&mut self, gone: Vec<(ChunkId, ChunkNumber)>) -> Result<(), StoreError> {
        self.report.chunks += u64::try_from(gone.len()).unwrap_or(0);
        self.gone.extend(gone);
        if self.gone.len() > ENTRIES_MAX { self.forget_entries() } else { Ok(()) }
    }

    /// Takes out the ways to chunks that are gone, in the order of their table.
    fn forget_entries(&mut self) -> Result<(), StoreError> {
        let mut gone = std::mem::take(&mut self.gone);
        gone.sort_unstable_by_key(|(id, _number)| id.0);
        for some in gone.chunks(ENTRIES_AT_A_TIME) {
            let some = some.to_vec();
            step(self.inner, &mut self.report.steps, move |group: &Group<'_>| {
                group.shared.chunks.forget(group.tx, &some)
            })?;
        }
        Ok(())
    }

    /// Removes the file of a pack in which nothing counts. Written down first: the next start
    /// removes one that a crash left.
    fn remove(&mut self, pack: u32) -> Result<(), StoreError> {
        step(self.inner, &mut self.report.steps, move |group| emptied::insert(group.tx, pack))?;
        let shared = &self.inner.shared;
        remove_file(&shared.folder, pack)?;
        shared.packs.forget(pack);
        layout::sync_folder(&shared.folder.packs())?;
        step(self.inner, &mut self.report.steps, move |group| emptied::remove(group.tx, pack))
    }
}

/// Removes packs that were emptied when a crash came.
pub(in crate::store) fn finish(
    connection: &rusqlite::Connection,
    folder: &layout::Folder,
) -> Result<(), StoreError> {
    for pack in emptied::all(connection)? {
        remove_file(folder, pack)?;
        layout::sync_folder(&folder.packs())?;
        emptied::remove(connection, pack)?;
    }
    Ok(())
}

fn remove_file(folder: &layout::Folder, pack: u32) -> Result<(), StoreError> {
    let path = folder.pack(pack);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::file("remove", &path)(error))
        }
        _gone => Ok(()),
    }
}
