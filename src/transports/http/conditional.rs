//! Requests that depend on what the client has (RFC 9110, 13).

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

/// Whether the client has the very form that `etag` names: then the answer is 304. Tags are
/// compared weakly (RFC 9110, 13.1.2).
pub(super) fn client_has(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag == "*" || tag.as_bytes() == etag.as_bytes()
    })
}

/// 304, with what the client may keep it by.
pub(super) fn not_modified(etag: HeaderValue, keep: HeaderValue) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response.headers_mut().insert(ETAG, etag);
    response.headers_mut().insert(CACHE_CONTROL, keep);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IF_NONE_MATCH, value.parse().unwrap());
        }
        client_has(&headers, &HeaderValue::from_static("\"a-1\""))
    }

    #[test]
    fn one_of_the_tags_must_be_the_one() {
        for values in
            [&["\"a-1\""][..], &["W/\"a-1\""], &["\"b\", \"a-1\""], &["*"], &["\"b\"", "\"a-1\""]]
        {
            assert!(has(values), "{values:?}");
        }
        for values in [&[][..], &["\"a-2\""], &["a-1"], &["\"a-1"], &[""]] {
            assert!(!has(values), "{values:?}");
        }
    }
}
