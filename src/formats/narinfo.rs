//! narinfos: what a cache says about one store path.
//!
//! Source of the grammar: `src/libstore/nar-info.cc` (Nix 2.34.8): a line is a name, a colon,
//! exactly one space and a value, and ends in a newline, the last one too.
//!
//! Two places are stricter than Nix, so that two readers cannot take one text for two different
//! narinfos: the space is demanded (Nix skips whatever stands there, and `References:` without it
//! swallows the next line), and no field but `Sig` may be there twice (Nix takes the last one,
//! except for `References` and `CA`).

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};

use crate::formats::base32;
use crate::formats::compression::{Compression, UnknownCompression};
use crate::formats::hash::{ParseHashError, Sha256Hash};
use crate::formats::limits;
use crate::formats::path_info::PathInfo;
use crate::formats::signature::Signature;
use crate::formats::store_path::{ParsePathError, StorePath};

/// The name in `Deriver` that means none.
const UNKNOWN_DERIVER: &str = "unknown-deriver";

/// A path and where its NAR is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarInfo {
    /// The signed facts and what goes along.
    pub info: PathInfo,
    /// Where the file is: relative to the cache, or absolute. One line, never empty.
    pub url: String,
    /// How the file is compressed. A narinfo that does not say means bzip2.
    pub compression: Compression,
    /// SHA-256 of the file. Other caches may leave it out; ours must not, since Nix up to 2.34
    /// aborts when it writes such a narinfo back.
    pub file_hash: Option<Sha256Hash>,
    /// Size of the file in bytes, never 0. Ours always tell it.
    pub file_size: Option<u64>,
}

/// Why a text is no narinfo.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseNarInfoError {
    /// Longer than any narinfo that is read.
    #[error("a narinfo has at most {} bytes", limits::NARINFO_BYTES_MAX)]
    TooLong,
    /// A line without colon and space, or a last line without its end.
    #[error("line {0} is not 'Name: value' and a newline")]
    Line(usize),
    /// A field that must be there is not.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A field is there twice.
    #[error("the field {0} is there twice")]
    Twice(&'static str),
    /// A number that is none, or a NAR of 0 bytes.
    #[error("{0} is not a positive number")]
    Number(&'static str),
    /// A compression that Nix has no name for.
    #[error("the field Compression says nothing known")]
    Compression(#[source] UnknownCompression),
    /// A hash that is none.
    #[error("{0} is no SHA-256")]
    Hash(&'static str, #[source] ParseHashError),
    /// A store path that is none.
    #[error("{0} is no store path")]
    Path(&'static str, #[source] ParsePathError),
    /// A content address that Nix cannot read.
    #[error("CA is no content address")]
    ContentAddress,
    /// More references or signatures than are taken.
    #[error("there are too many {0}")]
    TooMany(&'static str),
}

impl fmt::Display for NarInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = &self.info;
        let references: Vec<_> = info.references.iter().map(StorePath::base_name).collect();
        writeln!(f, "StorePath: {}", info.store_path.to_absolute())?;
        writeln!(f, "URL: {}", self.url)?;
        writeln!(f, "Compression: {}", self.compression)?;
        if let Some(file_hash) = &self.file_hash {
            writeln!(f, "FileHash: {file_hash}")?;
        }
        if let Some(file_size) = self.file_size {
            writeln!(f, "FileSize: {file_size}")?;
        }
        writeln!(f, "NarHash: {}", info.nar_hash)?;
        writeln!(f, "NarSize: {}", info.nar_size)?;
        writeln!(f, "References: {}", references.join(" "))?;
        if let Some(deriver) = &info.deriver {
            writeln!(f, "Deriver: {deriver}")?;
        }
        for signature in &info.signatures {
            writeln!(f, "Sig: {signature}")?;
        }
        if let Some(ca) = &info.ca {
            writeln!(f, "CA: {ca}")?;
        }
        Ok(())
    }
}

/// The fields as they are met, before it is known whether all are there.
#[derive(Default)]
struct Fields<'a> {
    store_path: Option<&'a str>,
    url: Option<&'a str>,
    compression: Option<&'a str>,
    file_hash: Option<&'a str>,
    file_size: Option<&'a str>,
    nar_hash: Option<&'a str>,
    nar_size: Option<&'a str>,
    references: Option<&'a str>,
    deriver: Option<&'a str>,
    ca: Option<&'a str>,
    signatures: Vec<Signature>,
}

impl<'a> Fields<'a> {
    fn note(&mut self, name: &str, value: &'a str) -> Result<(), ParseNarInfoError> {
        let (name, field) = match name {
            "StorePath" => ("StorePath", &mut self.store_path),
            "URL" => ("URL", &mut self.url),
            "Compression" => ("Compression", &mut self.compression),
            "FileHash" => ("FileHash", &mut self.file_hash),
            "FileSize" => ("FileSize", &mut self.file_size),
            "NarHash" => ("NarHash", &mut self.nar_hash),
            "NarSize" => ("NarSize", &mut self.nar_size),
            "References" => ("References", &mut self.references),
            "Deriver" => ("Deriver", &mut self.deriver),
            "CA" => ("CA", &mut self.ca),
            "Sig" => {
                // A malformed signature proves nothing, so leaving it out takes nothing away,
                // while Nix 2.34 would refuse the whole narinfo if it were passed on.
                self.signatures.extend(value.parse());
                return Ok(());
            }
            _ => return Ok(()),
        };
        match field.replace(value) {
            None => Ok(()),
            Some(_) => Err(ParseNarInfoError::Twice(name)),
        }
    }
}

impl FromStr for NarInfo {
    type Err = ParseNarInfoError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > limits::NARINFO_BYTES_MAX {
            return Err(ParseNarInfoError::TooLong);
        }
        let mut fields = Fields::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let (name, value) = line
                .strip_suffix('\n')
                .and_then(|line| line.split_once(": "))
                .filter(|(name, _)| !name.contains(':'))
                .ok_or(ParseNarInfoError::Line(index + 1))?;
            fields.note(name, value)?;
        }
        // Nix takes a file of 0 bytes for one of unknown size, and what does not say how it is
        // compressed for bzip2.
        let compression = fields.compression.filter(|name| !name.is_empty()).unwrap_or("bzip2");
        let file_size = fields.file_size.filter(|size| *size != "0");
        Ok(Self {
            info: path_info(&mut fields)?,
            url: required("URL", fields.url)?.to_owned(),
            compression: compression.parse().map_err(ParseNarInfoError::Compression)?,
            file_hash: fields.file_hash.map(|text| hash("FileHash", text)).transpose()?,
            file_size: file_size.map(|text| number("FileSize", text)).transpose()?,
        })
    }
}

fn path_info(fields: &mut Fields<'_>) -> Result<PathInfo, ParseNarInfoError> {
    if fields.signatures.len() > limits::SIGNATURES_MAX {
        return Err(ParseNarInfoError::TooMany("signatures"));
    }
    let path = |name, text: &str| text.parse().map_err(|e| ParseNarInfoError::Path(name, e));
    let references = fields.references.unwrap_or_default().split(' ').filter(|r| !r.is_empty());
    let references =
        references.map(|text| path("References", text)).collect::<Result<Vec<_>, _>>()?;
    if references.len() > limits::REFERENCES_MAX {
        return Err(ParseNarInfoError::TooMany("references"));
    }
    let store_path = required("StorePath", fields.store_path)?;
    let deriver = fields.deriver.filter(|text| *text != UNKNOWN_DERIVER);
    let mut info = PathInfo {
        store_path: StorePath::from_absolute(store_path)
            .map_err(|error| ParseNarInfoError::Path("StorePath", error))?,
        nar_hash: hash("NarHash", required("NarHash", fields.nar_hash)?)?,
        nar_size: number("NarSize", required("NarSize", fields.nar_size)?)?,
        references,
        deriver: deriver.map(|text| path("Deriver", text)).transpose()?,
        ca: fields.ca.filter(|text| !text.is_empty()).map(content_address).transpose()?,
        signatures: std::mem::take(&mut fields.signatures),
    };
    info.sort_references();
    Ok(info)
}

/// Checks `text:HASH`, `fixed:HASH`, `fixed:r:HASH` or `fixed:git:HASH`, the hash with its
/// algorithm (`src/libstore/content-address.cc`, Nix 2.34).
fn content_address(text: &str) -> Result<String, ParseNarInfoError> {
    let hash = text.strip_prefix("text:").or_else(|| {
        let fixed = text.strip_prefix("fixed:")?;
        fixed.strip_prefix("r:").or_else(|| fixed.strip_prefix("git:")).or(Some(fixed))
    });
    hash.filter(|hash| is_hash(hash))
        .map(|_| text.to_owned())
        .ok_or(ParseNarInfoError::ContentAddress)
}

/// Whether `text` is an algorithm that Nix knows, a colon and a hash in base 16, 32 or 64.
fn is_hash(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let bytes = match algorithm {
        "md5" => 16,
        "sha1" => 20,
        "sha256" | "blake3" => 32,
        "sha512" => 64,
        _ => return false,
    };
    let digits = digits.as_bytes();
    let decoded = match digits.len() {
        length if length == bytes * 2 => HEXLOWER_PERMISSIVE.decode(digits).ok(),
        length if length == base32::encoded_len(bytes) => base32::decode(digits).ok(),
        _ => BASE64.decode(digits).ok(),
    };
    decoded.is_some_and(|decoded| decoded.len() == bytes)
}

fn required<'a>(name: &'static str, field: Option<&'a str>) -> Result<&'a str, ParseNarInfoError> {
    field.filter(|value| !value.is_empty()).ok_or(ParseNarInfoError::Missing(name))
}

fn hash(name: &'static str, text: &str) -> Result<Sha256Hash, ParseNarInfoError> {
    text.parse().map_err(|error| ParseNarInfoError::Hash(name, error))
}

fn number(name: &'static str, text: &str) -> Result<u64, ParseNarInfoError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number > 0);
    number.ok_or(ParseNarInfoError::Number(name))
}

#[cfg(test)]
mod tests {
    use nix_narinfo::NarInfo as Oracle;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::formats::signature::SecretKey;

    const HASH: &str = "7h7qgvs4kgzsn8a6rb273saxyqh4jxlz";
    const NAR_HASH: &str = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";

    fn whole() -> String {
        format!(
            "StorePath: /nix/store/{HASH}-a\nURL: nar/x.nar.zst\nCompression: zstd\n\
             FileHash: {NAR_HASH}\nFileSize: 7\nNarHash: {NAR_HASH}\nNarSize: 112\n\
             References: {HASH}-a\nDeriver: {HASH}-a.drv\nCA: fixed:r:{NAR_HASH}\n"
        )
    }

    #[test]
    fn a_narinfo_is_written_as_it_was_read() {
        let parsed: NarInfo = whole().parse().unwrap();
        assert_eq!(parsed.to_string(), whole());
    }

    fn store_path() -> impl Strategy<Value = StorePath> {
        (any::<[u8; 20]>(), "[a-z][a-zA-Z0-9+_?=.-]{0,20}")
            .prop_map(|(hash, name)| format!("{}-{name}", base32::encode(&hash)).parse().unwrap())
    }

    fn compression() -> impl Strategy<Value = Compression> {
        let names = ["none", "xz", "zstd", "bzip2", "br", "gzip"];
        prop::sample::select(names.map(|name| name.parse().unwrap()).to_vec())
    }

    fn sha256() -> impl Strategy<Value = Sha256Hash> {
        any::<[u8; 32]>().prop_map(Sha256Hash::from_bytes)
    }

    prop_compose! {
        fn path_info()(
            store_path in store_path(),
            nar_hash in sha256(),
            nar_size in 1_u64..,
            references in vec(store_path(), 0..5),
            deriver in option::of(store_path()),
            ca in option::of(sha256()),
            keys in vec(any::<[u8; 32]>(), 0..3),
        ) -> PathInfo {
            let mut info = PathInfo {
                store_path,
                nar_hash,
                nar_size,
                references,
                deriver,
                ca: ca.map(|hash| format!("fixed:r:{hash}")),
                signatures: Vec::new(),
            };
            info.sort_references();
            let message = info.fingerprint();
            let sign = |seed| SecretKey::from_seed("k-1", seed).unwrap().sign(message.as_bytes());
            info.signatures = keys.iter().map(sign).collect();
            info
        }
    }

    prop_compose! {
        fn narinfo()(
            info in path_info(),
            url in "nar/[0-9a-z]{1,52}(\\.nar)?(\\.[a-z]{2,4})?",
            compression in compression(),
            file_hash in option::of(sha256()),
            file_size in option::of(1_u64..),
        ) -> NarInfo {
            NarInfo { info, url, compression, file_hash, file_size }
        }
    }

    proptest! {
        #[test]
        fn every_narinfo_is_the_oracles_to_the_byte(narinfo in narinfo()) {
            let text = narinfo.to_string();
            let oracle = text.parse::<Oracle>().unwrap();
            prop_assert_eq!(String::from_utf8(oracle.to_canonical_bytes()).unwrap(), &*text);
            let fingerprint = oracle.fingerprint(oracle.store_dir());
            prop_assert_eq!(fingerprint, narinfo.info.fingerprint());
            prop_assert_eq!(text.parse(), Ok(narinfo));
        }

        #[test]
        fn a_damaged_narinfo_is_taken_only_where_the_oracle_takes_it(
            narinfo in narinfo(),
            place in any::<prop::sample::Index>(),
            by in prop::sample::select(vec![b'\n', b' ', b':', b'0', b'x', b'/', b'-']),
        ) {
            let mut bytes = narinfo.to_string().into_bytes();
            let place = place.index(bytes.len());
            bytes[place] = by;
            let text = String::from_utf8(bytes).unwrap();
            if let Ok(ours) = text.parse::<NarInfo>() {
                let oracle = text.parse::<Oracle>().map_err(|error| error.to_string());
                prop_assert!(oracle.is_ok(), "{:?}\n{}", oracle, text);
                prop_assert_eq!(ours.to_string().parse(), Ok(ours));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "(StorePath|URL|Sig|References|\\PC|[: \n])*") {
            let _either_way = text.parse::<NarInfo>();
        }
    }

    #[test]
    fn no_references_keep_their_space() {
        let text = whole().replace(&format!("References: {HASH}-a\n"), "References: \n");
        let parsed: NarInfo = text.parse().unwrap();
        assert!(parsed.info.references.is_empty());
        assert_eq!(parsed.to_string(), text);
        assert!(text.replace("References: \n", "References:\n").parse::<NarInfo>().is_err());
    }

    #[test]
    fn what_nix_takes_for_granted() {
        let text = whole().replace("Compression: zstd\n", "").replace("\nDeriver: ", "\nX: ");
        let parsed: NarInfo = text.parse().unwrap();
        assert_eq!(parsed.compression, Compression::Bzip2);
        assert_eq!(parsed.info.deriver, None);
        let text = whole().replace("FileHash: ", "X: ").replace("FileSize: ", "Y: ");
        let parsed: NarInfo = text.parse().unwrap();
        assert_eq!((parsed.file_hash, parsed.file_size), (None, None));
        let text = whole().replace(&format!("{HASH}-a.drv"), "unknown-deriver");
        assert_eq!(text.parse::<NarInfo>().unwrap().info.deriver, None);
    }

    #[test]
    fn malformed_signatures_are_left_out() {
        let text = whole() + "Sig: nothing\nSig: a:AAAA\nSig: :\n";
        assert_eq!(text.parse::<NarInfo>().unwrap().to_string(), whole());
    }

    #[test]
    fn what_is_no_narinfo_is_refused() {
        let cases = [
            ("NarSize: 112", "NarSize: 0", ParseNarInfoError::Number("NarSize")),
            ("NarSize: 112", "NarSize: -1", ParseNarInfoError::Number("NarSize")),
            ("NarSize: 112", "NarSize: +1", ParseNarInfoError::Number("NarSize")),
            ("NarSize: 112", "X: 1", ParseNarInfoError::Missing("NarSize")),
            ("URL: nar/x.nar.zst", "URL: ", ParseNarInfoError::Missing("URL")),
            ("FileSize: 7", "NarSize: 7", ParseNarInfoError::Twice("NarSize")),
            ("FileSize: 7", "FileSize:7", ParseNarInfoError::Line(5)),
            ("FileSize: 7", "", ParseNarInfoError::Line(5)),
            (
                "Compression: zstd",
                "Compression: x",
                ParseNarInfoError::Compression(UnknownCompression),
            ),
        ];
        for (line, by, error) in cases {
            assert_eq!(whole().replace(line, by).parse::<NarInfo>(), Err(error), "{by}");
        }
        let text = whole();
        assert!(text.trim_end().parse::<NarInfo>().is_err());
        for reference in ["../x", "/nix/store/x", "x y\tz"] {
            let text = whole()
                .replace(&format!("References: {HASH}"), &format!("References: {reference}"));
            assert!(matches!(
                text.parse::<NarInfo>(),
                Err(ParseNarInfoError::Path("References", _))
            ));
        }
    }
}
