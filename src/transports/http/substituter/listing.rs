//! `GET HASH.ls`

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::Response;

use crate::formats::StorePathHash;
use crate::services::{Lookup, Scope};
use crate::transports::http::error::ReadError;

const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=60");

pub(super) async fn answer(
    lookup: &Lookup,
    scope: &Scope,
    hash: StorePathHash,
) -> Result<Response, ReadError> {
    let listing = lookup.listing(scope, hash).await?.ok_or(ReadError::NotFound)?;
    let mut response = Response::new(Body::from(listing));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, KEEP);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
