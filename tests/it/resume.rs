//! Pushes that are interrupted go on where they were.

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::fixture::larder::TestBox;
use crate::fixture::nix::NixStore;
use crate::fixture::served::assert_served;

pub(crate) const BIG_BYTES: u64 = 200 << 20;
/// When enough has arrived to cut in.
pub(crate) const ARRIVED_BYTES: u64 = 60 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Bytes in the packs of a box.
fn pack_bytes(larder: &TestBox) -> u64 {
    let packs = fs::read_dir(larder.data().join("packs")).unwrap();
    packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum()
}

/// Waits until a good part of the push has arrived, and not all of it.
pub(crate) fn wait_for_a_part(larder: &TestBox, push: &mut Child) {
    let started = Instant::now();
    while pack_bytes(larder) < ARRIVED_BYTES {
        assert!(push.try_wait().unwrap().is_none(), "the push ended early");
        assert!(started.elapsed() < PATIENCE, "{} bytes arrived", pack_bytes(larder));
        // The pace of looking; the moment is when the bytes are there.
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_push_goes_on_when_the_box_was_killed_and_came_back() {
    let nix = NixStore::new();
    let big = nix.big_path("resume", BIG_BYTES);
    let mut larder = TestBox::start();
    let mut push = larder.command(["push", "main", "--json", &big.to_absolute()]);
    let push = push.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut push = push.spawn().unwrap();
    wait_for_a_part(&larder, &mut push);

    larder.restart_in_place();

    let started = Instant::now();
    let ended = push.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{}", larder.log());
    assert!(said.contains("try 1 in"), "{said}");
    assert!(started.elapsed() < PATIENCE, "it took {:?}", started.elapsed());
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((&report["stored"], &report["failed"]), (&1.into(), &0.into()), "{report}");
    let sent = report["sent_bytes"].as_u64().unwrap();
    assert!(sent < BIG_BYTES + BIG_BYTES / 2, "{sent} bytes were sent; {said}");
    assert_served(&larder, &nix, &big);
}

#[test]
fn a_push_that_was_killed_does_not_send_again_what_arrived() {
    let nix = NixStore::new();
    let big = nix.big_path("again", BIG_BYTES);
    let larder = TestBox::start();
    let mut push = larder.command(["push", "main", &big.to_absolute()]);
    let mut push = push.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for_a_part(&larder, &mut push);
    push.kill().unwrap();
    push.wait().unwrap();

    let report = larder.push("main", &[big.to_absolute()]);

    assert_eq!(report["stored"], 1, "{report}");
    let sent = report["sent_bytes"].as_u64().unwrap();
    assert!(sent < BIG_BYTES - ARRIVED_BYTES / 2, "{sent} bytes were sent again");
    assert_served(&larder, &nix, &big);
}
