//! What a store path is, apart from how its NAR is encoded: the signed facts and what goes along.

use serde::{Deserialize, Serialize};

use crate::formats::hash::Sha256Hash;
use crate::formats::signature::Signature;
use crate::formats::store_path::StorePath;

/// The facts about one store path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathInfo {
    /// The path itself.
    pub store_path: StorePath,
    /// SHA-256 of the NAR, uncompressed.
    pub nar_hash: Sha256Hash,
    /// Size of the NAR, uncompressed, in bytes; never 0.
    pub nar_size: u64,
    /// The paths it refers to; itself may be one of them. Sorted, no doubles: see
    /// [`sort_references`](Self::sort_references).
    pub references: Vec<StorePath>,
    /// The derivation that built it, where that is known.
    pub deriver: Option<StorePath>,
    /// The content address as Nix writes it (`fixed:r:sha256:…`, `text:…`), where it has one.
    pub ca: Option<String>,
    /// Signatures over the [`fingerprint`](Self::fingerprint) that came with it.
    pub signatures: Vec<Signature>,
}

impl PathInfo {
    /// The text that signatures are made over: `1;PATH;NARHASH;NARSIZE;REFERENCES`, the
    /// references with their store directory, sorted, joined by commas.
    ///
    /// Source: `ValidPathInfo::fingerprint` in `src/libstore/path-info.cc` (Nix 2.34; the same in
    /// `store-api.cc` of 2.8).
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let references: Vec<_> = self.references.iter().map(StorePath::to_absolute).collect();
        format!(
            "1;{};{};{};{}",
            self.store_path.to_absolute(),
            self.nar_hash,
            self.nar_size,
            references.join(",")
        )
    }

    /// Puts the references into the order that Nix signs, without doubles.
    pub fn sort_references(&mut self) {
        self.references.sort_unstable();
        self.references.dedup();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_the_text_that_nix_signs() {
        let path = |base_name: &str| base_name.parse::<StorePath>().unwrap();
        let mut info = PathInfo {
            store_path: path("syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl-7.82.0-bin"),
            nar_hash: "sha256:1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0"
                .parse()
                .unwrap(),
            nar_size: 196_040,
            references: vec![
                path("qnqwl8xv8pvgp0irdj5r8b1rdr1p8m1i-curl-7.82.0"),
                path("0jqd0rlxzra1rs38rdxl43yh6rxchgc6-curl-7.82.0"),
                path("qnqwl8xv8pvgp0irdj5r8b1rdr1p8m1i-curl-7.82.0"),
            ],
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        };
        info.sort_references();
        assert_eq!(
            info.fingerprint(),
            "1;/nix/store/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl-7.82.0-bin;\
             sha256:1b4sb93wp679q4zx9k1ignby1yna3z7c4c2ri3wphylbc2dwsys0;196040;\
             /nix/store/0jqd0rlxzra1rs38rdxl43yh6rxchgc6-curl-7.82.0,\
             /nix/store/qnqwl8xv8pvgp0irdj5r8b1rdr1p8m1i-curl-7.82.0"
        );
    }
}
