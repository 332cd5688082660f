//! The power may go at any instant: what was acknowledged is back, the rest is absent or whole.

use std::fs;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::{
    NOW, REAL, STORED, TOKEN, TestNar, TestStore, copy_folder, flip, new_cache, options_at,
};
use crate::formats::signature::SecretKey;
use crate::store::pack::Disk;
use crate::store::{
    NarSource, NewCache, Store, StoreError, StoreOptions, TokenId, open, rebuild_index,
};

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut_right_after() {
    let test = TestStore::new().await;
    for seed in 0..5 {
        let nar = TestNar::random(seed, 300_000);
        let path = test.path(&nar, &format!("p{seed}"), &[]);
        test.push(&nar, &path).await;
        test.after_power_cut().await.assert_served(&nar, &path).await;
    }
}

#[tokio::test]
async fn what_was_not_committed_leaves_no_trace_and_resumes_for_its_token() {
    let test = TestStore::new().await;
    let nar = TestNar::random(1, 2_000_000);
    drop(test.ingest(&nar, TOKEN).await.unwrap());
    // Some other push commits the pending chunks along with its own.
    let other = TestNar::of(b"other");
    test.push(&other, &test.path(&other, "other", &[])).await;

    let test = test.after_power_cut().await;

    assert!(test.store.known_nar(&test.path(&nar, "again", &[])).await.unwrap().is_none());
    assert_eq!(test.wanted(&nar, TOKEN).await, 0, "its own token resumes");
    assert_eq!(test.wanted(&nar, TokenId(8)).await, nar.chunks.len(), "others are told nothing");
    let path = test.path(&nar, "again", &[]);
    assert_eq!(test.push(&nar, &path).await, STORED);
    test.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn chunks_of_a_push_that_broke_off_are_promised_for_a_day() {
    let test = TestStore::new().await;
    let nar = TestNar::random(2, 200_000);
    drop(test.ingest(&nar, TOKEN).await.unwrap());
    let test = test.reopened().await;

    for (later, sent) in [(0, 0), (23 * 3600, 0), (25 * 3600, nar.chunks.len())] {
        let (store, cache, nar) = (test.store.clone(), test.cache, nar.clone());
        let wanted = tokio::task::spawn_blocking(move || {
            let mut ingest = store.begin_ingest(cache, nar.hash, nar.size(), TOKEN, NOW + later);
            ingest.look_up(&nar.refs()).unwrap().len()
        });
        assert_eq!(wanted.await.unwrap(), sent, "after {later} seconds");
    }
}

#[tokio::test]
async fn dropping_the_last_handle_lets_go_of_the_folder() {
    let test = TestStore::new().await;
    let nar = TestNar::random(3, 100_000);
    let path = test.path(&nar, "dropped", &[]);
    test.push(&nar, &path).await;
    let TestStore { store, cache, folder } = test;

    drop(store);

    let store = Store::open(options_at(folder.path())).unwrap();
    TestStore { store, cache, folder }.assert_served(&nar, &path).await;
}

/// A store whose last records are torn at every byte, with its index and without.
#[tokio::test]
async fn a_torn_tail_is_cut_at_every_byte_of_the_last_push() {
    let test = TestStore::new().await;
    let (first, last) = (TestNar::random(4, 50_000), TestNar::of(b"the last one"));
    let (kept, torn) = (test.path(&first, "kept", &[]), test.path(&last, "torn", &[]));
    test.push(&first, &kept).await;
    test.store.close().await.unwrap();
    let before = fs::metadata(test.pack(1)).unwrap().len();
    let old = tempfile::TempDir::new().unwrap();
    copy_folder(&test.data(), &old.path().join("data"));
    let test = test.reopen().await;
    test.push(&last, &torn).await;
    test.store.close().await.unwrap();
    let whole = fs::metadata(test.pack(1)).unwrap().len();
    assert!(before < whole);

    // The old index with the new pack: what a crash before the index's commit leaves.
    fs::copy(test.pack(1), old.path().join("data/packs/00000001.pack")).unwrap();
    for length in (before..whole).rev() {
        let folder = tempfile::TempDir::new().unwrap();
        copy_folder(&old.path().join("data"), &folder.path().join("data"));
        let cut = TestStore { store: test.store.clone(), cache: test.cache, folder };
        fs::File::options().write(true).open(cut.pack(1)).unwrap().set_len(length).unwrap();
        if length % 3 == 0 {
            fs::remove_file(cut.data().join("larder.db")).unwrap();
        }

        let cut = cut.reopen().await;

        cut.assert_served(&first, &kept).await;
        let hash = torn.info.store_path.hash();
        let record = cut.store.path(cut.cache, hash).await.unwrap();
        assert!(record.is_none(), "{length} of {whole}");
        // And it goes on from there.
        assert_eq!(cut.push(&last, &torn).await, STORED, "{length}");
        cut.after_power_cut().await.assert_served(&last, &torn).await;
    }
}

#[tokio::test]
async fn an_index_that_lags_behind_is_brought_up() {
    let test = TestStore::new().await;
    let old = tempfile::TempDir::new().unwrap();
    let nars: Vec<_> = (10..14).map(|seed| TestNar::random(seed, 400_000)).collect();
    let base = test.path(&nars[0], "base", &[]);
    let top = test.path(&nars[1], "top", &[&base.info.store_path]);
    test.push(&nars[1], &top).await;
    test.store.close().await.unwrap();
    copy_folder(&test.data(), &old.path().join("data"));
    let test = test.reopen().await;
    test.push(&nars[0], &base).await;
    test.store.close().await.unwrap();

    // The packs of now, the index of then.
    fs::copy(test.pack(1), old.path().join("data/packs/00000001.pack")).unwrap();
    let test = TestStore { folder: old, ..test }.reopen().await;

    test.assert_served(&nars[0], &base).await;
    test.assert_served(&nars[1], &top).await;
    assert_eq!(test.store.stats().await.unwrap().nars, 2);
}

#[tokio::test]
async fn a_rebuild_that_was_cut_off_before_the_swap_changes_nothing() {
    let test = TestStore::new().await;
    let nar = TestNar::random(5, 100_000);
    let path = test.path(&nar, "same", &[]);
    test.push(&nar, &path).await;
    test.store.close().await.unwrap();
    fs::write(test.data().join("larder.db.rebuilding"), "half an index").unwrap();

    let test = test.reopen().await;
    test.assert_served(&nar, &path).await;
    test.store.close().await.unwrap();
    rebuild_index(StoreOptions::at(&test.data()), &|_progress| ()).unwrap();
    test.reopen().await.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn a_rebuild_that_was_cut_off_in_the_swap_is_carried_on() {
    let test = TestStore::new().await;
    let nar = TestNar::random(6, 100_000);
    let path = test.path(&nar, "same", &[]);
    test.push(&nar, &path).await;
    test.store.close().await.unwrap();
    let data = test.data();
    for old_is_aside in [false, true] {
        rebuild_index(StoreOptions::at(&data), &|_progress| ()).unwrap();
        fs::rename(data.join("larder.db"), data.join("larder.db.rebuilt")).unwrap();
        if !old_is_aside {
            fs::rename(data.join("larder.db.before-rebuild"), data.join("larder.db")).unwrap();
        }
        let again = TestStore { store: test.store.clone(), cache: test.cache, folder: copy(&test) };
        let again = again.reopen().await;
        again.assert_served(&nar, &path).await;
        assert!(!again.data().join("larder.db.rebuilt").exists());
        fs::rename(data.join("larder.db.rebuilt"), data.join("larder.db")).unwrap();
    }
}

fn copy(test: &TestStore) -> tempfile::TempDir {
    let folder = tempfile::TempDir::new().unwrap();
    copy_folder(&test.data(), &folder.path().join("data"));
    folder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_the_folder_at_any_moment_of_many_pushes_is_a_sound_store() {
    let test = std::sync::Arc::new(TestStore::new().await);
    let nars: Vec<_> = (0..24).map(|seed| TestNar::random(seed, 600_000)).collect();
    let mut pushes = tokio::task::JoinSet::new();
    for (number, nar) in nars.iter().enumerate() {
        let (test, nar) = (std::sync::Arc::clone(&test), nar.clone());
        pushes.spawn(async move {
            let path = test.path(&nar, &format!("p{number}"), &[]);
            let finished = test.ingest(&nar, TOKEN).await.unwrap();
            test.store.commit_path(path, NarSource::Ingested(finished)).await.unwrap();
            number
        });
    }
    let mut acknowledged = Vec::new();
    while let Some(number) = pushes.join_next().await {
        acknowledged.push(number.unwrap());
        // A copy is no snapshot: the index is copied before the packs, and so may lag.
        let cut = test.after_power_cut().await;
        for number in &acknowledged {
            let path = test.path(&nars[*number], &format!("p{number}"), &[]);
            cut.assert_served(&nars[*number], &path).await;
        }
    }
}

#[tokio::test]
async fn an_index_that_is_garbage_is_not_opened_and_can_be_rebuilt() {
    let test = TestStore::new().await;
    let nar = TestNar::random(7, 100_000);
    let path = test.path(&nar, "kept", &[]);
    test.push(&nar, &path).await;
    test.store.close().await.unwrap();
    let index = test.data().join("larder.db");
    fs::write(&index, "garbage ".repeat(4096)).unwrap();

    let error = Store::open(options_at(test.folder.path())).unwrap_err();
    assert!(matches!(error, StoreError::Index(_)), "{error:?}");
    rebuild_index(StoreOptions::at(&test.data()), &|_progress| ()).unwrap();

    test.reopen().await.assert_served(&nar, &path).await;
}

/// Byte 20 of a pack is within the UUID, byte 0 within the magic.
#[tokio::test]
async fn a_damaged_header_of_the_only_pack_costs_nothing() {
    for (damaged_at, index_lost) in [(0, false), (20, false), (0, true), (20, true)] {
        let test = TestStore::new().await;
        let nar = TestNar::random(8, 100_000);
        let path = test.path(&nar, "kept", &[]);
        test.push(&nar, &path).await;
        test.store.close().await.unwrap();
        flip(&test.pack(1), damaged_at);
        let before = fs::read(test.pack(1)).unwrap();
        let index = test.data().join("larder.db");
        let backup = fs::read(&index).unwrap();

        if index_lost {
            // Without the UUID all records look torn; they must not be cut off for that.
            fs::remove_file(&index).unwrap();
            let error = Store::open(options_at(test.folder.path())).unwrap_err();
            assert!(matches!(error, StoreError::UuidLost { .. }), "{error:?}");
            assert!(fs::read(test.pack(1)).unwrap() == before, "the pack was changed");
            fs::write(&index, backup).unwrap();
        }

        rebuild_index(StoreOptions::at(&test.data()), &|_progress| ()).unwrap();
        test.reopen().await.assert_served(&nar, &path).await;
    }
}

#[tokio::test]
async fn packs_of_another_store_are_taken_in_by_a_rebuild() {
    let (old, new) = (TestStore::new().await, TestStore::new().await);
    let nar = TestNar::random(9, 100_000);
    let path = old.path(&nar, "moved", &[]);
    old.push(&nar, &path).await;
    old.store.close().await.unwrap();
    new.store.close().await.unwrap();
    fs::copy(old.pack(1), new.pack(1)).unwrap();
    fs::remove_file(new.data().join("larder.db")).unwrap();

    rebuild_index(StoreOptions::at(&new.data()), &|_progress| ()).unwrap();

    new.reopen().await.assert_served(&nar, &path).await;
}

/// A disk that keeps a copy of the data folder as it is right behind each write.
#[derive(Debug)]
struct Copies {
    data: PathBuf,
    copies: PathBuf,
    made: Arc<AtomicU32>,
}

impl Disk for Copies {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        REAL.write(file, bytes, offset)?;
        let folder = self.copies.join(self.made.fetch_add(1, Ordering::SeqCst).to_string());
        fs::create_dir(&folder)?;
        copy_folder(&self.data, &folder.join("data"));
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        REAL.sync(file)
    }
}

#[tokio::test]
async fn a_cache_never_comes_back_without_its_key() {
    let (folder, copies) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let made = Arc::new(AtomicU32::new(0));
    let data = folder.path().join("data");
    let disk = Copies { data, copies: copies.path().to_owned(), made: Arc::clone(&made) };
    let inner = open::open(&options_at(folder.path()), Box::new(disk)).unwrap();
    let store = Store(Arc::new(inner));
    let key = SecretKey::from_seed("main.box.local-1", &[3; 32]).unwrap();
    store.create_cache(NewCache { key: Some(key), ..new_cache("main") }).await.unwrap();

    let made = made.load(Ordering::SeqCst);
    assert!(made > 0);
    for copy in 0..made {
        let at = copies.path().join(copy.to_string());
        let cut = Store::open(options_at(&at)).unwrap();
        let caches = cut.caches().await.unwrap();
        assert!(caches.iter().all(|cache| !cache.keys.is_empty()), "after write {copy}");
        cut.close().await.unwrap();
        // Nor is it lost with the index, whenever the power went.
        fs::remove_file(at.join("data/larder.db")).unwrap();
        let again = Store::open(options_at(&at)).unwrap();
        assert_eq!(again.caches().await.unwrap().len(), caches.len(), "after write {copy}");
    }
}
