//! `caches/NAME/log`

use std::str::FromStr;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::formats::StorePathHash;
use crate::formats::limits::LOG_PAGE_MAX;
use crate::services::{LogPlace, LoggedPush};
use crate::transports::http::admin::caches::no_such_cache;
use crate::transports::http::admin::input::Asked;
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::router::SharedServices;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogQuery {
    since: u64,
    path: Option<String>,
    after: Option<String>,
    limit: u32,
}

impl Default for LogQuery {
    fn default() -> Self {
        Self { since: 0, path: None, after: None, limit: LOG_PAGE_MAX }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct LogBody {
    pushes: Vec<PushBody>,
    next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct PushBody {
    path: String,
    nar_size: u64,
    visible: bool,
    pushed_at: u64,
    token: i64,
    token_label: Option<String>,
    device: String,
}

impl From<LoggedPush> for PushBody {
    fn from(push: LoggedPush) -> Self {
        let LoggedPush { entry, token_label, device_id } = push;
        Self {
            path: entry.store_path.to_absolute(),
            nar_size: entry.nar_size,
            visible: entry.visible,
            pushed_at: entry.pushed_at,
            token: entry.token.0,
            token_label,
            device: device_id.to_string(),
        }
    }
}

/// `GET caches/NAME/log?since=T&path=PATH&after=PLACE&limit=N`
pub(super) async fn show(
    State(services): SharedServices,
    Path(name): Path<String>,
    Asked(LogQuery { since, path, after, limit }): Asked<LogQuery>,
) -> Result<Json<LogBody>, Problem> {
    let cache = name.parse().ok().and_then(|name| services.caches.get(&name));
    let cache = cache.ok_or_else(|| no_such_cache(&name))?;
    if let Some(path) = path {
        let found = services.push_log.of_path(&cache, parse_path(&path)?).await?;
        let found = found.filter(|push| push.entry.pushed_at >= since).ok_or_else(|| {
            let detail = format!("the cache '{name}' has no path {path} of that time");
            Problem::new(StatusCode::NOT_FOUND, detail)
        })?;
        return Ok(Json(LogBody { pushes: vec![found.into()], next: None }));
    }
    let after = after.as_deref().map(parse_place).transpose()?;
    let limit = limit.clamp(1, LOG_PAGE_MAX);
    let page = services.push_log.page(&cache, since, after, limit).await?;
    let is_full = u32::try_from(page.len()) == Ok(limit);
    let last = page.last().map(|push| push.entry.place()).filter(|_last| is_full);
    let next = last.map(|place| format!("{}-{}", place.pushed_at, place.path));
    Ok(Json(LogBody { pushes: page.into_iter().map(PushBody::from).collect(), next }))
}

/// A store path, its base name, or the hash part of it.
pub(super) fn parse_path(text: &str) -> Result<StorePathHash, Problem> {
    let base_name = text.rsplit('/').next().unwrap_or(text);
    let hash = base_name.split('-').next().unwrap_or(base_name);
    StorePathHash::from_str(hash).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("'{text}' is no store path: {error}"))
    })
}

fn parse_place(text: &str) -> Result<LogPlace, Problem> {
    let place = text.split_once('-').and_then(|(at, path)| {
        Some(LogPlace { pushed_at: at.parse().ok()?, path: path.parse().ok()? })
    });
    place.ok_or_else(|| {
        let detail = "'after' is what an answer had for 'next', and nothing else";
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })
}
