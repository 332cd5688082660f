//! The administrative API, `/api/larder/v1`: docs/admin-api.md describes it.
//!
//! One router; over HTTP a guard stands before it, and over QUIC, where the token was checked
//! already, it is called as a function.

mod backup;
mod caches;
mod check;
mod collections;
mod guard;
mod input;
mod keys;
mod log;
mod pairing;
mod paths;
mod pins;
mod problem;
mod status;
mod tokens;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{delete, get, post};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tower::ServiceExt;

use crate::formats::limits::{ADMIN_BODY_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::services::{Caller, Services};
use crate::transports::http::admin::guard::{PERSONAL_NEEDED, PersonalNeeded};
use crate::transports::http::admin::problem::Problem;
use crate::wire::message::{AdminRequest, AdminResponse};
use crate::wire::{Refusal, RefusalCode};

/// Where the API is.
pub(super) const PREFIX: &str = "/api/larder/v1";

/// Answers an administrative request of somebody whose token has been checked.
pub type AdminFunction =
    Arc<dyn Fn(AdminRequest, Caller) -> BoxFuture<'static, Answer> + Send + Sync>;
/// The answer, or the refusal of a token that is none for administration.
type Answer = Result<AdminResponse, Refusal>;

/// The API without [`PREFIX`]. Who asks must be known: see [`guard`].
fn router() -> Router<Arc<Services>> {
    // These look at the rights of the token themselves.
    let for_caches = Router::new()
        .route("/caches/{name}/pins", get(pins::list).post(pins::create))
        .route("/caches/{name}/pins/{pin}", delete(pins::remove))
        .method_not_allowed_fallback(problem::method_not_allowed);
    for_owner().merge(for_caches)
}

/// What takes a personal token.
fn for_owner() -> Router<Arc<Services>> {
    Router::new()
        .route("/caches", get(caches::list).post(caches::create))
        .route("/caches/{name}", get(caches::show).patch(caches::change).delete(caches::delete))
        .route("/caches/{name}/keys", get(keys::list).post(keys::register))
        .route("/caches/{name}/keys/{key}", delete(keys::remove))
        .route("/caches/{name}/keys/{key}/restore", post(keys::restore))
        .route("/caches/{name}/rotate-key", post(keys::rotate))
        .route("/caches/{name}/log", get(log::show))
        .route("/caches/{name}/paths/{path}", get(paths::show).delete(paths::remove))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}", delete(tokens::revoke))
        .route("/pairing-codes", post(pairing::create))
        .route("/status", get(status::show))
        .route("/backup", get(backup::show).post(backup::start))
        .route("/backup/{id}", get(backup::part).delete(backup::remove))
        .route("/check", get(check::show).post(check::start))
        .route("/collection", get(collections::show).post(collections::start))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::no_such_thing)
        .layer(from_fn(guard::require_personal))
}

/// The API for HTTP: to whom the [`guard`] lets in, with a token in each request.
pub(super) fn router_for_http(services: &Arc<Services>) -> Router<Arc<Services>> {
    router().layer(from_fn_with_state(Arc::clone(services), guard::admit))
}

/// The API as a function, for QUIC.
#[must_use]
pub fn admin_handler(services: Services) -> AdminFunction {
    let services = Arc::new(services);
    let router: Router = Router::new().nest(PREFIX, router()).with_state(services);
    Arc::new(move |request, caller| call(router.clone(), request, caller).boxed())
}

async fn call(router: Router, request: AdminRequest, caller: Caller) -> Answer {
    let answered = match request_of(request, caller) {
        // The router answers everything; it has no way to fail.
        Ok(request) => router.oneshot(request).await.unwrap_or_else(|never| match never {}),
        Err(problem) => problem.into(),
    };
    if answered.extensions().get::<PersonalNeeded>().is_some() {
        return Err(Refusal::new(RefusalCode::Forbidden, PERSONAL_NEEDED));
    }
    Ok(response_of(answered).await)
}

fn request_of(asked: AdminRequest, caller: Caller) -> Result<Request, Problem> {
    let malformed = |what: &dyn fmt::Display| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the request is malformed: {what}"))
    };
    let method = Method::try_from(asked.method.as_str()).map_err(|error| malformed(&error))?;
    let uri = Uri::try_from(asked.path).map_err(|error| malformed(&error))?;
    if asked.body.len() > ADMIN_BODY_BYTES_MAX {
        return Err(Problem::too_large());
    }
    let mut request = Request::new(Body::from(asked.body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request.extensions_mut().insert(caller);
    Ok(request)
}

async fn response_of(response: Response) -> AdminResponse {
    let status = response.status().as_u16();
    // Less than a message, for the status and the message's own bytes.
    let body = to_bytes(response.into_body(), MESSAGE_BYTES_MAX - 1024).await;
    body.map_or_else(
        |_too_long| {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            let sentence = "the answer is longer than a message may be; ask for less at a time \
                            (limit=N), or over HTTP on the box itself";
            AdminResponse {
                status: status.as_u16(),
                body: Problem::new(status, sentence).to_json(),
            }
        },
        |body| AdminResponse { status, body: body.into() },
    )
}
