//! Caches that change.

use futures_util::FutureExt;

use super::*;
use crate::formats::signature::{PublicKey, SecretKey};
use crate::services::{CacheChanges, CacheError, CacheRequest, RootPlace, Scope, SigningRequest};

fn key(name: &str) -> SecretKey {
    SecretKey::from_seed(name, &[3; 32]).unwrap()
}

fn self_signed(public_keys: Vec<PublicKey>) -> CacheChanges {
    let signing = Some(SigningRequest::SelfSigned { public_keys });
    CacheChanges { signing, ..CacheChanges::default() }
}

async fn signers(test: &TestServices, scope: &Scope, path: &TestPath) -> Vec<String> {
    let hash = path.info.store_path.hash();
    let narinfo = test.services.lookup.narinfo(scope, hash).await.unwrap().unwrap();
    let narinfo: crate::formats::NarInfo = str::from_utf8(&narinfo.text).unwrap().parse().unwrap();
    narinfo.info.signatures.iter().map(|it| it.key_name().to_owned()).collect()
}

#[tokio::test]
async fn a_cache_becomes_self_signed_where_that_leaves_no_path_without_a_signature() {
    let test = TestServices::new().await;
    let (caches, main) = (&test.services.caches, TestServices::main());
    let own = key("own-1");
    let mut signed = TestPath::new("signed", &[], b"signed");
    signed.info.signatures = vec![own.sign(signed.info.fingerprint().as_bytes())];
    test.push("main", &signed).await.unwrap();
    caches.update(&main, self_signed(vec![own.public_key()])).await.unwrap();
    let scope = || caches.scope("main", None).unwrap();
    assert_eq!(signers(&test, &scope(), &signed).await, ["own-1"]);

    let managed = CacheChanges { signing: Some(SigningRequest::Managed), ..Default::default() };
    caches.update(&main, managed).await.unwrap();
    assert_eq!(signers(&test, &scope(), &signed).await, ["main.office.local-1", "own-1"]);

    let unsigned = TestPath::new("unsigned", &[], b"unsigned");
    test.push("main", &unsigned).await.unwrap();
    let refused = caches.update(&main, self_signed(Vec::new())).await.unwrap_err();
    assert!(matches!(refused, CacheError::Unsigned { unsigned: 1, paths: 2 }), "{refused}");
    assert_eq!(signers(&test, &scope(), &unsigned).await, ["main.office.local-1"]);
    let forced = CacheChanges { force: true, ..self_signed(Vec::new()) };
    caches.update(&main, forced).await.unwrap();
    assert_eq!(signers(&test, &scope(), &unsigned).await, [""; 0]);
    test.stop().await;
}

#[tokio::test]
async fn a_self_signed_cache_that_becomes_managed_gets_a_key() {
    let test = TestServices::new().await;
    let named = CacheRequest::named("ci".parse().unwrap());
    let signing = SigningRequest::SelfSigned { public_keys: vec![key("own-1").public_key()] };
    let made = test.services.caches.create(CacheRequest { signing, ..named }).await.unwrap();
    assert_eq!((made.keys.len(), made.public_keys.len()), (0, 1));

    let managed = CacheChanges { signing: Some(SigningRequest::Managed), ..Default::default() };
    let changed = test.services.caches.update(&made.name, managed).await.unwrap();

    assert_eq!(changed.keys[0].name(), "ci.office.local-1");
    test.stop().await;
}

#[tokio::test]
async fn places_in_the_root_are_given_in_order_and_taken_away() {
    let test = TestServices::new().await;
    let caches = &test.services.caches;
    let root = || {
        let scope = caches.root_scope(None);
        scope.caches().iter().map(|cache| cache.name.to_string()).collect::<Vec<_>>()
    };
    let named = CacheRequest::named("ci".parse().unwrap());
    caches.create(CacheRequest { root: RootPlace::Last, ..named }).await.unwrap();
    assert_eq!(root(), ["main", "other", "ci"]);
    let to = async |name: &str, place| {
        let changes = CacheChanges { root: Some(place), ..CacheChanges::default() };
        caches.update(&name.parse().unwrap(), changes).await.unwrap()
    };
    let ci = to("ci", RootPlace::Last).await;
    assert_eq!(ci.root_position, Some(3), "it is the last already");
    to("ci", RootPlace::At(0)).await;
    assert_eq!(root(), ["ci", "main", "other"]);
    to("main", RootPlace::Last).await;
    to("ci", RootPlace::Out).await;
    assert_eq!(root(), ["other", "main"]);
    to("other", RootPlace::At(u32::MAX)).await;
    to("main", RootPlace::Last).await;
    assert_eq!(root().len(), 2);
    test.stop().await;
}

#[tokio::test]
async fn what_a_cache_cannot_be_it_does_not_become() {
    let test = TestServices::new().await;
    let (caches, main) = (&test.services.caches, TestServices::main());
    let before = caches.get(&main).unwrap();
    for changes in [
        CacheChanges { priority: Some(1 << 31), is_public: Some(false), ..Default::default() },
        CacheChanges { description: Some("a\nb".into()), ..Default::default() },
    ] {
        assert!(caches.update(&main, changes).await.is_err());
    }
    let after = caches.get(&main).unwrap();
    assert_eq!((after.is_public, after.priority), (true, before.priority));
    let nowhere = "nowhere".parse().unwrap();
    let error = caches.update(&nowhere, CacheChanges::default()).await.unwrap_err();
    assert!(matches!(error, CacheError::NoSuchCache(_)), "{error}");
    assert!(matches!(caches.delete(&nowhere).await, Err(CacheError::NoSuchCache(_))));
    test.stop().await;
}

#[tokio::test]
async fn a_change_that_has_begun_is_done_though_nobody_waits_for_it() {
    let test = TestServices::new().await;
    let (caches, main) = (&test.services.caches, TestServices::main());
    let changes = CacheChanges { is_public: Some(false), ..CacheChanges::default() };
    let asked = caches.update(&main, changes);
    // Looks once, as a server does whose client goes away right after its request.
    assert!(asked.now_or_never().is_none(), "it takes a commit");
    let private = async {
        while caches.scope("main", None).is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), private).await.unwrap();
    test.stop().await;
}

#[tokio::test]
async fn who_reads_a_cache_that_goes_may_finish() {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], &noise(1, 900_000));
    test.push("main", &path).await.unwrap();
    let scope = test.services.caches.scope("main", None).unwrap();
    let nar = test.services.lookup.nar(&scope, path.info.nar_hash).await.unwrap().unwrap();
    let mut bytes = test.services.lookup.read_raw(&nar, 0, nar.nar_size);
    let mut read = bytes.next().await.unwrap().unwrap().to_vec();

    test.services.caches.delete(&TestServices::main()).await.unwrap();

    while let Some(piece) = bytes.next().await {
        read.extend_from_slice(&piece.unwrap());
    }
    assert!(read == path.nar);
    assert!(test.services.caches.scope("main", None).is_none());
    let again = test.services.lookup.nar(&scope, path.info.nar_hash).await.unwrap();
    assert!(again.is_none(), "a scope from before finds nothing");
    test.stop().await;
}

#[tokio::test]
async fn a_push_to_a_cache_that_goes_is_told_so() {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], b"a");
    let begun = test.begin(&test.owner, "main", &path).await.unwrap();
    let Begun::Upload(upload) = begun else { panic!("{begun:?}") };

    test.services.caches.delete(&TestServices::main()).await.unwrap();

    let refusal = crate::wire::Refusal::from(send(upload, &path).await.unwrap_err());
    assert_eq!(refusal.code, crate::wire::RefusalCode::NoSuchCache);
    assert!(refusal.sentence.contains("deleted"), "{refusal}");
    let next = test.push("main", &path).await.unwrap_err();
    assert!(matches!(next, PublishError::NoSuchCache(_)), "{next}");
    let named = CacheRequest::named(TestServices::main());
    test.services.caches.create(named).await.unwrap();
    assert_eq!(test.push("main", &path).await.unwrap(), PushOutcome::Stored);
    test.stop().await;
}
