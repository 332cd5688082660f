//! Putting a backup into a data folder that no larder has open.
//!
//! Order of effects: the backup is read to its end before anything is touched; its index grows
//! beside the one that is there and is brought up with the packs; then the small files take their
//! places, and the index last, in the way of a rebuild: a crash before it is called whole leaves
//! the old index, one after it is carried on by the next start. Whatever is replaced stays in the
//! folder under another name.
//!
//! The packs are the log, so the index of the backup goes on from its position, and what was
//! deleted since is deleted. Where packs that it counts on are gone or shorter, only its secrets
//! are taken, and the rest is read from the packs that there are.

mod settle;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::formats::CacheName;
use crate::store::UnixSeconds;
use crate::store::backup::{ADMIN_TOKEN, IDENTITY, SETTINGS};
use crate::store::check::{CheckProgress, CheckReport};
use crate::store::error::StoreError;
use crate::store::index::{caches, db, meta};
use crate::store::layout;
use crate::store::layout::Folder;
use crate::store::open;
use crate::store::open::BroughtUp;
use crate::store::pack::record::RECORD_HEADER_BYTES;
use crate::store::pack::{HeaderKey, Position, scan};
use crate::store::rebuild;
use crate::store::restore::settle::{Settled, There};
use crate::store::restore::unpack::Unpacker;

/// What is restored, and where.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The backup.
    pub backup: PathBuf,
    /// The data folder. It is made if it is missing; its parent must exist.
    pub folder: PathBuf,
    /// Whether packs of another store may be taken over with what the backup has.
    pub other_store: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct RestoreReport {
    /// When the backup was made.
    pub made_at: UnixSeconds,
    /// Caches that there are now.
    pub caches: u64,
    /// Tokens that there are now, revoked and expired ones too.
    pub tokens: u64,
    /// Paths, visible and hidden.
    pub paths: u64,
    /// Packs that are in the folder.
    pub packs: u64,
    /// Records of packs that were read.
    pub records: u64,
    /// Whether all packs were read, since some that the backup's index counts on are gone.
    pub from_packs: bool,
    /// What is damaged or lost, a sentence each, for people.
    pub damaged: Vec<String>,
    /// Public caches that are private now, for nothing says for certain that they still were.
    pub made_private: Vec<CacheName>,
    /// Tokens that the backup has as good, and the index that was there as revoked: they stay so.
    pub revoked: u64,
    /// The backup's settings file, where it has one: put here.
    pub settings: Option<PathBuf>,
    /// What was there before, under its new names.
    pub kept: Vec<PathBuf>,
}

/// Puts a backup into a data folder; `progress` is called now and then while packs are read.
/// Blocking.
///
/// # Errors
///
/// [`StoreError::Locked`] while a larder has the folder open; [`StoreError::BadBackup`],
/// [`StoreError::NewerBackup`] and [`StoreError::NewerIndex`] for a backup that cannot be used,
/// [`StoreError::OtherStore`] if it does not belong to the packs. Nothing has changed then.
pub fn restore(
    options: &RestoreOptions,
    progress: &dyn Fn(CheckProgress),
) -> Result<RestoreReport, StoreError> {
    let mut unpacker = Unpacker::open(&options.backup)?;
    let folder = Folder::claim(&options.folder, unpacker.seed())?;
    rebuild::finish(&folder)?;
    let growing = folder.index_rebuilding();
    rebuild::remove(&growing)?;
    unpacker.index_to(&growing)?;
    let brought = bring_up(options, &folder, progress);
    let Brought { report, settled, from_packs } = match brought {
        Ok(brought) => brought,
        Err(error) => {
            // What went wrong counts; the next start throws it away too.
            let _left = rebuild::remove(&growing);
            return Err(error);
        }
    };
    let mut kept = Kept::default();
    kept.put(&folder, IDENTITY, &unpacker.identity)?;
    layout::write_version(folder.root())?;
    if let Some(settings) = &unpacker.settings {
        kept.put(&folder, SETTINGS, settings)?;
    }
    if let Some(token) = &unpacker.admin_token {
        kept.put(&folder, ADMIN_TOKEN, token)?;
    }
    kept.put_index(&folder)?;
    let packs = scan::pack_numbers(&folder.packs())?.len();
    Ok(RestoreReport {
        made_at: unpacker.made_at,
        caches: settled.caches,
        tokens: settled.tokens,
        paths: report.paths,
        packs: u64::try_from(packs).unwrap_or(u64::MAX),
        records: report.records,
        from_packs,
        damaged: report.damaged,
        made_private: settled.made_private,
        revoked: settled.revoked,
        settings: unpacker.settings.map(|_settings| folder.root().join(SETTINGS)),
        kept: kept.0,
    })
}

struct Brought {
    report: CheckReport,
    settled: Settled,
    from_packs: bool,
}

/// Brings the backup's index, which lies where a growing one does, up to the packs.
fn bring_up(
    options: &RestoreOptions,
    folder: &Folder,
    progress: &dyn Fn(CheckProgress),
) -> Result<Brought, StoreError> {
    let growing = folder.index_rebuilding();
    let (known, follows, there) = {
        let backed_up = open_unpacked(&growing)?;
        let uuid = meta::store_uuid(&backed_up)?.ok_or(StoreError::BadRow("store"))?;
        let packs = scan::pack_numbers(&folder.packs())?;
        let is_ours = belongs(folder, &packs, uuid)?;
        if !is_ours && !options.other_store {
            let backup = options.backup.clone();
            return Err(StoreError::OtherStore { folder: folder.packs(), backup });
        }
        let follows = is_ours && counts_on(&backed_up, folder, &packs)?;
        let there = There::read(&folder.index(), uuid, meta::position(&backed_up)?);
        (settle::publicity(&backed_up)?, follows, there)
    };
    let mut connection = if follows {
        db::open_writer(&growing)?
    } else {
        let aside = folder.tmp().join("backup.db");
        rebuild::rename(&growing, &aside)?;
        let mut connection = db::open_writer(&growing)?;
        let tx = connection.transaction()?;
        rebuild::carry_over(&tx, &aside)?;
        tx.commit()?;
        connection
    };
    let BroughtUp { report, end, .. } = open::bring_up(&mut connection, folder, progress)?;
    let is_damaged = !report.damaged.is_empty() || is_torn(folder, end)?;
    let tx = connection.transaction()?;
    let known = (!follows).then_some(known);
    let settled = settle::settle(&tx, known.as_ref(), there.as_ref(), is_damaged)?;
    if !follows && report.records == 0 {
        // No pack tells of these caches; the next start writes it down.
        for cache in caches::all(&tx)? {
            meta::add_unlogged_cache(&tx, cache.uuid)?;
        }
    }
    tx.commit()?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(Brought { report, settled, from_packs: !follows })
}

/// Whether there are bytes behind the last sound record, which the next start cuts off.
fn is_torn(folder: &Folder, end: Position) -> Result<bool, StoreError> {
    let (folder, packs) = (folder.packs(), scan::pack_numbers(&folder.packs())?);
    Ok(packs.contains(&end.pack) && scan::pack_bytes(&folder, end.pack)? > end.offset)
}

/// Opens the index of the backup, once it is known that this program can read it.
fn open_unpacked(index: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(index, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    db::check_version(&connection)?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::BadRow("page"));
    }
    Ok(connection)
}

/// Whether these packs are of that store: none of them is another's.
fn belongs(folder: &Folder, packs: &[u32], uuid: [u8; 16]) -> Result<bool, StoreError> {
    let folder = folder.packs();
    for pack in packs {
        if let Some(said) = scan::store_uuid(&folder, *pack)?
            && said != uuid
            && scan::has_record(&folder, &HeaderKey::of(said), *pack)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether all that the index counts on in the packs is there, by their lengths.
fn counts_on(index: &Connection, folder: &Folder, packs: &[u32]) -> Result<bool, StoreError> {
    let position = meta::position(index)?;
    let mut ends = vec![(position.pack, position.offset)];
    for (what, table, but) in [
        (["pack", "offset", "stored_len"], "chunks", "number NOT IN (SELECT number FROM damage)"),
        (["listing_pack", "listing_offset", "listing_len"], "nars", "listing_pack IS NOT NULL"),
        (["pack", "offset", "stored_len"], "attachments", "true"),
    ] {
        let [pack, offset, length] = what;
        let sql = format!(
            "SELECT {pack}, max({offset} + {length} + {RECORD_HEADER_BYTES}) FROM {table}
             WHERE {but} GROUP BY {pack}"
        );
        let has_table: bool = index.query_row(
            "SELECT count(*) > 0 FROM sqlite_schema WHERE name = ?",
            [table],
            |row| row.get(0),
        )?;
        if has_table {
            let mut statement = index.prepare(&sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            ends.extend(rows.collect::<Result<Vec<_>, _>>()?);
        }
    }
    for (pack, end) in ends {
        if end == 0 {
            continue;
        }
        if packs.binary_search(&pack).is_err() || scan::pack_bytes(&folder.packs(), pack)? < end {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What was there before, under its new names.
#[derive(Default)]
struct Kept(Vec<PathBuf>);

impl Kept {
    /// Writes a small file, and leaves what is there under another name.
    fn put(&mut self, folder: &Folder, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = folder.root().join(name);
        match fs::read(&path) {
            Ok(there) if there == bytes => return Ok(()),
            Ok(_other) => {
                let aside = free_name(&path)?;
                fs::hard_link(&path, &aside).map_err(StoreError::file("keep", &path))?;
                self.0.push(aside);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::file("read", &path)(error)),
        }
        layout::write_whole(folder.root(), name, bytes)
    }

    /// Puts the index that has been brought up into its place.
    fn put_index(&mut self, folder: &Folder) -> Result<(), StoreError> {
        rebuild::rename(&folder.index_rebuilding(), &folder.index_rebuilt())?;
        layout::sync_folder(folder.root())?;
        let index = folder.index();
        if index.try_exists().map_err(StoreError::file("look at", &index))? {
            let aside = free_name(&index)?;
            for end in ["-wal", "-shm", ""] {
                let from = rebuild::beside(&index, end);
                if from.try_exists().map_err(StoreError::file("look at", &from))? {
                    rebuild::rename(&from, &rebuild::beside(&aside, end))?;
                }
            }
            self.0.push(aside);
        }
        rebuild::finish(folder)
    }
}

/// `NAME.before-restore`, or with a number behind it where that is taken.
fn free_name(path: &Path) -> Result<PathBuf, StoreError> {
    let first = rebuild::beside(path, ".before-restore");
    let names = (2_u32..).map(|number| rebuild::beside(&first, &format!("-{number}")));
    for name in std::iter::once(first.clone()).chain(names) {
        if !name.try_exists().map_err(StoreError::file("look at", &name))? {
            return Ok(name);
        }
    }
    Ok(first)
}
