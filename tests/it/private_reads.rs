//! Private caches as a real Nix reads them: with a netrc line, by the cache's URL and by the root,
//! and through a caching proxy.

use std::time::{Duration, Instant};

use larder::formats::signature::PublicKey;
use larder::formats::{NarInfo, StorePath};
use ureq::Agent;

use crate::fixture::larder::TestBox;
use crate::fixture::nginx::CachingProxy;
use crate::fixture::nix::{Graph, NixStore, SecondStore};

const EXPIRED_WITHIN: Duration = Duration::from_secs(30);

/// The status of a read, and the whole body.
fn ask(url: &str, token: Option<&str>) -> (u16, Vec<u8>) {
    let (status, body, _) = ask_and_see(url, token);
    (status, body)
}

/// The same, and whether it came out of the proxy's cache.
fn ask_and_see(url: &str, token: Option<&str>) -> (u16, Vec<u8>, bool) {
    let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
    let get = agent.get(url);
    let bearer = token.map(|token| format!("Bearer {token}"));
    let get = bearer.into_iter().fold(get, |get, bearer| get.header("Authorization", bearer));
    let mut answer = get.call().unwrap();
    let kept = answer.headers().get("X-From-Cache").is_some_and(|value| value == "HIT");
    (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap(), kept)
}

/// A box with a private cache at the root, which has a closure.
fn with_secret(seed: &str) -> (NixStore, TestBox, Graph, PublicKey) {
    let nix = NixStore::new();
    let graph = nix.build_graph(seed);
    let larder = TestBox::start();
    let key = larder.create_cache("secret", &["--private", "--root"]);
    larder.push("secret", &[graph.top.to_absolute()]);
    (nix, larder, graph, key)
}

#[test]
fn a_private_cache_is_read_through_netrc_by_its_url_and_by_the_root() {
    let (_nix, larder, graph, key) = with_secret("netrc");
    let token = larder.create_token(&["secret:read"]);

    for url in [larder.url("secret"), larder.url("")] {
        let stranger = SecondStore::new(&url, &key);
        assert!(!stranger.substitute(&graph.top).status.success(), "{url} without a token");
        let reader = SecondStore::new(&url, &key).with_netrc(&token);
        reader.substitute_whole(&graph.top, &graph.closure);
    }
}

#[test]
fn two_private_caches_on_a_host_are_read_with_one_netrc_line() {
    let (nix, larder, graph, key) = with_secret("two");
    let other = nix.big_path("two", 100_000);
    let other_key = larder.create_cache("other", &["--private"]);
    larder.push("other", &[other.to_absolute()]);
    let token = larder.create_token(&["secret:read", "other:read"]);

    let urls = format!("{} {}", larder.url("secret"), larder.url("other"));
    let reader = SecondStore::trusting(&urls, &[&key, &other_key]).with_netrc(&token);

    reader.substitute_whole(&graph.top, &graph.closure);
    reader.substitute_whole(&other, std::slice::from_ref(&other));
}

#[test]
fn an_expired_token_leaves_public_caches_working_beside_private_ones() {
    let (nix, larder, graph, key) = with_secret("expired");
    let open = nix.big_path("expired", 100_000);
    larder.push("main", &[open.to_absolute()]);
    let made = larder.json(["token", "create", "--cache", "secret:read", "--expires", "1s"]);
    let expired = made["secret"].as_str().unwrap();
    let since = Instant::now();
    while ask(&larder.url("secret/nix-cache-info"), Some(expired)).0 != 401 {
        assert!(since.elapsed() < EXPIRED_WITHIN, "the token does not expire");
        std::thread::yield_now();
    }

    let (secret, main, root) = (larder.url("secret"), larder.url("main"), larder.url(""));
    let keys = [&key, &larder.public_key];
    for urls in [format!("{secret} {main}"), main, root] {
        let reader = SecondStore::trusting(&urls, &keys).with_netrc(expired);
        reader.substitute_whole(&open, std::slice::from_ref(&open));
        assert!(!reader.substitute(&graph.top).status.success(), "{urls}");
    }
}

#[test]
fn a_substituter_that_there_is_not_keeps_nix_from_nothing() {
    let (nix, larder, ..) = with_secret("nowhere");
    let open = nix.big_path("nowhere", 100_000);
    larder.push("main", &[open.to_absolute()]);
    let other = larder.create_token(&["main:read"]);
    let urls = format!("{} {} {}", larder.url("nowhere"), larder.url("secret"), larder.url("main"));
    let without = SecondStore::new(&urls, &larder.public_key);
    without.substitute_whole(&open, std::slice::from_ref(&open));
    let with = SecondStore::new(&urls, &larder.public_key).with_netrc(&other);
    with.substitute_whole(&open, std::slice::from_ref(&open));
}

#[test]
fn a_cache_turns_private_and_public_again_from_one_request_to_the_next() {
    let nix = NixStore::new();
    let graph = nix.build_graph("turns");
    let larder = TestBox::start();
    larder.push("main", &[graph.top.to_absolute()]);
    let narinfo = format!("main/{}.narinfo", graph.top.hash());
    for (option, status) in [("--private", 401), ("--public", 200), ("--private", 401)] {
        let cache = larder.json(["cache", "set", "main", option]);
        assert_eq!(cache["public"], status == 200);
        assert_eq!(ask(&larder.url(&narinfo), None).0, status, "after {option}");
        let reads = SecondStore::new(&larder.url("main"), &larder.public_key);
        assert_eq!(reads.substitute(&graph.top).status.success(), status == 200);
        let root = format!("{}.narinfo", graph.top.hash());
        assert_eq!(ask(&larder.url(&root), None).0 == 200, status == 200, "at the root");
        let about = String::from_utf8(ask(&larder.url(""), None).1).unwrap();
        assert_eq!(about.contains("/main"), status == 200, "{about}");
    }
    let token = larder.create_token(&["main:read"]);
    let reader = SecondStore::new(&larder.url("main"), &larder.public_key).with_netrc(&token);
    reader.substitute_whole(&graph.top, &graph.closure);
}

/// The names of the keys that signed a narinfo.
fn signers(narinfo: &[u8]) -> Vec<String> {
    let narinfo: NarInfo = str::from_utf8(narinfo).unwrap().parse().unwrap();
    let names = narinfo.info.signatures.iter().map(|it| it.key_name().to_owned());
    names.map(|name| name.split('.').next().unwrap().to_owned()).collect()
}

fn nar_url(larder: &TestBox, cache: &str, path: &StorePath) -> String {
    let narinfo = larder.url(&format!("{cache}/{}.narinfo", path.hash()));
    let (_, text) = ask(&narinfo, Some(&larder.token));
    let narinfo: NarInfo = String::from_utf8(text).unwrap().parse().unwrap();
    narinfo.url
}

#[test]
fn a_caching_proxy_gives_no_answer_to_another_token_or_to_nobody() {
    let (nix, larder, graph, key) = with_secret("proxy");
    let open = nix.big_path("proxy", 100_000);
    larder.push("main", &[open.to_absolute()]);
    let (reader, other) =
        (larder.create_token(&["secret:read"]), larder.create_token(&["main:read"]));
    let nar = nar_url(&larder, "secret", &graph.top);
    let files = [format!("{}.narinfo", graph.top.hash()), nar, "nix-cache-info".to_owned()];
    let who = [None, Some(&*other), Some("ldr_x"), Some(&*reader)];

    // Whoever asks first, and so fills the proxy's cache, everybody is given what is theirs.
    for first in 0..who.len() {
        let Some(proxy) = CachingProxy::or_skip(&larder) else { return };
        for _round in 0..2 {
            for number in 0..who.len() {
                let token = who[(first + number) % who.len()];
                for file in &files {
                    let (status, _, kept) =
                        ask_and_see(&proxy.url(&format!("secret/{file}")), token);
                    let expected = if token == Some(&*reader) {
                        200
                    } else if token == Some(&*other) {
                        404
                    } else {
                        401
                    };
                    assert_eq!((status, kept), (expected, false), "{file} for {token:?}");
                    let at_root = ask(&proxy.url(file), token).0;
                    let is_there = token == Some(&*reader) || file == "nix-cache-info";
                    assert_eq!(at_root == 200, is_there, "{file} at the root for {token:?}");
                }
            }
        }
        let open = proxy.url(&format!("main/{}.narinfo", open.hash()));
        assert_eq!(ask(&open, Some(&reader)).0, 200);
        let (status, _, kept) = ask_and_see(&open, None);
        assert!(status == 200 && kept, "what is public is kept for all");
    }

    let Some(proxy) = CachingProxy::or_skip(&larder) else { return };
    let nix_reads = SecondStore::new(&proxy.url("secret"), &key).with_netrc(&reader);
    nix_reads.substitute_whole(&graph.top, &graph.closure);
    assert!(!SecondStore::new(&proxy.url("secret"), &key).substitute(&graph.top).status.success());
}

#[test]
fn a_caching_proxy_keeps_the_roots_answers_apart() {
    let (nix, larder, ..) = with_secret("apart");
    let both = nix.big_path("apart", 100_000);
    for cache in ["main", "secret"] {
        larder.push(cache, &[both.to_absolute()]);
    }
    let reader = larder.create_token(&["secret:read"]);
    let file = format!("{}.narinfo", both.hash());
    for first in [None, Some(&*reader)] {
        let Some(proxy) = CachingProxy::or_skip(&larder) else { return };
        assert_eq!(ask(&proxy.url(&file), first).0, 200);
        for _round in 0..2 {
            assert_eq!(signers(&ask(&proxy.url(&file), None).1), ["main"]);
            assert_eq!(signers(&ask(&proxy.url(&file), Some("ldr_x")).1), ["main"]);
            assert_eq!(signers(&ask(&proxy.url(&file), Some(&reader)).1), ["main", "secret"]);
        }
    }
}
