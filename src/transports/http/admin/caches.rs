//! `caches`

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};

use crate::formats::signature::PublicKey;
use crate::formats::{CacheLimits, CacheName};
use crate::services::status::CacheStatus;
use crate::services::{
    CacheChanges, CacheError, CacheRequest, RootPlace, SigningMode, SigningRequest,
};
use crate::transports::http::admin::input::Input;
use crate::transports::http::admin::keys::{self, parse_key};
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::router::SharedServices;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCacheBody {
    name: String,
    public: Option<bool>,
    signing: Option<SigningBody>,
    #[serde(default)]
    public_keys: Vec<String>,
    #[serde(default)]
    description: String,
    priority: Option<u32>,
    root_position: Option<RootBody>,
    retention_days: Option<u32>,
    quota_bytes: Option<u64>,
}

/// What is not said stays; `null` takes a cache out of the root, and a limit away.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesBody {
    public: Option<bool>,
    signing: Option<SigningBody>,
    #[serde(default)]
    public_keys: Vec<String>,
    description: Option<String>,
    priority: Option<u32>,
    #[serde(default, deserialize_with = "said")]
    root_position: Option<Option<RootBody>>,
    #[serde(default, deserialize_with = "said")]
    retention_days: Option<Option<u32>>,
    #[serde(default, deserialize_with = "said")]
    quota_bytes: Option<Option<u64>>,
    #[serde(default)]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SigningBody {
    Managed,
    SelfSigned,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum RootBody {
    At(u32),
    Word(LastBody),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LastBody {
    Last,
}

/// Tells a field that is `null` from one that is not there.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[derive(Debug, Serialize)]
pub(super) struct CacheBody {
    name: CacheName,
    url_path: String,
    public: bool,
    signing: SigningBody,
    public_keys: Vec<PublicKey>,
    priority: u32,
    root_position: Option<u32>,
    description: String,
    retention_days: Option<u32>,
    quota_bytes: Option<u64>,
    created_at: u64,
    paths_visible: u64,
    paths_hidden: u64,
    stored_bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct CachesBody {
    caches: Vec<CacheBody>,
}

impl From<CacheStatus> for CacheBody {
    fn from(status: CacheStatus) -> Self {
        let CacheStatus { cache, paths_visible, paths_hidden, stored_bytes } = status;
        let managed = cache.keys.iter().map(|key| key.public_key());
        Self {
            name: cache.name.clone(),
            url_path: format!("/{}", cache.name),
            public: cache.is_public,
            signing: match cache.signing {
                SigningMode::Managed => SigningBody::Managed,
                SigningMode::SelfSigned => SigningBody::SelfSigned,
            },
            public_keys: managed.chain(cache.public_keys.iter().cloned()).collect(),
            priority: cache.priority,
            root_position: cache.root_position,
            description: cache.description.clone(),
            retention_days: cache.limits.retention_days,
            quota_bytes: cache.limits.quota_bytes,
            created_at: cache.created_at,
            paths_visible,
            paths_hidden,
            stored_bytes,
        }
    }
}

/// `GET caches`
pub(super) async fn list(State(services): SharedServices) -> Result<Json<CachesBody>, Problem> {
    let mut caches = Vec::new();
    for cache in services.caches.all() {
        caches.push(services.status.cache(cache).await?.into());
    }
    Ok(Json(CachesBody { caches }))
}

/// `POST caches`
pub(super) async fn create(
    State(services): SharedServices,
    Input(body): Input<NewCacheBody>,
) -> Result<(StatusCode, Json<CacheBody>), Problem> {
    let signing = signing(body.signing.or(Some(SigningBody::Managed)), &body.public_keys)?;
    let as_usual = CacheRequest::named(parse_name(&body.name)?);
    let request = CacheRequest {
        is_public: body.public.unwrap_or(as_usual.is_public),
        signing: signing.unwrap_or(as_usual.signing),
        description: body.description,
        priority: body.priority.unwrap_or(as_usual.priority),
        root: place(body.root_position),
        limits: CacheLimits { retention_days: body.retention_days, quota_bytes: body.quota_bytes },
        name: as_usual.name,
    };
    let cache = services.caches.create(request).await?;
    let made = CacheStatus { cache, paths_visible: 0, paths_hidden: 0, stored_bytes: 0 };
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// `GET caches/NAME`
pub(super) async fn show(
    State(services): SharedServices,
    Path(name): Path<String>,
) -> Result<Json<CacheBody>, Problem> {
    let name = known_name(name)?;
    let cache = services.caches.get(&name).ok_or_else(|| CacheError::NoSuchCache(name))?;
    Ok(Json(services.status.cache(cache).await?.into()))
}

/// `PATCH caches/NAME`
pub(super) async fn change(
    State(services): SharedServices,
    Path(name): Path<String>,
    Input(body): Input<ChangesBody>,
) -> Result<Json<CacheBody>, Problem> {
    let changes = CacheChanges {
        is_public: body.public,
        signing: signing(body.signing, &body.public_keys)?,
        description: body.description,
        priority: body.priority,
        root: body.root_position.map(place),
        retention_days: body.retention_days,
        quota_bytes: body.quota_bytes,
        force: body.force,
    };
    let cache = services.caches.update(&known_name(name)?, changes).await?;
    Ok(Json(services.status.cache(cache).await?.into()))
}

/// `DELETE caches/NAME`; answers with what it was.
pub(super) async fn delete(
    State(services): SharedServices,
    Path(name): Path<String>,
) -> Result<Json<CacheBody>, Problem> {
    let name = known_name(name)?;
    let cache = services.caches.get(&name).ok_or_else(|| CacheError::NoSuchCache(name.clone()))?;
    let was = services.status.cache(cache).await?;
    services.caches.delete(&name).await?;
    Ok(Json(was.into()))
}

fn place(root: Option<RootBody>) -> RootPlace {
    match root {
        None => RootPlace::Out,
        Some(RootBody::Word(LastBody::Last)) => RootPlace::Last,
        Some(RootBody::At(position)) => RootPlace::At(position),
    }
}

fn signing(mode: Option<SigningBody>, keys: &[String]) -> Result<Option<SigningRequest>, Problem> {
    match mode {
        Some(SigningBody::SelfSigned) => {
            let public_keys = keys.iter().map(|key| parse_key(key)).collect::<Result<_, _>>()?;
            Ok(Some(SigningRequest::SelfSigned { public_keys }))
        }
        _ if !keys.is_empty() => {
            let detail = "public keys are registered with self-signed caches alone";
            Err(Problem::new(StatusCode::BAD_REQUEST, detail.to_owned()))
        }
        Some(SigningBody::Managed) => Ok(Some(SigningRequest::Managed)),
        None => Ok(None),
    }
}

/// A name in a path. What cannot be a name is no cache's either.
fn known_name(name: String) -> Result<CacheName, Problem> {
    name.parse().map_err(|_no_name| {
        let detail = format!(
            "there is no cache called '{name}'; `larder cache list` shows those that there are"
        );
        Problem::new(StatusCode::NOT_FOUND, detail)
    })
}

pub(super) fn parse_name(name: &str) -> Result<CacheName, Problem> {
    let problem = |error| Problem::new(StatusCode::BAD_REQUEST, format!("'{name}': {error}"));
    name.parse().map_err(problem)
}

pub(super) fn no_such_cache(name: &str) -> Problem {
    let detail = format!(
        "there is no cache called '{name}'; `larder cache list` shows those that there are"
    );
    Problem::new(StatusCode::NOT_FOUND, detail)
}

impl From<CacheError> for Problem {
    fn from(error: CacheError) -> Self {
        let status = match &error {
            CacheError::Key(error) => keys::status_of(error),
            CacheError::Exists(_) | CacheError::Unsigned { .. } | CacheError::QuotaBelow { .. } => {
                StatusCode::CONFLICT
            }
            CacheError::NoSuchCache(_) => StatusCode::NOT_FOUND,
            CacheError::Priority(_) | CacheError::Description | CacheError::Limits => {
                StatusCode::BAD_REQUEST
            }
            CacheError::NoRandomness(_) | CacheError::KeyName(_) | CacheError::Store(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        match status {
            StatusCode::INTERNAL_SERVER_ERROR => Self::internal(&error),
            status => Self::new(status, error.to_string()),
        }
    }
}
