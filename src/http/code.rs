//! Every code that an error of the API can have, in one table: the text, the HTTP status, and when
//! it is given. Documentation and tests print this table; nothing else states a code's status.
//!
//! A code is a promise to clients: rows may be added, but a text never changes its meaning.

use axum::http::StatusCode;

macro_rules! codes {
    ($($name:ident, $text:literal, $status:ident, $when:literal;)*) => {
        /// What is wrong, as a client's program sees it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = concat!("`", $text, "`: ", $when, ".")] $name,)*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The row of the table: text, status, and when it is given.
            const fn row(self) -> (&'static str, StatusCode, &'static str) {
                match self {
                    $(Self::$name => ($text, StatusCode::$status, $when),)*
                }
            }
        }
    };
}

codes! {
    BadRequest, "bad_request", BAD_REQUEST, "the request cannot be understood";
    InvalidJson, "invalid_json", BAD_REQUEST, "the body is not JSON";
    InvalidMultipart, "invalid_multipart", BAD_REQUEST, "the body is not multipart form data";
    ForeignOrigin, "foreign_origin", FORBIDDEN, "a page of another site made the request";
    NotFound, "not_found", NOT_FOUND, "there is nothing at this address";
    MethodNotAllowed, "method_not_allowed", METHOD_NOT_ALLOWED, "the address has no such method";
    RequestTimeout, "request_timeout", REQUEST_TIMEOUT, "the body stopped arriving";
    ResultTaken, "result_taken", GONE, "the result was given out once and not kept";
    ImageLost, "image_lost", GONE, "the file of the picture is gone from the disk";
    JobDeleted, "job_deleted", GONE, "the job of the idempotency key was deleted";
    BodyTooLarge, "body_too_large", PAYLOAD_TOO_LARGE, "the body has more bytes than allowed";
    UnsupportedMediaType, "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE,
        "the request's content type is not accepted here";
    UnsupportedImage, "unsupported_image", UNSUPPORTED_MEDIA_TYPE,
        "the picture's format is not accepted";
    ForeignHost, "foreign_host", MISDIRECTED_REQUEST,
        "the request names a host that this server is not";
    MissingField, "missing_field", UNPROCESSABLE_ENTITY, "a required field is absent";
    InvalidParameter, "invalid_parameter", UNPROCESSABLE_ENTITY,
        "a field has a value that is not allowed";
    UnknownField, "unknown_field", UNPROCESSABLE_ENTITY, "a field is not known";
    InvalidCursor, "invalid_cursor", UNPROCESSABLE_ENTITY, "the cursor is none that a page gave";
    BrokenImage, "broken_image", UNPROCESSABLE_ENTITY, "the picture cannot be decoded";
    ImageTooLarge, "image_too_large", UNPROCESSABLE_ENTITY,
        "the picture has more pixels than allowed";
    TooManyImages, "too_many_images", UNPROCESSABLE_ENTITY,
        "the request has more pictures than allowed";
    MaskNotSupported, "mask_not_supported", UNPROCESSABLE_ENTITY, "the model takes no mask";
    ModelNotFound, "model_not_found", UNPROCESSABLE_ENTITY, "the model is not installed";
    StyleNotFound, "style_not_found", UNPROCESSABLE_ENTITY, "the style is not known";
    TooManyTokens, "too_many_tokens", UNPROCESSABLE_ENTITY, "the job is larger than a batch";
    TooMuchMemory, "too_much_memory", UNPROCESSABLE_ENTITY,
        "the job would take more memory than there is";
    IdempotencyMismatch, "idempotency_mismatch", UNPROCESSABLE_ENTITY,
        "the idempotency key belongs to another request";
    QueueFull, "queue_full", TOO_MANY_REQUESTS, "the queue has no place";
    Internal, "internal", INTERNAL_SERVER_ERROR, "the server failed";
    StoreFailed, "store_failed", INTERNAL_SERVER_ERROR, "the store failed";
    InputMemoryFull, "input_memory_full", SERVICE_UNAVAILABLE,
        "the memory for pictures of all requests is in use";
    Draining, "draining", SERVICE_UNAVAILABLE, "the server is stopping";
    EngineDown, "engine_down", SERVICE_UNAVAILABLE, "the model does not run";
}

impl Code {
    /// The text that clients see.
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The status of its response.
    pub const fn status(self) -> StatusCode {
        self.row().1
    }

    /// When it is given.
    pub const fn when(self) -> &'static str {
        self.row().2
    }

    /// The general code of a status, for an error that says no more than that.
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNPROCESSABLE_ENTITY => Self::InvalidParameter,
            _ if status.is_server_error() => Self::Internal,
            _ => [
                Self::NotFound,
                Self::MethodNotAllowed,
                Self::RequestTimeout,
                Self::BodyTooLarge,
                Self::UnsupportedMediaType,
            ]
            .into_iter()
            .find(|code| code.status() == status)
            .unwrap_or(Self::BadRequest),
        }
    }
}
