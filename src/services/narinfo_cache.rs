//! Narinfos as they were served, bounded in bytes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::formats::limits::NARINFO_CACHE_BYTES_MAX;
use crate::formats::{Sha256Hash, StorePathHash, base32};
use crate::services::caches::ScopeKey;

/// A narinfo as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NarInfoText {
    /// The text.
    pub text: Bytes,
    /// A strong entity tag of it (RFC 9110, 8.8.3), with its quotes.
    pub etag: Bytes,
}

impl NarInfoText {
    pub(super) fn new(text: String) -> Self {
        let hash = Sha256Hash::of(text.as_bytes());
        let (head, _) = hash.as_bytes().split_at(ETAG_BYTES);
        Self { text: text.into(), etag: format!("\"{}\"", base32::encode(head)).into() }
    }
}

/// Enough that two texts of one path never share a tag.
const ETAG_BYTES: usize = 15;

/// Which narinfo: where it was asked for, and for which path. Who may read more caches asks in
/// another scope, so nobody is given what was made for another.
pub(super) type Key = (ScopeKey, StorePathHash);

/// Says that nothing was forgotten since it was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// Narinfos in memory. Only what is visible is kept, so what strangers ask for in vain takes no
/// room.
#[derive(Debug)]
pub(super) struct NarInfoCache {
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes_max: usize,
}

/// Locks that do not wait for each other.
const SHARDS: usize = 16;
/// What an entry takes beside its text: key, tag, and its share of the table.
const ENTRY_BYTES: usize = 200;

/// Two halves of equal size: what is asked for moves to the young one, and when that is full the
/// old one is forgotten as a whole. It comes near to "least recently used" without a list.
#[derive(Debug, Default)]
struct Shard {
    generation: u64,
    young: HashMap<Key, NarInfoText>,
    young_bytes: usize,
    old: HashMap<Key, NarInfoText>,
}

impl Shard {
    fn put(&mut self, key: Key, narinfo: NarInfoText, bytes_max: usize) {
        let bytes = narinfo.text.len() + ENTRY_BYTES;
        if self.young_bytes + bytes > bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if bytes <= bytes_max / 2 && self.young.insert(key, narinfo).is_none() {
            self.young_bytes += bytes;
        }
    }
}

impl NarInfoCache {
    pub(super) fn new() -> Self {
        Self::bounded(NARINFO_CACHE_BYTES_MAX)
    }

    fn bounded(bytes_max: usize) -> Self {
        Self { shards: Default::default(), shard_bytes_max: bytes_max / SHARDS }
    }

    /// The narinfo, or the generation to [`put`](Self::put) it with once it is made.
    pub(super) fn get(&self, key: &Key) -> Result<NarInfoText, Generation> {
        let mut shard = self.shard(key.1);
        if let Some(found) = shard.young.get(key) {
            return Ok(found.clone());
        }
        match shard.old.remove(key) {
            Some(found) => {
                shard.put(key.clone(), found.clone(), self.shard_bytes_max);
                Ok(found)
            }
            None => Err(Generation(shard.generation)),
        }
    }

    /// Keeps a narinfo, unless something was forgotten since `made_in`: it may have been made
    /// from what was true before.
    pub(super) fn put(&self, key: Key, narinfo: NarInfoText, made_in: Generation) {
        let mut shard = self.shard(key.1);
        if shard.generation == made_in.0 {
            shard.put(key, narinfo, self.shard_bytes_max);
        }
    }

    /// Forgets a path wherever it was asked for, because something about it changed.
    pub(super) fn forget(&self, path: StorePathHash) {
        let mut shard = self.shard(path);
        shard.generation += 1;
        shard.old.retain(|(_, kept), _| *kept != path);
        let mut gone_bytes = 0;
        shard.young.retain(|(_, kept), narinfo| {
            let stays = *kept != path;
            gone_bytes += if stays { 0 } else { narinfo.text.len() + ENTRY_BYTES };
            stays
        });
        shard.young_bytes -= gone_bytes;
    }

    /// Forgets everything.
    pub(super) fn forget_all(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            *shard = Shard { generation: shard.generation + 1, ..Shard::default() };
        }
    }

    /// All narinfos of a path are in one shard.
    fn shard(&self, path: StorePathHash) -> MutexGuard<'_, Shard> {
        let [.., last] = path.as_bytes();
        let shard = &self.shards[usize::from(*last) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CacheId;

    fn key_in(caches: &[i64], number: u32) -> Key {
        let scope = ScopeKey::new(1, caches.iter().copied().map(CacheId));
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        (scope, StorePathHash::from_bytes(bytes))
    }

    fn key(number: u32) -> Key {
        key_in(&[1], number)
    }

    fn narinfo(text: &str) -> NarInfoText {
        NarInfoText::new(text.to_owned())
    }

    #[test]
    fn what_was_put_is_found_where_it_was_put() {
        let cache = NarInfoCache::new();
        let generation = cache.get(&key(1)).unwrap_err();
        cache.put(key(1), narinfo("one"), generation);
        assert_eq!(cache.get(&key(1)).unwrap().text, "one");
        assert!(cache.get(&key_in(&[1, 2], 1)).is_err());
    }

    #[test]
    fn a_path_that_changed_is_forgotten_in_every_scope() {
        let cache = NarInfoCache::new();
        for key in [key_in(&[1], 1), key_in(&[1, 2], 1), key_in(&[1], 1 + (1 << 24))] {
            let generation = cache.get(&key).unwrap_err();
            cache.put(key, narinfo("one"), generation);
        }
        cache.forget(key(1).1);
        assert!(cache.get(&key_in(&[1], 1)).is_err() && cache.get(&key_in(&[1, 2], 1)).is_err());
        assert!(cache.get(&key_in(&[1], 1 + (1 << 24))).is_ok(), "another path");
    }

    #[test]
    fn what_was_made_before_a_change_is_not_kept_after_it() {
        let cache = NarInfoCache::new();
        let generation = cache.get(&key(1)).unwrap_err();
        cache.forget(key(1).1);
        cache.put(key(1), narinfo("stale"), generation);
        let generation = cache.get(&key(1)).unwrap_err();
        cache.forget_all();
        cache.put(key(1), narinfo("stale"), generation);
        assert!(cache.get(&key(1)).is_err());
    }

    #[test]
    fn it_stays_within_its_bytes_and_keeps_what_is_asked_for() {
        let bytes_max = SHARDS * 10 * (ENTRY_BYTES + 100);
        let cache = NarInfoCache::bounded(bytes_max);
        for number in 0..1_000 {
            if let Err(generation) = cache.get(&key(number)) {
                cache.put(key(number), narinfo(&"x".repeat(100)), generation);
            }
            assert!(cache.get(&key(0)).is_ok(), "asked for all the time, gone at {number}");
        }
        let kept: usize = cache
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap())
            .map(|shard| shard.young.len() + shard.old.len())
            .sum();
        assert!((5..=10).contains(&kept), "all are in one shard of ten: {kept}");
    }

    #[test]
    fn one_larger_than_its_share_is_not_kept() {
        let cache = NarInfoCache::bounded(SHARDS * 1_000);
        let generation = cache.get(&key(1)).unwrap_err();
        cache.put(key(1), narinfo(&"x".repeat(1_000)), generation);
        assert!(cache.get(&key(1)).is_err());
    }

    #[test]
    fn tags_differ_with_the_text() {
        let (one, two) = (narinfo("one"), narinfo("two"));
        assert_ne!(one.etag, two.etag);
        assert_eq!(one.etag, narinfo("one").etag);
        assert!(one.etag.starts_with(b"\"") && one.etag.ends_with(b"\"") && one.etag.len() == 26);
    }
}
