//! The figures of FORMAT.md: what the index costs at six million chunks.
//!
//! ```text
//! RUSTFLAGS='--cfg figures' cargo test --lib chunk_index_figures -- --nocapture
//! ```
//!
//! `CHUNKS` in the environment asks for another count. Cold means: caches of the system dropped
//! (only root can) and connections opened anew.

use std::fs;
use std::path::Path;
use std::time::Instant;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::store::index::db;

/// Chunks of one commit: some 16 MiB of NAR.
const COMMIT_CHUNKS: u64 = 256;
const LOOK_UPS: u64 = 2000;

#[test]
fn chunk_index_figures() {
    let total = std::env::var("CHUNKS").map_or(6_000_000, |count| count.parse().unwrap());
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("larder.db");
    println!("| chunks | bytes written a chunk | slowest commit, ms | RssAnon, MiB |");
    println!("| --- | --- | --- | --- |");
    fill(&path, total);
    println!("| look-up of {LOOK_UPS} | µs each | pages of 4 KiB read each |");
    println!("| --- | --- | --- |");
    for (what, first) in [("absent", u64::MAX / 2), ("present", 1)] {
        drop_caches();
        let connection = db::open_writer(&path).unwrap();
        let index = ChunkIndex::open(&connection).unwrap();
        for state in ["cold", "warm"] {
            look_up(&connection, &index, total, first, &format!("{what}, {state}"));
        }
    }
    println!("index file: {} MB", fs::metadata(&path).unwrap().len() / 1_000_000);
}

fn fill(path: &Path, total: u64) {
    let mut connection = db::open_writer(path).unwrap();
    let index = ChunkIndex::open(&connection).unwrap();
    let (mut written, mut slowest) = (io("write_bytes"), 0);
    for first in (1..=total).step_by(usize::try_from(COMMIT_CHUNKS).unwrap()) {
        let end = (first + COMMIT_CHUNKS).min(total + 1);
        let rows: Vec<_> = (first..end).map(row_of).collect();
        let started = Instant::now();
        let tx = connection.transaction().unwrap();
        index.insert(&tx, &rows).unwrap();
        tx.commit().unwrap();
        slowest = slowest.max(started.elapsed().as_millis());
        let million = end / 1_000_000 * 1_000_000;
        if end > total || (first < million && end >= million) {
            let now = io("write_bytes");
            let count = (end - 1) % 1_000_000;
            let count = if count < COMMIT_CHUNKS { 1_000_000 } else { count };
            let each = (now - written) / count;
            println!("| {} | {each} | {slowest} | {} |", end - 1, anonymous_mib());
            (written, slowest) = (now, 0);
        }
    }
}

fn look_up(connection: &Connection, index: &ChunkIndex, total: u64, first: u64, what: &str) {
    let (read, started) = (io("read_bytes"), Instant::now());
    for n in 0..LOOK_UPS {
        let name = first + n.wrapping_mul(2_654_435_761) % total;
        let found = index.look_up(connection, &[row_of(name).id]).unwrap();
        assert_eq!(found[0].is_some(), first == 1, "{name}");
    }
    let micros = started.elapsed().as_micros() / u128::from(LOOK_UPS);
    let tenths = (io("read_bytes") - read) * 10 / 4096 / LOOK_UPS;
    println!("| {what} | {micros} | {}.{} |", tenths / 10, tenths % 10);
}

fn row_of(number: u64) -> ChunkRow {
    let id = ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes());
    let pack = u32::try_from(number / 10_000 % 100_000).unwrap();
    let location = Location { pack, offset: number % 10_000 * 26_000, stored_len: 26_000 };
    ChunkRow {
        number,
        id,
        location,
        raw_len: 65_000,
        sum: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

fn io(what: &str) -> u64 {
    field("/proc/self/io", what)
}

fn anonymous_mib() -> u64 {
    field("/proc/self/status", "RssAnon") / 1024
}

fn field(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn drop_caches() {
    // Not as root: then the figures called cold are warm, which the pages read tell.
    let _only_root_can = fs::write("/proc/sys/vm/drop_caches", "3");
}
