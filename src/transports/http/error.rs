//! Answers without content: short plain texts, since Nix shows what is below 1 KiB to people
//! (`src/libstore/filetransfer.cc`, Nix 2.35).

use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tracing::error;

use crate::services::chain::Chain;
use crate::services::{NoFile, StoreError};

/// Whoever keeps it must ask again: what is missing now may be pushed in a moment.
pub(super) const ASK_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");
/// Nobody keeps it.
pub(super) const KEEP_NOT: HeaderValue = HeaderValue::from_static("no-store");

/// Why a reader gets nothing.
#[derive(Debug)]
pub(super) enum ReadError {
    /// It is not here.
    NotFound,
    /// There is no such file in a path.
    NoFile(NoFile),
    /// There is no such cache that the reader may read. Nothing tells whether there is one.
    NoSuchCache,
    /// The same, to a reader without a good token; and why the one that was shown is none.
    Unauthorised(Option<String>),
    /// It cannot be told whether it is here. For Nix that must look like a miss: it would try
    /// again on 5xx instead of asking elsewhere.
    Unreadable(StoreError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Unreadable(error)
    }
}

impl IntoResponse for ReadError {
    fn into_response(self) -> Response {
        let (text, keep) = match self {
            Self::NotFound => ("not found\n", ASK_AGAIN),
            Self::NoFile(why) => {
                let mut response = short_text(StatusCode::NOT_FOUND, format!("not found: {why}\n"));
                response.headers_mut().insert(CACHE_CONTROL, ASK_AGAIN);
                return response;
            }
            Self::NoSuchCache => ("there is no such cache that this token may read\n", KEEP_NOT),
            Self::Unauthorised(why) => return unauthorised(why.as_deref()),
            Self::Unreadable(error) => {
                error!(error = %Chain(&error), "The store cannot be read; answered 'not found'");
                ("not found, as the box cannot read its store; its log says why\n", KEEP_NOT)
            }
        };
        let mut response = short_text(StatusCode::NOT_FOUND, text);
        response.headers_mut().insert(CACHE_CONTROL, keep);
        response
    }
}

/// Answers with 401. For Nix up to 2.34 that is a miss, later an error after which it asks the
/// next substituter (`src/libstore/filetransfer.cc`).
fn unauthorised(why: Option<&str>) -> Response {
    let why = why.map_or_else(String::new, |why| format!("{why}\n"));
    let text = format!(
        "there is no public cache of this name; if it is a private one, a token that may read it \
         has to come along, as a password (netrc) or 'Authorization: Bearer'\n{why}"
    );
    let mut response = short_text(StatusCode::UNAUTHORIZED, text);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, KEEP_NOT);
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"larder\""));
    response
}

/// A text of one screen at most.
pub(super) fn short_text(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// 405 with what is allowed instead.
pub(super) fn not_allowed(allow: &'static str, text: &'static str) -> Response {
    let mut response = short_text(StatusCode::METHOD_NOT_ALLOWED, text);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}
