//! Where UDP is blocked: the same messages by pinned TLS, and nothing secret in clear.

use std::net::Ipv4Addr;
use std::process::{Command, Output};

use data_encoding::{BASE64, BASE64_NOPAD};
use larder::wire::{DeviceId, TokenText};

use crate::fixture::faketime;
use crate::fixture::larder::{Start, TestBox};
use crate::fixture::nix::{NixStore, SecondStore};
use crate::fixture::relay::Relay;
use crate::fixture::served::assert_served;
use crate::tokens::assert_push_ends_with_its_token;

/// A box whose UDP is not where its TCP is.
fn without_udp(variables: Vec<(String, String)>) -> TestBox {
    let args = ["--quic-listen", "127.0.0.2:0"].map(str::to_owned).to_vec();
    let mut larder = TestBox::start_as(Start { args, variables, ..Start::default() });
    // The box tells the port alone.
    larder.quic.set_ip(Ipv4Addr::new(127, 0, 0, 2).into());
    larder
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Every form in which the token could be seen.
fn forms_of(token: &str) -> Vec<Vec<u8>> {
    let parsed: TokenText = token.parse().unwrap();
    let secret = token.rsplit('_').next().unwrap();
    let mut forms = vec![token.into(), secret.into(), parsed.secret().to_vec()];
    forms.push(parsed.secret_hash().to_vec());
    // Base64 of it at each of the three places that it can have in a group.
    for start in 0..3 {
        let text = BASE64_NOPAD.encode(&token.as_bytes()[start..start + 60]);
        forms.push(text.into());
    }
    forms.push(BASE64.encode(format!(":{token}").as_bytes()).into());
    forms
}

#[test]
fn a_push_goes_by_tls_and_whoever_listens_learns_no_token() {
    let nix = NixStore::new();
    let graph = nix.build_graph("no-udp");
    let mut larder = without_udp(Vec::new());
    let relay = Relay::to(larder.http);
    let run = |args: &[&str]| {
        let mut command = larder.command(args);
        command.env("LARDER_HOST", relay.address.to_string()).output().unwrap()
    };

    let pushed = run(&["push", "main", &graph.top.to_absolute()]);
    assert!(pushed.status.success(), "{}", told(&pushed));
    let said = told(&pushed);
    let notice = format!("UDP to {} is blocked; using TLS over TCP", relay.address);
    assert_eq!(said.matches(&notice).count(), 1, "{said}");
    assert!(said.contains("stored 5, known 0, hidden 0"), "{said}");
    for path in &graph.closure {
        assert_served(&larder, &nix, path);
    }

    // Administration, and the question what is missing.
    let made = run(&["token", "create", "--cache", "main:write", "--json"]);
    assert!(made.status.success(), "{}", told(&made));
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let again = run(&["push", "main", &graph.top.to_absolute()]);
    assert!(told(&again).contains("stored 0, known 5"), "{}", told(&again));
    assert!(run(&["status"]).status.success());

    let passed = relay.passed();
    assert!(passed.len() > 10_000, "only {} bytes", passed.len());
    for token in [larder.token.as_str(), made["secret"].as_str().unwrap()] {
        for form in forms_of(token) {
            assert!(!contains(&passed, &form), "{}", String::from_utf8_lossy(&form));
        }
    }
    larder.stop();
}

#[test]
fn a_large_path_goes_by_tls_and_a_revoked_token_is_refused() {
    let nix = NixStore::new();
    let big = nix.big_path("no-udp-big", 40 << 20);
    let larder = without_udp(Vec::new());
    let made = larder.json(["--host", &larder.quic.to_string(), "token", "create"]);
    let (secret, id) = (made["secret"].as_str().unwrap(), made["token"]["id"].to_string());
    let run = |args: &[&str]| {
        let mut command = larder.command(args);
        command.env("LARDER_HOST", larder.http.to_string()).env("LARDER_AUTH_TOKEN", secret);
        command.output().unwrap()
    };
    let pushed = run(&["push", "main", &big.to_absolute()]);
    assert!(pushed.status.success(), "{}", told(&pushed));
    assert!(told(&pushed).contains("using TLS over TCP"), "{}", told(&pushed));
    assert_served(&larder, &nix, &big);

    let revoked = larder.run(["--host", &larder.quic.to_string(), "token", "revoke", &id]);
    assert!(revoked.status.success(), "{}", told(&revoked));
    let refused = run(&["push", "main", &big.to_absolute()]);
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    assert!(told(&refused).contains("revoked"), "{}", told(&refused));
}

#[test]
fn a_push_by_tls_ends_with_its_token() {
    let larder = without_udp(Vec::new());
    let said = assert_push_ends_with_its_token(&larder, &larder.http.to_string());
    assert!(said.contains("using TLS over TCP"), "{said}");
}

#[test]
fn another_key_is_refused_with_both_ids_either_way() {
    let larder = without_udp(Vec::new());
    let real: TokenText = larder.token.parse().unwrap();
    let expected = DeviceId([7; 20]);
    let token = TokenText::new(expected, *real.secret());
    for address in [larder.quic, larder.http] {
        let mut command = larder.command(["status"]);
        command.env("LARDER_HOST", address.to_string());
        command.env("LARDER_AUTH_TOKEN", token.to_secret_text());
        let refused = command.output().unwrap();
        let said = told(&refused);
        assert_eq!(refused.status.code(), Some(4), "{said}");
        assert!(said.contains(&larder.device_id), "{said}");
        assert!(said.contains(&expected.to_string()), "{said}");
    }
}

#[test]
fn no_clock_keeps_a_client_from_its_box() {
    let Some(library) = faketime::library() else { return };
    let at = |time: &str| faketime::variables(&library, time);
    let (early, late) = ("@1970-01-02 00:00:00", "@2100-01-01 00:00:00");
    let date = |time: &str| Command::new("date").arg("+%Y").envs(at(time)).output().unwrap();
    assert_eq!(told(&date(late)).trim(), "2100", "faketime fakes");

    for (of_box, of_client) in [(early, late), (late, early)] {
        let larder = without_udp(at(of_box));
        for address in [larder.quic, larder.http] {
            let mut command = larder.command(["status", "--json"]);
            command.env("LARDER_HOST", address.to_string()).envs(at(of_client));
            let status = command.output().unwrap();
            assert!(status.status.success(), "{of_box}, {of_client}: {}", told(&status));
            let by_tls = String::from_utf8_lossy(&status.stderr).contains("using TLS over TCP");
            assert_eq!(by_tls, address == larder.http);
            let shown: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
            let is_early = shown["now"].as_u64().unwrap() < 10 * 86_400;
            assert_eq!(is_early, of_box == early, "{shown}");
        }
    }
}

#[test]
fn a_push_by_tls_goes_on_when_the_box_is_started_again() {
    let nix = NixStore::new();
    let paths = nix.many_tiny("no-udp-again", 4);
    let mut larder = without_udp(Vec::new());
    let first = paths.first().unwrap().to_absolute();
    let run = |larder: &TestBox, path: &str| {
        let mut command = larder.command(["push", "main", path]);
        command.env("LARDER_HOST", larder.http.to_string()).output().unwrap()
    };
    assert!(run(&larder, &first).status.success());
    larder.restart();
    for path in &paths {
        assert!(run(&larder, &path.to_absolute()).status.success());
    }
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    assert!(second.substitute(paths.last().unwrap()).status.success());
}
