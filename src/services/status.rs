//! How the box is: what `larder status` shows.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::formats::BoxName;
use crate::services::caches::Caches;
use crate::services::clock::{self, Clock, ClockState};
use crate::services::metrics::Metrics;
use crate::store::{Cache, Store, StoreError, StoreStats, UnixSeconds};
use crate::wire::DeviceId;

/// A cache with what is in it.
#[derive(Clone, Debug)]
pub struct CacheStatus {
    /// The cache.
    pub cache: Arc<Cache>,
    /// Paths that are served.
    pub paths_visible: u64,
    /// Paths that wait for references.
    pub paths_hidden: u64,
    /// Bytes of its NARs in their stored form, counted for each path.
    pub stored_bytes: u64,
}

/// How the box is.
#[derive(Clone, Debug)]
pub struct StatusReport {
    /// The program's version.
    pub version: &'static str,
    /// What the box calls itself.
    pub box_name: BoxName,
    /// Who it is.
    pub device_id: DeviceId,
    /// When it started.
    pub started_at: UnixSeconds,
    /// The box's clock.
    pub now: UnixSeconds,
    /// All caches, by name.
    pub caches: Vec<CacheStatus>,
    /// What is in the store.
    pub store: StoreStats,
    /// Whether the box's clock is believed.
    pub clock: ClockState,
    /// What is wrong with the certificate for HTTPS, if anything.
    pub certificate_problem: Option<String>,
    /// What the disk of the data folder refused, until it takes bytes again.
    pub disk_problem: Option<String>,
}

/// Knows how the box is.
#[derive(Clone, Debug)]
pub struct Status(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    box_name: BoxName,
    device_id: DeviceId,
    caches: Caches,
    metrics: Arc<Metrics>,
    clock: Clock,
    started_at: UnixSeconds,
    /// Says what is wrong with the certificate for HTTPS.
    certificate: OnceLock<CertificateWatch>,
}

struct CertificateWatch(Box<dyn Fn() -> Option<String> + Send + Sync>);

impl fmt::Debug for CertificateWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateWatch")
    }
}

impl Status {
    pub(super) fn new(
        store: Store,
        box_name: BoxName,
        device_id: DeviceId,
        caches: Caches,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let started_at = clock::now();
        let certificate = OnceLock::new();
        let inner =
            Inner { store, box_name, device_id, caches, metrics, clock, started_at, certificate };
        Self(Arc::new(inner))
    }

    /// Whom to ask what is wrong with the certificate for HTTPS; the first one counts.
    pub fn watch_certificate(&self, problem: impl Fn() -> Option<String> + Send + Sync + 'static) {
        let _there_is_one = self.0.certificate.set(CertificateWatch(Box::new(problem)));
    }

    /// What the box calls itself.
    #[must_use]
    pub fn box_name(&self) -> &BoxName {
        &self.0.box_name
    }

    /// Asks everybody. Counts rows, so its cost grows with the store.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn report(&self) -> Result<StatusReport, StoreError> {
        let mut caches = Vec::new();
        for cache in self.0.caches.all() {
            caches.push(self.cache(cache).await?);
        }
        Ok(StatusReport {
            version: env!("CARGO_PKG_VERSION"),
            box_name: self.0.box_name.clone(),
            device_id: self.0.device_id,
            started_at: self.0.started_at,
            now: clock::now(),
            caches,
            store: self.count_store().await?,
            clock: self.0.clock.state(),
            certificate_problem: self.0.certificate.get().and_then(|watch| watch.0()),
            disk_problem: self.disk_problem(),
        })
    }

    /// One cache with what is in it. Counts rows.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the index cannot be read.
    pub async fn cache(&self, cache: Arc<Cache>) -> Result<CacheStatus, StoreError> {
        let (paths_visible, paths_hidden) = self.0.store.count_paths(cache.id).await?;
        let stored_bytes = self.0.store.stored_bytes(cache.id).await?;
        Ok(CacheStatus { cache, paths_visible, paths_hidden, stored_bytes })
    }

    /// Whether the store answers.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it does not.
    pub async fn check_ready(&self) -> Result<(), StoreError> {
        self.0.store.caches().await.map(drop)
    }

    /// What the disk of the data folder refused, for people, until it takes bytes again.
    #[must_use]
    pub fn disk_problem(&self) -> Option<String> {
        self.0.store.trouble()
    }

    /// Tries whether the disk takes bytes again, if it did not.
    pub(super) async fn try_disk(&self) {
        self.0.store.try_disk().await;
    }

    /// Counts what is in the store, for the metrics too.
    pub(super) async fn count_store(&self) -> Result<StoreStats, StoreError> {
        let stats = self.0.store.stats().await?;
        self.0.metrics.note_store(&stats);
        Ok(stats)
    }
}
