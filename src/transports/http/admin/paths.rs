//! `caches/NAME/paths/PATH`

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::formats::StorePath;
use crate::services::StoreError;
use crate::services::paths::{PathFacts, RemovePathError, RemovedPaths};
use crate::transports::http::admin::caches::no_such_cache;
use crate::transports::http::admin::input::Asked;
use crate::transports::http::admin::log::{PushBody, parse_path};
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::router::SharedServices;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RemoveQuery {
    with_referrers: bool,
    purge: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct PathBody {
    path: String,
    nar_hash: String,
    nar_size: u64,
    file_size: u64,
    references: Vec<String>,
    deriver: Option<String>,
    ca: Option<String>,
    signatures: Vec<String>,
    visible: bool,
    damaged: bool,
    missing: Vec<String>,
    push: Option<PushBody>,
}

#[derive(Debug, Serialize)]
pub(super) struct RemovedBody {
    paths: Vec<String>,
    freed_bytes: u64,
}

fn absolute(paths: &[StorePath]) -> Vec<String> {
    paths.iter().map(StorePath::to_absolute).collect()
}

impl From<PathFacts> for PathBody {
    fn from(facts: PathFacts) -> Self {
        let PathFacts { record, missing, push } = facts;
        let info = record.info;
        Self {
            path: info.store_path.to_absolute(),
            nar_hash: info.nar_hash.to_string(),
            nar_size: info.nar_size,
            file_size: record.nar.file_size,
            references: absolute(&info.references),
            deriver: info.deriver.as_ref().map(StorePath::to_absolute),
            ca: info.ca,
            signatures: info.signatures.iter().map(ToString::to_string).collect(),
            visible: record.visible,
            damaged: record.damaged,
            missing: absolute(&missing),
            push: push.map(PushBody::from),
        }
    }
}

/// `GET caches/NAME/paths/PATH`
pub(super) async fn show(
    State(services): SharedServices,
    Path((name, path)): Path<(String, String)>,
) -> Result<Json<PathBody>, Problem> {
    let cache = name.parse().ok().and_then(|name| services.caches.get(&name));
    let cache = cache.ok_or_else(|| no_such_cache(&name))?;
    let found = services.paths.show(&cache, parse_path(&path)?).await?.ok_or_else(|| {
        let detail = format!("the cache '{name}' does not have that path");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })?;
    Ok(Json(found.into()))
}

/// `DELETE caches/NAME/paths/PATH?with_referrers=BOOL&purge=BOOL`
pub(super) async fn remove(
    State(services): SharedServices,
    Path((name, path)): Path<(String, String)>,
    Asked(RemoveQuery { with_referrers, purge }): Asked<RemoveQuery>,
) -> Result<Json<RemovedBody>, Problem> {
    let cache = name.parse().ok().and_then(|name| services.caches.get(&name));
    let cache = cache.ok_or_else(|| no_such_cache(&name))?;
    let removed = services.paths.remove(&cache, parse_path(&path)?, with_referrers, purge).await;
    match removed {
        Ok(RemovedPaths { paths, freed_bytes }) => {
            Ok(Json(RemovedBody { paths: absolute(&paths), freed_bytes }))
        }
        Err(RemovePathError::Store(error)) if !matches!(error, StoreError::CollectionRuns) => {
            Err(error.into())
        }
        Err(error) => {
            let status = match error {
                RemovePathError::NoSuchPath(_) => StatusCode::NOT_FOUND,
                _ => StatusCode::CONFLICT,
            };
            Err(Problem::new(status, error.to_string()))
        }
    }
}
