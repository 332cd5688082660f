//! What Nix asks of a binary cache. A read is answered with what is here or with 404, never with
//! 5xx or 429, on which Nix would wait and try again instead of asking elsewhere
//! (`src/libstore/filetransfer.cc`, Nix 2.34).

mod attachment;
mod bytes;
mod cache_info;
mod file;
#[cfg(fuzzing)]
pub mod fuzzed;
mod listing;
mod nar;
mod narinfo;
mod scope;
mod target;

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use crate::services::metrics::RequestKind;
use crate::services::{Scope, Services};
use crate::transports::http::error::{ReadError, not_allowed, short_text};
use crate::transports::http::router::{SharedServices, about_the_box};
use scope::Asked;
use target::{Resource, Target};

/// How much of the body of a refused request is taken, and how long.
const UNWANTED_BYTES_MAX: usize = 64 << 10;
const UNWANTED_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
pub(super) use target::ROOT_NAMES;

/// `GET` and `HEAD` of everything in a cache, by the cache's own URL or by the root.
pub(super) async fn answer(State(services): SharedServices, request: Request) -> Response {
    let (request, body) = request.into_parts();
    let target = Target::parse(request.uri.path());
    let kind = target.as_ref().map_or(RequestKind::Other, |target| kind_of(&target.resource));
    let response = match (&request.method, target) {
        (&Method::GET | &Method::HEAD, Some(target)) => read(&services, target, &request).await,
        (&Method::GET | &Method::HEAD, None) => ReadError::NotFound.into_response(),
        (method, _) => {
            drain(body).await;
            refuse(method)
        }
    };
    services.metrics.request(kind, response.status().as_u16());
    response
}

async fn read(services: &Services, target: Target<'_>, request: &Parts) -> Response {
    match scope::find(services, target.cache, request).await {
        Ok(asked) => {
            let answered = read_in(services, &asked, &target, request).await;
            let response = answered.unwrap_or_else(ReadError::into_response);
            scope::mark(response, &asked.scope, target.cache.is_none())
        }
        Err(error) => scope::refusal(error),
    }
}

async fn read_in(
    services: &Services,
    asked: &Asked,
    target: &Target<'_>,
    request: &Parts,
) -> Result<Response, ReadError> {
    let (lookup, scope) = (&services.lookup, &asked.scope);
    match &target.resource {
        Resource::About => Ok(about(services, scope, target.cache)),
        Resource::CacheInfo => Ok(cache_info::answer(scope)),
        Resource::NarInfo(hash) => narinfo::answer(lookup, scope, *hash, request).await,
        Resource::Nar(name) => nar::answer(services, asked, *name, request).await,
        Resource::Listing(hash) => listing::answer(lookup, scope, *hash).await,
        Resource::Attachment(name) => attachment::answer(lookup, scope, name, request).await,
        Resource::File(hash, path) => {
            file::answer(services, asked, lookup.file(scope, *hash, path.clone()).await?, request)
                .await
        }
        Resource::Artifact(pin, path) => {
            let found = lookup.artifact(scope, pin, path.clone()).await?;
            file::answer(services, asked, found, request).await
        }
    }
}

const fn kind_of(resource: &Resource) -> RequestKind {
    match resource {
        Resource::About => RequestKind::Other,
        Resource::CacheInfo => RequestKind::CacheInfo,
        Resource::NarInfo(_) => RequestKind::NarInfo,
        Resource::Nar(_) => RequestKind::Nar,
        Resource::Listing(_) => RequestKind::Listing,
        Resource::Attachment(_) => RequestKind::Attachment,
        Resource::File(..) | Resource::Artifact(..) => RequestKind::File,
    }
}

/// For a person who comes with a browser.
fn about(services: &Services, scope: &Scope, cache: Option<&str>) -> Response {
    let (Some(name), Some(its)) = (cache, scope.caches().first()) else {
        let caches: Vec<_> =
            services.caches.public_names().borrow().iter().map(ToString::to_string).collect();
        return about_the_box(services.status.box_name().as_str(), &caches);
    };
    let mut text = format!("This is '{name}', a Nix binary cache. {}\n", its.description);
    text.push_str("\nNix takes paths from this very URL. They are signed by:\n");
    for key in &its.keys {
        text.push_str(&format!("  {}\n", key.public_key()));
    }
    short_text(axum::http::StatusCode::OK, text)
}

/// Takes a little of what nobody asked for: clients of HTTP/2 take an answer that comes before
/// they have ended for a broken stream.
async fn drain(body: Body) {
    let _rest_or_more = timeout(UNWANTED_MAX, to_bytes(body, UNWANTED_BYTES_MAX)).await;
}

fn refuse(method: &Method) -> Response {
    let text = if *method == Method::PUT {
        "this box takes no paths by PUT: push with `larder push CACHE PATH…`\n"
    } else {
        "a binary cache is read by GET and HEAD\n"
    };
    not_allowed("GET, HEAD", text)
}
