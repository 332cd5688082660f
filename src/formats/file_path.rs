//! Paths of files inside a store path.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest path of a file, in bytes (Linux's `PATH_MAX` less its NUL).
pub const FILE_PATH_BYTES_MAX: usize = 4095;

/// The path of a file inside a store path, such as `share/doc/index.html`: segments joined by
/// single slashes, none of them empty, `.` or `..`, without control characters. A listing has
/// only names that are UTF-8, so this has too.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePath(Box<str>);

/// A text that is no path of a file inside a store path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFilePathError {
    /// It does not begin inside the store path, or leaves it.
    #[error(
        "a file is named by its path inside the store path, such as bin/hello: no '/' at either \
         end, no empty part, '.' or '..'"
    )]
    Segment,
    /// A control character.
    #[error("a file's path has no control characters")]
    Control,
    /// Too long.
    #[error("a file's path has at most {FILE_PATH_BYTES_MAX} bytes")]
    Length,
}

impl FilePath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names along the path, at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// What the file itself is called.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The path as a URL has it (RFC 3986, 2.1 and 2.3): slashes stay.
    #[must_use]
    pub fn to_url(&self) -> String {
        percent_encoded(&self.0, b"-._~/")
    }

    /// Reads the path out of a URL; `None` where that is none, or stands for no text.
    #[must_use]
    pub fn from_url(text: &str) -> Option<Self> {
        percent_decoded(text)?.parse().ok()
    }
}

impl FromStr for FilePath {
    type Err = ParseFilePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > FILE_PATH_BYTES_MAX {
            return Err(ParseFilePathError::Length);
        }
        if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(ParseFilePathError::Segment);
        }
        if text.chars().any(char::is_control) {
            return Err(ParseFilePathError::Control);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for FilePath {
    type Error = ParseFilePathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<FilePath> for String {
    fn from(path: FilePath) -> Self {
        path.0.into()
    }
}

/// Escapes all but letters, digits and the bytes of `plain` (RFC 3986, 2.1).
#[must_use]
pub fn percent_encoded(text: &str, plain: &[u8]) -> String {
    let escape = |byte: u8| match byte.is_ascii_alphanumeric() || plain.contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_stays_inside() {
        for text in ["a", "bin/hello", "a/b c/ä", "...", "a/.hidden", "%2e"] {
            assert!(text.parse::<FilePath>().is_ok(), "{text}");
        }
        for text in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/."] {
            assert_eq!(text.parse::<FilePath>(), Err(ParseFilePathError::Segment), "{text:?}");
        }
        assert_eq!("a\nb".parse::<FilePath>(), Err(ParseFilePathError::Control));
        assert_eq!("x".repeat(4096).parse::<FilePath>(), Err(ParseFilePathError::Length));
        assert_eq!("a/b.txt".parse::<FilePath>().unwrap().name(), "b.txt");
    }

    #[test]
    fn what_is_escaped_in_a_url_counts_like_what_is_not() {
        for url in ["../a", "%2e%2e/a", "a/%2E%2E", "a%2f..%2fb", "a%00", "%ff", "%", "%4", "%zz"] {
            assert_eq!(FilePath::from_url(url), None, "{url}");
        }
        assert_eq!(FilePath::from_url("a%20b%2Fc+").unwrap().as_str(), "a b/c+");
    }

    proptest! {
        #[test]
        fn a_path_comes_back_out_of_its_url(text in "\\PC{0,20}(/\\PC{1,20}){0,3}") {
            if let Ok(path) = text.parse::<FilePath>() {
                prop_assert_eq!(FilePath::from_url(&path.to_url()), Some(path));
            }
        }

        #[test]
        fn no_url_makes_it_panic(url in "(%[0-9a-f]{0,2}|\\PC){0,20}") {
            let _either_way = FilePath::from_url(&url);
        }
    }
}
