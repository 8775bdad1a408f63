//! For those who run the server: whether it lives, whether it takes jobs, and what it counts.
//!
//! Monitors call these, so they take whatever parameters a monitor adds, and tell nothing of anyone.

use super::{info::Readiness, state::App};
use crate::service::Health;
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
/// A server that is not ready still answers, and finishes what it has begun if it can.
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
    (code, Json(Ready { status, reason }))
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
