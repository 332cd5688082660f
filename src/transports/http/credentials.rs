//! Who asks over HTTP.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use data_encoding::BASE64;

use crate::services::{Auth, AuthError, Caller};

/// Who a reader is.
#[derive(Debug)]
pub(super) enum Reader {
    /// Somebody with a good token.
    Known(Caller),
    /// Nobody: there was no token.
    Unknown,
    /// Nobody either: the token that was shown is none, or is no longer.
    BadToken(AuthError),
}

impl Reader {
    /// Who reads with these headers.
    pub(super) async fn of(headers: &HeaderMap, auth: &Auth) -> Self {
        let Some(token) = token_of(headers) else { return Self::Unknown };
        match auth.check(&token).await {
            Ok(caller) => Self::Known(caller),
            Err(error) => Self::BadToken(error),
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
