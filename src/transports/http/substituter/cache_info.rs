//! `GET nix-cache-info`

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;

use crate::formats::cache_info::CacheInfo;
use crate::services::Scope;
use crate::transports::http::error::short_text;

/// Nix itself keeps it for seven days (`src/libstore/nar-info-disk-cache.cc`, Nix 2.33).
const KEEP: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// Always 200: on anything else Nix tries to PUT one, and then says that this is no cache.
pub(super) fn answer(scope: &Scope) -> Response {
    let info = CacheInfo { want_mass_query: true, priority: scope.priority() };
    let mut response = short_text(StatusCode::OK, info.to_string());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/x-nix-cache-info"));
    headers.insert(CACHE_CONTROL, KEEP);
    response
}
