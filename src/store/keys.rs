//! Keys of caches, for those who hold the store.

use crate::formats::signature::{PublicKey, SecretKey};
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::index::caches::CacheId;
use crate::store::index::keys;
use crate::store::index::keys::ManagedKey;

/// What is written fails with [`StoreError::CommitFailed`] and the like, what is read with
/// [`StoreError::Index`] or [`StoreError::BadRow`].
#[expect(clippy::missing_errors_doc, reason = "the lines above say it for all")]
impl Store {
    /// The managed keys of a cache, newest first, retired ones too.
    pub async fn managed_keys(&self, cache: CacheId) -> Result<Vec<ManagedKey>, StoreError> {
        self.0.readers.run(move |connection| keys::managed(connection, cache)).await
    }

    /// Lets `key` be a cache's newest. Those before it sign for `overlap` seconds of running more.
    pub async fn rotate_key(
        &self,
        cache: CacheId,
        key: SecretKey,
        overlap: u64,
    ) -> Result<(), StoreError> {
        self.0.writer.run(move |group| keys::rotate(group.tx, cache, &key, overlap)).await
    }

    /// Lets a managed key that is not the newest sign for `overlap` seconds of running; 0 retires
    /// it. False if there is none.
    pub async fn set_key_overlap(
        &self,
        cache: CacheId,
        name: String,
        overlap: u64,
    ) -> Result<bool, StoreError> {
        self.0.writer.run(move |group| keys::set_overlap(group.tx, cache, &name, overlap)).await
    }

    /// Takes `seconds` that the box has run off every overlap. Whether a key was retired by it.
    pub async fn age_keys(&self, seconds: u64) -> Result<bool, StoreError> {
        self.0.writer.run(move |group| keys::age(group.tx, seconds)).await
    }

    /// Registers a public key with a self-signed cache.
    pub async fn register_key(&self, cache: CacheId, key: PublicKey) -> Result<(), StoreError> {
        self.0.writer.run(move |group| keys::register(group.tx, cache, &key)).await
    }

    /// Takes a registered public key away. False if there is none of that name.
    pub async fn unregister_key(&self, cache: CacheId, name: String) -> Result<bool, StoreError> {
        self.0.writer.run(move |group| keys::unregister(group.tx, cache, &name)).await
    }
}
