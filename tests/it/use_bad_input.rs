//! `larder use` on machines that are in its way: a clear error, and nothing lost.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;

use crate::fixture::laptop::{Laptop, told};
use crate::fixture::larder::TestBox;
use crate::fixture::nix::NixStore;

/// A box with a private cache beside `main`.
struct Scene {
    larder: TestBox,
    laptop: Laptop,
    token: String,
}

impl Scene {
    fn new() -> Self {
        let larder = TestBox::start();
        larder.create_cache("team", &["--private"]);
        let token = larder.create_token(&["team:read"]);
        Self { larder, laptop: Laptop::of_root(), token }
    }

    fn args(&self, cache: &str) -> [String; 3] {
        let known = format!("{cache}@{}", self.larder.device_id);
        ["use".to_owned(), known, format!("--host={}", self.larder.quic)]
    }

    /// Uses the private cache, which must end with `code`; what was said.
    fn use_team(&self, code: i32) -> String {
        let mut command = self.laptop.command(self.args("team"));
        let output = command.env("LARDER_AUTH_TOKEN", &self.token).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        told(&output)
    }
}

#[test]
fn a_conf_that_nixos_made_says_what_to_do() {
    let Scene { larder, laptop, .. } = Scene::new();
    let nix = NixStore::new();
    let made = nix.big_path("conf", 64);
    let file = fs::read_dir(made.to_absolute()).unwrap().next().unwrap().unwrap();
    symlink(file.path(), laptop.conf()).unwrap();
    let known = format!("main@{}", larder.device_id);
    let host = format!("--host={}", larder.quic);
    let said = laptop.refused(1, ["use", &known, &host]);
    assert!(said.contains("nix.conf is made by NixOS"), "{said}");
    assert!(said.contains("--mode nixos"), "{said}");
    laptop.refused(3, ["remove", "main"]);
}

#[test]
fn what_cannot_be_written_is_named_and_stays() {
    let scene = Scene::new();
    // Root may write everywhere, so this is an ordinary user.
    let laptop = Laptop::of_nobody();
    let args = scene.args("main");
    laptop.write(&laptop.conf(), "max-jobs = 1\n");
    let said = laptop.refused(1, args.iter().map(String::as_str).chain(["-m", "root-nixconf"]));
    assert!(said.contains(&format!("cannot write the copy {}", laptop.conf().display())), "{said}");
    assert_eq!(fs::read_to_string(laptop.conf()).unwrap(), "max-jobs = 1\n");

    // A home that nobody can write to: neither Nix's file, nor ours.
    chown(laptop.path("home"), Some(0), Some(0)).unwrap();
    let said = laptop.refused(1, args.iter().map(String::as_str).chain(["-m", "user-nixconf"]));
    assert!(said.contains("cannot write") && said.contains("nix.conf"), "{said}");
}

#[test]
fn without_a_home_the_machines_files_will_do() {
    let scene = Scene::new();
    let mut command = scene.laptop.command(scene.args("main"));
    let output = command.env_remove("HOME").output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(scene.laptop.conf().exists());

    let laptop = Laptop::of_nobody();
    laptop.write(&laptop.conf(), "trusted-users = *\n");
    let output = laptop.command(scene.args("main")).env_remove("HOME").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("HOME"), "{}", told(&output));
}

#[test]
fn a_circle_of_includes_is_shown() {
    let Scene { larder, laptop, .. } = Scene::new();
    laptop.write(&laptop.conf(), "include a.conf\n");
    laptop.write(&laptop.path("etc/a.conf"), "include nix.conf\n");
    let host = format!("--host={}", larder.quic);
    let said = laptop.refused(2, ["use", &format!("main@{}", larder.device_id), &host]);
    assert!(said.contains("nix.conf") && said.contains("a.conf"), "{said}");
}

#[test]
fn a_large_conf_is_changed_and_a_huge_one_is_refused() {
    let scene = Scene::new();
    let (laptop, args) = (&scene.laptop, scene.args("main"));
    let large = "# a line of a megabyte\n".repeat((1 << 20) / 23);
    laptop.write(&laptop.conf(), &large);
    laptop.ok(&args);
    laptop.ok(["remove", "main"]);
    assert_eq!(fs::read_to_string(laptop.conf()).unwrap(), large);
    laptop.write(&laptop.conf(), "#\n".repeat(9 << 20));
    let said = laptop.refused(2, &args);
    assert!(said.contains("larger than 16 MiB"), "{said}");
}

#[test]
fn odd_netrcs_keep_every_byte() {
    let scene = Scene::new();
    let netrc = scene.laptop.path("etc/netrc");
    for text in [
        "machine a login b password c",
        "machine a login b password c machine d login e password f\n",
        "macdef init\ncd /pub\nmget *\n\nmachine a password c\n",
        "default login anonymous password me@here\n",
        "# comment\n\n\tmachine\ta\n\tpassword c\r\n",
        "machine a login \"with space\" password \"q\\\"uote\"\n",
    ] {
        scene.laptop.write(&netrc, text);
        scene.use_team(0);
        let with = fs::read_to_string(&netrc).unwrap();
        assert!(with.contains(text) && with.contains(&scene.token), "{with}");
        scene.use_team(0);
        assert_eq!(fs::read_to_string(&netrc).unwrap(), with);
        scene.laptop.ok(["remove", "team"]);
        assert_eq!(fs::read_to_string(&netrc).unwrap(), text);
    }
}

#[test]
fn a_netrc_with_that_host_or_of_another_user_is_left_alone() {
    let scene = Scene::new();
    let netrc = scene.laptop.path("etc/netrc");
    let text = "machine x login y password z\nmachine 127.0.0.1 login me password mine\n";
    scene.laptop.write(&netrc, text);
    let said = scene.use_team(1);
    assert!(said.contains("netrc, line 2") && !said.contains("mine"), "{said}");

    scene.laptop.write(&netrc, "");
    chown(&netrc, Some(65534), None).unwrap();
    let said = scene.use_team(1);
    assert!(said.contains("65534"), "{said}");
    assert!(!scene.laptop.conf().exists(), "half done");
    assert_eq!(fs::read(&netrc).unwrap(), b"");
}

#[test]
fn a_cache_that_cannot_be_used_says_why() {
    let scene = Scene::new();
    let args = scene.args("main");
    let Scene { mut larder, laptop, .. } = scene;
    let known = |cache| ["use".to_owned(), cache, args[2].clone()];
    for cache in ["missing", "team"] {
        let said = laptop.refused(3, known(args[1].replace("main", cache)));
        assert!(said.contains("only main") && said.contains("token"), "{said}");
    }
    for cache in ["Main", "main@", "main@1234", "nar"] {
        laptop.refused(2, ["use", cache]);
    }
    let both = ["use", "main", "--mode", "nixos", "--output-directory", "x"];
    laptop.refused(2, both);
    laptop.refused(2, ["use", "main", "--public-key", "x:AAAA"]);
    larder.stop();
    let said = laptop.refused(5, &args);
    assert!(said.contains(&larder.quic.to_string()), "{said}");
    assert_eq!(entries(&laptop.path("etc")), 0);
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}
