//! Bodies of requests as values.

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::formats::limits::ADMIN_BODY_BYTES_MAX;
use crate::transports::http::admin::problem::Problem;

/// A body of JSON, of at most [`ADMIN_BODY_BYTES_MAX`] bytes, whatever its `Content-Type`.
#[derive(Debug)]
pub(super) struct Input<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Self::Rejection> {
        let body = to_bytes(request.into_body(), ADMIN_BODY_BYTES_MAX).await;
        let body = body.map_err(|_too_long_or_gone| Problem::too_large())?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            let detail = format!("the body is not what this request takes: {error}");
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })
    }
}

/// What stands behind the `?` of a request.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|error| {
            let detail = format!("what is asked for cannot be read: {}", error.body_text());
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })
    }
}
