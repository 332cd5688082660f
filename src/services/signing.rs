//! Managed signatures, made when a narinfo is served: so that a new key covers old paths.

use crate::formats::PathInfo;
use crate::formats::signature::Signature;
use crate::store::Cache;

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
