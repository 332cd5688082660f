//! What an old index must not bring back: a cache for everybody that has become private since, and
//! tokens that were revoked.
//!
//! Records behind the index's position tell of the first, where they can be read; of both the
//! index tells that is there, where it can be read and is not older than the backup.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};
use tracing::warn;

use crate::formats::CacheName;
use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::index::{caches, meta};
use crate::store::pack::Position;

/// Which caches an index knows, by their identity, and whether each is public.
pub(in crate::store::restore) type Publicity = HashMap<[u8; 16], bool>;

/// What the index knows that a restore replaces, which has heard of all that was acknowledged.
pub(in crate::store::restore) struct There {
    caches: Publicity,
    /// The hash of each secret, and when it was revoked.
    revoked: Vec<([u8; 32], UnixSeconds)>,
}

/// What the restored index has.
pub(in crate::store::restore) struct Settled {
    pub(in crate::store::restore) caches: u64,
    pub(in crate::store::restore) tokens: u64,
    pub(in crate::store::restore) made_private: Vec<CacheName>,
    pub(in crate::store::restore) revoked: u64,
}

impl There {
    /// Reads the index at `path`, if there is one of that store which is not older than
    /// `backed_up`. One that cannot be read is the reason for many a restore.
    pub(in crate::store::restore) fn read(
        path: &Path,
        store: [u8; 16],
        backed_up: Position,
    ) -> Option<Self> {
        if !path.exists() {
            return None;
        }
        Self::try_read(path, store, backed_up).unwrap_or_else(|error| {
            warn!(error = %error, "The index that is there cannot be read; it has no say");
            None
        })
    }

    fn try_read(
        path: &Path,
        store: [u8; 16],
        backed_up: Position,
    ) -> Result<Option<Self>, StoreError> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        if meta::store_uuid(&connection)? != Some(store) || meta::position(&connection)? < backed_up
        {
            return Ok(None);
        }
        let sql = "SELECT secret_hash, revoked_at FROM tokens WHERE revoked_at IS NOT NULL";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let revoked = rows.collect::<Result<_, _>>()?;
        Ok(Some(Self { caches: publicity(&connection)?, revoked }))
    }
}

/// The caches of an index of any age.
pub(in crate::store::restore) fn publicity(
    connection: &Connection,
) -> Result<Publicity, StoreError> {
    let mut statement = connection.prepare("SELECT uuid, is_public FROM caches")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Takes back what must not come back. `known`: what the backup knew of caches, where all packs
/// were read from the first one on, and an old record may have had the last word.
pub(in crate::store::restore) fn settle(
    tx: &Connection,
    known: Option<&Publicity>,
    there: Option<&There>,
    is_damaged: bool,
) -> Result<Settled, StoreError> {
    let mut made_private = Vec::new();
    let all = caches::all(tx)?;
    for cache in all.iter().filter(|cache| cache.is_public) {
        let is_public_in = |known: &Publicity| known.get(&cache.uuid) == Some(&true);
        let is_sure = match there {
            Some(there) => is_public_in(&there.caches),
            // A damaged record may be the one that made the cache private.
            None => !is_damaged && known.is_none_or(is_public_in),
        };
        if !is_sure {
            tx.execute("UPDATE caches SET is_public = 0 WHERE id = ?", [cache.id.0])?;
            // The packs shall say so too.
            meta::add_unlogged_cache(tx, cache.uuid)?;
            made_private.push(cache.name.clone());
        }
    }
    let mut revoked = 0;
    for (secret_hash, at) in there.iter().flat_map(|there| &there.revoked) {
        let sql = "UPDATE tokens SET revoked_at = ? WHERE secret_hash = ? AND revoked_at IS NULL";
        revoked += u64::try_from(tx.execute(sql, params![at, secret_hash])?).unwrap_or(0);
    }
    let tokens = tx.query_row("SELECT count(*) FROM tokens", [], |row| row.get(0))?;
    let caches = u64::try_from(all.len()).unwrap_or(u64::MAX);
    Ok(Settled { caches, tokens, made_private, revoked })
}
