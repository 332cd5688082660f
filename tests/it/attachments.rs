//! Build logs and realisations travel with a push, and Nix finds them.

use std::io::Read;

use larder::formats::attachment;
use larder::formats::{AttachmentName, StorePath};
use larder::wire::RefusalCode;
use larder::wire::message::{BoxMessage, ClientMessage};

use crate::fixture::larder::TestBox;
use crate::fixture::nix::{CONTENT_ADDRESSED, NixStore, SecondStore};
use crate::fixture::raw_quic::{Heard, RawClient, RawStream};
use crate::fixture::served::get;

fn log_url(larder: &TestBox, cache: &str, derivation: &StorePath) -> String {
    larder.url(&format!("{cache}log/{}", derivation.base_name()))
}

#[test]
fn nix_shows_the_log_of_a_build_that_was_made_elsewhere() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let (path, derivation, said) = nix.build_logged("shown");
    larder.push("main", &[path.to_absolute()]);
    for cache in ["main/", ""] {
        let mut answer = ureq::get(log_url(&larder, cache, &derivation)).call().unwrap();
        let header = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(answer.body_mut().read_to_string().unwrap(), format!("{said}\n"));
    }
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    second.substitute_whole(&path, std::slice::from_ref(&path));
    let shown = second.command("nix").args(["log", &path.to_absolute()]).output().unwrap();
    let error = String::from_utf8_lossy(&shown.stderr);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), format!("{said}\n"), "{error}");

    let (quiet, derivation, _) = nix.build_logged("quiet");
    larder.json(["push", "main", &quiet.to_absolute(), "--no-logs"]);
    assert_eq!(get(&log_url(&larder, "main/", &derivation)), None);
    assert_eq!(get(&larder.url("main/log/../../etc/passwd")), None);
    assert_eq!(get(&larder.url(&format!("main/log/{}", quiet.base_name()))), None);
}

#[test]
fn a_log_survives_a_kill_and_a_new_index_and_goes_with_its_cache() {
    let (nix, mut larder) = (NixStore::new(), TestBox::start());
    larder.create_cache("team", &["--private"]);
    let (path, derivation, said) = nix.build_logged("kept");
    larder.push("main", &[path.to_absolute()]);
    larder.push("team", &[path.to_absolute()]);
    let main = |larder: &TestBox| get(&log_url(larder, "main/", &derivation)).unwrap();
    larder.kill();
    larder.restart_in_place();
    assert_eq!(main(&larder), format!("{said}\n").as_bytes());
    larder.stop();
    let data = larder.data().display().to_string();
    assert!(larder.run(["fsck", "--rebuild-index", "--data", &data]).status.success());
    larder.restart_in_place();
    assert_eq!(main(&larder), format!("{said}\n").as_bytes());
    assert!(larder.run(["fsck"]).status.success());

    // A private cache's is for its readers.
    let url = log_url(&larder, "team/", &derivation);
    assert!(matches!(ureq::get(&url).call(), Err(ureq::Error::StatusCode(401))));
    let token = format!("Bearer {}", larder.create_token(&["team:read"]));
    assert!(ureq::get(&url).header("Authorization", token).call().is_ok());
    assert!(larder.run(["cache", "delete", "main", "--yes"]).status.success());
    let gone = ureq::get(log_url(&larder, "main/", &derivation)).call();
    assert!(matches!(gone, Err(ureq::Error::StatusCode(401))));
}

async fn ask(client: &RawClient, name: &AttachmentName, frame: Vec<u8>) -> BoxMessage {
    let mut stream: RawStream = client.open().await;
    let (cache, name) = ("main".parse().unwrap(), name.clone());
    stream.say(&ClientMessage::Attach { cache, name, frame: frame.into() }).await;
    match stream.hear().await {
        Heard::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_none_is_refused_and_the_first_one_stays() {
    let larder = TestBox::start();
    let token = larder.create_token(&["main:write"]);
    let device_id = larder.device_id.parse().unwrap();
    let (client, _control) = RawClient::greeted(larder.quic, device_id, &token).await;
    let path = |name: &str| format!("syd87l2rxw8cbsxmxl853h0r6pdwhwjr-{name}").parse().unwrap();
    let log = AttachmentName::BuildLog(path("curl.drv"));
    let output = format!("sha256:{}!out", "ab".repeat(32));
    let realisation = AttachmentName::Realisation(output.parse().unwrap());
    let pack = |contents: &[u8]| attachment::pack(contents, 3).unwrap();
    let other = format!(
        r#"{{"dependentRealisations":{{}},"id":"sha256:{}!out","outPath":"{}","signatures":[]}}"#,
        "cd".repeat(32),
        "syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl"
    );
    for (name, frame, code) in [
        (&AttachmentName::BuildLog(path("curl")), pack(b"x"), RefusalCode::BadRequest),
        (&log, b"no frame".to_vec(), RefusalCode::BadFrame),
        (&log, [pack(b"x"), pack(b"y")].concat(), RefusalCode::BadFrame),
        (&log, pack(&vec![0; (64 << 20) + 1]), RefusalCode::TooLarge),
        (&realisation, pack(b"{}"), RefusalCode::BadRequest),
        (&realisation, pack(other.as_bytes()), RefusalCode::BadRequest),
        (&realisation, pack(&vec![b' '; (64 << 10) + 1]), RefusalCode::TooLarge),
    ] {
        match ask(&client, name, frame).await {
            BoxMessage::Refused(refusal) => assert_eq!(refusal.code, code, "{refusal}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    for (contents, is_new) in [(b"first", true), (b"other", false)] {
        assert_eq!(ask(&client, &log, pack(contents)).await, BoxMessage::Attached { is_new });
    }
    let mut served = ureq::get(larder.url("main/log/syd87l2rxw8cbsxmxl853h0r6pdwhwjr-curl.drv"));
    served = served.header("Accept-Encoding", "identity");
    let mut text = String::new();
    served.call().unwrap().body_mut().as_reader().read_to_string(&mut text).unwrap();
    assert_eq!(text, "first");

    let reader = larder.create_token(&["main:read"]);
    let (client, _control) = RawClient::greeted(larder.quic, device_id, &reader).await;
    let refused = ask(&client, &log, pack(b"x")).await;
    assert!(matches!(refused, BoxMessage::Refused(r) if r.code == RefusalCode::Forbidden));
}

#[test]
fn a_content_addressed_path_is_found_by_its_realisation() {
    let (nix, larder) = (NixStore::new(), TestBox::start());
    let (path, expression) = nix.build_content_addressed("realised");
    let path = path.to_absolute();
    larder.push("main", &[&path]);
    let served = get(&larder.url(&format!("main/{}.narinfo", &path[11..43]))).unwrap();
    assert!(String::from_utf8(served).unwrap().contains("\nCA: fixed:r:sha256:"));

    // Another store has neither: it asks for the realisation, and takes the path.
    let second = SecondStore::new(&larder.url("main"), &larder.public_key);
    let mut build = second.command("nix-build");
    build.args(["--no-out-link", "-E", &expression]).args(CONTENT_ADDRESSED);
    let built = build.output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert_eq!(String::from_utf8_lossy(&built.stdout).trim(), path, "{said}");
    assert!(!said.contains("building '"), "it was built anew: {said}");
}
