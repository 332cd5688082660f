//! Backups, and what comes of an old one beside packs that have gone on without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use tempfile::TempDir;

use super::caches::update_of;
use super::{NOW, TestNar, TestStore, copy_folder, flip, new_cache, options_at};
use crate::store::{
    Cache, CacheUpdate, NewToken, RestoreOptions, RestoreReport, Store, StoreError, StoreOptions,
    restore,
};

impl TestStore {
    async fn back_up(&self) -> PathBuf {
        let backup = self.store.back_up(None, NOW, Arc::new(|_progress| ())).await.unwrap();
        let file = self.folder.path().join("backup");
        fs::write(&file, backup.read(0, usize::MAX >> 1).unwrap()).unwrap();
        file
    }

    async fn named(&self, name: &str) -> Option<Cache> {
        let caches = self.store.caches().await.unwrap();
        caches.into_iter().find(|cache| cache.name.as_str() == name)
    }

    async fn publish(&self, cache: &Cache, is_public: bool) {
        let update = CacheUpdate { is_public, ..update_of(cache) };
        self.store.change_cache(cache.id, update).await.unwrap();
    }

    /// A file's path of its own in `main`.
    async fn push_text(&self, text: &str) -> (TestNar, crate::store::NewPath) {
        let nar = TestNar::of(text.as_bytes());
        let path = self.path(&nar, text, &[]);
        self.push(&nar, &path).await;
        (nar, path)
    }

    fn lose_index(&self) {
        for end in ["", "-wal", "-shm"] {
            let _none = fs::remove_file(self.data().join(format!("larder.db{end}")));
        }
    }
}

fn put_back(backup: &Path, folder: &Path) -> Result<RestoreReport, StoreError> {
    let options =
        RestoreOptions { backup: backup.to_owned(), folder: folder.to_owned(), other_store: false };
    restore(&options, &|_progress| ())
}

fn token(secret: u8) -> NewToken {
    NewToken {
        secret_hash: [secret; 32],
        label: String::new(),
        created_at: NOW,
        expires_at: None,
        grants: None,
        device_id: None,
    }
}

#[tokio::test]
async fn the_packs_say_what_has_happened_since() {
    let test = TestStore::new().await;
    test.store.create_token(token(1)).await.unwrap();
    let before = test.push_text("before").await;
    for name in ["gone", "team"] {
        test.store.create_cache(new_cache(name)).await.unwrap();
    }
    let backup = test.back_up().await;
    let after = test.push_text("after").await;
    let gone = test.named("gone").await.unwrap();
    test.store.delete_cache(gone.id).await.unwrap();
    test.publish(&test.named("team").await.unwrap(), false).await;
    test.store.create_cache(new_cache("later")).await.unwrap();
    test.store.close().await.unwrap();
    test.lose_index();

    let report = put_back(&backup, &test.data()).unwrap();
    let test = test.reopen().await;

    assert_eq!((report.from_packs, report.made_at, report.tokens), (false, NOW, 1), "{report:?}");
    assert_eq!((report.made_private.len(), report.paths), (0, 2), "{report:?}");
    for (nar, path) in [before, after] {
        test.assert_served(&nar, &path).await;
    }
    assert!(test.named("gone").await.is_none());
    assert!(!test.named("team").await.unwrap().is_public);
    assert!(test.named("later").await.unwrap().is_public);
}

#[tokio::test]
async fn what_the_index_that_is_there_knows_is_not_forgotten() {
    let test = TestStore::new().await;
    let revoked = test.store.create_token(token(1)).await.unwrap();
    test.store.create_token(token(2)).await.unwrap();
    let team = test.store.create_cache(new_cache("team")).await.unwrap();
    let backup = test.back_up().await;
    test.store.revoke_token(revoked.id, NOW + 1).await.unwrap();
    test.publish(&team, false).await;
    test.store.close().await.unwrap();
    // The record of the change is the last one; without its last byte it is a torn end.
    let pack = fs::File::options().write(true).open(test.pack(1)).unwrap();
    pack.set_len(pack.metadata().unwrap().len() - 1).unwrap();

    let report = put_back(&backup, &test.data()).unwrap();
    let kept = test.data().join("larder.db.before-restore");
    let test = test.reopen().await;

    assert_eq!(report.kept.as_slice(), std::slice::from_ref(&kept));
    assert!(kept.exists());
    assert_eq!(report.made_private.iter().map(ToString::to_string).collect::<Vec<_>>(), ["team"]);
    assert!(!test.named("team").await.unwrap().is_public);
    assert!(test.named("main").await.unwrap().is_public);
    let tokens = test.store.tokens().await.unwrap();
    let revoked: Vec<_> = tokens.iter().map(|known| known.token.revoked_at).collect();
    assert_eq!((report.revoked, revoked), (1, vec![Some(NOW + 1), None]));
    let again = put_back(&backup, &test.data()).unwrap_err();
    assert!(matches!(again, StoreError::Locked { .. }), "{again:?}");
}

#[tokio::test]
async fn a_cache_stays_private_where_the_record_that_says_so_is_damaged() {
    let test = TestStore::new().await;
    let team = test.store.create_cache(new_cache("team")).await.unwrap();
    let backup = test.back_up().await;
    let start = fs::metadata(test.pack(1)).unwrap().len();
    test.publish(&team, false).await;
    let (nar, path) = test.push_text("behind-it").await;
    test.store.close().await.unwrap();
    test.lose_index();
    flip(&test.pack(1), start + 70);

    let report = put_back(&backup, &test.data()).unwrap();
    let test = test.reopen().await;

    assert_eq!(report.damaged.len(), 1, "{report:?}");
    assert!(!test.named("team").await.unwrap().is_public);
    let record = test.store.path(test.cache, path.info.store_path.hash()).await.unwrap();
    assert!(record.is_some_and(|record| record.visible));
    drop(nar);
    // A later rebuild does not make it public either.
    let before = test.named("team").await.unwrap();
    test.store.close().await.unwrap();
    crate::store::rebuild_index(StoreOptions::at(&test.data()), &|_progress| ()).unwrap();
    let test = test.reopen().await;
    assert!(!test.named("team").await.unwrap().is_public, "{before:?}");
}

#[tokio::test]
async fn packs_that_are_gone_or_shorter_take_only_their_own_paths_along() {
    for how in ["shorter", "gone"] {
        let test = TestStore::with(|options| StoreOptions { pack_bytes_max: 256, ..options }).await;
        let lost = test.push_text("lost").await;
        let kept = test.push_text("kept").await;
        let backup = test.back_up().await;
        let later = test.push_text("later").await;
        let gone = test.store.create_cache(new_cache("gone")).await.unwrap();
        test.store.delete_cache(gone.id).await.unwrap();
        test.store.close().await.unwrap();
        let first: u32 = Connection::open(test.data().join("larder.db"))
            .unwrap()
            .query_row("SELECT pack FROM chunks ORDER BY number LIMIT 1", [], |row| row.get(0))
            .unwrap();
        test.lose_index();
        let pack = test.pack(first);
        match how {
            "gone" => fs::remove_file(&pack).unwrap(),
            _ => fs::File::options().write(true).open(&pack).unwrap().set_len(40).unwrap(),
        }

        let report = put_back(&backup, &test.data()).unwrap();
        let test = test.reopen().await;

        assert!(report.from_packs, "{how}: {report:?}");
        for (nar, path) in [&kept, &later] {
            test.assert_served(nar, path).await;
        }
        assert!(test.named("gone").await.is_none(), "{how}");
        // Whatever is still told of it, a push mends.
        test.push(&lost.0, &lost.1).await;
        test.assert_served(&lost.0, &lost.1).await;
    }
}

#[tokio::test]
async fn without_packs_there_are_no_paths_until_they_come() {
    let test = TestStore::new().await;
    test.store.create_token(token(1)).await.unwrap();
    let (nar, path) = test.push_text("somewhere").await;
    let backup = test.back_up().await;
    let seed = test.store.identity_seed();
    test.store.close().await.unwrap();

    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let report = put_back(&backup, &data).unwrap();
    assert_eq!((report.packs, report.paths, report.caches, report.tokens), (0, 0, 1, 1));
    let bare = folder.path().join("bare");
    copy_folder(&data, &bare);
    let store = Store::open(StoreOptions::at(&bare)).unwrap();
    assert_eq!((store.identity_seed(), store.tokens().await.unwrap().len()), (seed, 1));
    let hash = path.info.store_path.hash();
    assert!(store.path(test.cache, hash).await.unwrap().is_none());
    store.close().await.unwrap();

    fs::remove_dir(data.join("packs")).unwrap();
    copy_folder(&test.data().join("packs"), &data.join("packs"));
    let moved = TestStore { store: Store::open(StoreOptions::at(&data)).unwrap(), folder, ..test };
    moved.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn packs_of_another_store_are_left_alone_unless_they_are_meant() {
    let test = TestStore::new().await;
    test.store.create_token(token(1)).await.unwrap();
    let backup = test.back_up().await;
    let other = TestStore::new().await;
    let (nar, path) = other.push_text("other").await;
    other.store.close().await.unwrap();
    let before = fs::read(other.data().join("larder.db")).unwrap();

    let refused = put_back(&backup, &other.data()).unwrap_err();
    assert!(matches!(refused, StoreError::OtherStore { .. }), "{refused:?}");
    assert_eq!(fs::read(other.data().join("larder.db")).unwrap(), before);
    assert!(!other.data().join("larder.db.rebuilding").exists());

    let options = RestoreOptions { backup, folder: other.data(), other_store: true };
    let report = restore(&options, &|_progress| ()).unwrap();
    let other = other.reopen().await;
    assert_eq!((report.tokens, report.paths), (1, 1), "{report:?}");
    assert_eq!(other.store.identity_seed(), test.store.identity_seed());
    let caches = other.store.caches().await.unwrap();
    let public = caches.iter().filter(|cache| cache.is_public).count();
    assert_eq!((caches.len(), public), (2, 1), "the packs' cache is private: {caches:?}");
    let theirs = caches.iter().find(|cache| !cache.is_public).unwrap().id;
    assert!(other.store.path(theirs, path.info.store_path.hash()).await.unwrap().is_some());
    drop(nar);
}

#[tokio::test]
async fn a_backup_is_of_one_moment_while_others_push() {
    let test = TestStore::new().await;
    let pushes = async {
        let mut pushed = Vec::new();
        for number in 0..40 {
            pushed.push(test.push_text(&format!("text-{number}")).await);
        }
        pushed
    };
    let (backup, pushed) = tokio::join!(test.back_up(), pushes);
    test.store.close().await.unwrap();
    test.lose_index();

    let report = put_back(&backup, &test.data()).unwrap();
    let test = test.reopen().await;

    assert_eq!((report.paths, report.damaged.len()), (40, 0), "{report:?}");
    for (nar, path) in &pushed {
        test.assert_served(nar, path).await;
    }
}

#[tokio::test]
async fn a_restore_that_was_cut_off_is_begun_again() {
    let test = TestStore::new().await;
    let (nar, path) = test.push_text("cut").await;
    let backup = test.back_up().await;
    test.store.close().await.unwrap();
    // Cut off while the index grew.
    fs::write(test.data().join("larder.db.rebuilding"), "half").unwrap();
    put_back(&backup, &test.data()).unwrap();
    // Cut off when the index was whole and the old one was set aside.
    let (index, rebuilt) = (test.data().join("larder.db"), test.data().join("larder.db.rebuilt"));
    fs::rename(&index, &rebuilt).unwrap();
    let test = test.reopen().await;
    test.assert_served(&nar, &path).await;
    test.store.close().await.unwrap();
    let report = put_back(&backup, &test.data()).unwrap();
    let kept = test.data().join("larder.db.before-restore-2");
    assert_eq!(report.kept, [kept], "the first one is not written over");
}

#[tokio::test]
async fn the_index_is_kept_before_its_tables_change() {
    let folder = TempDir::new().unwrap();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/folders/format-2");
    let data = folder.path().join("data");
    copy_folder(&old, &data);
    let version = |index: &str| -> i64 {
        let index = Connection::open(data.join(index)).unwrap();
        index.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    };
    let before = version("larder.db");

    let store = Store::open(options_at(folder.path())).unwrap();
    let caches = store.caches().await.unwrap().len();
    store.close().await.unwrap();

    assert!(version("larder.db") > before);
    assert_eq!(version("larder.db.before-migration"), before);
    let text = fs::read_to_string(data.join("VERSION.before-migration")).unwrap();
    assert_eq!(text, "larder data folder 2\n");
    // The way back, and on again.
    fs::rename(data.join("larder.db.before-migration"), data.join("larder.db")).unwrap();
    fs::rename(data.join("VERSION.before-migration"), data.join("VERSION")).unwrap();
    let store = Store::open(options_at(folder.path())).unwrap();
    assert_eq!(store.caches().await.unwrap().len(), caches);
    store.close().await.unwrap();

    let index = Connection::open(data.join("larder.db")).unwrap();
    index.execute_batch("PRAGMA user_version = 1000").unwrap();
    drop(index);
    let error = Store::open(options_at(folder.path())).unwrap_err();
    assert!(matches!(error, StoreError::NewerIndex { found: 1000, .. }), "{error:?}");
    assert!(error.to_string().contains("larder.db.before-migration"), "{error}");
}
