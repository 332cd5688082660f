//! Retention and quotas, through the command: what is refused, what leaves, and what is shown.

use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use larder::formats::StorePath;
use serde_json::Value;

use crate::fixture::larder::{Start, TestBox};
use crate::fixture::nix::NixStore;
use crate::fixture::served::get;

const MIB: u64 = 1 << 20;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn is_there(larder: &TestBox, path: &StorePath) -> bool {
    get(&larder.url(&format!("main/{}.narinfo", path.hash()))).is_some()
}

fn wait_until_gone(larder: &TestBox, path: &StorePath) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while is_there(larder, path) {
        assert!(Instant::now() < deadline, "{path} has not left");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_quota_below_what_is_stored_asks_for_force_and_then_the_oldest_leaves() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let paths: Vec<_> = (0..3).map(|it| nix.big_path(&format!("quota{it}"), 2 * MIB)).collect();
    for path in &paths {
        larder.push("main", &[path.to_absolute()]);
    }
    let refused = larder.run(["cache", "set", "main", "--quota", "5 MiB"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("--force"), "{}", said(&refused));
    assert_eq!(larder.json(["cache", "show", "main"])["quota_bytes"], Value::Null);

    let set = larder.json(["cache", "set", "main", "--quota", "5 MiB", "--force"]);
    assert_eq!(set["quota_bytes"], 5 * MIB);
    assert!(set["stored_bytes"].as_u64().unwrap() > 6 * MIB, "{set}");
    let shown = said(&larder.run(["cache", "show", "main"]));
    assert!(shown.contains("BEYOND its quota of 5.0 MiB"), "{shown}");
    let told = larder.json(["gc", "--dry-run"]);
    assert_eq!((&told["paths_count"], &told["paths"][0]["reason"]), (&1.into(), &"quota".into()));
    let done = said(&larder.run(["gc"]));
    assert!(done.contains("the cache is beyond its quota\n1 path left; "), "{done}");

    assert!(!is_there(&larder, &paths[0]));
    assert!(is_there(&larder, &paths[1]) && is_there(&larder, &paths[2]));
    let shown = said(&larder.run(["cache", "show", "main"]));
    assert!(shown.contains(" of a quota of 5.0 MiB"), "{shown}");
    // Nobody has to ask: what is pushed makes older paths leave.
    larder.push("main", &[paths[0].to_absolute()]);
    wait_until_gone(&larder, &paths[1]);
    assert!(is_there(&larder, &paths[0]) && is_there(&larder, &paths[2]));

    let off = larder.json(["cache", "set", "main", "--quota", "none"]);
    assert_eq!(off["quota_bytes"], Value::Null);
}

#[test]
fn limits_that_cannot_be_are_refused_and_change_nothing() {
    let larder = TestBox::start();
    for (option, value, expected) in [
        ("--retention", "0", "1 to 3650 days"),
        ("--retention", "3651", "1 to 3650 days"),
        ("--quota", "0", "at least one byte"),
    ] {
        for command in [["set", "main"], ["create", "other"]] {
            let [verb, name] = command;
            let refused = larder.run(["cache", verb, name, option, value]);
            assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
            assert!(said(&refused).contains(expected), "{}", said(&refused));
        }
    }
    for (option, value) in [("--retention", "soon"), ("--quota", "much"), ("--retention", "-1")] {
        let refused = larder.run(["cache", "set", "main", &format!("{option}={value}")]);
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    }
    let shown = larder.json(["cache", "show", "main"]);
    assert_eq!((&shown["retention_days"], &shown["quota_bytes"]), (&Value::Null, &Value::Null));
    assert!(!larder.run(["cache", "show", "other"]).status.success());
}

#[test]
fn limits_are_given_with_a_cache_shown_and_taken_away() {
    let settings = Some("[store]\nquota = \"40 GiB\"\n".to_owned());
    let larder = TestBox::start_as(Start { settings, ..Start::default() });
    larder.create_cache("ci", &["--retention", "14", "--quota", "10 GiB"]);
    let shown = said(&larder.run(["cache", "show", "ci"]));
    assert!(shown.contains("0 B of a quota of 10.0 GiB"), "{shown}");
    assert!(shown.contains("paths leave that nobody has read for 14 days"), "{shown}");
    assert_eq!(larder.json(["status"])["space"]["quota_bytes"], 40_u64 << 30);
    let status = said(&larder.run(["status"]));
    assert!(status.contains("0 B of 40.0 GiB"), "{status}");
    // Other changes leave them as they are.
    let set = larder.json(["cache", "set", "ci", "--priority", "20"]);
    assert_eq!((&set["retention_days"], &set["quota_bytes"]), (&14.into(), &(10_u64 << 30).into()));
    let set = larder.json(["cache", "set", "ci", "--retention", "none"]);
    assert_eq!(
        (&set["retention_days"], &set["quota_bytes"]),
        (&Value::Null, &(10_u64 << 30).into())
    );
}
