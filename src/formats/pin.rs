//! Pins: names for store paths that are to stay.

use std::fmt;
use std::num::NonZero;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a pin, in characters.
pub const PIN_NAME_LEN_MAX: usize = 100;

/// The name of a pin in a cache: 1 to 100 letters, digits, `.`, `_`, `+` and `-`, the first a
/// letter or digit, so that it is a segment of a URL as it stands.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PinName(Box<str>);

/// A text that cannot name a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pin's name has 1 to {PIN_NAME_LEN_MAX} letters, digits, '.', '_', '+' and '-', and begins \
     with a letter or digit"
)]
pub struct ParsePinNameError;

/// How long revisions of a pin stay. What the newest revision says counts for all of its name.
/// The order of the variants is their number on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// 0: until somebody removes the pin.
    #[default]
    Forever,
    /// 1: each for that many days.
    Days(NonZero<u32>),
    /// 2: that many, the newest ones.
    Revisions(NonZero<u32>),
}

impl PinName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PinName {
    type Err = ParsePinNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=PIN_NAME_LEN_MAX).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
        if fits { Ok(Self(text.into())) } else { Err(ParsePinNameError) }
    }
}

impl fmt::Display for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PinName {
    type Error = ParsePinNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PinName> for String {
    fn from(name: PinName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::Days(days) if days.get() == 1 => f.write_str("1 day"),
            Self::Days(days) => write!(f, "{days} days"),
            Self::Revisions(count) if count.get() == 1 => f.write_str("1 revision"),
            Self::Revisions(count) => write!(f, "{count} revisions"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_segments_of_urls() {
        for text in ["a", "v1.7", "release-2026.11", "1", "g++", "Main_x", &"x".repeat(100)] {
            assert!(text.parse::<PinName>().is_ok(), "{text}");
        }
        let long = "x".repeat(101);
        for text in
            ["", ".", "..", ".a", "-a", "+a", "a/b", "a b", "ä", "a%2f", "a\n", "a?", "a#", &long]
        {
            assert_eq!(text.parse::<PinName>(), Err(ParsePinNameError), "{text:?}");
        }
    }

    #[test]
    fn how_long_is_said_in_json_and_never_zero() {
        let days = Keep::Days(NonZero::new(3).unwrap());
        for (keep, json) in [(Keep::Forever, r#""forever""#), (days, r#"{"days":3}"#)] {
            assert_eq!(serde_json::to_string(&keep).unwrap(), json);
            assert_eq!(serde_json::from_str::<Keep>(json).unwrap(), keep);
        }
        for json in [r#"{"days":0}"#, r#"{"revisions":0}"#, r#"{"days":-1}"#, r#""always""#] {
            assert!(serde_json::from_str::<Keep>(json).is_err(), "{json}");
        }
    }
}
