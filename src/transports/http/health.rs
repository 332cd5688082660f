//! How the box is, for machines.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use tracing::error;

use crate::services::chain::Chain;
use crate::transports::http::error::{KEEP_NOT, short_text};
use crate::transports::http::router::SharedServices;

/// What OpenMetrics 1.0 calls its text format.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> Response {
    fresh(short_text(StatusCode::OK, "ok\n"))
}

/// `GET /readyz`: the store answers too. The one place that says 503, as no Nix asks for it. A box
/// that can be read and not written is ready, and says so: readers are what it must not lose.
pub(super) async fn readyz(State(services): SharedServices) -> Response {
    match services.status.check_ready().await {
        Ok(()) if services.status.disk_problem().is_some() => {
            let text =
                "ready for readers; pushes are refused, as the data folder cannot be written\n";
            fresh(short_text(StatusCode::OK, text))
        }
        Ok(()) => fresh(short_text(StatusCode::OK, "ready\n")),
        Err(error) => {
            error!(error = %Chain(&error), "The store does not answer");
            let text = "the store does not answer; the box's log says why\n";
            fresh(short_text(StatusCode::SERVICE_UNAVAILABLE, text))
        }
    }
}

/// `GET /metrics`
pub(super) async fn metrics(State(services): SharedServices) -> Response {
    let mut response = short_text(StatusCode::OK, services.metrics.to_text());
    response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
    fresh(response)
}

fn fresh(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, KEEP_NOT);
    response
}
