//! `GET HASH.narinfo`

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::request::Parts;
use axum::response::Response;

use crate::formats::StorePathHash;
use crate::services::{Lookup, Scope};
use crate::transports::http::conditional::{client_has, not_modified};
use crate::transports::http::error::ReadError;

/// A narinfo may get more signatures, or go away, so proxies ask again soon.
const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=60");
const CONTENT: HeaderValue = HeaderValue::from_static("text/x-nix-narinfo");

pub(super) async fn answer(
    lookup: &Lookup,
    scope: &Scope,
    hash: StorePathHash,
    request: &Parts,
) -> Result<Response, ReadError> {
    let narinfo = lookup.narinfo(scope, hash).await?.ok_or(ReadError::NotFound)?;
    // The tag is base-32 in quotes.
    let etag = HeaderValue::from_maybe_shared(narinfo.etag).map_err(|_| ReadError::NotFound)?;
    if client_has(&request.headers, &etag) {
        return Ok(not_modified(etag, KEEP));
    }
    let mut response = Response::new(Body::from(narinfo.text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, CONTENT);
    headers.insert(CACHE_CONTROL, KEEP);
    headers.insert(ETAG, etag);
    Ok(response)
}
