//! Pins: which revisions hold which paths of a cache, and which have ended.

use std::num::NonZero;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::formats::{FilePath, Keep, PinName, StorePath, StorePathHash};
use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::index::tokens::TokenId;

/// A revision of a pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The pin's name in its cache.
    pub name: PinName,
    /// From 1, each one more than the one before; never given twice.
    pub revision: u32,
    /// The path that it holds.
    pub path: StorePath,
    /// Files of the path that have a URL of their own under the pin's name.
    pub artifacts: Vec<FilePath>,
    /// How long revisions of that name stay, if this is the newest.
    pub keep: Keep,
    /// When it was made.
    pub pinned_at: UnixSeconds,
    /// The token that it was made with.
    pub token: TokenId,
}

/// Where a page of pins ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinPlace {
    /// The name of the last revision of it.
    pub name: PinName,
    /// That revision.
    pub revision: u32,
}

impl Pin {
    /// Its place among the pins of its cache.
    #[must_use]
    pub fn place(&self) -> PinPlace {
        PinPlace { name: self.name.clone(), revision: self.revision }
    }
}

const DAY_SECONDS: u64 = 86_400;
/// 2025, before any larder: a pin that is older was made by a box that did not know the time, and
/// its age says nothing.
const FIRST_TIME_KNOWN: UnixSeconds = 1_735_689_600;

const COLUMNS: &str = "name, revision, base_name, artifacts, keep_days, keep_revisions, \
                       pinned_at, token";

/// Writes a revision, unless it is there, or has ended.
pub(in crate::store) fn put(
    connection: &Connection,
    cache: CacheId,
    pin: &Pin,
) -> Result<(), StoreError> {
    if pin.revision <= ended(connection, cache, &pin.name)? {
        return Ok(());
    }
    let artifacts = pin.artifacts.iter().map(FilePath::as_str).collect::<Vec<_>>().join("\n");
    let (days, revisions) = match pin.keep {
        Keep::Forever => (None, None),
        Keep::Days(days) => (Some(days.get()), None),
        Keep::Revisions(count) => (None, Some(count.get())),
    };
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO pins (cache, name, revision, path, base_name, artifacts,
                 keep_days, keep_revisions, pinned_at, token)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            cache.0,
            pin.name.as_str(),
            pin.revision,
            pin.path.hash().as_bytes(),
            pin.path.base_name(),
            artifacts,
            days,
            revisions,
            pin.pinned_at,
            pin.token.0,
        ])?;
    Ok(())
}

/// Ends the revisions of a name up to this one; how many there were.
pub(in crate::store) fn end(
    connection: &Connection,
    cache: CacheId,
    name: &PinName,
    up_to: u32,
) -> Result<usize, StoreError> {
    let up_to = up_to.max(ended(connection, cache, name)?);
    connection
        .prepare_cached("INSERT OR REPLACE INTO pin_ends (cache, name, revision) VALUES (?, ?, ?)")?
        .execute(params![cache.0, name.as_str(), up_to])?;
    let sql = "DELETE FROM pins WHERE cache = ? AND name = ? AND revision <= ?";
    Ok(connection.prepare_cached(sql)?.execute(params![cache.0, name.as_str(), up_to])?)
}

/// Whether a revision is there.
pub(in crate::store) fn has(
    connection: &Connection,
    cache: CacheId,
    name: &PinName,
    revision: u32,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM pins WHERE cache = ? AND name = ? AND revision = ?";
    Ok(connection.prepare_cached(sql)?.exists(params![cache.0, name.as_str(), revision])?)
}

/// Up to which revision a name has ended; 0 if none has.
fn ended(connection: &Connection, cache: CacheId, name: &PinName) -> Result<u32, StoreError> {
    let sql = "SELECT revision FROM pin_ends WHERE cache = ? AND name = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let ended = statement.query_row(params![cache.0, name.as_str()], |row| row.get(0));
    Ok(ended.optional()?.unwrap_or(0))
}

/// The highest number that a revision of a name has had; 0 if there was none.
pub(in crate::store) fn last_number(
    connection: &Connection,
    cache: CacheId,
    name: &PinName,
) -> Result<u32, StoreError> {
    let newest = newest(connection, cache, name)?.map_or(0, |pin| pin.revision);
    Ok(newest.max(ended(connection, cache, name)?))
}

/// The newest revision of a name.
pub(in crate::store) fn newest(
    connection: &Connection,
    cache: CacheId,
    name: &PinName,
) -> Result<Option<Pin>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM pins WHERE cache = ? AND name = ? ORDER BY revision DESC LIMIT 1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![cache.0, name.as_str()])?;
    rows.next()?.map(from_row).transpose()
}

/// Revisions of a cache behind `after`: by name, of each the newest first; at most `limit`.
pub(in crate::store) fn page(
    connection: &Connection,
    cache: CacheId,
    after: Option<&PinPlace>,
    limit: u32,
) -> Result<Vec<Pin>, StoreError> {
    // Every name is behind the empty one.
    let (name, revision) = after.map_or(("", 0), |place| (place.name.as_str(), place.revision));
    let sql = format!(
        "SELECT {COLUMNS} FROM pins
         WHERE cache = ?1 AND (name > ?2 OR (name = ?2 AND revision < ?3))
         ORDER BY name, revision DESC LIMIT ?4"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![cache.0, name, revision, limit])?;
    let mut pins = Vec::new();
    while let Some(row) = rows.next()? {
        pins.push(from_row(row)?);
    }
    Ok(pins)
}

/// The paths of a cache that a revision holds, each once.
pub(in crate::store) fn roots(
    connection: &Connection,
    cache: CacheId,
) -> Result<Vec<StorePathHash>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT DISTINCT path FROM pins WHERE cache = ?")?;
    let rows = statement
        .query_map([cache.0], |row| row.get(0).map(StorePathHash::from_bytes))?
        .collect::<Result<_, _>>()?;
    Ok(rows)
}

/// Names whose newest revision says how many days revisions stay, and up to which of them those
/// days are over.
pub(in crate::store) fn outlived(
    connection: &Connection,
    now: UnixSeconds,
) -> Result<Vec<(CacheId, PinName, u32)>, StoreError> {
    let sql = "SELECT old.cache, old.name, max(old.revision) FROM pins AS old
               JOIN pins AS newest ON newest.cache = old.cache AND newest.name = old.name
               WHERE newest.keep_days IS NOT NULL
                 AND newest.revision = (SELECT max(revision) FROM pins
                                        WHERE cache = old.cache AND name = old.name)
                 AND old.pinned_at >= ?1 AND old.pinned_at + newest.keep_days * ?2 <= ?3
               GROUP BY old.cache, old.name";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![FIRST_TIME_KNOWN, DAY_SECONDS, now])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((CacheId(row.get(0)?), name_of(row, 1)?, row.get(2)?));
    }
    Ok(found)
}

fn from_row(row: &Row<'_>) -> Result<Pin, StoreError> {
    let (base_name, artifacts): (String, String) = (row.get(2)?, row.get(3)?);
    let file = |text: &str| text.parse().map_err(|_| StoreError::BadRow("artifact of a pin"));
    let count = |column| -> Result<_, StoreError> {
        let number: Option<u32> = row.get(column)?;
        number.map(|n| NonZero::new(n).ok_or(StoreError::BadRow("pin"))).transpose()
    };
    let keep = match (count(4)?, count(5)?) {
        (Some(days), _) => Keep::Days(days),
        (None, Some(revisions)) => Keep::Revisions(revisions),
        (None, None) => Keep::Forever,
    };
    Ok(Pin {
        name: name_of(row, 0)?,
        revision: row.get(1)?,
        path: base_name.parse().map_err(|_| StoreError::BadRow("store path"))?,
        artifacts: artifacts.lines().map(file).collect::<Result<_, _>>()?,
        keep,
        pinned_at: row.get(6)?,
        token: TokenId(row.get(7)?),
    })
}

fn name_of(row: &Row<'_>, column: usize) -> Result<PinName, StoreError> {
    let name: String = row.get(column)?;
    name.parse().map_err(|_| StoreError::BadRow("name of a pin"))
}
