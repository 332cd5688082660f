//! The README's commands, run as they are written.
//!
//! A block of commands behind `<!-- runs -->` is run by this test, those behind
//! `<!-- runs: box -->` first and in the background, as in a terminal of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::fixture::namespace::Network;

const README: &str = include_str!("../../README.md");
/// What starts the program from a checkout, and stands for the built one here.
const FROM_CHECKOUT: &str = "cargo run --release --";

/// The blocks of commands behind a line that is `mark`.
fn blocks(mark: &str) -> Vec<String> {
    let mark = format!("\n{mark}\n");
    let behind_marks = README.split(&mark).skip(1);
    let blocks = behind_marks.map(|text| {
        let block = text.trim_start().strip_prefix("```sh\n").expect("a block behind its mark");
        block.split("\n```").next().unwrap().replace(FROM_CHECKOUT, "larder")
    });
    blocks.collect()
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        let _gone_already = Command::new("kill").arg(pid).status();
        let _waited = self.0.wait();
    }
}

/// A shell with the built program first on its path, at home in `folder`.
fn shell(network: &Network, folder: &Path, script: &str) -> Command {
    let mut command = network.host(0).command("env");
    let path = std::env::var("PATH").unwrap();
    for variable in ["LARDER_HOST", "LARDER_AUTH_TOKEN", "LARDER_CONFIG", "CACHIX_AUTH_TOKEN"] {
        command.args(["-u", variable]);
    }
    command
        .args(["-u", "NIX_REMOTE", "-u", "XDG_CONFIG_HOME", "-u", "XDG_DATA_HOME"])
        .arg(format!("PATH={}:{path}", folder.join("bin").display()))
        .arg(format!("HOME={}", folder.join("home").display()))
        .args(["sh", "-euxc", script])
        .current_dir(folder.join("work"));
    command
}

#[test]
fn every_command_of_the_readme_runs_as_written() {
    // The default port is fixed, so the box needs a network of its own.
    let Some(network) = Network::or_skip(1) else { return };
    let folder = TempDir::new().unwrap();
    for name in ["bin", "home", "work"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    symlink(env!("CARGO_BIN_EXE_larder"), folder.path().join("bin/larder")).unwrap();
    fs::write(folder.path().join("work/README.md"), README).unwrap();
    let [serve] = <[String; 1]>::try_from(blocks("<!-- runs: box -->")).unwrap();
    let blocks = blocks("<!-- runs -->");
    assert!(blocks.len() >= 2, "{} blocks", blocks.len());

    let mut serve = shell(&network, folder.path(), &format!("exec {serve}"));
    let mut serve = serve.stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(serve.stdout.take().unwrap());
    let _running = Running(serve);
    let mut summary = String::new();
    while !summary.contains("Try next") {
        assert!(printed.read_line(&mut summary).unwrap() > 0, "it ended after {summary:?}");
    }
    let tour = shell(&network, folder.path(), &blocks.join("\n")).output().unwrap();
    // What the tour added to the machine's store is garbage that the next collection would take.
    let delete = "nix-store --delete \"$(nix-store --add README.md)\"";
    let _left_over = shell(&network, folder.path(), delete).output();

    let said = String::from_utf8_lossy(&tour.stderr);
    let told = String::from_utf8_lossy(&tour.stdout);
    assert!(tour.status.success(), "{told}\n{said}");
    assert!(said.contains("stored 1, known 0, hidden 0"), "{told}\n{said}");
    assert!(told.contains("nix/store"), "{told}\n{said}");
}
