//! Taking attachments: rights, then the contents, then the store.

use std::io;
use std::io::Read;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tracing::info;

use crate::formats::limits::{ATTACHMENT_FRAME_BYTES_MAX, ATTACHMENT_WINDOW_LOG_MAX};
use crate::formats::realisation::Realisation;
use crate::formats::{AttachmentName, CacheName, attachment};
use crate::services::auth::Caller;
use crate::services::publish::{PublishError, Publisher, PusherId};
use crate::store::{Attachment, Cache, SigningMode, StoreError};

/// Why an attachment was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The name is not one of that kind.
    #[error("a build log is that of a derivation")]
    Name,
    /// It is larger than it may be.
    #[error(
        "{name} has more than {max_bytes} bytes, or its frame more than {ATTACHMENT_FRAME_BYTES_MAX}"
    )]
    TooLarge {
        /// What it is.
        name: AttachmentName,
        /// What is allowed.
        max_bytes: u32,
    },
    /// The bytes are no zstd frame, or one that needs too much memory to be read.
    #[error("{name} is no zstd frame with a window of at most {} KiB", (1_u64 << ATTACHMENT_WINDOW_LOG_MAX) >> 10)]
    Frame {
        /// What it is.
        name: AttachmentName,
        /// Why.
        source: io::Error,
    },
    /// A realisation that is none, or of another output.
    #[error("{0} is no realisation of that output as Nix writes it")]
    Realisation(AttachmentName),
    /// A self-signed cache demands a signature by one of its keys.
    #[error("the realisation {0} is not signed by a key that is registered with the cache")]
    Unsigned(AttachmentName),
}

impl Publisher {
    /// Takes an attachment; false if there is one of that name, which stays.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was kept then.
    pub async fn attach(
        &self,
        caller: &Caller,
        cache: &CacheName,
        name: AttachmentName,
        zstd: Vec<u8>,
    ) -> Result<bool, PublishError> {
        let cache = self.cache(caller, cache)?;
        if !caller.may_write(&cache) {
            return Err(PublishError::Forbidden { cache: cache.name.clone() });
        }
        let pusher = PusherId { token: caller.token.id, device_key: [0; 32] };
        let core = self.0.cores.take(pusher, 1).await;
        let (of, what) = (Arc::clone(&cache), name.clone());
        let checked = spawn_blocking(move || {
            let _one_of_few = core;
            check(&of, &what, zstd)
        });
        let contents = checked.await.map_err(StoreError::from)??;
        let is_new = self.0.store.attach(cache.id, name.clone(), contents).await?;
        info!(cache = %cache.name, token.id = caller.token.id.0, is_new, "Took {name}");
        Ok(is_new)
    }
}

/// Reads the contents once, whole and within bounds.
fn check(cache: &Cache, name: &AttachmentName, zstd: Vec<u8>) -> Result<Attachment, AttachError> {
    if !name.is_sound() {
        return Err(AttachError::Name);
    }
    let max_bytes = name.contents_max();
    let too_large = || AttachError::TooLarge { name: name.clone(), max_bytes };
    if zstd.len() > ATTACHMENT_FRAME_BYTES_MAX {
        return Err(too_large());
    }
    let read = read(name, &zstd, u64::from(max_bytes));
    let (raw_len, json) =
        read.map_err(|source| AttachError::Frame { name: name.clone(), source })?;
    let raw_len = u32::try_from(raw_len).ok().filter(|length| *length <= max_bytes);
    let raw_len = raw_len.ok_or_else(too_large)?;
    if let AttachmentName::Realisation(_) = name {
        check_realisation(cache, name, &json)?;
    }
    Ok(Attachment { raw_len, zstd })
}

/// How many bytes the contents have, or one more than they may; and those of a realisation.
fn read(name: &AttachmentName, frame: &[u8], max_bytes: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut contents = attachment::unpack(frame)?.take(max_bytes + 1);
    let mut json = Vec::new();
    let length = match name {
        AttachmentName::BuildLog(_) => io::copy(&mut contents, &mut io::sink())?,
        AttachmentName::Realisation(_) => io::copy(&mut contents, &mut json)?,
    };
    Ok((length, json))
}

fn check_realisation(cache: &Cache, name: &AttachmentName, json: &[u8]) -> Result<(), AttachError> {
    let realisation = Realisation::from_json(json);
    let wrong = || AttachError::Realisation(name.clone());
    let realisation = realisation.map_err(|_json| wrong())?;
    if *name != AttachmentName::Realisation(realisation.id.clone()) {
        return Err(wrong());
    }
    let is_signed = || {
        let fingerprint = realisation.fingerprint();
        let mut pairs = realisation
            .signatures
            .iter()
            .flat_map(|signature| cache.public_keys.iter().map(move |key| (key, signature)));
        pairs.any(|(key, signature)| key.verifies(fingerprint.as_bytes(), signature))
    };
    if cache.signing == SigningMode::SelfSigned && !is_signed() {
        return Err(AttachError::Unsigned(name.clone()));
    }
    Ok(())
}
