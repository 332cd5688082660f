//! Who asks over HTTP.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use data_encoding::BASE64;

use crate::services::{Auth, Caller};
use crate::transports::http::peer::Peer;
use crate::transports::origin::origin_of;

/// Who a reader is.
#[derive(Debug)]
pub(super) enum Reader {
    /// Somebody with a good token.
    Known(Caller),
    /// Nobody: there was no token.
    Unknown,
    /// Nobody either: the token that was shown is none, is no longer, or does not count the way it
    /// came. A sentence says why.
    BadToken(String),
}

impl Reader {
    /// Who sent this request.
    pub(super) async fn of(request: &Parts, auth: &Auth) -> Self {
        let Some(token) = token_of(&request.headers) else { return Self::Unknown };
        // There wherever a token is; see `asks_for_peer`.
        let Some(peer) = request.extensions.get::<Peer>() else { return Self::Unknown };
        match auth.check_from(origin_of(peer.address), None, &token).await {
            Ok(caller) => match peer.refusal_of(&caller) {
                None => Self::Known(caller),
                Some(why) => Self::BadToken(why.to_owned()),
            },
            Err(error) => Self::BadToken(error.to_string()),
        }
    }

    /// Whose rights count. A bad token counts as none: libcurl sends the one netrc line of a host
    /// to all of it, so an old one must not keep anybody from what is public.
    pub(super) const fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Known(caller) => Some(caller),
            Self::Unknown | Self::BadToken(_) => None,
        }
    }
}

/// The token of `Authorization`: after `Bearer`, or as the password of `Basic`, whatever the
/// login (RFC 6750, 2.1; RFC 7617, 2).
pub(super) fn token_of(headers: &HeaderMap) -> Option<String> {
    let (scheme, rest) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let login = String::from_utf8(BASE64.decode(rest.as_bytes()).ok()?).ok()?;
    login.split_once(':').map(|(_login, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        token_of(&headers)
    }

    #[test]
    fn bearer_and_basic_are_alike() {
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        assert_eq!(of("Bearer ldr_x").as_deref(), Some("ldr_x"));
        assert_eq!(of("bearer  ldr_x").as_deref(), Some("ldr_x"));
        for login in ["", "anybody", "ldr"] {
            let value = basic(&format!("{login}:ldr_x"));
            assert_eq!(of(&value).as_deref(), Some("ldr_x"), "{login}");
        }
        for value in ["", "Bearer", "Basic ldr_x", &basic("ldr_x"), "Digest x", "ldr_x"] {
            assert_eq!(of(value), None, "{value}");
        }
    }
}
