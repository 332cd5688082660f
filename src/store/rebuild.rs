//! Making the index anew from the packs.
//!
//! Order of effects: the new index grows beside the old one, is closed and synced, and gets a
//! name that says it is whole; then the old one is put aside and the new one takes its place. A
//! crash before that name leaves the old index untouched; one after it is carried on by the next
//! start. Keys, tokens and the settings of caches, which are not in packs, are carried over from
//! the old index as far as it can be read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, Transaction};
use tracing::warn;

use crate::store::check::{CheckProgress, CheckReport};
use crate::store::error::StoreError;
use crate::store::index::caches::{Cache, CacheUpdate};
use crate::store::index::{caches, db, meta};
use crate::store::layout;
use crate::store::layout::Folder;
use crate::store::open;
use crate::store::options::StoreOptions;

/// Throws the index away and makes it anew from all packs; `progress` is called now and then.
/// The old index stays in the folder as `larder.db.before-rebuild`. Blocking.
///
/// # Errors
///
/// [`StoreError::Locked`] while a larder has the folder open, and whatever keeps files from being
/// read or written. Damage is no error but in the report.
pub fn rebuild_index(
    options: StoreOptions,
    progress: &dyn Fn(CheckProgress),
) -> Result<CheckReport, StoreError> {
    let folder = Folder::open(&options.folder)?;
    finish(&folder)?;
    let growing = folder.index_rebuilding();
    remove(&growing)?;
    remove(&folder.index_before_rebuild())?;
    let report = {
        let mut connection = db::open_writer(&growing)?;
        let tx = connection.transaction()?;
        let carried = carry_over(&tx, &folder.index());
        // An index that is damaged has no more to give. One that the disk does not show just now,
        // or that there is no room to copy from, has.
        let carried = match carried {
            Err(error) if error.is_of_disk() => {
                return Err(StoreError::OldIndex { index: folder.index(), source: error.into() });
            }
            carried => carried,
        };
        if let Err(error) = &carried {
            warn!(error = %error, "The old index cannot be read; keys and tokens must come from the backup");
        }
        tx.commit()?;
        let known = if let Ok(true) = carried { Some(caches::all(&connection)?) } else { None };
        let report = open::bring_up(&mut connection, &folder, progress)?.report;
        if let Some(known) = known {
            settle_caches(&connection, &known)?;
        }
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        report
    };
    rename(&growing, &folder.index_rebuilt())?;
    layout::sync_folder(folder.root())?;
    finish(&folder)?;
    Ok(report)
}

/// Puts a rebuilt index that is whole in the place of the old one.
pub(in crate::store) fn finish(folder: &Folder) -> Result<(), StoreError> {
    let rebuilt = folder.index_rebuilt();
    if !rebuilt.try_exists().map_err(StoreError::file("look at", &rebuilt))? {
        return Ok(());
    }
    let (index, aside) = (folder.index(), folder.index_before_rebuild());
    for end in ["-wal", "-shm", ""] {
        let from = beside(&index, end);
        if from.try_exists().map_err(StoreError::file("look at", &from))? {
            rename(&from, &beside(&aside, end))?;
        }
    }
    rename(&rebuilt, &index)?;
    layout::sync_folder(folder.root())
}

/// Copies what is in no pack: caches with their keys, tokens and their grants; and the UUID of the
/// store, in case the headers of the packs are damaged. False if there is no old index.
pub(in crate::store) fn carry_over(tx: &Transaction<'_>, old: &Path) -> Result<bool, StoreError> {
    if !old.try_exists().map_err(StoreError::file("look at", old))? {
        return Ok(false);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let old = Connection::open_with_flags(old, flags)?;
    if let Some(uuid) = meta::store_uuid(&old)? {
        meta::set_store_uuid(tx, uuid)?;
    }
    // No pack tells of NARs that are gone.
    if let Some(passed) = meta::first_revision(&old)?.checked_sub(1) {
        meta::pass_revision(tx, passed)?;
    }
    for table in ["caches", "cache_keys", "cache_public_keys", "tokens", "token_grants"] {
        let mut select = old.prepare(&format!("SELECT * FROM {table}"))?;
        // An index of before an update lacks columns.
        let columns = select.column_names().join(", ");
        let count = select.column_count();
        let places = vec!["?"; count].join(", ");
        let sql = format!("INSERT INTO {table} ({columns}) VALUES ({places})");
        let mut insert = tx.prepare(&sql)?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let values = (0..count)
                .map(|column| row.get::<_, rusqlite::types::Value>(column))
                .collect::<Result<Vec<_>, _>>()?;
            insert.execute(rusqlite::params_from_iter(values))?;
        }
    }
    Ok(true)
}

/// Brings caches to what the old index knew of them: where the last record about one is damaged,
/// the packs tell what it was before, and that may be public. A cache that the old index did not
/// know was deleted, or made after a backup was taken; it comes back for its owner alone.
fn settle_caches(connection: &Connection, known: &[Cache]) -> Result<(), StoreError> {
    for cache in caches::all(connection)? {
        let before = known.iter().find(|before| before.uuid == cache.uuid);
        if before.is_none() {
            warn!(cache = %cache.name, "The old index did not know the cache {}; it is now private", cache.name);
        }
        let is_known = before.is_some();
        let settings = before.unwrap_or(&cache);
        let update = CacheUpdate {
            is_public: is_known && settings.is_public,
            signing: settings.signing,
            priority: settings.priority,
            root_position: settings.root_position.filter(|_| is_known),
            description: settings.description.clone(),
            limits: settings.limits,
            first_key: None,
            public_keys: Vec::new(),
        };
        caches::change(connection, cache.id, &update)?;
    }
    Ok(())
}

pub(in crate::store) fn remove(index: &Path) -> Result<(), StoreError> {
    ["-wal", "-shm", ""].iter().try_for_each(|end| remove_one(&beside(index, end)))
}

fn remove_one(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::file("remove", path)(error))
        }
        _gone => Ok(()),
    }
}

pub(in crate::store) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(StoreError::file("rename", from))
}

pub(in crate::store) fn beside(index: &Path, end: &str) -> PathBuf {
    let mut name = index.as_os_str().to_owned();
    name.push(end);
    name.into()
}
