//! Keys of caches after their creation: managed ones that follow each other, and public ones that
//! are registered.

use rusqlite::{Connection, params};

use crate::formats::signature::{PublicKey, SecretKey};
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;

/// A managed key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedKey {
    /// Its public half.
    pub public_key: PublicKey,
    /// Seconds of running that it goes on signing. `None`: it is the newest, and signs until
    /// another follows. 0: it is retired.
    pub overlap_left: Option<u64>,
}

/// The managed keys of a cache, newest first, retired ones too.
pub(in crate::store) fn managed(
    connection: &Connection,
    cache: CacheId,
) -> Result<Vec<ManagedKey>, StoreError> {
    let sql = "SELECT secret, overlap_left FROM cache_keys WHERE cache = ? ORDER BY number DESC";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([cache.0])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        let secret: String = row.get(0)?;
        let secret: SecretKey =
            secret.parse().map_err(|_text| StoreError::BadRow("secret key of a cache"))?;
        keys.push(ManagedKey { public_key: secret.public_key(), overlap_left: row.get(1)? });
    }
    Ok(keys)
}

/// Lets `key` sign first from now on, and those before it for `overlap` seconds more.
pub(in crate::store) fn rotate(
    connection: &Connection,
    cache: CacheId,
    key: &SecretKey,
    overlap: u64,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE cache_keys SET overlap_left = ? WHERE cache = ? AND overlap_left IS NULL",
        )?
        .execute(params![overlap, cache.0])?;
    connection
        .prepare_cached("INSERT INTO cache_keys (cache, secret) VALUES (?, ?)")?
        .execute(params![cache.0, key.to_secret_text()])?;
    Ok(())
}

/// Gives a key that is not the newest another overlap; 0 retires it. False if there is none.
pub(in crate::store) fn set_overlap(
    connection: &Connection,
    cache: CacheId,
    name: &str,
    overlap: u64,
) -> Result<bool, StoreError> {
    let sql = "UPDATE cache_keys SET overlap_left = ?
               WHERE cache = ? AND overlap_left IS NOT NULL AND substr(secret, 1, ?) = ?";
    let start = format!("{name}:");
    let changed =
        connection.prepare_cached(sql)?.execute(params![overlap, cache.0, start.len(), start])?;
    Ok(changed > 0)
}

/// Takes `seconds` that the box has run off every overlap. Whether a key was retired by it.
pub(in crate::store) fn age(connection: &Connection, seconds: u64) -> Result<bool, StoreError> {
    let ends = "SELECT count(*) FROM cache_keys WHERE overlap_left > 0 AND overlap_left <= ?";
    let ending: u64 = connection.prepare_cached(ends)?.query_row([seconds], |row| row.get(0))?;
    connection
        .prepare_cached(
            "UPDATE cache_keys SET overlap_left = max(overlap_left - ?, 0) WHERE overlap_left > 0",
        )?
        .execute([seconds])?;
    Ok(ending > 0)
}

/// Registers a public key with a self-signed cache.
pub(in crate::store) fn register(
    connection: &Connection,
    cache: CacheId,
    key: &PublicKey,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("INSERT INTO cache_public_keys (cache, key) VALUES (?, ?)")?
        .execute(params![cache.0, key.to_string()])?;
    Ok(())
}

/// Takes a registered key away. False if there is none of that name.
pub(in crate::store) fn unregister(
    connection: &Connection,
    cache: CacheId,
    name: &str,
) -> Result<bool, StoreError> {
    let start = format!("{name}:");
    let changed = connection
        .prepare_cached("DELETE FROM cache_public_keys WHERE cache = ? AND substr(key, 1, ?) = ?")?
        .execute(params![cache.0, start.len(), start])?;
    Ok(changed > 0)
}
