//! The handlers of one job: how it stands, and its end.

use super::{
    ApiError,
    error::ErrorBody,
    extract::{self, Path},
    params::NoParams,
    state::{App, Caller},
    wire::Job,
};
use axum::{Json, extract::State};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(get_job, cancel_job))
}

/// Get a job
///
/// Where it stands: its place in the queue, how far it is, its image or why it failed. Jobs that
/// have ended can be asked for as long as the server keeps them. Of an ephemeral job nothing is left
/// after its image was waited for too long, or the server was started again.
#[utoipa::path(
    get,
    path = "/api/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job.")),
    responses(
        (status = 200, description = "The job.", body = Job),
        (status = 404, description = "`not_found`: there is no such job.", body = ErrorBody),
        (status = 422, description = "`unknown_field`.", body = ErrorBody),
        (status = 500, description = "`store_failed`, `internal`.", body = ErrorBody),
    ),
)]
async fn get_job(
    State(app): State<App>,
    Caller(owner): Caller,
    Path(id): Path<String>,
    _: NoParams,
) -> Result<Json<Job>, ApiError> {
    let job = app.service.job(owner, extract::id(&id, "job")?).await?;
    Ok(Json(Job::from(&job)))
}

/// Cancel a job
///
/// One that waits leaves the queue, one that runs takes no further step, and one that has ended stays
/// as it is. The answer comes when that is so.
#[utoipa::path(
    delete,
    path = "/api/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job.")),
    responses(
        (status = 200, description = "The job, as it stands then.", body = Job),
        (status = 404, description = "`not_found`: there is no such job.", body = ErrorBody),
        (status = 422, description = "`unknown_field`.", body = ErrorBody),
        (status = 500, description = "`store_failed`, `internal`.", body = ErrorBody),
    ),
)]
async fn cancel_job(
    State(app): State<App>,
    Caller(owner): Caller,
    Path(id): Path<String>,
    _: NoParams,
) -> Result<Json<Job>, ApiError> {
    let job = app.service.cancel(owner, extract::id(&id, "job")?).await?;
    Ok(Json(Job::from(&job)))
}
