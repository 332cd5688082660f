//! What a push is told: the chunks and NARs that its token may know of.
//!
//! A push may name what is in a cache that its token may read, what is in the very cache that it
//! goes to, and what the token sent itself within a day. What is only in another cache that the
//! token may write to, but not read, has to be sent: otherwise naming it would bring it to where
//! the token can read it. Rights are read from the index each time, so a right that was lost
//! counts at once.

use rusqlite::{Connection, params};

use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::index::nars::NarId;
use crate::store::index::numbers::ChunkNumber;
use crate::store::index::tokens::TokenId;
use crate::store::index::{cache_chunks, nars, uploads};

/// What is in sight of one push.
#[derive(Clone, Debug)]
pub(in crate::store) struct Sight {
    token: TokenId,
    now: UnixSeconds,
    caches: Vec<CacheId>,
    reads_target: bool,
}

impl Sight {
    /// What a token sees that pushes to `target`. A revoked one, or one that is unknown, sees
    /// what everybody may read.
    pub(in crate::store) fn of(
        connection: &Connection,
        token: TokenId,
        target: CacheId,
        now: UnixSeconds,
    ) -> Result<Self, StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT caches.id, is_public OR ifnull(is_personal, 0) OR ifnull(rights & 1, 0) AS readable
             FROM caches
             LEFT JOIN tokens ON tokens.id = ?1 AND revoked_at IS NULL
             LEFT JOIN token_grants ON token_grants.token = tokens.id AND cache = caches.id
             WHERE readable OR (caches.id = ?2 AND rights IS NOT NULL)",
        )?;
        let mut sight = Self { token, now, caches: Vec::new(), reads_target: false };
        let mut rows = statement.query(params![token.0, target.0])?;
        while let Some(row) = rows.next()? {
            let (cache, readable) = (CacheId(row.get(0)?), row.get(1)?);
            sight.caches.push(cache);
            sight.reads_target |= readable && cache == target;
        }
        Ok(sight)
    }

    /// Whether the token may read the cache that the push goes to.
    pub(in crate::store) const fn reads_target(&self) -> bool {
        self.reads_target
    }

    /// Whether a chunk may be named. Asks the same rows whatever the answer is, so that the time
    /// it takes tells nothing.
    pub(in crate::store) fn has_chunk(
        &self,
        connection: &Connection,
        chunk: ChunkNumber,
    ) -> Result<bool, StoreError> {
        let mut found = uploads::contains(connection, chunk, self.token, self.now)?;
        for cache in &self.caches {
            found |= cache_chunks::contains(connection, *cache, chunk)?;
        }
        Ok(found)
    }

    /// Whether a NAR may be named: a path of it, visible or hidden, is in sight. That the token
    /// sent all its chunks is no reason, for then a NAR that nobody else has would be told from
    /// one that somebody has. Asks the same rows whatever the answer is.
    pub(in crate::store) fn has_nar(
        &self,
        connection: &Connection,
        nar: NarId,
    ) -> Result<bool, StoreError> {
        let mut found = false;
        for cache in &self.caches {
            found |= nars::is_in(connection, nar, *cache)?;
        }
        Ok(found)
    }
}
