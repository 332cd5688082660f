//! Build logs and realisations, for readers.

use std::io::Read;

use bytes::Bytes;

use crate::formats::realisation::Realisation;
use crate::formats::{AttachmentName, attachment};
use crate::services::caches::Scope;
use crate::services::lookup::Lookup;
use crate::services::signing;
use crate::store::{Attachment, Cache, StoreError};

impl Lookup {
    /// The build log of a derivation, compressed; of several caches the first that has it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the index cannot be read.
    pub async fn build_log(
        &self,
        scope: &Scope,
        name: &AttachmentName,
    ) -> Result<Option<Attachment>, StoreError> {
        for cache in scope.caches() {
            let found = self.0.store.attachment(cache.id, name.clone()).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// A realisation as JSON, with the managed signatures of its cache; of several caches the
    /// first that has it.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the index cannot be read.
    pub async fn realisation(
        &self,
        scope: &Scope,
        name: &AttachmentName,
    ) -> Result<Option<Bytes>, StoreError> {
        for cache in scope.caches() {
            let found = self.0.store.attachment(cache.id, name.clone()).await?;
            if let Some(json) = found.and_then(|found| signed(cache, &found)) {
                return Ok(Some(json.into()));
            }
        }
        Ok(None)
    }
}

/// What was checked when it came is read again; if it cannot be, it is not there.
fn signed(cache: &Cache, stored: &Attachment) -> Option<String> {
    let mut json = Vec::new();
    let contents = attachment::unpack(&stored.zstd).ok()?;
    contents.take(u64::from(stored.raw_len)).read_to_end(&mut json).ok()?;
    let mut realisation = Realisation::from_json(&json).ok()?;
    let fingerprint = realisation.fingerprint();
    let own = cache.keys.iter().map(|key| key.sign(fingerprint.as_bytes()));
    let mut signatures = own.collect();
    signing::merge(&mut signatures, &realisation.signatures);
    realisation.signatures = signatures;
    Some(realisation.to_json())
}
