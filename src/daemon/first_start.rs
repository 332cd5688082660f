//! What a box has when nobody has told it anything: the cache `main` and one personal token.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};
use tracing::info;

use crate::daemon::run::DaemonError;
use crate::formats::signature::SecretKey;
use crate::formats::{CacheLimits, CacheName};
use crate::store::{NewCache, NewToken, SigningMode, Store};
use crate::wire::device_id::DeviceId;
use crate::wire::token::TokenText;

/// The file in the data folder that holds the first personal token: its text and a line break.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// Makes the public, managed cache `main` if there is neither a cache nor a token yet, and the
/// first personal token if there is none, into [`ADMIN_TOKEN_FILE`] (mode 0600). Both stay as the
/// owner leaves them: a `main` that was deleted and a token that was revoked do not come back.
///
/// Order, and why: the cache first, for the token tells that a first start was finished; the
/// token's file before its row, since the row keeps only a hash. A crash in between leaves a file
/// whose token is not known, which the next start replaces.
pub(super) async fn prepare(
    store: &Store,
    data: &Path,
    device_id: DeviceId,
    key_host: &str,
    now: u64,
) -> Result<(), DaemonError> {
    let tokens = store.tokens().await?;
    if tokens.is_empty() && store.caches().await?.is_empty() {
        let cache = store.create_cache(main_cache(key_host, now)?).await?;
        info!(cache = %cache.name, "Made the first cache");
    }
    if tokens.iter().all(|token| token.token.grants.is_some()) {
        let token = TokenText::new(device_id, random()?);
        let path = data.join(ADMIN_TOKEN_FILE);
        write_secret(&path, &token.to_secret_text())
            .map_err(|source| DaemonError::AdminToken { path: path.clone(), source })?;
        let row = NewToken {
            secret_hash: token.secret_hash(),
            label: "made at the first start".to_owned(),
            created_at: now,
            expires_at: None,
            grants: None,
            device_id: None,
        };
        store.create_token(row).await?;
        info!(path = %path.display(), "Made the first personal token");
    }
    Ok(())
}

/// Where the first personal token is, if its owner has left it there.
pub(super) fn admin_token_file(data: &Path) -> Option<PathBuf> {
    let path = data.join(ADMIN_TOKEN_FILE);
    path.exists().then_some(path)
}

fn main_cache(key_host: &str, now: u64) -> Result<NewCache, DaemonError> {
    let name: CacheName = "main".parse().map_err(DaemonError::CacheName)?;
    let key = SecretKey::from_seed(&format!("{name}.{key_host}-1"), &random()?)
        .map_err(DaemonError::CacheKey)?;
    Ok(NewCache {
        name,
        is_public: true,
        signing: SigningMode::Managed,
        priority: PRIORITY_DEFAULT,
        root_position: Some(1),
        description: String::new(),
        limits: CacheLimits::default(),
        key: Some(key),
        public_keys: Vec::new(),
        created_at: now,
    })
}

/// Asked before cache.nixos.org, whose priority is 40 (its `nix-cache-info`).
const PRIORITY_DEFAULT: u32 = 30;

pub(super) fn random() -> Result<[u8; 32], DaemonError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| DaemonError::NoRandomness)?;
    Ok(bytes)
}

/// Writes a line into a new file that only its owner may read, beside its place; then it takes
/// the place of what is there, whole or not at all, and is synced with its folder. The old file
/// is not written to: its rights might be wrong, or somebody might have it open.
pub(super) fn write_secret(path: &Path, line: &str) -> io::Result<()> {
    let beside = path.with_extension("token.new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(format!("{line}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::store::{StoreOptions, TokenId};

    /// A data folder, and what a start with it does.
    struct TestBox {
        data: tempfile::TempDir,
        store: Store,
    }

    impl TestBox {
        fn new() -> Self {
            let data = tempfile::tempdir().unwrap();
            let store = Store::open(StoreOptions::at(data.path())).unwrap();
            Self { data, store }
        }

        async fn start(&self) {
            let device_id = DeviceId([1; 20]);
            prepare(&self.store, self.data.path(), device_id, "office.local", 7).await.unwrap();
        }

        fn admin_token(&self) -> TokenText {
            let text = fs::read_to_string(self.data.path().join(ADMIN_TOKEN_FILE)).unwrap();
            text.strip_suffix('\n').unwrap().parse().unwrap()
        }
    }

    #[tokio::test]
    async fn a_new_box_has_a_cache_and_a_token_that_stay_as_they_are() {
        let test = TestBox::new();
        test.start().await;
        let token = test.admin_token();
        test.start().await;

        let caches = test.store.caches().await.unwrap();
        assert_eq!(caches.iter().map(|cache| cache.name.as_str()).collect::<Vec<_>>(), ["main"]);
        assert_eq!(caches[0].keys[0].name(), "main.office.local-1");
        assert_eq!(test.admin_token().secret(), token.secret());
        let known = test.store.tokens().await.unwrap();
        assert_eq!((known.len(), known[0].secret_hash), (1, token.secret_hash()));
        assert!(known[0].token.grants.is_none(), "it is personal");
    }

    #[tokio::test]
    async fn a_token_that_was_revoked_does_not_come_back() {
        let test = TestBox::new();
        test.start().await;
        let id: TokenId = test.store.tokens().await.unwrap()[0].token.id;
        assert!(test.store.revoke_token(id, 8).await.unwrap());
        fs::remove_file(test.data.path().join(ADMIN_TOKEN_FILE)).unwrap();

        test.start().await;

        assert_eq!(admin_token_file(test.data.path()), None);
        assert_eq!(test.store.tokens().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_first_start_that_was_cut_off_is_finished() {
        let test = TestBox::new();
        fs::write(test.data.path().join(ADMIN_TOKEN_FILE), "ldr_of a token that no row knows")
            .unwrap();

        test.start().await;

        let known = test.store.tokens().await.unwrap();
        assert_eq!(known[0].secret_hash, test.admin_token().secret_hash());
    }

    #[test]
    fn a_secret_is_its_owners_alone_even_where_a_file_lay_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ADMIN_TOKEN_FILE);
        fs::write(&path, "half").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

        write_secret(&path, "ldr_x").unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "ldr_x\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn the_first_cache_is_what_the_guide_says() {
        let cache = main_cache("office.local", 7).unwrap();
        assert_eq!(cache.name.as_str(), "main");
        assert_eq!(cache.key.unwrap().name(), "main.office.local-1");
        assert!(cache.is_public && cache.root_position.is_some());
    }
}
