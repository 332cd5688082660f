//! Disks that fail: nothing is acknowledged that is not safe, nothing acknowledged is lost.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{REAL, STORED, TOKEN, TestNar, TestStore, copy_folder, ingest, options_at};
use crate::store::pack::{Disk, Kind, PackError};
use crate::store::{
    FinishedNar, IngestError, NarSource, NewPath, Store, StoreError, StoreOptions, commit,
    rebuild_index,
};

/// A disk whose writes or syncs fail for as long as it is told to.
#[derive(Clone, Debug, Default)]
struct Failing {
    writes: Arc<AtomicU32>,
    syncs: Arc<AtomicU32>,
}

impl Failing {
    fn fails(times: &AtomicU32) -> io::Result<()> {
        let less = times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        less.map_or(Ok(()), |_times| Err(io::Error::other("told to fail")))
    }
}

impl Disk for Failing {
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if Self::fails(&self.writes).is_err() {
            // A disk that is full writes a part.
            REAL.write(file, &bytes[..bytes.len() / 2], offset)?;
            return Err(io::Error::other("told to fail"));
        }
        REAL.write(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        Self::fails(&self.syncs)?;
        REAL.sync(file)
    }
}

#[tokio::test]
async fn a_push_whose_sync_fails_is_not_acknowledged_and_can_be_done_again() {
    let disk = Failing::default();
    let test = TestStore::on(disk.clone()).await;
    let (kept, lost) = (TestNar::random(1, 400_000), TestNar::random(2, 400_000));
    let (first, second) = (test.path(&kept, "kept", &[]), test.path(&lost, "lost", &[]));
    test.push(&kept, &first).await;

    let finished = test.ingest(&lost, TOKEN).await.unwrap();
    disk.syncs.store(1, Ordering::SeqCst);
    let source = NarSource::Ingested(finished);
    let error = test.store.commit_path(second.clone(), source).await.unwrap_err();

    assert!(matches!(error, StoreError::CommitFailed(_)) && error.is_transient(), "{error:?}");
    assert!(test.store.path(test.cache, second.info.store_path.hash()).await.unwrap().is_none());
    test.assert_served(&kept, &first).await;
    assert_eq!(test.wanted(&lost, TOKEN).await, lost.chunks.len(), "nothing is promised");
    assert_eq!(test.push(&lost, &second).await, STORED);
    let cut = test.after_power_cut().await;
    cut.assert_served(&kept, &first).await;
    cut.assert_served(&lost, &second).await;
}

#[tokio::test]
async fn chunks_lost_with_a_sync_are_noticed_by_the_commit_that_counts_on_them() {
    let disk = Failing::default();
    let test = TestStore::on(disk.clone()).await;
    let (nar, other) = (TestNar::random(3, 400_000), TestNar::random(4, 100));
    let path = test.path(&nar, "promised", &[]);
    let finished = test.ingest(&nar, TOKEN).await.unwrap();

    // Somebody else's commit fails and takes the unsynced chunks with it.
    disk.syncs.store(1, Ordering::SeqCst);
    let theirs = NarSource::Ingested(test.ingest(&other, TOKEN).await.unwrap());
    let their_path = test.path(&other, "theirs", &[]);
    test.store.commit_path(their_path, theirs).await.unwrap_err();
    let source = NarSource::Ingested(finished);
    let error = test.store.commit_path(path.clone(), source).await.unwrap_err();

    assert!(
        matches!(error, StoreError::ChunksVanished { count, .. } if count > 0)
            && error.is_transient(),
        "{error:?}"
    );
    assert_eq!(test.push(&nar, &path).await, STORED);
    test.after_power_cut().await.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn a_write_that_fails_half_way_costs_that_push_alone() {
    let disk = Failing::default();
    let test = TestStore::on(disk.clone()).await;
    let (kept, nar) = (TestNar::random(5, 200_000), TestNar::random(6, 400_000));
    let (first, second) = (test.path(&kept, "kept", &[]), test.path(&nar, "again", &[]));
    test.push(&kept, &first).await;

    disk.writes.store(1, Ordering::SeqCst);
    let error = test.ingest(&nar, TOKEN).await.unwrap_err();

    assert!(matches!(error, IngestError::Store(StoreError::Pack(_))), "{error:?}");
    assert_eq!(test.push(&nar, &second).await, STORED);
    for test in [test.after_power_cut().await, test] {
        test.assert_served(&kept, &first).await;
        test.assert_served(&nar, &second).await;
    }
}

/// What SQLite finds out only when it is told to commit.
const REFUSED_AT_COMMIT: &str = "PRAGMA defer_foreign_keys = ON;
    INSERT INTO token_grants VALUES (-1, -1, 0);";

/// Commits the path in a group that fails: as often as `failing_syncs` by a failing sync, and else
/// at SQLite's commit. Returns what was taken in of `meanwhile` behind the group's beginning.
async fn commit_in_vain(
    test: &TestStore,
    disk: &Failing,
    failing_syncs: u32,
    (nar, path): (&TestNar, &NewPath),
    meanwhile: &TestNar,
) -> FinishedNar {
    let source = NarSource::Ingested(test.ingest(nar, TOKEN).await.unwrap());
    let (store, meanwhile) = (test.store.clone(), meanwhile.clone());
    let (path, disk, cache) = (path.clone(), disk.clone(), test.cache);
    let (sender, taken_in) = std::sync::mpsc::channel();
    let group = test.store.0.writer.run(move |group| {
        assert_eq!(commit::path(group, &path, source)?, STORED);
        sender.send(ingest(&store, cache, &meanwhile, TOKEN).unwrap().0).unwrap();
        group.tx.execute_batch(REFUSED_AT_COMMIT)?;
        disk.syncs.store(failing_syncs, Ordering::SeqCst);
        Ok(())
    });
    let error = group.await.unwrap_err();
    assert!(matches!(error, StoreError::CommitFailed(_)) && error.is_transient(), "{error:?}");
    taken_in.recv().unwrap()
}

#[tokio::test]
async fn what_a_failed_commit_appended_does_not_outlive_it() {
    // With two failing syncs also the records cannot be taken back at once.
    for failing_syncs in 0..4 {
        let disk = Failing::default();
        let test = TestStore::on(disk.clone()).await;
        let [kept, failed, meanwhile] = [10, 11, 12].map(|seed| TestNar::random(seed, 200_000));
        let second = TestNar::random(13, 200_000);
        let (first, same) = (test.path(&kept, "kept", &[]), test.path(&failed, "same", &[]));
        test.push(&kept, &first).await;

        let taken_in =
            commit_in_vain(&test, &disk, failing_syncs, (&failed, &same), &meanwhile).await;
        let path = test.path(&meanwhile, "meanwhile", &[]);
        let source = NarSource::Ingested(taken_in);
        let error = test.store.commit_path(path.clone(), source).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let same = test.path(&second, "same", &[]);
        let mut tries = 0;
        while !try_push(&test, &second, &same).await {
            tries += 1;
            assert!(tries < 3);
        }
        assert_eq!(test.push(&meanwhile, &path).await, STORED);

        let cut = test.after_power_cut().await;
        cut.store.close().await.unwrap();
        rebuild_index(StoreOptions::at(&cut.data()), &|_progress| ()).unwrap();
        for test in [cut.reopen().await, test] {
            test.assert_served(&kept, &first).await;
            test.assert_served(&second, &same).await;
            test.assert_served(&meanwhile, &path).await;
            assert_eq!(test.store.check(Arc::new(|_| ())).await.unwrap().damaged, [""; 0]);
        }
    }
}

#[tokio::test]
async fn no_manifest_is_written_behind_the_loss_of_its_chunks() {
    let disk = Failing::default();
    let test = TestStore::on(disk.clone()).await;
    let nar = TestNar::random(14, 200_000);
    let path = test.path(&nar, "lost", &[]);
    let source = NarSource::Ingested(test.ingest(&nar, TOKEN).await.unwrap());
    let copy = tempfile::TempDir::new().unwrap();

    let (data, to, in_group) = (test.data(), copy.path().join("data"), path.clone());
    let group = test.store.0.writer.run(move |group| {
        disk.writes.store(1, Ordering::SeqCst);
        group.shared.appender.append(Kind::Chunk, [1; 32], 1, b"somebody else's").unwrap_err();
        let error = commit::path(group, &in_group, source).err();
        copy_folder(&data, &to);
        assert!(matches!(error, Some(StoreError::Pack(PackError::Lost))), "{error:?}");
        Ok(())
    });
    let error = group.await.unwrap_err();

    assert!(error.is_transient(), "{error:?}");
    let hash = path.info.store_path.hash();
    let cut = Store::open(options_at(copy.path())).unwrap();
    assert!(cut.path(test.cache, hash).await.unwrap().is_none());
    assert_eq!(test.push(&nar, &path).await, STORED);
    test.after_power_cut().await.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn failures_at_any_write_or_sync_lose_nothing_that_was_acknowledged() {
    for fail_at in 0..30_u32 {
        let disk = Failing::default();
        let test = TestStore::on(disk.clone()).await;
        let mut acknowledged = Vec::new();
        for number in 0..8_u8 {
            // Every push tries again until it is through, as a client does.
            let nar = TestNar::random(number, 150_000);
            let path = test.path(&nar, &format!("p{number}"), &[]);
            match fail_at % 2 {
                0 if u32::from(number) == fail_at / 4 => disk.syncs.store(2, Ordering::SeqCst),
                1 if u32::from(number) == fail_at / 4 => disk.writes.store(2, Ordering::SeqCst),
                _ => {}
            }
            let mut tries = 0;
            while !try_push(&test, &nar, &path).await {
                tries += 1;
                assert!(tries < 10);
            }
            acknowledged.push((nar, path));
        }
        let cut = test.after_power_cut().await;
        for (nar, path) in &acknowledged {
            test.assert_served(nar, path).await;
            cut.assert_served(nar, path).await;
        }
    }
}

async fn try_push(test: &TestStore, nar: &TestNar, path: &crate::store::NewPath) -> bool {
    let Ok(finished) = test.ingest(nar, TOKEN).await else { return false };
    test.store.commit_path(path.clone(), NarSource::Ingested(finished)).await.is_ok()
}
