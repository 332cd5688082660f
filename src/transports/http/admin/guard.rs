//! Who may administer: whoever has a personal token, and for pins of a cache whoever has one for
//! that; over plain HTTP only on the box itself.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::services::Caller;
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::credentials::token_of;
use crate::transports::http::peer::Peer;
use crate::transports::http::router::SharedServices;
use crate::transports::origin::origin_of;

/// Finds out who asks over HTTP. A personal token over plain HTTP is for this machine alone: on
/// the network everybody could read it. By TLS the box answers to its own names only, so that a
/// page of somebody else who has a name lead here gets nothing.
pub(super) async fn admit(
    State(services): SharedServices,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let Some(peer) = peer.filter(|peer| peer.is_near() || peer.is_encrypted) else {
        let sentence = "over plain HTTP the administration answers only on the box itself, where \
                        nobody can listen; from elsewhere use https://, or the larder command, \
                        which comes by QUIC";
        return Problem::new(StatusCode::FORBIDDEN, sentence).into();
    };
    if !peer.is_near() && !peer.is_own_name {
        let sentence = "the administration answers only to the box's own names: its address, its \
                        name, and those that its certificate is for";
        return Problem::new(StatusCode::FORBIDDEN, sentence).into();
    }
    let Some(token) = token_of(request.headers()) else {
        let sentence = "a personal token is needed, as 'Authorization: Bearer TOKEN'; on the box \
                        it is in the file admin.token of the data folder";
        return Problem::new(StatusCode::UNAUTHORIZED, sentence).into();
    };
    match services.auth.check_from(origin_of(peer.address), None, &token).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => Problem::new(StatusCode::UNAUTHORIZED, error.to_string()).into(),
    }
}

/// Lets only those pass whose token is personal, however they came.
pub(super) async fn require_personal(request: Request, next: Next) -> Response {
    if request.extensions().get::<Caller>().is_some_and(Caller::is_personal) {
        return next.run(request).await;
    }
    let mut response = Problem::new(StatusCode::FORBIDDEN, PERSONAL_NEEDED).into_response();
    response.extensions_mut().insert(PersonalNeeded);
    response
}

/// What a token for caches is told.
pub(super) const PERSONAL_NEEDED: &str =
    "administration needs a personal token, and this one is for caches";

/// Marks the answer to a token for caches, which QUIC says in its own way.
#[derive(Clone, Copy)]
pub(super) struct PersonalNeeded;
