//! The command as somebody at a terminal meets it: Ctrl-C, narrow terminals, completions, no home.

use std::fs;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::fixture::laptop::told;
use crate::fixture::larder::{LARDER, TestBox, command};
use crate::fixture::nix::NixStore;
use crate::resume::{ARRIVED_BYTES, BIG_BYTES, wait_for_a_part};

#[test]
fn an_interrupted_push_says_so_and_the_next_one_sends_only_the_rest() {
    let nix = NixStore::new();
    let big = nix.big_path("interrupt", BIG_BYTES);
    let larder = TestBox::start();
    let mut push = larder.command(["push", "main", &big.to_absolute()]);
    let push = push.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut push = push.spawn().unwrap();
    wait_for_a_part(&larder, &mut push);
    let id = push.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let ended = push.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", told(&ended));
    assert!(told(&ended).contains("sends only the rest"), "{}", told(&ended));

    let report = larder.push("main", &[big.to_absolute()]);
    assert_eq!(report["stored"], 1, "{report}");
    let sent = report["sent_bytes"].as_u64().unwrap();
    assert!(sent < BIG_BYTES - ARRIVED_BYTES / 2, "{sent} bytes were sent again");
}

/// Pushes on a terminal of so many columns; what it drew there.
fn drawn(larder: &TestBox, path: &str, columns: u16) -> String {
    let push = larder.command(["push", "main", path]);
    let mut words = push.get_args().map(|word| word.to_str().unwrap());
    let line = format!(
        "stty rows 24 cols {columns}; {LARDER} {}",
        words.by_ref().collect::<Vec<_>>().join(" ")
    );
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).env_remove("CI");
    for (name, value) in push.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    let output = terminal.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Longest run of characters that are drawn in one line, without what moves and colours.
fn widest(drawn: &str) -> usize {
    let mut widths = Vec::new();
    for line in drawn.split(['\r', '\n']) {
        let mut parts = line.split('\u{1b}');
        let first = parts.next().unwrap_or_default().chars().count();
        let behind = parts.map(|part| {
            let end = part.find(|letter: char| letter.is_ascii_alphabetic()).map_or(0, |at| at + 1);
            part[end..].chars().count()
        });
        widths.push(first + behind.sum::<usize>());
    }
    widths.into_iter().max().unwrap_or(0)
}

#[test]
fn a_narrow_terminal_is_not_garbled() {
    let nix = NixStore::new();
    let larder = TestBox::start();
    for columns in [20_u16, 60, 100] {
        let path = nix.big_path(&format!("narrow{columns}"), 64 << 20).to_absolute();
        let drawn = drawn(&larder, &path, columns);
        assert!(drawn.contains("left"), "no bar: {drawn:?}");
        let (bar, summary) = drawn.split_at(drawn.rfind("stored").unwrap());
        assert!(widest(bar) <= usize::from(columns), "{columns}: {bar:?}");
        assert!(summary.contains("stored 1"), "{summary}");
    }
}

fn alone(folder: &TempDir, args: &[&str]) -> Output {
    command(folder.path(), args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn shells_take_the_completions_and_every_command_has_a_page() {
    let folder = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = alone(&folder, &["completions", shell]);
        assert!(script.status.success() && script.stdout.len() > 1000, "{shell}");
        assert!(String::from_utf8_lossy(&script.stdout).contains("sign-known"), "{shell}");
        fs::write(folder.path().join(shell), &script.stdout).unwrap();
    }
    let parsed = Command::new("bash").arg("-n").arg(folder.path().join("bash")).output().unwrap();
    assert!(parsed.status.success(), "{}", told(&parsed));

    assert!(alone(&folder, &["man", "pages"]).status.success());
    for page in ["larder", "larder-push", "larder-cache-create", "larder-use"] {
        let text = fs::read_to_string(folder.path().join(format!("pages/{page}.1"))).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH"), "{page}: {text}");
    }
    let printed = alone(&folder, &["man"]);
    assert!(String::from_utf8_lossy(&printed.stdout).contains(".TH larder"));
    fs::write(folder.path().join("file"), "").unwrap();
    let refused = alone(&folder, &["man", "file/below"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(told(&refused).contains("cannot write man pages to file/below"), "{}", told(&refused));
}

#[test]
fn a_cache_that_is_misspelt_is_guessed() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let path = nix.big_path("slip", 64).to_absolute();
    let said = larder.run(["push", "mian", &path]);
    assert_eq!(said.status.code(), Some(3), "{}", told(&said));
    assert!(told(&said).contains("did you mean 'main'?"), "{}", told(&said));
    let said = larder.run(["push", "zoo", &path]);
    assert!(told(&said).contains("may push to main"), "{}", told(&said));
}

#[test]
fn without_a_home_each_command_says_what_it_misses() {
    let folder = TempDir::new().unwrap();
    for args in
        [&["config", "list"][..], &["authtoken", "--stdin"], &["push", "main", "x"], &["status"]]
    {
        let mut command = command(folder.path(), args);
        let ended = command.env_remove("HOME").stdin(Stdio::null()).output().unwrap();
        assert!(matches!(ended.status.code(), Some(1 | 2)), "{args:?}: {}", told(&ended));
        let said = told(&ended);
        assert!(said.contains("HOME") || said.contains("no token"), "{args:?}: {said}");
    }
    // What needs none works without.
    for args in [&["version"][..], &["completions", "bash"], &["man"]] {
        let mut command = command(folder.path(), args);
        let ended = command.env_remove("HOME").stdin(Stdio::null()).output().unwrap();
        assert!(ended.status.success(), "{args:?}: {}", told(&ended));
    }
}

#[test]
fn a_variable_that_is_empty_says_nothing_and_a_wrong_one_is_named() {
    let folder = TempDir::new().unwrap();
    let version = |host: &str| {
        let mut command = command(folder.path(), ["version"]);
        command.env("LARDER_HOST", host).output().unwrap()
    };
    assert!(version("").status.success());
    let wrong = version("a b");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(told(&wrong).contains("LARDER_HOST: 'a b' is no host"), "{}", told(&wrong));
}
