//! Tokens from their making to their end, what they have under way then, and the log of what they
//! were used for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use larder::formats::{PathInfo, Sha256Hash};
use larder::wire::message::{ClientMessage, Offer};
use larder::wire::{DeviceId, Refusal, RefusalCode, TokenText};
use serde_json::Value;

use crate::fixture::ending::assert_end;
use crate::fixture::larder::TestBox;
use crate::fixture::nix::NixStore;
use crate::fixture::raw_quic::{Heard, RawClient, RawStream, device_key};

/// How long what is under way may go on after its token's end.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);

/// Number and text of a new token for `main`.
fn token(larder: &TestBox, right: &str, more: &[&str]) -> (String, String) {
    let cache = format!("main:{right}");
    let args = [&["token", "create", "--cache", cache.as_str()], more].concat();
    let made = larder.json(args);
    (made["token"]["id"].to_string(), made["secret"].as_str().unwrap().to_owned())
}

fn run_as(larder: &TestBox, token: &str, args: &[&str]) -> Output {
    let mut command = larder.command(args);
    command.env("LARDER_AUTH_TOKEN", token).stdin(Stdio::null()).output().unwrap()
}

/// A push that has begun, and whose box waits for the first batch.
async fn push_under_way(client: &RawClient) -> RawStream {
    let info = PathInfo {
        store_path: format!("{}-endless", "0".repeat(32)).parse().unwrap(),
        nar_hash: Sha256Hash::of(b"endless"),
        nar_size: 1 << 40,
        references: Vec::new(),
        deriver: None,
        ca: None,
        signatures: Vec::new(),
    };
    let signature = device_key().sign(info.fingerprint().as_bytes());
    let offer = Offer { info, device_signature: signature.as_bytes().to_vec() };
    let cache = "main".parse().unwrap();
    let mut push = client.open().await;
    push.say(&ClientMessage::Offer { cache, offer, inline: Vec::new() }).await;
    push
}

/// What the stream is refused with in the end, and when.
async fn refusal_in_the_end(stream: &mut RawStream) -> (Refusal, Instant) {
    loop {
        match stream.hear().await {
            Heard::Message(larder::wire::message::BoxMessage::Refused(refusal)) => {
                return (refusal, Instant::now());
            }
            Heard::Message(_) => {}
            other => panic!("no refusal, but {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_cut_off_when_its_token_is_revoked() {
    let larder = TestBox::start();
    let device_id: DeviceId = larder.device_id.parse().unwrap();
    let (id, text) = token(&larder, "write", &[]);
    let (client, _control) = RawClient::greeted(larder.quic, device_id, &text).await;
    let mut push = push_under_way(&client).await;

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { refusal_in_the_end(&mut push).await });
    assert_end(&larder.run(["token", "revoke", &id]), 0, &["revoked"]);
    let revoked_at = Instant::now();
    let (refusal, refused_at) = tasks.join_next().await.unwrap().unwrap();

    let took = refused_at.saturating_duration_since(revoked_at);
    println!("cut off {} ms after the revocation was acknowledged", took.as_millis());
    assert!(took < CUT_OFF_WITHIN, "{took:?}");
    assert_eq!(refusal.code, RefusalCode::Unauthorised);
    assert!(refusal.sentence.contains("the token was revoked"), "{refusal}");
    let closed = tokio::time::timeout(PATIENCE, client.connection.closed()).await;
    assert!(closed.is_ok(), "the connection goes too");
    assert_end(&run_as(&larder, &text, &["status"]), 4, &["revoked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_cut_off_when_its_token_expires() {
    let larder = TestBox::start();
    let device_id: DeviceId = larder.device_id.parse().unwrap();
    let made = larder.json(["token", "create", "--cache", "main", "--expires", "4s"]);
    let end = made["token"]["expires_at"].as_u64().unwrap();
    let text = made["secret"].as_str().unwrap();
    let (client, _control) = RawClient::greeted(larder.quic, device_id, text).await;
    let mut push = push_under_way(&client).await;

    let (refusal, _) = refusal_in_the_end(&mut push).await;

    let now = larder::services::clock::now();
    println!("cut off at second {now}; the token was good until {end}");
    assert!((end..=end + 1).contains(&now), "{end} {now}");
    assert!(refusal.sentence.contains("has expired"), "{refusal}");
}

#[test]
fn a_push_whose_token_is_revoked_ends_and_is_not_tried_again() {
    let larder = TestBox::start();
    assert_push_ends_with_its_token(&larder, &larder.quic.to_string());
}

/// Revokes a token in the middle of a push to that address of the box; what the push said.
pub(crate) fn assert_push_ends_with_its_token(larder: &TestBox, host: &str) -> String {
    const BIG_BYTES: u64 = 200 << 20;
    let nix = NixStore::new();
    let big = nix.big_path("revoked", BIG_BYTES).to_absolute();
    let (id, text) = token(larder, "write", &[]);
    let mut push = larder.command(["push", "main", &big]);
    push.env("LARDER_HOST", host).env("LARDER_AUTH_TOKEN", &text);
    push.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut push = push.spawn().unwrap();
    let begun = Instant::now();
    let pack_bytes = || -> u64 {
        let packs = fs::read_dir(larder.data().join("packs")).unwrap();
        packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum()
    };
    while pack_bytes() < 8 << 20 {
        assert!(push.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE);
        // The pace of looking; the moment is when the bytes are there.
        thread::sleep(Duration::from_millis(2));
    }

    assert_end(&larder.run(["token", "revoke", &id]), 0, &["revoked"]);
    let revoked_at = Instant::now();

    let ended = push.wait_with_output().unwrap();
    println!("the command ended {} ms after the revocation", revoked_at.elapsed().as_millis());
    assert_end(&ended, 4, &["the token was revoked"]);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!said.contains("try 2"), "{said}");
    assert!(revoked_at.elapsed() < PATIENCE);
    said.into_owned()
}

#[test]
fn a_token_that_is_no_good_is_named_as_what_it_is() {
    let larder = TestBox::start();
    let (_, good) = token(&larder, "write", &[]);
    let device_id: DeviceId = larder.device_id.parse().unwrap();
    let elsewhere = TokenText::new(DeviceId([1; 20]), [2; 32]).to_secret_text();
    let wrong = TokenText::new(device_id, [2; 32]).to_secret_text();
    let status = |token: &str| run_as(&larder, token, &["status"]);
    assert_end(&status(&good[..88]), 4, &["LARDER_AUTH_TOKEN holds no token"]);
    assert_end(&status(&elsewhere), 4, &[&larder.device_id, "device ID"]);
    assert_end(&status(&wrong), 4, &["not known here"]);
    assert_end(&status(&good), 4, &["personal"]);

    let admin = |token: &str| {
        let url = larder.url("api/larder/v1/status");
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let answer = agent.get(url).header("Authorization", format!("Bearer {token}")).call();
        let mut answer = answer.unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    for (token, word) in [
        (&good[..88], "89 characters"),
        (&elsewhere, "for the box"),
        (&wrong, "not known"),
        ("", "is needed"),
        ("ldr_~", "token"),
    ] {
        let (status, body) = admin(token);
        assert_eq!(status, 401, "{body}");
        assert!(body.contains(word), "{word}: {body}");
    }

    let begun = Instant::now();
    for secret in 10..30 {
        assert_eq!(admin(&TokenText::new(device_id, [secret; 32]).to_secret_text()).0, 401);
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1800), "20 wrong secrets took {took:?} only");
    assert_eq!(admin(&larder.token).0, 200);

    for label in ["two\nlines", "\u{1b}[2J", "turned \u{202e}round", &"long".repeat(30)] {
        let made = larder.run(["token", "create", "--label", label]);
        assert_end(&made, 1, &["a label is one line of at most 100 characters"]);
    }
}

#[test]
fn a_token_that_expired_a_second_ago_is_no_good() {
    let larder = TestBox::start();
    let (_, text) = token(&larder, "write", &["--expires", "3s"]);
    let begun = Instant::now();
    loop {
        let status = run_as(&larder, &text, &["status"]);
        if String::from_utf8_lossy(&status.stderr).contains("expired") {
            break assert_end(&status, 4, &["the token has expired"]);
        }
        // Good, but not for this.
        assert_end(&status, 4, &["personal"]);
        assert!(begun.elapsed() < PATIENCE);
        // The pace of looking; the moment is when the box says so.
        thread::sleep(Duration::from_millis(100));
    }
    assert!(begun.elapsed() > Duration::from_secs(1));
    let list = String::from_utf8(larder.run(["token", "list"]).stdout).unwrap();
    assert!(list.contains("expired"), "{list}");
}

#[test]
fn a_token_of_one_device_is_refused_from_another() {
    let larder = TestBox::start();
    let token_of = |device: &str| {
        let made = larder.json(["token", "create", "--device", device]);
        made["secret"].as_str().unwrap().to_owned()
    };
    let mut save = larder.command(["authtoken", "--stdin", "--json"]);
    save.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut save = save.spawn().unwrap();
    std::io::Write::write_all(save.stdin.as_mut().unwrap(), larder.token.as_bytes()).unwrap();
    let saved: Value = serde_json::from_slice(&save.wait_with_output().unwrap().stdout).unwrap();
    let here = saved["this_device"].as_str().unwrap();
    let elsewhere = DeviceId([3; 20]).to_string();

    assert_end(&run_as(&larder, &token_of(here), &["status"]), 0, &[]);
    assert_end(&run_as(&larder, &token_of(&elsewhere), &["status"]), 4, &[&elsewhere]);
}

#[test]
fn the_last_personal_token_is_kept_unless_it_is_meant_and_a_new_one_is_made_on_the_box() {
    let mut larder = TestBox::start();
    let data = larder.data().to_str().unwrap().to_owned();
    let recover = ["token", "recover", "--data", &data];
    let last = larder.run(["token", "revoke", "1"]);
    assert_end(&last, 1, &["the only personal one", "larder token create", "larder token recover"]);
    let (other, _) = token(&larder, "write", &[]);
    assert_end(&larder.run(["token", "revoke", &other]), 0, &[]);
    assert_end(&larder.run(["token", "revoke", "77"]), 3, &["77"]);
    let second = larder.json(["token", "create", "--label", "laptop"]);
    assert_end(&larder.run(["token", "revoke", "1"]), 0, &["revoked"]);
    larder.token = second["secret"].as_str().unwrap().to_owned();
    assert_end(&larder.run(["token", "revoke", "3", "--yes"]), 0, &["revoked"]);
    assert_end(&larder.run(["status"]), 4, &["revoked"]);

    assert_end(&larder.run(recover), 1, &["another larder", "systemctl stop larder"]);
    larder.stop();
    let file = larder.data().join("admin.token");
    fs::remove_file(&file).unwrap();
    let made = larder.json(recover);
    assert_eq!(made["admin_token_file"], file.to_str().unwrap());
    assert_eq!(made["personal"], serde_json::json!([]), "all of before are revoked");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = larder.json(recover);
    assert_eq!(again["personal"][0]["id"], made["token"], "{again}");

    larder.restart();
    larder.token = fs::read_to_string(&file).unwrap().trim().to_owned();
    let list = String::from_utf8(larder.run(["token", "list"]).stdout).unwrap();
    assert!(list.contains("made by token recover") && list.contains("laptop"), "{list}");
    let nowhere = larder.run(["token", "recover", "--data", "/nowhere/at/all"]);
    assert_end(&nowhere, 3, &["/nowhere/at/all", "--data"]);
}

#[test]
fn the_log_tells_who_pushed_what() {
    let nix = NixStore::new();
    let graph = nix.build_graph("logged");
    let top = graph.top.to_absolute();
    let larder = TestBox::start();
    let (id, ci) = token(&larder, "write", &["--label", "CI"]);
    assert_end(&run_as(&larder, &ci, &["push", "main", &top]), 0, &[]);

    let log = larder.json(["log", "main"]);
    let pushes = log["pushes"].as_array().unwrap();
    assert_eq!(pushes.len(), graph.closure.len(), "{log}");
    let first = &pushes[0];
    let id: i64 = id.parse().unwrap();
    assert!(pushes.iter().all(|push| push["token"] == id), "{log}");
    assert_eq!((&first["token_label"], &first["visible"]), (&"CI".into(), &true.into()));
    assert_eq!(first["device"].as_str().unwrap().len(), larder.device_id.len());
    let times: Vec<_> = pushes.iter().map(|push| push["pushed_at"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");

    let text = String::from_utf8(larder.run(["log", "main", &top]).stdout).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains(&top) && text.contains("(CI)"), "{text}");
    assert_eq!(larder.json(["log", "main", "--since", "1h"]), log);
    let none = larder.json(["log", "main", "--since", "2100-01-01"]);
    assert_eq!(none["pushes"], serde_json::json!([]));
    let absent = format!("/nix/store/{}-x", "0".repeat(32));
    assert_end(&larder.run(["log", "main", &absent]), 3, &[&absent[11..43]]);
    assert_end(&larder.run(["log", "nowhere"]), 3, &["nowhere"]);
    assert_end(&larder.run(["log", "main", "x"]), 2, &["no store path"]);
    assert_end(&run_as(&larder, &ci, &["log", "main"]), 4, &["personal"]);
}
