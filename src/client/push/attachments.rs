//! What goes along with a path: the log of the build that made it, and its realisations.
//!
//! They go before the path: a push that ends in between sends them again with the path, and none is
//! ever left behind. One that the box does not take keeps no path from going.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::client::nix_store::{Location, build_log};
use crate::client::push::one_line;
use crate::client::push::progress::{PushEvent, Tell};
use crate::formats::limits::{ATTACHMENT_FRAME_BYTES_MAX, BUILD_LOG_BYTES_MAX};
use crate::formats::realisation::Realisation;
use crate::formats::signature::SecretKey;
use crate::formats::{AttachmentName, CacheName, PathInfo, StorePath, StorePathHash, attachment};
use crate::transports::quic::{BoxConnection, RequestError};
use crate::wire::hello::Capabilities;

/// zstd's level for texts of some kilobytes.
const LEVEL: i32 = 9;
const READERS: usize = 2;

/// What there is to go along.
#[derive(Debug)]
pub struct Attachments {
    /// Where logs are, if they go along.
    logs: Option<Location>,
    realisations: BTreeMap<StorePathHash, Vec<Realisation>>,
    /// Derivations whose logs are there: one may have made several paths.
    done: Mutex<HashSet<StorePath>>,
    /// Logs that are read at a time: each may have [`BUILD_LOG_BYTES_MAX`].
    readers: Semaphore,
}

impl Attachments {
    /// Logs from a store, unless `logs` is none, and these realisations.
    #[must_use]
    pub fn new(logs: Option<Location>, realisations: Vec<Realisation>) -> Self {
        let mut by_path = BTreeMap::<_, Vec<_>>::new();
        for realisation in realisations {
            by_path.entry(realisation.out_path.hash()).or_default().push(realisation);
        }
        Self {
            logs,
            realisations: by_path,
            done: Mutex::default(),
            readers: Semaphore::new(READERS),
        }
    }

    /// Sends what belongs to a path.
    ///
    /// # Errors
    ///
    /// [`RequestError`] where the connection broke; refusals are told and no error.
    pub(super) async fn send(
        &self,
        connection: &BoxConnection,
        cache: &CacheName,
        info: &PathInfo,
        signing: Option<&SecretKey>,
        tell: &Tell,
    ) -> Result<(), RequestError> {
        if !connection.welcome().capabilities.has(Capabilities::ATTACHMENTS) {
            return Ok(());
        }
        for realisation in self.realisations.get(&info.store_path.hash()).into_iter().flatten() {
            let mut realisation = realisation.clone();
            let signature = signing.map(|key| key.sign(realisation.fingerprint().as_bytes()));
            realisation.signatures.extend(signature);
            let name = AttachmentName::Realisation(realisation.id.clone());
            let frame = attachment::pack(realisation.to_json().as_bytes(), LEVEL);
            send_one(connection, cache, name, frame.map(Some), tell).await?;
        }
        match info.deriver.clone() {
            Some(derivation) => self.send_log(connection, cache, derivation, tell).await,
            None => Ok(()),
        }
    }

    async fn send_log(
        &self,
        connection: &BoxConnection,
        cache: &CacheName,
        derivation: StorePath,
        tell: &Tell,
    ) -> Result<(), RequestError> {
        let Some(logs) = self.logs.clone() else { return Ok(()) };
        let Some(name) = AttachmentName::build_log(derivation.clone()) else { return Ok(()) };
        if self.done().contains(&derivation) {
            return Ok(());
        }
        let of = derivation.clone();
        let turn = self.readers.acquire().await;
        let read = spawn_blocking(move || packed_log(&logs, &of)).await;
        drop(turn);
        let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
        send_one(connection, cache, name, read, tell).await?;
        self.done().insert(derivation);
        Ok(())
    }

    fn done(&self) -> MutexGuard<'_, HashSet<StorePath>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log as one frame; nothing where there is none.
fn packed_log(location: &Location, derivation: &StorePath) -> io::Result<Option<Vec<u8>>> {
    match build_log(location, derivation, BUILD_LOG_BYTES_MAX)? {
        Some(log) if !log.is_empty() => attachment::pack(&log, LEVEL).map(Some),
        _nothing_to_read => Ok(None),
    }
}

async fn send_one(
    connection: &BoxConnection,
    cache: &CacheName,
    name: AttachmentName,
    frame: io::Result<Option<Vec<u8>>>,
    tell: &Tell,
) -> Result<(), RequestError> {
    let what = name.to_string();
    let why = match frame {
        Ok(None) => return Ok(()),
        Ok(Some(frame)) if frame.len() > ATTACHMENT_FRAME_BYTES_MAX => {
            format!("compressed it has more than {ATTACHMENT_FRAME_BYTES_MAX} bytes")
        }
        Ok(Some(frame)) => match connection.attach(cache, name, frame.into()).await {
            Ok(_either_way_it_is_there) => return Ok(()),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => one_line(&error),
        },
        Err(error) => one_line(&error),
    };
    tell.tell(PushEvent::LeftBehind { what, why });
    Ok(())
}
