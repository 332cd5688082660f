//! `GET serve/STOREHASH/FILE` and `GET pin/NAME/FILE`: single files out of NARs.
//!
//! Anybody who may push has written them, and the administration is at the same address; so a
//! browser is given nothing that it would run: it may show what cannot do anything, and saves the
//! rest.

use axum::http::header::{
    CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
};
use axum::http::{HeaderMap, request::Parts};
use axum::response::Response;

use crate::formats::file_path::percent_encoded;
use crate::services::{NoFile, Services, StoredFile};
use crate::transports::http::error::ReadError;
use crate::transports::http::substituter::bytes::{self, File, Form};
use crate::transports::http::substituter::scope::Asked;

/// A path may go away, and a pin get another revision.
const KEEP: HeaderValue = HeaderValue::from_static("no-cache");
/// For what a browser shows although it should not.
const POLICY: HeaderValue = HeaderValue::from_static("sandbox; default-src 'none'");
const UNKNOWN: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";

/// What a browser may show: pictures without scripts in them, and texts as texts.
const HARMLESS: [(&str, &str); 9] = [
    ("gif", "image/gif"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("json", "application/json"),
    ("log", TEXT),
    ("md", TEXT),
    ("png", "image/png"),
    ("txt", TEXT),
    ("webp", "image/webp"),
];

pub(super) async fn answer(
    services: &Services,
    asked: &Asked,
    found: Result<StoredFile, NoFile>,
    request: &Parts,
) -> Result<Response, ReadError> {
    let StoredFile { nar, offset, size, name } = found.map_err(ReadError::NoFile)?;
    // Bytes of one NAR never change, so where they stand in it names them.
    let etag = format!("\"{}+{offset}\"", nar.nar_hash.to_base32());
    let headers = headers(&name);
    let file = File { nar, form: Form::Raw, start: offset, size, etag, keep: KEEP, headers };
    bytes::answer(services, asked, file, request).await
}

/// What is said of a file of that name.
fn headers(name: &str) -> HeaderMap {
    let harmless = kind_of(name);
    let kind = HeaderValue::from_static(harmless.unwrap_or(UNKNOWN));
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    if harmless.is_none() {
        // RFC 6266, 4.3; every other byte is escaped (RFC 8187, 3.2).
        let attachment = format!("attachment; filename*=UTF-8''{}", percent_encoded(name, b"-._~"));
        headers.extend(HeaderValue::try_from(attachment).map(|it| (CONTENT_DISPOSITION, it)));
    }
    headers
}

/// Keeps pages of others from taking it in as a picture or a script (Fetch, 3.7).
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The type of a file that does no harm; `None` for all others.
fn kind_of(name: &str) -> Option<&'static str> {
    let (_, end) = name.rsplit_once('.')?;
    let found = HARMLESS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(end));
    found.map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_harmless_is_shown() {
        assert_eq!(kind_of("a.PNG"), Some("image/png"));
        assert_eq!(kind_of("build.log"), Some(TEXT));
        for name in ["a.html", "a.svg", "a.xml", "a.xhtml", "a.js", "a.pdf", "png", "a.png.html"] {
            let headers = headers(name);
            assert_eq!(headers[CONTENT_TYPE], UNKNOWN, "{name}");
            assert!(headers[CONTENT_DISPOSITION].to_str().unwrap().starts_with("attachment"));
        }
        for name in ["a.html", "a.txt"] {
            assert_eq!(headers(name)[CONTENT_SECURITY_POLICY], POLICY);
        }
    }

    #[test]
    fn a_name_cannot_break_out_of_its_header() {
        let headers = headers("a\"; x=\u{e9}.html");
        let expected = "attachment; filename*=UTF-8''a%22%3B%20x%3D%C3%A9.html";
        assert_eq!(headers[CONTENT_DISPOSITION], expected);
    }
}
