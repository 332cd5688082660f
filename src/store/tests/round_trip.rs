//! What comes in goes out, in both forms and any part, also after a restart.

use super::{NOW, STORED, TOKEN, TestNar, TestStore, collect, new_cache, store_path};
use crate::formats::signature::SecretKey;
use crate::store::{
    CommitOutcome, NarSource, NewToken, Right, Store, StoreError, StoreOptions, TokenId,
    rebuild_index,
};

#[tokio::test]
async fn a_pushed_path_is_served_also_after_a_restart() {
    let test = TestStore::new().await;
    let nar = TestNar::random(1, 3_000_000);
    let path = test.path(&nar, "hello", &[]);

    assert_eq!(test.push(&nar, &path).await, STORED);
    test.assert_served(&nar, &path).await;

    let test = test.reopened().await;
    test.assert_served(&nar, &path).await;
    assert_eq!(test.push(&nar, &path).await, CommitOutcome::Known);
}

#[tokio::test]
async fn any_part_of_both_forms_is_the_same_part_of_the_whole() {
    let test = TestStore::new().await;
    let nar = TestNar::random(2, 1_200_000);
    test.push(&nar, &test.path(&nar, "parts", &[])).await;
    let file = test.file(&nar).await;
    let stored = collect(test.store.read_file(&file, 0, file.file_size)).await.unwrap();

    for (whole, raw) in [(&stored, false), (&*nar.bytes, true)] {
        let length = whole.len();
        for (start, end) in [
            (0, 0),
            (0, 1),
            (length - 1, length),
            (length / 3, length / 2),
            (1, length - 1),
            (70_000, 70_001),
            (length, length),
        ] {
            let (from, bytes) = (start.try_into().unwrap(), (end - start).try_into().unwrap());
            let stream = match raw {
                true => test.store.read_raw(&file, from, bytes),
                false => test.store.read_file(&file, from, bytes),
            };
            let part = collect(stream).await.unwrap();
            assert!(part == whole[start..end], "{start}..{end}, raw: {raw}");
        }
    }
}

#[tokio::test]
async fn a_part_beyond_the_end_is_an_error() {
    let test = TestStore::new().await;
    let nar = TestNar::random(3, 1000);
    test.push(&nar, &test.path(&nar, "beyond", &[])).await;
    let file = test.file(&nar).await;

    for stream in [
        test.store.read_file(&file, 0, file.file_size + 1),
        test.store.read_file(&file, u64::MAX, 1),
        test.store.read_raw(&file, file.nar_size, 1),
    ] {
        let error = collect(stream).await.unwrap_err();
        assert!(matches!(error, StoreError::OutOfRange(_)), "{error:?}");
    }
}

#[tokio::test]
async fn the_same_nar_is_stored_once_and_its_chunks_are_not_sent_again() {
    let test = TestStore::new().await;
    let nar = TestNar::random(4, 2_000_000);
    test.push(&nar, &test.path(&nar, "first", &[])).await;
    let before = test.store.stats().await.unwrap();

    assert_eq!(test.wanted(&nar, TokenId(99)).await, 0);
    let outcome = test.push(&nar, &test.path(&nar, "second", &[])).await;

    assert_eq!(outcome, STORED);
    let after = test.store.stats().await.unwrap();
    assert_eq!((after.nars, after.chunks), (before.nars, before.chunks));
    assert_eq!(after.paths_visible, 2);
}

#[tokio::test]
async fn a_known_nar_needs_no_bytes() {
    let test = TestStore::new().await;
    let nar = TestNar::random(5, 100_000);
    let path = test.path(&nar, "two", &[]);
    assert!(test.store.known_nar(&path).await.unwrap().is_none());
    test.push(&nar, &test.path(&nar, "one", &[])).await;

    let known = test.store.known_nar(&path).await.unwrap().expect("known");
    let outcome = test.store.commit_path(path.clone(), NarSource::Known(known.id)).await.unwrap();

    assert_eq!(outcome, STORED);
    test.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn a_chunk_that_repeats_within_a_nar_is_sent_once() {
    let test = TestStore::new().await;
    let nar = TestNar::of(&vec![0; 3_000_000]);
    let mut distinct: Vec<_> = nar.refs().iter().map(|chunk| chunk.id).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() < nar.chunks.len());

    assert_eq!(test.wanted(&nar, TOKEN).await, distinct.len());
    let path = test.path(&nar, "zeros", &[]);
    assert_eq!(test.push(&nar, &path).await, STORED);
    test.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn frames_of_another_client_do_not_change_what_is_served() {
    let test = TestStore::new().await;
    let contents = b"compressible ".repeat(20_000);
    let (ours, theirs) = (TestNar::at_level(&contents, 3), TestNar::at_level(&contents, 15));
    assert!(ours.chunks[0].1 != theirs.chunks[0].1, "the same frame");
    let before = test.ingest(&ours, TOKEN).await.unwrap();

    // The other client has not sent these chunks, so it is asked for them.
    let path = test.path(&theirs, "same", &[]);
    assert_eq!(test.push(&theirs, &path).await, STORED);

    drop(before);
    test.assert_served(&theirs, &path).await;
}

#[tokio::test]
async fn the_listing_tells_the_files() {
    let test = TestStore::new().await;
    let nar = TestNar::of(b"listed");
    test.push(&nar, &test.path(&nar, "listed", &[])).await;
    let file = test.file(&nar).await;

    let json = test.store.listing(file.id).await.unwrap().expect("a listing");

    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["root"]["size"], 6, "{json}");
}

#[tokio::test]
async fn two_pushes_of_the_same_path_at_once_store_it_once() {
    let test = TestStore::new().await;
    let nar = TestNar::random(6, 4_000_000);
    let path = test.path(&nar, "twice", &[]);

    let (one, two) = tokio::join!(test.push(&nar, &path), test.push(&nar, &path));

    let mut outcomes = [one, two];
    outcomes.sort_by_key(|outcome| *outcome == CommitOutcome::Known);
    assert_eq!(outcomes, [STORED, CommitOutcome::Known]);
    test.assert_served(&nar, &path).await;
    let stats = test.store.stats().await.unwrap();
    assert_eq!(stats.chunks, u64::try_from(nar.chunks.len()).unwrap());
    assert_eq!(stats.chunks_leased, 0);
}

#[tokio::test]
async fn many_tiny_pushes_share_commits() {
    let test = TestStore::new().await;
    let mut pushes = tokio::task::JoinSet::new();
    let test = std::sync::Arc::new(test);
    for number in 0..200_u32 {
        let test = std::sync::Arc::clone(&test);
        pushes.spawn(async move {
            let nar = TestNar::of(&number.to_le_bytes());
            test.push(&nar, &test.path(&nar, &format!("tiny{number}"), &[])).await
        });
    }
    while let Some(outcome) = pushes.join_next().await {
        assert_eq!(outcome.unwrap(), STORED);
    }
    assert_eq!(test.store.stats().await.unwrap().paths_visible, 200);
}

#[tokio::test]
async fn packs_are_sealed_at_their_size() {
    let test = TestStore::with(|options| StoreOptions { pack_bytes_max: 1 << 20, ..options }).await;
    let nar = TestNar::random(7, 5_000_000);
    let path = test.path(&nar, "large", &[]);

    test.push(&nar, &path).await;

    assert!(test.store.stats().await.unwrap().pack_files > 4);
    test.assert_served(&nar, &path).await;
    test.reopened().await.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn an_index_that_is_rebuilt_has_everything_with_keys_and_tokens() {
    let test = TestStore::new().await;
    let key = SecretKey::from_seed("office.box.local-1", &[3; 32]).unwrap();
    let mut new = new_cache("office");
    new.key = Some(key.clone());
    let office = test.store.create_cache(new).await.unwrap();
    let grants = Some(vec![(office.id, Right::Write)]);
    let token = NewToken {
        secret_hash: [9; 32],
        label: "ci".to_owned(),
        created_at: NOW,
        expires_at: None,
        grants,
        device_id: Some([4; 20]),
    };
    let token = test.store.create_token(token).await.unwrap();
    let (base, top) = (TestNar::random(8, 900_000), TestNar::of(b"top"));
    let below = test.path(&base, "base", &[]);
    let above = test.path(&top, "top", &[&below.info.store_path, &store_path("top")]);
    test.push(&top, &above).await;
    test.push(&base, &below).await;
    let signature = key.sign(b"x");
    let hash = above.info.store_path.hash();
    let signatures = vec![signature.clone()];
    assert_eq!(test.store.add_signatures(test.cache, hash, signatures.clone()).await.unwrap(), 1);
    assert_eq!(test.store.add_signatures(test.cache, hash, signatures).await.unwrap(), 0);
    let file = test.file(&base).await;
    test.store.close().await.unwrap();

    let report = rebuild_index(StoreOptions::at(&test.data()), &|_progress| ()).unwrap();

    assert_eq!((report.paths, report.damaged.as_slice()), (2, &[][..]));
    let store = Store::open(StoreOptions::at(&test.data())).unwrap();
    let test = TestStore { store, ..test };
    test.assert_served(&base, &below).await;
    test.assert_served(&top, &above).await;
    let again = test.file(&base).await;
    assert_eq!((again.revision, again.file_hash), (file.revision, file.file_hash));
    let record = test.store.path(test.cache, hash).await.unwrap().unwrap();
    assert_eq!(record.info.signatures, [signature]);
    assert_eq!(record.info.references, above.info.references);
    let caches = test.store.caches().await.unwrap();
    let office_again = caches.iter().find(|cache| cache.uuid == office.uuid).unwrap();
    assert_eq!(office_again.keys[0].to_secret_text(), key.to_secret_text());
    let found = test.store.tokens().await.unwrap().remove(0);
    assert_eq!((found.token.id, found.token.grants), (token.id, token.grants));
    assert_eq!((found.secret_hash, found.token.device_id), ([9; 32], Some([4; 20])));
}

#[tokio::test]
async fn an_index_that_is_gone_is_made_anew_from_the_packs_alone() {
    let test = TestStore::new().await;
    let nar = TestNar::random(9, 700_000);
    let path = test.path(&nar, "back", &[]);
    test.push(&nar, &path).await;
    let uuid = test.store.caches().await.unwrap()[0].uuid;
    test.store.close().await.unwrap();
    std::fs::remove_file(test.data().join("larder.db")).unwrap();

    let store = Store::open(StoreOptions::at(&test.data())).unwrap();

    let caches = store.caches().await.unwrap();
    assert_eq!((caches.len(), caches[0].uuid, caches[0].is_public), (1, uuid, true));
    let test = TestStore { store, ..test };
    test.assert_served(&nar, &path).await;
}
