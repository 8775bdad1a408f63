//! The handler that takes edits, in either form.
//!
//! What can be refused is refused before the body is read: its kind, and a queue that has no place.
//! `form` and `json` read it; what an edit means is the service's.

use super::{
    ApiError, Code,
    error::ErrorBody,
    fields::Edit,
    form, json,
    loras::LoraUse,
    params::{NoParams, shown},
    state::{App, Caller},
    wire::{Format, Job, Priority},
};
use crate::{domain::ParamError, service::Submitted};
use axum::{
    Json,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, LOCATION},
    },
    response::{IntoResponse, Response},
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(submit_edit))
}

/// What an edit can say besides its pictures. Without a value, or with null, a field is as if it
/// were not there; in a form, so it is with empty text.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the document is made from it; `fields` reads requests")]
struct EditFields {
    /// What to change in the picture. At most 32,000 characters. Required without a style.
    #[schema(example = "make the sky a sunset")]
    prompt: Option<String>,
    /// What to avoid. At most 32,000 characters. It works where `true_cfg_scale` is above 1.
    negative_prompt: Option<String>,
    /// Strength of the guidance against the negative prompt; 1 is off, and above it each step takes
    /// twice as long.
    #[schema(minimum = 0, maximum = 100, default = 1.0)]
    true_cfg_scale: Option<f32>,
    /// Strength of the distilled guidance. Default: the model's.
    #[schema(minimum = 0, maximum = 100)]
    guidance_scale: Option<f32>,
    /// Denoising steps. Default: the model's.
    #[schema(minimum = 1, maximum = 1000)]
    num_inference_steps: Option<u32>,
    /// Seed of the noise: the same request with the same seed gives the same image. Default: a random
    /// one below 2^32, which the job then says.
    seed: Option<u64>,
    /// Width of the image in pixels; only together with the height. Default: the model chooses.
    #[schema(minimum = 16, maximum = 4096)]
    width: Option<u32>,
    /// Height of the image in pixels.
    #[schema(minimum = 16, maximum = 4096)]
    height: Option<u32>,
    /// Width to height, as in `3:2`, from 1:8 to 8:1, where no size is given. Default: that of the
    /// first picture.
    aspect_ratio: Option<String>,
    /// Tokens of the prompt that the model reads at most. Default: the model's.
    #[schema(minimum = 1, maximum = 512)]
    max_sequence_length: Option<usize>,
    /// Where several pictures stand for the model: side by side (`offset`, which is the default and
    /// what the released Kontext understands), or each at an index of its own (`index`).
    reference_method: Option<String>,
    /// Shortens steps that hardly differ from the one before, by up to half of the time; the larger,
    /// the more of them and the further from the exact result. About 0.1 is a fair choice, 0 is off.
    #[schema(minimum = 0, maximum = 1, default = 0.0)]
    step_cache: Option<f32>,
    /// Adapters of `/api/loras`, at most 8, whose effects add up. In a form: the field once for each, as
    /// `NAME` or `NAME=SCALE`, or once with this list as JSON.
    loras: Option<Vec<LoraUse>>,
    /// The name of a style of `/api/styles`, as `sepia`, whose prompt stands before the own one.
    style: Option<String>,
    /// The name of the model that must run. Default: whichever runs.
    model: Option<String>,
    /// The format in which the image is given where nobody asks for another. Default: `png`.
    output_format: Option<Format>,
    /// Who waits for it. Default: `interactive`.
    priority: Option<Priority>,
    /// Keep nothing of it: the image is only in the server's memory, and can be fetched once, for a
    /// limited time.
    #[schema(default = false)]
    ephemeral: Option<bool>,
}

/// An edit as a form.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the document is made from it; `form` reads requests")]
struct EditForm {
    /// The picture to edit, and further ones to refer to: PNG, JPEG or WebP files. Their names are
    /// not looked at.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    image: Option<Vec<Vec<u8>>>,
    #[serde(flatten)]
    fields: EditFields,
}

/// An edit as JSON.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the document is made from it; `json` reads requests")]
struct EditJson {
    image: Option<Pictures>,
    #[serde(flatten)]
    fields: EditFields,
}

/// The picture to edit, or a list of it and further ones to refer to. Each is a PNG, JPEG or WebP
/// file in base64, or a `data:` URL with that. Addresses are not fetched.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "the document is made from it; `json` reads requests")]
enum Pictures {
    One(String),
    Several(Vec<String>),
}

/// How the body says what to do.
enum Kind {
    Form,
    Json,
}

/// Submit an edit
///
/// Takes pictures and what to do with them, as a form or as JSON, and gives a job, which runs when
/// its turn comes. Watch it at its `events_url`, or ask for it again at its address.
///
/// With the header `Idempotency-Key` a request may be repeated: the first one with a key makes the
/// job, and each later one is answered with that job, status 200 and the header
/// `Idempotency-Replayed: true`, for as long as jobs are kept.
#[utoipa::path(
    post,
    path = "/api/edits",
    tag = "edits",
    params(
        ("idempotency-key" = Option<String>, Header, min_length = 1, max_length = 255,
            description = "Any text of your choice that no other request has."),
    ),
    request_body(content(
        (EditForm = "multipart/form-data"),
        (EditJson = "application/json"),
    )),
    responses(
        (status = 202, description = "The job, which waits now.", body = Job,
            headers(("location" = String, description = "The job's address."))),
        (status = 200, description = "The job of an earlier request with the same key.", body = Job,
            headers(
                ("location" = String, description = "The job's address."),
                ("idempotency-replayed" = String, description = "`true`."),
            )),
        (status = 400, description = "`invalid_json`, `invalid_multipart`.", body = ErrorBody),
        (status = 408, description = "`request_timeout`.", body = ErrorBody),
        (status = 410, body = ErrorBody,
            description = "`job_deleted`: the job of the idempotency key was deleted."),
        (status = 413, description = "`body_too_large`.", body = ErrorBody),
        (status = 415, description = "`unsupported_media_type`, `unsupported_image`.",
            body = ErrorBody),
        (status = 422, body = ErrorBody,
            description = "`invalid_parameter`, `unknown_field`, `mask_not_supported`, \
                           `too_many_images`, `broken_image`, `image_too_large`, `style_not_found`, \
                           `model_not_found`, `too_many_tokens`, `too_much_memory`, \
                           `idempotency_mismatch`."),
        (status = 429, description = "`queue_full`.", body = ErrorBody,
            headers(("retry-after" = u64, description = "Seconds until there may be a place."))),
        (status = 500, description = "`store_failed`, `internal`.", body = ErrorBody),
        (status = 503, description = "`input_memory_full`, `draining`, `engine_down`.",
            body = ErrorBody,
            headers(("retry-after" = u64,
                description = "Seconds; not where the model does not run."))),
    ),
)]
async fn submit_edit(
    State(app): State<App>,
    Caller(owner): Caller,
    _: NoParams,
    request: Request,
) -> Result<Response, ApiError> {
    let kind = kind(request.headers())?;
    let key = key(request.headers())?;
    let room = app.service.room()?;
    let edit = match kind {
        Kind::Form => form::read(request, &app.service).await?,
        Kind::Json => json::read(request.into_body(), &app.service).await?,
    };
    let Edit { draft, model, mut terms, pictures, .. } = edit;
    terms.idempotency_key = key;
    let submitted = app.service.submit(owner, room, draft, model, terms, pictures).await?;
    Ok(taken(&submitted))
}

fn kind(headers: &HeaderMap) -> Result<Kind, ApiError> {
    let named = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = named.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "multipart/form-data" => Ok(Kind::Form),
        "application/json" => Ok(Kind::Json),
        other => {
            let message = format!(
                "the content type is \"{}\", send multipart/form-data or application/json",
                shown(other)
            );
            Err(ApiError::new(Code::UnsupportedMediaType, message).field("content-type"))
        }
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ParamError> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let text = key.to_str().map_err(|_| {
        ParamError::new("idempotency-key", "not ASCII", "send 1 to 255 letters, digits and signs")
    })?;
    Ok(Some(text.to_owned()))
}

fn taken(Submitted { job, replayed }: &Submitted) -> Response {
    let address = [(LOCATION, format!("/api/jobs/{}", job.id))];
    let job = Json(Job::from(job));
    if *replayed {
        (address, [("idempotency-replayed", "true")], job).into_response()
    } else {
        (StatusCode::ACCEPTED, address, job).into_response()
    }
}
