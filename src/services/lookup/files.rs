//! Single files out of NARs, for readers.

use tokio::task::spawn_blocking;
use tracing::error;

use crate::formats::nar::{Entry, find};
use crate::formats::{FilePath, PinName, StorePath, StorePathHash};
use crate::services::caches::Scope;
use crate::services::lookup::Lookup;
use crate::store::{NarFile, StoreError};

/// Listings that are read for single files at a time: a few times 8 MiB each, for large ones.
pub(super) const LISTINGS_READ_MAX: usize = 4;

/// A file inside a stored NAR.
#[derive(Clone, Debug)]
pub struct StoredFile {
    /// The NAR.
    pub nar: NarFile,
    /// Where in the NAR its bytes begin.
    pub offset: u64,
    /// How many there are.
    pub size: u64,
    /// What it was asked for as: the last part of its path, or the name of its store path.
    pub name: String,
}

/// Why there is no file to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFile {
    /// No path of that hash is visible.
    #[error("there is no such path in the cache")]
    NoPath,
    /// No pin of that name has such an artifact.
    #[error("no pin of this name has such an artifact")]
    NoArtifact,
    /// The NAR has no listing.
    #[error(
        "the path has too many files, or names that are not UTF-8, so the box has no list of them \
         to find one by"
    )]
    NoListing,
    /// There is nothing of that name in the path.
    #[error("there is no such file in the path")]
    Missing,
    /// It is a directory.
    #[error("this is a directory; only files are served")]
    Directory,
    /// A symlink leads to something that is not in the path.
    #[error("a symlink leads out of the store path, and is not followed")]
    Outside,
}

impl Lookup {
    /// A file inside a path that is visible in `scope`; without `file`, the path itself, if it is
    /// one. Symlinks are followed inside the path.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if index or listing cannot be read.
    pub async fn file(
        &self,
        scope: &Scope,
        hash: StorePathHash,
        file: Option<FilePath>,
    ) -> Result<Result<StoredFile, NoFile>, StoreError> {
        let Some((_, record)) = self.records(scope, hash).await?.into_iter().next() else {
            return Ok(Err(NoFile::NoPath));
        };
        self.file_in(&record.info.store_path, record.nar, file).await
    }

    /// An artifact of the newest revision of a pin, of the first cache of `scope` that has it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if index or listing cannot be read.
    pub async fn artifact(
        &self,
        scope: &Scope,
        pin: &PinName,
        file: FilePath,
    ) -> Result<Result<StoredFile, NoFile>, StoreError> {
        for cache in scope.caches() {
            let newest = self.0.store.newest_pin(cache.id, pin.clone()).await?;
            if let Some(pin) = newest.filter(|pin| pin.artifacts.contains(&file)) {
                return self.file(scope, pin.path.hash(), Some(file)).await;
            }
        }
        Ok(Err(NoFile::NoArtifact))
    }

    /// A file of this NAR.
    pub(in crate::services) async fn file_in(
        &self,
        path: &StorePath,
        nar: NarFile,
        file: Option<FilePath>,
    ) -> Result<Result<StoredFile, NoFile>, StoreError> {
        // Never closed, so never refused.
        let _one_of_few = self.0.listings.acquire().await;
        let Some(listing) = self.0.store.listing(nar.id).await? else {
            return Ok(Err(NoFile::NoListing));
        };
        let name = file.as_ref().map_or(path.name(), FilePath::name).to_owned();
        let path = path.clone();
        let found = spawn_blocking(move || find(&listing, &path, file.as_ref())).await?;
        Ok(match found {
            Ok(Entry::File { offset, size }) => Ok(StoredFile { nar, offset, size, name }),
            Ok(Entry::Directory) => Err(NoFile::Directory),
            Ok(Entry::Missing) => Err(NoFile::Missing),
            Ok(Entry::Outside) => Err(NoFile::Outside),
            Err(error) => {
                error!(nar.hash = %nar.nar_hash, %error, "The listing of a NAR cannot be read");
                Err(NoFile::NoListing)
            }
        })
    }
}
