//! A narinfo is visible only with its closure; the first of a name is kept.

use super::{STORED, TestNar, TestStore, store_path};
use crate::store::CommitOutcome;

fn hidden(missing: &[&str]) -> CommitOutcome {
    let missing = missing.iter().map(|name| store_path(name).base_name().to_owned()).collect();
    CommitOutcome::Hidden { missing }
}

#[tokio::test]
async fn a_path_becomes_visible_with_its_last_reference_and_wakes_others() {
    let test = TestStore::new().await;
    let nars: Vec<_> = (0..4).map(|seed| TestNar::random(seed, 500)).collect();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(store_path);
    let path_a = test.path(&nars[0], "a", &[&b, &c]);
    let path_b = test.path(&nars[1], "b", &[&c, &b]);
    let path_c = test.path(&nars[2], "c", &[&d]);
    let path_d = test.path(&nars[3], "d", &[]);

    assert_eq!(test.push(&nars[0], &path_a).await, hidden(&["b", "c"]));
    assert_eq!(test.push(&nars[1], &path_b).await, hidden(&["c"]));
    assert_eq!(test.push(&nars[2], &path_c).await, hidden(&["d"]));
    assert!(test.store.nar_in(vec![test.cache], nars[0].hash).await.unwrap().is_none());
    let missing = test.store.missing(test.cache, vec![a.hash(), d.hash()]).await.unwrap();
    assert_eq!(missing, [d.hash()]);
    // A restart forgets nothing of it.
    let test = test.reopened().await;
    let woken = [c, b, a].map(|path| path.hash()).to_vec();
    assert_eq!(test.push(&nars[3], &path_d).await, CommitOutcome::Stored { woken });

    for (nar, path) in nars.iter().zip([&path_a, &path_b, &path_c, &path_d]) {
        test.assert_served(nar, path).await;
    }
    assert_eq!(test.store.stats().await.unwrap().paths_hidden, 0);
}

#[tokio::test]
async fn the_first_visible_nar_of_a_name_is_kept() {
    let test = TestStore::new().await;
    let (first, second) = (TestNar::of(b"first"), TestNar::of(b"second"));
    let path = test.path(&first, "same", &[]);

    assert_eq!(test.push(&first, &path).await, STORED);
    let other = test.path(&second, "same", &[]);
    assert_eq!(test.push(&second, &other).await, CommitOutcome::KeptFirst);

    test.assert_served(&first, &path).await;
}

#[tokio::test]
async fn a_hidden_path_does_not_squat_its_name() {
    let test = TestStore::new().await;
    let (first, second) = (TestNar::of(b"first"), TestNar::of(b"second"));
    let planted = test.path(&first, "same", &[&store_path("never-there")]);
    assert_eq!(test.push(&first, &planted).await, hidden(&["never-there"]));

    let path = test.path(&second, "same", &[]);
    assert_eq!(test.push(&second, &path).await, STORED);

    test.assert_served(&second, &path).await;
    assert_eq!(test.push(&first, &planted).await, CommitOutcome::KeptFirst);
}

#[tokio::test]
async fn caches_do_not_lend_each_other_references() {
    let test = TestStore::new().await;
    let nar = TestNar::of(b"shared");
    test.push(&nar, &test.path(&nar, "base", &[])).await;
    let other = test.store.create_cache(super::new_cache("other")).await.unwrap().id;

    let top = super::new_path(other, &nar, "top", &[&store_path("base")]);

    assert_eq!(test.push(&nar, &top).await, hidden(&["base"]));
    assert!(test.store.nar_in(vec![other], nar.hash).await.unwrap().is_none());
}

#[tokio::test]
async fn the_filter_never_denies_a_visible_path() {
    let test = TestStore::new().await;
    let nar = TestNar::of(b"x");
    let absent =
        (0..2000).filter(|n| test.store.may_have_path(store_path(&format!("n{n}")).hash()));
    assert_eq!(absent.count(), 0);
    for number in 0..100 {
        test.push(&nar, &test.path(&nar, &format!("n{number}"), &[])).await;
    }

    let test = test.reopened().await;

    for number in 0..100 {
        assert!(test.store.may_have_path(store_path(&format!("n{number}")).hash()), "{number}");
    }
    let absent =
        (100..5000).filter(|n| test.store.may_have_path(store_path(&format!("n{n}")).hash()));
    assert!(absent.count() < 100);
}
