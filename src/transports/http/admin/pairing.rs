//! `pairing-codes`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;

use crate::services::CreateCodeError;
use crate::services::pairing::CODE_LIFETIME;
use crate::transports::http::admin::input::Input;
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::admin::tokens::NewTokenBody;
use crate::transports::http::router::SharedServices;

#[derive(Serialize)]
pub(super) struct CodeBody {
    code: String,
    expires_in_seconds: u64,
}

/// `POST pairing-codes`
pub(super) async fn create(
    State(services): SharedServices,
    Input(body): Input<NewTokenBody>,
) -> Result<(StatusCode, Json<CodeBody>), Problem> {
    let code = services.pairing.create(body.into_request()?)?;
    let expires_in_seconds = CODE_LIFETIME.as_secs();
    let made = CodeBody { code: code.to_secret_text(), expires_in_seconds };
    Ok((StatusCode::CREATED, Json(made)))
}

impl From<CreateCodeError> for Problem {
    fn from(error: CreateCodeError) -> Self {
        match error {
            CreateCodeError::Token(error) => error.into(),
            CreateCodeError::TooMany => Self::new(StatusCode::CONFLICT, error.to_string()),
            CreateCodeError::NoRandomness(_) => Self::internal(&error),
        }
    }
}
