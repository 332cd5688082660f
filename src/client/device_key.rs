//! The key of this machine's user: an Ed25519 seed whose signature goes with every push, so that
//! a box can tell later who brought what.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use crate::client::secret_file;

/// Bytes of the seed, and of its file.
pub const SEED_LEN_BYTES: usize = 32;

/// Why there is no device key.
#[derive(Debug, thiserror::Error)]
pub enum DeviceKeyError {
    /// The file cannot be read or written.
    #[error("cannot {action} the device key {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else is in the file.
    #[error(
        "{} is no device key: it has {found} bytes, not {SEED_LEN_BYTES}; take it away to get a new one",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: usize,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes for a device key")]
    NoRandomness,
}

/// The seed in `path`, made there (mode 0600) if there is none. If several processes make it at
/// once, all of them get the same.
///
/// # Errors
///
/// [`DeviceKeyError`].
pub fn load_or_make(path: &Path) -> Result<[u8; SEED_LEN_BYTES], DeviceKeyError> {
    if let Some(seed) = load(path)? {
        return Ok(seed);
    }
    let mut seed = [0; SEED_LEN_BYTES];
    SystemRandom::new().fill(&mut seed).map_err(|_| DeviceKeyError::NoRandomness)?;
    let file = |action, source| DeviceKeyError::File { action, path: path.to_owned(), source };
    let is_ours = secret_file::create(path, &seed).map_err(|error| file("write", error))?;
    if is_ours {
        return Ok(seed);
    }
    load(path)?.ok_or_else(|| file("read", io::ErrorKind::NotFound.into()))
}

fn load(path: &Path) -> Result<Option<[u8; SEED_LEN_BYTES]>, DeviceKeyError> {
    match fs::read(path) {
        Ok(bytes) => {
            let found = bytes.len();
            let seed = bytes.try_into();
            seed.map(Some).map_err(|_bytes| DeviceKeyError::Length { path: path.to_owned(), found })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DeviceKeyError::File { action: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use super::*;

    #[test]
    fn whoever_comes_at_once_gets_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("larder/device.key");
        let seeds: BTreeSet<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| load_or_make(&path).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(seeds.len(), 1);
        assert_ne!(seeds.first(), Some(&[0; SEED_LEN_BYTES]));
    }

    #[test]
    fn another_file_is_not_taken_for_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.key");
        fs::write(&path, b"short").unwrap();
        let error = load_or_make(&path).unwrap_err();
        assert!(matches!(error, DeviceKeyError::Length { found: 5, .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }
}
