//! `larder gc`: what nobody needs goes, what is needed is served to Nix, and a full disk is said.

use std::fs;
use std::process::{Output, Stdio};
use std::thread;
use std::time::Duration;

use larder::formats::StorePath;

use crate::fixture::larder::{Start, TestBox};
use crate::fixture::nix::{NixStore, SecondStore};
use crate::fixture::served::get;

const MIB: u64 = 1 << 20;

/// A box whose packs are as small as they may be.
fn small_packs(more: &str) -> Start {
    let settings = Some(format!("[store]\npack_size = \"16 MiB\"\n{more}"));
    Start { settings, ..Start::default() }
}

fn narinfo(larder: &TestBox, path: &StorePath) -> Option<Vec<u8>> {
    get(&larder.url(&format!("main/{}.narinfo", path.hash())))
}

fn pack_bytes(larder: &TestBox) -> u64 {
    let packs = fs::read_dir(larder.data().join("packs")).unwrap();
    packs.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// More than any disk has: everything that may leave does.
const EVERYTHING: &str = "1 EiB";

#[test]
fn what_was_used_longest_ago_is_first_to_leave_and_the_rest_is_served_to_nix() {
    let (nix, mut larder) = (NixStore::new(), TestBox::start_as(small_packs("")));
    let ci = larder.create_cache("ci", &[]);
    let graph = nix.build_graph("kept");
    let old: Vec<_> = (0..3).map(|it| nix.big_path(&format!("old{it}"), 12 * MIB)).collect();
    let read = nix.big_path("read", 12 * MIB);
    larder.push("main", &[graph.top.to_absolute()]);
    larder.push("ci", &[read.to_absolute()]);
    for path in &old {
        larder.push("ci", &[path.to_absolute()]);
    }
    // Reading is what counts, of the narinfo too.
    let in_ci = |path: &StorePath| larder.url(&format!("ci/{}.narinfo", path.hash()));
    assert!(get(&in_ci(&read)).is_some());
    let before = pack_bytes(&larder);

    let told = larder.json(["gc", "--dry-run", "--cache", "ci", "--target-free", EVERYTHING]);
    let order: Vec<_> =
        told["paths"].as_array().unwrap().iter().map(|it| it["path"].as_str().unwrap()).collect();
    let expected: Vec<_> = old.iter().chain([&read]).map(StorePath::to_absolute).collect();
    assert_eq!(order, expected);
    assert!(told["freed_bytes"].as_u64().unwrap() > 48 * MIB, "{told}");
    assert!(get(&in_ci(&old[0])).is_some(), "a dry run takes nothing");
    let done = larder.json(["gc", "--cache", "ci", "--target-free", EVERYTHING]);

    assert_eq!(done["paths_count"], 4);
    assert!(old.iter().chain([&read]).all(|path| get(&in_ci(path)).is_none()));
    let freed = before - pack_bytes(&larder);
    assert!(freed > 40 * MIB, "{freed} of {before}; {done}");
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&graph.top, &graph.closure);

    // Neither a kill nor a new index brings anything back, and what left can come again.
    larder.kill();
    let data = larder.data().display().to_string();
    assert!(larder.run(["fsck", "--rebuild-index", "--data", &data]).status.success());
    larder.restart_in_place();
    let in_ci = |path: &StorePath| larder.url(&format!("ci/{}.narinfo", path.hash()));
    assert!(old.iter().all(|path| get(&in_ci(path)).is_none()));
    assert_eq!(larder.json(["fsck"])["damaged"], serde_json::json!([]));
    larder.push("ci", &[old[0].to_absolute()]);
    let second = SecondStore::new(&larder.url("ci"), &ci);
    second.substitute_whole(&old[0], std::slice::from_ref(&old[0]));
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&graph.top, &graph.closure);
}

#[test]
fn the_room_of_a_deleted_cache_is_given_back() {
    let (nix, larder) = (NixStore::new(), TestBox::start_as(small_packs("")));
    larder.create_cache("gone", &["--private"]);
    let secret = nix.big_path("secret", 20 * MIB);
    let kept = nix.build_script("kept", "echo kept > $out");
    larder.push("gone", &[secret.to_absolute()]);
    larder.push("main", &[kept.to_absolute()]);
    assert!(larder.run(["cache", "delete", "gone", "--yes"]).status.success());
    // The pack that is written to stays as it is where there is room.
    let full = nix.big_path("more", 20 * MIB);
    larder.push("main", &[full.to_absolute()]);
    let before = pack_bytes(&larder);
    let text = larder.run(["gc"]);
    let said = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(said.starts_with("0 paths left; ") && said.contains(" became free in "), "{said}");
    assert!(before - pack_bytes(&larder) > 8 * MIB, "{said}");
    for path in [&kept, &full] {
        let second = SecondStore::new(&larder.url("main"), &larder.public_key);
        second.substitute_whole(path, std::slice::from_ref(path));
    }
}

#[test]
fn a_kill_at_any_step_of_a_collection_loses_nothing() {
    let (nix, mut larder) = (NixStore::new(), TestBox::start_as(small_packs("")));
    let ci = larder.create_cache("ci", &[]);
    let graph = nix.build_graph("kept");
    larder.push("main", &[graph.top.to_absolute()]);
    let mut acknowledged = Vec::new();
    for round in 0..6_u32 {
        let paths: Vec<_> =
            (0..3).map(|it| nix.big_path(&format!("r{round}x{it}"), 7 * MIB)).collect();
        // Beside each other, so that what stays has to be moved.
        for (cache, path) in ["main", "ci", "ci"].iter().zip(&paths) {
            larder.push(cache, &[path.to_absolute()]);
        }
        acknowledged.push(paths[0].clone());
        let mut collection = larder
            .command(["gc", "--cache", "ci", "--target-free", EVERYTHING])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Now early, now late: an instant is what is wanted, not a wait for something.
        thread::sleep(Duration::from_millis(u64::from(15 * round * round)));
        larder.kill();
        collection.kill().unwrap();
        collection.wait().unwrap();
        larder.restart_in_place();
        assert_eq!(larder.json(["fsck"])["damaged"], serde_json::json!([]), "round {round}");
        for path in graph.closure.iter().chain(&acknowledged) {
            assert!(narinfo(&larder, path).is_some(), "round {round}: {path:?}");
        }
        // What may leave is there whole or not at all.
        let second = SecondStore::new(&larder.url("ci"), &ci);
        for path in &paths[1..] {
            if get(&larder.url(&format!("ci/{}.narinfo", path.hash()))).is_some() {
                second.substitute_whole(path, std::slice::from_ref(path));
            }
        }
    }
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&graph.top, &graph.closure);
    for path in &acknowledged {
        second.substitute_whole(path, std::slice::from_ref(path));
    }
}

#[test]
fn a_push_that_finds_no_room_is_refused_with_figures_and_reading_goes_on() {
    let (nix, mut larder) = (NixStore::new(), TestBox::start());
    let kept = nix.build_script("kept", "echo kept > $out");
    let (big, small) = (nix.big_path("big", 3 * MIB), nix.build_script("small", "echo x > $out"));
    larder.push("main", &[kept.to_absolute()]);
    larder.stop();
    larder.set_settings("[store]\nmin_free = \"1 EiB\"");
    larder.restart();
    let status = larder.run(["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("FULL: pushes are refused"), "{said}");
    // Even what is there leaves, for room is what the owner wants most.
    for path in [&big, &small] {
        let refused = larder.run(["push", "main", &path.to_absolute()]);
        assert_eq!(refused.status.code(), Some(8), "{}", error(&refused));
        assert!(error(&refused).contains("there is no room for"), "{}", error(&refused));
    }
    assert!(get(&larder.url("main/nix-cache-info")).is_some());
    larder.stop();
    larder.set_settings("");
    larder.restart();
    for path in [&big, &small, &kept] {
        larder.push("main", &[path.to_absolute()]);
        let second = SecondStore::new(&larder.url("main"), &larder.public_key);
        second.substitute_whole(path, std::slice::from_ref(path));
    }
}

#[test]
fn bad_input_is_refused_and_nothing_leaves() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let kept = nix.build_script("kept", "echo kept > $out");
    larder.push("main", &[kept.to_absolute()]);
    let refused = larder.run(["gc", "--cache", "other", "--target-free", "1 EiB"]);
    assert_eq!(refused.status.code(), Some(3), "{}", error(&refused));
    assert!(error(&refused).contains("there is no cache called 'other'"), "{}", error(&refused));
    let reader = larder.create_token(&["main:readwrite"]);
    let mut command = larder.command(["gc", "--target-free", "1 EiB"]);
    let refused = command.env("LARDER_AUTH_TOKEN", reader).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", error(&refused));
    assert_eq!(larder.run(["gc", "--target-free", "lots"]).status.code(), Some(2));
    assert!(narinfo(&larder, &kept).is_some());
    // Another cache is left alone, and so is what is pinned.
    larder.create_cache("ci", &[]);
    larder.push("ci", &[kept.to_absolute()]);
    larder.json(["pin", "ci", "release", &kept.to_absolute()]);
    let done = larder.json(["gc", "--cache", "ci", "--target-free", "1 EiB"]);
    assert_eq!(done["paths_count"], 0, "{done}");
    assert!(larder.run(["pin", "remove", "ci", "release"]).status.success());
    let done = larder.json(["gc", "--cache", "ci", "--target-free", "1 EiB"]);
    assert_eq!(done["paths_count"], 1, "{done}");
    assert!(narinfo(&larder, &kept).is_some(), "it left with the other cache's");
}
