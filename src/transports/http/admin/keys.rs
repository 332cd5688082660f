//! `caches/NAME/keys`

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::formats::signature::PublicKey;
use crate::services::keys::{KeyList, OVERLAP_DAYS_DEFAULT};
use crate::services::{KeyError, ManagedKey};
use crate::transports::http::admin::caches::parse_name;
use crate::transports::http::admin::input::Input;
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::router::SharedServices;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKeyBody {
    public_key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OverlapBody {
    retire_after_days: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct KeyBody {
    public_key: PublicKey,
    state: &'static str,
    seconds_left: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct KeysBody {
    keys: Vec<KeyBody>,
}

impl From<ManagedKey> for KeyBody {
    fn from(key: ManagedKey) -> Self {
        let state = match key.overlap_left {
            None => "signs",
            Some(0) => "retired",
            Some(_) => "overlap",
        };
        Self { public_key: key.public_key, state, seconds_left: key.overlap_left }
    }
}

/// `GET caches/NAME/keys`
pub(super) async fn list(
    State(services): SharedServices,
    Path(name): Path<String>,
) -> Result<Json<KeysBody>, Problem> {
    let registered = |public_key| KeyBody { public_key, state: "registered", seconds_left: None };
    let keys = match services.keys.list(&parse_name(&name)?).await? {
        KeyList::Managed(keys) => keys.into_iter().map(Into::into).collect(),
        KeyList::Registered(keys) => keys.into_iter().map(registered).collect(),
    };
    Ok(Json(KeysBody { keys }))
}

/// `POST caches/NAME/keys`
pub(super) async fn register(
    State(services): SharedServices,
    Path(name): Path<String>,
    Input(body): Input<NewKeyBody>,
) -> Result<(StatusCode, Json<KeyBody>), Problem> {
    let public_key = parse_key(&body.public_key)?;
    services.keys.register(&parse_name(&name)?, public_key.clone()).await?;
    let registered = KeyBody { public_key, state: "registered", seconds_left: None };
    Ok((StatusCode::CREATED, Json(registered)))
}

/// `DELETE caches/NAME/keys/KEYNAME`
pub(super) async fn remove(
    State(services): SharedServices,
    Path((name, key)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    services.keys.remove(&parse_name(&name)?, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST caches/NAME/keys/KEYNAME/restore`
pub(super) async fn restore(
    State(services): SharedServices,
    Path((name, key)): Path<(String, String)>,
    Input(body): Input<OverlapBody>,
) -> Result<StatusCode, Problem> {
    let days = body.retire_after_days.unwrap_or(OVERLAP_DAYS_DEFAULT);
    services.keys.restore(&parse_name(&name)?, &key, days).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST caches/NAME/rotate-key`
pub(super) async fn rotate(
    State(services): SharedServices,
    Path(name): Path<String>,
    Input(body): Input<OverlapBody>,
) -> Result<(StatusCode, Json<KeyBody>), Problem> {
    let days = body.retire_after_days.unwrap_or(OVERLAP_DAYS_DEFAULT);
    let public_key = services.keys.rotate(&parse_name(&name)?, days).await?;
    let made = KeyBody { public_key, state: "signs", seconds_left: None };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Nothing of what was said comes back: it may be the wrong half.
pub(super) fn parse_key(text: &str) -> Result<PublicKey, Problem> {
    text.parse().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("this is no public key: {error}"))
    })
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match status_of(&error) {
            StatusCode::INTERNAL_SERVER_ERROR => Self::internal(&error),
            status => Self::new(status, error.to_string()),
        }
    }
}

pub(super) const fn status_of(error: &KeyError) -> StatusCode {
    match error {
        KeyError::NoSuchCache(_) | KeyError::NoSuchKey { .. } => StatusCode::NOT_FOUND,
        KeyError::NoRandomness(_) | KeyError::KeyName(_) | KeyError::Store(_) => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => StatusCode::CONFLICT,
    }
}
