//! Paths of a binary cache (`src/libstore/binary-cache-store.cc`, Nix 2.34), and our own names
//! of NARs.

use crate::formats::{AttachmentName, FilePath, PinName, Sha256Hash, StorePathHash};

/// First segments of paths that a cache serves, and so the root too.
#[cfg(test)]
pub(in crate::transports::http) const ROOT_NAMES: [&str; 5] =
    ["nix-cache-info", "nar", "log", "realisations", "serve"];

/// What a request wants, and of which cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// `None`: the root.
    pub(super) cache: Option<&'a str>,
    pub(super) resource: Resource,
}

/// One of the things that every cache serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// A text for people.
    About,
    /// `nix-cache-info`
    CacheInfo,
    /// `HASH.narinfo`
    NarInfo(StorePathHash),
    /// `HASH.ls`
    Listing(StorePathHash),
    /// `nar/…`
    Nar(NarName),
    /// `log/DERIVATION`, `realisations/OUTPUT.doi`
    Attachment(AttachmentName),
    /// `serve/STOREHASH/FILE`, or without a file the path itself.
    File(StorePathHash, Option<FilePath>),
    /// `pin/NAME/FILE`, of a cache and not of the root: a pin is of one cache.
    Artifact(PinName, FilePath),
}

/// The file name of a NAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NarName {
    /// `NARHASH-REVISION.nar.zst`: as it is stored. Its bytes never change.
    Stored { nar_hash: Sha256Hash, revision: u32 },
    /// `NARHASH.nar`: the NAR itself.
    Raw { nar_hash: Sha256Hash },
}

impl<'a> Target<'a> {
    /// Reads a request's path; `None` for one that no cache has. Whether there is a cache of that
    /// name is another question.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        if let Some(resource) = Resource::parse(path) {
            return Some(Self { cache: None, resource });
        }
        let (cache, rest) = path.split_once('/').unwrap_or((path, ""));
        let resource = match rest.strip_prefix("pin/") {
            Some(artifact) => Resource::parse_artifact(artifact),
            None => Resource::parse(rest),
        };
        resource.map(|resource| Self { cache: Some(cache), resource })
    }
}

impl Resource {
    fn parse(path: &str) -> Option<Self> {
        if path.is_empty() {
            Some(Self::About)
        } else if let Some(file) = path.strip_prefix("serve/") {
            Self::parse_file(file)
        } else if let Some(hash) = path.strip_suffix(".narinfo") {
            hash.parse().ok().map(Self::NarInfo)
        } else if let Some(name) = path.strip_prefix("nar/") {
            NarName::parse(name).map(Self::Nar)
        } else if let Some(derivation) = path.strip_prefix("log/") {
            let name = derivation.parse().ok().and_then(AttachmentName::build_log);
            name.map(Self::Attachment)
        } else if let Some(output) = path.strip_prefix("realisations/") {
            let output = output.strip_suffix(".doi")?.parse().ok()?;
            Some(Self::Attachment(AttachmentName::Realisation(output)))
        } else if let Some(hash) = path.strip_suffix(".ls") {
            hash.parse().ok().map(Self::Listing)
        } else {
            (path == "nix-cache-info").then_some(Self::CacheInfo)
        }
    }

    fn parse_file(path: &str) -> Option<Self> {
        let (hash, file) = path.split_once('/').unwrap_or((path, ""));
        let file = match file {
            "" => None,
            file => Some(FilePath::from_url(file)?),
        };
        Some(Self::File(hash.parse().ok()?, file))
    }

    fn parse_artifact(path: &str) -> Option<Self> {
        let (pin, file) = path.split_once('/')?;
        Some(Self::Artifact(pin.parse().ok()?, FilePath::from_url(file)?))
    }
}

impl NarName {
    fn parse(name: &str) -> Option<Self> {
        if let Some(name) = name.strip_suffix(".nar") {
            return Sha256Hash::from_base32(name).ok().map(|nar_hash| Self::Raw { nar_hash });
        }
        let (nar_hash, number) = name.strip_suffix(".nar.zst")?.split_once('-')?;
        let nar_hash = Sha256Hash::from_base32(nar_hash).ok()?;
        let revision: u32 = number.parse().ok()?;
        // One file has one name.
        (revision.to_string() == number).then_some(Self::Stored { nar_hash, revision })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATH: &str = "7h7qgvs4kgzsn8a6rb273saxyqh4jxlz";
    const NAR: &str = "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73";

    #[test]
    fn the_root_and_each_cache_have_the_same_names() {
        let hash = PATH.parse().unwrap();
        let nar_hash = Sha256Hash::of(b"");
        for (path, resource) in [
            (String::new(), Resource::About),
            ("nix-cache-info".to_owned(), Resource::CacheInfo),
            (format!("{PATH}.narinfo"), Resource::NarInfo(hash)),
            (format!("{PATH}.ls"), Resource::Listing(hash)),
            (format!("nar/{NAR}.nar"), Resource::Nar(NarName::Raw { nar_hash })),
            (format!("serve/{PATH}"), Resource::File(hash, None)),
            (
                format!("serve/{PATH}/a%20b/x.narinfo"),
                Resource::File(hash, Some("a b/x.narinfo".parse().unwrap())),
            ),
            (
                format!("nar/{NAR}-12.nar.zst"),
                Resource::Nar(NarName::Stored { nar_hash, revision: 12 }),
            ),
        ] {
            let root = Target { cache: None, resource: resource.clone() };
            assert_eq!(Target::parse(&format!("/{path}")), Some(root));
            let cache = Target { cache: Some("main"), resource };
            assert_eq!(Target::parse(&format!("/main/{path}")), Some(cache));
        }
        let artifact = Resource::Artifact("v1.0".parse().unwrap(), "x.ls".parse().unwrap());
        for cache in ["main", "pin"] {
            let target = Target { cache: Some(cache), resource: artifact.clone() };
            assert_eq!(Target::parse(&format!("/{cache}/pin/v1.0/x.ls")), Some(target));
        }
        let about = Target { cache: Some("main"), resource: Resource::About };
        assert_eq!(Target::parse("/main"), Some(about));
    }

    #[test]
    fn other_paths_are_of_no_cache() {
        for path in [
            "main",
            "/main/nar",
            "/main/nar/",
            "/main/other",
            "//",
            "/main//nix-cache-info",
            "/main/x.narinfo",
            &format!("/{}.narinfo", PATH.to_uppercase()),
            &format!("/{PATH}.narinfo/"),
            &format!("/main/sub/{PATH}.narinfo"),
            &format!("/nar/{NAR}.nar.zst"),
            &format!("/nar/{NAR}-01.nar.zst"),
            &format!("/nar/{NAR}-+1.nar.zst"),
            &format!("/nar/{NAR}-.nar.zst"),
            &format!("/nar/{NAR}-4294967296.nar.zst"),
            &format!("/nar/{NAR}.nar.xz"),
            &format!("/nar/../{NAR}.nar"),
            "/serve/x/y",
            &format!("/serve/{PATH}/../x"),
            &format!("/serve/{PATH}/a//b"),
            &format!("/serve/{PATH}/%2e%2e/x"),
            "/pin/v1.0/x",
            "/main/pin/v1.0",
            "/main/pin/v1.0/",
            "/main/pin/-/x",
        ] {
            // A name that no cache can have is looked up in vain.
            let about_or_none = Target::parse(path)
                .is_none_or(|target| target.resource == Resource::About && target.cache.is_some());
            assert!(about_or_none, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "/?(nar/|main/|serve/|main/pin/)?\\PC{0,60}(\\.nar|\\.narinfo|\\.nar\\.zst)?") {
            let _either_way = Target::parse(&path);
        }
    }
}
