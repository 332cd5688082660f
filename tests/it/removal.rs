//! `larder path`: what is known of a path, and taking one out, bytes and all.

use std::fs;
use std::path::Path;
use std::process::Output;

use larder::formats::StorePath;

use crate::fixture::larder::TestBox;
use crate::fixture::nix::{NixStore, SecondStore};
use crate::fixture::served::get;

fn narinfo(larder: &TestBox, path: &StorePath) -> Option<Vec<u8>> {
    get(&larder.url(&format!("main/{}.narinfo", path.hash())))
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether the bytes stand anywhere below a folder.
fn is_below(folder: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().map(Result::unwrap).any(|entry| {
        if entry.file_type().unwrap().is_dir() {
            return is_below(&entry.path(), bytes);
        }
        let contents = fs::read(entry.path()).unwrap();
        contents.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[test]
fn a_purged_path_is_gone_from_the_disk_and_comes_back_by_no_way() {
    let (nix, mut larder) = (NixStore::new(), TestBox::start());
    let kept = nix.build_graph("kept");
    let secret = nix.big_path("secret", 1 << 20);
    larder.push("main", &[kept.top.to_absolute(), secret.to_absolute()]);
    // What does not compress stands in its frame as it is.
    let bytes = fs::read(Path::new(&secret.to_absolute()).join("data")).unwrap();
    let bytes = &bytes[500_000..500_032];
    assert!(is_below(&larder.data(), bytes));

    let removed = larder.json(["path", "rm", "main", &secret.to_absolute(), "--purge"]);

    assert_eq!(removed["paths"], serde_json::json!([secret.to_absolute()]));
    assert!(removed["freed_bytes"].as_u64().unwrap() > 1_000_000, "{removed}");
    assert!(!is_below(&larder.data(), bytes));
    assert_eq!(narinfo(&larder, &secret), None);
    larder.kill();
    let data = larder.data().display().to_string();
    assert!(larder.run(["fsck", "--rebuild-index", "--data", &data]).status.success());
    larder.restart();
    assert_eq!(narinfo(&larder, &secret), None);
    assert_eq!(larder.json(["fsck"])["damaged"], serde_json::json!([]));
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&kept.top, &kept.closure);
    // Not even its own pusher is believed to have it: it has to be sent.
    larder.push("main", &[secret.to_absolute()]);
    second.substitute_whole(&secret, std::slice::from_ref(&secret));
}

#[test]
fn what_somebody_sent_who_may_not_read_it_is_purged_too() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    larder.create_cache("team", &["--private"]);
    // Who may write and not read is remembered for a day as the one who sent it.
    let writer = larder.create_token(&["team:write"]);
    let secret = nix.big_path("secret", 1 << 20);
    let mut push = larder.command(["push", "team", &secret.to_absolute()]);
    let pushed = push.env("LARDER_AUTH_TOKEN", writer).output().unwrap();
    assert!(pushed.status.success(), "{}", error(&pushed));
    let bytes = fs::read(Path::new(&secret.to_absolute()).join("data")).unwrap();
    assert!(is_below(&larder.data(), &bytes[500_000..500_032]));
    larder.json(["path", "rm", "team", &secret.to_absolute(), "--purge"]);
    assert!(!is_below(&larder.data(), &bytes[500_000..500_032]));
}

#[test]
fn what_another_cache_has_too_is_left_to_it() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let key = larder.create_cache("ci", &[]);
    let path = nix.big_path("both", 1 << 20);
    larder.push("main", &[path.to_absolute()]);
    larder.push("ci", &[path.to_absolute()]);
    let removed = larder.run(["path", "rm", "main", &path.hash().to_string(), "--purge"]);
    let said = String::from_utf8_lossy(&removed.stdout).into_owned();
    assert!(said.contains("removed 1 path; 0 B became free"), "{said}{}", error(&removed));
    assert_eq!(narinfo(&larder, &path), None);
    let second = SecondStore::new(&larder.url("ci"), &key);
    second.substitute_whole(&path, std::slice::from_ref(&path));
}

#[test]
fn what_others_refer_to_stays_unless_they_go_too() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let graph = nix.build_graph("graph");
    larder.push("main", &[graph.top.to_absolute()]);
    let leaf = graph.closure[0].to_absolute();
    let shown = larder.json(["path", "show", "main", &leaf]);
    assert_eq!((&shown["path"], &shown["visible"]), (&leaf.as_str().into(), &true.into()));
    assert_eq!(shown["missing"], serde_json::json!([]));
    assert!(!shown["signatures"].as_array().unwrap().is_empty(), "{shown}");
    assert_eq!(shown["push"]["token"], 1);
    let text = larder.run(["path", "show", "main", graph.top.base_name()]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("served") && text.contains("pushed"), "{text}");

    let refused = larder.run(["path", "rm", "main", &leaf]);
    assert_eq!(refused.status.code(), Some(1), "{}", error(&refused));
    let said = error(&refused);
    assert!(
        said.contains("4 of the cache's paths refer to it") && said.contains("--with-ref"),
        "{said}"
    );
    assert!(narinfo(&larder, &graph.closure[0]).is_some());

    larder.json(["pin", "main", "release", &graph.top.to_absolute()]);
    for path in [&leaf, &graph.top.to_absolute()] {
        let refused = larder.run(["path", "rm", "main", path, "--with-referrers"]);
        assert!(error(&refused).contains("is pinned;"), "{}", error(&refused));
    }
    assert!(larder.run(["pin", "remove", "main", "release"]).status.success());

    let removed = larder.json(["path", "rm", "main", &leaf, "--with-referrers"]);
    assert_eq!(removed["paths"].as_array().unwrap().len(), 5, "{removed}");
    assert_eq!(removed["paths"][4], leaf.as_str(), "referrers come first");
    assert!(graph.closure.iter().all(|path| narinfo(&larder, path).is_none()));
    larder.push("main", &[graph.top.to_absolute()]);
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&graph.top, &graph.closure);
}

#[test]
fn bad_input_is_refused_and_nothing_goes() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let path = nix.build_script("kept", "echo kept > $out");
    larder.push("main", &[path.to_absolute()]);
    let absent = format!("/nix/store/{}-absent", "0".repeat(32));
    for (line, code, sentence) in [
        (["path", "show", "main", &absent], 3, "does not have that path"),
        (["path", "rm", "main", &absent], 3, "does not have that path"),
        (["path", "rm", "other", &absent], 3, "there is no cache called 'other'"),
        (["path", "rm", "main", "hello"], 2, "is no store path"),
    ] {
        let refused = larder.run(line);
        assert_eq!(refused.status.code(), Some(code), "{line:?}: {}", error(&refused));
        assert!(error(&refused).contains(sentence), "{line:?}: {}", error(&refused));
    }
    let writer = larder.create_token(&["main:readwrite"]);
    let mut command = larder.command(["path", "rm", "main", &path.to_absolute()]);
    let refused = command.env("LARDER_AUTH_TOKEN", writer).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", error(&refused));
    assert!(narinfo(&larder, &path).is_some());
}
