//! A box and its users as separate hosts on one network, found by name.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use larder::formats::StorePath;

use crate::fixture::namespace::{Host, Network};
use crate::fixture::nix::NixStore;

const LARDER: &str = env!("CARGO_BIN_EXE_larder");
/// Longer than a name takes to be probed, announced and asked for twice (RFC 6762, section 8).
const FOUND_WITHIN: Duration = Duration::from_secs(30);

/// A box that runs on a host until this is dropped.
struct RunningBox {
    process: Child,
    data: tempfile::TempDir,
}

impl RunningBox {
    fn start(host: &Host, name: &str) -> Self {
        let data = tempfile::tempdir().expect("a temporary folder");
        let process = host
            .command(LARDER)
            .args(["serve", "--name", name, "--data"])
            .arg(data.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("start the box");
        let mut running = Self { process, data };
        // The first line is printed when everything listens.
        let stdout = running.process.stdout.take().expect("its output");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("read its summary");
        assert!(!line.is_empty(), "the box ended before it listened");
        running
    }

    fn admin_token(&self) -> String {
        let path = self.data.path().join("data/admin.token");
        fs::read_to_string(path).expect("the first token").trim().to_owned()
    }

    /// Stops as `systemctl stop` does, and waits for it.
    fn stop(mut self) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().expect("kill").success());
        assert!(self.process.wait().expect("wait for the box").success(), "it stops cleanly");
    }
}

impl Drop for RunningBox {
    fn drop(&mut self) {
        // Both fail after `stop`, when there is nothing left to do.
        let _killed = self.process.kill();
        let _waited = self.process.wait();
    }
}

/// What `larder discover --json` prints on `host`.
fn discover(host: &Host) -> Vec<serde_json::Value> {
    let output = host.command(LARDER).args(["discover", "--json"]).output().expect("discover");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    printed.get("boxes").and_then(serde_json::Value::as_array).cloned().expect("a list of boxes")
}

/// Discovers until boxes at all the `wanted` addresses are there, and no others.
///
/// IPv4 and IPv6 carry their announcements separately (RFC 6762, section 20), so one look may
/// catch a box before its IPv4 address has arrived.
fn discover_until(host: &Host, wanted: &[&str]) -> Vec<serde_json::Value> {
    let started = Instant::now();
    let is_at = |found: &serde_json::Value, address: &str| {
        found["addresses"].to_string().contains(&format!("{address}:"))
    };
    loop {
        let boxes = discover(host);
        let all = wanted.iter().all(|address| boxes.iter().any(|found| is_at(found, address)));
        if all && boxes.len() == wanted.len() {
            return boxes;
        }
        assert!(started.elapsed() < FOUND_WITHIN, "{wanted:?} wanted, found {boxes:?}");
    }
}

fn push_without_host(host: &Host, token: &str, home: &Path, path: &StorePath) -> Output {
    host.command(LARDER)
        .args(["push", "main"])
        .arg(path.to_absolute())
        .env("HOME", home)
        .env("LARDER_AUTH_TOKEN", token)
        .env_remove("LARDER_HOST")
        .output()
        .expect("push")
}

#[test]
fn a_box_is_found_and_pushed_to_by_name_and_says_goodbye() {
    let Some(network) = Network::or_skip(2) else { return };
    let (box_host, user) = (network.host(0), network.host(1));
    let running = RunningBox::start(box_host, "office");

    let boxes = discover_until(user, &[&box_host.address]);
    assert_eq!(boxes[0]["name"], "office");
    assert!(boxes[0]["caches"].to_string().contains("main"), "{}", boxes[0]);

    let home = tempfile::tempdir().expect("a temporary folder");
    let nix = NixStore::new();
    let path = nix.big_path("named", 1024);
    let push = push_without_host(user, &running.admin_token(), home.path(), &path);
    let said = String::from_utf8_lossy(&push.stderr);
    assert!(push.status.success(), "{said}");
    let told = format!("{said}{}", String::from_utf8_lossy(&push.stdout));
    assert!(told.contains("stored 1, known 0, hidden 0"), "{told}");

    running.stop();
    assert_eq!(discover(user), Vec::<serde_json::Value>::new(), "after its goodbye");
}

#[test]
fn several_boxes_are_an_error_that_lists_them() {
    let Some(network) = Network::or_skip(3) else { return };
    let user = network.host(2);
    let running = ["attic", "cellar"]
        .into_iter()
        .enumerate()
        .map(|(number, name)| RunningBox::start(network.host(number), name))
        .collect::<Vec<_>>();
    discover_until(user, &[&network.host(0).address, &network.host(1).address]);

    let home = tempfile::tempdir().expect("a temporary folder");
    let nix = NixStore::new();
    let path = nix.big_path("named", 1024);
    let push = push_without_host(user, &running[0].admin_token(), home.path(), &path);

    let said = String::from_utf8_lossy(&push.stderr);
    assert!(!push.status.success(), "{said}");
    assert!(said.contains("attic") && said.contains("cellar"), "{said}");

    // An ID says which of them is meant.
    let found = discover(user);
    let attic = found.iter().find(|found| found["name"] == "attic").expect("attic");
    let known = format!("main@{}", attic["device_id"].as_str().expect("an ID"));
    let used = use_cache(user, home.path(), &[&known]);
    assert!(used.status.success(), "{}", String::from_utf8_lossy(&used.stderr));
    let conf = fs::read_to_string(home.path().join("etc/nix.conf")).expect("nix.conf");
    assert!(conf.contains(&format!("http://{}:5273/main", network.host(0).address)), "{conf}");
}

#[test]
fn a_personal_token_goes_into_no_netrc() {
    let Some(network) = Network::or_skip(2) else { return };
    let (box_host, user) = (network.host(0), network.host(1));
    let running = RunningBox::start(box_host, "office");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let with = |args: &[&str]| {
        let mut command = user.command(LARDER);
        command.args(args).args(["--host", &box_host.address]).env("HOME", folder.path());
        command.env("NIX_CONF_DIR", folder.path().join("etc")).stdin(Stdio::null());
        command.env("LARDER_AUTH_TOKEN", running.admin_token()).output().expect("run it")
    };
    assert!(with(&["cache", "create", "team", "--private"]).status.success());
    let refused = with(&["use", "team"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("larder token create --cache team:read"), "{said}");
    assert!(!folder.path().join("etc").exists(), "something was written");
}

#[test]
fn an_address_that_comes_later_is_announced() {
    let Some(network) = Network::or_skip(2) else { return };
    let (box_host, user) = (network.host(0), network.host(1));
    box_host.ip("link set eth0 down").expect("unplug");
    let _running = RunningBox::start(box_host, "late");
    assert_eq!(discover(user), Vec::<serde_json::Value>::new());

    box_host.ip("link set eth0 up").expect("plug in");
    box_host.ip("route add default via 10.73.52.254").expect("route");

    assert_eq!(discover_until(user, &[&box_host.address])[0]["name"], "late");
}

#[test]
fn a_machine_without_a_network_runs_a_box_all_the_same() {
    let Some(network) = Network::or_skip(1) else { return };
    let host = network.host(0);
    host.ip("link set eth0 down").expect("unplug");
    host.ip("link set lo down").expect("unplug");

    let started = Instant::now();
    let running = RunningBox::start(host, "hermit");

    assert!(started.elapsed() < FOUND_WITHIN, "it does not wait for a network");
    assert_eq!(discover(host), Vec::<serde_json::Value>::new());
    running.stop();
}

/// `larder use` by somebody on `host` with a home and a folder for nix.conf below `folder`.
fn use_cache(host: &Host, folder: &Path, args: &[&str]) -> Output {
    host.command(LARDER)
        .arg("use")
        .args(args)
        .args(["--mode", "root-nixconf"])
        .env("HOME", folder)
        .env("NIX_CONF_DIR", folder.join("etc"))
        .env_remove("LARDER_HOST")
        .env_remove("LARDER_AUTH_TOKEN")
        .stdin(Stdio::null())
        .output()
        .expect("use")
}

#[test]
fn who_takes_a_boxes_name_gets_no_key_installed() {
    let Some(network) = Network::or_skip(3) else { return };
    let (owner, liar, user) = (network.host(0), network.host(1), network.host(2));
    let genuine = RunningBox::start(owner, "office");
    let id = discover_until(user, &[&owner.address])[0]["device_id"].clone();
    let id = id.as_str().expect("an ID").to_owned();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let paired = format!("[boxes]\noffice = \"{id}\"\n");
    let config = folder.path().join(".config/larder/client.toml");
    fs::create_dir_all(config.parent().expect("a folder")).expect("make it");
    fs::write(&config, paired).expect("write it");

    // The genuine one is away, and another has its name.
    genuine.stop();
    let _lying = RunningBox::start(liar, "office");
    discover_until(user, &[&liar.address]);
    let known = format!("main@{id}");
    for (args, code) in [
        (&["main", "--host", "office"][..], 4),
        (&["main", "--host", "office", "--trust-on-first-use"], 4),
        (&["main", "--host", &liar.address], 4),
        (&["main"], 4),
        (&[&known], 4),
    ] {
        let output = use_cache(user, folder.path(), args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    }
    assert!(!folder.path().join("etc").exists(), "something was written");
}
