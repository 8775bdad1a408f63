//! The handlers of images that are kept: lists, what is known of one, its file, deletion.
//!
//! They read requests and write answers; whose image it is, and whether there is one, is the
//! service's to say.

use super::{
    ApiError, Code,
    error::ErrorBody,
    extract::{self, Path, Query},
    moment::parse_time,
    params::{NoParams, Params, shown},
    state::{App, Caller},
    wire::Image,
};
use crate::{
    domain::{ObjectId, SecretBytes},
    service::{ImageQuery, OutputFormat, Rendition, ServiceError},
};
use axum::{
    Json,
    body::Body,
    extract::{State, rejection::JsonRejection},
    http::{
        Method, StatusCode,
        header::{ALLOW, CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use std::collections::BTreeMap;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// What a time may look like.
const TIMES: &str = "expected a time as in 2026-01-31T13:45:00Z or a date as in 2026-01-31";

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(get, remove))
        .routes(routes!(content))
        .routes(routes!(remove_many))
}

/// A page of images.
#[derive(Debug, Serialize, ToSchema)]
struct ImagePage {
    /// The images, newest first. With a filter a page may hold fewer than asked for, even none, and
    /// still have a next one.
    images: Vec<Image>,
    /// What to send as `cursor` for the next page; null where there is none.
    #[schema(required = true)]
    next: Option<String>,
}

/// List images
///
/// The images that are kept, newest first, in pages. A cursor names a place between two images, so
/// that pages neither repeat nor leave out one when images come or go meanwhile. Filters are applied
/// while records are read: a page may hold fewer images than `limit` and still have a next one.
#[utoipa::path(
    get,
    path = "/api/images",
    operation_id = "list_images",
    tag = "images",
    params(
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 200,
            description = "Images on the page. Default: 50."),
        ("cursor" = Option<String>, Query, description = "The `next` of the page before."),
        ("style" = Option<String>, Query, description = "Only images of this style."),
        ("q" = Option<String>, Query,
            description = "Only images whose prompt, negative prompt or style holds this text, in \
                           whatever case."),
        ("from" = Option<String>, Query, example = "2026-01-31",
            description = "Only images made at this moment or later: RFC 3339, or a date, which is \
                           its first moment in UTC."),
        ("until" = Option<String>, Query, example = "2026-02-01T00:00:00Z",
            description = "Only images made before this moment."),
    ),
    responses(
        (status = 200, description = "A page of images.", body = ImagePage),
        (status = 422, body = ErrorBody,
            description = "`unknown_field`, `invalid_parameter`, `invalid_cursor`."),
        (status = 500, description = "`store_failed`, `internal`.", body = ErrorBody),
    ),
)]
async fn list(
    State(app): State<App>,
    Caller(owner): Caller,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Json<ImagePage>, ApiError> {
    let known = ["limit", "cursor", "style", "q", "from", "until"];
    let mut params = Params::of(pairs, &known)?;
    let query = ImageQuery {
        limit: params.parse("limit", "expected 1 to 200")?,
        cursor: params.text("cursor"),
        style: params.text("style"),
        text: params.text("q"),
        from: params.read("from", TIMES, parse_time)?,
        until: params.read("until", TIMES, parse_time)?,
    };
    let page = app.service.images(owner, query).await?;
    let images = page.images.iter().map(Image::from).collect();
    Ok(Json(ImagePage { images, next: page.next }))
}

/// Get what is known of an image
///
/// Its parameters, seed, model, times, and of its inputs format, size and bytes. Never their pixels or
/// names, which are not kept.
#[utoipa::path(
    get,
    path = "/api/images/{id}",
    operation_id = "get_image",
    tag = "images",
    params(("id" = String, Path, description = "The image.")),
    responses(
        (status = 200, description = "The image.", body = Image),
        (status = 404, description = "`not_found`: there is no such image.", body = ErrorBody),
        (status = 422, description = "`unknown_field`.", body = ErrorBody),
        (status = 500, description = "`store_failed`, `internal`.", body = ErrorBody),
    ),
)]
async fn get(
    State(app): State<App>,
    Caller(owner): Caller,
    Path(id): Path<String>,
    _: NoParams,
) -> Result<Json<Image>, ApiError> {
    let view = app.service.image(owner, extract::id(&id, "image")?).await?;
    Ok(Json(Image::from(&view)))
}

/// Get an image's file
///
/// Without parameters it comes in the `output_format` of its request. As a PNG of its full width it
/// is the file that is kept, byte by byte. The image of an ephemeral job is given once.
#[utoipa::path(
    get,
    path = "/api/images/{id}/content",
    operation_id = "get_image_content",
    tag = "images",
    params(
        ("id" = String, Path, description = "The image."),
        ("format" = Option<super::wire::Format>, Query,
            description = "The format of the file. Default: the request's `output_format`."),
        ("quality" = Option<u8>, Query, minimum = 1, maximum = 100,
            description = "Quality of JPEG (default: 95) and WebP (default: 90); a PNG has none."),
        ("width" = Option<u32>, Query, minimum = 16, maximum = 4096,
            description = "Width in pixels; the height follows. An image is made smaller, never \
                           larger. Default: its own width."),
    ),
    responses(
        (status = 200, description = "The file, named after the image's id.", content(
            (inline(File) = "image/png"),
            (inline(File) = "image/jpeg"),
            (inline(File) = "image/webp"),
        )),
        (status = 404, description = "`not_found`: there is no such image.", body = ErrorBody),
        (status = 405, body = ErrorBody,
            description = "`method_not_allowed`: a HEAD would take the image of an ephemeral job."),
        (status = 410, body = ErrorBody,
            description = "`image_lost`: the file is gone or damaged on the server's disk; \
                           `result_taken`: the image of an ephemeral job was fetched before."),
        (status = 422, description = "`unknown_field`, `invalid_parameter`.", body = ErrorBody),
        (status = 500, description = "`store_failed`, `internal`.", body = ErrorBody),
    ),
)]
async fn content(
    State(app): State<App>,
    Caller(owner): Caller,
    method: Method,
    Path(id): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, ApiError> {
    let id = extract::id(&id, "image")?;
    if method == Method::HEAD {
        // axum runs this handler for HEAD, too, and drops what it gives.
        let message = "HEAD is not a method of this address, see the header allow";
        let error = ApiError::new(Code::MethodNotAllowed, message);
        return Ok(([(ALLOW, "GET")], error).into_response());
    }
    let mut params = Params::of(pairs, &["format", "quality", "width"])?;
    let rendition = Rendition {
        format: params.parse::<OutputFormat>("format", "expected png, jpeg or webp")?,
        quality: params.parse("quality", "expected 1 to 100")?,
        width: params.parse("width", "expected 16 to 4096 pixels")?,
    };
    let content = app.service.content(owner, id, rendition).await?;
    let name = format!("inline; filename=\"{id}.{}\"", content.format.extension());
    let headers = [(CONTENT_TYPE, content.format.mime().to_owned()), (CONTENT_DISPOSITION, name)];
    let body = Body::from(Bytes::from_owner(Sent(content.bytes)));
    Ok((headers, body).into_response())
}

/// A file's bytes, in the document.
enum File {}

impl PartialSchema for File {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for File {}

/// A file that is zeroed when the network is done with it.
struct Sent(SecretBytes);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Delete an image
///
/// With the record of its job. What is deleted cannot be brought back.
#[utoipa::path(
    delete,
    path = "/api/images/{id}",
    operation_id = "delete_image",
    tag = "images",
    params(("id" = String, Path, description = "The image.")),
    responses(
        (status = 204, description = "It is deleted."),
        (status = 404, description = "`not_found`: there is no such image.", body = ErrorBody),
        (status = 422, description = "`unknown_field`.", body = ErrorBody),
        (status = 500, description = "`store_failed`, `internal`.", body = ErrorBody),
    ),
)]
async fn remove(
    State(app): State<App>,
    Caller(owner): Caller,
    Path(id): Path<String>,
    _: NoParams,
) -> Result<StatusCode, ApiError> {
    let deleted = app.service.delete_images(owner, vec![extract::id(&id, "image")?]).await?;
    if deleted.is_empty() {
        return Err(ServiceError::NotFound { what: "image" }.into());
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Images to delete.
#[derive(Debug, Deserialize, ToSchema)]
struct Deletion {
    /// Their ids, at most 1000.
    #[schema(required = true, nullable = false, max_items = 1000)]
    ids: Option<Vec<String>>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: BTreeMap<String, IgnoredAny>,
}

/// Images that are deleted.
#[derive(Debug, Serialize, ToSchema)]
struct Deleted {
    /// The ids of those that were there.
    deleted: Vec<String>,
}

/// Delete images
///
/// All of them with the records of their jobs, in one write: either all that are there are deleted, or
/// none. Ids of images that are not there are passed over.
#[utoipa::path(
    post,
    path = "/api/images/delete",
    operation_id = "delete_images",
    tag = "images",
    request_body = Deletion,
    responses(
        (status = 200, description = "They are deleted.", body = Deleted),
        (status = 400, description = "`invalid_json`: the body is not JSON.", body = ErrorBody),
        (status = 415, body = ErrorBody,
            description = "`unsupported_media_type`: the content type is not `application/json`."),
        (status = 422, body = ErrorBody,
            description = "`missing_field`, `unknown_field`, `invalid_parameter`: an id is none, or \
                           there are too many."),
        (status = 500, description = "`store_failed`, `internal`.", body = ErrorBody),
    ),
)]
async fn remove_many(
    State(app): State<App>,
    Caller(owner): Caller,
    _: NoParams,
    body: Result<Json<Deletion>, JsonRejection>,
) -> Result<Json<Deleted>, ApiError> {
    let Json(Deletion { ids, unknown }) = body.map_err(|rejection| refused(&rejection))?;
    if let Some(name) = unknown.keys().next() {
        let message = format!("the field {} is not known, expected ids", shown(name));
        return Err(ApiError::new(Code::UnknownField, message).field(shown(name)));
    }
    let missing = || {
        let message = "ids is missing, send a list of the images to delete";
        ApiError::new(Code::MissingField, message).field("ids")
    };
    let ids = ids.ok_or_else(missing)?;
    let parse = |(number, id): (usize, &String)| {
        id.parse::<ObjectId>().map_err(|error| {
            let message = format!("ids[{number}] is \"{}\", {error}", shown(id));
            ApiError::new(Code::InvalidParameter, message).field("ids")
        })
    };
    let ids = ids.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
    let deleted = app.service.delete_images(owner, ids).await?;
    Ok(Json(Deleted { deleted: deleted.iter().map(ToString::to_string).collect() }))
}

/// What axum says of a body that is not the JSON that is expected.
fn refused(rejection: &JsonRejection) -> ApiError {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => ApiError::new(
            Code::UnsupportedMediaType,
            "the body's content type is not application/json, send JSON and say so",
        ),
        JsonRejection::JsonSyntaxError(_) => {
            ApiError::new(Code::InvalidJson, "the body is not JSON, send {\"ids\": [...]}")
        }
        JsonRejection::JsonDataError(_) => {
            let message = "ids is not a list of texts, send {\"ids\": [...]}";
            ApiError::new(Code::InvalidParameter, message).field("ids")
        }
        _ => ApiError::new(Code::BadRequest, "the body did not arrive whole, send it again"),
    }
}
