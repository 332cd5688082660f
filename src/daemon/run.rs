//! A box, from settings to the last byte: everything is started and stopped here, in one order.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::daemon::first_start;
use crate::daemon::notify;
use crate::daemon::open_files;
use crate::daemon::settings::Settings;
use crate::daemon::sockets::{SocketError, Sockets};
use crate::daemon::time_sync;
use crate::formats::BoxName;
use crate::formats::cache_name::ParseCacheNameError;
use crate::formats::signature::{ParseKeyError, PublicKey};
use crate::services::{AdmissionOptions, Services, ServicesOptions, clock, upkeep};
use crate::store::{Store, StoreError};
use crate::transports::discovery::announce::{self, AnnounceOptions};
use crate::transports::http;
use crate::transports::http::HttpOptions;
use crate::transports::quic::{
    Identity, IdentityError, QuicError, QuicParts, QuicServer, Sessions,
};
use crate::transports::tls::TlsAcceptor;
use crate::wire::device_id::DeviceId;

/// How long connections in flight may take to finish once a stop was asked for.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// What whoever started the box wants to read.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The name of the box.
    pub name: BoxName,
    /// URLs of the root substituter, the one to tell others first.
    pub http_addresses: Vec<String>,
    /// TCP port of HTTP.
    pub http_port: u16,
    /// UDP port of QUIC.
    pub quic_port: u16,
    /// Who the box is.
    pub device_id: DeviceId,
    /// The key that Nix has to trust: the newest of the first cache of the root, if there is one.
    pub public_key: Option<PublicKey>,
    /// Where the first personal token is, if its owner has left it there.
    pub admin_token_file: Option<PathBuf>,
    /// The data folder.
    pub data: PathBuf,
}

/// Why a box did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// It cannot listen.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The data folder cannot be opened or closed.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The device key cannot be used.
    #[error("the identity cannot be used")]
    Identity(#[from] IdentityError),
    /// QUIC cannot start.
    #[error("QUIC cannot be started")]
    Quic(#[from] QuicError),
    /// The first cache's name is no name.
    #[error("the first cache cannot be named")]
    CacheName(#[source] ParseCacheNameError),
    /// The first cache's key cannot be made.
    #[error("the first cache's key cannot be made")]
    CacheKey(#[source] ParseKeyError),
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    NoRandomness,
    /// The first personal token cannot be written down.
    #[error("cannot write {}", path.display())]
    AdminToken {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The runtime refuses the listener or the signals.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A part of the box failed, and took the box with it.
    #[error("{part} failed")]
    PartFailed {
        /// Which.
        part: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A part of the box ended though nobody had asked it to.
    #[error("{part} ended by itself")]
    PartEnded {
        /// Which.
        part: &'static str,
    },
    /// A part of the box, or the opening of the store, panicked; the log has where.
    #[error("a part of the box panicked")]
    Panicked(#[source] JoinError),
}

/// Runs a box until SIGTERM or SIGINT, or until a part of it fails. `tell` is called once, when
/// everything listens.
///
/// On a signal the box stops taking connections, gives those under way `DRAIN_MAX` to finish
/// and closes the store. A second signal ends the wait.
///
/// # Errors
///
/// [`DaemonError`] says what did not start, or which part failed.
pub async fn run(settings: Settings, tell: impl FnOnce(&Summary)) -> Result<(), DaemonError> {
    let system = |source| DaemonError::System { action: "wait for signals", source };
    let mut signals = Signals::new().map_err(system)?;
    let stop = CancellationToken::new();
    let mut running = start(settings, &stop, tell).await?;

    // No part ends on its own: the first to do so takes the others with it.
    let first = tokio::select! {
        () = signals.next() => Ok(()),
        ended = running.parts.join_next() => ended.map_or(Ok(()), failure_of),
    };
    info!("Stopping");
    notify::stopping();
    stop.cancel();
    tokio::select! {
        () = drain(&mut running.parts) => {}
        () = signals.next() => warn!("Stopping at once"),
    }
    running.parts.shutdown().await;
    // Last, for nothing can write any more.
    let closed = running.store.close().await;
    first.and(closed.map_err(DaemonError::from))
}

/// A box whose parts run.
struct Running {
    store: Store,
    parts: JoinSet<Ended>,
}

/// How a part ended.
struct Ended {
    part: &'static str,
    result: io::Result<()>,
}

/// Starts everything. Order, and why: sockets first, so that a taken port leaves no data folder
/// behind and clients of a box that restarts wait instead of being refused; the store before
/// whatever answers from it; the network hears of the box when it answers.
async fn start(
    settings: Settings,
    stop: &CancellationToken,
    tell: impl FnOnce(&Summary),
) -> Result<Running, DaemonError> {
    let sockets = Sockets::bind(settings.listen, settings.quic_listen)?;
    let AdmissionOptions { http_connections, quic_connections, .. } = settings.admission;
    open_files::raise_limit(http_connections.saturating_add(quic_connections));
    let options = settings.store.clone();
    let opened = spawn_blocking(move || Store::open(options)).await;
    let store = opened.map_err(DaemonError::Panicked)??;
    let started = start_parts(&settings, sockets, &store, stop, tell).await;
    match started {
        Ok(parts) => Ok(Running { store, parts }),
        Err(error) => {
            // What went wrong first is what counts.
            let _closed_or_not = store.close().await;
            Err(error)
        }
    }
}

async fn start_parts(
    settings: &Settings,
    sockets: Sockets,
    store: &Store,
    stop: &CancellationToken,
    tell: impl FnOnce(&Summary),
) -> Result<JoinSet<Ended>, DaemonError> {
    let data = &settings.store.folder;
    let identity = Identity::from_seed(&store.identity_seed())?;
    let device_id = identity.device_id();
    first_start::prepare(store, data, device_id, &settings.key_host, clock::now()).await?;
    let options = ServicesOptions {
        box_name: settings.name.clone(),
        key_host: settings.key_host.clone(),
        device_id,
        admission: settings.admission,
        is_clock_synchronised: time_sync::is_synchronised,
        settings_file: settings.file.clone(),
    };
    let services = Services::start(store.clone(), options).await?;
    let quic_parts = QuicParts {
        box_name: settings.name.to_string(),
        auth: services.auth.clone(),
        admission: services.admission.clone(),
        metrics: Arc::clone(&services.metrics),
        pairing: services.pairing.clone(),
        caches: services.caches.clone(),
        http_port: sockets.tcp_address.port(),
        publish: services.publish.clone(),
        admin: http::admin_handler(services.clone()),
    };
    let summary = summary(settings, &sockets, device_id, &services);
    let sessions = Sessions::new(quic_parts);
    let quic = QuicServer::new(sockets.udp, &identity, sessions.clone())?;
    let tls = Arc::new(TlsAcceptor::new(&identity, settings.tls.clone())?);
    let watched = Arc::clone(&tls);
    services.status.watch_certificate(move || watched.problem());
    let options = HttpOptions {
        tls: Some(tls),
        sessions: Some(sessions),
        plain_tokens: settings.plain_tokens,
        patience: settings.patience,
    };
    let listener = TcpListener::from_std(sockets.tcp)
        .map_err(|source| DaemonError::System { action: "use the TCP socket", source })?;

    let mut parts = Parts(JoinSet::new());
    parts.add("HTTP", http::serve(listener, services.clone(), options, stop.clone()));
    parts.add("QUIC", endless(quic.run(stop.clone())));
    parts.add("upkeep", endless(upkeep::run(services.clone(), stop.clone())));
    parts.add("the watchdog's answer", endless(notify::keep_watchdog_quiet(stop.clone())));
    if settings.mdns {
        let names = services.caches.public_names();
        let options = announce_options(settings, &summary);
        parts.add("discovery", endless(announce::serve(options, names, stop.clone())));
    }
    tell(&summary);
    notify::ready(&format!("{} answers on port {}", summary.name, summary.http_port));
    Ok(parts.0)
}

/// The parts of a box under way. Dropping it cuts them.
struct Parts(JoinSet<Ended>);

impl Parts {
    fn add(
        &mut self,
        part: &'static str,
        work: impl Future<Output = io::Result<()>> + Send + 'static,
    ) {
        self.0.spawn(async move { Ended { part, result: work.await } });
    }
}

/// A part that has no way to fail.
async fn endless(work: impl Future<Output = ()>) -> io::Result<()> {
    work.await;
    Ok(())
}

fn announce_options(settings: &Settings, summary: &Summary) -> AnnounceOptions {
    AnnounceOptions {
        name: settings.name.clone(),
        machine_name: settings.machine_name.clone(),
        device_id: summary.device_id,
        listen: settings.listen.ip(),
        quic_port: summary.quic_port,
        http_port: summary.http_port,
    }
}

fn summary(
    settings: &Settings,
    sockets: &Sockets,
    device_id: DeviceId,
    services: &Services,
) -> Summary {
    let by_name = settings.mdns && !sockets.tcp_address.ip().is_loopback();
    let http_port = sockets.tcp_address.port();
    let named = by_name.then(|| format!("http://{}.local:{http_port}", settings.name));
    let numbered = sockets.reachable_at().into_iter().map(|address| format!("http://{address}"));
    let root = services.caches.root_scope(None);
    Summary {
        name: settings.name.clone(),
        http_addresses: named.into_iter().chain(numbered).collect(),
        http_port,
        quic_port: sockets.udp_address.port(),
        device_id,
        public_key: root.caches().first().and_then(|cache| Some(cache.keys.first()?.public_key())),
        admin_token_file: first_start::admin_token_file(&settings.store.folder),
        data: settings.store.folder.clone(),
    }
}

/// What a part that ended before the stop means for the box.
fn failure_of(ended: Result<Ended, JoinError>) -> Result<(), DaemonError> {
    let Ended { part, result } = ended.map_err(DaemonError::Panicked)?;
    result.map_err(|source| DaemonError::PartFailed { part, source })?;
    Err(DaemonError::PartEnded { part })
}

/// Waits for all parts, at most [`DRAIN_MAX`]; what fails now is logged.
async fn drain(parts: &mut JoinSet<Ended>) {
    let all = async {
        while let Some(ended) = parts.join_next().await {
            match ended {
                Ok(Ended { result: Ok(()), .. }) => {}
                Ok(Ended { part, result: Err(error) }) => {
                    error!(part, %error, "A part failed while the box stopped");
                }
                Err(error) => error!(%error, "A part panicked while the box stopped"),
            }
        }
    };
    if timeout(DRAIN_MAX, all).await.is_err() {
        warn!(parts.left = parts.len(), "Gave up waiting; cutting what is left");
    }
}

/// The signals that stop a box.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
