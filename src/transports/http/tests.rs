//! The whole router over a real store, and connections over real sockets.

mod connections;
mod paging;
mod private;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{
    ACCEPT_RANGES, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RANGE, VARY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::formats::{NarInfo, Sha256Hash};
use crate::services::tests::{TestPath, TestServices, noise, per_cache};
use crate::services::{Caller, Right};
use crate::transports::http::admin_handler;
use crate::transports::http::peer::Peer;
use crate::transports::http::router::router;
use crate::wire::RefusalCode;
use crate::wire::message::AdminRequest;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn send(router: &Router, request: Request) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

fn request(method: Method, path: &str) -> Request {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    request
}

async fn get(router: &Router, path: &str) -> Answer {
    send(router, request(Method::GET, path)).await
}

async fn get_with(router: &Router, path: &str, header: HeaderName, value: &str) -> Answer {
    let mut request = request(Method::GET, path);
    request.headers_mut().insert(header, value.parse().unwrap());
    request.extensions_mut().insert(Peer::plain("127.0.0.1:1".parse().unwrap()));
    send(router, request).await
}

/// Services with one path in `main`, and their router.
async fn with_path(contents: &[u8]) -> (TestServices, Router, TestPath) {
    let test = TestServices::new().await;
    let path = TestPath::new("a", &[], contents);
    test.push("main", &path).await.unwrap();
    let router = router(test.services.clone());
    (test, router, path)
}

async fn narinfo(router: &Router, path: &TestPath) -> NarInfo {
    let answer = get(router, &format!("/{}.narinfo", path.info.store_path.hash())).await;
    assert_eq!(answer.status, StatusCode::OK);
    answer.text().parse().unwrap()
}

#[tokio::test]
async fn a_cache_says_what_it_is() {
    let (test, router, _) = with_path(b"hello").await;
    for path in ["/nix-cache-info", "/main/nix-cache-info", "/other/nix-cache-info"] {
        let answer = get(&router, path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.text(), "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n");
        assert_eq!(answer.header(CONTENT_TYPE), "text/x-nix-cache-info");
    }
    let nowhere = get(&router, "/nowhere/nix-cache-info").await;
    assert_eq!(nowhere.status, StatusCode::UNAUTHORIZED, "it might be a private one");
    test.stop().await;
}

#[tokio::test]
async fn a_narinfo_has_all_that_every_nix_wants() {
    let (test, router, path) = with_path(b"hello").await;
    let hash = path.info.store_path.hash();
    for url in [format!("/{hash}.narinfo"), format!("/main/{hash}.narinfo")] {
        let answer = get(&router, &url).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header(CONTENT_TYPE), "text/x-nix-narinfo");
        let text = answer.text();
        for line in ["Compression: zstd\n", "FileHash: sha256:", "FileSize: ", "References: \n"] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
        assert!(text.ends_with('\n') && text.contains("\nSig: main.office.local-1:"), "{text}");

        let tag = answer.header(ETAG);
        let again = get_with(&router, &url, IF_NONE_MATCH, tag).await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(again.header(ETAG), tag);
    }
    assert_eq!(get(&router, &format!("/other/{hash}.narinfo")).await.status, 404);
    test.stop().await;
}

#[tokio::test]
async fn a_miss_is_a_short_404_that_nobody_keeps() {
    let (test, router, path) = with_path(b"hello").await;
    let other = TestPath::new("b", &[], b"other");
    let (there, absent) = (path.info.store_path.hash(), other.info.store_path.hash());
    let nar = path.info.nar_hash.to_base32();
    for url in [
        format!("/{absent}.narinfo"),
        format!("/main/{absent}.narinfo"),
        format!("/No_Where/{there}.narinfo"),
        format!("/{absent}.ls"),
        format!("/nar/{}.nar", other.info.nar_hash.to_base32()),
        format!("/other/nar/{nar}.nar"),
        format!("/nar/{nar}-999.nar.zst"),
        "/x.narinfo".to_owned(),
        "/log/x.drv".to_owned(),
        "/realisations/sha256:x!out.doi".to_owned(),
        "/a/b/c".to_owned(),
        "//".to_owned(),
    ] {
        let answer = get(&router, &url).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{url}");
        assert!(answer.body.len() < 1024, "{url}");
        assert!(["no-cache", "no-store"].contains(&answer.header(CACHE_CONTROL)), "{url}");
    }
    test.stop().await;
}

#[tokio::test]
async fn an_index_that_cannot_be_read_is_a_miss_that_is_not_stored() {
    let (test, router, path) = with_path(b"hello").await;
    test.store.close().await.unwrap();

    let answer = get(&router, &format!("/main/{}.narinfo", path.info.store_path.hash())).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.header(CACHE_CONTROL), "no-store");
    let nar = format!("/nar/{}.nar", path.info.nar_hash.to_base32());
    assert_eq!(get(&router, &nar).await.header(CACHE_CONTROL), "no-store");
    assert_eq!(get(&router, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get(&router, "/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_nar_is_one_immutable_file_in_two_forms() {
    let (test, router, path) = with_path(&noise(1, 700_000)).await;
    let narinfo = narinfo(&router, &path).await;
    let stored = get(&router, &format!("/main/{}", narinfo.url)).await;
    let nar = path.info.nar_hash.to_base32();
    let raw = get(&router, &format!("/nar/{nar}.nar")).await;

    assert_eq!(Some(Sha256Hash::of(&stored.body)), narinfo.file_hash);
    assert!(zstd::stream::decode_all(&stored.body[..]).unwrap() == path.nar);
    assert!(raw.body == path.nar);
    assert_eq!(stored.header(ETAG), format!("\"{nar}-1\""));
    assert_eq!(raw.header(ETAG), format!("\"{nar}\""));
    for answer in [stored, raw] {
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header(CONTENT_TYPE), "application/x-nix-nar");
        assert_eq!(answer.header(CONTENT_LENGTH), answer.body.len().to_string());
        assert_eq!(answer.header(ACCEPT_RANGES), "bytes");
        assert_eq!(answer.header(X_CONTENT_TYPE_OPTIONS), "nosniff");
        let keep = "public, max-age=31536000, immutable, no-transform";
        assert_eq!(answer.header(CACHE_CONTROL), keep);
        assert!(!answer.headers.contains_key(CONTENT_ENCODING));
    }
    test.stop().await;
}

#[tokio::test]
async fn parts_of_a_nar_are_its_bytes() {
    let (test, router, path) = with_path(&noise(1, 700_000)).await;
    let url = narinfo(&router, &path).await.url;
    for url in [format!("/{url}"), format!("/nar/{}.nar", path.info.nar_hash.to_base32())] {
        let whole = get(&router, &url).await.body;
        let size = whole.len();
        for (from, to) in [(0, 0), (1, 300_000), (size - 1, size - 1), (250_000, size - 1)] {
            let part = get_with(&router, &url, RANGE, &format!("bytes={from}-{to}")).await;
            assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
            assert!(part.body == whole[from..=to], "{url} {from}-{to}");
            assert_eq!(part.header(CONTENT_RANGE), format!("bytes {from}-{to}/{size}"));
            assert_eq!(part.header(CONTENT_LENGTH), (to - from + 1).to_string());
        }
        let beyond = get_with(&router, &url, RANGE, &format!("bytes={size}-")).await;
        assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
        assert_eq!(beyond.header(CONTENT_RANGE), format!("bytes */{size}"));
        let several = get_with(&router, &url, RANGE, "bytes=0-1,5-6").await;
        assert_eq!((several.status, several.body.len()), (StatusCode::OK, size));
    }
    test.stop().await;
}

#[tokio::test]
async fn head_says_what_get_says_without_the_bytes() {
    let (test, router, path) = with_path(b"hello").await;
    let hash = path.info.store_path.hash();
    let url = narinfo(&router, &path).await.url;
    for url in [
        "/nix-cache-info".to_owned(),
        format!("/{hash}.narinfo"),
        format!("/main/{hash}.ls"),
        format!("/{url}"),
        "/".to_owned(),
        "/main".to_owned(),
        "/healthz".to_owned(),
        "/metrics".to_owned(),
        "/nowhere/x".to_owned(),
    ] {
        let whole = get(&router, &url).await;
        let mut ask = request(Method::HEAD, &url);
        ask.headers_mut().insert(RANGE, "bytes=0-1".parse().unwrap());
        let head = send(&router, ask).await;
        assert_eq!(head.status, whole.status, "{url}");
        for name in [CONTENT_TYPE, ETAG, ACCEPT_RANGES, CACHE_CONTROL] {
            assert_eq!(head.header(name.clone()), whole.header(name), "{url}");
        }
    }
    test.stop().await;
}

#[tokio::test]
async fn a_listing_is_json() {
    let (test, router, path) = with_path(b"hello").await;
    let answer = get(&router, &format!("/main/{}.ls", path.info.store_path.hash())).await;
    assert_eq!(answer.header(CONTENT_TYPE), "application/json");
    assert_eq!(answer.json()["root"]["size"], 5);
    test.stop().await;
}

#[tokio::test]
async fn other_verbs_are_told_what_is_allowed() {
    let (test, router, path) = with_path(b"hello").await;
    let narinfo = format!("/main/{}.narinfo", path.info.store_path.hash());
    for (method, url) in [
        (Method::PUT, "/main/nix-cache-info"),
        (Method::PUT, "/nar/x.nar.xz"),
        (Method::POST, &narinfo),
        (Method::DELETE, "/main/log/x"),
        (Method::POST, "/healthz"),
        (Method::PUT, "/metrics"),
    ] {
        let answer = send(&router, request(method, url)).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{url}");
        assert_eq!(answer.header(ALLOW), "GET, HEAD", "{url}");
        assert!(answer.body.len() < 1024 && answer.text().ends_with('\n'), "{url}");
    }
    test.stop().await;
}

#[tokio::test]
async fn people_are_told_where_they_are() {
    let (test, router, _) = with_path(b"hello").await;
    let root = get(&router, "/").await;
    assert!(root.text().contains("/main\n") && root.text().contains("office"), "{}", root.text());
    for path in ["/main", "/main/"] {
        let cache = get(&router, path).await;
        assert!(cache.text().contains("main.office.local-1:"), "{}", cache.text());
    }
    test.stop().await;
}

#[tokio::test]
async fn what_happens_is_counted() {
    let (test, router, path) = with_path(b"hello").await;
    narinfo(&router, &path).await;
    get(&router, "/main/x.narinfo").await;
    get(&router, &format!("/{}.narinfo", crate::services::tests::store_path("b").hash())).await;
    get(&router, "/healthz").await;
    let metrics = get(&router, "/metrics").await;
    for line in [
        "larder_http_requests_total{kind=\"NarInfo\",status=\"Ok\"} 1",
        "larder_http_requests_total{kind=\"NarInfo\",status=\"ClientError\"} 1",
        "larder_http_requests_total{kind=\"Other\",status=\"ClientError\"} 1",
        "larder_http_requests_total{kind=\"Health\",status=\"Ok\"} 1",
        "larder_narinfo_hits_total 1",
        "larder_narinfo_misses_total 1",
        "larder_pushes_total{outcome=\"Stored\"} 1",
    ] {
        assert!(metrics.text().lines().any(|its| its == line), "{line}\n{}", metrics.text());
    }
    test.stop().await;
}

// Administration.

fn from_here(mut request: Request, token: Option<&str>) -> Request {
    request.extensions_mut().insert(Peer::plain("[::ffff:127.0.0.1]:1".parse().unwrap()));
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    request
}

#[tokio::test]
async fn administration_is_for_owners_on_the_box() {
    let (test, router, _) = with_path(b"hello").await;
    let url = "/api/larder/v1/caches";
    let owner = test.owner_token.as_str();
    let (_, writer) =
        test.services.tokens.create(per_cache("main", Right::ReadWrite)).await.unwrap();
    let (writer, ask) = (writer.to_secret_text(), || request(Method::GET, url));
    let mut from_afar = from_here(ask(), Some(owner));
    from_afar.extensions_mut().insert(Peer::plain("192.0.2.7:1".parse().unwrap()));
    for (request, status) in [
        (from_here(ask(), Some(owner)), 200),
        (from_here(ask(), None), 401),
        (from_here(ask(), Some("ldr_x")), 401),
        (from_here(ask(), Some(&writer)), 403),
        (from_afar, 403),
        (ask(), 403),
    ] {
        let answer = send(&router, request).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        if status != 200 {
            assert_eq!(answer.header(CONTENT_TYPE), "application/problem+json");
            assert_eq!(answer.json()["status"], status);
            assert!(!answer.json()["detail"].as_str().unwrap().is_empty());
        }
    }
    test.stop().await;
}

/// Administers as QUIC does.
async fn administer(
    test: &TestServices,
    caller: &Caller,
    method: &str,
    path: &str,
    body: Value,
) -> (u16, Value) {
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
    let path = format!("/api/larder/v1/{path}");
    let request = AdminRequest { method: method.to_owned(), path, body };
    match admin_handler(test.services.clone())(request, caller.clone()).await {
        Ok(response) => {
            let body = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
            (response.status, body)
        }
        Err(refusal) => {
            assert_eq!(refusal.code, RefusalCode::Forbidden);
            (403, Value::Null)
        }
    }
}

#[tokio::test]
async fn caches_are_made_shown_and_listed() {
    let test = TestServices::new().await;
    test.push("main", &TestPath::new("a", &[], b"a")).await.unwrap();
    test.push("main", &TestPath::new("b", &["c"], b"b")).await.unwrap();
    let owner = &test.owner;
    let body = json!({"name": "ci", "description": "For CI", "priority": 12});

    let (status, made) = administer(&test, owner, "POST", "caches", body.clone()).await;

    assert_eq!(status, 201, "{made}");
    assert_eq!((&made["url_path"], &made["priority"]), (&json!("/ci"), &json!(12)));
    assert_eq!(administer(&test, owner, "GET", "caches/ci", Value::Null).await, (200, made));
    let (_, main) = administer(&test, owner, "GET", "caches/main", Value::Null).await;
    assert_eq!((&main["paths_visible"], &main["paths_hidden"]), (&json!(1), &json!(1)));
    assert!(main["public_keys"][0].as_str().unwrap().starts_with("main.office.local-1:"));
    assert_eq!((&main["public"], &main["signing"]), (&json!(true), &json!("managed")));
    let (_, all) = administer(&test, owner, "GET", "caches", Value::Null).await;
    let names: Vec<_> = all["caches"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["ci", "main", "other"]);

    for (body, status) in [
        (body, 409),
        (json!({"name": "metrics"}), 400),
        (json!({"name": "Bad"}), 400),
        (json!({"name": "x", "private": true}), 400),
        (json!({"name": "x", "priority": -1}), 400),
        (json!({"name": "x", "priority": 4_000_000_000_u32}), 400),
        (json!({"name": "x", "description": "a\nb"}), 400),
        (json!({}), 400),
        (json!({"name": "x", "description": "y".repeat(70_000)}), 413),
    ] {
        let (found, problem) = administer(&test, owner, "POST", "caches", body).await;
        assert_eq!(found, status, "{problem}");
        assert!(problem["detail"].is_string(), "{problem}");
    }
    assert_eq!(administer(&test, owner, "GET", "caches/x", Value::Null).await.0, 404);
    assert_eq!(administer(&test, owner, "PUT", "caches/x", Value::Null).await.0, 405);
    assert_eq!(administer(&test, owner, "GET", "x", Value::Null).await.0, 404);
    test.stop().await;
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    let test = TestServices::new().await;
    let owner = &test.owner;
    let grants = json!([{"cache": "main", "right": "write"}]);
    let body = json!({"label": "CI", "expires_in_seconds": 3600, "caches": grants});

    let (status, made) = administer(&test, owner, "POST", "tokens", body).await;

    assert_eq!(status, 201, "{made}");
    let secret = made["secret"].as_str().unwrap();
    let caller = test.services.auth.check(secret).await.unwrap();
    assert!(!caller.is_personal());
    assert_eq!((&made["token"]["caches"], &made["token"]["personal"]), (&grants, &json!(false)));
    let (status, _) = administer(&test, &caller, "GET", "tokens", Value::Null).await;
    assert_eq!(status, 403, "a token for caches administers nothing");
    let (_, list) = administer(&test, owner, "GET", "tokens", Value::Null).await;
    assert_eq!(list["tokens"].as_array().unwrap().len(), 2);
    assert!(!list.to_string().contains(secret.rsplit('_').next().unwrap()));

    let id = format!("tokens/{}", made["token"]["id"]);
    assert_eq!(administer(&test, owner, "DELETE", &id, Value::Null).await, (204, Value::Null));
    assert!(test.services.auth.check(secret).await.is_err());
    assert_eq!(administer(&test, owner, "DELETE", "tokens/99", Value::Null).await.0, 404);
    assert_eq!(administer(&test, owner, "DELETE", "tokens/x", Value::Null).await.0, 404);
    let (status, made) = administer(&test, owner, "POST", "tokens", json!({})).await;
    assert_eq!((status, &made["token"]["personal"]), (201, &json!(true)));
    for (body, status) in [
        (json!({"caches": []}), 400),
        (json!({"caches": [{"cache": "nowhere", "right": "read"}]}), 404),
        (json!({"caches": [{"cache": "main", "right": "all"}]}), 400),
        (json!({"expires_in_seconds": 0}), 400),
        (json!({"label": "x".repeat(101)}), 400),
    ] {
        let (found, problem) = administer(&test, owner, "POST", "tokens", body).await;
        assert_eq!(found, status, "{problem}");
    }
    test.stop().await;
}

#[tokio::test]
async fn the_status_is_told_and_a_check_is_run() {
    let test = TestServices::new().await;
    let owner = &test.owner;
    test.push("main", &TestPath::new("a", &[], b"a")).await.unwrap();
    let (status, found) = administer(&test, owner, "GET", "status", Value::Null).await;
    assert_eq!(status, 200, "{found}");
    assert_eq!((&found["name"], &found["store"]["nars"]), (&json!("office"), &json!(1)));
    assert_eq!((&found["pushes"]["stored"], &found["pushes"]["under_way"]), (&json!(1), &json!(0)));
    assert_eq!(found["check"], json!({"running": null, "last": null}));

    let (status, state) = administer(&test, owner, "POST", "check", Value::Null).await;
    assert_eq!(status, 202, "{state}");
    let last = loop {
        let (_, state) = administer(&test, owner, "GET", "check", Value::Null).await;
        if state["running"].is_null() {
            break state["last"].clone();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&last["damaged"], &last["error"], &last["paths"]),
        (&json!([]), &Value::Null, &json!(1))
    );
    test.stop().await;
}

#[tokio::test]
async fn malformed_requests_over_quic_are_problems_too() {
    let test = TestServices::new().await;
    let admin = admin_handler(test.services.clone());
    for (method, path) in [("G T", "/api/larder/v1/caches"), ("GET", "no path\n"), ("GET", "/")] {
        let request =
            AdminRequest { method: method.to_owned(), path: path.to_owned(), body: Vec::new() };
        let response = admin(request, test.owner.clone()).await.unwrap();
        assert!([400, 404].contains(&response.status), "{method} {path}: {}", response.status);
    }
    test.stop().await;
}
