//! A narinfo is visible only with its closure: which paths wait for which, and who wakes whom.

use rusqlite::{Connection, OptionalExtension, params};

use crate::formats::{PathInfo, StorePathHash};
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;

/// Settles a path that was just written hidden: if all its references are visible in the cache
/// it becomes visible, and so does, in turn, whatever waited only for it. Returns the paths that
/// became visible; else writes down what it waits for. Its own name among its references counts
/// as there.
pub(in crate::store) fn settle(
    connection: &Connection,
    cache: CacheId,
    info: &PathInfo,
) -> Result<Settled, StoreError> {
    let own = info.store_path.hash();
    connection
        .prepare_cached("DELETE FROM waiting WHERE cache = ? AND path = ?")?
        .execute(params![cache.0, own.as_bytes()])?;
    let mut missing = Vec::new();
    for reference in &info.references {
        let hash = reference.hash();
        if hash != own && !is_visible(connection, cache, hash)? {
            wait(connection, cache, hash, own)?;
            missing.push(reference.base_name().to_owned());
        }
    }
    let woken = if missing.is_empty() { wake(connection, cache, own)? } else { Vec::new() };
    Ok(Settled { missing, woken })
}

/// What [`settle`] found.
#[derive(Debug)]
pub(in crate::store) struct Settled {
    /// Base names of references that are not visible.
    pub(in crate::store) missing: Vec<String>,
    /// Paths that became visible, the settled one first.
    pub(in crate::store) woken: Vec<StorePathHash>,
}

/// Hides, in turn, everything that refers to a path that went away; what was hidden waits for it
/// too. Reads all paths of the cache.
pub(in crate::store) fn hide_referrers(
    connection: &Connection,
    cache: CacheId,
    gone: StorePathHash,
) -> Result<(), StoreError> {
    let mut todo = vec![gone];
    while let Some(gone) = todo.pop() {
        let sql = "SELECT hash, visible FROM paths
                   WHERE cache = ?1 AND hash <> ?2 AND (' ' || refs) LIKE ?3";
        let pattern = format!("% {gone}-%");
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![cache.0, gone.as_bytes(), pattern])?;
        let mut referrers = Vec::new();
        while let Some(row) = rows.next()? {
            referrers.push((StorePathHash::from_bytes(row.get(0)?), row.get(1)?));
        }
        for (referrer, visible) in referrers {
            wait(connection, cache, gone, referrer)?;
            if visible {
                set_visible(connection, cache, referrer, false)?;
                todo.push(referrer);
            }
        }
    }
    Ok(())
}

fn wake(
    connection: &Connection,
    cache: CacheId,
    first: StorePathHash,
) -> Result<Vec<StorePathHash>, StoreError> {
    let mut woken = vec![first];
    let mut done = 0;
    while let Some(&hash) = woken.get(done) {
        done += 1;
        set_visible(connection, cache, hash, true)?;
        for sleeper in sleepers(connection, cache, hash)? {
            let still = connection
                .prepare_cached("SELECT 1 FROM waiting WHERE cache = ? AND path = ? LIMIT 1")?
                .exists(params![cache.0, sleeper.as_bytes()])?;
            if !still {
                woken.push(sleeper);
            }
        }
    }
    Ok(woken)
}

/// Those who waited for `hash`; they do so no longer.
fn sleepers(
    connection: &Connection,
    cache: CacheId,
    hash: StorePathHash,
) -> Result<Vec<StorePathHash>, StoreError> {
    let sql = "DELETE FROM waiting WHERE cache = ? AND missing = ? RETURNING path";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![cache.0, hash.as_bytes()], |row| {
        row.get(0).map(StorePathHash::from_bytes)
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Has a hidden path wait for one that is not visible.
pub(in crate::store) fn wait(
    connection: &Connection,
    cache: CacheId,
    missing: StorePathHash,
    path: StorePathHash,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO waiting (cache, missing, path) VALUES (?, ?, ?)")?
        .execute(params![cache.0, missing.as_bytes(), path.as_bytes()])?;
    Ok(())
}

fn is_visible(
    connection: &Connection,
    cache: CacheId,
    hash: StorePathHash,
) -> Result<bool, StoreError> {
    let visible = connection
        .prepare_cached("SELECT visible FROM paths WHERE cache = ? AND hash = ?")?
        .query_row(params![cache.0, hash.as_bytes()], |row| row.get(0))
        .optional()?;
    Ok(visible.unwrap_or(false))
}

fn set_visible(
    connection: &Connection,
    cache: CacheId,
    hash: StorePathHash,
    visible: bool,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE paths SET visible = ? WHERE cache = ? AND hash = ?")?
        .execute(params![visible, cache.0, hash.as_bytes()])?;
    Ok(())
}
