//! Answers to readers: narinfos, NARs and listings of what is visible where they ask.

mod attachments;
mod files;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::formats::{Compression, NarInfo, Sha256Hash, StorePathHash};
use crate::services::caches::Scope;
use crate::services::metrics::Metrics;
use crate::services::narinfo_cache::{NarInfoCache, NarInfoText};
use crate::services::signing;
use crate::store::{Cache, NarFile, NarStream, PathRecord, Store, StoreError};

pub use files::{NoFile, StoredFile};

/// Answers readers. A miss costs no I/O, and neither does a narinfo that was asked for before.
#[derive(Clone, Debug)]
pub struct Lookup(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    narinfos: Arc<NarInfoCache>,
    metrics: Arc<Metrics>,
    /// See [`files::LISTINGS_READ_MAX`].
    listings: Semaphore,
}

impl Lookup {
    pub(super) fn new(store: Store, narinfos: Arc<NarInfoCache>, metrics: Arc<Metrics>) -> Self {
        let listings = Semaphore::new(files::LISTINGS_READ_MAX);
        Self(Arc::new(Inner { store, narinfos, metrics, listings }))
    }

    /// The narinfo of a path that is visible in `scope`, with the managed signatures of its
    /// cache. A path whose NAR is known to be damaged has none, so that Nix goes elsewhere.
    ///
    /// At the root several caches may have the path: where NarHash and references are the same,
    /// their signatures are merged; else the first cache wins.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the index cannot be read.
    pub async fn narinfo(
        &self,
        scope: &Scope,
        hash: StorePathHash,
    ) -> Result<Option<NarInfoText>, StoreError> {
        let key = (scope.key().clone(), hash);
        let generation = match self.0.narinfos.get(&key) {
            Ok(narinfo) => {
                self.0.metrics.narinfo_hits.inc();
                self.note_use(scope, hash);
                return Ok(Some(narinfo));
            }
            Err(generation) => generation,
        };
        let found = self.records(scope, hash).await?;
        let Some(narinfo) = render(found) else {
            self.0.metrics.narinfo_misses.inc();
            return Ok(None);
        };
        self.0.metrics.narinfo_hits.inc();
        self.note_use(scope, hash);
        let narinfo = NarInfoText::new(narinfo.to_string());
        self.0.narinfos.put(key, narinfo.clone(), generation);
        Ok(Some(narinfo))
    }

    /// The stored NAR of that hash, if a path that is visible in `scope` has it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the index cannot be read.
    pub async fn nar(
        &self,
        scope: &Scope,
        nar_hash: Sha256Hash,
    ) -> Result<Option<NarFile>, StoreError> {
        let caches = scope.caches().iter().map(|cache| cache.id).collect();
        self.0.store.nar_in(caches, nar_hash).await
    }

    /// The listing (JSON) of a path that is visible in `scope`; `None` also if it has too many
    /// entries to have one.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the index or the listing cannot be read.
    pub async fn listing(
        &self,
        scope: &Scope,
        hash: StorePathHash,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.records(scope, hash).await?.into_iter().next() {
            Some((_, record)) => self.0.store.listing(record.nar.id).await,
            None => Ok(None),
        }
    }

    /// Reads a NAR in its stored form: `length` bytes from `offset` of the file.
    #[must_use]
    pub fn read_file(&self, nar: &NarFile, offset: u64, length: u64) -> NarBytes {
        self.bytes(self.0.store.read_file(nar, offset, length))
    }

    /// Reads a NAR decompressed: `length` bytes from `offset` of the NAR.
    #[must_use]
    pub fn read_raw(&self, nar: &NarFile, offset: u64, length: u64) -> NarBytes {
        self.bytes(self.0.store.read_raw(nar, offset, length))
    }

    fn bytes(&self, stream: NarStream) -> NarBytes {
        NarBytes { stream, lookup: self.clone() }
    }

    /// Who asks for a narinfo is about to use the path, in whichever of the caches has it.
    fn note_use(&self, scope: &Scope, hash: StorePathHash) {
        scope.caches().iter().for_each(|cache| self.0.store.note_use(cache.id, hash));
    }

    /// Writes down what was read, for the order in which paths leave.
    pub(super) async fn write_uses(&self) -> Result<(), StoreError> {
        self.0.store.write_uses().await
    }

    /// The path as each cache of `scope` has it and serves it, in the caches' order.
    async fn records(
        &self,
        scope: &Scope,
        hash: StorePathHash,
    ) -> Result<Vec<(Arc<Cache>, PathRecord)>, StoreError> {
        let mut found = Vec::new();
        if !self.0.store.may_have_path(hash) {
            return Ok(found);
        }
        for cache in scope.caches() {
            let record = self.0.store.path(cache.id, hash).await?;
            let served = record.filter(|record| record.visible && !record.damaged);
            found.extend(served.map(|record| (Arc::clone(cache), record)));
        }
        Ok(found)
    }
}

/// Bytes of a NAR on their way to a reader.
#[derive(Debug)]
pub struct NarBytes {
    stream: NarStream,
    lookup: Lookup,
}

impl NarBytes {
    /// The next piece; `None` at the end. After an error nothing more comes, and the transfer
    /// must be broken: a clean end would pass off a part as the whole.
    ///
    /// Cancel-safe: nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the NAR is damaged, went away, or cannot be read.
    pub async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let piece = self.stream.next().await?;
        let Inner { narinfos, metrics, .. } = &*self.lookup.0;
        match &piece {
            Ok(bytes) => metrics.nar_sent(bytes.len()),
            // Narinfos that name this NAR must not be served any more, nor, after it has been
            // healed under another revision, its old URL.
            Err(_unreadable) => {
                metrics.broken_reads.inc();
                narinfos.forget_all();
            }
        }
        Some(piece)
    }
}

/// The narinfo of a path as one or several caches have it, in their order.
fn render(found: Vec<(Arc<Cache>, PathRecord)>) -> Option<NarInfo> {
    let mut found = found.into_iter();
    let (cache, first) = found.next()?;
    let PathRecord { mut info, nar, .. } = first;
    let mut signatures = signing::signatures(&cache, &info);
    for (cache, other) in found {
        let other = other.info;
        if other.nar_hash == info.nar_hash
            && other.references == info.references
            && other.store_path == info.store_path
        {
            signing::merge(&mut signatures, &signing::signatures(&cache, &other));
        }
    }
    info.signatures = signatures;
    Some(NarInfo {
        info,
        url: format!("nar/{}-{}.nar.zst", nar.nar_hash.to_base32(), nar.revision),
        compression: Compression::Zstd,
        file_hash: Some(nar.file_hash),
        file_size: Some(nar.file_size),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::signature::{SecretKey, Signature};
    use crate::services::tests::{cache, path_info};
    use crate::store::NarId;

    fn held(id: i64, name: &str, references: &[&str], nar: &[u8]) -> (Arc<Cache>, PathRecord) {
        let mut cache = cache(id, name);
        cache.keys = vec![SecretKey::from_seed(&format!("{name}.box.local-1"), &[7; 32]).unwrap()];
        let mut info = path_info("a", references);
        info.nar_hash = Sha256Hash::of(nar);
        let nar = NarFile {
            id: NarId(1),
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            revision: 3,
            file_hash: Sha256Hash::of(b"file"),
            file_size: 7,
        };
        (Arc::new(cache), PathRecord { info, nar, visible: true, damaged: false, pushed_at: 1 })
    }

    fn signers(narinfo: &NarInfo) -> Vec<&str> {
        narinfo.info.signatures.iter().map(Signature::key_name).collect()
    }

    #[test]
    fn the_url_names_hash_and_revision() {
        let narinfo = render(vec![held(1, "main", &[], b"nar")]).unwrap();
        let hash = Sha256Hash::of(b"nar").to_base32();
        assert_eq!(narinfo.url, format!("nar/{hash}-3.nar.zst"));
        assert_eq!(narinfo.file_size, Some(7));
        assert_eq!(signers(&narinfo), ["main.box.local-1"]);
    }

    #[test]
    fn what_is_the_same_in_two_caches_carries_the_signatures_of_both() {
        let both = vec![held(1, "main", &["b"], b"nar"), held(2, "other", &["b"], b"nar")];
        let narinfo = render(both).unwrap();
        assert_eq!(signers(&narinfo), ["main.box.local-1", "other.box.local-1"]);
    }

    #[test]
    fn where_two_caches_differ_the_first_wins() {
        for second in [held(2, "other", &["b"], b"another"), held(2, "other", &["c"], b"nar")] {
            let narinfo = render(vec![held(1, "main", &["b"], b"nar"), second]).unwrap();
            assert_eq!(signers(&narinfo), ["main.box.local-1"]);
            assert_eq!(narinfo.info.nar_hash, Sha256Hash::of(b"nar"));
        }
    }

    #[test]
    fn what_nobody_has_is_nothing() {
        assert!(render(Vec::new()).is_none());
    }
}
