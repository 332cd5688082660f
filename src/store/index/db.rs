//! Connections to the index, and the one way in which reads run.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};
use tokio::sync::Semaphore;

use crate::store::error::StoreError;
use crate::store::index::cache_chunks;
use crate::store::layout;

const STEPS: &[M<'static>] = &[
    M::up(include_str!("schema/001-first.sql")),
    M::up(include_str!("schema/002-chunks.sql")),
    M::up(include_str!("schema/003-cache-chunks.sql")),
    M::up(include_str!("schema/004-keys.sql")),
    M::up(include_str!("schema/005-tokens.sql")),
    M::up(include_str!("schema/006-attachments.sql")),
    M::up(include_str!("schema/007-collection.sql")),
    M::up(include_str!("schema/008-pins.sql")),
    M::up(include_str!("schema/009-limits.sql")),
];
const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

/// Prepared statements that a connection keeps, a few KiB each.
const STATEMENTS_KEPT: usize = 64;

/// Async reads under way at a time for each connection: one runs, the others wait for it on
/// blocking threads, of which there must not be one for every request.
const READS_QUEUED_PER_CONNECTION: usize = 2;

/// Opens the only connection that writes; brings the tables up to date.
pub(in crate::store) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    layout::touch_private(path)?;
    let mut connection = Connection::open(path)?;
    // FULL: a commit is on the disk when it returns. The log is cut back after a burst.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA cache_size = -2048;
         PRAGMA temp_store = MEMORY;
         PRAGMA journal_size_limit = 16777216;",
    )?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    check_version(&connection)?;
    MIGRATIONS.to_latest(&mut connection)?;
    cache_chunks::fill_if_due(&mut connection)?;
    Ok(connection)
}

/// The version of the tables that this program knows.
fn newest() -> u32 {
    u32::try_from(STEPS.len()).unwrap_or(u32::MAX)
}

fn version(connection: &Connection) -> Result<u32, StoreError> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Fails with [`StoreError::NewerIndex`] if a later larder has migrated the index.
pub(in crate::store) fn check_version(connection: &Connection) -> Result<(), StoreError> {
    match version(connection)? {
        found if found > newest() => Err(StoreError::NewerIndex { found, ours: newest() }),
        _known => Ok(()),
    }
}

/// Whether [`open_writer`] will change the tables of the index at `path`; not of a new one.
pub(in crate::store) fn is_to_be_migrated(path: &Path) -> Result<bool, StoreError> {
    if !path.try_exists().map_err(StoreError::file("look at", path))? {
        return Ok(false);
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    Ok((1..newest()).contains(&version(&connection)?))
}

/// Opens a connection that only reads.
pub(in crate::store) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -1024;")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(connection)
}

/// The read-only connections.
#[derive(Debug)]
pub(in crate::store) struct Readers {
    idle: Mutex<Idle>,
    returned: Condvar,
    queue: Semaphore,
}

#[derive(Debug)]
struct Idle {
    connections: Vec<Connection>,
    closed: bool,
}

impl Readers {
    /// Opens `count` connections (at least one) to the index at `path`, which must exist.
    pub(in crate::store) fn open(path: &Path, count: usize) -> Result<Self, StoreError> {
        let count = count.max(1);
        let connections = (0..count).map(|_| open_reader(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            idle: Mutex::new(Idle { connections, closed: false }),
            returned: Condvar::new(),
            queue: Semaphore::new(count * READS_QUEUED_PER_CONNECTION),
        })
    }

    /// Runs `work` in one read transaction, here; waits for a connection. For blocking threads.
    pub(in crate::store) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let lent = Lent { connection: self.take(), home: self };
        let connection = lent.connection.as_ref().ok_or(StoreError::Closed)?;
        let snapshot = connection.unchecked_transaction()?;
        work(&snapshot)
    }

    /// Runs `work` as [`read`](Self::read) does, on a blocking thread. Dropping the future
    /// does not stop a read that has begun.
    pub(in crate::store) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _place = self.queue.acquire().await.map_err(|_closed| StoreError::Closed)?;
        let readers = Arc::clone(self);
        tokio::task::spawn_blocking(move || readers.read(work)).await?
    }

    /// Lets no further read begin, and closes connections as they come back.
    pub(in crate::store) fn close(&self) {
        self.queue.close();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.closed = true;
        idle.connections.clear();
        self.returned.notify_all();
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while !idle.closed {
            match idle.connections.pop() {
                Some(connection) => return Some(connection),
                None => idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        }
        None
    }
}

/// A connection on loan; goes back also when the borrower panics.
struct Lent<'a> {
    connection: Option<Connection>,
    home: &'a Readers,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !idle.closed {
            idle.connections.extend(self.connection.take());
        }
        self.home.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_sound() {
        MIGRATIONS.validate().unwrap();
    }
}
