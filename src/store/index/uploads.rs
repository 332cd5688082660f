//! Who sent which chunk, and when. Every token has its own rows: that another sends the same
//! chunk changes nothing for the first.

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::index::numbers::{ChunkNumber, runs};
use crate::store::index::tokens::TokenId;

/// How long chunks of a push that broke off count as present for the token that sent them.
pub(in crate::store) const KEPT_SECONDS: u64 = 24 * 60 * 60;

/// Rows that [`forget_old`] takes away at a time.
const FORGOTTEN_AT_A_TIME: u32 = 10_000;

/// A chunk that a token sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::store) struct Upload {
    pub(in crate::store) number: ChunkNumber,
    pub(in crate::store) token: TokenId,
    pub(in crate::store) at: UnixSeconds,
}

pub(in crate::store) fn insert(connection: &Connection, upload: Upload) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO uploads (number, token, at) VALUES (?, ?, ?)")?
        .execute(params![upload.number, upload.token.0, upload.at])?;
    Ok(())
}

/// Forgets that a token sent chunks: it now sees them in a cache that it may read.
pub(in crate::store) fn attach(
    connection: &Connection,
    token: TokenId,
    numbers: &[ChunkNumber],
) -> Result<(), StoreError> {
    for run in runs(numbers) {
        connection
            .prepare_cached("DELETE FROM uploads WHERE number >= ? AND number < ? AND token = ?")?
            .execute(params![run.start, run.end, token.0])?;
    }
    Ok(())
}

/// Forgets who sent a chunk.
pub(in crate::store) fn forget(
    connection: &Connection,
    number: ChunkNumber,
) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM uploads WHERE number = ?")?.execute([number])?;
    Ok(())
}

/// Puts a chunk in the place of another for everybody who sent the other.
pub(in crate::store) fn replace(
    connection: &Connection,
    old: ChunkNumber,
    new: ChunkNumber,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE OR IGNORE uploads SET number = ? WHERE number = ?")?
        .execute([new, old])?;
    connection.prepare_cached("DELETE FROM uploads WHERE number = ?")?.execute([old])?;
    Ok(())
}

/// Whether a token sent a chunk within a day.
pub(in crate::store) fn contains(
    connection: &Connection,
    number: ChunkNumber,
    token: TokenId,
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    let at: Option<UnixSeconds> = connection
        .prepare_cached("SELECT at FROM uploads WHERE number = ? AND token = ?")?
        .query_row(params![number, token.0], |row| row.get(0))
        .optional()?;
    Ok(at.is_some_and(|at| now.abs_diff(at) < KEPT_SECONDS))
}

/// Takes away some rows that count for nothing any more; returns whether there may be others.
pub(in crate::store) fn forget_old(
    connection: &Connection,
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    let forgotten = connection
        .prepare_cached(
            "DELETE FROM uploads WHERE (number, token) IN
                 (SELECT number, token FROM uploads WHERE at <= ? LIMIT ?)",
        )?
        .execute(params![now.saturating_sub(KEPT_SECONDS), FORGOTTEN_AT_A_TIME])?;
    Ok(forgotten > 0)
}
