//! Which tokens are at hand. Each is for one box and is shown to no other, so it does no harm to
//! have several.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::client::config::ClientConfig;
use crate::wire::TokenText;
use crate::wire::token::ParseTokenError;

/// The file in a box's data folder with its first personal token.
const ADMIN_TOKEN_FILE: &str = "admin.token";

/// What a token is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What a token for caches allows too.
    Use,
    /// What takes a personal token.
    Administration,
}

/// Why the tokens cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokensError {
    /// A variable is set to something else.
    #[error("{variable} holds no token")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// Why.
        source: ParseTokenError,
    },
    /// The box's first token is no token.
    #[error("{} holds no token", path.display())]
    AdminToken {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ParseTokenError,
    },
    /// The box's first token cannot be read, and there is no other.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nobody has saved one.
    #[error("there is no token for any box")]
    None,
}

/// The tokens at hand. `LARDER_AUTH_TOKEN` stands alone; else `CACHIX_AUTH_TOKEN` does if it is a
/// larder token (tokens of cachix.org are left alone); else what the configuration holds, and
/// `admin.token` in the data folder `box_folder`. Of two tokens for one box the first is shown:
/// the saved one, but for administration that in the folder, which is personal for certain.
///
/// # Errors
///
/// [`TokensError`], also if there is none.
pub fn at_hand(
    variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    config: &ClientConfig,
    box_folder: &Path,
    purpose: Purpose,
) -> Result<Vec<TokenText>, TokensError> {
    for (name, foreign_ones_too) in [("LARDER_AUTH_TOKEN", false), ("CACHIX_AUTH_TOKEN", true)] {
        let Some(text) = variable(name).filter(|text| !text.is_empty()) else { continue };
        let text = trimmed(&text);
        if foreign_ones_too && !text.starts_with("ldr_") {
            continue;
        }
        let token = text.parse();
        let wrong = |source| TokensError::Variable { variable: name, source };
        return token.map(|token| vec![token]).map_err(wrong);
    }
    let mut tokens: Vec<_> = config.tokens.values().map(|saved| saved.token.clone()).collect();
    match of_box(box_folder) {
        Err(TokensError::Unreadable { .. }) if !tokens.is_empty() => {}
        found => {
            let place = if purpose == Purpose::Administration { 0 } else { tokens.len() };
            tokens.splice(place..place, found?);
        }
    }
    if tokens.is_empty() { Err(TokensError::None) } else { Ok(tokens) }
}

/// Whether a token was given for this very command, by a variable.
#[must_use]
pub fn is_given(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> bool {
    let said = |name: &str| variable(name).map(|text| trimmed(&text)).unwrap_or_default();
    !said("LARDER_AUTH_TOKEN").is_empty() || said("CACHIX_AUTH_TOKEN").starts_with("ldr_")
}

fn trimmed(text: &OsStr) -> String {
    text.to_string_lossy().trim().to_owned()
}

fn of_box(folder: &Path) -> Result<Option<TokenText>, TokensError> {
    let path = folder.join(ADMIN_TOKEN_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let token = text.trim().parse();
            token.map(Some).map_err(|source| TokensError::AdminToken { path, source })
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(source) => Err(TokensError::Unreadable { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::wire::DeviceId;

    fn token(device: u8) -> TokenText {
        TokenText::new(DeviceId([device; 20]), [device; 32])
    }

    fn secrets(folder: &Path, purpose: Purpose) -> Vec<u8> {
        let mut config = ClientConfig::default();
        config.save_token(TokenText::new(DeviceId([1; 20]), [2; 32]), None);
        let tokens = at_hand(|_| None, &config, folder, purpose).unwrap();
        tokens.iter().map(|token| token.secret()[0]).collect()
    }

    #[test]
    fn on_the_box_its_owners_token_is_the_one_for_administration() {
        let folder = tempfile::tempdir().unwrap();
        let owner = TokenText::new(DeviceId([1; 20]), [9; 32]).to_secret_text();
        assert_eq!(secrets(folder.path(), Purpose::Administration), [2]);
        fs::write(folder.path().join("admin.token"), owner + "\n").unwrap();
        assert_eq!(secrets(folder.path(), Purpose::Administration), [9, 2]);
        assert_eq!(secrets(folder.path(), Purpose::Use), [2, 9]);
    }

    fn devices(
        variables: &[(&str, String)],
        saved: &[u8],
        folder: &Path,
    ) -> Result<Vec<u8>, String> {
        let mut config = ClientConfig::default();
        for device in saved {
            config.save_token(token(*device), None);
        }
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let tokens =
            at_hand(variable, &config, folder, Purpose::Use).map_err(|error| error.to_string())?;
        Ok(tokens.iter().map(|token| token.device_id().0[0]).collect())
    }

    #[test]
    fn the_nearest_word_wins() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("admin.token"), token(5).to_secret_text() + "\n").unwrap();
        let larder = ("LARDER_AUTH_TOKEN", token(1).to_secret_text());
        let cachix = ("CACHIX_AUTH_TOKEN", token(2).to_secret_text());
        let foreign = ("CACHIX_AUTH_TOKEN", "eyJhbGciOi".to_owned());

        assert_eq!(devices(&[larder, cachix.clone()], &[3, 4], folder.path()), Ok(vec![1]));
        assert_eq!(devices(&[cachix], &[3, 4], folder.path()), Ok(vec![2]));
        assert_eq!(devices(&[foreign], &[3, 4], folder.path()), Ok(vec![3, 4, 5]));
        assert_eq!(devices(&[], &[], folder.path()), Ok(vec![5]));
    }

    #[test]
    fn what_is_no_token_is_said_without_showing_it() {
        let folder = tempfile::tempdir().unwrap();
        let secret = "ldr_nearly_a_secret".to_owned();
        let wrong = devices(&[("LARDER_AUTH_TOKEN", secret.clone())], &[3], folder.path());
        assert_eq!(wrong, Err("LARDER_AUTH_TOKEN holds no token".to_owned()));
        let wrong = devices(&[("CACHIX_AUTH_TOKEN", secret)], &[3], folder.path());
        assert_eq!(wrong, Err("CACHIX_AUTH_TOKEN holds no token".to_owned()));
        let none = devices(&[], &[], &folder.path().join("missing"));
        assert_eq!(none, Err("there is no token for any box".to_owned()));
        fs::write(folder.path().join("admin.token"), "").unwrap();
        assert!(devices(&[], &[], folder.path()).is_err());
    }
}
