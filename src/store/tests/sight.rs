//! Chunks are shared on disk, and told of only to those who may know of them.

use super::{NOW, NewCache, STORED, TestNar, TestStore, ingest, new_cache, new_path};
use crate::store::{
    CacheId, CommitOutcome, FinishedNar, IngestError, NarSource, NewPath, NewToken, Right, Store,
    StoreError, TokenId, rebuild_index,
};

/// A store with the private caches `ours` and `theirs`, beside the public one.
struct Private {
    test: TestStore,
    ours: CacheId,
    theirs: CacheId,
}

impl Private {
    async fn new() -> Self {
        let test = TestStore::new().await;
        let [ours, theirs] = [private(&test, "ours").await, private(&test, "theirs").await];
        Self { test, ours, theirs }
    }

    async fn token(&self, grants: Option<&[(CacheId, Right)]>) -> TokenId {
        let count = self.test.store.tokens().await.unwrap().len();
        let new = NewToken {
            secret_hash: [u8::try_from(count).unwrap(); 32],
            label: String::new(),
            created_at: NOW,
            expires_at: None,
            grants: grants.map(<[_]>::to_vec),
            device_id: None,
        };
        self.test.store.create_token(new).await.unwrap().id
    }

    /// How many chunks a token has to send for a path of a cache.
    async fn asked_for(&self, nar: &TestNar, token: TokenId, cache: CacheId) -> usize {
        let (store, nar) = (self.test.store.clone(), nar.clone());
        tokio::task::spawn_blocking(move || {
            let mut ingest = store.begin_ingest(cache, nar.hash, nar.size(), token, NOW);
            ingest.look_up(&nar.refs()).unwrap().len()
        })
        .await
        .unwrap()
    }

    async fn push(
        &self,
        nar: &TestNar,
        token: TokenId,
        cache: CacheId,
        name: &str,
    ) -> Result<CommitOutcome, StoreError> {
        let finished = finished(&self.test.store, cache, nar, token).await.unwrap();
        let source = NarSource::Ingested(finished);
        self.test.store.commit_path(path(cache, nar, token, name), source).await
    }

    async fn names_nar(&self, nar: &TestNar, token: TokenId, cache: CacheId) -> bool {
        let path = path(cache, nar, token, "named");
        self.test.store.known_nar(&path).await.unwrap().is_some()
    }
}

async fn private(test: &TestStore, name: &str) -> CacheId {
    let new = NewCache { is_public: false, root_position: None, ..new_cache(name) };
    test.store.create_cache(new).await.unwrap().id
}

fn path(cache: CacheId, nar: &TestNar, token: TokenId, name: &str) -> NewPath {
    let mut path = new_path(cache, nar, name, &[]);
    path.pusher.token = token;
    path
}

async fn finished(
    store: &Store,
    cache: CacheId,
    nar: &TestNar,
    token: TokenId,
) -> Result<FinishedNar, IngestError> {
    let (store, nar) = (store.clone(), nar.clone());
    let ingest = move || ingest(&store, cache, &nar, token).map(|(nar, _sent)| nar);
    tokio::task::spawn_blocking(ingest).await.unwrap()
}

#[tokio::test]
async fn a_token_is_told_of_what_it_may_read_and_of_what_its_push_goes_to() {
    let test = Private::new().await;
    let (ours, theirs) = (test.ours, test.theirs);
    let nar = TestNar::random(1, 400_000);
    let all = nar.chunks.len();
    let owner = test.token(None).await;
    test.push(&nar, owner, theirs, "secret").await.unwrap();
    let granted = |rights: &[(CacheId, Right)]| Some(rights.to_vec());
    for (what, grants, target, asked) in [
        ("personal", None, ours, 0),
        ("no right there", granted(&[(ours, Right::ReadWrite)]), ours, all),
        ("may read it", granted(&[(ours, Right::Write), (theirs, Right::Read)]), ours, 0),
        (
            "may read and write it",
            granted(&[(ours, Right::Write), (theirs, Right::ReadWrite)]),
            ours,
            0,
        ),
        ("may write it, and pushes there", granted(&[(theirs, Right::Write)]), theirs, 0),
        (
            "may only write it",
            granted(&[(ours, Right::ReadWrite), (theirs, Right::Write)]),
            ours,
            all,
        ),
    ] {
        let token = test.token(grants.as_deref()).await;
        assert_eq!(test.asked_for(&nar, token, target).await, asked, "{what}");
        assert_eq!(test.names_nar(&nar, token, target).await, asked == 0, "{what}");
        test.test.store.revoke_token(token, NOW).await.unwrap();
        assert_eq!(test.asked_for(&nar, token, target).await, all, "{what}, revoked");
        assert!(!test.names_nar(&nar, token, target).await, "{what}, revoked");
    }
}

#[tokio::test]
async fn what_is_public_is_told_to_everybody() {
    let test = Private::new().await;
    let nar = TestNar::random(2, 400_000);
    let token = test.token(Some(&[(test.ours, Right::Write)])).await;
    let owner = test.token(None).await;
    test.push(&nar, owner, test.test.cache, "public").await.unwrap();

    assert_eq!(test.asked_for(&nar, token, test.ours).await, 0);
    assert!(test.names_nar(&nar, token, test.ours).await);
}

#[tokio::test]
async fn what_is_out_of_sight_is_sent_and_kept_once() {
    let test = Private::new().await;
    let nar = TestNar::random(3, 400_000);
    let theirs = test.token(Some(&[(test.theirs, Right::ReadWrite)])).await;
    let ours = test.token(Some(&[(test.ours, Right::ReadWrite)])).await;
    test.push(&nar, theirs, test.theirs, "secret").await.unwrap();
    let before = test.test.store.stats().await.unwrap();

    let outcome = test.push(&nar, ours, test.ours, "mine").await.unwrap();

    assert_eq!(outcome, STORED);
    let after = test.test.store.stats().await.unwrap();
    assert_eq!((before.chunks, before.nars), (after.chunks, after.nars));
    assert_eq!(test.asked_for(&nar, ours, test.ours).await, 0);
}

#[tokio::test]
async fn a_token_that_sends_the_same_takes_nothing_over() {
    let test = Private::new().await;
    let nar = TestNar::random(4, 400_000);
    let theirs = test.token(Some(&[(test.theirs, Right::Write)])).await;
    let ours = test.token(Some(&[(test.ours, Right::Write)])).await;
    // Both broke off; then both again, with one committing in between.
    drop(finished(&test.test.store, test.theirs, &nar, theirs).await.unwrap());
    assert_eq!(test.asked_for(&nar, ours, test.ours).await, nar.chunks.len());
    drop(finished(&test.test.store, test.ours, &nar, ours).await.unwrap());
    let test = Private { test: test.test.reopened().await, ..test };
    assert_eq!(test.asked_for(&nar, theirs, test.theirs).await, 0);
    assert_eq!(test.asked_for(&nar, ours, test.ours).await, 0);

    test.push(&nar, ours, test.ours, "mine").await.unwrap();

    assert_eq!(test.asked_for(&nar, theirs, test.theirs).await, 0, "the first still resumes");
    assert!(!test.names_nar(&nar, theirs, test.theirs).await, "having sent it all says nothing");
    let third = test.token(Some(&[(test.theirs, Right::ReadWrite)])).await;
    assert_eq!(test.asked_for(&nar, third, test.theirs).await, nar.chunks.len());
}

#[tokio::test]
async fn a_right_that_is_lost_before_the_commit_counts_as_lost() {
    let test = Private::new().await;
    let nar = TestNar::random(5, 400_000);
    let owner = test.token(None).await;
    test.push(&nar, owner, test.theirs, "secret").await.unwrap();
    let token =
        test.token(Some(&[(test.ours, Right::ReadWrite), (test.theirs, Right::Read)])).await;
    let store = &test.test.store;
    let promised = finished(store, test.ours, &nar, token).await.unwrap();
    let mine = path(test.ours, &nar, token, "mine");
    let named = store.known_nar(&mine).await.unwrap().expect("in sight");

    store.revoke_token(token, NOW).await.unwrap();

    for source in [NarSource::Ingested(promised), NarSource::Known(named.id)] {
        let error = store.commit_path(mine.clone(), source).await.unwrap_err();
        assert!(matches!(error, StoreError::ChunksVanished { .. }), "{error:?}");
    }
    assert_eq!(store.count_paths(test.ours).await.unwrap(), (0, 0));
}

#[tokio::test]
async fn who_sees_what_is_the_same_after_a_rebuild() {
    let test = Private::new().await;
    let (secret, public) = (TestNar::random(6, 400_000), TestNar::random(7, 400_000));
    let owner = test.token(None).await;
    let token = test.token(Some(&[(test.ours, Right::ReadWrite)])).await;
    test.push(&secret, owner, test.theirs, "secret").await.unwrap();
    test.push(&public, owner, test.test.cache, "public").await.unwrap();
    let broken_off = TestNar::random(8, 400_000);
    drop(finished(&test.test.store, test.ours, &broken_off, token).await.unwrap());
    test.test.store.close().await.unwrap();

    rebuild_index(super::options_at(test.test.folder.path()), &|_| ()).unwrap();

    let test = Private { test: test.test.reopen().await, ..test };
    assert_eq!(test.asked_for(&secret, token, test.ours).await, secret.chunks.len());
    assert_eq!(test.asked_for(&public, token, test.ours).await, 0);
    assert_eq!(test.asked_for(&secret, owner, test.ours).await, 0);
    // Packs do not say who sent what no path has.
    assert_eq!(test.asked_for(&broken_off, owner, test.ours).await, broken_off.chunks.len());
}

#[tokio::test]
async fn a_chunk_that_was_healed_is_in_the_same_caches() {
    let test = Private::new().await;
    let nar = TestNar::random(9, 400_000);
    let theirs = test.token(Some(&[(test.theirs, Right::ReadWrite)])).await;
    let ours = test.token(Some(&[(test.ours, Right::ReadWrite)])).await;
    test.push(&nar, theirs, test.theirs, "secret").await.unwrap();
    super::flip(&test.test.pack(1), 100_000);
    let report = test.test.store.check(std::sync::Arc::new(|_| ())).await.unwrap();
    assert!(!report.damaged.is_empty());
    assert_eq!(test.asked_for(&nar, theirs, test.theirs).await, 1);

    // Somebody who does not know of it sends it for a cache of their own.
    drop(finished(&test.test.store, test.ours, &nar, ours).await.unwrap());

    assert_eq!(test.asked_for(&nar, theirs, test.theirs).await, 0);
    let third = test.token(Some(&[(test.ours, Right::ReadWrite)])).await;
    assert_eq!(test.asked_for(&nar, third, test.ours).await, nar.chunks.len());
}

#[tokio::test]
async fn an_index_from_before_learns_what_is_in_its_caches() {
    let test = Private::new().await;
    let nar = TestNar::random(10, 400_000);
    let owner = test.token(None).await;
    let token = test.token(Some(&[(test.ours, Right::ReadWrite)])).await;
    test.push(&nar, owner, test.theirs, "secret").await.unwrap();
    test.test.store.close().await.unwrap();
    let index = rusqlite::Connection::open(test.test.data().join("larder.db")).unwrap();
    index
        .execute_batch(
            "DROP TABLE cache_chunks;
             DROP TABLE uploads;
             CREATE TABLE uploads (number INTEGER PRIMARY KEY, token INTEGER NOT NULL, at INTEGER NOT NULL);
             ALTER TABLE cache_keys DROP COLUMN overlap_left;
             ALTER TABLE tokens DROP COLUMN device_id;
             DROP INDEX paths_by_time;
             DROP TABLE attachments;
             DROP INDEX chunks_by_pack;
             ALTER TABLE paths DROP COLUMN used;
             DROP TABLE emptied_packs;
             DROP TABLE replay_later;
             DROP TABLE replay_ends;
             DROP TABLE pins;
             DROP TABLE pin_ends;
             ALTER TABLE caches DROP COLUMN retention_days;
             ALTER TABLE caches DROP COLUMN quota_bytes;
             DROP TABLE use_days;
             PRAGMA user_version = 2;",
        )
        .unwrap();
    drop(index);

    let test = Private { test: test.test.reopen().await, ..test };

    assert_eq!(test.asked_for(&nar, owner, test.ours).await, 0);
    assert_eq!(test.asked_for(&nar, token, test.ours).await, nar.chunks.len());
}

#[tokio::test]
async fn who_sent_what_is_forgotten_after_a_day() {
    let test = Private::new().await;
    let nar = TestNar::random(11, 400_000);
    let token = test.token(Some(&[(test.ours, Right::ReadWrite)])).await;
    drop(finished(&test.test.store, test.ours, &nar, token).await.unwrap());

    test.test.store.forget_old_uploads(NOW + 23 * 3600).await.unwrap();
    assert_eq!(test.asked_for(&nar, token, test.ours).await, 0);

    test.test.store.forget_old_uploads(NOW + 25 * 3600).await.unwrap();
    assert_eq!(test.asked_for(&nar, token, test.ours).await, nar.chunks.len());
}
