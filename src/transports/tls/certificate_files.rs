//! The configured certificate: read at the start, and again when its files change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::services::clock;
use crate::transports::tls::certificate::Certificate;

/// How often the files are looked at, at most: when a client comes.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Where a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePaths {
    /// The certificate and those that signed it, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// A certificate that follows its files. One that cannot be used leaves the one before in place.
#[derive(Clone, Debug)]
pub(super) struct CertificateFiles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    paths: CertificatePaths,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stamps: [Option<Stamp>; 2],
    looked_at: Instant,
    certificate: Option<Certificate>,
    /// Why the files as they are now are not used.
    refused: Option<String>,
}

/// What tells one version of a file from the next.
type Stamp = (u64, u64, i64, i64);

impl CertificateFiles {
    /// Reads the files. Blocks.
    pub(super) fn new(paths: CertificatePaths) -> Self {
        let state = State {
            stamps: [None; 2],
            looked_at: Instant::now(),
            certificate: None,
            refused: None,
        };
        let files = Self(Arc::new(Inner { paths, state: Mutex::new(state) }));
        files.read();
        files
    }

    /// The certificate for a new client; looks at the files first if that was a while ago.
    pub(super) async fn current(&self) -> Option<Arc<ServerConfig>> {
        let files = self.clone();
        if self.is_time_to_look() {
            // A panic in there leaves what was read before.
            let _read = spawn_blocking(move || files.read_if_changed()).await;
        }
        self.state().certificate.as_ref().map(|certificate| Arc::clone(&certificate.config))
    }

    /// What is wrong with the files or the certificate in them.
    pub(super) fn problem(&self) -> Option<String> {
        let state = self.state();
        let of_certificate = |certificate: &Certificate| {
            certificate.problem(&self.0.paths.certificate, clock::now())
        };
        state.refused.clone().or_else(|| state.certificate.as_ref().and_then(of_certificate))
    }

    /// Whether the certificate is for this host name.
    pub(super) fn is_certified_for(&self, host: &str) -> bool {
        self.state().certificate.as_ref().is_some_and(|certificate| certificate.is_for(host))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for one caller in a while.
    fn is_time_to_look(&self) -> bool {
        let mut state = self.state();
        let is_time = state.looked_at.elapsed() >= LOOK_EVERY;
        if is_time {
            state.looked_at = Instant::now();
        }
        is_time
    }

    fn read_if_changed(&self) {
        let stamps = self.stamps();
        if self.state().stamps != stamps {
            self.read();
        }
    }

    fn stamps(&self) -> [Option<Stamp>; 2] {
        [&self.0.paths.certificate, &self.0.paths.key].map(|path| stamp(path))
    }

    fn read(&self) {
        // Before the files, so that a change meanwhile shows at the next look.
        let stamps = self.stamps();
        let path = self.0.paths.certificate.display();
        let read = Certificate::read(&self.0.paths);
        let mut state = self.state();
        state.stamps = stamps;
        match read {
            Ok(certificate) => {
                info!("HTTPS shows the certificate in {path}");
                if let Some(problem) = certificate.problem(&self.0.paths.certificate, clock::now())
                {
                    warn!("{problem}; clients that check it will refuse it");
                }
                state.certificate = Some(certificate);
                state.refused = None;
            }
            Err(refused) => {
                let instead =
                    if state.certificate.is_some() { "as before" } else { "on its own key" };
                error!("{refused}; HTTPS goes on with the box's certificate {instead}");
                state.refused = Some(refused.to_string());
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let facts = fs::metadata(path).ok()?;
    Some((facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec()))
}
