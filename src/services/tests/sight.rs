//! What the store tells a push is what the token's rights say.

use super::*;
use crate::store::Right;

#[tokio::test]
async fn the_store_tells_of_what_the_rights_allow() {
    let test = TestServices::new().await;
    for name in ["private", "secret"] {
        let name = name.parse().unwrap();
        let request = CacheRequest { is_public: false, ..CacheRequest::named(name) };
        test.services.caches.create(request).await.unwrap();
    }
    let caches = test.services.caches.all();
    let within = |cache: &Cache| TestPath::new("a", &[], cache.name.as_str().as_bytes());
    for cache in &caches {
        test.push(cache.name.as_str(), &within(cache)).await.unwrap();
    }
    let mut grants = vec![None];
    for (private, secret) in [
        (Some(Right::Read), None),
        (Some(Right::Write), None),
        (Some(Right::ReadWrite), Some(Right::Read)),
        (Some(Right::Write), Some(Right::ReadWrite)),
        (None, Some(Right::Write)),
    ] {
        let named = [("private", private), ("secret", secret), ("main", Some(Right::Write))];
        let given =
            named.iter().filter_map(|(name, right)| Some((name.parse().unwrap(), (*right)?)));
        grants.push(Some(given.collect()));
    }
    for grants in grants {
        let request =
            TokenRequest { label: String::new(), expires_in_seconds: None, grants, device: None };
        let (_, text) = test.services.tokens.create(request).await.unwrap();
        let caller = test.services.auth.check(&text.to_secret_text()).await.unwrap();
        let in_sight = caller.caches_in_sight(&caches);
        for target in caches.iter().filter(|target| caller.may_write(target)) {
            for cache in &caches {
                let path = TestPath::new("new", &[], &noise(1, 100));
                let begun = test.begin(&caller, target.name.as_str(), &path).await.unwrap();
                let Begun::Upload(mut upload) = begun else { panic!("{begun:?}") };
                let named = within(cache).chunks().iter().map(|(chunk, _)| *chunk).collect();
                let told = upload.batch(named).await.unwrap().is_empty();
                let may_be_told = caller.may_read(cache) || cache.id == target.id;
                let what = format!("{:?}: {} to {}", caller.token.grants, cache.name, target.name);
                assert_eq!(told, may_be_told, "{what}");
                assert!(!told || in_sight.contains(&cache.id), "{what}");
            }
        }
    }
    test.stop().await;
}

#[tokio::test]
async fn a_cache_without_a_right_is_not_there() {
    let test = TestServices::new().await;
    let name: CacheName = "private".parse().unwrap();
    let request = CacheRequest { is_public: false, ..CacheRequest::named(name.clone()) };
    test.services.caches.create(request).await.unwrap();
    let (_, text) = test.services.tokens.create(per_cache("main", Right::ReadWrite)).await.unwrap();
    let caller = test.services.auth.check(&text.to_secret_text()).await.unwrap();

    let asked = test.services.publish.missing(&caller, &name, Vec::new()).await;
    let begun = test.begin(&caller, "private", &TestPath::new("a", &[], b"a")).await;

    assert!(matches!(asked, Err(PublishError::NoSuchCache(_))), "{asked:?}");
    assert!(matches!(begun, Err(PublishError::NoSuchCache(_))), "{begun:?}");
    let begun = test.begin(&caller, "other", &TestPath::new("a", &[], b"a")).await;
    assert!(matches!(begun, Err(PublishError::Forbidden { .. })), "it is public: {begun:?}");
    test.stop().await;
}
