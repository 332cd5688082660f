//! The substituter and the administration over HTTP, as clients of a real box meet them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use larder::formats::{NarInfo, Sha256Hash, StorePath};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;

use crate::fixture::larder::TestBox;
use crate::fixture::nix::NixStore;
use crate::fixture::served::{assert_served, narinfo};

/// Answers as they are, whatever their status.
fn agent() -> Agent {
    Agent::config_builder().http_status_as_error(false).build().into()
}

struct Answer {
    status: u16,
    response: Response<ureq::Body>,
    body: Vec<u8>,
}

impl Answer {
    fn new(mut response: Response<ureq::Body>) -> Self {
        let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().unwrap();
        Self { status: response.status().as_u16(), response, body }
    }

    fn header(&self, name: &str) -> &str {
        self.response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn get(url: &str, headers: &[(&str, &str)]) -> Answer {
    let request = agent().get(url);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::new(request.call().unwrap())
}

/// What a connection of its own gives, head and all, until its end.
fn raw(larder: &TestBox, request: &str) -> String {
    let mut stream = TcpStream::connect(larder.http).unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _end_or_reset = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A box with one path of some megabytes in `main`.
fn with_path(seed: &str) -> (NixStore, TestBox, StorePath, NarInfo) {
    let nix = NixStore::new();
    let larder = TestBox::start();
    let path = nix.big_path(seed, 5 << 20);
    larder.push("main", &[path.to_absolute()]);
    let narinfo = narinfo(&larder, "main", &path).unwrap();
    (nix, larder, path, narinfo)
}

#[test]
fn head_is_answered_wherever_get_is_and_without_a_body() {
    let (_nix, larder, path, narinfo) = with_path("head");
    let hash = path.hash();
    for file in
        ["nix-cache-info".to_owned(), format!("{hash}.narinfo"), format!("{hash}.ls"), narinfo.url]
    {
        for path in [format!("/{file}"), format!("/main/{file}")] {
            let head = raw(&larder, &format!("HEAD {path}"));
            let (head, body) = head.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
            assert_eq!(body, "", "{path}");
            let whole = get(&format!("http://{}{path}", larder.http), &[]);
            let length = format!("content-length: {}", whole.body.len());
            assert!(head.lines().any(|line| line == length), "{path}: {length} in {head}");
        }
    }
    let miss = raw(&larder, &format!("HEAD /main/{}.narinfo", "0".repeat(32)));
    assert!(miss.starts_with("HTTP/1.1 404 "), "{miss}");
}

#[test]
fn a_download_that_was_cut_is_continued() {
    let (_nix, larder, _path, narinfo) = with_path("continued");
    let url = larder.url(&format!("main/{}", narinfo.url));
    let tag = get(&url, &[("Range", "bytes=0-0")]).header("etag").to_owned();
    let first = get(&url, &[("Range", "bytes=0-1999999")]);
    let rest = get(&url, &[("Range", "bytes=2000000-"), ("If-Range", &tag)]);

    assert_eq!((first.status, rest.status), (206, 206));
    let whole = [first.body, rest.body].concat();
    assert_eq!(narinfo.file_size, Some(u64::try_from(whole.len()).unwrap()));
    assert_eq!(narinfo.file_hash, Some(Sha256Hash::of(&whole)));
    let size = whole.len();
    let beyond = get(&url, &[("Range", &format!("bytes={size}-"))]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, &*format!("bytes */{size}")));
    let other = get(&url, &[("Range", "bytes=5-"), ("If-Range", "\"another\"")]);
    assert_eq!((other.status, other.body.len()), (200, size));
    let known = get(&url, &[("If-None-Match", &tag)]);
    assert_eq!((known.status, known.body.len()), (304, 0));
}

#[test]
fn what_is_not_here_is_a_short_404_and_what_is_no_read_a_405() {
    let (_nix, larder, _path, narinfo) = with_path("misses");
    let absent = "0".repeat(32);
    let nar = Sha256Hash::of(b"absent").to_base32();
    for path in [
        format!("{absent}.narinfo"),
        format!("main/{absent}.narinfo"),
        format!("main/{absent}.ls"),
        format!("main/nar/{nar}-1.nar.zst"),
        format!("No_Where/{}", narinfo.url),
        "main/log/x.drv".to_owned(),
        "main/%2e%2e/identity.key".to_owned(),
    ] {
        let answer = get(&larder.url(&path), &[]);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.len() < 1024, "{path}");
        assert!(answer.header("cache-control").starts_with("no-"), "{path}");
    }
    let put = agent().put(larder.url("main/nix-cache-info")).send("StoreDir: /nix/store\n");
    let put = Answer::new(put.unwrap());
    assert_eq!((put.status, put.header("allow")), (405, "GET, HEAD"));
    assert!(String::from_utf8(put.body).unwrap().contains("larder push"));
}

#[test]
fn a_damaged_nar_breaks_off_is_not_offered_and_heals_with_a_push() {
    let (nix, larder, path, narinfo) = with_path("damaged");
    let pack = larder.data().join("packs/00000001.pack");
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(&pack, bytes).unwrap();

    let mut stream = TcpStream::connect(larder.http).unwrap();
    let request = format!("GET /main/{} HTTP/1.1\r\nHost: x\r\n\r\n", narinfo.url);
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _end_or_reset = stream.read_to_end(&mut answer);
    let size = usize::try_from(narinfo.file_size.unwrap()).unwrap();
    assert!(answer.len() < size, "{} of {size} bytes came", answer.len());
    let hash = path.hash();
    let offered = get(&larder.url(&format!("main/{hash}.narinfo")), &[]);
    assert_eq!(offered.status, 404, "Nix is to go elsewhere");

    let healed = larder.push("main", &[path.to_absolute()]);

    let sent = healed["sent_bytes"].as_u64().unwrap();
    assert!(sent < narinfo.file_size.unwrap() / 2, "one chunk of it was sent: {healed}");
    assert_served(&larder, &nix, &path);
}

/// An administrative request over HTTP.
fn administer(
    larder: &TestBox,
    token: &str,
    method: &str,
    path: &str,
    body: Value,
) -> (u16, Value) {
    let url = larder.url(&format!("api/larder/v1/{path}"));
    let bearer = format!("Bearer {token}");
    let answer = match method {
        "GET" => agent().get(url).header("Authorization", bearer).call(),
        "DELETE" => agent().delete(url).header("Authorization", bearer).call(),
        _ => agent().post(url).header("Authorization", bearer).send(body.to_string()),
    };
    let answer = Answer::new(answer.unwrap());
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

#[test]
fn administration_over_http_needs_a_personal_token() {
    let larder = TestBox::start();
    let owner = larder.token.as_str();
    let (status, made) = administer(&larder, owner, "POST", "caches", json!({"name": "ci"}));
    assert_eq!((status, &made["url_path"]), (201, &json!("/ci")), "{made}");
    assert_eq!(get(&larder.url("ci/nix-cache-info"), &[]).status, 200);

    let grant = json!({"caches": [{"cache": "ci", "right": "readwrite"}]});
    let (status, made) = administer(&larder, owner, "POST", "tokens", grant);
    assert_eq!(status, 201, "{made}");
    let secret = made["secret"].as_str().unwrap();
    let (status, problem) = administer(&larder, secret, "GET", "status", Value::Null);
    assert_eq!((status, &problem["title"]), (403, &json!("Forbidden")), "{problem}");

    let id = format!("tokens/{}", made["token"]["id"]);
    assert_eq!(administer(&larder, owner, "DELETE", &id, Value::Null).0, 204);
    let (status, problem) = administer(&larder, secret, "GET", "status", Value::Null);
    assert_eq!(status, 401, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("revoked"), "{problem}");
    assert_eq!(administer(&larder, "ldr_x", "GET", "status", Value::Null).0, 401);
    assert!(!larder.log().contains(secret), "a secret stands in the log");
}

#[test]
fn machines_learn_how_the_box_is() {
    let (_nix, larder, _path, _narinfo) = with_path("health");
    assert_eq!(get(&larder.url("healthz"), &[]).status, 200);
    assert_eq!(get(&larder.url("readyz"), &[]).status, 200);
    let metrics = String::from_utf8(get(&larder.url("metrics"), &[]).body).unwrap();
    for name in [
        "larder_http_requests_total{kind=\"NarInfo\",status=\"Ok\"} 1",
        "larder_pushes_total{outcome=\"Stored\"} 1",
        "larder_push_received_bytes_total ",
        "larder_store_paths_visible ",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name}\n{metrics}");
    }
}
