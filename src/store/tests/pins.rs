//! Pins: made, ended, and the same again after a restart, a power cut and a rebuild.

use std::num::NonZero;

use super::{NOW, TOKEN, TestNar, TestStore, options_at, store_path};
use crate::formats::{Keep, PinName, StorePathHash};
use crate::store::index::caches::CacheId;
use crate::store::index::pins;
use crate::store::{NewPin, Pin, PinOutcome, Store, UnixSeconds, rebuild_index};

const DAY: u64 = 86_400;

fn name(text: &str) -> PinName {
    text.parse().unwrap()
}

fn days(count: u32) -> Keep {
    Keep::Days(NonZero::new(count).unwrap())
}

impl TestStore {
    async fn push_file(&self, name: &str) {
        let nar = TestNar::of(name.as_bytes());
        self.push(&nar, &self.path(&nar, name, &[])).await;
    }

    async fn try_pin(&self, pin: &str, path: &str, keep: Keep, at: UnixSeconds) -> PinOutcome {
        let (cache, path, artifacts) = (self.cache, store_path(path), Vec::new());
        let new = NewPin { cache, name: name(pin), path, artifacts, keep, token: TOKEN, at };
        self.store.pin(new).await.unwrap()
    }

    async fn pin(&self, pin: &str, path: &str, keep: Keep, at: UnixSeconds) -> Pin {
        match self.try_pin(pin, path, keep, at).await {
            PinOutcome::Made(made) => made,
            other => panic!("{other:?}"),
        }
    }
}

/// Name and revision of each.
async fn listed(store: &Store, cache: CacheId) -> Vec<(String, u32)> {
    let pins = store.pins(cache, None, 100).await.unwrap();
    pins.into_iter().map(|pin| (pin.name.to_string(), pin.revision)).collect()
}

fn listing(of: &[(&str, u32)]) -> Vec<(String, u32)> {
    of.iter().map(|(name, revision)| ((*name).to_owned(), *revision)).collect()
}

/// The paths that a pin holds.
fn pinned_paths(test: &TestStore) -> Vec<StorePathHash> {
    test.store.0.readers.read(|connection| pins::roots(connection, test.cache)).unwrap()
}

#[tokio::test]
async fn revisions_are_numbered_and_numbers_never_given_again() {
    let test = TestStore::new().await;
    test.push_file("a").await;
    test.push_file("b").await;
    for (path, revision) in [("a", 1), ("b", 2), ("a", 3)] {
        assert_eq!(test.pin("v", path, Keep::Forever, NOW).await.revision, revision);
    }
    test.pin("other", "b", Keep::Forever, NOW).await;
    let all = listing(&[("other", 1), ("v", 3), ("v", 2), ("v", 1)]);
    assert_eq!(listed(&test.store, test.cache).await, all);
    let mut held = pinned_paths(&test);
    held.sort_unstable();
    let mut expected = [store_path("a").hash(), store_path("b").hash()];
    expected.sort_unstable();
    assert_eq!(held, expected);

    // Pages go on behind the last of them.
    let first = test.store.pins(test.cache, None, 2).await.unwrap();
    let rest = test.store.pins(test.cache, Some(first[1].place()), 100).await.unwrap();
    assert_eq!((first[1].revision, rest[0].revision, rest.len()), (3, 2, 2));

    assert_eq!(test.store.remove_pin(test.cache, name("v")).await.unwrap(), 3);
    assert_eq!(test.store.remove_pin(test.cache, name("v")).await.unwrap(), 0);
    assert_eq!(test.store.newest_pin(test.cache, name("v")).await.unwrap(), None);
    assert_eq!(test.pin("v", "a", Keep::Forever, NOW).await.revision, 4);
}

#[tokio::test]
async fn what_is_not_served_is_not_pinned() {
    let test = TestStore::new().await;
    assert_eq!(test.try_pin("v", "a", Keep::Forever, NOW).await, PinOutcome::NoSuchPath);
    let nar = TestNar::of(b"waits");
    test.push(&nar, &test.path(&nar, "waits", &[&store_path("a")])).await;
    assert_eq!(test.try_pin("v", "waits", Keep::Forever, NOW).await, PinOutcome::Hidden);
    assert_eq!(listed(&test.store, test.cache).await, []);
}

#[tokio::test]
async fn the_newest_revision_says_how_many_stay() {
    let test = TestStore::new().await;
    test.push_file("a").await;
    let two = Keep::Revisions(NonZero::new(2).unwrap());
    for keep in [Keep::Forever, Keep::Forever, Keep::Forever, two] {
        test.pin("v", "a", keep, NOW).await;
    }
    assert_eq!(listed(&test.store, test.cache).await, listing(&[("v", 4), ("v", 3)]));
    test.pin("v", "a", Keep::Forever, NOW).await;
    let all = listing(&[("v", 5), ("v", 4), ("v", 3)]);
    assert_eq!(listed(&test.store, test.cache).await, all);
}

#[tokio::test]
async fn days_end_revisions_by_what_the_newest_says() {
    let test = TestStore::new().await;
    test.push_file("a").await;
    test.pin("kept", "a", days(1), NOW).await;
    test.pin("kept", "a", Keep::Forever, NOW).await;
    test.pin("v", "a", Keep::Forever, NOW).await;
    test.pin("v", "a", days(3), NOW + 2 * DAY).await;
    // Made before the box knew the time.
    test.pin("early", "a", days(3), 100).await;

    assert_eq!(test.store.expire_pins(NOW + 3 * DAY - 1).await.unwrap(), 0);
    assert_eq!(test.store.expire_pins(NOW + 3 * DAY).await.unwrap(), 1);
    let all = listing(&[("early", 1), ("kept", 2), ("kept", 1), ("v", 2)]);
    assert_eq!(listed(&test.store, test.cache).await, all);
    assert_eq!(test.store.expire_pins(NOW + 5 * DAY).await.unwrap(), 1);
    assert_eq!(test.store.expire_pins(NOW + 500 * DAY).await.unwrap(), 0);
    assert_eq!(test.pin("v", "a", Keep::Forever, NOW).await.revision, 3);
}

#[tokio::test]
async fn pins_are_the_same_after_a_power_cut_and_with_a_new_index() {
    let test = TestStore::new().await;
    test.push_file("a").await;
    test.pin("gone", "a", Keep::Forever, NOW).await;
    test.store.remove_pin(test.cache, name("gone")).await.unwrap();
    for _ in 0..3 {
        test.pin("v", "a", Keep::Revisions(NonZero::new(2).unwrap()), NOW).await;
    }
    let before = test.store.pins(test.cache, None, 100).await.unwrap();
    assert_eq!(before.len(), 2);

    let cut = test.after_power_cut().await;
    assert_eq!(cut.store.pins(cut.cache, None, 100).await.unwrap(), before);
    let test = test.reopened().await;
    assert_eq!(test.store.pins(test.cache, None, 100).await.unwrap(), before);

    test.store.close().await.unwrap();
    rebuild_index(options_at(test.folder.path()), &|_| ()).unwrap();
    let test = test.reopen().await;
    let after = test.store.pins(test.cache, None, 100).await.unwrap();
    let places = |pins: &[Pin]| pins.iter().map(Pin::place).collect::<Vec<_>>();
    assert_eq!(places(&after), places(&before));
    assert_eq!(test.pin("gone", "a", Keep::Forever, NOW).await.revision, 2);

    test.store.delete_cache(test.cache).await.unwrap();
    assert_eq!(listed(&test.store, test.cache).await, []);
    assert_eq!(pinned_paths(&test), []);
}
