//! Who may administer: whoever has a personal token; over plain HTTP only on the box itself.

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;

use crate::services::{AuthError, Caller};
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::peer::Peer;
use crate::transports::http::router::SharedServices;

/// Finds out who asks over HTTP. A personal token over plain HTTP is for this machine alone: on
/// the network everybody could read it. By TLS the box answers to its own names only, so that a
/// page of somebody else who has a name lead here gets nothing.
pub(super) async fn admit(
    State(services): SharedServices,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    if !peer.is_some_and(|peer| peer.is_near() || peer.is_encrypted) {
        let sentence = "over plain HTTP the administration answers only on the box itself, where \
                        nobody can listen; from elsewhere use https://, or the larder command, \
                        which comes by QUIC";
        return Problem::new(StatusCode::FORBIDDEN, sentence).into();
    }
    if !peer.is_some_and(|peer| peer.is_near() || peer.is_own_name) {
        let sentence = "the administration answers only to the box's own names: its address, its \
                        name, and those that its certificate is for";
        return Problem::new(StatusCode::FORBIDDEN, sentence).into();
    }
    let Some(token) = token_of(request.headers()) else {
        let sentence = "a personal token is needed, as 'Authorization: Bearer TOKEN'; on the box \
                        it is in the file admin.token of the data folder";
        return Problem::new(StatusCode::UNAUTHORIZED, sentence).into();
    };
    match services.auth.check(&token).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(AuthError::Store(error)) => Problem::from(error).into(),
        Err(error) => Problem::new(StatusCode::UNAUTHORIZED, error.to_string()).into(),
    }
}

/// Lets only those pass whose token is personal, however they came.
pub(super) async fn require_personal(request: Request, next: Next) -> Response {
    if request.extensions().get::<Caller>().is_some_and(Caller::is_personal) {
        return next.run(request).await;
    }
    let sentence = "administration needs a personal token, and this one is for caches";
    Problem::new(StatusCode::FORBIDDEN, sentence).into_response()
}

/// The token of `Authorization`: after `Bearer`, or as the password of `Basic`, whatever the
/// login (RFC 6750, 2.1; RFC 7617, 2).
pub(in crate::transports::http) fn token_of(headers: &HeaderMap) -> Option<String> {
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
