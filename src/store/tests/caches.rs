//! Caches that change and go, and what an index that is made anew knows of it.

use std::fs;

use super::{NOW, TOKEN, TestNar, TestStore, new_cache};
use crate::formats::signature::SecretKey;
use crate::store::pack::scan;
use crate::store::{
    Cache, CacheUpdate, NarSource, NewCache, NewToken, Right, SigningMode, StoreError,
    StoreOptions, rebuild_index,
};

pub(super) fn update_of(cache: &Cache) -> CacheUpdate {
    CacheUpdate {
        is_public: cache.is_public,
        signing: cache.signing,
        priority: cache.priority,
        root_position: cache.root_position,
        description: cache.description.clone(),
        limits: cache.limits,
        first_key: None,
        public_keys: Vec::new(),
    }
}

impl TestStore {
    pub(super) async fn main(&self) -> Cache {
        let caches = self.store.caches().await.unwrap();
        caches.into_iter().find(|cache| cache.id == self.cache).unwrap()
    }

    async fn names(&self) -> Vec<String> {
        let caches = self.store.caches().await.unwrap();
        caches.iter().map(|cache| cache.name.to_string()).collect()
    }

    /// Makes the index anew, with what the old one knew or without it.
    async fn rebuilt(self, with_old: bool) -> Self {
        self.store.close().await.unwrap();
        if !with_old {
            fs::remove_file(self.data().join("larder.db")).unwrap();
        }
        rebuild_index(StoreOptions::at(&self.data()), &|_progress| ()).unwrap();
        self.reopen().await
    }

    /// Damages the last record of the first pack.
    fn damage_last_record(&self) {
        let packs = self.data().join("packs");
        let key = self.store.0.shared.packs.key();
        let mut last = 0;
        scan::scan(&packs, key, 1, 0, None, |found| {
            last = found.end() - 1;
            Ok::<_, StoreError>(())
        })
        .unwrap();
        let pack = self.pack(1);
        let mut bytes = fs::read(&pack).unwrap();
        bytes[usize::try_from(last).unwrap()] ^= 1;
        fs::write(pack, bytes).unwrap();
    }
}

#[tokio::test]
async fn a_deleted_cache_is_gone_for_good_with_all_that_was_its() {
    for with_old in [true, false] {
        let test = TestStore::new().await;
        test.store.create_cache(new_cache("other")).await.unwrap();
        let nar = TestNar::random(1, 100_000);
        let path = test.path(&nar, "hello", &[]);
        test.push(&nar, &path).await;
        let token = NewToken {
            secret_hash: [9; 32],
            label: String::new(),
            created_at: NOW,
            expires_at: None,
            grants: Some(vec![(test.cache, Right::Read)]),
            device_id: None,
        };
        test.store.create_token(token).await.unwrap();

        test.store.delete_cache(test.cache).await.unwrap();

        assert_eq!(test.names().await, ["other"]);
        let hash = path.info.store_path.hash();
        assert!(test.store.path(test.cache, hash).await.unwrap().is_none());
        assert!(test.store.nar_in(vec![test.cache], nar.hash).await.unwrap().is_none());
        let tokens = test.store.tokens().await.unwrap();
        let grants = tokens.iter().map(|known| &known.token.grants).collect::<Vec<_>>();
        assert_eq!(grants, [&Some(Vec::new())], "it does not become a personal one");
        let again = test.store.delete_cache(test.cache).await.unwrap_err();
        assert!(matches!(again, StoreError::NoSuchCache), "{again}");

        let test = test.rebuilt(with_old).await;
        assert_eq!(test.names().await, ["other"], "with the old index: {with_old}");
        let another = test.store.create_cache(new_cache("main")).await.unwrap();
        assert_eq!(test.store.count_paths(another.id).await.unwrap(), (0, 0));
    }
}

#[tokio::test]
async fn a_push_that_is_under_way_when_its_cache_goes_keeps_nothing() {
    let test = TestStore::new().await;
    let nar = TestNar::random(2, 100_000);
    let finished = test.ingest(&nar, TOKEN).await.unwrap();
    test.store.delete_cache(test.cache).await.unwrap();

    let path = test.path(&nar, "late", &[]);
    let source = NarSource::Ingested(finished);
    let error = test.store.commit_path(path, source).await.unwrap_err();

    assert!(matches!(error, StoreError::NoSuchCache), "{error}");
}

#[tokio::test]
async fn a_cache_that_was_made_private_never_comes_back_as_public() {
    for (with_old, damaged) in [(true, false), (false, false), (true, true)] {
        let test = TestStore::new().await;
        let private =
            CacheUpdate { is_public: false, priority: 7, ..update_of(&test.main().await) };
        let changed = test.store.change_cache(test.cache, private).await.unwrap();
        assert!(!changed.is_public);
        if damaged {
            test.damage_last_record();
        }
        let test = test.rebuilt(with_old).await;
        let main = test.main().await;
        assert_eq!((main.is_public, main.priority), (false, 7), "{with_old} {damaged}");
    }
}

#[tokio::test]
async fn a_deleted_cache_whose_tombstone_is_damaged_comes_back_for_its_owner_alone() {
    let test = TestStore::new().await;
    test.store.delete_cache(test.cache).await.unwrap();
    test.damage_last_record();
    let test = test.rebuilt(true).await;
    let caches = test.store.caches().await.unwrap();
    assert!(caches.iter().all(|cache| !cache.is_public && cache.root_position.is_none()));
    assert_eq!(caches.len(), 1);
}

#[tokio::test]
async fn keys_wait_for_the_day_a_cache_is_managed_again() {
    let test = TestStore::new().await;
    let key = SecretKey::from_seed("ci.box.local-1", &[3; 32]).unwrap();
    let ci = NewCache { key: Some(key.clone()), ..new_cache("ci") };
    let ci = test.store.create_cache(ci).await.unwrap();
    let own = SecretKey::from_seed("ci-1", &[4; 32]).unwrap().public_key();
    let self_signed = CacheUpdate {
        signing: SigningMode::SelfSigned,
        public_keys: vec![own.clone(), own.clone()],
        ..update_of(&ci)
    };
    let changed = test.store.change_cache(ci.id, self_signed).await.unwrap();
    assert!(changed.keys.is_empty());
    assert_eq!(changed.public_keys, std::slice::from_ref(&own));

    let other = SecretKey::from_seed("ci.box.local-1", &[5; 32]).unwrap();
    let managed = CacheUpdate {
        signing: SigningMode::Managed,
        first_key: Some(other),
        ..update_of(&changed)
    };
    let changed = test.store.change_cache(ci.id, managed).await.unwrap();

    assert_eq!(changed.keys[0].public_key(), key.public_key(), "the key that clients know");
    assert_eq!((changed.keys.len(), changed.public_keys), (1, vec![own]));
}
