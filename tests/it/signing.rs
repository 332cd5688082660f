//! Signatures by the box and by who pushes, with Nix's own key tools on both sides.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use larder::formats::signature::PublicKey;

use crate::fixture::larder::TestBox;
use crate::fixture::nix::{NixStore, SecondStore};
use crate::fixture::served::narinfo;

/// A key pair by `nix-store --generate-binary-cache-key`: the secret's file, and both halves.
fn nix_key(nix: &NixStore, folder: &Path, name: &str) -> (PathBuf, String, PublicKey) {
    let file = |part: &str| folder.join(format!("{name}.{part}"));
    let (secret, public) = (file("secret"), file("public"));
    let args = [name.to_owned(), secret.display().to_string(), public.display().to_string()];
    let mut command = vec!["--generate-binary-cache-key".to_owned()];
    command.extend(args);
    nix.output("nix-store", &command);
    let text = |path: &Path| fs::read_to_string(path).unwrap().trim().to_owned();
    (secret.clone(), text(&secret), text(&public).parse().unwrap())
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn push_with(larder: &TestBox, path: &str, variable: &str, key: &str) -> Output {
    let mut push = larder.command(["push", "team", path]);
    push.env(variable, key).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_key_by_nix_signs_a_push_and_nix_believes_it() {
    let (nix, folder) = (NixStore::new(), tempfile::tempdir().unwrap());
    let graph = nix.build_graph("self-signed");
    let (_, secret, public) = nix_key(&nix, folder.path(), "team-1");
    let larder = TestBox::start();
    let path = graph.top.to_absolute();
    let made = larder.json([
        "cache",
        "create",
        "team",
        "--self-signed",
        "--public-key",
        &public.to_string(),
    ]);
    assert_eq!(
        (&made["signing"], &made["public_keys"][0]),
        (&"self-signed".into(), &public.to_string().into())
    );

    let without = larder.run(["push", "team", &path]);
    assert_eq!(without.status.code(), Some(4), "{}", told(&without));
    assert!(told(&without).contains("'team-1'"), "{}", told(&without));
    let (_, other, _) = nix_key(&nix, folder.path(), "else-1");
    let wrong = push_with(&larder, &path, "LARDER_SIGNING_KEY", &other);
    assert_eq!(wrong.status.code(), Some(4), "{}", told(&wrong));
    assert!(told(&wrong).contains("'else-1'") && told(&wrong).contains("'team-1'"));
    let torn = push_with(&larder, &path, "LARDER_SIGNING_KEY", &secret[..secret.len() - 9]);
    assert_eq!(torn.status.code(), Some(2), "{}", told(&torn));
    let bare = secret.split_once(':').unwrap().1;
    assert!(!told(&torn).contains(&bare[..20]) && !told(&wrong).contains(&other[7..27]));

    let push = push_with(&larder, &path, "CACHIX_SIGNING_KEY", bare);
    assert!(push.status.success(), "{}", told(&push));
    assert!(told(&push).contains("stored 5"), "{}", told(&push));
    SecondStore::new(&larder.url("team"), &public).substitute_whole(&graph.top, &graph.closure);
    let sigs = nix.text("nix", &["path-info", "--store", &larder.url("team"), "--sigs", &path]);
    assert!(sigs.contains("team-1:"), "{sigs}");
    assert!(!larder.log().contains(&bare[..20]));
}

#[test]
fn what_nix_has_signed_needs_no_key_here_and_a_second_key_signs_what_is_there() {
    let (nix, folder) = (NixStore::new(), tempfile::tempdir().unwrap());
    let graph = nix.build_graph("nix-signed");
    let path = graph.top.to_absolute();
    let (first, _, first_public) = nix_key(&nix, folder.path(), "team-1");
    let (_, second, second_public) = nix_key(&nix, folder.path(), "team-2");
    let larder = TestBox::start();
    larder.json([
        "cache",
        "create",
        "team",
        "--self-signed",
        "--public-key",
        &first_public.to_string(),
    ]);
    nix.output(
        "nix",
        &["store", "sign", "--recursive", "--key-file", &first.display().to_string(), &path],
    );
    larder.push("team", &[&path]);
    SecondStore::new(&larder.url("team"), &first_public)
        .substitute_whole(&graph.top, &graph.closure);

    larder.json(["cache", "key", "add", "team", &second_public.to_string()]);
    let mut push = larder.command(["push", "team", "--sign-known", &path]);
    let push = push.env("LARDER_SIGNING_KEY", &second).output().unwrap();
    assert!(push.status.success(), "{}", told(&push));
    assert!(told(&push).contains("known 5"), "{}", told(&push));
    for key in [&first_public, &second_public] {
        SecondStore::new(&larder.url("team"), key).substitute_whole(&graph.top, &graph.closure);
    }
    let served = narinfo(&larder, "team", &graph.top).unwrap().info.signatures;
    assert_eq!(served.len(), 2, "{served:?}");
}

#[test]
fn a_generated_key_is_saved_registered_and_picked_up() {
    let nix = NixStore::new();
    let graph = nix.build_graph("generated");
    let larder = TestBox::start();
    larder.json(["cache", "create", "team", "--self-signed"]);
    let unready = larder.run(["push", "team", &graph.top.to_absolute()]);
    assert_eq!(unready.status.code(), Some(4), "{}", told(&unready));

    let made = larder.json(["generate-keypair", "team"]);
    let public: PublicKey = made["public_key"].as_str().unwrap().parse().unwrap();
    assert_eq!((public.name(), &made["registered"]), ("team.test.local-1", &true.into()));
    let file = Path::new(made["file"].as_str().unwrap());
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    larder.push("team", &[graph.top.to_absolute()]);
    SecondStore::new(&larder.url("team"), &public).substitute_whole(&graph.top, &graph.closure);

    let again = larder.run(["generate-keypair", "team"]);
    assert_eq!(again.status.code(), Some(1), "{}", told(&again));
    let another = larder.json(["generate-keypair", "team", "--another"]);
    assert!(another["public_key"].as_str().unwrap().starts_with("team.test.local-2:"));
    let managed = larder.run(["generate-keypair", "main"]);
    assert_eq!(managed.status.code(), Some(2), "{}", told(&managed));
    let secret = &made["secret_key"].as_str().unwrap()[20..50];
    assert!(!told(&again).contains(secret) && !larder.log().contains(secret));
}

#[test]
fn a_writer_gets_a_key_that_the_owner_registers() {
    let larder = TestBox::start();
    larder.json(["cache", "create", "team", "--self-signed"]);
    let token = larder.json(["token", "create", "--cache", "team:write"]);
    let mut make = larder.command(["generate-keypair", "team"]);
    let make = make.env("LARDER_AUTH_TOKEN", token["secret"].as_str().unwrap()).output().unwrap();
    assert_eq!(make.status.code(), Some(4), "{}", told(&make));
    let error = String::from_utf8(make.stderr).unwrap();
    let key = error.rsplit_once("larder cache key add team ").unwrap().1;
    let key = key.split_whitespace().next().unwrap();
    larder.json(["cache", "key", "add", "team", key]);
    assert_eq!(larder.json(["cache", "key", "list", "team"])["keys"][0]["public_key"], key);
}

#[test]
fn keys_that_cannot_be_registered_are_named() {
    let (nix, folder) = (NixStore::new(), tempfile::tempdir().unwrap());
    let (_, secret, public) = nix_key(&nix, folder.path(), "team-1");
    let larder = TestBox::start();
    larder.json(["cache", "create", "team", "--self-signed"]);
    let text = public.to_string();
    let base64 = text.split_once(':').unwrap().1;
    let add = |cache: &str, key: &str| larder.run(["cache", "key", "add", cache, key]);
    assert!(add("team", &text).status.success());
    let shadow = format!("main.test.local-1:{base64}");
    let other_name = format!("team-2:{base64}");
    for (cache, key, code, word) in [
        ("team", text.as_str(), 1, "already"),
        ("team", &other_name, 1, "one name"),
        ("team", &secret, 2, "64 bytes, not 32"),
        ("team", "team-2:AAAA", 2, "3 bytes, not 32"),
        ("team", "te am:AAAA", 2, "name"),
        ("main", &other_name, 1, "the box keeps"),
        ("gone", &text, 3, "no cache"),
    ] {
        let refused = add(cache, key);
        assert_eq!(refused.status.code(), Some(code), "{key}: {}", told(&refused));
        assert!(told(&refused).contains(word), "{key}: {}", told(&refused));
        assert!(!told(&refused).contains(secret.split_once(':').unwrap().1));
    }
    larder.json(["cache", "create", "shade", "--self-signed"]);
    let refused = add("shade", &shadow);
    assert!(told(&refused).contains("'main'"), "{}", told(&refused));
    larder.json(["cache", "key", "remove", "team", "team-1"]);
    assert_eq!(larder.run(["cache", "key", "remove", "team", "team-1"]).status.code(), Some(3));
}

#[test]
fn old_and_new_clients_verify_during_the_overlap() {
    let nix = NixStore::new();
    let graph = nix.build_graph("rotation");
    let mut larder = TestBox::start();
    larder.push("main", &[graph.top.to_absolute()]);
    let old = larder.public_key.clone();
    assert!(narinfo(&larder, "main", &graph.top).is_some());

    let made = larder.json(["cache", "rotate-key", "main"]);
    let new: PublicKey = made["public_key"].as_str().unwrap().parse().unwrap();
    assert_eq!((old.name(), new.name()), ("main.test.local-1", "main.test.local-2"));
    larder.restart_in_place();
    for key in [&old, &new] {
        SecondStore::new(&larder.url("main"), key).substitute_whole(&graph.top, &graph.closure);
    }
    let states = |larder: &TestBox| {
        let keys = larder.json(["cache", "key", "list", "main"]);
        let states = keys["keys"].as_array().unwrap().iter();
        states.map(|key| key["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states(&larder), ["signs", "overlap"]);

    assert_eq!(larder.run(["cache", "key", "remove", "main", new.name()]).status.code(), Some(1));
    larder.json(["cache", "key", "remove", "main", old.name()]);
    assert_eq!(states(&larder), ["signs", "retired"]);
    let refused = SecondStore::new(&larder.url("main"), &old).substitute(&graph.top);
    assert!(!refused.status.success());
    SecondStore::new(&larder.url("main"), &new).substitute_whole(&graph.top, &graph.closure);

    larder.json(["cache", "key", "restore", "main", old.name()]);
    SecondStore::new(&larder.url("main"), &old).substitute_whole(&graph.top, &graph.closure);
}

#[test]
fn what_was_tampered_with_is_not_signed() {
    let (nix, folder) = (NixStore::new(), tempfile::tempdir().unwrap());
    let path = nix.big_path("tampered", 100_000);
    let (_, secret, public) = nix_key(&nix, folder.path(), "team-1");
    let larder = TestBox::start();
    larder.json(["cache", "create", "team", "--self-signed", "--public-key", &public.to_string()]);
    larder.push("main", &[path.to_absolute()]);
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    assert!(second.substitute(&path).status.success());
    let file = fs::read_dir(second.folder(&path)).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    bytes[50_000] ^= 1;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, bytes).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();

    let mut push = larder.command(["push", "team", &path.to_absolute()]);
    push.env("NIX_REMOTE", format!("local?root={}", second.root().display()));
    let refused = push.env("LARDER_SIGNING_KEY", &secret).output().unwrap();

    assert_eq!(refused.status.code(), Some(7), "{}", told(&refused));
    assert!(narinfo(&larder, "team", &path).is_none());
    let sound = push_with(&larder, &path.to_absolute(), "LARDER_SIGNING_KEY", &secret);
    assert!(sound.status.success(), "{}", told(&sound));
    assert!(narinfo(&larder, "team", &path).is_some());
}
