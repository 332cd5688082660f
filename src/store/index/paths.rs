//! Store paths in caches, visible and hidden.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::formats::signature::{PublicKey, Signature};
use crate::formats::{PathInfo, Sha256Hash, StorePath, StorePathHash};
use crate::store::UnixSeconds;
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::index::nars;
use crate::store::index::nars::{NarFile, NarId};
use crate::store::index::tokens::TokenId;
use crate::store::pack::payload;
use crate::store::uses::Use;

/// Who pushes, for the record.
#[derive(Clone, Debug)]
pub struct Pusher {
    /// The token that the push came with.
    pub token: TokenId,
    /// The Ed25519 public key of the pusher's device.
    pub device_key: [u8; 32],
    /// Its signature over the path's fingerprint.
    pub device_signature: [u8; 64],
    /// Now.
    pub at: UnixSeconds,
}

/// A path to be committed to a cache.
#[derive(Clone, Debug)]
pub struct NewPath {
    /// The cache.
    pub cache: CacheId,
    /// The facts about the path.
    pub info: PathInfo,
    /// Who brings it.
    pub pusher: Pusher,
}

/// A path in a cache.
#[derive(Clone, Debug)]
pub struct PathRecord {
    /// The facts about the path.
    pub info: PathInfo,
    /// Its stored NAR.
    pub nar: NarFile,
    /// Whether all its references are visible in the same cache; else nobody is given it.
    pub visible: bool,
    /// Whether its NAR is known to be damaged on disk. A push of the same NAR heals it.
    pub damaged: bool,
    /// When it was pushed.
    pub pushed_at: UnixSeconds,
}

/// What a commit must know about a path that may be there already.
#[derive(Clone, Debug)]
pub(in crate::store) struct Standing {
    pub(in crate::store) base_name: String,
    pub(in crate::store) nar_hash: Sha256Hash,
    /// Base names, joined by spaces.
    pub(in crate::store) references: String,
    pub(in crate::store) visible: bool,
    pub(in crate::store) signatures: Vec<Signature>,
}

/// What [`record`] reads behind the columns of the NAR, and from where.
const RECORD: &str = "base_name, refs, deriver, ca, signatures, visible, pushed_at
                      FROM paths JOIN nars ON nars.id = paths.nar WHERE cache = ?";

/// A path in a cache with its NAR.
pub(in crate::store) fn get(
    connection: &Connection,
    cache: CacheId,
    hash: StorePathHash,
) -> Result<Option<PathRecord>, StoreError> {
    let sql = format!("SELECT {}, {RECORD} AND hash = ?", nars::JOINED);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![cache.0, hash.as_bytes()])?;
    rows.next()?.map(record).transpose()
}

fn record(row: &Row<'_>) -> Result<PathRecord, StoreError> {
    let nar = nars::from_row(row, 0)?;
    let base_name: String = row.get(7)?;
    let references: String = row.get(8)?;
    let deriver: Option<String> = row.get(9)?;
    let signatures: String = row.get(11)?;
    let path = |text: &str| text.parse::<StorePath>().map_err(|_| StoreError::BadRow("store path"));
    let info = PathInfo {
        store_path: path(&base_name)?,
        nar_hash: nar.nar_hash,
        nar_size: nar.nar_size,
        references: references.split_ascii_whitespace().map(path).collect::<Result<_, _>>()?,
        deriver: deriver.as_deref().map(path).transpose()?,
        ca: row.get(10)?,
        signatures: parse_signatures(&signatures)?,
    };
    Ok(PathRecord {
        info,
        nar,
        visible: row.get(12)?,
        damaged: row.get(6)?,
        pushed_at: row.get(13)?,
    })
}

fn parse_signatures(text: &str) -> Result<Vec<Signature>, StoreError> {
    let parse = |text: &str| text.parse().map_err(|_| StoreError::BadRow("signature of a path"));
    text.split_ascii_whitespace().map(parse).collect()
}

/// What is there under that name.
pub(in crate::store) fn standing(
    connection: &Connection,
    cache: CacheId,
    hash: StorePathHash,
) -> Result<Option<Standing>, StoreError> {
    let sql = "SELECT base_name, nar_hash, visible, signatures, refs
               FROM paths JOIN nars ON nars.id = paths.nar WHERE cache = ? AND hash = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![cache.0, hash.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let signatures: String = row.get(3)?;
    Ok(Some(Standing {
        base_name: row.get(0)?,
        nar_hash: Sha256Hash::from_bytes(row.get(1)?),
        references: row.get(4)?,
        visible: row.get(2)?,
        signatures: parse_signatures(&signatures)?,
    }))
}

/// Writes a path, hidden; one that is there is replaced.
pub(in crate::store) fn put_hidden(
    connection: &Connection,
    new: &NewPath,
    nar: NarId,
    used: Use,
) -> Result<(), StoreError> {
    let NewPath { cache, info, pusher } = new;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO paths (cache, hash, base_name, nar, refs, deriver, ca,
                 signatures, visible, pushed_at, token, device_key, device_signature, used)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            cache.0,
            info.store_path.hash().as_bytes(),
            info.store_path.base_name(),
            nar.0,
            join_references(&info.references),
            info.deriver.as_ref().map(StorePath::base_name),
            info.ca,
            join_signatures(&info.signatures),
            pusher.at,
            pusher.token.0,
            pusher.device_key,
            pusher.device_signature,
            used,
        ])?;
    Ok(())
}

/// Puts a path's signatures in place of those it had.
pub(in crate::store) fn set_signatures(
    connection: &Connection,
    cache: CacheId,
    hash: StorePathHash,
    signatures: &[Signature],
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE paths SET signatures = ? WHERE cache = ? AND hash = ?")?
        .execute(params![join_signatures(signatures), cache.0, hash.as_bytes()])?;
    Ok(())
}

/// References as a row has them.
pub(in crate::store) fn join_references(references: &[StorePath]) -> String {
    references.iter().map(StorePath::base_name).collect::<Vec<_>>().join(" ")
}

fn join_signatures(signatures: &[Signature]) -> String {
    signatures.iter().map(Signature::to_string).collect::<Vec<_>>().join(" ")
}

/// Those of `hashes` that the cache has neither visible nor hidden, or only with a damaged NAR.
/// Order kept.
pub(in crate::store) fn missing(
    connection: &Connection,
    cache: CacheId,
    hashes: Vec<StorePathHash>,
) -> Result<Vec<StorePathHash>, StoreError> {
    let sql = "SELECT nars.damaged OR nars.stale
               FROM paths JOIN nars ON nars.id = paths.nar WHERE cache = ? AND hash = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut missing = Vec::new();
    for hash in hashes {
        let in_trouble: Option<bool> =
            statement.query_row(params![cache.0, hash.as_bytes()], |row| row.get(0)).optional()?;
        if in_trouble.unwrap_or(true) {
            missing.push(hash);
        }
    }
    Ok(missing)
}

/// The hashes of what a path refers to; none if there is no such path.
pub(in crate::store) fn references(
    connection: &Connection,
    cache: CacheId,
    hash: StorePathHash,
) -> Result<Vec<StorePathHash>, StoreError> {
    let record = get(connection, cache, hash)?;
    let references = record.iter().flat_map(|record| &record.info.references);
    Ok(references.map(StorePath::hash).collect())
}

/// The record of a path as it is now, for a pack.
pub(in crate::store) fn to_record(
    connection: &Connection,
    cache: CacheId,
    uuid: [u8; 16],
    hash: StorePathHash,
) -> Result<Option<payload::Path>, StoreError> {
    let Some(path) = get(connection, cache, hash)? else { return Ok(None) };
    let sql = "SELECT device_key, device_signature FROM paths WHERE cache = ? AND hash = ?";
    let (device_key, device_signature) = connection
        .prepare_cached(sql)?
        .query_row(params![cache.0, hash.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Some(payload::Path {
        cache: uuid,
        info: path.info,
        nar_revision: path.nar.revision,
        hidden: !path.visible,
        pushed_at: path.pushed_at,
        device_key,
        device_signature,
    }))
}

/// Where a path stands in the order of uses.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct PathUse {
    pub(in crate::store) hash: StorePathHash,
    pub(in crate::store) used: Use,
    pub(in crate::store) nar: NarId,
    pub(in crate::store) visible: bool,
}

/// Calls `each` with every path of a cache, by hash.
pub(in crate::store) fn for_each_use(
    connection: &Connection,
    cache: CacheId,
    mut each: impl FnMut(PathUse),
) -> Result<(), StoreError> {
    let sql = "SELECT hash, used, nar, visible FROM paths WHERE cache = ? ORDER BY hash";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([cache.0])?;
    while let Some(row) = rows.next()? {
        each(PathUse {
            hash: StorePathHash::from_bytes(row.get(0)?),
            used: row.get(1)?,
            nar: NarId(row.get(2)?),
            visible: row.get(3)?,
        });
    }
    Ok(())
}

/// Calls `each` with every path of a cache, whether it is visible, and one that it refers to.
pub(in crate::store) fn for_each_reference(
    connection: &Connection,
    cache: CacheId,
    mut each: impl FnMut(StorePathHash, bool, StorePathHash),
) -> Result<(), StoreError> {
    let sql = "SELECT hash, visible, refs FROM paths WHERE cache = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([cache.0])?;
    while let Some(row) = rows.next()? {
        let (hash, visible) = (StorePathHash::from_bytes(row.get(0)?), row.get(1)?);
        let references: String = row.get(2)?;
        for reference in references.split_ascii_whitespace() {
            let to =
                reference.parse::<StorePath>().map_err(|_| StoreError::BadRow("store path"))?;
            each(hash, visible, to.hash());
        }
    }
    Ok(())
}

/// Says where a path stands in the order of uses; nothing if there is no such path.
pub(in crate::store) fn set_used(
    connection: &Connection,
    cache: CacheId,
    hash: StorePathHash,
    used: Use,
) -> Result<(), StoreError> {
    connection
        .prepare_cached("UPDATE paths SET used = ? WHERE cache = ? AND hash = ?")?
        .execute(params![used, cache.0, hash.as_bytes()])?;
    Ok(())
}

/// Takes a path away, with what it waited for.
pub(in crate::store) fn delete(
    connection: &Connection,
    cache: CacheId,
    hash: StorePathHash,
) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM waiting WHERE cache = ? AND path = ?",
        "DELETE FROM paths WHERE cache = ? AND hash = ?",
    ] {
        connection.prepare_cached(sql)?.execute(params![cache.0, hash.as_bytes()])?;
    }
    Ok(())
}

/// Calls `each` with the hash of every visible path.
pub(in crate::store) fn for_each_visible(
    connection: &Connection,
    mut each: impl FnMut(StorePathHash),
) -> Result<(), StoreError> {
    let mut statement = connection.prepare("SELECT hash FROM paths WHERE visible")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(StorePathHash::from_bytes(row.get(0)?));
    }
    Ok(())
}

/// Visible and hidden paths of one cache.
pub(in crate::store) fn count_in(
    connection: &Connection,
    cache: CacheId,
) -> Result<(u64, u64), StoreError> {
    let sql = "SELECT count(*) FILTER (WHERE visible), count(*) FILTER (WHERE NOT visible)
               FROM paths WHERE cache = ?";
    Ok(connection.query_row(sql, [cache.0], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

/// Bytes of the NARs of a cache in their stored form, counted for each path.
pub(in crate::store) fn stored_bytes(
    connection: &Connection,
    cache: CacheId,
) -> Result<u64, StoreError> {
    let sql = "SELECT ifnull(sum(file_size), 0) FROM paths JOIN nars ON nars.id = paths.nar
               WHERE cache = ?";
    Ok(connection.prepare_cached(sql)?.query_row([cache.0], |row| row.get(0))?)
}

/// Whether a path of the cache was used last before that place of the order.
pub(in crate::store) fn has_used_before(
    connection: &Connection,
    cache: CacheId,
    place: Use,
) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM paths WHERE cache = ? AND used < ?)";
    Ok(connection.prepare_cached(sql)?.query_row(params![cache.0, place], |row| row.get(0))?)
}

/// Visible paths of one cache: those with a signature by one of `keys`, and the others.
pub(in crate::store) fn count_signed(
    connection: &Connection,
    cache: CacheId,
    keys: &[PublicKey],
) -> Result<(u64, u64), StoreError> {
    let sql = format!("SELECT {}, {RECORD} AND visible", nars::JOINED);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([cache.0])?;
    let (mut signed, mut others) = (0, 0);
    while let Some(row) = rows.next()? {
        let info = record(row)?.info;
        let fingerprint = info.fingerprint();
        let is_by = |key: &PublicKey| {
            info.signatures.iter().any(|it| key.verifies(fingerprint.as_bytes(), it))
        };
        *(if keys.iter().any(is_by) { &mut signed } else { &mut others }) += 1;
    }
    Ok((signed, others))
}

/// How many paths are visible, and how many hidden.
pub(in crate::store) fn count(connection: &Connection) -> Result<(u64, u64), StoreError> {
    let sql =
        "SELECT count(*) FILTER (WHERE visible), count(*) FILTER (WHERE NOT visible) FROM paths";
    Ok(connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
}
