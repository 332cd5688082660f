//! `larder use` and `larder remove`: what they write, what Nix makes of it, and that it goes again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::fixture::laptop::{Laptop, told};
use crate::fixture::larder::TestBox;
use crate::fixture::nix::NixStore;

/// The cache's name with the ID that its box has.
fn known(larder: &TestBox, cache: &str) -> String {
    format!("{cache}@{}", larder.device_id)
}

fn host(larder: &TestBox) -> String {
    format!("--host={}", larder.quic)
}

fn list(settings: &Value, name: &str) -> BTreeSet<String> {
    let values = settings[name]["value"].as_array().unwrap_or_else(|| panic!("{name}")).iter();
    values.map(|value| value.as_str().unwrap().to_owned()).collect()
}

/// Shapes of nix.conf that people have.
const CONFS: [&str; 12] = [
    "",
    "\n",
    "# only a comment",
    "substituters = https://cache.nixos.org https://a.example\ntrusted-public-keys = a:AAAA\n",
    "substituters = https://a.example\nsubstituters = https://b.example\n",
    "binary-caches = https://old.example # the old name\nbinary-cache-public-keys = o:AAAA\n",
    "extra-substituters = https://e.example\r\nmax-jobs = 3\r\n",
    "\tbuild-cores\t=\t2\nexperimental-features = nix-command flakes",
    "trusted-users = root @wheel\n!include not-there.conf\ninclude part.conf\nmax-jobs = 5\n",
    "substituters =\nextra-trusted-public-keys = x:AAAA y:BBBB\n\n\n",
    "netrc-file = /elsewhere/netrc\nsandbox = false # why = not\n#substituters = no\n",
    "max-jobs = 2\n# ümläut \u{1f980} in a comment\nno-such-setting = 1\n",
];

#[test]
fn nix_reads_what_was_meant_and_every_byte_comes_back() {
    let larder = TestBox::start();
    let url = format!("http://{}/main", larder.http);
    let key = larder.public_key.to_string();
    for conf in CONFS {
        let laptop = Laptop::of_root();
        laptop.write(&laptop.path("etc/part.conf"), "substituters = https://part.example\n");
        laptop.write(&laptop.conf(), conf);
        fs::set_permissions(laptop.conf(), fs::Permissions::from_mode(0o640)).unwrap();
        let before = laptop.nix_settings();

        laptop.ok(["use", &known(&larder, "main"), &host(&larder)]);
        let once = fs::read(laptop.conf()).unwrap();
        let after = laptop.nix_settings();
        for (name, ours) in [("substituters", &url), ("trusted-public-keys", &key)] {
            let mut wanted = list(&before, name);
            wanted.insert(ours.clone());
            assert_eq!(list(&after, name), wanted, "{conf:?}");
        }
        let differs = |(name, facts): &(&String, &Value)| facts["value"] != after[name]["value"];
        let before = before.as_object().unwrap().iter();
        let names: Vec<_> = before.filter(differs).map(|(name, _)| name).collect();
        assert_eq!(names, ["substituters", "trusted-public-keys"], "{conf:?}");

        laptop.ok(["use", &known(&larder, "main"), &host(&larder)]);
        assert_eq!(fs::read(laptop.conf()).unwrap(), once, "{conf:?}");
        laptop.ok(["remove", "main"]);
        assert_eq!(fs::read_to_string(laptop.conf()).unwrap(), conf);
        assert_eq!(fs::metadata(laptop.conf()).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(laptop.path("etc")).unwrap().count(), 2, "{conf:?}");
    }
}

#[test]
fn nix_substitutes_from_a_private_cache_with_what_was_written() {
    let larder = TestBox::start();
    larder.create_cache("team", &["--private"]);
    let token = larder.create_token(&["team:read"]);
    let nix = NixStore::new();
    let graph = nix.build_graph("used");
    let top = graph.top.to_absolute();
    larder.push("team", &[&top]);
    // Without a daemon root's Nix reads the user's file too.
    for mode in ["root-nixconf", "user-nixconf"] {
        let laptop = Laptop::of_root();
        let args = ["use", "team", "--mode", mode, &host(&larder)];
        let used = laptop.command(args).env("LARDER_AUTH_TOKEN", &token).output().unwrap();
        assert!(used.status.success(), "{}", told(&used));
        assert!(!String::from_utf8_lossy(&used.stdout).contains("ldr_"), "shows the token");
        let netrc = match mode {
            "root-nixconf" => laptop.path("etc/netrc"),
            _ => laptop.user_conf().with_file_name("netrc"),
        };
        assert_eq!(fs::metadata(&netrc).unwrap().permissions().mode() & 0o777, 0o600);

        let root = laptop.path("store");
        let fetched = laptop
            .nix("nix-store")
            .args(["-r", &top, "--option", "substituters"])
            .arg(format!("http://{}/team", larder.http))
            .env("NIX_REMOTE", format!("local?root={}", root.display()))
            .output()
            .unwrap();
        assert!(fetched.status.success(), "{}", told(&fetched));
        crate::fixture::tree::make_writable(&root);

        laptop.ok(["remove", "team"]);
        assert!(!netrc.exists() && !laptop.conf().exists() && !laptop.user_conf().exists());
    }
}

#[test]
fn a_dry_run_tells_all_and_writes_nothing() {
    let (larder, laptop) = (TestBox::start(), Laptop::of_root());
    larder.create_cache("team", &["--private"]);
    let args = ["use", "team", "--dry-run", "--json", &host(&larder)];
    let output = laptop.command(args).env("LARDER_AUTH_TOKEN", &larder.token).output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["mode"], "root-nixconf");
    assert_eq!(shown["dry_run"], true);
    assert_eq!(shown["url"], format!("http://{}/team", larder.http));
    assert_eq!(shown["files"][0]["action"], "create");
    assert!(shown["files"][0]["added"][0].as_str().unwrap().ends_with("password …"), "{shown}");
    assert_eq!(fs::read_dir(laptop.path("etc")).unwrap().count(), 0);
    assert!(!laptop.path("home/.config").exists());
}

#[test]
fn the_module_for_nixos_is_one_and_goes_again() {
    let (larder, laptop) = (TestBox::start(), Laptop::of_root());
    let folder = laptop.path("nixos").display().to_string();
    let place = ["--nixos-folder", &folder];
    let said = laptop.ok([&["use", &known(&larder, "main"), &host(&larder)], &place[..]].concat());
    assert!(said.contains("nixos-rebuild switch"), "{said}");

    let expression = format!(
        "builtins.map (module: (import module).nix.settings) (import {folder}/larder.nix).imports"
    );
    let evaluate = || {
        let output = laptop
            .nix("nix-instantiate")
            .args(["--eval", "--strict", "--json", "--expr", &expression])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", told(&output));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let settings = evaluate();
    assert_eq!(settings[0]["substituters"][0], format!("http://{}/main", larder.http));
    assert_eq!(settings[0]["trusted-public-keys"][0], larder.public_key.to_string());
    laptop.ok([&["remove", "main"], &place[..]].concat());
    assert_eq!(evaluate(), serde_json::json!([]));
    laptop.refused(3, [&["remove", "main"], &place[..]].concat());
}

#[test]
fn nobody_gets_a_key_installed_by_answering() {
    let (larder, laptop) = (TestBox::start(), Laptop::of_root());
    let folder = laptop.path("out").display().to_string();
    for place in [
        &["--mode", "root-nixconf"][..],
        &["--mode", "user-nixconf"],
        &["--mode", "nixos", "--nixos-folder", &folder],
        &["--output-directory", &folder],
    ] {
        let said = laptop.refused(4, [&["use", "main", &host(&larder)], place].concat());
        for told in [&larder.device_id, &larder.public_key.to_string()] {
            assert!(said.contains(told), "{said}");
        }
    }
    assert_eq!(fs::read_dir(laptop.path("etc")).unwrap().count(), 0);
    assert!(!laptop.path("home/.config").exists() && !laptop.path("out").exists());

    // Said by a person, in each of the ways.
    let place = ["--output-directory", &folder];
    let used = |how: &[&str]| {
        laptop.ok([&["use", "main", &host(&larder)], how, &place[..]].concat());
        let conf = fs::read_to_string(laptop.path("out/nix.conf")).unwrap();
        laptop.ok([&["remove", "main"], &place[..]].concat());
        conf
    };
    let other = larder.create_cache("other", &[]).to_string();
    let conf = used(&["--public-key", &other]);
    assert!(conf.contains(&other) && !conf.contains(&larder.public_key.to_string()), "{conf}");
    assert!(used(&["--trust-on-first-use"]).contains(&larder.public_key.to_string()));
    // The box is known from now on.
    assert!(used(&[]).contains(&larder.public_key.to_string()));
}

#[test]
fn another_box_in_the_place_of_a_known_one_is_refused() {
    let (larder, other, laptop) = (TestBox::start(), TestBox::start(), Laptop::of_root());
    laptop.refused(4, ["use", &known(&larder, "main"), &host(&other)]);
    let host_of_other = other.quic.to_string();
    let paired = format!("[boxes]\n\"{host_of_other}\" = \"{}\"\n", larder.device_id);
    laptop.write(&laptop.path("home/.config/larder/client.toml"), paired);
    for more in [&[][..], &["--trust-on-first-use"]] {
        let args = [&["use", "main", "--host", &host_of_other], more].concat();
        let said = laptop.refused(4, args);
        assert!(said.contains(&larder.device_id) && said.contains(&other.device_id), "{said}");
    }
    assert_eq!(fs::read_dir(laptop.path("etc")).unwrap().count(), 0);
}

#[test]
fn several_caches_and_boxes_live_side_by_side() {
    let (one, two, laptop) = (TestBox::start(), TestBox::start(), Laptop::of_root());
    one.create_cache("extra", &[]);
    laptop.write(&laptop.conf(), "# mine");
    for (larder, cache) in [(&one, "main"), (&one, "extra"), (&two, "main")] {
        laptop.ok(["use", &known(larder, cache), &host(larder)]);
    }
    let substituters = list(&laptop.nix_settings(), "substituters");
    for url in [one.url("main"), one.url("extra"), two.url("main")] {
        assert!(substituters.contains(&url), "{url} in {substituters:?}");
    }
    let said = laptop.refused(2, ["remove", "main"]);
    assert!(said.contains(&one.device_id) && said.contains(&two.device_id), "{said}");
    laptop.ok(["remove", &known(&one, "main")]);
    laptop.ok(["remove", "main"]);
    laptop.ok(["remove", "extra"]);
    assert_eq!(fs::read_to_string(laptop.conf()).unwrap(), "# mine");
}

#[test]
fn an_ordinary_user_is_told_what_nix_allows() {
    let larder = TestBox::start();
    let (cache, host) = (known(&larder, "main"), host(&larder));
    let laptop = Laptop::of_nobody();
    let said = laptop.refused(4, ["use", &cache, &host]);
    assert!(said.contains(&format!("sudo larder use {cache}")), "{said}");
    assert!(!laptop.user_conf().exists());
    // Said all the same, it is written, with a warning.
    let output = laptop.run(["use", &cache, &host, "--mode", "user-nixconf"]);
    let said = told(&output);
    assert!(output.status.success() && said.contains("overlook"), "{said}");
    laptop.ok(["remove", "main"]);

    // A store of the user's own, which no daemon guards.
    let root = format!("local?root={}", laptop.path("home/root").display());
    let used = laptop.command(["use", &cache, &host]).env("NIX_REMOTE", root).output().unwrap();
    assert!(used.status.success() && laptop.user_conf().exists(), "{}", told(&used));
    laptop.ok(["remove", "main"]);

    let (url, key) = (larder.url("main"), &larder.public_key);
    for conf in [
        "trusted-users = root nobody\n".to_owned(),
        "include more.conf\n".to_owned(),
        format!("trusted-substituters = {url}\ntrusted-public-keys = {key}\n"),
    ] {
        laptop.write(&laptop.path("etc/more.conf"), "trusted-users = *\n");
        laptop.write(&laptop.conf(), conf);
        laptop.ok(["use", &cache, &host]);
        assert!(list(&laptop.nix_settings(), "substituters").contains(&url));
        assert!(laptop.user_conf().exists());
        laptop.ok(["remove", "main"]);
        assert!(!laptop.user_conf().exists());
    }
}
