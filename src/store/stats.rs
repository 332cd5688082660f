//! What is in the store, in numbers.

use std::fs;
use std::io;
use std::sync::Arc;

use rusqlite::Connection;

use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::index::paths;
use crate::store::shared::Inner;

/// What is in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Paths that are served, counted in each cache.
    pub paths_visible: u64,
    /// Paths that wait for their references.
    pub paths_hidden: u64,
    /// NARs, each counted once.
    pub nars: u64,
    /// Bytes of these NARs, uncompressed.
    pub nar_bytes: u64,
    /// Chunks in the index.
    pub chunks: u64,
    /// Chunks that are promised to pushes under way.
    pub chunks_leased: u64,
    /// Chunks that are damaged on disk.
    pub damaged_chunks: u64,
    /// Pack files.
    pub pack_files: u64,
    /// Bytes of these files.
    pub pack_bytes: u64,
}

impl Store {
    /// What is in the store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`], or the folder cannot be read.
    pub async fn stats(&self) -> Result<StoreStats, StoreError> {
        let inner = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || read(&inner)).await?
    }

    /// How many paths of a cache are visible, and how many hidden. Counts rows.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`].
    pub async fn count_paths(&self, cache: CacheId) -> Result<(u64, u64), StoreError> {
        self.0.readers.run(move |connection| paths::count_in(connection, cache)).await
    }

    /// Bytes of the NARs of a cache in their stored form, counted for each path: what its quota
    /// is about. Reads the rows of its paths.
    ///
    /// # Errors
    ///
    /// [`StoreError::Index`].
    pub async fn stored_bytes(&self, cache: CacheId) -> Result<u64, StoreError> {
        self.0.readers.run(move |connection| paths::stored_bytes(connection, cache)).await
    }
}

/// Counts. Blocking; reads the folder of the packs and some index pages.
fn read(inner: &Inner) -> Result<StoreStats, StoreError> {
    read_all(inner).inspect_err(|error| inner.shared.trouble.note(error))
}

fn read_all(inner: &Inner) -> Result<StoreStats, StoreError> {
    let mut stats = inner.readers.read(count)?;
    stats.chunks_leased = u64::try_from(inner.shared.leases.count()).unwrap_or(u64::MAX);
    let folder = inner.shared.folder.packs();
    for entry in fs::read_dir(&folder).map_err(StoreError::file("list", &folder))? {
        let entry = entry.map_err(StoreError::file("list", &folder))?;
        let found = match entry.metadata() {
            // A collection has just emptied it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found.map_err(StoreError::file("look at", &entry.path()))?,
        };
        stats.pack_files += 1;
        stats.pack_bytes += found.len();
    }
    Ok(stats)
}

fn count(connection: &Connection) -> Result<StoreStats, StoreError> {
    let (paths_visible, paths_hidden) = paths::count(connection)?;
    let (nars, nar_bytes) =
        connection.query_row("SELECT count(*), ifnull(sum(nar_size), 0) FROM nars", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get(0));
    Ok(StoreStats {
        paths_visible,
        paths_hidden,
        nars,
        nar_bytes,
        chunks: number("SELECT count(*) FROM chunks")?,
        damaged_chunks: number("SELECT count(*) FROM damage")?,
        ..StoreStats::default()
    })
}
