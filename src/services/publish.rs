//! Taking pushes: rights and signatures first, then bytes, then the commit.

mod attach;
mod refusal;
mod upload;

use std::sync::Arc;

use tracing::info;

use crate::formats::limits::{CONTENT_ADDRESS_BYTES_MAX, REFERENCES_MAX, SIGNATURES_MAX};
use crate::formats::signature::{Signature, verifies_unnamed};
use crate::formats::{CacheName, PathInfo, StorePathHash};
use crate::services::auth::Caller;
use crate::services::caches::Caches;
use crate::services::clock;
use crate::services::collections::Collections;
use crate::services::metrics::{Metrics, PushEnd};
use crate::services::narinfo_cache::NarInfoCache;
use crate::services::signing;
use crate::services::signing::Unsigned;
use crate::services::turns::Turns;
use crate::store::{
    Cache, CommitOutcome, IngestError, NarSource, NewPath, Pusher, Store, StoreError, TokenId,
    UnixSeconds,
};
use crate::wire::message::{Offer, PushOutcome};

pub use attach::AttachError;
pub use upload::Upload;

/// Why a push was not taken. As a [`Refusal`](crate::wire::Refusal) it is what the client hears.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// There is no such cache, or it is a private one of which the token says nothing: who has no
    /// right on it does not learn that there is one.
    #[error("there is no cache called '{0}' on this box that the token may use")]
    NoSuchCache(CacheName),
    /// The token does not allow it.
    #[error(
        "the token may not push to the cache '{cache}'; ask the owner of the box for one that may"
    )]
    Forbidden {
        /// The cache.
        cache: CacheName,
    },
    /// The facts about the path cannot be.
    #[error("{0}")]
    BadFacts(&'static str),
    /// The device signature is not of these facts by this device.
    #[error("the device signature is not one of this path by this device")]
    BadSignature,
    /// A self-signed cache demands a signature by one of its keys.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    /// A batch came to its end without all frames that were asked for.
    #[error("chunks that the box asked for did not come")]
    FramesMissing,
    /// More batches or chunks at a time than the order of a push allows.
    #[error("frames came that no batch under way has asked for")]
    FramesUnasked,
    /// The NAR was not taken in.
    #[error("the NAR was not taken in")]
    Ingest(#[from] IngestError),
    /// An attachment cannot be taken.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

/// What comes of an [`Offer`].
#[derive(Debug)]
pub enum Begun {
    /// Nothing needs to be sent.
    Done(PushOutcome),
    /// The NAR has to come.
    Upload(Upload),
}

/// Whose turn it is: who shares a token is told apart by his device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PusherId {
    /// The token of the push.
    pub token: TokenId,
    /// The Ed25519 public key of the device; of an attachment, which names none, zeros.
    pub device_key: [u8; 32],
}

/// Takes pushes.
#[derive(Clone, Debug)]
pub struct Publisher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    caches: Caches,
    collections: Collections,
    narinfos: Arc<NarInfoCache>,
    metrics: Arc<Metrics>,
    /// Ingests that may compute at a time: hashing and decompression keep a core busy each. They
    /// go round by who pushes.
    cores: Turns<PusherId>,
}

impl Publisher {
    pub(super) fn new(
        store: Store,
        caches: Caches,
        collections: Collections,
        narinfos: Arc<NarInfoCache>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let cores = Turns::new(cores);
        Self(Arc::new(Inner { store, caches, collections, narinfos, metrics, cores }))
    }

    /// Which of these paths the cache has neither visible nor hidden, in the order asked. A path
    /// whose NAR is damaged counts as missing, so that pushing it heals it.
    ///
    /// # Errors
    ///
    /// [`PublishError::NoSuchCache`], also where the token has no right at all; or the store
    /// failed.
    pub async fn missing(
        &self,
        caller: &Caller,
        cache: &CacheName,
        hashes: Vec<StorePathHash>,
    ) -> Result<Vec<StorePathHash>, PublishError> {
        let cache = self.cache(caller, cache)?;
        Ok(self.0.store.missing(cache.id, hashes).await?)
    }

    /// Forgets who sent chunks so long ago that it counts for nothing.
    pub(super) async fn forget_old_uploads(&self, now: UnixSeconds) -> Result<(), StoreError> {
        self.0.store.forget_old_uploads(now).await
    }

    /// Checks rights, facts and the device signature, and answers at once if nothing needs to be
    /// sent: because the path is there, another NAR is visible under its name, or the box has
    /// the same NAR already.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was kept then.
    pub async fn begin(
        &self,
        caller: &Caller,
        cache: &CacheName,
        device_key: [u8; 32],
        offer: Offer,
    ) -> Result<Begun, PublishError> {
        let begun = self.try_begin(caller, cache, device_key, offer).await;
        if begun.is_err() {
            self.0.metrics.push(PushEnd::Refused);
        }
        begun
    }

    async fn try_begin(
        &self,
        caller: &Caller,
        cache: &CacheName,
        device_key: [u8; 32],
        offer: Offer,
    ) -> Result<Begun, PublishError> {
        let cache = self.cache(caller, cache)?;
        if !caller.may_write(&cache) {
            return Err(PublishError::Forbidden { cache: cache.name.clone() });
        }
        check_facts(&offer.info)?;
        let device_signature = check_signature(&device_key, &offer)?;
        signing::check(&cache, &offer.info)?;
        let at = clock::now();
        let pusher = Pusher { token: caller.token.id, device_key, device_signature, at };
        let path = NewPath { cache: cache.id, info: offer.info, pusher };
        if let Some(outcome) = self.without_upload(&cache, &path).await? {
            return Ok(Begun::Done(outcome));
        }
        Ok(Begun::Upload(Upload::new(Arc::clone(&self.0), cache, path)))
    }

    /// The cache of that name, if the token has any right on it; to others there is none.
    fn cache(&self, caller: &Caller, name: &CacheName) -> Result<Arc<Cache>, PublishError> {
        let cache = self.0.caches.get(name).filter(|cache| caller.sees(cache));
        cache.ok_or_else(|| PublishError::NoSuchCache(name.clone()))
    }

    /// Settles a push whose NAR need not come.
    async fn without_upload(
        &self,
        cache: &Cache,
        path: &NewPath,
    ) -> Result<Option<PushOutcome>, PublishError> {
        let Inner { store, .. } = &*self.0;
        let hash = path.info.store_path.hash();
        // Without asking the filter first: it knows of all caches, and would make paths that
        // others have a little slower than those that nobody has.
        let standing = store.path(path.cache, hash).await?;
        if standing.is_some_and(|other| other.visible && other.info.nar_hash != path.info.nar_hash)
        {
            return Ok(Some(self.0.settled(cache, path, CommitOutcome::KeptFirst)));
        }
        let known = store.known_nar(path).await?;
        let Some(nar) = known.filter(|nar| nar.nar_size == path.info.nar_size) else {
            return Ok(None);
        };
        match store.commit_path(path.clone(), NarSource::Known(nar.id)).await {
            Ok(outcome) => Ok(Some(self.0.settled(cache, path, outcome))),
            // It went away, or was found damaged, meanwhile: the NAR has to come after all.
            Err(StoreError::ChunksVanished { .. } | StoreError::NoSuchNar(_)) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }
}

impl Inner {
    /// Notes what became of a path: for readers, for the log, and for the metrics.
    fn settled(&self, cache: &Cache, path: &NewPath, outcome: CommitOutcome) -> PushOutcome {
        self.narinfos.forget(path.info.store_path.hash());
        let (end, outcome) = match outcome {
            CommitOutcome::Stored { woken } => {
                // The root may have them from another cache, with other signatures.
                woken.into_iter().for_each(|hash| self.narinfos.forget(hash));
                (PushEnd::Stored, PushOutcome::Stored)
            }
            CommitOutcome::Known => (PushEnd::Known, PushOutcome::Known),
            CommitOutcome::Hidden { missing } => (PushEnd::Hidden, PushOutcome::Hidden { missing }),
            CommitOutcome::KeptFirst => (PushEnd::KeptFirst, PushOutcome::KeptFirst),
        };
        self.metrics.push(end);
        if matches!(end, PushEnd::Stored | PushEnd::Hidden) {
            self.collections.note_pushed(cache, path.info.nar_size);
        }
        info!(
            cache = %cache.name,
            path = %path.info.store_path,
            outcome = ?end,
            token.id = path.pusher.token.0,
            nar.size_bytes = path.info.nar_size,
            "Took a push of {} to {}: {end:?}", path.info.store_path, cache.name
        );
        outcome
    }
}

/// What the protocol demands too; whoever calls, nothing else gets into the store.
fn check_facts(info: &PathInfo) -> Result<(), PublishError> {
    let is_one_line = |text: &String| {
        text.len() <= CONTENT_ADDRESS_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let wrong = if info.nar_size == 0 {
        "the NAR has no bytes; a NAR has at least 112"
    } else if info.references.len() > REFERENCES_MAX {
        "the path has more references than the box takes"
    } else if !info.references.is_sorted_by(|one, next| one < next) {
        "the references are not sorted, or one is there twice"
    } else if info.signatures.len() > SIGNATURES_MAX {
        "the path has more signatures than the box takes"
    } else if !info.ca.as_ref().is_none_or(is_one_line) {
        "the content address is too long or not plain text"
    } else {
        return Ok(());
    };
    Err(PublishError::BadFacts(wrong))
}

/// The device's signature of the fingerprint, checked.
fn check_signature(
    device_key: &[u8; 32],
    offer: &Offer,
) -> Result<[u8; Signature::LEN_BYTES], PublishError> {
    let signature = <[u8; Signature::LEN_BYTES]>::try_from(offer.device_signature.as_slice());
    let signature = signature.map_err(|_length| PublishError::BadSignature)?;
    let fingerprint = offer.info.fingerprint();
    if verifies_unnamed(device_key, fingerprint.as_bytes(), &signature) {
        Ok(signature)
    } else {
        Err(PublishError::BadSignature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::signature::SecretKey;
    use crate::services::tests::path_info;

    fn signed(info: PathInfo, seed: u8) -> ([u8; 32], Offer) {
        let key = SecretKey::from_seed("device", &[seed; 32]).unwrap();
        let signature = key.sign(info.fingerprint().as_bytes());
        let device_signature = signature.as_bytes().to_vec();
        (*key.public_key().as_bytes(), Offer { info, device_signature })
    }

    #[test]
    fn a_device_signature_is_of_these_facts_by_this_device() {
        let (key, offer) = signed(path_info("a", &["b"]), 1);
        assert!(check_signature(&key, &offer).is_ok());
        let (other_key, _) = signed(path_info("a", &["b"]), 2);
        assert!(check_signature(&other_key, &offer).is_err());
        let (_, mut other) = signed(path_info("a", &["b"]), 1);
        other.info.nar_size += 1;
        assert!(check_signature(&key, &other).is_err());
        let mut short = offer.clone();
        short.device_signature.pop();
        assert!(check_signature(&key, &short).is_err());
        // The point of order 1, with which a signature of zeros verifies where nobody is strict.
        let mut weak = [0; 32];
        weak[0] = 1;
        let mut zeros = vec![0; 64];
        zeros[0] = 1;
        assert!(check_signature(&weak, &Offer { device_signature: zeros, ..offer }).is_err());
    }

    #[test]
    fn facts_that_cannot_be_are_refused() {
        let good = path_info("a", &["b", "c"]);
        assert!(check_facts(&good).is_ok());
        let spoiled: [fn(&mut PathInfo); 6] = [
            |info| info.nar_size = 0,
            |info| info.references.reverse(),
            |info| info.references = vec![info.references[0].clone(); 2],
            |info| info.references = vec![info.references[0].clone(); REFERENCES_MAX + 1],
            |info| info.ca = Some("fixed:r:sha256:x\nSig: a".to_owned()),
            |info| info.ca = Some("x".repeat(CONTENT_ADDRESS_BYTES_MAX + 1)),
        ];
        for (number, spoil) in spoiled.iter().enumerate() {
            let mut info = good.clone();
            spoil(&mut info);
            assert!(check_facts(&info).is_err(), "{number}");
        }
    }
}
