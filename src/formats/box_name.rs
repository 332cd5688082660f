//! Names of boxes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name of a box, in characters. `{box}.local` and a managed key's name stay short.
pub const BOX_NAME_LEN_MAX: usize = 20;

/// The name of a box on its network: `[a-z][a-z0-9]{0,19}`, so that it is one DNS label and
/// carries no hyphen (`{cache}-{box}.local` can be taken apart).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BoxName(Box<str>);

/// A text that cannot name a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a box's name begins with a letter and has at most {BOX_NAME_LEN_MAX} lower-case letters and digits"
)]
pub struct ParseBoxNameError;

impl BoxName {
    /// The name of a box whose machine is called `host_name`, such as `Build-Box.example.org`:
    /// the first label, in lower case, without what a name may not have. A machine whose name
    /// says nothing (`localhost`, digits only) makes a box called `larder`.
    #[must_use]
    pub fn from_host_name(host_name: &str) -> Self {
        let label = host_name.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let fitting: String = label
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .skip_while(char::is_ascii_digit)
            .take(BOX_NAME_LEN_MAX)
            .collect();
        let says_nothing = fitting.is_empty() || fitting == "localhost";
        Self(if says_nothing { FALLBACK.into() } else { fitting.into() })
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const FALLBACK: &str = "larder";

impl FromStr for BoxName {
    type Err = ParseBoxNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = text.len() <= BOX_NAME_LEN_MAX
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(plain);
        if fits { Ok(Self(text.into())) } else { Err(ParseBoxNameError) }
    }
}

impl fmt::Display for BoxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BoxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BoxName {
    type Error = ParseBoxNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BoxName> for String {
    fn from(name: BoxName) -> Self {
        name.0.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_follow_the_pattern() {
        for text in ["office", "a", "pi4", "a2345678901234567890"] {
            assert!(text.parse::<BoxName>().is_ok(), "{text}");
        }
        for text in ["", "4pi", "Office", "build-box", "a.b", "ä", "a b", "a23456789012345678901"]
        {
            assert_eq!(text.parse::<BoxName>(), Err(ParseBoxNameError), "{text:?}");
        }
    }

    #[test]
    fn a_machines_name_is_made_to_fit() {
        for (host_name, expected) in [
            ("office", "office"),
            ("Build-Box-2.example.org", "buildbox2"),
            ("3com", "com"),
            ("a-very-long-host-name-of-a-cloud", "averylonghostnameofa"),
            ("localhost.localdomain", "larder"),
            ("1234", "larder"),
            ("", "larder"),
            ("büro\n", "bro"),
        ] {
            assert_eq!(BoxName::from_host_name(host_name).as_str(), expected, "{host_name:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_machine_is_called_the_box_has_a_name(host_name in ".*") {
            let name = BoxName::from_host_name(&host_name);
            prop_assert_eq!(name.as_str().parse::<BoxName>(), Ok(name.clone()));
        }
    }
}
