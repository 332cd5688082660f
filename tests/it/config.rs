//! `larder config`: what a user's machine remembers, with several boxes side by side.

use std::fs;

use larder::wire::{DeviceId, TokenText};

use crate::fixture::laptop::Laptop;
use crate::fixture::larder::TestBox;

#[test]
fn boxes_live_side_by_side_and_can_be_forgotten() {
    let laptop = Laptop::of_root();
    let (one, two) = (TestBox::start(), TestBox::start());
    for larder in [&one, &two] {
        let host = larder.quic.to_string();
        laptop.ok(["pair", &host, "--device-id", &larder.device_id]);
        laptop.ok(["--host", &host, "authtoken", &larder.token]);
        let shown = laptop.ok(["--host", &host, "--json", "status"]);
        assert!(shown.contains(&larder.device_id), "{shown}");
    }
    let listed = laptop.ok(["config", "list"]);
    for larder in [&one, &two] {
        assert!(listed.contains(&format!("boxes.{} = {}", larder.quic, larder.device_id)));
        assert!(listed.contains(&format!("tokens.{} = {}", larder.device_id, larder.quic)));
    }
    assert!(!listed.contains("ldr_"), "tokens are not shown");

    laptop.ok(["config", "set", "hostname", &one.quic.to_string()]);
    assert_eq!(laptop.ok(["config", "get", "host"]).trim(), one.quic.to_string());
    assert!(laptop.ok(["--json", "status"]).contains(&one.device_id));
    // What is said for one command counts more.
    let mut status = laptop.command(["--json", "status"]);
    let output = status.env("LARDER_HOST", two.quic.to_string()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&two.device_id));

    let key = format!("tokens.{}", one.device_id);
    laptop.ok(["config", "unset", &key]);
    let said = laptop.refused(3, ["config", "unset", &key]);
    assert!(said.contains("is not set"), "{said}");
    laptop.refused(4, ["status"]);
    laptop.ok(["config", "unset", &format!("boxes.{}", one.quic)]);
    laptop.ok(["config", "unset", "host"]);
    laptop.refused(3, ["config", "get", "host"]);
    // The other one is as it was, and the only one.
    assert!(laptop.ok(["--json", "status"]).contains(&two.device_id));
}

#[test]
fn keys_and_values_that_are_none_change_nothing() {
    let laptop = Laptop::of_root();
    let file = laptop.path("home/.config/larder/client.toml");
    let id = DeviceId([7; 20]);
    for args in [
        &["config", "get", "nothing"][..],
        &["config", "set", "host", "a b"],
        &["config", "set", &format!("boxes.{id}"), "office"],
        &["config", "set", &format!("tokens.{id}"), "office"],
        &["config", "unset", "tokens.1234"],
        &["config"],
    ] {
        laptop.refused(2, args);
    }
    assert!(!file.exists());
    let token = TokenText::new(id, [9; 32]).to_secret_text();
    laptop.write(&file, format!("hots = 1\n[tokens.{id}]\ntoken = \"{token}\"\n"));
    let before = fs::read(&file).unwrap();
    let said = laptop.refused(2, ["config", "set", "host", "office"]);
    assert!(said.contains("line 1") && said.contains("hots"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), before);
}
