//! `check`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use crate::services::CheckState;
use crate::services::check::{EndedCheck, RunningCheck};
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::router::SharedServices;

#[derive(Debug, Serialize)]
pub(super) struct CheckBody {
    running: Option<RunningBody>,
    last: Option<EndedBody>,
}

#[derive(Debug, Serialize)]
struct RunningBody {
    started_at: u64,
    done_bytes: u64,
    total_bytes: u64,
}

#[derive(Debug, Serialize)]
struct EndedBody {
    started_at: u64,
    ended_at: u64,
    error: Option<String>,
    records: u64,
    bytes: u64,
    paths: u64,
    damaged: Vec<String>,
}

impl From<CheckState> for CheckBody {
    fn from(state: CheckState) -> Self {
        Self { running: state.running.map(Into::into), last: state.last.map(Into::into) }
    }
}

impl From<RunningCheck> for RunningBody {
    fn from(RunningCheck { started_at, progress }: RunningCheck) -> Self {
        Self { started_at, done_bytes: progress.done_bytes, total_bytes: progress.total_bytes }
    }
}

impl From<EndedCheck> for EndedBody {
    fn from(EndedCheck { started_at, ended_at, result }: EndedCheck) -> Self {
        let (report, error) = match result {
            Ok(report) => (report, None),
            Err(error) => (Default::default(), Some(error)),
        };
        Self {
            started_at,
            ended_at,
            error,
            records: report.records,
            bytes: report.bytes,
            paths: report.paths,
            damaged: report.damaged,
        }
    }
}

/// `GET check`
pub(super) async fn show(State(services): SharedServices) -> Json<CheckBody> {
    Json(services.checks.state().into())
}

/// `POST check`
pub(super) async fn start(
    State(services): SharedServices,
) -> Result<(StatusCode, Json<CheckBody>), Problem> {
    match services.checks.start() {
        Ok(state) => Ok((StatusCode::ACCEPTED, Json(state.into()))),
        Err(runs) => Err(Problem::new(StatusCode::CONFLICT, runs.to_string())),
    }
}
