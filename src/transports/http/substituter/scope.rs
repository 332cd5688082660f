//! Where a reader may ask, and to whom else a cache in between may give the answer.

use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, VARY};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use crate::formats::CacheName;
use crate::services::{Caller, Scope, Services, TokenId};
use crate::transports::http::credentials::Reader;
use crate::transports::http::error::{KEEP_NOT, ReadError};

/// Where a reader asks, and by what right.
pub(super) struct Asked {
    pub(super) scope: Scope,
    /// The token that is needed to read there. Once it ends nothing more goes out.
    pub(super) token: Option<TokenId>,
}

impl Asked {
    fn of(scope: Scope, caller: Option<&Caller>) -> Self {
        let token = caller.map(|caller| caller.token.id).filter(|_| !scope.is_public());
        Self { scope, token }
    }
}

/// Where the reader asks: a cache by its name, or the root (`None`). Without a good token a
/// private cache and none at all are the same, and so they are to a token that may not read it.
pub(super) async fn find(
    services: &Services,
    cache: Option<&str>,
    request: &Parts,
) -> Result<Asked, ReadError> {
    let Some(name) = cache else {
        let reader = Reader::of(request, &services.auth).await;
        let scope = services.caches.root_scope(reader.caller());
        return Ok(Asked::of(scope, reader.caller()));
    };
    // What is public asks for no token.
    if let Some(scope) = services.caches.scope(name, None) {
        return Ok(Asked::of(scope, None));
    }
    // No cache can be called so: a browser that looks for favicon.ico is not asked to log in.
    if name.parse::<CacheName>().is_err() {
        return Err(ReadError::NotFound);
    }
    match Reader::of(request, &services.auth).await {
        Reader::Known(caller) => match services.caches.scope(name, Some(&caller)) {
            Some(scope) => Ok(Asked::of(scope, Some(&caller))),
            None => Err(ReadError::NoSuchCache),
        },
        Reader::Unknown => Err(ReadError::Unauthorised(None)),
        Reader::BadToken(why) => Err(ReadError::Unauthorised(Some(why))),
    }
}

/// The answer to somebody who has nowhere to ask. With another token it may be another.
pub(super) fn refusal(error: ReadError) -> Response {
    let mut response = error.into_response();
    response.headers_mut().insert(VARY, VARIES);
    response
}

/// Says of an answer out of `scope` who else may be given it (RFC 9111, 3.5 and 4.1): what took a
/// right to read is for this token alone, and what the root says depends on who asks.
pub(super) fn mark(mut response: Response, scope: &Scope, is_root: bool) -> Response {
    let headers = response.headers_mut();
    if is_root || !scope.is_public() {
        headers.insert(VARY, VARIES);
    }
    if !scope.is_public() {
        let keep = headers.get(CACHE_CONTROL).map_or(KEEP_NOT, for_one_alone);
        headers.insert(CACHE_CONTROL, keep);
    }
    response
}

const VARIES: HeaderValue = HeaderValue::from_static("authorization");

/// The same `Cache-Control`, for whoever asked and nobody else.
fn for_one_alone(keep: &HeaderValue) -> HeaderValue {
    let Ok(text) = keep.to_str() else { return KEEP_NOT };
    if keep == KEEP_NOT {
        return KEEP_NOT;
    }
    let rest = text.strip_prefix("public, ").unwrap_or(text);
    HeaderValue::try_from(format!("private, {rest}")).unwrap_or(KEEP_NOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_one_alone_is_kept_by_nobody_in_between() {
        let of = |keep: &'static str| for_one_alone(&HeaderValue::from_static(keep));
        assert_eq!(of("public, max-age=60"), "private, max-age=60");
        assert_eq!(of("no-cache"), "private, no-cache");
        assert_eq!(of("no-store"), "no-store");
    }
}
