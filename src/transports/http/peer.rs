//! Who a request comes from, how, and which tokens count that way.

use std::net::SocketAddr;

use axum::extract::Request;
use axum::http::header::HOST;
use serde::{Deserialize, Serialize};

use crate::services::Caller;

/// Which tokens count over plain HTTP from other machines, where anybody on the way can read
/// them. The setting `http.plain_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainTokens {
    /// None.
    None,
    /// Those for named caches.
    #[default]
    Cache,
    /// Personal ones too.
    All,
}

/// Where a request came from; there for [requests that ask for it](super::router::asks_for_peer).
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// Whether it came by TLS.
    pub(super) is_encrypted: bool,
    /// Whether the box was asked by a name of its own.
    pub(super) is_own_name: bool,
    pub(super) plain_tokens: PlainTokens,
}

impl Peer {
    pub(super) fn plain(address: SocketAddr) -> Self {
        let plain_tokens = PlainTokens::default();
        Self { address, is_encrypted: false, is_own_name: false, plain_tokens }
    }

    pub(super) fn encrypted(address: SocketAddr) -> Self {
        Self { is_encrypted: true, ..Self::plain(address) }
    }

    /// Whether it is this very machine.
    pub(super) fn is_near(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// Why a token does not count that came this way; nothing if it does.
    pub(super) fn refusal_of(&self, caller: &Caller) -> Option<&'static str> {
        if self.is_encrypted || self.is_near() {
            return None;
        }
        match self.plain_tokens {
            PlainTokens::Cache if caller.is_personal() => Some(
                "over plain HTTP the box takes no personal tokens, as anybody on the network could \
                 read them; use https://, a token for single caches, or the setting \
                 http.plain_tokens = \"all\" of the box",
            ),
            PlainTokens::None => Some(
                "over plain HTTP the box takes no tokens, as its setting http.plain_tokens is \
                 \"none\"; use https://",
            ),
            PlainTokens::Cache | PlainTokens::All => None,
        }
    }
}

/// The host that a request is for, without its port: of HTTP/2's target, or of the header.
pub(super) fn host_of(request: &Request) -> Option<&str> {
    let of_header = || request.headers().get(HOST)?.to_str().ok();
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let authority = authority.or_else(of_header)?;
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => Some(host),
        _ => Some(authority),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::services::Right;
    use crate::services::tests::{TestServices, per_cache};

    #[tokio::test]
    async fn what_may_be_overheard_counts_as_the_setting_says() {
        let test = TestServices::new().await;
        let request = per_cache("main", Right::ReadWrite);
        let (_, token) = test.services.tokens.create(request).await.unwrap();
        let for_cache = test.services.auth.check(&token.to_secret_text()).await.unwrap();
        let personal = test.services.auth.check(&test.owner_token).await.unwrap();
        let far = Peer::plain("192.0.2.7:9".parse().unwrap());
        let refuses = |peer: Peer, plain_tokens, caller: &Caller| {
            Peer { plain_tokens, ..peer }.refusal_of(caller).is_some()
        };
        for (setting, of_personal, of_cache) in [
            (PlainTokens::None, true, true),
            (PlainTokens::Cache, true, false),
            (PlainTokens::All, false, false),
        ] {
            assert_eq!(refuses(far, setting, &personal), of_personal, "{setting:?}");
            assert_eq!(refuses(far, setting, &for_cache), of_cache, "{setting:?}");
            for near in ["127.0.0.1:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
                let near = Peer::plain(near.parse().unwrap());
                assert!(!refuses(near, setting, &personal), "{setting:?}");
            }
            assert!(!refuses(Peer::encrypted(far.address), setting, &personal));
        }
        test.stop().await;
    }

    #[test]
    fn the_host_is_without_its_port() {
        let host = |target: &str, header: Option<&str>| {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = target.parse().unwrap();
            if let Some(header) = header {
                request.headers_mut().insert(HOST, header.parse().unwrap());
            }
            host_of(&request).map(str::to_owned)
        };
        assert_eq!(host("/x", None), None);
        assert_eq!(host("/x", Some("office.local:5273")).as_deref(), Some("office.local"));
        assert_eq!(host("/x", Some("[::1]:5273")).as_deref(), Some("[::1]"));
        assert_eq!(host("/x", Some("[::1]")).as_deref(), Some("[::1]"));
        assert_eq!(host("https://office:1/x", Some("other")).as_deref(), Some("office"));
    }
}
