//! Caches as their owner makes, changes and deletes them with the command.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use larder::formats::NarInfo;
use larder::formats::signature::SecretKey;

use crate::fixture::larder::TestBox;
use crate::fixture::nix::{NixStore, SecondStore};
use crate::fixture::served::{get, narinfo};

const BIG_BYTES: u64 = 150 << 20;
/// When enough has arrived to cut in.
const ARRIVED_BYTES: u64 = 30 << 20;
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_name_that_cannot_be_is_refused_before_anything_happens() {
    let larder = TestBox::start();
    let long = "x".repeat(41);
    for (name, why) in [
        ("nar", "needs for itself"),
        ("api", "needs for itself"),
        ("realisations", "needs for itself"),
        ("build-trace-v2", "needs for itself"),
        ("metrics", "needs for itself"),
        (&long, "at most 40 characters; this has 41"),
        ("büro", "lower-case letters"),
        ("cache\u{301}", "lower-case letters"),
        ("маин", "lower-case letters"),
        ("Main", "lower-case letters"),
        ("a--b", "single hyphens"),
        ("a/b", "lower-case letters"),
        ("../x", "lower-case letters"),
        ("1a", "begins with a letter"),
    ] {
        let output = larder.run(["cache", "create", name]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(why), "{name}: {said}");
    }
    // Somebody who speaks to the box without the command hears the same.
    for name in ["nar", "büro", &long] {
        let body = serde_json::json!({"name": name}).to_string();
        let url = larder.url("api/larder/v1/caches");
        let post = ureq::post(url).header("Authorization", format!("Bearer {}", larder.token));
        let error = post.send(body).unwrap_err();
        assert!(matches!(error, ureq::Error::StatusCode(400)), "{name}: {error}");
    }
    assert_eq!(larder.json(["cache", "list"])["caches"].as_array().unwrap().len(), 1);
}

#[test]
fn a_cache_is_made_changed_and_shown() {
    let larder = TestBox::start();
    let key = SecretKey::from_seed("own-1", &[4; 32]).unwrap().public_key().to_string();
    let key = key.as_str();
    let made = larder.json([
        "cache",
        "create",
        "team",
        "--private",
        "--self-signed",
        "--public-key",
        key,
        "--root=0",
        "--priority",
        "20",
        "--description",
        "For us",
    ]);
    assert_eq!((&made["public"], &made["signing"]), (&false.into(), &"self-signed".into()));
    assert_eq!((&made["root_position"], &made["priority"]), (&0.into(), &20.into()));
    assert_eq!(made["public_keys"], serde_json::json!([key]));

    let set = larder.json(["cache", "set", "team", "--public", "--managed", "--no-root"]);
    assert_eq!((&set["public"], &set["signing"]), (&true.into(), &"managed".into()));
    assert_eq!(set["root_position"], serde_json::Value::Null);
    assert_eq!((&set["priority"], &set["description"]), (&20.into(), &"For us".into()));
    let keys: Vec<_> = set["public_keys"].as_array().unwrap().iter().collect();
    assert!(keys[0].as_str().unwrap().starts_with("team.test.local-1:"), "{set}");
    assert_eq!(keys[1], key, "its signatures are served as before");
    let info = String::from_utf8(get(&larder.url("team/nix-cache-info")).unwrap()).unwrap();
    assert!(info.contains("Priority: 20\n"), "{info}");
    assert_eq!(larder.json(["cache", "show", "team"])["priority"], 20);

    for (args, code) in [
        (&["cache", "set", "nowhere", "--public"][..], 3),
        (&["cache", "set", "team", "--priority", "3000000000"], 1),
        (&["cache", "create", "team"], 1),
        (&["cache", "create", "odd", "--self-signed", "--public-key", "odd-1:AAAA"], 2),
    ] {
        let output = larder.run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    }
}

#[test]
fn a_cache_does_not_become_self_signed_where_nobody_could_take_its_paths_then() {
    let nix = NixStore::new();
    let graph = nix.build_graph("self-signed");
    let larder = TestBox::start();
    larder.push("main", &[graph.top.to_absolute()]);
    let refused = larder.run(["cache", "set", "main", "--self-signed"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("5 of 5 paths"), "{said}");
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&graph.top, &graph.closure);

    larder.json(["cache", "set", "main", "--self-signed", "--force"]);
    let served = narinfo(&larder, "main", &graph.top).unwrap();
    assert!(served.info.signatures.is_empty());
}

#[test]
fn a_cache_is_deleted_only_if_that_is_meant_and_is_gone_after_a_rebuild_too() {
    let nix = NixStore::new();
    let path = nix.big_path("deleted", 100_000);
    let mut larder = TestBox::start();
    larder.create_cache("team", &["--private"]);
    larder.push("team", &[path.to_absolute()]);
    let token = larder.create_token(&["team:read"]);

    let asked = larder.run(["cache", "delete", "team"]);
    let said = String::from_utf8_lossy(&asked.stderr);
    assert_eq!(asked.status.code(), Some(2), "{said}");
    assert!(said.contains("1 paths that are served") && said.contains("--yes"), "{said}");
    assert_eq!(larder.json(["cache", "show", "team"])["paths_visible"], 1);

    let deleted = larder.json(["cache", "delete", "team", "--yes"]);
    assert_eq!(deleted["deleted"]["paths_visible"], 1, "{deleted}");
    assert_eq!(larder.run(["cache", "delete", "team", "--yes"]).status.code(), Some(3));
    let tokens = larder.json(["token", "list"]);
    let left = tokens["tokens"].as_array().unwrap().last().unwrap();
    assert_eq!((&left["personal"], &left["caches"]), (&false.into(), &serde_json::json!([])));

    larder.stop();
    let data = larder.data();
    let rebuild = ["fsck", "--rebuild-index", "--data", data.to_str().unwrap()];
    assert!(larder.run(rebuild).status.success());
    larder.restart();
    let names = larder.json(["cache", "list"]);
    assert_eq!(names["caches"].as_array().unwrap().len(), 1, "{names}");
    // A new one of that name is another one.
    larder.create_cache("team", &["--private"]);
    let url = larder.url("team/nix-cache-info");
    let bearer = format!("Bearer {token}");
    let error = ureq::get(url).header("Authorization", bearer).call().unwrap_err();
    assert!(matches!(error, ureq::Error::StatusCode(404)), "{error}");
}

#[test]
fn a_cache_that_is_read_and_pushed_to_can_go() {
    let nix = NixStore::new();
    let (old, new) = (nix.big_path("read", 40 << 20), nix.big_path("pushed", BIG_BYTES));
    let larder = TestBox::start();
    larder.create_cache("team", &[]);
    larder.push("team", &[old.to_absolute()]);
    let info = narinfo(&larder, "team", &old).unwrap();
    let mut reading = begin_to_read(&larder, &info);
    let before = pack_bytes(&larder);
    let mut push = larder.command(["push", "team", &new.to_absolute()]);
    let push = push.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut push = push.spawn().unwrap();
    let started = Instant::now();
    while pack_bytes(&larder) < before + ARRIVED_BYTES {
        assert!(push.try_wait().unwrap().is_none(), "the push ended early");
        assert!(started.elapsed() < PATIENCE);
        // The pace of looking; the moment is when the bytes are there.
        thread::sleep(Duration::from_millis(2));
    }
    signal(push.id(), "-STOP");

    larder.json(["cache", "delete", "team", "--yes"]);

    signal(push.id(), "-CONT");
    let push = push.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&push.stderr);
    assert!(!push.status.success() && said.contains("deleted"), "{:?} {said}", push.status);
    let mut rest = Vec::new();
    reading.read_to_end(&mut rest).unwrap();
    let size = usize::try_from(info.file_size.unwrap()).unwrap();
    assert!(rest.len() > size - (1 << 10), "{} of {size} bytes came", rest.len());
    assert!(!larder.log().contains("ERROR"), "{}", larder.log());
    larder.push("main", &[old.to_absolute()]);
}

/// Asks for a NAR and reads a little of it.
fn begin_to_read(larder: &TestBox, info: &NarInfo) -> TcpStream {
    let mut stream = TcpStream::connect(larder.http).unwrap();
    let request =
        format!("GET /team/{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", info.url);
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 600]).unwrap();
    stream
}

fn signal(process: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

/// Bytes in the packs of a box.
fn pack_bytes(larder: &TestBox) -> u64 {
    let packs = fs::read_dir(larder.data().join("packs")).unwrap();
    packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum()
}
