//! Caches and their keys.

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use crate::formats::signature::{PublicKey, SecretKey};
use crate::formats::{CacheLimits, CacheName};
use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::index::cache_chunks;

/// A cache, within this data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheId(pub i64);

/// Whose signatures the paths of a cache carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningMode {
    /// The box keeps the key and signs what it serves.
    Managed,
    /// Paths come signed by one of the registered keys.
    SelfSigned,
}

/// A cache to be made.
#[derive(Clone, Debug)]
pub struct NewCache {
    /// Its name, not yet taken.
    pub name: CacheName,
    /// Whether anybody may read it.
    pub is_public: bool,
    /// Whose signatures its paths carry.
    pub signing: SigningMode,
    /// What `nix-cache-info` says; the lower, the earlier Nix asks.
    pub priority: u32,
    /// Place in the list of caches that the root answers for; `None`: it is not in it.
    pub root_position: Option<u32>,
    /// A sentence for people.
    pub description: String,
    /// What makes its paths leave.
    pub limits: CacheLimits,
    /// The first managed key; `None` for a self-signed cache.
    pub key: Option<SecretKey>,
    /// Keys registered for a self-signed cache.
    pub public_keys: Vec<PublicKey>,
    /// Now.
    pub created_at: UnixSeconds,
}

/// What of a cache can change: all of it but name, identity and age.
#[derive(Clone, Debug)]
pub struct CacheUpdate {
    /// Whether anybody may read it.
    pub is_public: bool,
    /// Whose signatures its paths carry.
    pub signing: SigningMode,
    /// What `nix-cache-info` says.
    pub priority: u32,
    /// Place in the list of caches that the root answers for; `None`: it is not in it.
    pub root_position: Option<u32>,
    /// A sentence for people.
    pub description: String,
    /// What makes its paths leave.
    pub limits: CacheLimits,
    /// The managed key of a cache that becomes managed and never had one; not looked at where
    /// there is one.
    pub first_key: Option<SecretKey>,
    /// Keys to register, beside those that are.
    pub public_keys: Vec<PublicKey>,
}

/// A cache as it is.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Its number in this data folder.
    pub id: CacheId,
    /// Its identity for good, also in packs.
    pub uuid: [u8; 16],
    /// Its name.
    pub name: CacheName,
    /// Whether anybody may read it.
    pub is_public: bool,
    /// Whose signatures its paths carry.
    pub signing: SigningMode,
    /// What `nix-cache-info` says.
    pub priority: u32,
    /// Place in the list of caches that the root answers for; `None`: it is not in it.
    pub root_position: Option<u32>,
    /// A sentence for people.
    pub description: String,
    /// What makes its paths leave.
    pub limits: CacheLimits,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// Its managed keys that sign, newest first. None while it is self-signed: the secrets of a
    /// cache that was managed before stay in the index, for the day it is so again.
    pub keys: Vec<SecretKey>,
    /// Registered public keys of a self-signed cache, in the order they came.
    pub public_keys: Vec<PublicKey>,
}

const COLUMNS: &str = "id, uuid, name, is_public, self_signed, priority, root_position, \
                       description, created_at, retention_days, quota_bytes";

/// Writes a new cache with its keys.
///
/// # Errors
///
/// [`StoreError::CacheExists`] if the name is taken.
pub(in crate::store) fn insert(
    connection: &Connection,
    uuid: [u8; 16],
    new: &NewCache,
) -> Result<CacheId, StoreError> {
    let taken = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => StoreError::CacheExists(new.name.clone()),
        _ => StoreError::Index(error),
    };
    connection
        .prepare_cached(
            "INSERT INTO caches (uuid, name, is_public, self_signed, priority, root_position,
                                 description, created_at, retention_days, quota_bytes)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            uuid,
            new.name.as_str(),
            new.is_public,
            new.signing == SigningMode::SelfSigned,
            new.priority,
            new.root_position,
            new.description,
            new.created_at,
            new.limits.retention_days,
            new.limits.quota_bytes,
        ])
        .map_err(taken)?;
    let id = CacheId(connection.last_insert_rowid());
    if let Some(key) = &new.key {
        connection
            .prepare_cached("INSERT INTO cache_keys (cache, secret) VALUES (?, ?)")?
            .execute(params![id.0, key.to_secret_text()])?;
    }
    register(connection, id, &new.public_keys)?;
    Ok(id)
}

fn register(connection: &Connection, id: CacheId, keys: &[PublicKey]) -> Result<(), StoreError> {
    let sql = "INSERT INTO cache_public_keys (cache, key) SELECT ?1, ?2
               WHERE NOT EXISTS (SELECT 1 FROM cache_public_keys WHERE cache = ?1 AND key = ?2)";
    for key in keys {
        connection.prepare_cached(sql)?.execute(params![id.0, key.to_string()])?;
    }
    Ok(())
}

/// Changes a cache.
///
/// # Errors
///
/// [`StoreError::NoSuchCache`] if it was deleted.
pub(in crate::store) fn change(
    connection: &Connection,
    id: CacheId,
    update: &CacheUpdate,
) -> Result<(), StoreError> {
    let changed = connection
        .prepare_cached(
            "UPDATE caches SET is_public = ?, self_signed = ?, priority = ?, root_position = ?,
                    description = ?, retention_days = ?, quota_bytes = ? WHERE id = ?",
        )?
        .execute(params![
            update.is_public,
            update.signing == SigningMode::SelfSigned,
            update.priority,
            update.root_position,
            update.description,
            update.limits.retention_days,
            update.limits.quota_bytes,
            id.0,
        ])?;
    if changed == 0 {
        return Err(StoreError::NoSuchCache);
    }
    if let (SigningMode::Managed, Some(key)) = (update.signing, &update.first_key) {
        let sql = "INSERT INTO cache_keys (cache, secret) SELECT ?1, ?2
                   WHERE NOT EXISTS (SELECT 1 FROM cache_keys WHERE cache = ?1)";
        connection.prepare_cached(sql)?.execute(params![id.0, key.to_secret_text()])?;
    }
    register(connection, id, &update.public_keys)
}

/// All caches, by name.
pub(in crate::store) fn all(connection: &Connection) -> Result<Vec<Cache>, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM caches ORDER BY name"))?;
    let mut rows = statement.query([])?;
    let mut caches = Vec::new();
    while let Some(row) = rows.next()? {
        caches.push(from_row(connection, row)?);
    }
    Ok(caches)
}

/// One cache.
pub(in crate::store) fn get(connection: &Connection, id: CacheId) -> Result<Cache, StoreError> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM caches WHERE id = ?"))?;
    let mut rows = statement.query([id.0])?;
    from_row(connection, rows.next()?.ok_or(StoreError::NoSuchCache)?)
}

/// The identity of a cache in packs.
pub(in crate::store) fn uuid(connection: &Connection, id: CacheId) -> Result<[u8; 16], StoreError> {
    connection
        .prepare_cached("SELECT uuid FROM caches WHERE id = ?")?
        .query_row([id.0], |row| row.get(0))
        .optional()?
        .ok_or(StoreError::NoSuchCache)
}

/// The cache with that identity.
pub(in crate::store) fn by_uuid(
    connection: &Connection,
    uuid: [u8; 16],
) -> Result<Option<CacheId>, StoreError> {
    Ok(connection
        .prepare_cached("SELECT id FROM caches WHERE uuid = ?")?
        .query_row([uuid], |row| row.get(0).map(CacheId))
        .optional()?)
}

/// Brings the settings of a cache that is there to those of `new`; its keys stay.
pub(in crate::store) fn update(
    connection: &Connection,
    id: CacheId,
    new: &NewCache,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE OR IGNORE caches SET name = ?, is_public = ?, self_signed = ?, priority = ?,
                    root_position = ?, description = ?, retention_days = ?, quota_bytes = ?
             WHERE id = ?",
        )?
        .execute(params![
            new.name.as_str(),
            new.is_public,
            new.signing == SigningMode::SelfSigned,
            new.priority,
            new.root_position,
            new.description,
            new.limits.retention_days,
            new.limits.quota_bytes,
            id.0,
        ])?;
    Ok(())
}

/// Takes a cache away with all its paths, keys and grants.
pub(in crate::store) fn delete(connection: &Connection, id: CacheId) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM waiting WHERE cache = ?",
        "DELETE FROM paths WHERE cache = ?",
        "DELETE FROM attachments WHERE cache = ?",
        "DELETE FROM pins WHERE cache = ?",
        "DELETE FROM pin_ends WHERE cache = ?",
        "DELETE FROM caches WHERE id = ?",
    ] {
        connection.prepare_cached(sql)?.execute([id.0])?;
    }
    cache_chunks::forget(connection, id)
}

fn from_row(connection: &Connection, row: &Row<'_>) -> Result<Cache, StoreError> {
    let id: i64 = row.get(0)?;
    let name: String = row.get(2)?;
    let self_signed: bool = row.get(4)?;
    let sql = "SELECT secret FROM cache_keys
               WHERE cache = ? AND (overlap_left IS NULL OR overlap_left > 0)
               ORDER BY number DESC";
    let keys = if self_signed { Vec::new() } else { texts(connection, sql, id)? };
    let public_keys =
        texts(connection, "SELECT key FROM cache_public_keys WHERE cache = ? ORDER BY number", id)?;
    Ok(Cache {
        id: CacheId(id),
        uuid: row.get(1)?,
        name: name.parse().map_err(|_name| StoreError::BadRow("name of a cache"))?,
        is_public: row.get(3)?,
        signing: if self_signed { SigningMode::SelfSigned } else { SigningMode::Managed },
        priority: row.get(5)?,
        root_position: row.get(6)?,
        description: row.get(7)?,
        created_at: row.get(8)?,
        limits: CacheLimits { retention_days: row.get(9)?, quota_bytes: row.get(10)? },
        keys: parsed(&keys, "secret key of a cache")?,
        public_keys: parsed(&public_keys, "public key of a cache")?,
    })
}

fn texts(connection: &Connection, sql: &str, id: i64) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let texts = statement.query_map([id], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(texts)
}

fn parsed<T: std::str::FromStr>(
    texts: &[String],
    what: &'static str,
) -> Result<Vec<T>, StoreError> {
    texts.iter().map(|text| text.parse().map_err(|_text| StoreError::BadRow(what))).collect()
}
