//! Errors as clients see them: one shape, `{"error":{"code","message","field","request_id"}}`.
//!
//! Handlers and layers return [`ApiError`]. It travels to [`answer`] in an extension of its
//! response, since only that layer knows the request's id; there it becomes JSON, and what caused it
//! goes to the log. No response shows a cause, and no log line shows what a request said.

use super::{Code, Refused};
use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use std::{borrow::Cow, error::Error, panic::AssertUnwindSafe, sync::Arc, time::Duration};

/// The header with a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a person needs to find a request in the log: 128 random bits as 32 hexadecimal digits. It is
/// never the client's own, which could hold anything.
fn random_id() -> String {
    let mut bytes = [0; 16];
    // A system without random bytes gives ids that do not tell requests apart, and nothing else
    // rests on them.
    getrandom::fill(&mut bytes).ok();
    format!("{:032x}", u128::from_be_bytes(bytes))
}

/// An error to answer a request with.
#[derive(Clone, Debug)]
pub struct ApiError {
    code: Code,
    message: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl ApiError {
    /// An error that tells the client `message`: lower case, without full stop, with value and
    /// remedy.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), field: None, retry_after: None, cause: None }
    }

    /// A failure of the server itself. The client learns the code, the log `cause`, which must hold
    /// nothing that a request said.
    pub fn failure(code: Code, cause: impl Error + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(cause)), ..Self::new(code, code.when()) }
    }

    /// Names the field of the request that is at fault.
    #[must_use]
    pub fn field(self, field: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    /// Says when trying again may help, sent in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// Turns `response`, which carried this error, into what is sent. Headers that came with it stay:
    /// a 405 has its `allow`.
    fn render(self, mut response: Response, id: &str) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(request_id = id, code = self.code.name(), %cause, "a request failed");
        }
        let body = ErrorBody {
            error: ErrorDetail {
                code: self.code.name(),
                message: &self.message,
                field: self.field.as_deref(),
                request_id: id,
            },
        };
        *response.status_mut() = self.code.status();
        *response.body_mut() = Body::from(serde_json::to_vec(&body).unwrap_or_default());
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if matches!(self.code, Code::RequestTimeout | Code::BodyTooLarge) {
            // The rest of the body is not read, so no other request can follow it.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code.status(), Extension(self)).into_response()
    }
}

/// The body of every response with an error.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(super) struct ErrorBody<'a> {
    /// The error.
    error: ErrorDetail<'a>,
}

/// What is wrong.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(super) struct ErrorDetail<'a> {
    /// For programs: one of the documented codes.
    #[schema(value_type = String)]
    code: &'static str,
    /// For people.
    message: &'a str,
    /// The field of the request that is at fault, null where it is none.
    field: Option<&'a str>,
    /// The same as in the header `x-request-id`.
    request_id: &'a str,
}

/// The layer that gives a request its id and every error its shape, also those of the router, of
/// extractors, and of handlers that panic.
pub(super) async fn answer(
    State(refused): State<Refused>,
    request: Request,
    next: Next,
) -> Response {
    let id = random_id();
    // The panic's own text may quote the request, so nothing looks at it here.
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response =
        handled.unwrap_or_else(|_| ApiError::failure(Code::Internal, Panicked).into_response());
    if let Some(error) = response.extensions_mut().remove::<ApiError>().or_else(|| plain(&response))
    {
        (refused.0)(error.code);
        response = error.render(response, &id);
    }
    let value = HeaderValue::try_from(id).expect("digits are a header's value");
    response.headers_mut().insert(REQUEST_ID, value);
    response
}

/// A handler panicked.
#[derive(Debug, thiserror::Error)]
#[error("a handler panicked")]
struct Panicked;

/// The error of a response that says no more than its status: axum's own are plain text. JSON is
/// left alone, since the APIs of others have their own shapes.
fn plain(response: &Response) -> Option<ApiError> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if json || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let code = Code::of(status);
    Some(ApiError::new(code, code.when()))
}

/// The handler for addresses that no route has.
pub(super) async fn not_found() -> ApiError {
    ApiError::new(Code::NotFound, "there is nothing at this address")
}

/// The handler for methods that an address has not.
pub(super) async fn method_not_allowed(method: Method) -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        format!("{method} is not a method of this address, see the header allow"),
    )
}
