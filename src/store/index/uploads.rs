//! Chunks that arrived and that no manifest refers to yet: whose they are and since when.

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::index::numbers::{ChunkNumber, runs};
use crate::store::index::tokens::TokenId;

/// How long chunks of a push that broke off count as present for the token that sent them.
pub(in crate::store) const KEPT_SECONDS: u64 = 24 * 60 * 60;

pub(in crate::store) fn insert(
    connection: &Connection,
    number: ChunkNumber,
    token: TokenId,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO uploads (number, token, at) VALUES (?, ?, ?)")?
        .execute(params![number, token.0, at])?;
    Ok(())
}

/// Marks chunks as referred to by a manifest.
pub(in crate::store) fn attach(
    connection: &Connection,
    numbers: &[ChunkNumber],
) -> Result<(), StoreError> {
    for run in runs(numbers) {
        connection
            .prepare_cached("DELETE FROM uploads WHERE number >= ? AND number < ?")?
            .execute(params![run.start, run.end])?;
    }
    Ok(())
}

/// Whether a token is told that the box has a chunk: if a manifest refers to it, or if the token
/// itself sent it within a day.
///
/// All caches are readable by everybody in this version, so any manifest will do; where rights
/// to read differ, this is the place to ask them.
pub(in crate::store) fn is_present_for(
    connection: &Connection,
    number: ChunkNumber,
    token: TokenId,
    now: UnixSeconds,
) -> Result<bool, StoreError> {
    let owner: Option<(i64, UnixSeconds)> = connection
        .prepare_cached("SELECT token, at FROM uploads WHERE number = ?")?
        .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(owner.is_none_or(|(owner, at)| {
        owner == token.0 && token != TokenId::NOBODY && now.abs_diff(at) < KEPT_SECONDS
    }))
}
