//! Signs paths for a self-signed cache: each after its bytes were read and found to be what the
//! Nix database says, so that no signature of other bytes ever leaves this machine.

use std::io::{self, Write};
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::client::nix_store::dump;
use crate::client::push::one_line;
use crate::formats::PathInfo;
use crate::formats::hash::Sha256Hasher;
use crate::formats::signature::{PublicKey, SecretKey};
use crate::transports::quic::RequestError;

/// The key of a push, and how many paths may be read for it at a time.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    key: SecretKey,
    readers: Arc<Semaphore>,
}

impl Signer {
    pub(super) fn new(key: SecretKey) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { key, readers: Arc::new(Semaphore::new(processors)) }
    }

    pub(super) fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Adds the key's signature to a path whose files are at `root`.
    pub(super) async fn sign(
        &self,
        root: PathBuf,
        info: &mut PathInfo,
    ) -> Result<(), RequestError> {
        let _turn = self.readers.acquire().await;
        let (hash, size) = (info.nar_hash, info.nar_size);
        let read = spawn_blocking(move || {
            let mut nar = Hashing { hasher: Sha256Hasher::new(), room: size };
            dump(&root, &mut nar).map(|()| (nar.hasher.finish(), nar.room))
        });
        let read = read.await.map_err(|error| RequestError::Source(error.to_string()))?;
        let (found, short) = read.map_err(|error| RequestError::Source(one_line(&error)))?;
        if found != hash || short != 0 {
            return Err(RequestError::Source(
                "its files are not what the Nix database says, so it was not signed; \
                 'nix-store --verify --check-contents' finds such paths"
                    .to_owned(),
            ));
        }
        let signature = self.key.sign(info.fingerprint().as_bytes());
        // An older one by the same name may be of other facts.
        info.signatures.retain(|other| other.key_name() != self.key.name());
        info.signatures.push(signature);
        Ok(())
    }
}

/// Whether one of these keys has signed the path already, as `nix store sign` does.
pub(super) fn is_signed(info: &PathInfo, keys: &[PublicKey]) -> bool {
    let fingerprint = info.fingerprint();
    let by = |key: &PublicKey| {
        info.signatures.iter().any(|signature| key.verifies(fingerprint.as_bytes(), signature))
    };
    keys.iter().any(by)
}

/// Takes as many bytes as the NAR should have.
struct Hashing {
    hasher: Sha256Hasher,
    room: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let longer = || io::Error::other("it is larger than the Nix database says");
        self.room = self.room.checked_sub(len).ok_or_else(longer)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
