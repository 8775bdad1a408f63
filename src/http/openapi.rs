//! The document of the API, made from the handlers themselves, and the router of the same handlers:
//! neither has a route that the other lacks.
//!
//! What every response can be, since the edge gives it and no handler, is added here, and so are the
//! words for people.

use super::{Code, edits, error::ErrorBody, events, images, info, jobs, loras, ops, state::App};
use axum::{
    Extension, Router,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde_json::json;
use utoipa::{
    OpenApi as _,
    openapi::{
        ContentBuilder, OpenApi, Ref, ResponseBuilder, Server,
        extensions::Extensions,
        path::{Operation, PathItem},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// What a client's author should know before the first request, in Markdown.
const DESCRIPTION: &str = "\
A private server that edits pictures by what you say: send a picture and a prompt, watch the job, \
fetch the image.

1. `POST /api/edits` with a picture and a prompt answers 202 with a job.
2. `GET /api/jobs/{id}/events` tells how it goes, until its end.
3. `GET /api/images/{id}/content` gives the image, whose id the last event and the job have.

Fields are named as in diffusers. Times are RFC 3339 in UTC with milliseconds, sizes are in pixels and \
bytes. Fields and parameters that are not known are refused, so that a misspelt one does not pass \
unnoticed. New fields may come into answers at any time.

## Errors

Every error has the same shape, whatever gave it: \
`{\"error\": {\"code\", \"message\", \"field\", \"request_id\"}}`. `code` is for programs and never \
changes its meaning; all codes are listed under `x-error-codes` in this document. `message` is for \
people: it says what was sent and what is allowed. `field` names the field at fault, or is null. \
`request_id`, which is also in the header `x-request-id` of every response, is what the server's \
log knows the request by. Where waiting helps, the header `retry-after` says how many seconds.

## Idempotency

A client that does not know whether its edit arrived sends it again with the same header \
`Idempotency-Key`, any text of up to 255 bytes: it gets the job of the first one, with status 200 and \
the header `idempotency-replayed: true`. The same key with another request is refused. A key holds for \
as long as its job is kept.

## Events

`GET /api/jobs/{id}/events` is a stream of server-sent events. Each event that can be told again has a \
number as its `id`; a client that was cut off sends the last one as `Last-Event-ID` and gets exactly \
the rest. Comments come in between as a sign of life. After the last event the stream ends, and a \
client that comes back is told by status 204 that there is nothing more. A client that leaves does not \
stop its job unless it asked for that; `DELETE /api/jobs/{id}` does, within one step.

## Privacy

The pictures that are sent are in memory only, and are gone when their job has ended; after a restart \
an unfinished job reads as `interrupted`. Results are kept until they are deleted, unless the request \
said `ephemeral`: then nothing is stored, and the image can be fetched once. Nobody can list or \
address what belongs to someone else. No prompt and no file name is ever in a log, a header or a metric.
";

/// Everything but the operations.
#[derive(utoipa::OpenApi)]
#[openapi(
    components(schemas(ErrorBody)),
    tags(
        (name = "edits", description = "Ask for an edit."),
        (name = "jobs", description = "Watch and cancel edits that were asked for."),
        (name = "images", description = "List, fetch and delete results."),
        (name = "server", description = "What this server has, and how it does."),
    ),
)]
struct Frame;

/// The API: its router, and the document that describes it.
pub(super) fn api() -> (Router<App>, OpenApi) {
    let mut frame = Frame::openapi();
    frame.info.title = "Darkroom".to_owned();
    frame.info.description = Some(DESCRIPTION.to_owned());
    frame.servers = Some(vec![Server::new("/")]);
    frame.extensions = Some(Extensions::from_iter([("x-error-codes", error_codes())]));
    let (router, mut document) = OpenApiRouter::with_openapi(frame)
        .merge(edits::routes())
        .merge(jobs::routes())
        .merge(events::routes())
        .merge(images::routes())
        .merge(info::routes())
        .merge(loras::routes())
        .merge(ops::routes())
        .split_for_parts();
    document.merge(own().into_openapi());
    for (path, item) in &mut document.paths.paths {
        for operation in operations(item) {
            add_common(operation, path.starts_with("/api/"));
        }
    }
    (router, document)
}

/// The router of the document itself.
pub(super) fn document(document: &OpenApi) -> Router<App> {
    let text = document.to_pretty_json().expect("it has only text for keys");
    own().layer(Extension(Document(text.into()))).into()
}

fn own() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(openapi))
}

/// The document as it is sent.
#[derive(Clone)]
struct Document(Bytes);

/// Get this document
///
/// OpenAPI 3.1, made from the server's code.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "get_openapi",
    tag = "server",
    responses((status = 200, description = "The document.", body = serde_json::Value)),
)]
async fn openapi(Extension(Document(text)): Extension<Document>) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// The table of codes, for programs and for pages.
fn error_codes() -> serde_json::Value {
    let row = |code: &Code| json!({ "code": code.name(), "status": code.status().as_u16(), "when": code.when() });
    Code::ALL.iter().map(row).collect()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = item;
    [get, put, post, delete, patch].into_iter().flatten()
}

/// Adds the errors that the edge gives, unless the handler's own words for them are there.
fn add_common(operation: &mut Operation, api: bool) {
    let edge = [Code::BadRequest, Code::ForeignHost, Code::Internal].into_iter();
    // The page of a browser's tab may be opened from elsewhere; the API may not be called from there.
    let edge = edge.chain(api.then_some(Code::ForeignOrigin));
    let body = [Code::RequestTimeout, Code::BodyTooLarge];
    let edge = edge.chain(body.into_iter().filter(|_| operation.request_body.is_some()));
    for code in edge {
        let error = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response = ResponseBuilder::new()
            .description(format!("`{}`: {}.", code.name(), code.when()))
            .content("application/json", error);
        let status = code.status().as_str().to_owned();
        operation.responses.responses.entry(status).or_insert(response.build().into());
    }
}
