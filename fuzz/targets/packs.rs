//! A data folder whose one pack is anybody's bytes: it is read to its end, says the same twice,
//! and the store opens on what came of it.
//!
//! Sums and seals are put right first (FORMAT.md, *Packs*), or no changed byte would get past
//! them; a record whose reserved bytes are not 0 stays as it is, so that damage comes too.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use larder::store::{CheckReport, Store, StoreOptions, rebuild_index};
use larder_fuzz::within;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use twox_hash::XxHash3_64;

const UUID: [u8; 16] = *b"a store to break";
const PACK_HEADER: usize = 32;
const HEADER: usize = 64;
/// A record, the index's own memory (SQLite's comes from C) and what a replay remembers.
const HELD_MAX: usize = 32 << 20;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    open(&data(folder.path())).expect("a new store");
    folder
});

fn data(folder: &Path) -> PathBuf {
    folder.join("data")
}

fn open(data: &Path) -> Option<()> {
    let store = Store::open(StoreOptions { readers: 1, ..StoreOptions::at(data) }).ok()?;
    let runtime = tokio_of_one();
    runtime.block_on(async {
        store.stats().await.expect("figures");
        store.caches().await.expect("caches");
        store.close().await.expect("closed");
    });
    Some(())
}

fn tokio_of_one() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The input as a pack: a header in front, and each record's sum and seal as they should be.
fn sealed(input: &[u8]) -> Vec<u8> {
    let mut pack = b"LARDPACK".to_vec();
    pack.extend(2_u32.to_le_bytes());
    pack.extend(1_u32.to_le_bytes());
    pack.extend(UUID);
    pack.extend(input);
    let key = blake3::derive_key("larder 2026 header of a record", &UUID);
    let mut at = PACK_HEADER;
    while at + HEADER <= pack.len() {
        let stored = u32::from_le_bytes(pack[at + 8..at + 12].try_into().expect("four")) as usize;
        let end = (at + HEADER).saturating_add(stored).min(pack.len());
        if pack[at + 5..at + 8] == [0; 3] {
            let stored = u32::try_from(end - at - HEADER).expect("small");
            pack[at..at + 4].copy_from_slice(b"LdRc");
            pack[at + 8..at + 12].copy_from_slice(&stored.to_le_bytes());
            let sum = XxHash3_64::oneshot(&pack[at + HEADER..end]);
            pack[at + 48..at + 56].copy_from_slice(&sum.to_le_bytes());
            let mut hasher = blake3::Hasher::new_keyed(&key);
            hasher.update(&1_u32.to_le_bytes()).update(&(at as u64).to_le_bytes());
            hasher.update(&pack[at..at + 56]);
            let mut seal = [0; 8];
            hasher.finalize_xof().fill(&mut seal);
            pack[at + 56..at + HEADER].copy_from_slice(&seal);
        }
        at = end;
    }
    pack
}

fn rebuilt(data: &Path) -> Option<CheckReport> {
    let options = StoreOptions { readers: 1, ..StoreOptions::at(data) };
    within(HELD_MAX, || rebuild_index(options, &|_progress| {})).ok()
}

fuzz_target!(|input: &[u8]| {
    let data = data(FOLDER.path());
    for name in ["larder.db", "larder.db-wal", "larder.db-shm", "larder.db.before-rebuild"] {
        let _there_or_not = fs::remove_file(data.join(name));
    }
    let packs = data.join("packs");
    for entry in fs::read_dir(&packs).expect("packs") {
        fs::remove_file(entry.expect("a pack").path()).expect("removed");
    }
    fs::write(packs.join("00000001.pack"), sealed(input)).expect("a pack");
    let Some(first) = rebuilt(&data) else { return };
    // Most of the time is the index's; so the rest is for some of the inputs.
    if XxHash3_64::oneshot(input) % 4 != 0 {
        return;
    }
    // A cache whose settings were lost is known then, and not told of again.
    let second = rebuilt(&data).expect("a second rebuild");
    let counts = |report: &CheckReport| (report.records, report.bytes, report.paths);
    assert_eq!(counts(&second), counts(&first), "a second rebuild finds the same");
    open(&data).expect("the store opens on what a rebuild made");
});
