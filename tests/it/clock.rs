//! A wall clock that is wrong deletes nothing.

use std::path::Path;

use serde_json::Value;

use crate::fixture::faketime;
use crate::fixture::larder::{Start, TestBox};
use crate::fixture::nix::NixStore;
use crate::fixture::served::assert_served;

const DAY_SECONDS: u64 = 86_400;

fn clock(larder: &TestBox) -> Value {
    larder.json(["status"])["clock"].clone()
}

fn shown(larder: &TestBox) -> String {
    String::from_utf8(larder.run(["status"]).stdout).unwrap()
}

/// The state of each key of `main`, newest first.
fn keys(larder: &TestBox) -> Vec<String> {
    let keys = larder.json(["cache", "key", "list", "main"]);
    let states = keys["keys"].as_array().unwrap().iter();
    states.map(|key| key["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_box_in_1970_or_2100_takes_nothing_away() {
    let Some(library) = faketime::library() else { return };
    let nix = NixStore::new();
    let graph = nix.build_graph("clock");
    let mut larder = TestBox::start();
    larder.push("main", &[graph.top.to_absolute()]);
    larder.json(["cache", "rotate-key", "main"]);
    assert_eq!(clock(&larder)["trusted"], true);
    assert!(!shown(&larder).contains("CLOCK"));

    for time in ["@1970-01-02 00:00:00", "@2100-01-01 00:00:00"] {
        larder.restart_with(faketime::variables(&library, time));
        let told = clock(&larder);
        assert_eq!(told["trusted"], false, "{time}: {told}");
        assert!(told["problem"].as_str().unwrap().contains("cannot be right"), "{told}");
        let is_said = |line: &str| line.starts_with("CLOCK ") && line.contains(" paused at ");
        assert!(shown(&larder).lines().any(is_said), "{}", shown(&larder));
        assert!(larder.log().contains("the clock cannot be right"), "{}", larder.log());
        assert_eq!(keys(&larder), ["signs", "overlap"], "{time}");
        for path in &graph.closure {
            assert_served(&larder, &nix, path);
        }
    }
    // Back where it was nothing has to be waited for.
    larder.restart_with(Vec::new());
    assert_eq!(clock(&larder)["trusted"], true);
}

#[test]
fn a_jump_pauses_also_across_restarts() {
    let Some(library) = faketime::library() else { return };
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        // What this machine says of its own clock would be said of the faked one too.
        println!("skipped, as the clock here is synchronised by systemd");
        return;
    }
    let mut larder = TestBox::start();
    larder.restart_with(faketime::variables(&library, "+40d"));
    let told = clock(&larder);
    assert_eq!(told["trusted"], false, "{told}");
    assert!(told["pause_left"].as_u64().unwrap() > DAY_SECONDS - 600, "{told}");
    assert!(larder.log().contains("jumped by more than a day"), "{}", larder.log());
    // Killed, it has written it down already or sees it again.
    larder.restart();
    assert_eq!(clock(&larder)["trusted"], false);
    larder.restart_with(faketime::variables(&library, "-40d"));
    assert_eq!(clock(&larder)["trusted"], false);
    assert!(shown(&larder).contains("waits until the box has run for a day"), "{}", shown(&larder));
}

#[test]
fn a_box_that_begins_in_1970_trusts_its_clock_when_it_is_set() {
    let Some(library) = faketime::library() else { return };
    let early = faketime::variables(&library, "@1970-01-02 00:00:00");
    let mut larder = TestBox::start_as(Start { variables: early, ..Start::default() });
    assert_eq!(clock(&larder)["trusted"], false);
    larder.restart_with(Vec::new());
    assert_eq!(clock(&larder)["trusted"], true);
}
