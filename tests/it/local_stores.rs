//! Pushes from every kind of local Nix store, by root and by ordinary users.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::thread;

use larder::formats::StorePath;
use larder::formats::signature::SecretKey;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::fixture::ending::assert_end;
use crate::fixture::larder::TestBox;
use crate::fixture::nix::{Graph, NixStore, SecondStore};
use crate::fixture::served::{assert_served, narinfo};
use crate::fixture::user::{NixDaemon, OrdinaryUser, open_to_all};
use crate::resume::wait_for_a_part;

/// A path with a content address.
fn add_file(nix: &NixStore, seed: &str) -> StorePath {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join(format!("larder-test-{seed}"));
    fs::write(&file, folder.path().to_str().unwrap()).unwrap();
    let added = nix.text("nix-store", &["--add", file.to_str().unwrap()]);
    StorePath::from_absolute(&added).unwrap()
}

/// A second store that has the graph, with a database of its own, and the key it trusts.
fn second_store(nix: &NixStore, graph: &Graph) -> SecondStore {
    let cache = TempDir::new().unwrap();
    let key = SecretKey::from_seed("second-1", &[5; 32]).unwrap();
    let key_file = cache.path().join("key");
    fs::write(&key_file, key.to_secret_text()).unwrap();
    nix.copy_to_folder(&graph.top, cache.path(), &format!("secret-key={}", key_file.display()));
    let second = SecondStore::new(&format!("file://{}", cache.path().display()), &key.public_key());
    second.substitute_whole(&graph.top, &graph.closure);
    open_to_all(second.root());
    second
}

/// A path that this store has and the machine's own has not.
fn only_in(second: &SecondStore) -> StorePath {
    let file = second.root().join("larder-test-only");
    fs::write(&file, second.root().to_str().unwrap()).unwrap();
    let added = second.command("nix-store").arg("--add").arg(&file).output().unwrap();
    assert_end(&added, 0, &[]);
    let path = String::from_utf8(added.stdout).unwrap();
    StorePath::from_absolute(path.trim()).unwrap()
}

#[test]
fn an_ordinary_user_pushes_by_the_daemon_trusted_or_not() {
    let nix = NixStore::new();
    let graph = nix.build_graph("by-daemon");
    let added = add_file(&nix, "by-daemon");
    let user = OrdinaryUser::new();
    let trusted = format!("trusted-users = root {}\n", user.uid);

    for settings in ["trusted-users = root\n", &trusted] {
        let larder = TestBox::start();
        let daemon = NixDaemon::start("", settings);
        let push =
            user.push(&larder, &graph.top.to_absolute(), &[("NIX_REMOTE", &daemon.remote())]);
        assert_end(&push, 0, &["stored 5, known 0, hidden 0"]);
        for path in &graph.closure {
            assert_served(&larder, &nix, path);
        }
        let socket = daemon.socket();
        let variables =
            [("NIX_REMOTE", "daemon"), ("NIX_DAEMON_SOCKET_PATH", socket.to_str().unwrap())];
        assert_end(&user.push(&larder, &added.to_absolute(), &variables), 0, &["stored 1,"]);
        let served = narinfo(&larder, "main", &added).unwrap().info;
        assert!(served.ca.is_some_and(|ca| ca.starts_with("fixed:r:sha256:")));
        let never = format!("/nix/store/{}-never", "0".repeat(32));
        assert_end(&user.push(&larder, &never, &variables), 3, &[&never, "not a valid path"]);
    }
    nix.output("nix-store", &["--delete", &added.to_absolute()]);
}

#[test]
fn a_database_that_may_not_be_read_is_left_to_the_daemon() {
    let nix = NixStore::new();
    let graph = nix.build_graph("unreadable");
    let top = graph.top.to_absolute();
    let second = second_store(&nix, &graph);
    let (larder, user) = (TestBox::start(), OrdinaryUser::new());
    let root = second.root().display();
    let (auto, local) = (format!("auto?root={root}"), format!("local?root={root}"));

    // Nobody has the database open, so there is no log to read it with, and he cannot make one.
    let database = second.root().join("nix/var/nix/db");
    let names = || {
        let entries = fs::read_dir(&database).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert!(!names().contains(&"db.sqlite-wal".into()), "{:?}", names());
    let push = user.push(&larder, &top, &[("NIX_REMOTE", &local)]);
    assert_end(&push, 1, &["cannot open Nix's database", "db.sqlite", "hint: "]);
    let push = user.push(&larder, &top, &[("NIX_REMOTE", &auto)]);
    let socket = format!("{root}/nix/var/nix/daemon-socket/socket");
    assert_end(&push, 1, &["db.sqlite", &socket, "cannot connect", "start the Nix daemon"]);

    let daemon = NixDaemon::start(&local, "");
    let socket = daemon.socket();
    let variables = [("NIX_REMOTE", &*auto), ("NIX_DAEMON_SOCKET_PATH", socket.to_str().unwrap())];
    assert_end(&user.push(&larder, &top, &variables), 0, &["stored 5, known 0, hidden 0"]);
    let elsewhere = format!("{}?root={root}", daemon.remote());
    let again = user.push(&larder, &top, &[("NIX_REMOTE", &elsewhere)]);
    assert_end(&again, 0, &["stored 0, known 5"]);
    assert_served(&larder, &nix, &graph.top);
}

#[test]
fn a_store_that_lies_elsewhere_is_read_there() {
    let nix = NixStore::new();
    let graph = nix.build_graph("elsewhere");
    let second = second_store(&nix, &graph);
    // What is only there cannot come from the machine's own store.
    let only = only_in(&second);
    let daemon = NixDaemon::start(&format!("local?root={}", second.root().display()), "");
    let root = second.root().display().to_string();
    let socket = daemon.socket().display().to_string();
    let state = format!("{root}/nix/var/nix");
    let real = format!("?real={root}/nix/store");
    let local = format!("local?root={root}");

    for variables in [
        &[("NIX_REMOTE", &*local)][..],
        &[("NIX_REMOTE", &*root)],
        &[("NIX_REMOTE", &*format!("local{real}&state={state}"))],
        &[("NIX_STATE_DIR", &*state), ("NIX_REMOTE", &*format!("auto{real}"))],
        &[("NIX_STORE_DIR", "/nix/store"), ("NIX_REMOTE", &*format!("auto?root={root}"))],
        &[("NIX_REMOTE", &*format!("unix://{socket}?root={root}"))],
        &[("NIX_DAEMON_SOCKET_PATH", &*socket), ("NIX_REMOTE", &*format!("daemon{real}"))],
    ] {
        let larder = TestBox::start();
        let mut push = larder.command(["push", "main", &only.to_absolute()]);
        let push = push.envs(variables.iter().copied()).output().unwrap();
        assert_end(&push, 0, &["stored 1,"]);
        assert!(narinfo(&larder, "main", &only).is_some(), "{variables:?}");
    }
    let larder = TestBox::start();
    let mut other = larder.command(["push", "main", "/gnu/store/x"]);
    let other = other.env("NIX_STORE_DIR", "/gnu/store").output().unwrap();
    assert_end(&other, 1, &["/gnu/store", "larder is for /nix/store"]);
}

#[test]
fn an_ordinary_user_sees_what_stands_in_the_log_of_the_database_alone() {
    let nix = NixStore::new();
    let graph = nix.build_graph("log");
    let second = second_store(&nix, &graph);
    let (larder, user) = (TestBox::start(), OrdinaryUser::new());
    let local = format!("local?root={}", second.root().display());
    let never = format!("/nix/store/{}-never", "0".repeat(32));

    // As while Nix is at work: the log is there, and the last commit is nowhere else.
    let work = Connection::open(second.root().join("nix/var/nix/db/db.sqlite")).unwrap();
    let insert = "INSERT INTO ValidPaths (path, hash, registrationTime) VALUES (?1, 'x', 1)";
    work.execute(insert, [&never]).unwrap();
    let variables = [("NIX_REMOTE", &*local)];
    assert_end(&user.push(&larder, &graph.top.to_absolute(), &variables), 0, &["stored 5,"]);
    assert_end(&user.push(&larder, &never, &variables), 3, &[&never, "missing on disk"]);

    // As after a crash: the log is there, and nobody who has its index in hand.
    let crashed = second.root().join("crashed");
    fs::create_dir_all(crashed.join("db")).unwrap();
    for entry in fs::read_dir(second.root().join("nix/var/nix/db")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), crashed.join("db").join(entry.file_name())).unwrap();
    }
    drop(work);
    let crashed = format!("{local}&state={}", crashed.display());
    let variables = [("NIX_REMOTE", &*crashed)];
    assert_end(&user.push(&larder, &never, &variables), 3, &[&never, "missing on disk"]);
    assert_end(&user.push(&larder, &graph.top.to_absolute(), &variables), 0, &["known 5"]);
}

#[test]
fn a_daemon_that_does_not_answer_well_is_named() {
    let nix = NixStore::new();
    let path = nix.build_graph("no-daemon").closure.remove(0).to_absolute();
    let (larder, user) = (TestBox::start(), OrdinaryUser::new());
    let push = |remote: &str| user.push(&larder, &path, &[("NIX_REMOTE", remote)]);

    let daemon = NixDaemon::start("", "allowed-users = root\n");
    let socket = daemon.socket();
    assert_end(&push(&daemon.remote()), 1, &[socket.to_str().unwrap(), "allowed-users"]);
    drop(daemon);
    assert_end(&push("unix:///nowhere/socket"), 1, &["/nowhere/socket", "cannot connect"]);

    let folder = TempDir::new().unwrap();
    open_to_all(folder.path());
    let socket = folder.path().join("web");
    let listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut greeting = [0; 16];
        stream.read_exact(&mut greeting).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let refused = push(&format!("unix://{}", socket.display()));
    assert_end(&refused, 1, &[socket.to_str().unwrap(), "no Nix daemon"]);
    server.join().unwrap();
}

#[test]
fn a_path_that_vanished_is_named_and_the_rest_goes_on() {
    let nix = NixStore::new();
    let (torn, sound) = (nix.build_graph("torn"), nix.build_graph("whole"));
    let larder = TestBox::start();
    let leaf = torn.closure.iter().find(|path| path.name().starts_with("leaf")).unwrap();
    fs::remove_dir_all(Path::new(&leaf.to_absolute())).unwrap();

    let tops = [&torn.top, &sound.top].map(StorePath::to_absolute);
    let push = larder.run(["push", "main", &tops[0], &tops[1]]);

    assert_end(&push, 7, &[&leaf.to_absolute(), "No such file", "stored 5,", "failed 1"]);
    assert_eq!(narinfo(&larder, "main", leaf), None);
    assert_eq!(narinfo(&larder, "main", &torn.top), None);
    assert_served(&larder, &nix, &sound.top);
}

#[test]
fn a_file_that_vanishes_while_its_path_is_read_is_named_and_the_rest_goes_on() {
    let nix = NixStore::new();
    let script = "mkdir $out; head -c 300M /dev/urandom > $out/data; echo x > $out/last";
    let (torn, sound) = (nix.build_script("vanishing", script), nix.build_graph("staying"));
    let larder = TestBox::start();
    let tops = [&torn, &sound.top].map(StorePath::to_absolute);
    let mut push = larder.command(["push", "main", &tops[0], &tops[1]]);
    let push = push.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut push = push.spawn().unwrap();

    // What is on its way is bounded, so the end has not been read when the beginning arrives.
    wait_for_a_part(&larder, &mut push);
    let last = Path::new(&tops[0]).join("last");
    fs::set_permissions(&tops[0], fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(&last).unwrap();

    let output = push.wait_with_output().unwrap();
    assert_end(&output, 7, &[&tops[0], last.to_str().unwrap(), "stored 5,", "failed 1"]);
    assert_eq!(narinfo(&larder, "main", &torn), None);
    assert_served(&larder, &nix, &sound.top);
}
