//! What is not taken in, and folders that are not opened.

use std::fs;
use std::sync::{Arc, Mutex, mpsc};

use super::{NOW, STORED, TOKEN, TestNar, TestStore, new_cache, options_at};
use crate::formats::Sha256Hash;
use crate::formats::frame::Compressor;
use crate::store::{CheckProgress, IngestError, NarSource, Store, StoreError, TokenId};
use crate::wire::message::{ChunkId, ChunkRef};

/// What an ingest of `nar` fails with when it declares `hash` and `size`.
async fn refusal(test: &TestStore, nar: &TestNar, hash: Sha256Hash, size: u64) -> IngestError {
    let (store, cache, nar) = (test.store.clone(), test.cache, nar.clone());
    tokio::task::spawn_blocking(move || {
        let mut ingest = store.begin_ingest(cache, hash, size, TOKEN, NOW);
        for (chunk, frame) in &nar.chunks {
            if let Err(error) = ingest.add(*chunk, Some(frame)) {
                return error;
            }
        }
        ingest.finish().unwrap_err()
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_nar_that_is_not_what_was_declared_is_refused() {
    let test = TestStore::new().await;
    let nar = TestNar::random(1, 200_000);
    let other = Sha256Hash::of(b"other");

    let error = refusal(&test, &nar, other, nar.size()).await;
    assert!(matches!(error, IngestError::WrongHash { .. }), "{error:?}");
    for size in [nar.size() - 1, nar.size() + 8, 0] {
        let error = refusal(&test, &nar, nar.hash, size).await;
        assert!(matches!(error, IngestError::WrongSize { .. }), "{size}: {error:?}");
    }
    for bytes in [
        nar.bytes[..nar.bytes.len() - 8].to_vec(),
        [&nar.bytes[..], &[0; 8]].concat(),
        b"no NAR at all".to_vec(),
        Vec::new(),
    ] {
        let bad = TestNar::of_nar(bytes, 3);
        let error = refusal(&test, &bad, bad.hash, bad.size()).await;
        assert!(matches!(error, IngestError::Nar(_)), "{error:?}");
    }

    let test = test.reopened().await;
    let stats = test.store.stats().await.unwrap();
    assert_eq!((stats.paths_visible, stats.paths_hidden, stats.nars), (0, 0, 0));
}

#[tokio::test]
async fn a_frame_that_is_not_what_was_declared_is_refused() {
    let test = TestStore::new().await;
    let raw = vec![7; 100_000];
    let id = ChunkId(*blake3::hash(&raw).as_bytes());
    let frame = Compressor::new(3).unwrap().compress(&raw).unwrap();
    let chunk = ChunkRef { id, raw_len: 100_000 };
    let wrong_id = ChunkRef { id: ChunkId([0; 32]), ..chunk };
    let bomb = Compressor::new(3).unwrap().compress(&vec![7; 200_000]).unwrap();
    let two = [&frame[..], &frame[..]].concat();

    let (store, cache, size) = (test.store.clone(), test.cache, 1_000_000);
    tokio::task::spawn_blocking(move || {
        let add = |chunk, frame: &[u8]| {
            let mut ingest = store.begin_ingest(cache, Sha256Hash::of(b""), size, TOKEN, NOW);
            ingest.add(chunk, Some(frame)).unwrap_err()
        };
        for frame in [&bomb[..], &two, &frame[..frame.len() - 1], b"", &raw] {
            let error = add(chunk, frame);
            assert!(matches!(error, IngestError::BadFrame { index: 0, .. }), "{error:?}");
        }
        let error = add(wrong_id, &frame);
        assert!(matches!(error, IngestError::WrongChunk { index: 0 }), "{error:?}");
        for raw_len in [0, 256 * 1024 + 1, 900_000] {
            let error = add(ChunkRef { id, raw_len }, &frame);
            assert!(matches!(error, IngestError::ChunkLength { .. }), "{error:?}");
        }
    })
    .await
    .unwrap();
    assert_eq!(test.store.stats().await.unwrap().chunks, 0);
}

#[tokio::test]
async fn only_the_last_chunk_may_be_short() {
    let test = TestStore::new().await;
    let nar = TestNar::random(9, 40_000).bytes;
    let (store, cache) = (test.store.clone(), test.cache);
    tokio::task::spawn_blocking(move || {
        let size = u64::try_from(nar.len()).unwrap();
        let mut ingest = store.begin_ingest(cache, Sha256Hash::of(&nar), size, TOKEN, NOW);
        let (short, rest) = nar.split_at(16 * 1024 - 1);
        let mut add = |raw: &[u8]| {
            let id = ChunkId(*blake3::hash(raw).as_bytes());
            let chunk = ChunkRef { id, raw_len: u32::try_from(raw.len()).unwrap() };
            ingest.add(chunk, Some(&Compressor::new(3).unwrap().compress(raw).unwrap()))
        };
        assert_eq!(add(short).unwrap(), crate::store::Added::Taken);
        let error = add(rest).unwrap_err();
        assert!(matches!(error, IngestError::ChunkLength { index: 0, raw_len: 16_383 }));
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_claim_attaches_no_bytes() {
    let test = TestStore::new().await;
    let nar = TestNar::random(2, 300_000);
    drop(test.ingest(&nar, TOKEN).await.unwrap());

    let (store, cache, other) = (test.store.clone(), test.cache, nar.clone());
    tokio::task::spawn_blocking(move || {
        let mut ingest = store.begin_ingest(cache, other.hash, other.size(), TokenId(8), NOW);
        assert_eq!(ingest.look_up(&other.refs()).unwrap().len(), other.chunks.len());
        let error = ingest.add(other.chunks[0].0, None).unwrap_err();
        assert!(matches!(error, IngestError::NotLookedUp { index: 0 }), "{error:?}");
    })
    .await
    .unwrap();
    assert!(test.store.known_nar(&test.path(&nar, "claimed", &[])).await.unwrap().is_none());
}

#[tokio::test]
async fn leases_last_as_long_as_the_ingest() {
    let test = TestStore::new().await;
    let nar = TestNar::random(3, 300_000);
    test.push(&nar, &test.path(&nar, "leased", &[])).await;
    let leased = async || test.store.stats().await.unwrap().chunks_leased;
    assert_eq!(leased().await, 0);

    let finished = test.ingest(&nar, TOKEN).await.unwrap();
    assert_eq!(leased().await, u64::try_from(nar.chunks.len()).unwrap());
    drop(finished);

    assert_eq!(leased().await, 0);
}

#[tokio::test]
async fn facts_and_bytes_must_belong_together() {
    let test = TestStore::new().await;
    let (nar, other) = (TestNar::of(b"one"), TestNar::of(b"two"));
    let finished = test.ingest(&nar, TOKEN).await.unwrap();

    let path = test.path(&other, "mixed", &[]);
    let source = NarSource::Ingested(finished);
    let error = test.store.commit_path(path, source).await.unwrap_err();

    assert!(matches!(error, StoreError::OtherNar { .. }), "{error:?}");
    assert_eq!(test.store.stats().await.unwrap().nars, 0);
}

#[tokio::test]
async fn one_bad_job_of_a_commit_does_not_take_others_with_it() {
    let test = TestStore::new().await;
    let nar = TestNar::of(b"fine");
    let path = test.path(&nar, "fine", &[]);

    let (taken, pushed) =
        tokio::join!(test.store.create_cache(new_cache("main")), test.push(&nar, &path));

    assert!(matches!(taken, Err(StoreError::CacheExists(_))), "{taken:?}");
    assert_eq!(pushed, STORED);
    test.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn a_folder_that_is_in_use_is_not_opened() {
    let test = TestStore::new().await;

    let error = Store::open(options_at(test.folder.path())).unwrap_err();

    assert!(matches!(&error, StoreError::Locked { folder } if *folder == test.data()), "{error:?}");
}

#[tokio::test]
async fn a_folder_of_another_larder_or_of_something_else_is_not_opened() {
    let test = TestStore::new().await;
    let seed = test.store.identity_seed();
    test.store.close().await.unwrap();
    let (version, options) = (test.data().join("VERSION"), options_at(test.folder.path()));

    fs::write(&version, "larder data folder 6\n").unwrap();
    let error = Store::open(options.clone()).unwrap_err();
    assert!(matches!(error, StoreError::NewerFormat { found: 6, ours: 5 }), "{error:?}");
    fs::write(&version, "larder data folder 1\n").unwrap();
    let error = Store::open(options.clone()).unwrap_err();
    assert!(matches!(error, StoreError::OlderFormat { found: 1, ours: 5 }), "{error:?}");
    for text in ["", "larder data folder -1\n", "larder data folder one\n", "larder data folder 2"]
    {
        fs::write(&version, text).unwrap();
        let error = Store::open(options.clone()).unwrap_err();
        assert!(matches!(error, StoreError::BadVersion { .. }), "{text:?}: {error:?}");
    }
    fs::remove_file(&version).unwrap();
    let error = Store::open(options.clone()).unwrap_err();
    assert!(matches!(error, StoreError::NotADataFolder { .. }), "{error:?}");
    fs::write(&version, "larder data folder 3\n").unwrap();
    let identity = test.data().join("identity.key");
    let key = fs::read(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    let error = Store::open(options.clone()).unwrap_err();
    assert!(matches!(error, StoreError::IdentityMissing { .. }), "{error:?}");
    fs::write(&identity, key).unwrap();

    assert_eq!(Store::open(options.clone()).unwrap().identity_seed(), seed);
}

#[tokio::test]
async fn secrets_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let test = TestStore::new().await;

    for name in ["identity.key", "larder.db", "larder.db-wal", "packs/00000001.pack"] {
        let found = fs::metadata(test.data().join(name)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let test = TestStore::new().await;
    let nar = TestNar::of(b"late");
    test.push(&nar, &test.path(&nar, "late", &[])).await;
    let file = test.file(&nar).await;
    test.store.close().await.unwrap();

    assert!(matches!(test.store.caches().await, Err(StoreError::Closed)));
    let made = test.store.create_cache(new_cache("late")).await;
    assert!(matches!(made, Err(StoreError::Closed)), "{made:?}");
    let read = test.store.read_file(&file, 0, 1).next().await;
    assert!(matches!(read, Some(Err(StoreError::Closed))), "{read:?}");
    let ingest = test.ingest(&nar, TOKEN).await;
    assert!(matches!(ingest, Err(IngestError::Store(StoreError::Closed))), "{ingest:?}");
}

#[tokio::test]
async fn a_check_ends_when_the_store_is_closed() {
    let test = TestStore::new().await;
    for text in ["one", "two", "three"] {
        let nar = TestNar::of(text.as_bytes());
        test.push(&nar, &test.path(&nar, text, &[])).await;
    }
    let (begun, has_begun) = mpsc::channel();
    let (close, is_closed) = mpsc::channel::<()>();
    let is_closed = Mutex::new(is_closed);
    let progress = Arc::new(move |_: CheckProgress| {
        let _told_before = begun.send(());
        let _closed = is_closed.lock().unwrap().recv();
    });
    let store = test.store.clone();
    let stop = tokio::task::spawn_blocking(move || {
        has_begun.recv().unwrap();
        close
    });
    let checking = store.check(progress);
    let closing = async {
        let close = stop.await.unwrap();
        test.store.close().await.unwrap();
        drop(close);
    };

    let (checked, ()) = tokio::join!(checking, closing);

    assert!(matches!(checked, Err(StoreError::Closed)), "{checked:?}");
}
