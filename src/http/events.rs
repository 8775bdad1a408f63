//! The handler of a job's events: the service's news as server-sent events.
//!
//! A listener that goes is noticed when its response is dropped, and then its news are.

use super::{
    ApiError,
    error::ErrorBody,
    extract::{self, Path, Query},
    params::{Params, shown},
    state::{App, Caller},
    wire::{JobError, JobImage},
};
use crate::{
    domain::ParamError,
    service::{JobEvent, Listen, News, Update},
};
use axum::{
    extract::State,
    http::{HeaderMap, Method, StatusCode, header::CACHE_CONTROL},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::{convert::Infallible, future::ready, time::Duration};
use utoipa_axum::{router::OpenApiRouter, routes};

/// How long a browser waits before it comes back.
const RETRY: Duration = Duration::from_secs(2);
/// How long a stream is silent at most: shorter than whatever is in between waits for a byte.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(listen_to_job))
}

/// Listen to a job's events
///
/// Server-sent events, from the job's first one or behind the one that `Last-Event-ID` names, until
/// the job has ended. The data of each is a JSON object:
///
/// | event | data |
/// | --- | --- |
/// | `queued` | `position`: how many jobs are before it, plus one; `eta_seconds`: when its image may be there, null before the server has measured a step |
/// | `started` | nothing: the device has it |
/// | `restarted` | nothing: the device failed under other jobs, and this one begins anew |
/// | `step` | `step` of `steps` is done and took `seconds` |
/// | `preview` | `image`: how it would look, a PNG of at most 256 pixels a side in base64; `step`: after which step |
/// | `done` | `image`: its `id`, `width`, `height` and `url` |
/// | `failed` | `code` and `message` |
/// | `cancelled` | nothing |
/// | `interrupted` | nothing: the server ended before it did; send it again |
///
/// One of the last four is the last event. Numbers (`id`) grow, with gaps; a preview has none and is
/// not told again. Of a job that ended long ago only its end is told. A comment comes every 15
/// seconds at least, unless an event does.
#[utoipa::path(
    get,
    path = "/api/jobs/{id}/events",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job."),
        ("previews" = Option<bool>, Query, description = "Whether previews are told. Default: true."),
        ("cancel_on_disconnect" = Option<bool>, Query,
            description = "Whether the job is cancelled if the listener goes before it ended. \
                           Default: false."),
        ("last-event-id" = Option<u64>, Header,
            description = "Only events behind this one; browsers send it when they come back."),
    ),
    responses(
        (status = 200, description = "The events.", body = String,
            content_type = "text/event-stream"),
        (status = 204, description = "Everything was told: do not come back."),
        (status = 404, description = "`not_found`: there is no such job.", body = ErrorBody),
        (status = 422, description = "`invalid_parameter`, `unknown_field`.", body = ErrorBody),
        (status = 500, description = "`store_failed`, `internal`.", body = ErrorBody),
    ),
)]
async fn listen_to_job(
    State(app): State<App>,
    Caller(owner): Caller,
    method: Method,
    Path(id): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = extract::id(&id, "job")?;
    let mut params = Params::of(pairs, &["previews", "cancel_on_disconnect"])?;
    let allowed = "expected true or false";
    let previews = params.parse("previews", allowed)?.unwrap_or(true);
    let cancel = params.parse("cancel_on_disconnect", allowed)?.unwrap_or(false);
    // axum runs this handler for HEAD, too, and drops what it gives.
    let cancel_on_disconnect = cancel && method == Method::GET;
    let listen = Listen { after: after(&headers)?, previews, cancel_on_disconnect };
    let news = app.service.listen(owner, id, listen).await?;
    if news.is_over() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let first = stream::once(ready(Event::default().retry(RETRY)));
    let events = first.chain(stream::unfold(news, next)).map(Ok::<_, Infallible>);
    let told = Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT));
    Ok(([(CACHE_CONTROL, "no-store")], told).into_response())
}

/// The number that the header `Last-Event-ID` names.
fn after(headers: &HeaderMap) -> Result<u64, ParamError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    let text = value.to_str().unwrap_or_default();
    text.parse().map_err(|_| {
        let allowed = "expected the id of an event, or no such header";
        ParamError::new("last-event-id", format!("\"{}\"", shown(text)), allowed)
    })
}

async fn next(mut news: News) -> Option<(Event, News)> {
    Some((event(news.next().await?), news))
}

fn event((number, event): Update) -> Event {
    let (name, data) = named(event);
    let event = Event::default().event(name).data(data.to_string());
    match number {
        Some(number) => event.id(number.to_string()),
        None => event,
    }
}

fn named(event: JobEvent) -> (&'static str, Value) {
    match event {
        JobEvent::Queued { position, eta } => {
            let eta = eta.map(|eta| eta.as_secs_f64());
            ("queued", json!({ "position": position, "eta_seconds": eta }))
        }
        JobEvent::Started => ("started", json!({})),
        JobEvent::Restarted => ("restarted", json!({})),
        JobEvent::Step { step, steps, seconds } => {
            ("step", json!({ "step": step, "steps": steps, "seconds": seconds }))
        }
        JobEvent::Preview { step, png } => {
            ("preview", json!({ "step": step, "image": BASE64_STANDARD.encode(png) }))
        }
        JobEvent::Done(image) => ("done", json!({ "image": JobImage::from(image) })),
        JobEvent::Failed(failure) => ("failed", json!(JobError::from(&failure))),
        JobEvent::Cancelled => ("cancelled", json!({})),
        JobEvent::Interrupted => ("interrupted", json!({})),
    }
}
