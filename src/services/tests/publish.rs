//! Pushes.

use super::*;
use crate::formats::NarInfo;
use crate::formats::signature::Signature;
use crate::services::metrics::PushEnd;
use crate::store::{IngestError, Right};
use crate::wire::message::InlineChunk;
use crate::wire::{Refusal, RefusalCode};

async fn narinfo(test: &TestServices, cache: &str, path: &TestPath) -> Option<NarInfo> {
    let scope = test.services.caches.scope(cache, None).unwrap();
    let found = test.services.lookup.narinfo(&scope, path.info.store_path.hash()).await.unwrap();
    found.map(|found| str::from_utf8(&found.text).unwrap().parse().unwrap())
}

#[tokio::test]
async fn what_was_pushed_is_served_signed() {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], &noise(1, 900_000));
    assert!(narinfo(&test, "main", &path).await.is_none());

    assert_eq!(test.push("main", &path).await.unwrap(), PushOutcome::Stored);

    let narinfo = narinfo(&test, "main", &path).await.expect("it is visible");
    assert_eq!(narinfo.info.nar_hash, path.info.nar_hash);
    let key = test.services.caches.get(&TestServices::main()).unwrap().keys[0].public_key();
    let fingerprint = path.info.fingerprint();
    let verifies = |signature: &Signature| key.verifies(fingerprint.as_bytes(), signature);
    assert!(narinfo.info.signatures.iter().any(verifies), "{narinfo}");
    let stored = stored_bytes(&test, &path).await;
    assert_eq!(Some(Sha256Hash::of(&stored)), narinfo.file_hash);
    assert_eq!(test.services.metrics.pushes(PushEnd::Stored), 1);
    assert_eq!(test.services.metrics.pushes_under_way.get(), 0);
    test.stop().await;
}

#[tokio::test]
async fn a_second_push_sends_nothing_and_its_signatures_are_added() {
    let test = TestServices::new().await;
    let mut path = TestPath::new("a", &[], b"hello");
    test.push("main", &path).await.unwrap();
    assert_eq!(narinfo(&test, "main", &path).await.unwrap().info.signatures.len(), 1);

    let key = SecretKey::from_seed("somebody-1", &[3; 32]).unwrap();
    path.info.signatures = vec![key.sign(path.info.fingerprint().as_bytes())];
    let begun = test.begin(&test.owner, "main", &path).await.unwrap();

    assert!(matches!(begun, Begun::Done(PushOutcome::Known)), "{begun:?}");
    let signatures = narinfo(&test, "main", &path).await.unwrap().info.signatures;
    let names: Vec<_> = signatures.iter().map(Signature::key_name).collect();
    assert_eq!(names, ["main.office.local-1", "somebody-1"]);
    test.stop().await;
}

#[tokio::test]
async fn the_same_nar_under_another_name_sends_nothing() {
    let test = TestServices::new().await;
    test.push("main", &TestPath::new("a", &[], b"hello")).await.unwrap();

    let begun = test.begin(&test.owner, "other", &TestPath::new("b", &[], b"hello")).await;

    assert!(matches!(begun, Ok(Begun::Done(PushOutcome::Stored))), "{begun:?}");
    test.stop().await;
}

#[tokio::test]
async fn another_nar_under_a_visible_name_is_not_even_sent() {
    let test = TestServices::new().await;
    let first = TestPath::new("a", &[], b"hello");
    test.push("main", &first).await.unwrap();

    let begun = test.begin(&test.owner, "main", &TestPath::new("a", &[], b"other")).await;

    assert!(matches!(begun, Ok(Begun::Done(PushOutcome::KeptFirst))), "{begun:?}");
    let narinfo = narinfo(&test, "main", &first).await.unwrap();
    assert_eq!(narinfo.info.nar_hash, first.info.nar_hash);
    assert_eq!(test.services.metrics.pushes(PushEnd::KeptFirst), 1);
    test.stop().await;
}

#[tokio::test]
async fn a_path_is_served_with_its_last_reference() {
    let test = TestServices::new().await;
    let (low, high) = (TestPath::new("low", &[], b"low"), TestPath::new("high", &["low"], b"high"));

    let outcome = test.push("main", &high).await.unwrap();

    let missing = vec![low.info.store_path.base_name().to_owned()];
    assert_eq!(outcome, PushOutcome::Hidden { missing });
    assert!(narinfo(&test, "main", &high).await.is_none());
    let scope = test.services.caches.root_scope(None);
    let nar = test.services.lookup.nar(&scope, high.info.nar_hash).await.unwrap();
    assert!(nar.is_none(), "a hidden path's NAR is hidden too");

    assert_eq!(test.push("main", &low).await.unwrap(), PushOutcome::Stored);
    assert!(narinfo(&test, "main", &high).await.is_some());
    assert!(narinfo(&test, "other", &high).await.is_none());
    test.stop().await;
}

#[tokio::test]
async fn bytes_that_are_not_the_nar_leave_nothing() {
    let test = TestServices::new().await;
    let mut path = TestPath::new("a", &[], b"hello");
    path.info.nar_hash = Sha256Hash::of(b"something else");

    let error = test.push("main", &path).await.unwrap_err();

    assert!(matches!(error, PublishError::Ingest(IngestError::WrongHash { .. })), "{error}");
    assert_eq!(Refusal::from(error).code, RefusalCode::WrongNarHash);
    assert!(narinfo(&test, "main", &path).await.is_none());
    assert_eq!(test.services.metrics.pushes(PushEnd::Refused), 1);
    assert_eq!(test.services.metrics.pushes(PushEnd::BrokenOff), 0);
    test.stop().await;
}

#[tokio::test]
async fn who_has_no_right_is_refused_before_anything_else() {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], b"hello");
    let token = async |name, right| {
        let (_, text) = test.services.tokens.create(per_cache(name, right)).await.unwrap();
        test.services.auth.check(&text.to_secret_text()).await.unwrap()
    };
    let reader = token("main", Right::Read).await;
    let elsewhere = token("other", Right::Write).await;
    let writer = token("main", Right::Write).await;

    for caller in [&reader, &elsewhere] {
        let error = test.begin(caller, "main", &path).await.unwrap_err();
        assert_eq!(Refusal::from(error).code, RefusalCode::Forbidden);
    }
    let error = test.begin(&writer, "nowhere", &path).await.unwrap_err();
    assert_eq!(Refusal::from(error).code, RefusalCode::NoSuchCache);
    assert!(matches!(test.begin(&writer, "main", &path).await, Ok(Begun::Upload(_))));
    test.stop().await;
}

#[tokio::test]
async fn an_offer_signed_by_another_device_is_refused() {
    let test = TestServices::new().await;
    let offer = TestPath::new("a", &[], b"hello").offer();
    let other = SecretKey::from_seed("other", &[1; 32]).unwrap();
    let key = *other.public_key().as_bytes();

    let main = TestServices::main();
    let error = test.services.publish.begin(&test.owner, &main, key, offer).await.unwrap_err();

    assert_eq!(Refusal::from(error).code, RefusalCode::BadSignature);
    test.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_but_what_it_need_not_send_again() {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], &noise(1, 900_000));
    let chunks = path.chunks();
    let refs: Vec<_> = chunks.iter().map(|(chunk, _)| *chunk).collect();
    let begun = test.begin(&test.owner, "main", &path).await.unwrap();
    let Begun::Upload(mut upload) = begun else { panic!("{begun:?}") };
    let wanted = upload.batch(refs.clone()).await.unwrap();
    assert_eq!(wanted.len(), refs.len());
    assert_eq!(upload.frames(vec![(0, chunks[0].1.clone())]).await.unwrap(), [0_usize; 0]);
    assert_eq!(test.services.metrics.pushes_under_way.get(), 1);

    drop(upload);

    assert_eq!(test.services.metrics.pushes_under_way.get(), 0);
    assert_eq!(test.services.metrics.pushes(PushEnd::BrokenOff), 1);
    assert!(narinfo(&test, "main", &path).await.is_none());
    let begun = test.begin(&test.owner, "main", &path).await.unwrap();
    let Begun::Upload(mut upload) = begun else { panic!("{begun:?}") };
    assert_eq!(upload.batch(refs.clone()).await.unwrap().len(), refs.len() - 1);
    test.stop().await;
}

#[tokio::test]
async fn frames_that_nobody_asked_for_end_the_upload() {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], b"hello");
    let begun = test.begin(&test.owner, "main", &path).await.unwrap();
    let Begun::Upload(mut upload) = begun else { panic!("{begun:?}") };
    assert!(upload.frames(vec![(0, Bytes::new())]).await.is_err());
    assert!(upload.batch(Vec::new()).await.is_err(), "it is over");

    let begun = test.begin(&test.owner, "main", &path).await.unwrap();
    let Begun::Upload(mut upload) = begun else { panic!("{begun:?}") };
    upload.batch(vec![path.chunks()[0].0]).await.unwrap();
    let error = upload.frames(Vec::new()).await.unwrap_err();
    assert!(matches!(error, PublishError::FramesMissing), "{error}");
    test.stop().await;
}

#[tokio::test]
async fn only_what_a_cache_lacks_is_missing() {
    let test = TestServices::new().await;
    let (here, there) = (TestPath::new("a", &[], b"a"), TestPath::new("b", &[], b"b"));
    test.push("main", &here).await.unwrap();
    test.push("main", &TestPath::new("c", &["nowhere"], b"c")).await.unwrap();
    let hashes = ["b", "a", "c"].map(|name| store_path(name).hash());

    let missing =
        test.services.publish.missing(&test.owner, &TestServices::main(), hashes.to_vec()).await;

    assert_eq!(missing.unwrap(), [there.info.store_path.hash()]);
    test.stop().await;
}

#[tokio::test]
async fn a_damaged_chunk_is_asked_for_again_and_healed() {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], &noise(1, 900_000));
    test.push("main", &path).await.unwrap();
    test.damage();
    let scope = test.services.caches.root_scope(None);
    let file = test.services.lookup.nar(&scope, path.info.nar_hash).await.unwrap().unwrap();
    let mut stream = test.services.lookup.read_file(&file, 0, file.file_size);
    let broken = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            other => break other,
        }
    };
    assert!(matches!(broken, Some(Err(_))), "never a clean end");
    assert!(narinfo(&test, "main", &path).await.is_none(), "what is damaged is not offered");

    let outcome = test.push("main", &path).await.unwrap();

    assert!(matches!(outcome, PushOutcome::Known | PushOutcome::Stored), "{outcome:?}");
    let narinfo = narinfo(&test, "main", &path).await.expect("it is back");
    let stored = stored_bytes(&test, &path).await;
    assert_eq!(Some(Sha256Hash::of(&stored)), narinfo.file_hash);
    test.stop().await;
}

#[tokio::test]
async fn a_small_nar_comes_whole_also_where_what_came_before_is_damaged() {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], &noise(1, 60_000));
    let chunks = path.chunks();
    let begin = async || match test.begin(&test.owner, "main", &path).await {
        Ok(Begun::Upload(upload)) => upload,
        other => panic!("{other:?}"),
    };
    let mut given_up = begin().await;
    let wanted = given_up.batch(chunks.iter().map(|(chunk, _)| *chunk).collect()).await.unwrap();
    let frames = wanted.into_iter().map(|place| (place, chunks[place].1.clone())).collect();
    assert_eq!(given_up.frames(frames).await.unwrap(), [0_usize; 0]);
    drop(given_up);
    test.damage();

    let inline = chunks.into_iter().map(|(chunk, frame)| InlineChunk { chunk, frame }).collect();
    assert_eq!(begin().await.whole(inline).await.unwrap(), PushOutcome::Stored);

    let narinfo = narinfo(&test, "main", &path).await.expect("it is visible");
    let stored = stored_bytes(&test, &path).await;
    assert_eq!(Some(Sha256Hash::of(&stored)), narinfo.file_hash);
    assert_eq!(test.services.metrics.pushes_under_way.get(), 0);
    test.stop().await;
}
