//! Tokens: a hash of each secret, and what it is good for. They never go into packs.

use rusqlite::{Connection, Row, params};

use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;

/// A token, within this data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub i64);

impl TokenId {
    /// Who pushed the paths that a replay found: packs do not say.
    pub(in crate::store) const NOBODY: Self = Self(0);
}

/// What a token may do with a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Take paths.
    Read,
    /// Give paths.
    Write,
    /// Both.
    ReadWrite,
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// What it is for, in its owner's words.
    pub label: String,
    /// Now.
    pub created_at: UnixSeconds,
    /// From when on it is good for nothing; `None`: never.
    pub expires_at: Option<UnixSeconds>,
    /// The caches it is for; `None`: a personal token, which may do everything.
    pub grants: Option<Vec<(CacheId, Right)>>,
    /// The only device that may use it, by its ID; `None`: any.
    pub device_id: Option<[u8; 20]>,
}

/// A token as it is.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its number in this data folder; never used again for another.
    pub id: TokenId,
    /// What it is for, in its owner's words.
    pub label: String,
    /// When it was made.
    pub created_at: UnixSeconds,
    /// From when on it is good for nothing.
    pub expires_at: Option<UnixSeconds>,
    /// When it was last seen, as far as that has been written down.
    pub last_used_at: Option<UnixSeconds>,
    /// Since when it is revoked.
    pub revoked_at: Option<UnixSeconds>,
    /// The caches it is for; `None`: a personal token.
    pub grants: Option<Vec<(CacheId, Right)>>,
    /// The only device that may use it, by its ID; `None`: any.
    pub device_id: Option<[u8; 20]>,
}

/// A token with what it is known by.
#[derive(Clone, Debug)]
pub struct KnownToken {
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// What it is good for.
    pub token: Token,
}

const COLUMNS: &str =
    "id, label, is_personal, created_at, expires_at, last_used_at, revoked_at, device_id";

/// Writes a new token.
pub(in crate::store) fn insert(
    connection: &Connection,
    new: &NewToken,
) -> Result<Token, StoreError> {
    connection
        .prepare_cached(
            "INSERT INTO tokens
                 (secret_hash, label, is_personal, created_at, expires_at, device_id)
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            new.secret_hash,
            new.label,
            new.grants.is_none(),
            new.created_at,
            new.expires_at,
            new.device_id,
        ])?;
    let id = connection.last_insert_rowid();
    for (cache, right) in new.grants.iter().flatten() {
        connection
            .prepare_cached("INSERT INTO token_grants (token, cache, rights) VALUES (?, ?, ?)")?
            .execute(params![id, cache.0, to_bits(*right)])?;
    }
    by_id(connection, TokenId(id))?.ok_or(StoreError::BadRow("token"))
}

/// Tokens behind that one, oldest first, at most `limit`; revoked and expired ones too.
pub(in crate::store) fn page(
    connection: &Connection,
    after: TokenId,
    limit: u32,
) -> Result<Vec<KnownToken>, StoreError> {
    let sql = format!("SELECT {COLUMNS}, secret_hash FROM tokens WHERE id > ? ORDER BY id LIMIT ?");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![after.0, limit])?;
    let mut tokens = Vec::new();
    while let Some(row) = rows.next()? {
        let token = from_row(connection, row)?;
        tokens.push(KnownToken { secret_hash: row.get(8)?, token });
    }
    Ok(tokens)
}

/// Revokes a token; a second time changes nothing. False if there is none.
pub(in crate::store) fn revoke(
    connection: &Connection,
    id: TokenId,
    at: UnixSeconds,
) -> Result<bool, StoreError> {
    let changed = connection
        .prepare_cached("UPDATE tokens SET revoked_at = ifnull(revoked_at, ?) WHERE id = ?")?
        .execute(params![at, id.0])?;
    Ok(changed > 0)
}

/// Writes down that a token was used.
pub(in crate::store) fn touch(
    connection: &Connection,
    id: TokenId,
    at: UnixSeconds,
) -> Result<(), StoreError> {
    connection
        .prepare_cached(
            "UPDATE tokens SET last_used_at = max(ifnull(last_used_at, 0), ?) WHERE id = ?",
        )?
        .execute(params![at, id.0])?;
    Ok(())
}

fn by_id(connection: &Connection, id: TokenId) -> Result<Option<Token>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM tokens WHERE id = ?");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(|row| from_row(connection, row)).transpose()
}

fn from_row(connection: &Connection, row: &Row<'_>) -> Result<Token, StoreError> {
    let id: i64 = row.get(0)?;
    let is_personal: bool = row.get(2)?;
    Ok(Token {
        id: TokenId(id),
        label: row.get(1)?,
        created_at: row.get(3)?,
        expires_at: row.get(4)?,
        last_used_at: row.get(5)?,
        revoked_at: row.get(6)?,
        grants: if is_personal { None } else { Some(grants(connection, id)?) },
        device_id: row.get(7)?,
    })
}

fn grants(connection: &Connection, token: i64) -> Result<Vec<(CacheId, Right)>, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT cache, rights FROM token_grants WHERE token = ? ORDER BY cache")?;
    let mut rows = statement.query([token])?;
    let mut grants = Vec::new();
    while let Some(row) = rows.next()? {
        let right = from_bits(row.get(1)?).ok_or(StoreError::BadRow("right of a token"))?;
        grants.push((CacheId(row.get(0)?), right));
    }
    Ok(grants)
}

fn to_bits(right: Right) -> u8 {
    match right {
        Right::Read => 1,
        Right::Write => 2,
        Right::ReadWrite => 3,
    }
}

fn from_bits(bits: u8) -> Option<Right> {
    match bits {
        1 => Some(Right::Read),
        2 => Some(Right::Write),
        3 => Some(Right::ReadWrite),
        _ => None,
    }
}
