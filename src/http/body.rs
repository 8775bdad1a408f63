//! Limits on the body of a request: how large it is, and how long it may stand still.
//!
//! Whether the body has a length or comes in chunks, no more than the limit of it is ever read. What
//! a handler makes of a body that was cut does not matter: the answer says why it was.

use super::{ApiError, Code};
use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tower_http::timeout::{TimeoutBody, TimeoutError};

/// The limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The most bytes of a body.
    pub(super) max_body: u64,
    /// How long a body may bring no byte while a handler waits for one.
    pub(super) idle: Duration,
}

/// Why a body was cut.
#[derive(Clone, Copy, Debug)]
enum Cut {
    TooLarge,
    Stalled,
}

impl Cut {
    fn error(self, limits: Limits) -> ApiError {
        let Limits { max_body, idle } = limits;
        match self {
            Self::TooLarge => ApiError::new(
                Code::BodyTooLarge,
                format!("the body has more than the {max_body} bytes that server.max_body allows"),
            ),
            Self::Stalled => ApiError::new(
                Code::RequestTimeout,
                format!("no byte of the body came for {idle:?}, send the request again"),
            ),
        }
    }
}

/// The layer.
pub(super) async fn limit(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > limits.max_body {
        return Cut::TooLarge.error(limits).into_response();
    }
    let cut = Arc::new(OnceLock::new());
    let seen = cut.clone();
    let response = next.run(request.map(|body| watched(body, limits, seen))).await;
    match cut.get().copied() {
        Some(cut) => Cut::error(cut, limits).into_response(),
        None => response,
    }
}

/// `body`, which ends with an error where a limit is reached, and says in `cut` which.
fn watched(body: Body, limits: Limits, cut: Arc<OnceLock<Cut>>) -> Body {
    let most = usize::try_from(limits.max_body).unwrap_or(usize::MAX);
    let body = TimeoutBody::new(limits.idle, Limited::new(body, most));
    Body::new(body.map_err(move |error| {
        if error.is::<LengthLimitError>() {
            cut.get_or_init(|| Cut::TooLarge);
        } else if error.is::<TimeoutError>() {
            cut.get_or_init(|| Cut::Stalled);
        }
        error
    }))
}
