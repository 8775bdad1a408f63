//! The headers of responses: the security headers that all have, and the list of those that any may
//! have. What is not on the list is removed, so that no handler can tell by a header what a response
//! must not show: a prompt, a file's name, a library's version.

use axum::{
    extract::{Request, State},
    http::{
        Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, Version,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
            STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::Next,
    response::Response,
};
use tower_http::compression::{
    CompressionLayer,
    predicate::{And, Predicate, SizeAbove},
};

/// Every header that a response may have. hyper adds `date` and what frames the body after this.
const ALLOWED: &[&str] = &[
    "allow",
    "cache-control",
    "connection",
    "content-disposition",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "content-type",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "etag",
    "idempotency-replayed",
    "location",
    "referrer-policy",
    "retry-after",
    "strict-transport-security",
    "vary",
    "x-content-type-options",
    "x-request-id",
];

/// What a page may load: nothing but what this server has. Pictures may also come from memory.
const PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                    img-src 'self' blob: data:; connect-src 'self'; frame-ancestors 'none'; \
                    base-uri 'none'; form-action 'self'";
/// What anything else may do when a browser opens it as if it were a page.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// The smallest body worth compressing, in bytes.
const COMPRESS_FROM: u64 = 1024;
/// The kinds of text that are compressed. Events are not: they would wait in the compressor.
const TEXT: &[&str] =
    &["application/json", "text/css", "text/html", "text/javascript", "text/plain"];

/// The layer that dresses responses. `hsts` says to browsers: for a year, come by TLS only.
pub(super) async fn dress(State(hsts): State<bool>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let page = kind(headers) == Some("text/html");
    let mut set = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
    set(CONTENT_SECURITY_POLICY, if page { PAGE } else { NO_PAGE });
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if hsts {
        set(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    // A browser's cache is a disk, and pictures are to be on none that their owner does not know of.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let strange: Vec<_> =
        headers.keys().filter(|name| !ALLOWED.contains(&name.as_str())).cloned().collect();
    for name in strange {
        headers.remove(name);
    }
    response
}

/// The type of a body, without its parameters.
fn kind(headers: &HeaderMap) -> Option<&str> {
    let kind = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    kind.split(';').next().map(str::trim)
}

type IsText = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// The layer that compresses text for clients that accept gzip.
pub(super) fn compression() -> CompressionLayer<And<SizeAbove, IsText>> {
    let is_text: IsText = |_, _, headers, _| kind(headers).is_some_and(|kind| TEXT.contains(&kind));
    CompressionLayer::new().compress_when(SizeAbove::new(COMPRESS_FROM).and(is_text))
}
