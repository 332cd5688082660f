//! The client's own file: the default host and the tokens that were saved.
//!
//! ```toml
//! host = "office"
//!
//! [tokens.csm7-nbfr-cayq-ev4f-r65r-x7we-4049-e545]
//! token = "ldr_…"
//! host = "192.168.1.7:5273"
//!
//! [boxes]
//! "office" = "csm7-nbfr-cayq-ev4f-r65r-x7we-4049-e545"
//! ```
//!
//! A key that means nothing is refused with its line. The file holds secrets: it is written with
//! mode 0600, and replaced in one step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::client::host::Host;
use crate::client::secret_file;
use crate::wire::{DeviceId, TokenText};

/// What the file says.
#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    /// The box that is meant when nobody says which.
    pub host: Option<Host>,
    /// One token a box.
    pub tokens: BTreeMap<DeviceId, SavedToken>,
    /// Who answers at a host, as somebody confirmed; nobody else is accepted there. The keys are
    /// hosts as they are [shown](Host).
    pub boxes: BTreeMap<String, DeviceId>,
}

/// A token in the file.
#[derive(Clone, Debug)]
pub struct SavedToken {
    /// The token; its device ID is the key it is saved under.
    pub token: TokenText,
    /// Where its box was when it was saved, if that was said.
    pub host: Option<Host>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no TOML, has a key that means nothing, or a value of the wrong kind.
    #[error("{}, line {line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there, on one line; no value of the file is repeated in it.
        message: String,
    },
    /// A token stands under the ID of another box.
    #[error("{}: the token under {key} is for the box {found}", path.display())]
    OtherBox {
        /// The file.
        path: PathBuf,
        /// Where it stands.
        key: DeviceId,
        /// Whose it is.
        found: DeviceId,
    },
}

impl ClientConfig {
    /// Reads the file; one that is not there says nothing.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::File { action: "read", path: path.to_owned(), source }),
        }
    }

    /// Reads the file's text; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`ConfigError`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let typed: Typed = toml::from_str(text).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().trim_end().replace('\n', "; "),
        })?;
        let mut tokens = BTreeMap::new();
        for (Parsed(key), TypedToken { token: Parsed(token), host }) in typed.tokens {
            if token.device_id() != key {
                let (path, found) = (path.to_owned(), token.device_id());
                return Err(ConfigError::OtherBox { path, key, found });
            }
            let host = host.map(|Parsed(host)| host);
            tokens.insert(key, SavedToken { token, host });
        }
        let boxes = typed.boxes.into_iter().map(|(host, Parsed(id))| (host, id)).collect();
        Ok(Self { host: typed.host.map(|Parsed(host)| host), tokens, boxes })
    }

    /// Replaces the file in one step, mode 0600.
    ///
    /// # Errors
    ///
    /// [`ConfigError::File`].
    pub fn write(&self, path: &Path) -> Result<(), ConfigError> {
        let file = |source| ConfigError::File { action: "write", path: path.to_owned(), source };
        let text = self.to_text().map_err(|error| file(io::Error::other(error)))?;
        secret_file::replace(path, text.as_bytes()).map_err(file)
    }

    /// Takes the token in, in the place of an older one for the same box.
    pub fn save_token(&mut self, token: TokenText, host: Option<Host>) {
        self.tokens.insert(token.device_id(), SavedToken { token, host });
    }

    /// Forgets the token for a box; whether there was one.
    pub fn forget_token(&mut self, device_id: DeviceId) -> bool {
        self.tokens.remove(&device_id).is_some()
    }

    /// Forgets who answers at a host; whether that was known.
    pub fn forget_pairing(&mut self, host: &Host) -> bool {
        self.boxes.remove(&host.to_string()).is_some()
    }

    /// The box that was paired as this host.
    #[must_use]
    pub fn paired(&self, host: &Host) -> Option<DeviceId> {
        self.boxes.get(&host.to_string()).copied()
    }

    /// Keeps who answers at a host, in the place of who did before.
    pub fn save_pairing(&mut self, host: Host, device_id: DeviceId) {
        self.boxes.insert(host.to_string(), device_id);
    }

    fn to_text(&self) -> Result<String, toml::ser::Error> {
        let written = Written {
            host: self.host.as_ref().map(Host::to_string),
            tokens: self
                .tokens
                .iter()
                .map(|(key, saved)| {
                    let host = saved.host.as_ref().map(Host::to_string);
                    (key.to_string(), WrittenToken { token: saved.token.to_secret_text(), host })
                })
                .collect(),
            boxes: self.boxes.iter().map(|(host, id)| (host.clone(), id.to_string())).collect(),
        };
        Ok(format!("{HEAD}{}", toml::to_string(&written)?))
    }
}

const HEAD: &str = "# larder's client. Tokens are secrets. larder writes this file anew, without \
                    comments.\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    host: Option<Parsed<Host>>,
    #[serde(default)]
    tokens: BTreeMap<Parsed<DeviceId>, TypedToken>,
    #[serde(default)]
    boxes: BTreeMap<String, Parsed<DeviceId>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedToken {
    token: Parsed<TokenText>,
    host: Option<Parsed<Host>>,
}

#[derive(Serialize)]
struct Written {
    host: Option<String>,
    tokens: BTreeMap<String, WrittenToken>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    boxes: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct WrittenToken {
    token: String,
    host: Option<String>,
}

/// A value that is written as text.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Parsed<T>(T);

impl<'de, T> Deserialize<'de> for Parsed<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(device: u8) -> TokenText {
        TokenText::new(DeviceId([device; 20]), [9; 32])
    }

    fn parse(text: &str) -> Result<ClientConfig, ConfigError> {
        ClientConfig::parse(Path::new("client.toml"), text)
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("larder/client.toml");
        let mut config = ClientConfig::read(&path).unwrap();
        assert!(config.host.is_none() && config.tokens.is_empty());

        config.host = Some("office".parse().unwrap());
        config.save_token(token(1), Some("192.168.1.7:5273".parse().unwrap()));
        config.save_token(token(2), None);
        let attic: Host = "attic".parse().unwrap();
        config.save_pairing(attic.clone(), DeviceId([7; 20]));
        config.write(&path).unwrap();

        let again = ClientConfig::read(&path).unwrap();
        assert_eq!(again.host, config.host);
        assert_eq!(again.paired(&attic), Some(DeviceId([7; 20])));
        assert_eq!(again.paired(&"other".parse().unwrap()), None);
        assert_eq!(
            again.tokens.keys().collect::<Vec<_>>(),
            config.tokens.keys().collect::<Vec<_>>()
        );
        let saved = again.tokens.get(&token(1).device_id()).unwrap();
        assert_eq!(saved.token.to_secret_text(), token(1).to_secret_text());
        assert_eq!(saved.host.as_ref().unwrap().to_string(), "192.168.1.7:5273");
    }

    #[test]
    fn a_key_that_means_nothing_is_named_with_its_line() {
        for (text, expected) in [
            ("host = \"office\"\nhots = 1", "client.toml, line 2: unknown field `hots`"),
            ("host = \"a b\"", "client.toml, line 1: 'a b' is no host"),
            ("host", "client.toml, line 1:"),
            ("[tokens.abc]\ntoken = \"\"", "client.toml, line 1: a device ID is"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_token_under_another_box_is_refused_and_not_shown() {
        let text =
            format!("[tokens.{}]\ntoken = \"{}\"", token(1).device_id(), token(2).to_secret_text());
        let error = parse(&text).unwrap_err();
        assert!(matches!(error, ConfigError::OtherBox { .. }), "{error}");

        let broken = text.replace("ldr_", "ldr");
        let secret = &token(2).to_secret_text()[40..];
        let message = parse(&broken).unwrap_err().to_string();
        assert!(!message.contains(secret), "{message}");
    }
}
