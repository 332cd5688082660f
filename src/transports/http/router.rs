//! The one table of what the box answers.
//!
//! Beside the fixed paths of the root everything is the substituter's: the root cache's files and
//! `/{cache}/…`. Names of caches cannot be mistaken for fixed paths: see
//! [`RESERVED`](crate::formats::cache_name::RESERVED).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get};

use crate::services::Services;
use crate::services::metrics::RequestKind;
use crate::transports::http::error::{not_allowed, short_text};
use crate::transports::http::{admin, health, substituter};

/// What handlers are given.
pub(super) type SharedServices = State<Arc<Services>>;

/// Whether it matters where a request came from: somebody shows who they are, or has to.
pub(super) fn asks_for_peer(request: &Request) -> bool {
    request.headers().contains_key(AUTHORIZATION) || request.uri().path().starts_with(admin::PREFIX)
}

/// What the root serves under a name of its own, all by GET and HEAD.
fn fixed() -> [(&'static str, MethodRouter<Arc<Services>>); 3] {
    [
        ("/healthz", get(health::healthz)),
        ("/readyz", get(health::readyz)),
        ("/metrics", get(health::metrics)),
    ]
}

/// Everything that the box answers over HTTP.
pub(super) fn router(services: Services) -> Router {
    let services = Arc::new(services);
    let admin = admin::router_for_http(&services);
    let mut counted = Router::new();
    for (path, route) in fixed() {
        counted = counted.route(path, route.fallback(only_get));
    }
    let counted = counted
        .nest(admin::PREFIX, admin)
        .route_layer(from_fn_with_state(Arc::clone(&services), count));
    counted.fallback(substituter::answer).with_state(services)
}

async fn only_get() -> Response {
    not_allowed("GET, HEAD", "this can only be read\n")
}

/// Counts what does not count itself.
async fn count(State(services): SharedServices, request: Request, next: Next) -> Response {
    let is_admin = request.uri().path().starts_with(admin::PREFIX);
    let kind = if is_admin { RequestKind::Admin } else { RequestKind::Health };
    let response = next.run(request).await;
    services.metrics.request(kind, response.status().as_u16());
    response
}

/// For a person who comes with a browser.
pub(super) fn about_the_box(name: &str, caches: &[String]) -> Response {
    let mut text = format!(
        "This is {name}, a larder: a Nix binary cache on your network.\n\n\
         Nix takes paths from this very URL (nix.conf: substituters), and from each cache:\n"
    );
    for cache in caches {
        text.push_str(&format!("  /{cache}\n"));
    }
    text.push_str("\n`larder push` puts paths in. `larder --help` says more.\n");
    short_text(StatusCode::OK, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::cache_name::RESERVED;
    use crate::transports::http::substituter::ROOT_NAMES;

    #[test]
    fn no_cache_can_have_a_name_that_the_root_needs() {
        let fixed = fixed().map(|(path, _)| path);
        let paths = fixed.into_iter().chain([admin::PREFIX]).map(|path| &path[1..]);
        for path in paths.chain(ROOT_NAMES) {
            let first = path.split('/').next().unwrap();
            assert!(RESERVED.contains(&first), "'{first}' must be in RESERVED");
        }
    }
}
