//! `caches`

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::formats::CacheName;
use crate::formats::signature::PublicKey;
use crate::services::caches::PRIORITY_DEFAULT;
use crate::services::status::CacheStatus;
use crate::services::{CacheRequest, CreateCacheError, SigningMode};
use crate::transports::http::admin::input::Input;
use crate::transports::http::admin::keys::parse_key;
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::router::SharedServices;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCacheBody {
    name: String,
    #[serde(default)]
    description: String,
    priority: Option<u32>,
    #[serde(default)]
    signing: SigningBody,
    #[serde(default)]
    public_keys: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SigningBody {
    #[default]
    Managed,
    SelfSigned,
}

impl From<SigningBody> for SigningMode {
    fn from(signing: SigningBody) -> Self {
        match signing {
            SigningBody::Managed => Self::Managed,
            SigningBody::SelfSigned => Self::SelfSigned,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct CacheBody {
    name: CacheName,
    url_path: String,
    public: bool,
    signing: &'static str,
    public_keys: Vec<PublicKey>,
    priority: u32,
    root_position: Option<u32>,
    description: String,
    created_at: u64,
    paths_visible: u64,
    paths_hidden: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct CachesBody {
    caches: Vec<CacheBody>,
}

impl From<CacheStatus> for CacheBody {
    fn from(status: CacheStatus) -> Self {
        let CacheStatus { cache, paths_visible, paths_hidden } = status;
        let managed = cache.keys.iter().map(|key| key.public_key());
        Self {
            name: cache.name.clone(),
            url_path: format!("/{}", cache.name),
            public: cache.is_public,
            signing: match cache.signing {
                SigningMode::Managed => "managed",
                SigningMode::SelfSigned => "self-signed",
            },
            public_keys: managed.chain(cache.public_keys.iter().cloned()).collect(),
            priority: cache.priority,
            root_position: cache.root_position,
            description: cache.description.clone(),
            created_at: cache.created_at,
            paths_visible,
            paths_hidden,
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
    let NewCacheBody { name, description, priority, signing, public_keys } = body;
    let public_keys = public_keys.iter().map(|key| parse_key(key)).collect::<Result<_, _>>()?;
    let name = parse_name(&name)?;
    let priority = priority.unwrap_or(PRIORITY_DEFAULT);
    let signing = signing.into();
    let request = CacheRequest { name, description, priority, signing, public_keys };
    let cache = services.caches.create(request).await?;
    let made = CacheStatus { cache, paths_visible: 0, paths_hidden: 0 };
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// `GET caches/NAME`
pub(super) async fn show(
    State(services): SharedServices,
    Path(name): Path<String>,
) -> Result<Json<CacheBody>, Problem> {
    // What cannot be a name is no cache's either.
    let cache = name.parse().ok().and_then(|name| services.caches.get(&name));
    let cache = cache.ok_or_else(|| no_such_cache(&name))?;
    Ok(Json(services.status.cache(Arc::clone(&cache)).await?.into()))
}

pub(super) fn parse_name(name: &str) -> Result<CacheName, Problem> {
    let problem = |error| Problem::new(StatusCode::BAD_REQUEST, format!("'{name}': {error}"));
    name.parse().map_err(problem)
}

fn no_such_cache(name: &str) -> Problem {
    let detail = format!(
        "there is no cache called '{name}'; `larder cache list` shows those that there are"
    );
    Problem::new(StatusCode::NOT_FOUND, detail)
}

impl From<CreateCacheError> for Problem {
    fn from(error: CreateCacheError) -> Self {
        let status = match &error {
            CreateCacheError::Exists(_) => StatusCode::CONFLICT,
            CreateCacheError::Priority(_)
            | CreateCacheError::Description
            | CreateCacheError::KeysOfManaged => StatusCode::BAD_REQUEST,
            CreateCacheError::Key(_) => StatusCode::CONFLICT,
            CreateCacheError::NoRandomness(_)
            | CreateCacheError::KeyName(_)
            | CreateCacheError::Store(_) => return Self::internal(&error),
        };
        Self::new(status, error.to_string())
    }
}
