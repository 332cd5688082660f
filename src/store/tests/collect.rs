//! Collections: what nobody needs goes, everything else stays, whatever comes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{NOW, STORED, TOKEN, TestNar, TestStore, copy_folder, options_at};
use crate::formats::{Keep, StorePath};
use crate::store::{
    CollectReport, CollectRequest, CommitOutcome, NarSource, NewPath, NewPin, PinOutcome, Store,
    StoreError, StoreOptions, rebuild_index,
};

/// Packs that are soon full.
fn small_packs(options: StoreOptions) -> StoreOptions {
    StoreOptions { pack_bytes_max: 200_000, ..options }
}

/// As much as there is.
const EVERYTHING: u64 = u64::MAX;

async fn collect(test: &TestStore, free_bytes: u64) -> CollectReport {
    let request = CollectRequest { free_bytes, ..CollectRequest::default() };
    test.store.collect(request, Arc::new(|_left| ())).await.unwrap()
}

fn names(report: &CollectReport) -> Vec<&str> {
    report.paths.iter().map(|it| &it.path.base_name()[33..]).collect()
}

fn pack_bytes(test: &TestStore) -> u64 {
    let packs = fs::read_dir(test.data().join("packs")).unwrap();
    packs.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// Pushes a path of its own bytes, which is larger than a pack.
async fn push(test: &TestStore, seed: u8, name: &str, to: &[&StorePath]) -> (TestNar, NewPath) {
    let nar = TestNar::random(seed, 250_000);
    let path = test.path(&nar, name, to);
    test.push(&nar, &path).await;
    (nar, path)
}

async fn is_there(test: &TestStore, path: &NewPath) -> bool {
    test.store.path(test.cache, path.info.store_path.hash()).await.unwrap().is_some()
}

/// The store as a start finds it whose index is lost.
async fn rebuilt(test: &TestStore) -> TestStore {
    let cut = test.after_power_cut().await;
    cut.store.close().await.unwrap();
    let options = options_at(cut.folder.path());
    tokio::task::spawn_blocking(|| rebuild_index(options, &|_| ())).await.unwrap().unwrap();
    cut.reopen().await
}

#[tokio::test]
async fn where_there_is_room_nothing_leaves() {
    let test = TestStore::with(small_packs).await;
    let (nar, path) = push(&test, 1, "kept", &[]).await;
    let before = pack_bytes(&test);
    let report = collect(&test, 0).await;
    assert_eq!((report.paths.len(), report.nars, report.chunks, report.packs), (0, 0, 0, 0));
    assert_eq!(pack_bytes(&test), before);
    test.assert_served(&nar, &path).await;
}

#[tokio::test]
async fn what_was_used_longest_ago_leaves_first_and_what_is_referred_to_stays() {
    let test = TestStore::with(small_packs).await;
    let (leaf_nar, leaf) = push(&test, 1, "leaf", &[]).await;
    let (_, old) = push(&test, 2, "old", &[]).await;
    let (_, older) = push(&test, 3, "read-again", &[]).await;
    let (top_nar, top) = push(&test, 4, "top", &[&leaf.info.store_path]).await;
    test.store.note_use(test.cache, older.info.store_path.hash());

    let report = collect(&test, 300_000).await;

    assert_eq!(names(&report), ["old", "top"], "top was pushed before the other was read");
    assert!(!is_there(&test, &old).await && !is_there(&test, &top).await);
    assert!(is_there(&test, &older).await);
    test.assert_served(&leaf_nar, &leaf).await;
    assert_eq!(names(&collect(&test, 500_000).await)[0], "leaf");
    assert_eq!(
        test.push(&top_nar, &top).await,
        CommitOutcome::Hidden { missing: vec![leaf.info.store_path.base_name().to_owned()] }
    );
    assert_eq!(
        test.push(&leaf_nar, &leaf).await,
        CommitOutcome::Stored { woken: vec![top.info.store_path.hash()] }
    );
    test.assert_served(&top_nar, &top).await;
}

#[tokio::test]
async fn what_left_is_gone_from_the_disk_and_comes_back_by_no_way() {
    let test = TestStore::with(small_packs).await;
    let (kept_nar, kept) = push(&test, 1, "kept", &[]).await;
    let mut gone = Vec::new();
    for seed in 2..8 {
        gone.push(push(&test, seed, &format!("gone{seed}"), &[]).await);
    }
    test.store.note_use(test.cache, kept.info.store_path.hash());
    let before = pack_bytes(&test);
    let told = CollectRequest { free_bytes: 1_300_000, dry_run: true, ..Default::default() };
    let told = test.store.collect(told, Arc::new(|_| ())).await.unwrap();
    assert_eq!(pack_bytes(&test), before);

    let report = collect(&test, 1_300_000).await;

    assert_eq!(report.paths, told.paths);
    assert_eq!(report.paths.len(), 6);
    assert!(told.freed_bytes > 1_300_000, "{told:?}");
    let freed = before - pack_bytes(&test);
    assert!(freed > 1_000_000, "{freed} of {before}");
    for test in [rebuilt(&test).await, test.after_power_cut().await, test.reopened().await] {
        test.assert_served(&kept_nar, &kept).await;
        for (_, path) in &gone {
            assert!(!is_there(&test, path).await);
        }
        let found = test.store.check(Arc::new(|_| ())).await.unwrap();
        assert_eq!((found.damaged, found.paths), (Vec::new(), 1));
    }
}

#[tokio::test]
async fn a_path_that_left_can_come_again_and_its_old_url_stays_gone() {
    let test = TestStore::with(small_packs).await;
    let (nar, path) = push(&test, 1, "again", &[]).await;
    let before = test.file(&nar).await.revision;
    collect(&test, EVERYTHING).await;
    let other_frames = TestNar { chunks: nar.cut_every(100_000).chunks, ..nar.clone() };

    assert_eq!(test.push(&other_frames, &path).await, STORED);

    assert!(test.file(&nar).await.revision > before);
    for test in [rebuilt(&test).await, test.reopened().await] {
        test.assert_served(&nar, &path).await;
    }
}

#[tokio::test]
async fn chunks_that_others_share_stay() {
    let test = TestStore::with(small_packs).await;
    let mut contents = vec![0; 600_000];
    blake3::Hasher::new().update(b"shared").finalize_xof().fill(&mut contents);
    let first = TestNar::of(&contents);
    contents.extend_from_slice(b"and more");
    let second = TestNar::of(&contents);
    let (one, two) = (test.path(&first, "one", &[]), test.path(&second, "two", &[]));
    test.push(&first, &one).await;
    test.push(&second, &two).await;

    let report = collect(&test, 1).await;

    assert_eq!(names(&report)[0], "one");
    if report.paths.len() == 1 {
        test.assert_served(&second, &two).await;
        rebuilt(&test).await.assert_served(&second, &two).await;
    }
}

#[tokio::test]
async fn what_is_pinned_stays_with_all_it_refers_to() {
    let test = TestStore::with(small_packs).await;
    let (leaf_nar, leaf) = push(&test, 1, "leaf", &[]).await;
    let (top_nar, top) = push(&test, 2, "top", &[&leaf.info.store_path]).await;
    let (_, other) = push(&test, 3, "other", &[]).await;
    let pin = NewPin {
        cache: test.cache,
        name: "release".parse().unwrap(),
        path: top.info.store_path.clone(),
        artifacts: Vec::new(),
        keep: Keep::Forever,
        token: TOKEN,
        at: NOW,
    };
    for name in ["release", "release", "old"] {
        let pin = NewPin { name: name.parse().unwrap(), ..pin.clone() };
        assert!(matches!(test.store.pin(pin).await.unwrap(), PinOutcome::Made(_)));
    }
    test.store.remove_pin(test.cache, "old".parse().unwrap()).await.unwrap();

    assert_eq!(names(&collect(&test, EVERYTHING).await), ["other"]);

    // The packs that told of the pins were emptied, and what they told is told elsewhere.
    for test in [rebuilt(&test).await, test.after_power_cut().await] {
        let pins = test.store.pins(test.cache, None, 10).await.unwrap();
        let pins: Vec<_> = pins.iter().map(|it| (it.name.as_str(), it.revision)).collect();
        assert_eq!(pins, [("release", 2), ("release", 1)]);
        assert!(collect(&test, EVERYTHING).await.paths.is_empty());
        test.assert_served(&leaf_nar, &leaf).await;
        test.assert_served(&top_nar, &top).await;
        assert!(!is_there(&test, &other).await);
    }
    test.store.remove_pin(test.cache, "release".parse().unwrap()).await.unwrap();
    assert_eq!(names(&collect(&test, EVERYTHING).await), ["top", "leaf"]);
}

#[tokio::test]
async fn a_chunk_promised_is_a_chunk_kept() {
    let test = TestStore::with(small_packs).await;
    let (nar, path) = push(&test, 1, "promised", &[]).await;
    // A push of the same bytes under another name that has been told what is here.
    let finished = test.ingest(&nar, TOKEN).await.unwrap();

    collect(&test, EVERYTHING).await;

    assert!(!is_there(&test, &path).await);
    let other = test.path(&nar, "other", &[]);
    let source = NarSource::Ingested(finished);
    assert_eq!(test.store.commit_path(other.clone(), source).await.unwrap(), STORED);
    test.assert_served(&nar, &other).await;
    collect(&test, 0).await;
    for test in [rebuilt(&test).await, test.reopened().await] {
        test.assert_served(&nar, &other).await;
    }
}

#[tokio::test]
async fn a_known_nar_that_left_is_asked_for_again() {
    let test = TestStore::with(small_packs).await;
    let (nar, path) = push(&test, 1, "known", &[]).await;
    let other = test.path(&nar, "other", &[]);
    let known = test.store.known_nar(&other).await.unwrap().unwrap();
    collect(&test, EVERYTHING).await;
    let source = NarSource::Known(known.id);
    let error = test.store.commit_path(other, source).await.unwrap_err();
    assert!(matches!(error, StoreError::ChunksVanished { .. }), "{error:?}");
    assert_eq!(test.push(&nar, &path).await, STORED);
}

#[tokio::test]
async fn what_is_pushed_meanwhile_stays_with_all_it_refers_to() {
    let test = Arc::new(TestStore::with(small_packs).await);
    let (leaf_nar, leaf) = push(&test, 1, "leaf", &[]).await;
    let (middle_nar, middle) = push(&test, 2, "middle", &[&leaf.info.store_path]).await;
    let (_, first) = push(&test, 3, "first", &[]).await;
    let top_nar = TestNar::random(4, 1000);
    let top = test.path(&top_nar, "top", &[&middle.info.store_path]);
    let finished = test.ingest(&top_nar, TOKEN).await.unwrap();
    let refused = Arc::new(AtomicBool::new(false));
    // When the first path has left, and the others are about to.
    let (store, is_first, busy) = (test.store.clone(), AtomicBool::new(true), refused.clone());
    let commit = std::sync::Mutex::new(Some((top.clone(), NarSource::Ingested(finished))));
    let runtime = tokio::runtime::Handle::current();
    let left = move |_left: &[_]| {
        if is_first.swap(false, Ordering::SeqCst) {
            let second = store.collect(CollectRequest::default(), Arc::new(|_| ()));
            let second = runtime.block_on(second);
            busy.store(matches!(second, Err(StoreError::CollectionRuns)), Ordering::SeqCst);
            let (path, source) = commit.lock().unwrap().take().unwrap();
            runtime.block_on(store.commit_path(path, source)).unwrap();
        }
    };
    // More paths than leave in one commit, used before the leaf.
    let mut many = Vec::new();
    for number in 0..80 {
        let nar = TestNar::of(format!("{number}").as_bytes());
        let path = test.path(&nar, &format!("tiny{number}"), &[]);
        test.push(&nar, &path).await;
        many.push(path);
    }
    for path in [&leaf, &middle] {
        test.store.note_use(test.cache, path.info.store_path.hash());
    }
    let request = CollectRequest { free_bytes: EVERYTHING, ..CollectRequest::default() };

    test.store.collect(request, Arc::new(left)).await.unwrap();

    assert!(refused.load(Ordering::SeqCst), "two collections at a time");
    assert!(!is_there(&test, &first).await && !is_there(&test, &many[79]).await);
    for (nar, path) in [(&leaf_nar, &leaf), (&middle_nar, &middle), (&top_nar, &top)] {
        test.assert_served(nar, path).await;
    }
}

#[tokio::test]
async fn an_old_index_finds_what_was_moved_since() {
    let test = TestStore::with(small_packs).await;
    let (kept_nar, kept) = push(&test, 1, "kept", &[]).await;
    // Beside what leaves, so that it has to be moved.
    let small = TestNar::random(9, 30_000);
    let beside = test.path(&small, "beside", &[]);
    test.push(&small, &beside).await;
    let (_, gone) = push(&test, 2, "gone", &[]).await;
    let (again_nar, again) = push(&test, 3, "again", &[]).await;
    push(&test, 4, "last", &[]).await;
    test.store.close().await.unwrap();
    let old = tempfile::TempDir::new().unwrap();
    copy_folder(&test.data(), &old.path().join("data"));
    let test = test.reopen().await;
    for path in [&kept, &beside] {
        test.store.note_use(test.cache, path.info.store_path.hash());
    }
    collect(&test, 700_000).await;
    assert!(!is_there(&test, &gone).await && !is_there(&test, &again).await);
    test.push(&again_nar, &again).await;
    test.store.close().await.unwrap();

    for name in ["larder.db", "larder.db-wal", "larder.db-shm"] {
        let _not_there = fs::remove_file(test.data().join(name));
        let _not_there = fs::copy(old.path().join("data").join(name), test.data().join(name));
    }
    let test = test.reopen().await;

    for (nar, path) in [(&kept_nar, &kept), (&small, &beside), (&again_nar, &again)] {
        test.assert_served(nar, path).await;
    }
    assert!(!is_there(&test, &gone).await);
    let found = test.store.check(Arc::new(|_| ())).await.unwrap();
    assert_eq!(found.damaged, Vec::<String>::new());
}

/// Numbers from a seed, for what happens next.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// What a store should have: a naive one.
#[derive(Default)]
struct Model {
    paths: BTreeMap<String, (TestNar, NewPath)>,
}

impl Model {
    /// Whether a path and all it refers to is there.
    fn is_whole(&self, name: &str) -> bool {
        self.paths.get(name).is_some_and(|(_, path)| {
            path.info.references.iter().all(|to| self.is_whole(&to.base_name()[33..]))
        })
    }

    async fn assert_is(&self, test: &TestStore, names: &BTreeSet<String>) {
        for name in names {
            let hash = super::store_path(name).hash();
            let record = test.store.path(test.cache, hash).await.unwrap();
            match self.paths.get(name) {
                Some((nar, path)) if self.is_whole(name) => test.assert_served(nar, path).await,
                Some(_) => assert!(!record.expect(name).visible, "{name}"),
                None => assert!(record.is_none(), "{name} came back"),
            }
        }
        let found = test.store.check(Arc::new(|_| ())).await.unwrap();
        assert_eq!(found.damaged, Vec::<String>::new());
    }
}

/// A NAR that shares chunks with others.
fn mixed(dice: &mut Dice) -> TestNar {
    let mut contents = Vec::new();
    for _part in 0..=dice.below(3) {
        let mut part = vec![0; 20_000 + usize::try_from(dice.below(60_000)).unwrap()];
        let seed = [u8::try_from(dice.below(6)).unwrap()];
        blake3::Hasher::new().update(&seed).finalize_xof().fill(&mut part);
        contents.extend_from_slice(&part);
    }
    TestNar::of(&contents)
}

async fn run_model(seed: u64, moves: u32) {
    let mut dice = Dice(seed);
    let mut test = TestStore::with(small_packs).await;
    let (mut model, mut names) = (Model::default(), BTreeSet::<String>::new());
    for step in 0..moves {
        match dice.below(10) {
            0..=5 => {
                let name = format!("p{}", dice.below(30));
                let known: Vec<_> = names.iter().filter(|it| *it < &name).collect();
                let to: Vec<_> = (0..dice.below(3))
                    .filter_map(|_| known.get(usize::try_from(dice.below(20)).unwrap()))
                    .map(|name| super::store_path(name))
                    .collect();
                let nar = mixed(&mut dice);
                let path = test.path(&nar, &name, &to.iter().collect::<Vec<_>>());
                names.insert(name.clone());
                if test.push(&nar, &path).await != CommitOutcome::KeptFirst {
                    model.paths.insert(name, (nar, path));
                }
            }
            6 | 7 => {
                let want = [0, 50_000, 300_000][usize::try_from(dice.below(3)).unwrap()];
                let before: Vec<_> = model.paths.keys().cloned().collect();
                let whole: BTreeSet<_> =
                    before.iter().filter(|it| model.is_whole(it)).cloned().collect();
                let report = collect(&test, want).await;
                for name in self::names(&report) {
                    assert!(model.paths.remove(name).is_some(), "seed {seed}, step {step}");
                }
                for name in whole.iter().filter(|name| model.paths.contains_key(*name)) {
                    assert!(model.is_whole(name), "seed {seed}: {name} lost what it refers to");
                }
            }
            8 => test = test.reopened_with(small_packs).await,
            _ => {
                test = if dice.below(2) == 0 {
                    rebuilt(&test).await
                } else {
                    test.after_power_cut().await
                }
            }
        }
        if step % 8 == 7 {
            model.assert_is(&test, &names).await;
        }
    }
    model.assert_is(&rebuilt(&test).await, &names).await;
    model.assert_is(&test, &names).await;
    collect(&test, EVERYTHING).await;
    let stats = test.store.stats().await.unwrap();
    assert_eq!((stats.paths_visible, stats.paths_hidden, stats.nars), (0, 0, 0));
    let _closed = Store::close(&test.store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_the_store_is_what_a_naive_one_would_be() {
    let seeds = std::env::var("LARDER_MODEL_SEEDS").ok();
    let (first, count) = match seeds.as_deref().and_then(|it| it.split_once('+')) {
        Some((first, count)) => (first.parse::<u64>().unwrap(), count.parse::<u64>().unwrap()),
        None => (NOW, 6),
    };
    for seed in first..first + count {
        run_model(seed, 60).await;
    }
}
