//! `backup`

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use crate::formats::limits::BACKUP_PART_BYTES_MAX;
use crate::services::Caller;
use crate::services::backups::BackupState;
use crate::transports::http::admin::input::Asked;
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::error::KEEP_NOT;
use crate::transports::http::router::SharedServices;

#[derive(Debug, Serialize)]
pub(super) struct BackupBody {
    id: u64,
    made_at: u64,
    done_bytes: u64,
    total_bytes: u64,
    bytes: Option<u64>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PartQuery {
    offset: u64,
}

impl From<BackupState> for BackupBody {
    fn from(state: BackupState) -> Self {
        let BackupState { id, made_at, progress, bytes, error } = state;
        let (done_bytes, total_bytes) = (progress.done_bytes, progress.total_bytes);
        Self { id, made_at, done_bytes, total_bytes, bytes, error }
    }
}

/// `POST backup`
pub(super) async fn start(
    State(services): SharedServices,
    Extension(caller): Extension<Caller>,
) -> Result<(StatusCode, Json<BackupBody>), Problem> {
    match services.backups.start(caller.token.id) {
        Ok(state) => Ok((StatusCode::ACCEPTED, Json(state.into()))),
        Err(runs) => Err(Problem::new(StatusCode::CONFLICT, runs.to_string())),
    }
}

/// `GET backup`
pub(super) async fn show(State(services): SharedServices) -> Json<BackupBody> {
    Json(services.backups.state().into())
}

/// `GET backup/ID?offset=N`
pub(super) async fn part(
    State(services): SharedServices,
    Path(id): Path<String>,
    Asked(PartQuery { offset }): Asked<PartQuery>,
) -> Result<Response, Problem> {
    let part = services.backups.read(number(&id)?, offset, BACKUP_PART_BYTES_MAX).await?;
    let mut response = Response::new(Body::from(part.ok_or_else(gone)?));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, KEEP_NOT);
    Ok(response)
}

/// `DELETE backup/ID`
pub(super) async fn remove(
    State(services): SharedServices,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    if services.backups.remove(number(&id)?) { Ok(StatusCode::NO_CONTENT) } else { Err(gone()) }
}

fn number(id: &str) -> Result<u64, Problem> {
    id.parse().map_err(|_no_number| gone())
}

fn gone() -> Problem {
    let detail = "there is no such backup any more; make another one";
    Problem::new(StatusCode::NOT_FOUND, detail)
}
