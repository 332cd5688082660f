//! Realisations: which store path an output of a content-addressed derivation became.
//!
//! Source: `src/libstore/realisation.cc` (Nix 2.8). Content-addressed derivations are an experiment
//! of Nix; releases from 2.33 on keep realisations in another form, which is not known here.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::formats::StorePath;
use crate::formats::signature::Signature;

/// Longest name of an output.
const OUTPUT_NAME_MAX: usize = 211;

/// An output of a derivation: `sha256:HEX!OUTPUT`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DrvOutput(String);

/// A text is no output of a derivation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an output of a derivation is sha256:, 64 hexadecimal digits, ! and a name")]
pub struct ParseDrvOutputError;

impl FromStr for DrvOutput {
    type Err = ParseDrvOutputError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let halves = text.strip_prefix("sha256:").and_then(|rest| rest.split_once('!'));
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte);
        let fits = |(hash, output): (&str, &str)| {
            hash.len() == 64
                && hash.bytes().all(is_digit)
                && (1..=OUTPUT_NAME_MAX).contains(&output.len())
                && output.bytes().all(in_name)
                && !output.starts_with('.')
        };
        halves.is_some_and(fits).then(|| Self(text.to_owned())).ok_or(ParseDrvOutputError)
    }
}

impl TryFrom<String> for DrvOutput {
    type Error = ParseDrvOutputError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DrvOutput> for String {
    fn from(output: DrvOutput) -> Self {
        output.0
    }
}

impl fmt::Display for DrvOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What Nix reads from `realisations/OUTPUT.doi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realisation {
    /// Of which output.
    pub id: DrvOutput,
    /// What it became.
    pub out_path: StorePath,
    /// Over the [`fingerprint`](Self::fingerprint).
    pub signatures: Vec<Signature>,
    /// The realisations that it depends on, and what they became.
    pub dependent: BTreeMap<DrvOutput, StorePath>,
}

/// The JSON as Nix writes it; its fields are in the order of their names, as Nix signs them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Json {
    #[serde(default)]
    dependent_realisations: BTreeMap<String, String>,
    id: String,
    out_path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signatures: Option<Vec<String>>,
}

/// A text is no realisation.
#[derive(Debug, thiserror::Error)]
#[error("this is no realisation as Nix writes it")]
pub struct ParseRealisationError;

impl Realisation {
    /// Reads the JSON.
    ///
    /// # Errors
    ///
    /// [`ParseRealisationError`].
    pub fn from_json(json: &[u8]) -> Result<Self, ParseRealisationError> {
        let json: Json = serde_json::from_slice(json).map_err(|_json| ParseRealisationError)?;
        let path = |text: &str| text.parse::<StorePath>().map_err(|_path| ParseRealisationError);
        let output = |text: &str| text.parse().map_err(|_output| ParseRealisationError);
        let signatures = json.signatures.unwrap_or_default();
        let signatures = signatures.iter().map(|text| text.parse());
        let dependent = json.dependent_realisations.iter();
        Ok(Self {
            id: output(&json.id)?,
            out_path: path(&json.out_path)?,
            signatures: signatures.collect::<Result<_, _>>().map_err(|_| ParseRealisationError)?,
            dependent: dependent
                .map(|(id, to)| Ok((output(id)?, path(to)?)))
                .collect::<Result<_, ParseRealisationError>>()?,
        })
    }

    /// The JSON with its signatures.
    #[must_use]
    pub fn to_json(&self) -> String {
        self.json(Some(self.signatures.iter().map(Signature::to_string).collect()))
    }

    /// The text that signatures are made over: the JSON without them.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.json(None)
    }

    fn json(&self, signatures: Option<Vec<String>>) -> String {
        let dependent = self.dependent.iter();
        let json = Json {
            dependent_realisations: dependent
                .map(|(id, path)| (id.to_string(), path.base_name().to_owned()))
                .collect(),
            id: self.id.to_string(),
            out_path: self.out_path.base_name().to_owned(),
            signatures,
        };
        // Texts alone: there is nothing that JSON could not hold.
        serde_json::to_string(&json).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha256:8d8ed1c1d06f8e9cd5c1e3c1ba5a2a9d3a0b0c43d1b1a8a3b2e9e0f1a2b3c4d5!out";

    #[test]
    fn the_fingerprint_is_the_json_without_signatures() {
        let path = "syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl-7.82.0-bin";
        let json = format!(
            r#"{{"dependentRealisations":{{}},"id":"{ID}","outPath":"{path}","signatures":[]}}"#
        );
        let realisation = Realisation::from_json(json.as_bytes()).unwrap();
        assert_eq!(realisation.to_json(), json);
        assert_eq!(realisation.fingerprint(), json.replace(r#","signatures":[]"#, ""));
    }

    #[test]
    fn names_that_would_leave_the_folder_are_none() {
        for text in [
            "",
            "sha256:!out",
            &ID.replace("out", "../x"),
            &ID.replace("out", ""),
            &ID.replace("out", ".."),
            &ID.to_uppercase(),
            &ID.replace('!', ""),
        ] {
            assert!(text.parse::<DrvOutput>().is_err(), "{text}");
        }
        assert!(ID.parse::<DrvOutput>().is_ok());
    }
}
