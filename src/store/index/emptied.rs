//! Packs whose records that count were all moved, until their files are gone.

use rusqlite::Connection;

use crate::store::error::StoreError;

pub(in crate::store) fn insert(connection: &Connection, pack: u32) -> Result<(), StoreError> {
    let sql = "INSERT OR IGNORE INTO emptied_packs (pack) VALUES (?)";
    connection.prepare_cached(sql)?.execute([pack])?;
    Ok(())
}

pub(in crate::store) fn remove(connection: &Connection, pack: u32) -> Result<(), StoreError> {
    connection.prepare_cached("DELETE FROM emptied_packs WHERE pack = ?")?.execute([pack])?;
    Ok(())
}

pub(in crate::store) fn all(connection: &Connection) -> Result<Vec<u32>, StoreError> {
    let mut statement = connection.prepare("SELECT pack FROM emptied_packs ORDER BY pack")?;
    let packs = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(packs)
}
