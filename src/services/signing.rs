//! Signatures: managed ones, made when a narinfo is served, so that a new key covers old paths;
//! and those that a self-signed cache demands.

use crate::formats::signature::{PublicKey, Signature};
use crate::formats::{CacheName, PathInfo};
use crate::store::{Cache, SigningMode};

/// Why a path's signatures do not do for a self-signed cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsigned {
    /// Nobody could sign for it.
    #[error("no key is registered with the cache '{0}'; `larder generate-keypair {0}` makes one")]
    NoKey(CacheName),
    /// None of its keys has signed the path.
    #[error("the cache '{cache}' takes what is signed by {expected}, and {found}")]
    Missing {
        /// The cache.
        cache: CacheName,
        /// The names of its keys.
        expected: String,
        /// What came instead.
        found: String,
    },
    /// One that carries the name of a registered key is not by it, or of something else.
    #[error("the signature that names the key '{0}' is not one of this path by that key")]
    Wrong(String),
}

/// Checks what came with a path that is pushed to `cache`: on a self-signed one a registered key
/// must have signed it, and what carries the name of one must be by it. Signatures by others
/// cannot be checked here and are kept, for users may trust them.
pub(super) fn check(cache: &Cache, info: &PathInfo) -> Result<(), Unsigned> {
    if cache.signing == SigningMode::Managed {
        return Ok(());
    }
    if cache.public_keys.is_empty() {
        return Err(Unsigned::NoKey(cache.name.clone()));
    }
    let fingerprint = info.fingerprint();
    let mut is_signed = false;
    for signature in &info.signatures {
        let named = cache.public_keys.iter().find(|key| key.name() == signature.key_name());
        let Some(key) = named else { continue };
        if !key.verifies(fingerprint.as_bytes(), signature) {
            return Err(Unsigned::Wrong(key.name().to_owned()));
        }
        is_signed = true;
    }
    if is_signed { Ok(()) } else { Err(missing(cache, info)) }
}

fn missing(cache: &Cache, info: &PathInfo) -> Unsigned {
    let quoted = |names: Vec<&str>| {
        names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" or ")
    };
    let expected = quoted(cache.public_keys.iter().map(PublicKey::name).collect());
    let found: Vec<_> = info.signatures.iter().map(Signature::key_name).take(8).collect();
    let found = match found.is_empty() {
        true => "this path is not signed".to_owned(),
        false => format!("this path is signed by {}", quoted(found)),
    };
    Unsigned::Missing { cache: cache.name.clone(), expected, found }
}

/// What a narinfo of `cache` carries: a signature by each current managed key, newest first, then
/// those that came with the path. None twice.
pub(super) fn signatures(cache: &Cache, info: &PathInfo) -> Vec<Signature> {
    let mut signatures = Vec::with_capacity(cache.keys.len() + info.signatures.len());
    if !cache.keys.is_empty() {
        let fingerprint = info.fingerprint();
        signatures.extend(cache.keys.iter().map(|key| key.sign(fingerprint.as_bytes())));
    }
    merge(&mut signatures, &info.signatures);
    signatures
}

/// Adds those of `more` that are not there yet.
pub(super) fn merge(signatures: &mut Vec<Signature>, more: &[Signature]) {
    for signature in more {
        if !signatures.contains(signature) {
            signatures.push(signature.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::signature::SecretKey;
    use crate::services::tests::{cache, path_info};

    #[test]
    fn a_self_signed_cache_wants_a_signature_of_this_path_by_its_key() {
        let key = SecretKey::from_seed("team-1", &[1; 32]).unwrap();
        let imposter = SecretKey::from_seed("team-1", &[2; 32]).unwrap();
        let foreign = SecretKey::from_seed("cache.nixos.org-1", &[3; 32]).unwrap();
        let mut cache = cache(1, "team");
        let mut info = path_info("a", &[]);
        let of_info = info.fingerprint();
        let sign = |key: &SecretKey| key.sign(of_info.as_bytes());
        assert_eq!(check(&cache, &info), Ok(()));

        cache.signing = SigningMode::SelfSigned;
        assert_eq!(check(&cache, &info), Err(Unsigned::NoKey(cache.name.clone())));
        cache.public_keys = vec![key.public_key()];
        let refused = check(&cache, &info).unwrap_err().to_string();
        assert!(refused.contains("'team-1'") && refused.contains("not signed"), "{refused}");
        info.signatures = vec![sign(&foreign)];
        let refused = check(&cache, &info).unwrap_err().to_string();
        assert!(refused.contains("'cache.nixos.org-1'"), "{refused}");
        info.signatures.push(sign(&key));
        assert_eq!(check(&cache, &info), Ok(()));
        for wrong in [sign(&imposter), key.sign(path_info("b", &[]).fingerprint().as_bytes())] {
            info.signatures = vec![sign(&key), wrong];
            assert_eq!(check(&cache, &info), Err(Unsigned::Wrong("team-1".into())));
        }
    }

    #[test]
    fn all_current_keys_sign_and_what_came_along_stays() {
        let key = |name: &str, seed| SecretKey::from_seed(name, &[seed; 32]).unwrap();
        let mut cache = cache(1, "main");
        cache.keys = vec![key("main.box.local-2", 2), key("main.box.local-1", 1)];
        let mut info = path_info("a", &[]);
        let foreign = key("other-1", 3).sign(info.fingerprint().as_bytes());
        let ours_again = cache.keys[1].sign(info.fingerprint().as_bytes());
        info.signatures = vec![foreign.clone(), ours_again];

        let signatures = signatures(&cache, &info);

        let names: Vec<_> = signatures.iter().map(Signature::key_name).collect();
        assert_eq!(names, ["main.box.local-2", "main.box.local-1", "other-1"]);
        for (signature, key) in signatures.iter().zip(&cache.keys) {
            assert!(key.public_key().verifies(info.fingerprint().as_bytes(), signature));
        }
        assert_eq!(signatures[2], foreign);
    }
}
