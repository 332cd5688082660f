//! `tokens`

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::formats::CacheName;
use crate::formats::limits::TOKENS_PAGE_MAX;
use crate::services::{
    Caches, CreateTokenError, RevokeTokenError, Right, Token, TokenId, TokenRequest,
};
use crate::transports::http::admin::caches::parse_name;
use crate::transports::http::admin::input::{Asked, Input};
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::router::SharedServices;
use crate::wire::DeviceId;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTokenBody {
    #[serde(default)]
    label: String,
    expires_in_seconds: Option<u64>,
    caches: Option<Vec<NewGrantBody>>,
    device: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGrantBody {
    cache: String,
    right: RightBody,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RightBody {
    Read,
    Write,
    ReadWrite,
}

#[derive(Debug, Serialize)]
struct GrantBody {
    cache: CacheName,
    right: RightBody,
}

#[derive(Debug, Serialize)]
pub(super) struct TokenBody {
    id: i64,
    label: String,
    personal: bool,
    caches: Vec<GrantBody>,
    created_at: u64,
    expires_at: Option<u64>,
    last_used_at: Option<u64>,
    revoked_at: Option<u64>,
    device: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct TokensBody {
    tokens: Vec<TokenBody>,
    next: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TokensQuery {
    after: i64,
    limit: u32,
}

impl Default for TokensQuery {
    fn default() -> Self {
        Self { after: 0, limit: TOKENS_PAGE_MAX }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RevokeQuery {
    last: bool,
}

/// The only place where a secret is shown.
#[derive(Serialize)]
pub(super) struct MadeTokenBody {
    token: TokenBody,
    secret: String,
}

impl TokenBody {
    fn new(token: Token, caches: &Caches) -> Self {
        let all = caches.all();
        let grant = |(id, right): &(_, Right)| {
            let cache = all.iter().find(|cache| cache.id == *id)?;
            Some(GrantBody { cache: cache.name.clone(), right: (*right).into() })
        };
        Self {
            id: token.id.0,
            personal: token.grants.is_none(),
            caches: token.grants.iter().flatten().filter_map(grant).collect(),
            label: token.label,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            revoked_at: token.revoked_at,
            device: token.device_id.map(|device| DeviceId(device).to_string()),
        }
    }
}

impl NewTokenBody {
    /// What the services are asked for.
    pub(super) fn into_request(self) -> Result<TokenRequest, Problem> {
        let Self { label, expires_in_seconds, caches, device } = self;
        let device = device.map(|text| text.parse::<DeviceId>());
        let device = device.transpose().map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, format!("the device cannot be read: {error}"))
        })?;
        let grant = |grant: NewGrantBody| Ok((parse_name(&grant.cache)?, grant.right.into()));
        let grants =
            caches.map(|caches| caches.into_iter().map(grant).collect::<Result<_, Problem>>());
        Ok(TokenRequest { label, expires_in_seconds, grants: grants.transpose()?, device })
    }
}

impl From<Right> for RightBody {
    fn from(right: Right) -> Self {
        match right {
            Right::Read => Self::Read,
            Right::Write => Self::Write,
            Right::ReadWrite => Self::ReadWrite,
        }
    }
}

impl From<RightBody> for Right {
    fn from(right: RightBody) -> Self {
        match right {
            RightBody::Read => Self::Read,
            RightBody::Write => Self::Write,
            RightBody::ReadWrite => Self::ReadWrite,
        }
    }
}

/// `GET tokens?after=ID&limit=N`
pub(super) async fn list(
    State(services): SharedServices,
    Asked(TokensQuery { after, limit }): Asked<TokensQuery>,
) -> Result<Json<TokensBody>, Problem> {
    let limit = limit.clamp(1, TOKENS_PAGE_MAX);
    let page = services.tokens.list(TokenId(after), limit).await?;
    let is_full = u32::try_from(page.len()) == Ok(limit);
    let next = page.last().map(|token| token.id.0).filter(|_last| is_full);
    let tokens = page.into_iter().map(|token| TokenBody::new(token, &services.caches)).collect();
    Ok(Json(TokensBody { tokens, next }))
}

/// `POST tokens`
pub(super) async fn create(
    State(services): SharedServices,
    Input(body): Input<NewTokenBody>,
) -> Result<(StatusCode, Json<MadeTokenBody>), Problem> {
    let (token, text) = services.tokens.create(body.into_request()?).await?;
    let token = TokenBody::new(token, &services.caches);
    let made = MadeTokenBody { token, secret: text.to_secret_text() };
    Ok((StatusCode::CREATED, Json(made)))
}

/// `DELETE tokens/ID?last=true`
pub(super) async fn revoke(
    State(services): SharedServices,
    Path(id): Path<String>,
    Asked(RevokeQuery { last }): Asked<RevokeQuery>,
) -> Result<StatusCode, Problem> {
    let revoked = match id.parse().map(TokenId) {
        Ok(number) if last => services.tokens.revoke_even_last(number).await?,
        Ok(number) => services.tokens.revoke(number).await?,
        Err(_no_number) => false,
    };
    if revoked {
        return Ok(StatusCode::NO_CONTENT);
    }
    let detail =
        format!("there is no token '{id}'; `larder token list` shows those that there are");
    Err(Problem::new(StatusCode::NOT_FOUND, detail))
}

impl From<RevokeTokenError> for Problem {
    fn from(error: RevokeTokenError) -> Self {
        match error {
            RevokeTokenError::LastPersonal(_) => Self::new(StatusCode::CONFLICT, error.to_string()),
            RevokeTokenError::Store(error) => error.into(),
        }
    }
}

impl From<CreateTokenError> for Problem {
    fn from(error: CreateTokenError) -> Self {
        let status = match &error {
            CreateTokenError::Label | CreateTokenError::Expiry | CreateTokenError::Grants => {
                StatusCode::BAD_REQUEST
            }
            CreateTokenError::NoSuchCache(_) => StatusCode::NOT_FOUND,
            CreateTokenError::TooMany => StatusCode::CONFLICT,
            CreateTokenError::NoRandomness(_) | CreateTokenError::Store(_) => {
                return Self::internal(&error);
            }
        };
        Self::new(status, error.to_string())
    }
}
