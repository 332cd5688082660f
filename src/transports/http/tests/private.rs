//! What is not for everybody: who is given it, and what caches in between are told.

use futures_util::StreamExt;

use super::*;
use crate::services::{CacheChanges, CacheRequest, RootPlace, TokenRequest};
use crate::transports::http::peer::PlainTokens;

/// A box whose root has `main` and the private `secret`; `secret` alone has the path.
struct Private {
    test: TestServices,
    router: Router,
    path: TestPath,
    reader: String,
    other: String,
}

impl Private {
    async fn new() -> Self {
        let test = TestServices::new().await;
        for name in ["secret", "elsewhere"] {
            let name = CacheRequest::named(name.parse().unwrap());
            let request = CacheRequest { is_public: false, root: RootPlace::Last, ..name };
            test.services.caches.create(request).await.unwrap();
        }
        let path = TestPath::new("a", &[], b"hello");
        test.push("secret", &path).await.unwrap();
        let router = router(test.services.clone());
        let reader = token(&test, per_cache("secret", Right::Read)).await;
        let other = token(&test, per_cache("elsewhere", Right::ReadWrite)).await;
        Self { test, router, path, reader, other }
    }

    async fn ask(&self, path: &str, token: Option<&str>) -> Answer {
        match token {
            Some(token) => {
                let bearer = format!("Bearer {token}");
                get_with(&self.router, path, AUTHORIZATION, &bearer).await
            }
            None => get(&self.router, path).await,
        }
    }

    /// All that a cache serves of the path.
    async fn files(&self) -> Vec<String> {
        let hash = self.path.info.store_path.hash();
        let narinfo = self.ask(&format!("/secret/{hash}.narinfo"), Some(&self.reader)).await;
        let narinfo: NarInfo = narinfo.text().parse().unwrap();
        let raw = format!("nar/{}.nar", self.path.info.nar_hash.to_base32());
        vec![format!("{hash}.narinfo"), format!("{hash}.ls"), narinfo.url, raw]
    }
}

async fn token(test: &TestServices, request: TokenRequest) -> String {
    test.services.tokens.create(request).await.unwrap().1.to_secret_text()
}

#[tokio::test]
async fn what_needed_a_token_is_for_that_token_alone() {
    let box_ = Private::new().await;
    for file in box_.files().await {
        for url in [format!("/secret/{file}"), format!("/{file}")] {
            let answer = box_.ask(&url, Some(&box_.reader)).await;
            assert_eq!(answer.status, StatusCode::OK, "{url}");
            assert!(answer.header(CACHE_CONTROL).starts_with("private, max-age="), "{url}");
            assert_eq!(answer.header(VARY), "authorization", "{url}");
            let tag = answer.header(ETAG).to_owned();
            if !tag.is_empty() {
                let mut request = request(Method::GET, &url);
                let bearer = format!("Bearer {}", box_.reader).parse().unwrap();
                request.headers_mut().insert(AUTHORIZATION, bearer);
                request.headers_mut().insert(IF_NONE_MATCH, tag.parse().unwrap());
                request.extensions_mut().insert(Peer::plain("127.0.0.1:1".parse().unwrap()));
                let again = send(&box_.router, request).await;
                assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{url}");
                assert!(again.header(CACHE_CONTROL).starts_with("private, "), "{url}");
                assert_eq!(again.header(VARY), "authorization", "{url}");
            }
            let status = if url.starts_with("/secret/") { 401 } else { 404 };
            assert_eq!(box_.ask(&url, None).await.status, status, "{url}");
            assert_eq!(box_.ask(&url, Some(&box_.other)).await.status, 404, "{url}");
        }
    }
    box_.test.stop().await;
}

#[tokio::test]
async fn a_private_cache_and_none_at_all_are_answered_alike() {
    let box_ = Private::new().await;
    let expired = TokenRequest { expires_in_seconds: Some(1), ..per_cache("secret", Right::Read) };
    let expired = token(&box_.test, expired).await;
    while box_.ask("/secret/nix-cache-info", Some(&expired)).await.status == 200 {
        tokio::task::yield_now().await;
    }
    for token in [None, Some("ldr_x"), Some(&*expired), Some(&*box_.other)] {
        for file in box_.files().await.into_iter().chain(["nix-cache-info".into(), String::new()]) {
            let secret = box_.ask(&format!("/secret/{file}"), token).await;
            let nowhere = box_.ask(&format!("/nowhere/{file}"), token).await;
            assert_eq!(secret.status, if token == Some(&box_.other) { 404 } else { 401 });
            assert_eq!(secret.headers, nowhere.headers, "{file} with {token:?}");
            assert_eq!(secret.body, nowhere.body, "{file} with {token:?}");
            assert_eq!(secret.header(CACHE_CONTROL), "no-store");
            assert_eq!(secret.header(VARY), "authorization");
            let challenge = secret.header(WWW_AUTHENTICATE);
            let expected = if secret.status == 401 { "Basic realm=\"larder\"" } else { "" };
            assert_eq!(challenge, expected);
            assert!(secret.body.len() < 1024);
        }
        assert_eq!(box_.ask("/favicon.ico", token).await.status, 404, "no login for a browser");
    }
    box_.test.stop().await;
}

#[tokio::test]
async fn what_is_public_is_served_to_bad_tokens_too_and_kept_by_all() {
    let box_ = Private::new().await;
    box_.test.push("main", &box_.path).await.unwrap();
    for file in box_.files().await {
        for token in [None, Some("ldr_x"), Some(&*box_.other)] {
            let answer = box_.ask(&format!("/main/{file}"), token).await;
            assert_eq!(answer.status, StatusCode::OK, "{file}");
            assert!(answer.header(CACHE_CONTROL).starts_with("public, "), "{file}");
            assert_eq!(answer.header(VARY), "", "{file}");
        }
        for token in [None, Some("ldr_x")] {
            let answer = box_.ask(&format!("/{file}"), token).await;
            assert!(answer.header(CACHE_CONTROL).starts_with("public, "), "{file}");
            assert_eq!(answer.header(VARY), "authorization", "the root differs by token");
        }
    }
    box_.test.stop().await;
}

#[tokio::test]
async fn a_merge_of_the_root_is_given_to_nobody_else() {
    let box_ = Private::new().await;
    box_.test.push("main", &box_.path).await.unwrap();
    box_.test.push("elsewhere", &box_.path).await.unwrap();
    let url = format!("/{}.narinfo", box_.path.info.store_path.hash());
    let owner = box_.test.owner_token.clone();
    // Twice, for the second answers come from memory.
    for _ in 0..2 {
        for (token, expected) in [
            (None, &["main"][..]),
            (Some(&box_.reader), &["main", "secret"]),
            (Some(&box_.other), &["main", "elsewhere"]),
            (Some(&owner), &["main", "secret", "elsewhere"]),
        ] {
            let answer = box_.ask(&url, token.map(String::as_str)).await;
            let narinfo: NarInfo = answer.text().parse().unwrap();
            let names = narinfo.info.signatures.iter().map(|it| it.key_name().to_owned());
            let names: Vec<_> = names.map(|it| it.split('.').next().unwrap().to_owned()).collect();
            assert_eq!(names, expected);
        }
    }
    box_.test.stop().await;
}

#[tokio::test]
async fn a_change_counts_from_the_next_request_on() {
    let box_ = Private::new().await;
    let (caches, name) = (&box_.test.services.caches, "secret".parse().unwrap());
    let narinfo = format!("{}.narinfo", box_.path.info.store_path.hash());
    let mut names = caches.public_names();
    for is_public in [true, false, true, false] {
        let changes = CacheChanges { is_public: Some(is_public), ..CacheChanges::default() };
        caches.update(&name, changes).await.unwrap();
        let by_name = if is_public { 200 } else { 401 };
        let by_root = if is_public { 200 } else { 404 };
        for _from_memory in 0..2 {
            let answer = box_.ask(&format!("/secret/{narinfo}"), None).await;
            assert_eq!(answer.status, by_name, "{is_public}");
            assert_eq!(box_.ask(&format!("/{narinfo}"), None).await.status, by_root);
            let answer = box_.ask(&format!("/{narinfo}"), Some(&box_.reader)).await;
            assert_eq!(answer.status, 200);
        }
        assert_eq!(names.borrow_and_update().contains(&name), is_public, "announced");
    }
    caches.delete(&name).await.unwrap();
    assert_eq!(box_.ask(&format!("/secret/{narinfo}"), Some(&box_.reader)).await.status, 404);
    assert_eq!(box_.ask(&format!("/{narinfo}"), Some(&box_.reader)).await.status, 404);
    box_.test.stop().await;
}

#[tokio::test]
async fn a_token_that_others_may_have_read_counts_as_the_setting_says() {
    let box_ = Private::new().await;
    let far = Peer::plain("192.0.2.7:9".parse().unwrap());
    let ask = async |path: &str, token: &str, peer: Peer| {
        let mut request = request(Method::GET, path);
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        request.extensions_mut().insert(peer);
        send(&box_.router, request).await
    };
    let with = |plain_tokens| Peer { plain_tokens, ..far };
    let encrypted = Peer::encrypted(far.address);
    let (owner, reader) = (&*box_.test.owner_token, &*box_.reader);
    for (token, peer, is_good) in [
        (owner, with(PlainTokens::Cache), false),
        (reader, with(PlainTokens::Cache), true),
        (reader, with(PlainTokens::None), false),
        (owner, with(PlainTokens::All), true),
        (owner, encrypted, true),
        (reader, Peer { plain_tokens: PlainTokens::None, ..encrypted }, true),
    ] {
        let private = ask("/secret/nix-cache-info", token, peer).await;
        assert_eq!(private.status, if is_good { 200 } else { 401 }, "{peer:?}");
        assert_eq!(private.text().contains("http.plain_tokens"), !is_good, "{}", private.text());
        assert_eq!(ask("/main/nix-cache-info", token, peer).await.status, 200, "{peer:?}");
        let narinfo = format!("/{}.narinfo", box_.path.info.store_path.hash());
        let root = ask(&narinfo, token, peer).await;
        assert_eq!(root.status, if is_good { 200 } else { 404 }, "{peer:?}");
    }
    box_.test.stop().await;
}

#[tokio::test]
async fn what_is_being_read_ends_with_the_token() {
    let box_ = Private::new().await;
    let big = TestPath::new("big", &[], &noise(7, 4 << 20));
    box_.test.push("secret", &big).await.unwrap();
    box_.test.push("main", &TestPath::new("a", &[], b"hello")).await.unwrap();
    for (url, name) in [("/secret/nar/", "first"), ("/nar/", "second")] {
        let request_of =
            TokenRequest { label: name.to_owned(), ..per_cache("secret", Right::Read) };
        let (made, text) = box_.test.services.tokens.create(request_of).await.unwrap();
        let raw = format!("{url}{}.nar", big.info.nar_hash.to_base32());
        let mut asked = request(Method::GET, &raw);
        let bearer = format!("Bearer {}", text.to_secret_text());
        asked.headers_mut().insert(AUTHORIZATION, bearer.parse().unwrap());
        asked.extensions_mut().insert(Peer::plain("127.0.0.1:1".parse().unwrap()));
        let mut body =
            box_.router.clone().oneshot(asked).await.unwrap().into_body().into_data_stream();
        let first = body.next().await.unwrap().unwrap();
        assert!(!first.is_empty());

        assert!(box_.test.services.tokens.revoke(made.id).await.unwrap());

        let next = body.next().await.unwrap();
        assert!(next.unwrap_err().to_string().contains("revoked"), "{raw}");
        assert!(body.next().await.is_none(), "nothing more");
    }
    box_.test.stop().await;
}
