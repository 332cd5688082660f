//! Bytes that change on the disk: never served, recorded, healed by a push of the same NAR.

use std::fs;
use std::sync::Arc;

use super::{STORED, TOKEN, TestNar, TestStore, collect, flip, options_at};
use crate::store::{CheckReport, CommitOutcome, Store, StoreError, StoreOptions, rebuild_index};

/// Where the payload of the nth chunk record of pack 1 has its middle.
fn inside_chunk(nar: &TestNar, nth: usize, first: u64) -> u64 {
    let before: usize = nar.chunks[..nth].iter().map(|(_, frame)| 64 + frame.len()).sum();
    first + u64::try_from(before + 64 + nar.chunks[nth].1.len() / 2).unwrap()
}

/// A store with one path whose chunk `nth` is damaged, and where it is.
async fn damaged(nar: &TestNar, nth: usize) -> (TestStore, u64) {
    let test = TestStore::new().await;
    let first = fs::metadata(test.pack(1)).unwrap().len();
    test.push(nar, &test.path(nar, "damaged", &[])).await;
    let at = inside_chunk(nar, nth, first);
    flip(&test.pack(1), at);
    (test, at)
}

/// Bytes that levels of zstd compress differently.
fn text() -> Vec<u8> {
    (0..60_000_u64).flat_map(|n| format!("{} {}\n", n % 331, n * n % 977).into_bytes()).collect()
}

async fn check(store: &Store) -> CheckReport {
    store.check(Arc::new(|_progress| ())).await.unwrap()
}

#[tokio::test]
async fn a_damaged_chunk_breaks_the_transfer_and_is_recorded() {
    let nar = TestNar::random(1, 1_000_000);
    let (test, _at) = damaged(&nar, 3).await;
    let file = test.file(&nar).await;

    for raw in [false, true] {
        let mut stream = match raw {
            true => test.store.read_raw(&file, 0, file.nar_size),
            false => test.store.read_file(&file, 0, file.file_size),
        };
        let mut pieces = 0;
        let error = loop {
            match stream.next().await.expect("no clean end") {
                Ok(_piece) => pieces += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, StoreError::DamagedNar { .. }), "{error:?}");
        assert!(stream.next().await.is_none());
        assert!(pieces <= 3);
    }

    assert_eq!(test.store.stats().await.unwrap().damaged_chunks, 1);
    let path = test.path(&nar, "damaged", &[]);
    let record = test.store.path(test.cache, path.info.store_path.hash()).await.unwrap();
    assert!(record.unwrap().damaged);
    assert!(test.store.known_nar(&path).await.unwrap().is_none());
}

#[tokio::test]
async fn a_part_is_read_from_the_chunks_that_it_touches_alone() {
    let nar = TestNar::random(1, 1_000_000);
    let (test, _at) = damaged(&nar, 3).await;
    let file = test.file(&nar).await;
    let before: u64 = nar.chunks[..3].iter().map(|(chunk, _)| u64::from(chunk.raw_len)).sum();
    let damaged = before..before + u64::from(nar.chunks[3].0.raw_len);

    for part in [0..damaged.start, damaged.end..file.nar_size, damaged.end..damaged.end + 1] {
        let read = test.store.read_raw(&file, part.start, part.end - part.start);
        let [start, end] = [part.start, part.end].map(|at| usize::try_from(at).unwrap());
        assert!(collect(read).await.unwrap() == nar.bytes[start..end], "{part:?}");
    }
    let read = test.store.read_raw(&file, damaged.start - 1, 2);
    assert!(matches!(collect(read).await, Err(StoreError::DamagedNar { .. })));
}

#[tokio::test]
async fn the_same_frame_heals_without_changing_what_was_published() {
    let nar = TestNar::random(2, 1_000_000);
    let (test, _at) = damaged(&nar, 2).await;
    let path = test.path(&nar, "damaged", &[]);
    let before = test.file(&nar).await;
    test.raw(&nar).await.unwrap_err();
    let hashes = vec![path.info.store_path.hash()];
    assert_eq!(test.store.missing(test.cache, hashes.clone()).await.unwrap(), hashes);
    assert_eq!(test.wanted(&nar, TOKEN).await, 1);

    assert_eq!(test.push(&nar, &path).await, CommitOutcome::Known);

    assert_eq!(test.file(&nar).await, before);
    test.assert_served(&nar, &path).await;
    assert!(test.store.missing(test.cache, hashes).await.unwrap().is_empty());
    assert_eq!(test.store.stats().await.unwrap().damaged_chunks, 0);
    let test = test.reopened().await;
    test.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn a_nar_that_was_cut_in_another_way_heals_a_visible_path() {
    let nar = TestNar::random(21, 1_000_000);
    let (test, _at) = damaged(&nar, 2).await;
    let path = test.path(&nar, "damaged", &[]);
    let before = test.file(&nar).await;
    test.raw(&nar).await.unwrap_err();

    assert_eq!(test.push(&nar.cut_every(100_000), &path).await, CommitOutcome::Known);

    test.assert_served(&nar, &path).await;
    assert_eq!(test.file(&nar).await.revision, before.revision + 1);
    let test = test.reopened().await;
    test.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn damage_that_an_ingest_meets_itself_is_asked_for_again() {
    let nar = TestNar::random(3, 1_000_000);
    let (test, _at) = damaged(&nar, 4).await;
    let path = test.path(&nar, "damaged", &[]);
    assert_eq!(test.wanted(&nar, TOKEN).await, 0, "nobody knows of it yet");

    assert_eq!(test.push(&nar, &path).await, CommitOutcome::Known);

    test.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn another_frame_heals_with_a_new_revision_that_survives_everything() {
    let contents = text();
    let (nar, other) = (TestNar::at_level(&contents, 1), TestNar::at_level(&contents, 19));
    assert!(nar.chunks[1].1 != other.chunks[1].1, "the same frame");
    let (test, _at) = damaged(&nar, 1).await;
    let path = test.path(&nar, "damaged", &[]);
    let second = test.path(&nar, "second", &[]);
    test.raw(&nar).await.unwrap_err();
    let before = test.file(&nar).await;

    assert_eq!(test.push(&other, &path).await, CommitOutcome::Known);
    assert_eq!(test.push(&other, &second).await, STORED);

    let after = test.file(&nar).await;
    assert_eq!((after.id, after.revision), (before.id, before.revision + 1));
    assert_ne!(after.file_hash, before.file_hash);
    test.assert_served(&nar, &path).await;
    // The old URL does not answer with other bytes.
    let error = collect(test.store.read_file(&before, 0, before.file_size)).await.unwrap_err();
    assert!(matches!(error, StoreError::NoSuchNar(_)), "{error:?}");
    test.store.close().await.unwrap();
    rebuild_index(StoreOptions::at(&test.data()), &|_progress| ()).unwrap();
    let test = test.reopen().await;
    test.assert_served(&nar, &path).await;
    let rebuilt = test.file(&nar).await;
    assert_eq!((rebuilt.revision, rebuilt.file_hash), (after.revision, after.file_hash));
}

#[tokio::test]
async fn a_check_finds_every_flipped_bit() {
    let nar = TestNar::random(4, 300_000);
    let clean = TestStore::new().await;
    let path = clean.path(&nar, "checked", &[]);
    clean.push(&nar, &path).await;
    let report = check(&clean.store).await;
    assert_eq!((report.damaged.as_slice(), report.paths), (&[][..], 1));
    clean.store.close().await.unwrap();
    let length = fs::metadata(clean.pack(1)).unwrap().len();

    for at in (32..length).step_by(4001) {
        let test = clean.after_power_cut().await;
        flip(&test.pack(1), at);
        let report = check(&test.store).await;
        assert_eq!(report.damaged.len(), 1, "byte {at}: {report:?}");
    }
}

#[tokio::test]
async fn a_pack_that_is_gone_is_told_and_a_push_brings_it_back() {
    let test = TestStore::new().await;
    let nar = TestNar::random(5, 500_000);
    let path = test.path(&nar, "gone", &[]);
    test.push(&nar, &path).await;
    let test = test.reopened().await;
    test.store.close().await.unwrap();
    fs::remove_file(test.pack(1)).unwrap();
    let test = test.reopen().await;

    let report = check(&test.store).await;

    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert_eq!(test.push(&nar, &path).await, CommitOutcome::Known);
    test.assert_served(&nar, &path).await;
    assert_eq!(check(&test.store).await.damaged, Vec::<String>::new());
}

#[tokio::test]
async fn a_rebuild_keeps_a_nar_whose_chunk_is_damaged_and_a_push_heals_it() {
    let nar = TestNar::random(6, 1_000_000);
    let (test, _at) = damaged(&nar, 3).await;
    let path = test.path(&nar, "damaged", &[]);
    let before = test.file(&nar).await;
    test.store.close().await.unwrap();

    let report = rebuild_index(StoreOptions::at(&test.data()), &|_progress| ()).unwrap();

    assert_eq!(report.paths, 1);
    assert_eq!(report.damaged.len(), 2, "{report:?}");
    let test = test.reopen().await;
    test.raw(&nar).await.unwrap_err();
    assert_eq!(test.wanted(&nar, TOKEN).await, 1);
    assert_eq!(test.push(&nar, &path).await, CommitOutcome::Known);
    test.assert_served(&nar, &path).await;
    let after = test.file(&nar).await;
    assert_eq!((after.revision, after.file_hash), (before.revision, before.file_hash));
}

#[tokio::test]
async fn a_heal_that_a_crash_cut_off_is_finished_by_the_next_start() {
    let contents = text();
    let (nar, other) = (TestNar::at_level(&contents, 1), TestNar::at_level(&contents, 19));
    let (test, _at) = damaged(&nar, 1).await;
    let path = test.path(&nar, "damaged", &[]);
    test.raw(&nar).await.unwrap_err();
    let before = test.file(&nar).await;
    let healed = fs::metadata(test.pack(1)).unwrap().len();
    test.push(&other, &path).await;
    test.store.close().await.unwrap();
    // Only the new frame got to the pack; the index never heard of it.
    let frame = u64::try_from(64 + other.chunks[1].1.len()).unwrap();
    let file = fs::File::options().write(true).open(test.pack(1)).unwrap();
    file.set_len(healed + frame).unwrap();
    fs::remove_file(test.data().join("larder.db")).unwrap();

    let test = test.reopen().await;

    test.assert_served(&nar, &path).await;
    assert_eq!(test.file(&nar).await.revision, before.revision + 1);
}

#[tokio::test]
async fn a_cache_whose_record_is_damaged_comes_back_private() {
    let test = TestStore::new().await;
    let nar = TestNar::of(b"secret?");
    let path = test.path(&nar, "found", &[]);
    test.push(&nar, &path).await;
    test.store.close().await.unwrap();
    flip(&test.pack(1), 32 + 70);
    fs::remove_file(test.data().join("larder.db")).unwrap();

    let store = Store::open(options_at(test.folder.path())).unwrap();

    let caches = store.caches().await.unwrap();
    assert_eq!(caches.len(), 1);
    assert!(!caches[0].is_public && caches[0].root_position.is_none());
    assert!(caches[0].name.as_str().starts_with("recovered-"));
    let test = TestStore { store, cache: caches[0].id, ..test };
    test.assert_served(&nar, &path).await;
}
