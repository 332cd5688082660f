//! Private caches as a real Nix reads them: with a netrc line, by the cache's URL and by the root.

use crate::fixture::larder::TestBox;
use crate::fixture::nix::{NixStore, SecondStore};

#[test]
fn a_private_cache_is_read_through_netrc_by_its_url_and_by_the_root() {
    let nix = NixStore::new();
    let graph = nix.build_graph("netrc");
    let larder = TestBox::start();
    let key = larder.create_cache("secret", &["--private", "--root"]);
    larder.push("secret", &[graph.top.to_absolute()]);
    let token = larder.create_token(&["secret:read"]);

    for url in [larder.url("secret"), larder.url("")] {
        let stranger = SecondStore::new(&url, &key);
        assert!(!stranger.substitute(&graph.top).status.success(), "{url} without a token");
        let reader = SecondStore::new(&url, &key).with_netrc(&token);
        reader.substitute_whole(&graph.top, &graph.closure);
    }
}
