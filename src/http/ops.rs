//! For those who run the server: whether it lives, whether it takes jobs, and what it counts.
//!
//! Monitors call these, so they take whatever parameters a monitor adds, and tell nothing of anyone.

use super::{info::Readiness, state::App};
use crate::service::{EngineState, EngineStats, Health};
use axum::{
    Json,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
}

/// That the process lives.
#[derive(Debug, Serialize, ToSchema)]
struct Alive {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether jobs are taken, and why not.
#[derive(Debug, Serialize, ToSchema)]
struct Ready {
    /// Whether jobs are taken.
    status: Readiness,
    /// What happened last, where the model is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
    /// Each device, where there are several. Jobs are taken as long as one of them is ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    engines: Vec<Engine>,
}

/// A device that runs the model.
#[derive(Debug, Serialize, ToSchema)]
struct Engine {
    /// Which.
    #[schema(example = "cuda:0")]
    device: String,
    /// How it stands.
    status: EngineStatus,
    /// What happened last, where it is down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// How a device stands.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EngineStatus {
    /// It works, or would.
    Ready,
    /// The model failed on it and is being started again.
    Rebuilding,
    /// The model failed on it and could not be started again.
    Down,
    /// It has ended its work, because the server is about to stop.
    Stopped,
}

impl From<EngineStats> for Engine {
    fn from(engine: EngineStats) -> Self {
        let (status, reason) = match engine.state {
            EngineState::Ready => (EngineStatus::Ready, None),
            EngineState::Rebuilding => (EngineStatus::Rebuilding, None),
            EngineState::Down { reason } => (EngineStatus::Down, Some(reason)),
            EngineState::Stopped => (EngineStatus::Stopped, None),
        };
        Self { device: engine.name, status, reason }
    }
}

/// Ask whether the process lives
///
/// It answers as long as it does, also when the model does not run: restarting helps only where there
/// is no answer.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "get_health",
    tag = "server",
    responses((status = 200, description = "It lives.", body = Alive)),
)]
async fn healthz() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// Ask whether jobs are taken
///
/// A server that is not ready still answers, and finishes what it has begun if it can. With several
/// devices it is ready as long as one is.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "get_readiness",
    tag = "server",
    responses(
        (status = 200, description = "Jobs are taken.", body = Ready),
        (status = 503, body = Ready,
            description = "No jobs are taken: the server is about to stop, or the model is down."),
    ),
)]
async fn readyz(State(app): State<App>) -> (StatusCode, Json<Ready>) {
    let health = app.service.health();
    let status = Readiness::from(&health);
    let reason = if let Health::Red { reason } = health { Some(reason) } else { None };
    let code = match status {
        Readiness::Ready => StatusCode::OK,
        Readiness::Draining | Readiness::Down => StatusCode::SERVICE_UNAVAILABLE,
    };
    let engines = app.service.engines();
    let engines = if engines.len() > 1 { engines } else { Vec::new() };
    (code, Json(Ready { status, reason, engines: engines.into_iter().map(Engine::from).collect() }))
}

/// Get metrics
///
/// In the text format of Prometheus, version 0.0.4: queue, waiting times, steps, batches, why admission
/// stopped, how jobs ended, refusals by code, memory and storage. No name of a person or of a job.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "get_metrics",
    tag = "server",
    responses((status = 200, description = "The metrics.", content_type = "text/plain",
        body = String)),
)]
async fn metrics(State(app): State<App>) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.service.metrics()).into_response()
}
