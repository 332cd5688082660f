//! A box that is killed at a random moment of a push has everything that it acknowledged.
//!
//! `LARDER_KILLS` (50) and `LARDER_SEED` (random, printed) choose how often and when.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use larder::formats::StorePath;

use crate::fixture::larder::TestBox;
use crate::fixture::nix::NixStore;
use crate::fixture::served::{assert_served, narinfo};

/// What retransmissions and acknowledgements may add to one push.
const SENT_NOISE_BYTES: u64 = 2 << 20;
/// Kills unless the environment says otherwise.
const KILLS: u64 = 50;

/// xorshift64*: enough to choose moments, and the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let roll = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        bound.mul_f64(f64::from(u32::try_from(roll >> 21).unwrap()) / f64::from(u32::MAX))
    }
}

fn number_from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// Paths of all sizes: a graph, tiny ones, and some that take many chunks.
fn paths_to_push(nix: &NixStore) -> Vec<StorePath> {
    let mut paths = nix.build_graph("kill").closure;
    paths.extend(nix.many_tiny("kill", 40));
    paths.extend((0..3).map(|number| nix.big_path(&format!("kill{number}"), 6 << 20)));
    paths
}

/// Pushes all paths and kills the box after `moment`; the paths that were acknowledged.
fn push_and_kill(larder: &mut TestBox, paths: &[StorePath], moment: Duration) -> Vec<StorePath> {
    let absolute = paths.iter().map(StorePath::to_absolute);
    let mut push = larder.command(["push", "main", "-v"]);
    let mut push = push
        .args(absolute)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(push.stderr.take().unwrap());
    let reader = thread::spawn(move || stderr.lines().map_while(Result::ok).collect::<Vec<_>>());
    let deadline = Instant::now() + moment;
    while push.try_wait().unwrap().is_none() && Instant::now() < deadline {
        // The moment is the test's to choose; nothing is waited for.
        thread::sleep(Duration::from_millis(1));
    }
    larder.kill();
    push.kill().unwrap();
    push.wait().unwrap();
    let lines = reader.join().unwrap();
    let acknowledged = |path: &&StorePath| {
        lines
            .iter()
            .any(|line| line.contains("acknowledged a path") && line.contains(path.base_name()))
    };
    paths.iter().filter(acknowledged).cloned().collect()
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let seed = number_from_environment("LARDER_SEED").unwrap_or_else(|| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        u64::from(now.subsec_nanos()) << 20 | u64::from(std::process::id())
    });
    let kills = number_from_environment("LARDER_KILLS").unwrap_or(KILLS);
    println!("LARDER_SEED={seed} LARDER_KILLS={kills}");
    let mut dice = Dice(seed | 1);
    let nix = NixStore::new();
    let paths = paths_to_push(&nix);
    let absolute: Vec<_> = paths.iter().map(StorePath::to_absolute).collect();

    let whole = TestBox::start();
    let started = Instant::now();
    let all = whole.push("main", &absolute);
    let (whole_time, whole_bytes) = (started.elapsed(), all["sent_bytes"].as_u64().unwrap());
    drop(whole);

    let mut acknowledged_in_all = 0;
    for kill in 1..=kills {
        let mut larder = TestBox::start();
        let moment = dice.below(whole_time);
        let acknowledged = push_and_kill(&mut larder, &paths, moment);
        acknowledged_in_all += acknowledged.len();

        larder.restart();
        let context = format!("kill {kill} after {moment:?}, LARDER_SEED={seed}");
        for path in &acknowledged {
            assert!(narinfo(&larder, "main", path).is_some(), "{path} is lost: {context}");
            assert_served(&larder, &nix, path);
        }
        let again = larder.push("main", &absolute);
        let known = again["known"].as_u64().unwrap();
        assert!(known >= u64::try_from(acknowledged.len()).unwrap(), "{again}: {context}");
        // Half of what was known, so that acknowledgements and repeats on the wire do not count.
        let spared = acknowledged.iter().map(|path| nix.nar_size(path)).sum::<u64>() / 2;
        let sent = again["sent_bytes"].as_u64().unwrap();
        assert!(spared < SENT_NOISE_BYTES || sent + spared < whole_bytes, "{again}: {context}");
        paths.iter().for_each(|path| assert_served(&larder, &nix, path));
    }
    println!("{kills} kills, {acknowledged_in_all} paths had been acknowledged");
    assert!(acknowledged_in_all > 0, "no kill came late enough to prove anything");
}

#[test]
fn an_index_that_is_deleted_is_made_again_from_the_packs() {
    let nix = NixStore::new();
    let paths = paths_to_push(&nix);
    let mut larder = TestBox::start();
    larder.push("main", &paths.iter().map(StorePath::to_absolute).collect::<Vec<_>>());
    larder.stop();

    let rebuild = ["fsck", "--rebuild-index", "--data"];
    let rebuilt = larder.command(rebuild).arg(larder.data()).output().unwrap();
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    larder.restart();
    paths.iter().for_each(|path| assert_served(&larder, &nix, path));
    larder.stop();

    // Without its keys and settings a cache comes back private; its paths are all there.
    for name in ["larder.db", "larder.db-wal", "larder.db-shm"] {
        let _not_all_are_there = std::fs::remove_file(larder.data().join(name));
    }
    let rebuilt = larder.command(rebuild).arg(larder.data()).arg("--json").output().unwrap();
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    let report: serde_json::Value = serde_json::from_slice(&rebuilt.stdout).unwrap();
    assert_eq!(report["paths"], paths.len(), "{report}");
}
