//! `collection`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::formats::CacheName;
use crate::services::collections::CollectionReport;
use crate::services::{
    CollectionRequest, CollectionState, EndedCollection, LeavingReason, Space, StartCollectionError,
};
use crate::transports::http::admin::input::Input;
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::router::SharedServices;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartBody {
    cache: Option<CacheName>,
    target_free_bytes: Option<u64>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct CollectionBody {
    running_since: Option<u64>,
    last: Option<EndedBody>,
}

#[derive(Debug, Serialize)]
struct EndedBody {
    started_at: u64,
    ended_at: u64,
    dry_run: bool,
    error: Option<String>,
    paths: Vec<PathBody>,
    paths_count: u64,
    nars: u64,
    chunks: u64,
    packs: u64,
    freed_bytes: u64,
    moved_bytes: u64,
}

#[derive(Debug, Serialize)]
struct PathBody {
    cache: String,
    path: String,
    file_size: u64,
    reason: &'static str,
}

/// Why a path leaves, in a word.
const fn reason(why: LeavingReason) -> &'static str {
    match why {
        LeavingReason::Retention => "retention",
        LeavingReason::CacheQuota => "quota",
        LeavingReason::BoxQuota => "box-quota",
        LeavingReason::Space => "space",
    }
}

/// Room on the disk, in bytes.
#[derive(Debug, Serialize)]
pub(super) struct SpaceBody {
    total_bytes: u64,
    available_bytes: u64,
    kept_free_bytes: u64,
    promised_bytes: u64,
    quota_bytes: Option<u64>,
}

impl From<Space> for SpaceBody {
    fn from(space: Space) -> Self {
        let Space { total_bytes, available_bytes, kept_free_bytes, promised_bytes, quota_bytes } =
            space;
        Self { total_bytes, available_bytes, kept_free_bytes, promised_bytes, quota_bytes }
    }
}

impl From<CollectionState> for CollectionBody {
    fn from(state: CollectionState) -> Self {
        Self { running_since: state.running_since, last: state.last.map(Into::into) }
    }
}

impl From<EndedCollection> for EndedBody {
    fn from(ended: EndedCollection) -> Self {
        let EndedCollection { started_at, ended_at, dry_run, result } = ended;
        let (report, error) = match result {
            Ok(report) => (report, None),
            Err(error) => (CollectionReport::default(), Some(error)),
        };
        let CollectionReport { paths, paths_count, store } = report;
        let paths = paths.into_iter().map(|(cache, leaving)| PathBody {
            cache,
            path: leaving.path.to_absolute(),
            file_size: leaving.file_size,
            reason: reason(leaving.reason),
        });
        Self {
            started_at,
            ended_at,
            dry_run,
            error,
            paths: paths.collect(),
            paths_count,
            nars: store.nars,
            chunks: store.chunks,
            packs: store.packs,
            freed_bytes: store.freed_bytes,
            moved_bytes: store.moved_bytes,
        }
    }
}

/// `GET collection`
pub(super) async fn show(State(services): SharedServices) -> Json<CollectionBody> {
    Json(services.collections.state().into())
}

/// `POST collection`
pub(super) async fn start(
    State(services): SharedServices,
    Input(body): Input<StartBody>,
) -> Result<(StatusCode, Json<CollectionBody>), Problem> {
    let StartBody { cache, target_free_bytes, dry_run } = body;
    let started =
        services.collections.start(CollectionRequest { cache, target_free_bytes, dry_run });
    match started {
        Ok(state) => Ok((StatusCode::ACCEPTED, Json(state.into()))),
        Err(error) => {
            let status = match error {
                StartCollectionError::NoSuchCache(_) => StatusCode::NOT_FOUND,
                StartCollectionError::Runs => StatusCode::CONFLICT,
            };
            Err(Problem::new(status, error.to_string()))
        }
    }
}
