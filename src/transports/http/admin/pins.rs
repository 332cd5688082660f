//! `caches/NAME/pins`: the one part that tokens for caches may use too.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use crate::formats::limits::PINS_PAGE_MAX;
use crate::formats::{FilePath, Keep, PinName, StorePath};
use crate::services::{Caller, KnownPin, PinError, PinPlace, PinRequest};
use crate::transports::http::admin::input::{Asked, Input};
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::router::SharedServices;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PinsQuery {
    after: Option<String>,
    limit: u32,
}

impl Default for PinsQuery {
    fn default() -> Self {
        Self { after: None, limit: PINS_PAGE_MAX }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPinBody {
    name: PinName,
    path: String,
    #[serde(default)]
    artifacts: Vec<FilePath>,
    #[serde(default)]
    keep: Keep,
}

#[derive(Debug, Serialize)]
pub(super) struct PinBody {
    name: PinName,
    revision: u32,
    path: String,
    artifacts: Vec<ArtifactBody>,
    keep: Keep,
    pinned_at: u64,
    token: i64,
    token_label: Option<String>,
}

#[derive(Debug, Serialize)]
struct ArtifactBody {
    file: FilePath,
    url_path: String,
}

#[derive(Debug, Serialize)]
pub(super) struct PinsBody {
    pins: Vec<PinBody>,
    next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct RemovedBody {
    revisions: usize,
}

impl PinBody {
    fn new(cache: &str, known: KnownPin) -> Self {
        let KnownPin { pin, token_label } = known;
        let name = &pin.name;
        let artifact = |file: FilePath| {
            let url_path = format!("/{cache}/pin/{name}/{}", file.to_url());
            ArtifactBody { file, url_path }
        };
        Self {
            artifacts: pin.artifacts.into_iter().map(artifact).collect(),
            name: pin.name.clone(),
            revision: pin.revision,
            path: pin.path.to_absolute(),
            keep: pin.keep,
            pinned_at: pin.pinned_at,
            token: pin.token.0,
            token_label,
        }
    }
}

/// `GET caches/NAME/pins?after=PLACE&limit=N`
pub(super) async fn list(
    State(services): SharedServices,
    Extension(caller): Extension<Caller>,
    Path(cache): Path<String>,
    Asked(PinsQuery { after, limit }): Asked<PinsQuery>,
) -> Result<Json<PinsBody>, Problem> {
    let after = after.as_deref().map(parse_place).transpose()?;
    let limit = limit.clamp(1, PINS_PAGE_MAX);
    let page = services.pins.page(&caller, &cache, after, limit).await?;
    let is_full = u32::try_from(page.len()) == Ok(limit);
    let last = page.last().map(|known| known.pin.place()).filter(|_last| is_full);
    let next = last.map(|place| format!("{}@{}", place.revision, place.name));
    let pins = page.into_iter().map(|known| PinBody::new(&cache, known)).collect();
    Ok(Json(PinsBody { pins, next }))
}

/// `POST caches/NAME/pins`
pub(super) async fn create(
    State(services): SharedServices,
    Extension(caller): Extension<Caller>,
    Path(cache): Path<String>,
    Input(body): Input<NewPinBody>,
) -> Result<(StatusCode, Json<PinBody>), Problem> {
    let NewPinBody { name, path, artifacts, keep } = body;
    let path = StorePath::from_absolute(&path).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("'{path}' is no store path: {error}"))
    })?;
    let request = PinRequest { name, path, artifacts, keep };
    let made = services.pins.pin(&caller, &cache, request).await?;
    Ok((StatusCode::CREATED, Json(PinBody::new(&cache, made))))
}

/// `DELETE caches/NAME/pins/PIN`
pub(super) async fn remove(
    State(services): SharedServices,
    Extension(caller): Extension<Caller>,
    Path((cache, pin)): Path<(String, String)>,
) -> Result<Json<RemovedBody>, Problem> {
    let name = pin.parse().map_err(|error| {
        let detail = format!("the cache '{cache}' has no pin '{pin}': {error}");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })?;
    let revisions = services.pins.remove(&caller, &cache, name).await?;
    Ok(Json(RemovedBody { revisions }))
}

fn parse_place(text: &str) -> Result<PinPlace, Problem> {
    let place = text.split_once('@').and_then(|(revision, name)| {
        Some(PinPlace { name: name.parse().ok()?, revision: revision.parse().ok()? })
    });
    place.ok_or_else(|| {
        let detail = "'after' is what an answer had for 'next', and nothing else";
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })
}

impl From<PinError> for Problem {
    fn from(error: PinError) -> Self {
        let status = match &error {
            PinError::NoSuchCache(_)
            | PinError::NoSuchPath { .. }
            | PinError::Hidden { .. }
            | PinError::Artifact { .. }
            | PinError::NoSuchPin { .. } => StatusCode::NOT_FOUND,
            PinError::Forbidden { .. } => StatusCode::FORBIDDEN,
            PinError::TooManyArtifacts => StatusCode::BAD_REQUEST,
            PinError::Store(error) => return Self::internal(error),
        };
        Self::new(status, error.to_string())
    }
}
