//! Retention and quotas: what is beyond them leaves, in order, and nothing else.

use std::num::NonZero;
use std::sync::Arc;

use super::caches::update_of;
use super::{NOW, TOKEN, TestNar, TestStore, options_at};
use crate::formats::{CacheLimits, Keep, StorePath};
use crate::store::{
    CacheUpdate, CollectReport, CollectRequest, LeavingReason, NewPath, NewPin, PinOutcome,
    StoreOptions, UnixSeconds, rebuild_index,
};

const DAY: u64 = 86_400;
/// Bytes of the NARs of these tests, which zstd makes no smaller; the frames' heads aside.
const NAR_BYTES: u64 = 250_000;

fn limits(retention_days: Option<u32>, quota_bytes: Option<u64>) -> CacheLimits {
    CacheLimits { retention_days, quota_bytes }
}

async fn limit(test: &TestStore, limits: CacheLimits) {
    let update = CacheUpdate { limits, ..update_of(&test.main().await) };
    assert_eq!(test.store.change_cache(test.cache, update).await.unwrap().limits, limits);
}

async fn push(test: &TestStore, seed: u8, name: &str, to: &[&StorePath]) -> NewPath {
    let nar = TestNar::random(seed, 250_000);
    let path = test.path(&nar, name, to);
    test.push(&nar, &path).await;
    path
}

async fn collect(test: &TestStore, trusted_now: Option<UnixSeconds>) -> CollectReport {
    let request = CollectRequest { trusted_now, ..CollectRequest::default() };
    test.store.collect(request, Arc::new(|_left| ())).await.unwrap()
}

fn left(report: &CollectReport) -> Vec<(&str, LeavingReason)> {
    report.paths.iter().map(|it| (&it.path.base_name()[33..], it.reason)).collect()
}

#[tokio::test]
async fn what_nobody_reads_leaves_after_the_days_of_its_cache() {
    let test = TestStore::new().await;
    limit(&test, limits(Some(30), None)).await;
    let base = push(&test, 1, "base", &[]).await;
    let read = push(&test, 2, "read", &[&base.info.store_path]).await;
    push(&test, 3, "old", &[]).await;
    let pinned = push(&test, 4, "pinned", &[]).await;
    let new = NewPin {
        cache: test.cache,
        name: "v".parse().unwrap(),
        path: pinned.info.store_path.clone(),
        artifacts: Vec::new(),
        keep: Keep::Revisions(NonZero::new(1).unwrap()),
        token: TOKEN,
        at: NOW,
    };
    assert!(matches!(test.store.pin(new).await.unwrap(), PinOutcome::Made(_)));
    assert_eq!(left(&collect(&test, Some(NOW)).await), []);
    test.store.note_use(test.cache, read.info.store_path.hash());
    assert_eq!(left(&collect(&test, Some(NOW + 20 * DAY)).await), []);

    assert_eq!(
        left(&collect(&test, Some(NOW + 30 * DAY)).await),
        [],
        "not before the days are over"
    );
    assert_eq!(left(&collect(&test, None).await), [], "not by a clock that is not believed");
    let report = collect(&test, Some(NOW + 32 * DAY)).await;

    assert_eq!(left(&report), [("old", LeavingReason::Retention)]);
    let report = collect(&test, Some(NOW + 52 * DAY)).await;
    let both = [("read", LeavingReason::Retention), ("base", LeavingReason::Retention)];
    assert_eq!(left(&report), both, "what is referred to leaves behind it");
}

#[tokio::test]
async fn a_clock_that_was_in_the_future_makes_nothing_older() {
    let test = TestStore::new().await;
    limit(&test, limits(Some(1), None)).await;
    push(&test, 1, "a", &[]).await;
    collect(&test, Some(NOW + 36_500 * DAY)).await;
    assert_eq!(left(&collect(&test, Some(NOW)).await), []);
    assert_eq!(left(&collect(&test, Some(NOW + DAY)).await), []);
    assert_eq!(left(&collect(&test, Some(NOW + 2 * DAY)).await), [("a", LeavingReason::Retention)]);
}

#[tokio::test]
async fn beyond_a_quota_what_was_used_longest_ago_leaves() {
    let test = TestStore::new().await;
    for (seed, name) in [(1, "first"), (2, "second"), (3, "third"), (4, "fourth")] {
        push(&test, seed, name, &[]).await;
    }
    let stored = test.store.stored_bytes(test.cache).await.unwrap();
    assert!((4 * NAR_BYTES..4 * NAR_BYTES + 10_000).contains(&stored), "{stored}");
    limit(&test, limits(None, Some(stored))).await;
    assert_eq!(left(&collect(&test, None).await), [], "not beyond it");
    limit(&test, limits(None, Some(stored - 1))).await;
    let first = push(&test, 1, "first", &[]).await;
    test.store.note_use(test.cache, first.info.store_path.hash());

    assert_eq!(left(&collect(&test, None).await), [("second", LeavingReason::CacheQuota)]);

    limit(&test, limits(None, Some(NAR_BYTES + 10_000))).await;
    let report = collect(&test, None).await;
    let two = [("third", LeavingReason::CacheQuota), ("fourth", LeavingReason::CacheQuota)];
    assert_eq!(left(&report), two);
    assert_eq!(left(&collect(&test, None).await), []);
}

#[tokio::test]
async fn the_quota_of_the_box_is_of_all_caches_and_not_of_a_collection_of_one() {
    let quota = |options| StoreOptions { quota_bytes: Some(2 * NAR_BYTES + 10_000), ..options };
    let mut test = TestStore::with(quota).await;
    push(&test, 1, "first", &[]).await;
    push(&test, 2, "second", &[]).await;
    let main = test.cache;
    test.cache = test.store.create_cache(super::new_cache("ci")).await.unwrap().id;
    push(&test, 3, "third", &[]).await;
    let request = CollectRequest { cache: Some(main), ..CollectRequest::default() };
    let report = test.store.collect(request, Arc::new(|_| ())).await.unwrap();
    assert_eq!(left(&report), []);

    assert_eq!(left(&collect(&test, None).await), [("first", LeavingReason::BoxQuota)]);

    assert_eq!(left(&collect(&test, None).await), []);
}

#[tokio::test]
async fn limits_are_there_after_a_restart_a_rebuild_and_a_collection_of_their_record() {
    let test = TestStore::with(|it| StoreOptions { pack_bytes_max: 200_000, ..it }).await;
    let wanted = limits(Some(7), Some(1 << 30));
    limit(&test, wanted).await;
    for seed in 1..4 {
        push(&test, seed, "gone", &[]).await;
    }
    let request = CollectRequest { free_bytes: u64::MAX, ..CollectRequest::default() };
    let report = test.store.collect(request, Arc::new(|_left| ())).await.unwrap();
    assert!(report.packs > 0, "{report:?}");
    let test = test.reopened().await;
    assert_eq!(test.main().await.limits, wanted);
    let cut = test.after_power_cut().await;
    cut.store.close().await.unwrap();
    let options = options_at(cut.folder.path());
    std::fs::remove_file(cut.data().join("larder.db")).unwrap();
    tokio::task::spawn_blocking(|| rebuild_index(options, &|_| ())).await.unwrap().unwrap();
    let cut = cut.reopen().await;
    assert_eq!(cut.main().await.limits, wanted);
}
