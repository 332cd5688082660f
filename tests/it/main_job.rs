//! The main job end to end: real store paths pushed to a box, substituted by another Nix.

use std::process::Stdio;

use crate::fixture::larder::TestBox;
use crate::fixture::nix::{NixStore, SecondStore};
use crate::fixture::served::{assert_served, narinfo};

/// More than fits into any buffer on the way.
const BIG_BYTES: u64 = (1 << 30) + (50 << 20);

#[test]
fn a_closure_is_pushed_from_a_pipe_and_substituted_with_signatures_required() {
    let nix = NixStore::new();
    let graph = nix.build_graph("main-job");
    let larder = TestBox::start();

    // As a person types it: `nix-build … | larder push main`.
    let mut build = nix.command("nix-build");
    let mut build = build
        .args(["--no-out-link", "-E", &graph.expression])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdin = build.stdout.take().unwrap();
    let push = larder.command(["push", "main"]).stdin(stdin).output().unwrap();
    assert!(build.wait().unwrap().success());
    let told = String::from_utf8_lossy(&push.stderr) + String::from_utf8_lossy(&push.stdout);
    assert!(push.status.success(), "{told}");
    assert!(told.contains("stored 5, known 0, hidden 0"), "{told}");

    for url in [larder.url("main"), larder.url("")] {
        SecondStore::new(&url, &larder.public_key).substitute_whole(&graph.top, &graph.closure);
    }
}

#[test]
fn a_key_that_is_not_trusted_is_not_believed() {
    let nix = NixStore::new();
    let graph = nix.build_graph("other-key");
    let (larder, other) = (TestBox::start(), TestBox::start());
    larder.push("main", &[graph.top.to_absolute()]);

    let second = SecondStore::new(&larder.url("main"), &other.public_key);
    let refused = second.substitute(&graph.top);

    assert!(!refused.status.success());
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&graph.top, &graph.closure);
}

#[test]
fn what_is_known_is_not_sent_again() {
    let nix = NixStore::new();
    let graph = nix.build_graph("known");
    let larder = TestBox::start();

    let first = larder.push("main", &[graph.top.to_absolute()]);
    let again = larder.push("main", &[graph.top.to_absolute()]);

    assert_eq!((&first["stored"], &first["known"]), (&5.into(), &0.into()), "{first}");
    assert_eq!((&again["stored"], &again["known"]), (&0.into(), &5.into()), "{again}");
    let sent = |push: &serde_json::Value| push["sent_bytes"].as_u64().unwrap();
    assert!(sent(&again) < sent(&first), "{first} {again}");
}

#[test]
fn a_result_link_is_pushed_and_a_dry_run_sends_nothing() {
    let nix = NixStore::new();
    let graph = nix.build_graph("result");
    let larder = TestBox::start();
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("result");
    std::os::unix::fs::symlink(graph.top.to_absolute(), &link).unwrap();

    let dry = larder.command(["push", "main", "--dry-run", "./result"]);
    let dry = { dry }.current_dir(folder.path()).output().unwrap();
    assert!(dry.status.success(), "{}", String::from_utf8_lossy(&dry.stderr));
    let told = String::from_utf8(dry.stdout).unwrap();
    assert!(graph.closure.iter().all(|path| told.contains(path.base_name())), "{told}");
    assert_eq!(narinfo(&larder, "main", &graph.top), None);

    let push = larder.command(["push", "main", "./result"]);
    let push = { push }.current_dir(folder.path()).output().unwrap();
    assert!(push.status.success(), "{}", String::from_utf8_lossy(&push.stderr));
    assert_served(&larder, &nix, &graph.top);
}

#[test]
fn many_tiny_paths_are_pushed_and_served() {
    let nix = NixStore::new();
    let paths = nix.many_tiny("many", 300);
    let larder = TestBox::start();

    let absolute: Vec<_> = paths.iter().map(|path| path.to_absolute()).collect();
    let push = larder.push("main", &absolute);

    assert_eq!(push["stored"], 300, "{push}");
    for path in paths.iter().step_by(50) {
        assert_served(&larder, &nix, path);
    }
}

#[test]
fn a_path_of_more_than_a_gigabyte_travels_in_little_memory() {
    let nix = NixStore::new();
    let big = nix.big_path("memory", BIG_BYTES);
    let larder = TestBox::start();
    let mut push = larder.command(["push", "main", &big.to_absolute()]);
    let mut push = push.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();

    let (mut client_kib, mut box_kib) = (0, 0);
    let status = loop {
        client_kib = client_kib.max(crate::fixture::larder::rss_anon_kib(push.id()).unwrap_or(0));
        box_kib = box_kib.max(larder.rss_anon_kib());
        if let Some(status) = push.try_wait().unwrap() {
            break status;
        }
        // The pace of the samples; nothing waits for it.
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(status.success(), "{}", larder.log());

    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&big, std::slice::from_ref(&big));
    box_kib = box_kib.max(larder.rss_anon_kib());
    println!("anonymous memory at its peak: box {box_kib} KiB, client {client_kib} KiB");
    assert!(box_kib < 64 << 10, "the box took {box_kib} KiB");
    assert!(client_kib < 128 << 10, "the client took {client_kib} KiB");
}
