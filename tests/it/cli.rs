//! The command as people and scripts meet it: help, exit codes, what it says when something is
//! wrong.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use larder::formats::StorePath;
use larder::wire::{DeviceId, TokenText};
use tempfile::TempDir;

use crate::fixture::ending::{assert_end, end_of, with_input};
use crate::fixture::larder::{TestBox, command};
use crate::fixture::nix::NixStore;
use crate::fixture::served::{assert_served, narinfo};

/// Runs a command without a box, in a home of its own.
fn alone(args: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    command(folder.path(), args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn help_is_grouped_by_who_uses_it() {
    let help = alone(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    for expected in ["On the box:\n  serve ", "On a user's machine:\n  discover ", "Exit codes: 0"]
    {
        assert!(text.contains(expected), "{expected:?}: {text}");
    }
    for command in ["serve", "cache", "token", "status", "fsck", "discover", "authtoken", "push"] {
        assert_eq!(alone(&[command, "--help"]).status.code(), Some(0), "{command}");
    }
    let version = alone(&["version"]);
    let expected = format!("larder {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(version.stdout).unwrap(), expected);
}

#[test]
fn a_wrong_command_line_ends_with_two() {
    for args in [
        &[][..],
        &["pusch"],
        &["push", "Main", "x"],
        &["push", "nar", "x"],
        &["cache", "create", "api"],
        &["--host", "a b", "status"],
        &["status", "--colour"],
        &["push", "main", "--compression-level", "99"],
        &["serve", "--listen", "5273"],
        &["serve", "--name", "build-box"],
        &["token", "create", "--expires", "soon"],
    ] {
        let (code, said) = end_of(&alone(args));
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(!said.is_empty(), "{args:?}");
    }
}

#[test]
fn a_key_that_means_nothing_in_the_configuration_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("client.toml");
    fs::write(&file, "# mine\nhots = \"office\"\n").unwrap();

    let by_option = command(folder.path(), ["status", "--config", "client.toml"]).output().unwrap();
    let mut by_variable = command(folder.path(), ["status"]);
    let by_variable = by_variable.env("LARDER_CONFIG", &file).output().unwrap();

    assert_end(&by_option, 2, &["client.toml, line 2:", "hots", "host"]);
    assert_end(&by_variable, 2, &["client.toml, line 2:", "hots", "host"]);
}

#[test]
fn without_a_token_nothing_is_asked() {
    let none = alone(&["--host", "127.0.0.1", "status"]);
    assert_end(&none, 4, &["larder: there is no token", "hint: ", "larder authtoken"]);

    let folder = TempDir::new().unwrap();
    for variable in ["LARDER_AUTH_TOKEN", "CACHIX_AUTH_TOKEN"] {
        let mut malformed = command(folder.path(), ["--host", "127.0.0.1", "status"]);
        let malformed = malformed.env(variable, "ldr_sesame").output().unwrap();
        assert_end(&malformed, 4, &[&format!("{variable} holds no token"), "ldr_ID_SECRET"]);
        assert!(!end_of(&malformed).1.contains("sesame"));
    }
}

#[test]
fn a_token_is_saved_for_its_owner_alone_and_used() {
    let larder = TestBox::start();
    let home = TempDir::new().unwrap();
    let quic = larder.quic.to_string();

    let args = ["authtoken", "--stdin", "--host", &quic];
    let saved = with_input(command(home.path(), args), format!("  {}\n", larder.token));
    assert_end(&saved, 0, &["saved the token for the box", &larder.device_id]);
    let file = home.path().join("home/.config/larder/client.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // The host was saved with it.
    let status = command(home.path(), ["status"]).output().unwrap();
    assert_end(&status, 0, &[]);
    let text = String::from_utf8(status.stdout).unwrap();
    assert!(text.contains(&larder.device_id) && text.contains("main"), "{text}");

    let secret = &larder.token[larder.token.len() - 20..];
    let cut_off = &larder.token[..larder.token.len() - 1];
    let malformed = command(home.path(), ["authtoken", cut_off]).output().unwrap();
    assert_end(&malformed, 2, &["no token", "larder token create"]);
    assert!(!end_of(&malformed).1.contains(&secret[..19]));
    assert_eq!(command(home.path(), ["status"]).output().unwrap().status.code(), Some(0));
}

#[test]
fn a_token_that_the_box_does_not_know_is_refused() {
    let larder = TestBox::start();
    let device_id: DeviceId = larder.device_id.parse().unwrap();
    let unknown = TokenText::new(device_id, [7; 32]).to_secret_text();

    let mut status = larder.command(["status"]);
    let status = status.env("LARDER_AUTH_TOKEN", &unknown).output().unwrap();

    assert_end(&status, 4, &["larder: the box refused: ", "hint: ", "larder token create"]);
    assert!(!larder.log().contains(&unknown[40..]), "{}", larder.log());
}

#[test]
fn another_box_in_its_place_is_refused_with_both_ids() {
    let (larder, other) = (TestBox::start(), TestBox::start());

    let mut status = larder.command(["status"]);
    let status = status.env("LARDER_HOST", other.quic.to_string()).output().unwrap();

    assert_end(&status, 4, &[&larder.device_id, &other.device_id]);
}

#[test]
fn a_box_that_does_not_answer_ends_with_five() {
    let larder = TestBox::start();
    // A socket that hears and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();

    let mut status = larder.command(["status"]);
    let address = silent.local_addr().unwrap().to_string();
    let status = status.env("LARDER_HOST", &address).output().unwrap();
    assert_end(&status, 5, &["no box answers at", &address, "hint: ", "larder serve"]);

    let mut unknown = larder.command(["status"]);
    let unknown = unknown.env("LARDER_HOST", "no-such-host.invalid").output().unwrap();
    assert_end(&unknown, 5, &["cannot find the host no-such-host.invalid"]);
}

#[test]
fn caches_are_made_shown_and_not_made_twice() {
    let larder = TestBox::start();

    let made = larder.json(["cache", "create", "team", "--priority", "20"]);
    let listed = larder.json(["cache", "list"]);
    let shown = larder.run(["cache", "show", "team"]);

    assert_eq!(made["url"], larder.url("team"), "{made}");
    let key = made["public_keys"][0].as_str().unwrap();
    assert!(key.starts_with("team.test.local-1:"), "{key}");
    let names: Vec<_> = listed["caches"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["main", "team"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains(&larder.url("team")) && text.contains(key), "{text}");

    assert_end(&larder.run(["cache", "create", "team"]), 1, &["team"]);
    assert_end(&larder.run(["cache", "show", "nowhere"]), 3, &["nowhere"]);
}

#[test]
fn a_token_may_do_what_it_is_for_until_it_is_revoked() {
    let nix = NixStore::new();
    let path = nix.build_graph("rights").closure.remove(0).to_absolute();
    let larder = TestBox::start();
    let create = |right: &str| {
        let made = larder.json(["token", "create", "--label", right, "--cache", right]);
        (made["token"]["id"].to_string(), made["secret"].as_str().unwrap().to_owned())
    };
    let (_, reader) = create("main:read");
    let (writer_id, writer) = create("main:write");
    let run = |token: &str, args: &[&str]| {
        larder.command(args).env("LARDER_AUTH_TOKEN", token).stdin(Stdio::null()).output().unwrap()
    };

    assert_end(&run(&reader, &["push", "main", &path]), 4, &["main"]);
    assert_end(&run(&writer, &["push", "main", &path]), 0, &["stored 1, known 0, hidden 0"]);
    assert_end(&run(&writer, &["status"]), 4, &["personal"]);

    let list = String::from_utf8(larder.run(["token", "list"]).stdout).unwrap();
    assert!(list.contains("main:write") && list.contains("everything"), "{list}");
    assert!(!list.contains(&writer[40..]), "{list}");

    assert_end(&larder.run(["token", "revoke", &writer_id]), 0, &["revoked"]);
    assert_end(&run(&writer, &["push", "main", &path]), 4, &["larder: the box refused"]);
    assert_end(&larder.run(["token", "revoke", "999"]), 3, &["999"]);
    assert_end(&larder.run(["token", "create", "--cache", "nowhere"]), 3, &["nowhere"]);
}

#[test]
fn what_cannot_be_pushed_is_named_before_anything_is_sent() {
    let nix = NixStore::new();
    let path = nix.build_graph("wrong").closure.remove(0).to_absolute();
    let larder = TestBox::start();

    assert_end(&larder.run(["push", "main"]), 2, &["no path to push"]);
    assert_end(&with_input(larder.command(["push", "main"]), " \n"), 2, &["no path to push"]);
    assert_end(&larder.run(["push", "nowhere", &path]), 3, &["nowhere", "larder cache list"]);
    assert_end(&larder.run(["push", "main", "/etc/passwd"]), 1, &["/etc/passwd", "/nix/store"]);
    let never = format!("/nix/store/{}-never", "0".repeat(32));
    assert_end(&larder.run(["push", "main", &never]), 3, &[&never, "not a valid path"]);
    let mut remote = larder.command(["push", "main", &path]);
    let remote = remote.env("NIX_REMOTE", "ssh://elsewhere").output().unwrap();
    assert_end(&remote, 1, &["NIX_REMOTE", "ssh://elsewhere"]);
}

#[test]
fn a_path_without_its_references_is_hidden_until_they_come() {
    let nix = NixStore::new();
    let graph = nix.build_graph("hidden");
    let larder = TestBox::start();
    let top = graph.top.to_absolute();

    let alone = larder.run(["push", "main", "--no-closure", &top]);
    assert_end(&alone, 7, &["stored 0, known 0, hidden 1", &top, "hidden until these are pushed"]);
    assert_eq!(narinfo(&larder, "main", &graph.top), None);

    let whole = larder.run(["push", "main", &top]);
    assert_end(&whole, 0, &["stored 4, known 1, hidden 0"]);
    assert_served(&larder, &nix, &graph.top);
}

/// Changes a path behind Nix's back.
fn damage(path: &StorePath) {
    let file = Path::new(&path.to_absolute()).join("seed");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "something else").unwrap();
}

#[test]
fn a_path_that_changed_is_named_and_the_rest_goes_on() {
    let nix = NixStore::new();
    let (changed, sound) = (nix.build_graph("changed"), nix.build_graph("sound"));
    let larder = TestBox::start();
    let leaf = changed.closure.iter().find(|path| path.name().starts_with("leaf")).unwrap();
    damage(leaf);

    let push = larder.run(["push", "main", &changed.top.to_absolute(), &sound.top.to_absolute()]);

    assert_end(&push, 7, &[&leaf.to_absolute(), "changed", "stored 5,", "failed 1"]);
    assert_eq!(narinfo(&larder, "main", leaf), None);
    assert_eq!(narinfo(&larder, "main", &changed.top), None);
    assert_served(&larder, &nix, &sound.top);
}

#[test]
fn quiet_says_nothing_and_a_reader_that_leaves_is_no_failure() {
    let nix = NixStore::new();
    let path = nix.build_graph("quiet").closure.remove(0).to_absolute();
    let larder = TestBox::start();

    let push = larder.run(["push", "main", "--quiet", &path]);
    assert_eq!(end_of(&push), (Some(0), String::new()));
    assert_eq!(push.stdout, b"");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let list = larder.command(["cache", "list"]).stdout(writer).output().unwrap();
    assert_eq!(end_of(&list), (Some(0), String::new()));
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let list = larder.command(["cache", "list"]).stdout(full).output().unwrap();
    assert_end(&list, 1, &["larder: "]);
}

#[test]
fn a_sound_box_is_found_sound() {
    let nix = NixStore::new();
    let graph = nix.build_graph("sound-box");
    let mut larder = TestBox::start();
    larder.push("main", &[graph.top.to_absolute()]);

    let check = larder.json(["fsck"]);
    assert_eq!((&check["paths"], &check["damaged"]), (&5.into(), &serde_json::json!([])));
    let status = larder.json(["status"]);
    assert_eq!(status["store"]["paths_visible"], 5, "{status}");
    assert!(status["check"]["last"].is_object(), "{status}");

    let data = larder.data();
    let rebuild = ["fsck", "--rebuild-index", "--data", data.to_str().unwrap()];
    assert_end(&larder.run(rebuild), 1, &["another larder", "hint: stop"]);
    larder.stop();
    assert_end(&larder.run(rebuild), 0, &[]);
    let nowhere = ["fsck", "--rebuild-index", "--data", "/nowhere/at/all"];
    assert_end(&larder.run(nowhere), 3, &["/nowhere/at/all", "--data"]);
}
