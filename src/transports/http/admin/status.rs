//! `status`

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::services::metrics::PushEnd;
use crate::services::{ClockState, Metrics, StatusReport, StoreStats};
use crate::transports::http::admin::caches::CacheBody;
use crate::transports::http::admin::check::CheckBody;
use crate::transports::http::admin::collections::{CollectionBody, SpaceBody};
use crate::transports::http::admin::problem::Problem;
use crate::transports::http::router::SharedServices;

#[derive(Debug, Serialize)]
pub(super) struct StatusBody {
    version: &'static str,
    name: String,
    device_id: String,
    started_at: u64,
    now: u64,
    caches: Vec<CacheBody>,
    store: StoreBody,
    pushes: PushesBody,
    http_connections: i64,
    http_connections_refused: u64,
    quic_connections: i64,
    quic_connections_refused: u64,
    check: CheckBody,
    collection: CollectionBody,
    space: SpaceBody,
    clock: ClockBody,
    certificate_problem: Option<String>,
    disk_problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct ClockBody {
    trusted: bool,
    pause_left: u64,
    problem: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct StoreBody {
    paths_visible: u64,
    paths_hidden: u64,
    nars: u64,
    nar_bytes: u64,
    chunks: u64,
    damaged_chunks: u64,
    pack_files: u64,
    pack_bytes: u64,
}

#[derive(Debug, Serialize)]
struct PushesBody {
    under_way: i64,
    stored: u64,
    known: u64,
    hidden: u64,
    kept_first: u64,
    refused: u64,
    broken_off: u64,
}

impl From<StoreStats> for StoreBody {
    fn from(stats: StoreStats) -> Self {
        Self {
            paths_visible: stats.paths_visible,
            paths_hidden: stats.paths_hidden,
            nars: stats.nars,
            nar_bytes: stats.nar_bytes,
            chunks: stats.chunks,
            damaged_chunks: stats.damaged_chunks,
            pack_files: stats.pack_files,
            pack_bytes: stats.pack_bytes,
        }
    }
}

impl From<&Metrics> for PushesBody {
    fn from(metrics: &Metrics) -> Self {
        Self {
            under_way: metrics.pushes_under_way.get(),
            stored: metrics.pushes(PushEnd::Stored),
            known: metrics.pushes(PushEnd::Known),
            hidden: metrics.pushes(PushEnd::Hidden),
            kept_first: metrics.pushes(PushEnd::KeptFirst),
            refused: metrics.pushes(PushEnd::Refused),
            broken_off: metrics.pushes(PushEnd::BrokenOff),
        }
    }
}

/// `GET status`
pub(super) async fn show(State(services): SharedServices) -> Result<Json<StatusBody>, Problem> {
    let StatusReport {
        version,
        box_name,
        device_id,
        started_at,
        now,
        caches,
        store,
        clock: ClockState { trusted, pause_left, problem },
        certificate_problem,
        disk_problem,
    } = services.status.report().await?;
    Ok(Json(StatusBody {
        version,
        name: box_name.to_string(),
        device_id: device_id.to_string(),
        started_at,
        now,
        caches: caches.into_iter().map(Into::into).collect(),
        store: store.into(),
        pushes: (&*services.metrics).into(),
        http_connections: services.metrics.connections.get(),
        http_connections_refused: services.metrics.connections_refused.get(),
        quic_connections: services.metrics.quic_connections.get(),
        quic_connections_refused: services.metrics.quic_connections_refused.get(),
        check: services.checks.state().into(),
        collection: services.collections.state().into(),
        space: services.collections.space()?.into(),
        clock: ClockBody { trusted, pause_left, problem },
        certificate_problem,
        disk_problem,
    }))
}
