//! A new personal token for an owner who has lost his, made where only an owner is: in the data
//! folder of a stopped box.

use std::path::{Path, PathBuf};

use tokio::task::{JoinError, spawn_blocking};

use crate::daemon::first_start::{ADMIN_TOKEN_FILE, random, write_secret};
use crate::daemon::owner::{OwnerError, check_owner};
use crate::daemon::run::DaemonError;
use crate::services::clock;
use crate::store::{NewToken, Store, StoreError, StoreOptions, Token, TokenId};
use crate::transports::quic::{Identity, IdentityError};
use crate::wire::token::TokenText;

/// What came of it.
#[derive(Debug)]
pub struct Recovered {
    /// Where the token is.
    pub file: PathBuf,
    /// Its number.
    pub id: TokenId,
    /// The personal tokens of before that are neither revoked nor expired.
    pub personal: Vec<Token>,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// Files that were made now would be somebody else's than the box's.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The store cannot be used; [`StoreError::Locked`] while the box runs.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The device key cannot be used.
    #[error("the identity cannot be used")]
    Identity(#[from] IdentityError),
    /// The token cannot be made or written into its file.
    #[error("the token cannot be made")]
    Token(#[from] DaemonError),
    /// The opening of the store panicked.
    #[error("the store panicked")]
    Panicked(#[source] JoinError),
}

/// Makes a personal token in a data folder that no box uses, and puts it into
/// [`ADMIN_TOKEN_FILE`] in the place of what is there. Other tokens stay as they are.
///
/// # Errors
///
/// [`RecoverError`]; nobody has a new token then.
pub async fn recover_admin_token(options: StoreOptions) -> Result<Recovered, RecoverError> {
    let folder = options.folder.clone();
    check_owner(&folder)?;
    let opened = spawn_blocking(move || Store::open(options)).await;
    let store = opened.map_err(RecoverError::Panicked)??;
    let made = make(&store, &folder).await;
    let closed = store.close().await;
    let made = made?;
    closed?;
    Ok(made)
}

async fn make(store: &Store, folder: &Path) -> Result<Recovered, RecoverError> {
    let now = clock::now();
    let device_id = Identity::from_seed(&store.identity_seed())?.device_id();
    let is_good = |token: &Token| {
        let ended = token.expires_at.is_some_and(|end| end <= now) || token.revoked_at.is_some();
        token.grants.is_none() && !ended
    };
    let tokens = store.tokens().await?.into_iter().map(|known| known.token);
    let personal = tokens.filter(is_good).collect();
    let text = TokenText::new(device_id, random()?);
    let row = NewToken {
        secret_hash: text.secret_hash(),
        label: "made by token recover".to_owned(),
        created_at: now,
        expires_at: None,
        grants: None,
        device_id: None,
    };
    let id = store.create_token(row).await?.id;
    let file = folder.join(ADMIN_TOKEN_FILE);
    if let Err(source) = write_secret(&file, &text.to_secret_text()) {
        // Nobody has it.
        store.revoke_token(id, now).await?;
        return Err(DaemonError::AdminToken { path: file, source }.into());
    }
    Ok(Recovered { file, id, personal })
}
