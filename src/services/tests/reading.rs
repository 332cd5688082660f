//! Reading by cache and by root.

use super::*;
use crate::formats::NarInfo;
use crate::formats::signature::Signature;
use crate::services::{CacheRequest, Scope};

async fn text(test: &TestServices, scope: &Scope, path: &TestPath) -> Option<String> {
    let found = test.services.lookup.narinfo(scope, path.info.store_path.hash()).await.unwrap();
    found.map(|found| String::from_utf8(found.text.to_vec()).unwrap())
}

#[tokio::test]
async fn the_root_merges_what_its_caches_have() {
    let test = TestServices::new().await;
    let (both, second) = (TestPath::new("a", &[], b"a"), TestPath::new("b", &[], b"b"));
    test.push("main", &both).await.unwrap();
    let root = test.services.caches.root_scope();
    let before: NarInfo = text(&test, &root, &both).await.unwrap().parse().unwrap();
    assert_eq!(before.info.signatures.len(), 1);

    test.push("other", &both).await.unwrap();
    test.push("other", &second).await.unwrap();

    let merged: NarInfo = text(&test, &root, &both).await.unwrap().parse().unwrap();
    let names: Vec<_> = merged.info.signatures.iter().map(Signature::key_name).collect();
    assert_eq!(names, ["main.office.local-1", "other.office.local-1"]);
    assert!(text(&test, &root, &second).await.is_some());
    let main = test.services.caches.public_scope("main").unwrap();
    assert!(text(&test, &main, &second).await.is_none());
    assert!(test.services.lookup.nar(&main, second.info.nar_hash).await.unwrap().is_none());
    test.stop().await;
}

#[tokio::test]
async fn a_cache_that_is_made_later_is_asked_by_its_name_alone() {
    let test = TestServices::new().await;
    let mut names = test.services.caches.public_names();
    let name: CacheName = "late".parse().unwrap();
    let request = CacheRequest {
        name,
        description: "Late".to_owned(),
        priority: 7,
        signing: SigningMode::Managed,
        public_keys: Vec::new(),
    };
    let made = test.services.caches.create(request.clone()).await.unwrap();
    assert_eq!(made.keys[0].name(), "late.office.local-1");
    assert!(names.has_changed().unwrap());
    assert_eq!(names.borrow_and_update().len(), 3);

    let path = TestPath::new("a", &[], b"a");
    test.push("late", &path).await.unwrap();

    let late = test.services.caches.public_scope("late").unwrap();
    assert_eq!(late.priority(), 7);
    assert!(text(&test, &late, &path).await.is_some());
    assert!(text(&test, &test.services.caches.root_scope(), &path).await.is_none());
    let again = test.services.caches.create(request).await.unwrap_err();
    assert!(matches!(again, crate::services::CreateCacheError::Exists(_)), "{again}");
    test.stop().await;
}

#[tokio::test]
async fn a_private_cache_is_no_scope_of_anybody() {
    let test = TestServices::new().await;
    let private = NewCache { is_public: false, ..new_cache("secret", Some(3)) };
    test.store.create_cache(private).await.unwrap();
    let name: CacheName = "another".parse().unwrap();
    let request = CacheRequest {
        name,
        description: String::new(),
        priority: 30,
        signing: SigningMode::Managed,
        public_keys: Vec::new(),
    };
    test.services.caches.create(request).await.unwrap();

    assert!(test.services.caches.get(&"secret".parse().unwrap()).is_some());
    assert!(test.services.caches.public_scope("secret").is_none());
    assert_eq!(test.services.caches.root().len(), 2);
    test.stop().await;
}

#[tokio::test]
async fn a_listing_comes_with_the_path() {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], b"hello");
    test.push("main", &path).await.unwrap();
    let scope = test.services.caches.root_scope();
    let hash = path.info.store_path.hash();
    let listing = test.services.lookup.listing(&scope, hash).await.unwrap().unwrap();
    let listing: serde_json::Value = serde_json::from_slice(&listing).unwrap();
    assert_eq!(listing["root"]["type"], "regular");
    assert_eq!(listing["root"]["size"], 5);
    test.stop().await;
}
