//! The settings file as it was typed: TOML, every key optional, no key unknown.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::daemon::logging::{LogFilter, LogFormat};
use crate::formats::BoxName;
use crate::transports::http::PlainTokens;

/// What may stand in the file. `config/larder.toml` describes each key; a test compares the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SettingsFile {
    pub(super) name: Option<BoxName>,
    pub(super) data: Option<PathBuf>,
    pub(super) listen: Option<SocketAddr>,
    pub(super) quic_listen: Option<SocketAddr>,
    pub(super) mdns: Option<bool>,
    pub(super) key_host: Option<String>,
    pub(super) tls_certificate: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) http: HttpSection,
    pub(super) log: LogSection,
    pub(super) store: StoreSection,
    pub(super) limits: LimitsSection,
}

/// `[http]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HttpSection {
    pub(super) plain_tokens: Option<PlainTokens>,
    pub(super) head_timeout: Option<SignedDuration>,
    pub(super) idle_timeout: Option<SignedDuration>,
    pub(super) stall_timeout: Option<SignedDuration>,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogSection {
    pub(super) level: Option<LogFilter>,
    pub(super) format: Option<LogFormat>,
}

/// `[store]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StoreSection {
    pub(super) readers: Option<usize>,
    pub(super) compression_level: Option<i32>,
    pub(super) pack_size: Option<ByteSize>,
    pub(super) min_free: Option<ByteSize>,
    pub(super) quota: Option<ByteSize>,
}

/// `[limits]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsSection {
    pub(super) requests_per_second: Option<u32>,
    pub(super) connections: Option<u32>,
    pub(super) quic_connections: Option<u32>,
    pub(super) connections_per_address: Option<u32>,
    pub(super) transfers: Option<u32>,
}

/// Why the settings cannot be used. Each says where.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A key that means nothing here.
    #[error("{}, line {line}: there is no setting '{key}'; did you mean '{nearest}'?", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line of the key, from 1.
        line: usize,
        /// The key with its section, such as `store.reader`.
        key: String,
        /// The setting whose name is the least different.
        nearest: String,
    },
    /// The file is no TOML, or a value is not of its setting's kind.
    #[error("{}, line {line}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says, on one line.
        message: String,
    },
    /// A setting that says nothing without another.
    #[error("the setting {given} is there without {lacking}; TLS needs both")]
    Half {
        /// The one that was set.
        given: &'static str,
        /// The other.
        lacking: &'static str,
    },
    /// A value outside its bounds.
    #[error("the setting {key} is {found}; it must be {expected}")]
    OutOfBounds {
        /// The setting.
        key: &'static str,
        /// What it was set to.
        found: String,
        /// What is possible, in words.
        expected: &'static str,
    },
}

impl SettingsFile {
    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Parses the text of a file; `path` is for messages.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        let malformed = |error: toml::de::Error| SettingsError::Malformed {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            message: error.message().trim_end().replace('\n', "; "),
        };
        let table = DeTable::parse(text).map_err(malformed)?;
        let known = known_keys();
        if let Some((key, start)) = unknown_key(table.get_ref(), "", &known) {
            let nearest = nearest(&key, &known);
            let line = line_of(text, start);
            return Err(SettingsError::UnknownKey { path: path.to_owned(), line, key, nearest });
        }
        toml::from_str(text).map_err(malformed)
    }
}

/// Every setting with its section, such as `store.readers`, and the sections themselves.
pub(super) fn known_keys() -> Vec<String> {
    let defaults = serde_json::to_value(SettingsFile::default()).unwrap_or_default();
    let mut keys = Vec::new();
    for (key, value) in defaults.as_object().into_iter().flatten() {
        keys.push(key.clone());
        let inner = value.as_object().into_iter().flatten();
        keys.extend(inner.map(|(inner, _)| format!("{key}.{inner}")));
    }
    keys
}

/// The first key in `table`, or below it, that is none of `known`, and where it starts.
fn unknown_key(table: &DeTable<'_>, prefix: &str, known: &[String]) -> Option<(String, usize)> {
    let in_order = {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries
    };
    in_order.into_iter().find_map(|(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name = format!("{prefix}{}", key.get_ref());
        if !known.contains(&name) {
            return Some((name, key.span().start));
        }
        let inner = value.get_ref().as_table()?;
        unknown_key(inner, &format!("{name}."), known)
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.bytes().take(offset);
    before.filter(|byte| *byte == b'\n').count() + 1
}

/// The known key that takes the fewest insertions, removals and replacements of characters to
/// make from `key`. The right name in another section costs nothing but the section.
fn nearest(key: &str, known: &[String]) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |other: &&String| {
        let named_alike = edit_distance(&last(key), &last(other));
        (named_alike.min(edit_distance(key, other)), edit_distance(key, other))
    };
    known.iter().min_by_key(distance).cloned().unwrap_or_default()
}

/// Levenshtein's distance, one row at a time.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (number, character) in (1..).zip(from.chars()) {
        let mut left = number;
        let mut diagonal = number - 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = number;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<SettingsFile, SettingsError> {
        SettingsFile::parse(Path::new("larder.toml"), text)
    }

    fn message(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        assert_eq!(parse("").unwrap(), SettingsFile::default());
    }

    #[test]
    fn a_typo_is_named_with_its_line_and_the_right_key() {
        assert_eq!(
            message("name = \"office\"\n\nlisten_adress = \"[::]:1\"\n"),
            "larder.toml, line 3: there is no setting 'listen_adress'; did you mean 'listen'?"
        );
        assert_eq!(
            message("# more\n[store]\nreader = 2\n"),
            "larder.toml, line 3: there is no setting 'store.reader'; did you mean 'store.readers'?"
        );
        assert_eq!(
            message("[logs]\nlevel = \"info\"\n"),
            "larder.toml, line 1: there is no setting 'logs'; did you mean 'log'?"
        );
        assert_eq!(
            message("readers = 2\n"),
            "larder.toml, line 1: there is no setting 'readers'; did you mean 'store.readers'?"
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line() {
        for (text, expected) in [
            ("name = \"Office\"", "line 1: a box's name begins with a letter"),
            ("\nlisten = \"5273\"", "line 2: invalid socket address"),
            ("mdns = \"yes\"", "line 1: invalid type"),
            ("[store]\npack_size = \"much\"", "line 2: "),
            ("[log]\nformat = \"xml\"", "line 2: unknown variant `xml`"),
            ("[log]\nlevel = \"=loud=\"", "line 2: "),
            ("name = ", "line 1: "),
        ] {
            let message = message(text);
            assert!(message.starts_with(&format!("larder.toml, {expected}")), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn distances_are_levenshteins() {
        for (from, to, expected) in
            [("", "", 0), ("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("a", "ä", 1)]
        {
            assert_eq!(edit_distance(from, to), expected, "{from} {to}");
        }
    }
}
