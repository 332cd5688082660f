//! Errors of the API: problem details (RFC 9457).

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::error;

use crate::formats::limits::ADMIN_BODY_BYTES_MAX;
use crate::services::StoreError;
use crate::services::chain::Chain;
use crate::transports::http::error::KEEP_NOT;

/// Why a request was not done, as one sentence for people: what, why, what to do.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
}

#[derive(Serialize)]
struct Details<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    pub(super) fn too_large() -> Self {
        let detail = format!("the body has more than {ADMIN_BODY_BYTES_MAX} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// Something of ours failed: the cause goes to the log, not to a stranger.
    pub(super) fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        error!(error = %Chain(cause), "An administrative request failed");
        let mut causes = std::iter::successors(Some(cause), |cause| cause.source());
        match causes.find_map(of_store) {
            Some(error) if error.is_no_space() => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "the box's disk is full; 'larder status' shows what takes the space",
            ),
            Some(error) if error.is_of_disk() => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the box's disk fails or cannot be written; 'larder status' and \
                 the box's log say why",
            ),
            _ => {
                let detail = "the box could not do it; its log says why";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
            }
        }
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let status = self.status.as_u16();
        let details = Details { r#type: "about:blank", title, status, detail: &self.detail };
        serde_json::to_vec(&details).unwrap_or_default()
    }
}

/// The store's error, also where it is shared by all whose commit it was.
fn of_store<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a StoreError> {
    let shared = || cause.downcast_ref::<Arc<StoreError>>().map(|error| &**error);
    cause.downcast_ref().or_else(shared)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        let mut response = Response::new(Body::from(problem.to_json()));
        *response.status_mut() = problem.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, KEEP_NOT);
        if problem.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"larder\""));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.into()
    }
}

pub(super) async fn no_such_thing(uri: Uri) -> Problem {
    let detail =
        format!("there is nothing at {}; docs/admin-api.md lists what there is", uri.path());
    Problem::new(StatusCode::NOT_FOUND, detail)
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail =
        format!("{method} means nothing at {}; docs/admin-api.md says what does", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
