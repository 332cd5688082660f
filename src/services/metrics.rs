//! What the box counts, and how Prometheus reads it. Every metric has its name here.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::store::{CollectReport, StoreStats};

/// What an HTTP request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "they are the words of the metric")]
pub enum RequestKind {
    CacheInfo,
    NarInfo,
    Nar,
    Listing,
    Attachment,
    File,
    Admin,
    Health,
    Other,
}

impl RequestKind {
    const ALL: [Self; 9] = [
        Self::CacheInfo,
        Self::NarInfo,
        Self::Nar,
        Self::Listing,
        Self::Attachment,
        Self::File,
        Self::Admin,
        Self::Health,
        Self::Other,
    ];
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(missing_docs, reason = "they are the words of the metric, and of `PushOutcome`")]
pub enum PushEnd {
    Stored,
    Known,
    Hidden,
    KeptFirst,
    /// The client was told why.
    Refused,
    /// The client went away.
    BrokenOff,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: RequestKind,
    status: StatusClass,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum StatusClass {
    Ok,
    NotModified,
    ClientError,
    ServerError,
}

impl StatusClass {
    const ALL: [Self; 4] = [Self::Ok, Self::NotModified, Self::ClientError, Self::ServerError];

    const fn place(status: u16) -> usize {
        match status {
            0..300 => 0,
            300..400 => 1,
            400..500 => 2,
            _ => 3,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PushLabels {
    outcome: PushEnd,
}

/// Everything that is counted. Counters go up from the start of the box; what is in the store is
/// as of its last count.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// By kind and class, in the order of their `ALL`, so that counting is one addition.
    requests: [[Counter; 4]; 9],
    pushes: Family<PushLabels, Counter>,
    /// Narinfos that were asked for and are here.
    pub narinfo_hits: Counter,
    /// Narinfos that were asked for and are not here.
    pub narinfo_misses: Counter,
    /// NARs whose bytes could not be read to the end.
    pub broken_reads: Counter,
    nar_bytes_sent: Counter,
    push_bytes_received: Counter,
    /// HTTP connections that are open.
    pub connections: Gauge,
    /// HTTP connections that were closed at once, for want of room.
    pub connections_refused: Counter,
    /// Connections of the protocol that are open, by QUIC and by TLS.
    pub quic_connections: Gauge,
    /// Connections of the protocol that were refused, for want of room.
    pub quic_connections_refused: Counter,
    /// Pushes under way.
    pub pushes_under_way: Gauge,
    collections: CollectionMetrics,
    store: StoreGauges,
}

/// What collections did, and how long each of their steps held the thread that writes.
#[derive(Debug)]
struct CollectionMetrics {
    paths: Counter,
    freed_bytes: Counter,
    moved_bytes: Counter,
    steps: Histogram,
}

/// Seconds. All but one step in a thousand should stay below the last.
const STEP_SECONDS: [f64; 5] = [0.001, 0.005, 0.01, 0.025, 0.05];

impl Default for CollectionMetrics {
    fn default() -> Self {
        let steps = Histogram::new(STEP_SECONDS);
        let (paths, freed_bytes) = (Counter::default(), Counter::default());
        Self { paths, freed_bytes, moved_bytes: Counter::default(), steps }
    }
}

impl CollectionMetrics {
    fn register(&self, registry: &mut Registry) {
        let Self { paths, freed_bytes, moved_bytes, steps } = self;
        registry.register("collected_paths", "Paths that left their caches", paths.clone());
        let help = "Bytes of packs that became free";
        registry.register_with_unit("collected", help, Unit::Bytes, freed_bytes.clone());
        let help = "Bytes that collections wrote anew";
        registry.register_with_unit("collection_moved", help, Unit::Bytes, moved_bytes.clone());
        let help = "How long steps of collections held the thread that writes";
        registry.register_with_unit("collection_step", help, Unit::Seconds, steps.clone());
    }
}

/// What is in the store.
#[derive(Debug, Default)]
struct StoreGauges {
    paths_visible: Gauge<u64, AtomicU64>,
    paths_hidden: Gauge<u64, AtomicU64>,
    nar_bytes: Gauge<u64, AtomicU64>,
    chunks: Gauge<u64, AtomicU64>,
    damaged_chunks: Gauge<u64, AtomicU64>,
    pack_bytes: Gauge<u64, AtomicU64>,
}

impl StoreGauges {
    fn register(&self, registry: &mut Registry) {
        let gauges = [
            ("store_paths_visible", "Store paths that are served", &self.paths_visible),
            ("store_paths_hidden", "Store paths that wait for references", &self.paths_hidden),
            ("store_nar_bytes", "Bytes of all NARs, uncompressed", &self.nar_bytes),
            ("store_chunks", "Chunks in the index", &self.chunks),
            ("store_damaged_chunks", "Chunks that are damaged on disk", &self.damaged_chunks),
            ("store_pack_bytes", "Bytes of all pack files", &self.pack_bytes),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("larder");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register(
            "http_requests",
            "HTTP requests by what they asked for and how they were answered",
            requests.clone(),
        );
        let metrics = Self {
            requests: RequestKind::ALL.map(|kind| {
                StatusClass::ALL
                    .map(|status| requests.get_or_create(&RequestLabels { kind, status }).clone())
            }),
            pushes: Family::default(),
            narinfo_hits: Counter::default(),
            narinfo_misses: Counter::default(),
            broken_reads: Counter::default(),
            nar_bytes_sent: Counter::default(),
            push_bytes_received: Counter::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            quic_connections: Gauge::default(),
            quic_connections_refused: Counter::default(),
            pushes_under_way: Gauge::default(),
            collections: CollectionMetrics::default(),
            store: StoreGauges::default(),
            registry: Registry::default(),
        };
        metrics.register(&mut registry);
        Self { registry, ..metrics }
    }

    fn register(&self, registry: &mut Registry) {
        let counters = [
            ("narinfo_hits", "Narinfos that were asked for and are here", &self.narinfo_hits),
            ("narinfo_misses", "Narinfos that were asked for and are not", &self.narinfo_misses),
            ("nar_broken_reads", "NARs that could not be read to the end", &self.broken_reads),
            (
                "http_connections_refused",
                "HTTP connections that were closed at once, for want of room",
                &self.connections_refused,
            ),
            (
                "quic_connections_refused",
                "Connections of pushers and administrators that were refused, for want of room",
                &self.quic_connections_refused,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let (sent, received) = (self.nar_bytes_sent.clone(), self.push_bytes_received.clone());
        registry.register_with_unit("nar_sent", "Bytes of NARs sent by HTTP", Unit::Bytes, sent);
        let help = "Bytes of chunks that came with pushes, compressed";
        registry.register_with_unit("push_received", help, Unit::Bytes, received);
        registry.register("pushes", "Pushes by what became of them", self.pushes.clone());
        let gauges = [
            ("http_connections", "HTTP connections that are open", &self.connections),
            (
                "quic_connections",
                "Connections of pushers and administrators that are open",
                &self.quic_connections,
            ),
            ("pushes_under_way", "Pushes under way", &self.pushes_under_way),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        self.collections.register(registry);
        self.store.register(registry);
    }

    /// Counts an HTTP request that was answered with `status`.
    pub fn request(&self, kind: RequestKind, status: u16) {
        let of_kind = RequestKind::ALL.iter().zip(&self.requests).find(|(its, _)| **its == kind);
        if let Some(counter) = of_kind.and_then(|(_, c)| c.get(StatusClass::place(status))) {
            counter.inc();
        }
    }

    /// Counts a push that has ended.
    pub fn push(&self, outcome: PushEnd) {
        self.pushes.get_or_create(&PushLabels { outcome }).inc();
    }

    /// How many pushes ended so.
    #[must_use]
    pub fn pushes(&self, outcome: PushEnd) -> u64 {
        self.pushes.get_or_create(&PushLabels { outcome }).get()
    }

    pub(super) fn nar_sent(&self, bytes: usize) {
        self.nar_bytes_sent.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn push_received(&self, bytes: usize) {
        self.push_bytes_received.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn collected(&self, report: &CollectReport) {
        let its = &self.collections;
        its.paths.inc_by(u64::try_from(report.paths.len()).unwrap_or(u64::MAX));
        its.freed_bytes.inc_by(report.freed_bytes);
        its.moved_bytes.inc_by(report.moved_bytes);
        report.steps.iter().for_each(|step| its.steps.observe(step.as_secs_f64()));
    }

    /// Takes over what is in the store.
    pub(super) fn note_store(&self, stats: &StoreStats) {
        self.store.paths_visible.set(stats.paths_visible);
        self.store.paths_hidden.set(stats.paths_hidden);
        self.store.nar_bytes.set(stats.nar_bytes);
        self.store.chunks.set(stats.chunks);
        self.store.damaged_chunks.set(stats.damaged_chunks);
        self.store.pack_bytes.set(stats.pack_bytes);
    }

    /// All metrics in the text format of OpenMetrics 1.0.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _written = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told_by_its_name() {
        let metrics = Metrics::new();
        metrics.request(RequestKind::NarInfo, 200);
        metrics.request(RequestKind::NarInfo, 200);
        metrics.request(RequestKind::NarInfo, 404);
        metrics.push(PushEnd::KeptFirst);
        metrics.nar_sent(7);
        metrics.connections.inc();
        metrics.note_store(&StoreStats { chunks: 5, ..StoreStats::default() });

        let text = metrics.to_text();

        for line in [
            "larder_http_requests_total{kind=\"NarInfo\",status=\"Ok\"} 2",
            "larder_http_requests_total{kind=\"NarInfo\",status=\"ClientError\"} 1",
            "larder_http_requests_total{kind=\"Nar\",status=\"Ok\"} 0",
            "larder_pushes_total{outcome=\"KeptFirst\"} 1",
            "larder_nar_sent_bytes_total 7",
            "larder_http_connections 1",
            "larder_store_chunks 5",
        ] {
            assert!(text.lines().any(|its| its == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn every_status_has_its_class() {
        for (status, place) in [(200, 0), (206, 0), (304, 1), (404, 2), (416, 2), (500, 3)] {
            assert_eq!(StatusClass::place(status), place, "{status}");
        }
    }
}
