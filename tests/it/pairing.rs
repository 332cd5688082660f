//! `larder pair`: who the box is, confirmed once, and a token for a code.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use larder::wire::DeviceId;

use crate::fixture::larder::{TestBox, command};

/// A machine of somebody else, with nothing configured.
struct Laptop(tempfile::TempDir);

impl Laptop {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, args: &[&str]) -> Output {
        command(self.0.path(), args).stdin(Stdio::null()).output().unwrap()
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("home/.config/larder/client.toml")
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn code(larder: &TestBox, args: &[&str]) -> String {
    let all = [&["token", "create", "--pairing-code"], args].concat();
    larder.json(all)["code"].as_str().unwrap().to_owned()
}

#[test]
fn without_a_terminal_the_id_must_be_said_and_must_be_right() {
    let (larder, laptop) = (TestBox::start(), Laptop::new());
    let host = larder.quic.to_string();

    let refused = laptop.run(&["pair", &host]);
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    assert!(told(&refused).contains(&larder.device_id), "{}", told(&refused));
    assert!(told(&refused).contains("--device-id"), "{}", told(&refused));

    let other = DeviceId([7; 20]).to_string();
    let refused = laptop.run(&["pair", &host, "--device-id", &other]);
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    for id in [&larder.device_id, &other] {
        assert!(told(&refused).contains(id), "{}", told(&refused));
    }
    assert!(!laptop.config().exists());

    let paired = laptop.run(&["pair", &host, "--device-id", &larder.device_id]);
    assert!(paired.status.success(), "{}", told(&paired));
    // From now on nobody needs to be asked, and no other box counts there.
    assert!(laptop.run(&["pair", &host]).status.success());
    let other = TestBox::start();
    let mut status = command(laptop.0.path(), ["--host", &host, "status"]);
    let refused = status.env("LARDER_AUTH_TOKEN", &other.token).output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    assert!(told(&refused).contains(&larder.device_id), "{}", told(&refused));
}

#[test]
fn a_code_brings_a_token_once() {
    let (larder, laptop) = (TestBox::start(), Laptop::new());
    let host = larder.quic.to_string();
    let code = code(&larder, &["--cache", "main:read", "--label", "laptop"]);
    assert_eq!(code.len(), 9, "{code}");
    let pair =
        |code: &str| laptop.run(&["pair", &host, "--device-id", &larder.device_id, "--code", code]);

    // As somebody types it.
    let paired = pair(&code.to_uppercase().replace('-', ""));
    assert!(paired.status.success(), "{}", told(&paired));
    let mode = std::fs::metadata(laptop.config()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let saved = std::fs::read_to_string(laptop.config()).unwrap();
    assert!(saved.contains("ldr_"), "no token");
    let tokens = larder.json(["token", "list"]);
    let of_laptop = tokens["tokens"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(of_laptop["label"], "laptop");
    assert_eq!(of_laptop["caches"][0]["cache"], "main");
    // A token for reading administers nothing, but the box knows it.
    let refused = laptop.run(&["status"]);
    assert!(told(&refused).contains("administration needs a personal token"), "{}", told(&refused));

    let again = pair(&code);
    assert_eq!(again.status.code(), Some(4), "{}", told(&again));
    assert!(told(&again).contains("used already"), "{}", told(&again));
    assert!(!larder.log().contains(&code) && !larder.log().contains("ldr_"), "a secret is logged");
}

#[test]
fn who_guesses_codes_ends_them_all() {
    let (larder, laptop) = (TestBox::start(), Laptop::new());
    let host = larder.quic.to_string();
    let code = code(&larder, &[]);
    let pair =
        |code: &str| laptop.run(&["pair", &host, "--device-id", &larder.device_id, "--code", code]);
    let wrong = if code == "0000-0000" { "0000-0001" } else { "0000-0000" };
    for _ in 0..9 {
        let refused = pair(wrong);
        assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
        assert!(told(&refused).contains("code is wrong"), "{}", told(&refused));
    }
    for code in [wrong, &code] {
        let refused = pair(code);
        assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
        assert!(told(&refused).contains("too many wrong"), "{}", told(&refused));
    }
    let count = larder.json(["token", "list"])["tokens"].as_array().unwrap().len();
    assert_eq!(count, 1, "no token was made");
}

#[test]
fn a_code_for_a_cache_that_is_not_there_is_refused_where_it_is_made() {
    let larder = TestBox::start();
    let refused = larder.run(["token", "create", "--pairing-code", "--cache", "nowhere"]);
    assert_eq!(refused.status.code(), Some(3), "{}", told(&refused));
    assert!(told(&refused).contains("nowhere"), "{}", told(&refused));
}
