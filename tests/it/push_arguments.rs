//! What people and scripts hand to `larder push`, the odd and the wrong included.

use std::fmt::Write as _;
use std::fs;

use larder::formats::{NarInfo, StorePath};

use crate::fixture::ending::{assert_end, end_of, with_input};
use crate::fixture::larder::TestBox;
use crate::fixture::nix::{NixStore, SecondStore};
use crate::fixture::served::{assert_served, get, narinfo};
use crate::fixture::tree;
use crate::fixture::user::{NixDaemon, OrdinaryUser};

/// As many lines as a script may well pipe in.
const LINES: usize = 100_000;

/// A path that is not valid, with a number.
fn never(number: usize) -> String {
    format!("/nix/store/{number:0>32}-never")
}

#[test]
fn a_derivation_is_pushed_as_any_path_and_comes_back() {
    let nix = NixStore::new();
    let graph = nix.build_graph("derivation");
    let derivation = nix.text("nix-instantiate", &["-E", &graph.expression]);
    let derivation = StorePath::from_absolute(&derivation).unwrap();
    let larder = TestBox::start();

    // Its inputs are derivations too; what they build is not referred to.
    let pushed = larder.push("main", &[derivation.to_absolute()]);
    assert_eq!((&pushed["stored"], &pushed["hidden"]), (&5.into(), &0.into()), "{pushed}");
    assert_served(&larder, &nix, &derivation);
    let NarInfo { info, .. } = narinfo(&larder, "main", &derivation).unwrap();
    assert!(info.ca.is_some_and(|ca| ca.starts_with("text:sha256:")));
    assert_eq!(narinfo(&larder, "main", &graph.top), None);

    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    let mut copy = second.command("nix");
    let copy = copy.args(["copy", "--derivation", "--from", &larder.url("main")]);
    let copied = copy.arg(derivation.to_absolute()).output().unwrap();
    assert_end(&copied, 0, &[]);
    tree::assert_same(derivation.to_absolute().as_ref(), &second.folder(&derivation));
}

#[test]
fn names_with_newlines_and_other_controls_come_back_as_they_are() {
    let nix = NixStore::new();
    let script = r#"
        mkdir -p "$out/$(printf 'two\nlines')"
        echo 1 > "$out/$(printf 'two\nlines/\n')x"
        echo 2 > "$out/$(printf 'tab\tand\033[31mred\r')x"
        ln -s "$(printf 'to\nnowhere')" "$out/$(printf '\177')x"
    "#;
    let path = nix.build_script("newlines", script);
    let larder = TestBox::start();

    let push = with_input(
        larder.command(["push", "main"]),
        format!("{path}\n", path = path.to_absolute()),
    );
    assert_end(&push, 0, &["stored 1,"]);

    assert_served(&larder, &nix, &path);
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&path, std::slice::from_ref(&path));
    let listing = get(&larder.url(&format!("main/{}.ls", path.hash()))).unwrap();
    let listing: serde_json::Value = serde_json::from_slice(&listing).unwrap();
    assert_eq!(listing["root"]["entries"]["two\nlines"]["type"], "directory", "{listing}");
}

#[test]
fn garbage_on_standard_input_is_named_and_tells_the_terminal_nothing() {
    let nix = NixStore::new();
    let path = nix.build_graph("garbage").closure.remove(0);
    let larder = TestBox::start();
    let push = |input: &[u8]| with_input(larder.command(["push", "main"]), input);
    let assert_plain = |said: &str| {
        let is_plain = |c: char| c == '\n' || !c.is_control();
        assert!(said.chars().all(is_plain) && said.len() < 10_000, "{said:?}");
    };

    let mut noise: Vec<u8> =
        (0..25_000_u64).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    noise.extend(format!("\n{}\n", path.to_absolute()).bytes());
    let all = push(&noise);
    assert_end(&all, 1, &["paths cannot be pushed", "more than listed", "sent none"]);
    assert_plain(&end_of(&all).1);
    for garbage in [&b"\0"[..], b"/nix/store/\x1b[2J", b"/nix/store/a\0b", b"\xff\xfe"] {
        let one = push(garbage);
        assert_end(&one, 1, &[]);
        assert_plain(&end_of(&one).1);
    }
    let long = push(&vec![b'x'; 3 << 20]);
    assert_end(&long, 1, &["xxx", "File name too long"]);
    assert_plain(&end_of(&long).1);
    let much = push(&vec![b' '; (64 << 20) + 1]);
    assert_end(&much, 2, &["on standard input"]);
    assert_eq!(narinfo(&larder, "main", &path), None);
}

#[test]
fn paths_outside_of_the_store_are_each_named() {
    let nix = NixStore::new();
    let path = nix.build_graph("outside").closure.remove(0);
    let larder = TestBox::start();

    let argument = path.to_absolute();
    let push = larder.run(["push", "main", "/etc/passwd", &argument, "/nix/store", "/nowhere"]);

    let expected =
        ["'/etc/passwd' is not in /nix/store", "'/nix/store' is not", "/nowhere: No such"];
    assert_end(&push, 1, &expected);
    assert_end(&push, 1, &["3 of 4 paths cannot be pushed; sent none", "hint: "]);
    assert_eq!(narinfo(&larder, "main", &path), None);
}

#[test]
fn a_hundred_thousand_lines_are_answered_clearly() {
    let nix = NixStore::new();
    let path = nix.build_graph("lines").closure.remove(0).to_absolute();
    let (larder, user) = (TestBox::start(), OrdinaryUser::new());
    let daemon = NixDaemon::start("", "");
    let by_daemon = || {
        let mut command = user.command(&larder, ["push", "main"]);
        command.env("NIX_REMOTE", daemon.remote());
        command
    };

    let mut wrong = String::new();
    for number in 0..LINES {
        writeln!(wrong, "{}", if number % 2 == 0 { never(number) } else { path.clone() }).unwrap();
    }
    let count = format!("{} of {} paths cannot be pushed", LINES / 2, LINES / 2 + 1);
    let expected = [&*never(0), &never(18), "not a valid path", &count];
    for command in [larder.command(["push", "main"]), by_daemon()] {
        let refused = with_input(command, &wrong);
        assert_end(&refused, 3, &expected);
        assert!(end_of(&refused).1.lines().count() < 20);
    }
    let repeated = format!("{path}\n").repeat(LINES);
    let push = with_input(larder.command(["push", "main"]), &repeated);
    assert_end(&push, 0, &["stored 1, known 0"]);
    assert_end(&with_input(by_daemon(), &repeated), 0, &["stored 0, known 1"]);
    assert!(fs::exists(&path).unwrap());
}
