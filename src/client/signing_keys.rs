//! Keys with which this machine signs what it pushes to self-signed caches: given in a variable,
//! or saved by `larder generate-keypair`. Only the half that may be shown ever gets into a text.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

use crate::client::secret_file;
use crate::formats::CacheName;
use crate::formats::signature::{ParseKeyError, PublicKey, SecretKey};
use crate::wire::DeviceId;

/// Variables that hold a key, the first one first.
const VARIABLES: [&str; 2] = ["LARDER_SIGNING_KEY", "CACHIX_SIGNING_KEY"];
/// More than a key and the spaces that somebody may have pasted along.
const KEY_FILE_BYTES_MAX: u64 = 4096;

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SigningKeyError {
    /// A variable is set to something else.
    #[error("{0} holds no signing key: it is NAME:BASE64, or base64 of 32 or 64 bytes")]
    Variable(&'static str),
    /// A variable holds a key that the cache does not know.
    #[error("{variable} holds {found}, and the cache '{cache}' takes what is signed by {expected}")]
    OtherKey {
        /// The variable.
        variable: &'static str,
        /// What the key calls itself.
        found: String,
        /// The cache.
        cache: CacheName,
        /// The names of its keys.
        expected: String,
    },
    /// There is no key at hand.
    #[error(
        "the cache '{cache}' takes what is signed by {expected}, and that key is not on this \
         machine; set LARDER_SIGNING_KEY to it, or make another with 'larder generate-keypair {cache}'"
    )]
    None {
        /// The cache.
        cache: CacheName,
        /// The names of its keys.
        expected: String,
    },
    /// Nobody can push to the cache yet.
    #[error(
        "the cache '{0}' takes signed paths alone, and no key is registered with it; \
         'larder generate-keypair {0}' makes one"
    )]
    NoneRegistered(CacheName),
    /// A file cannot be read or written.
    #[error("cannot {action} the signing key {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else is in the file.
    #[error("{} holds no signing key; take it away, or put it right", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The name cannot stand in a narinfo.
    #[error("the key cannot be named")]
    Name(#[from] ParseKeyError),
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes for a signing key")]
    NoRandomness,
}

/// Where keys come from: variables first, then what is saved.
#[derive(Clone, Debug)]
pub struct SigningKeys {
    given: Option<Given>,
    folder: PathBuf,
}

#[derive(Clone, Debug)]
struct Given {
    variable: &'static str,
    /// Called after its variable if it came without a name.
    key: SecretKey,
    is_named: bool,
}

impl SigningKeys {
    /// What the environment holds, in this order: `LARDER_SIGNING_KEY`, `CACHIX_SIGNING_KEY`;
    /// else keys saved below `folder`.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::Variable`].
    pub fn new(
        variable: impl Fn(&str) -> Option<OsString>,
        folder: PathBuf,
    ) -> Result<Self, SigningKeyError> {
        for name in VARIABLES {
            let Some(text) = variable(name).filter(|text| !text.is_empty()) else { continue };
            let text = text.to_string_lossy();
            let (key, is_named) =
                parse(name, text.trim()).ok_or(SigningKeyError::Variable(name))?;
            return Ok(Self { given: Some(Given { variable: name, key, is_named }), folder });
        }
        Ok(Self { given: None, folder })
    }

    /// The key for a cache where these are `registered`, newest first. One from a variable stands
    /// alone; without a name it has that of the registered key that it is.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError`], with the names of the keys that would do.
    pub fn choose(
        &self,
        device: DeviceId,
        cache: &CacheName,
        registered: &[PublicKey],
    ) -> Result<SecretKey, SigningKeyError> {
        let names: Vec<_> = registered.iter().map(|key| format!("'{}'", key.name())).collect();
        let (cache, expected) = (cache.clone(), names.join(" or "));
        if registered.is_empty() {
            return Err(SigningKeyError::NoneRegistered(cache));
        }
        if let Some(Given { variable, key, is_named }) = &self.given {
            return of_given(key, *is_named, registered).ok_or_else(|| {
                let found = if *is_named {
                    format!("the key '{}'", key.name())
                } else {
                    "another key".to_owned()
                };
                SigningKeyError::OtherKey { variable, found, cache, expected }
            });
        }
        let saved = self.saved(device, &cache)?;
        let held = |public: &PublicKey| saved.iter().find(|key| key.public_key() == *public);
        let key = registered.iter().find_map(held).cloned();
        key.ok_or(SigningKeyError::None { cache, expected })
    }

    /// The keys that are saved for a cache of a box.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::File`] or [`SigningKeyError::NoKey`].
    pub fn saved(
        &self,
        device: DeviceId,
        cache: &CacheName,
    ) -> Result<Vec<SecretKey>, SigningKeyError> {
        let folder = self.folder_of(device, cache);
        let unreadable = |source| file_error("read", &folder, source);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(unreadable)?,
        };
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|extension| extension == "key") {
                keys.push(read(&path)?);
            }
        }
        Ok(keys)
    }

    /// Makes a key and saves it, mode 0600; never in the place of another. Its file.
    ///
    /// # Errors
    ///
    /// [`SigningKeyError`].
    pub fn make(
        &self,
        device: DeviceId,
        cache: &CacheName,
        name: &str,
    ) -> Result<(SecretKey, PathBuf), SigningKeyError> {
        let mut seed = [0; SecretKey::SEED_LEN_BYTES];
        SystemRandom::new().fill(&mut seed).map_err(|_| SigningKeyError::NoRandomness)?;
        let key = SecretKey::from_seed(name, &seed)?;
        let path = self.folder_of(device, cache).join(format!("{name}.key"));
        let text = format!("{}\n", key.to_secret_text());
        match secret_file::create(&path, text.as_bytes()) {
            Ok(true) => Ok((key, path)),
            Ok(false) => Err(file_error("write", &path, io::ErrorKind::AlreadyExists.into())),
            Err(source) => Err(file_error("write", &path, source)),
        }
    }

    fn folder_of(&self, device: DeviceId, cache: &CacheName) -> PathBuf {
        self.folder.join(device.to_string()).join(cache.as_str())
    }
}

/// The key that came, with the name that the cache knows it by.
fn of_given(key: &SecretKey, is_named: bool, registered: &[PublicKey]) -> Option<SecretKey> {
    let public = key.public_key();
    let fits = |known: &&PublicKey| {
        known.as_bytes() == public.as_bytes() && (!is_named || known.name() == key.name())
    };
    let known = registered.iter().find(fits)?;
    key.renamed(known.name()).ok()
}

/// `NAME:BASE64` as Nix keeps it, or what cachix exports: base64 of a seed and its public key, or
/// of a seed. Whether it has a name.
fn parse(variable: &str, text: &str) -> Option<(SecretKey, bool)> {
    if text.contains(':') {
        return text.parse().ok().map(|key| (key, true));
    }
    SecretKey::from_bare_text(variable, text).ok().map(|key| (key, false))
}

fn read(path: &Path) -> Result<SecretKey, SigningKeyError> {
    use io::Read;
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|source| file_error("read", path, source))?;
    let read = file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|source| file_error("read", path, source))?;
    text.trim().parse().map_err(|_no_key| SigningKeyError::NoKey { path: path.to_owned() })
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> SigningKeyError {
    SigningKeyError::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    const DEVICE: DeviceId = DeviceId([1; 20]);

    fn key(name: &str, seed: u8) -> SecretKey {
        SecretKey::from_seed(name, &[seed; 32]).unwrap()
    }

    fn keys(folder: &Path, variables: &[(&str, &str)]) -> Result<SigningKeys, SigningKeyError> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        SigningKeys::new(variable, folder.to_owned())
    }

    #[test]
    fn a_variable_stands_alone_and_takes_the_registered_name() {
        let folder = tempfile::tempdir().unwrap();
        let team: CacheName = "team".parse().unwrap();
        let registered = [key("team-2", 2).public_key(), key("team-1", 1).public_key()];
        let named = key("team-1", 1).to_secret_text();
        let (_, bare) = named.split_once(':').unwrap();
        let seed = BASE64.encode(&[1; 32]);
        for text in [named.as_str(), bare, &seed] {
            for variable in VARIABLES {
                let keys = keys(folder.path(), &[(variable, text)]).unwrap();
                let chosen = keys.choose(DEVICE, &team, &registered).unwrap();
                assert_eq!(chosen.to_secret_text(), named);
            }
        }
        let other = key("else-1", 3).to_secret_text();
        let keys = keys(folder.path(), &[("LARDER_SIGNING_KEY", &other)]).unwrap();
        let error = keys.choose(DEVICE, &team, &registered).unwrap_err().to_string();
        assert!(error.contains("'else-1'") && error.contains("'team-2' or 'team-1'"), "{error}");
    }

    #[test]
    fn what_is_no_key_is_said_without_showing_it() {
        let folder = tempfile::tempdir().unwrap();
        let short = BASE64.encode(&[1; 31]);
        for text in ["c2VjcmV0", "team-1:c2VjcmV0", "team 1:AAAA", "s3cret!", &short] {
            let error = keys(folder.path(), &[("LARDER_SIGNING_KEY", text)]).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(text), "{error:?}");
        }
    }

    #[test]
    fn the_newest_registered_key_that_is_saved_signs() {
        let folder = tempfile::tempdir().unwrap();
        let team: CacheName = "team".parse().unwrap();
        let keys = keys(folder.path(), &[]).unwrap();
        let (first, path) = keys.make(DEVICE, &team, "team.box-1").unwrap();
        assert!(keys.make(DEVICE, &team, "team.box-1").is_err());
        assert!(path.ends_with("team.box-1.key"));
        let (second, _) = keys.make(DEVICE, &team, "team.box-2").unwrap();
        let choose = |registered: &[PublicKey]| {
            keys.choose(DEVICE, &team, registered).map(|key| key.name().to_owned()).ok()
        };
        let (first, second) = (first.public_key(), second.public_key());
        assert_eq!(choose(&[second, first.clone()]).as_deref(), Some("team.box-2"));
        assert_eq!(choose(&[key("x-1", 9).public_key(), first]).as_deref(), Some("team.box-1"));
        assert_eq!(choose(&[key("x-1", 9).public_key()]), None);
        assert_eq!(choose(&[]), None);
    }
}
