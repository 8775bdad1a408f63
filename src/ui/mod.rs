//! The web pages that are built into the program: a table of files, served as they are.
//!
//! `http` mounts [`router`] beside the API, and its layers add the security headers. Nothing here
//! reads a disk, knows who asks, or lets a page name another origin: the pages run under a policy
//! that allows the server's own files alone, so no file holds an inline script or style.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

/// Where `/` leads.
const START: &str = "/docs";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of a page.
#[derive(Debug)]
struct Asset {
    path: &'static str,
    content_type: &'static str,
    body: &'static [u8],
}

const ASSETS: &[Asset] = &[
    asset("/docs", HTML, include_bytes!("assets/docs/index.html")),
    asset("/docs/api.css", CSS, include_bytes!("assets/docs/api.css")),
    asset("/docs/api.js", SCRIPT, include_bytes!("assets/docs/api.js")),
    asset("/docs/dom.js", SCRIPT, include_bytes!("assets/docs/dom.js")),
    asset("/docs/openapi.js", SCRIPT, include_bytes!("assets/docs/openapi.js")),
    asset("/docs/try.js", SCRIPT, include_bytes!("assets/docs/try.js")),
    asset("/favicon.svg", SVG, include_bytes!("assets/icon.svg")),
];

const fn asset(path: &'static str, content_type: &'static str, body: &'static [u8]) -> Asset {
    Asset { path, content_type, body }
}

/// The routes of all pages and of their files, and `/`, which leads to the first page.
///
/// A browser may keep a file but asks each time whether it is still the same, so that a page and
/// its scripts are always of one version.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let start = Router::new().route("/", get(async || Redirect::temporary(START)));
    ASSETS.iter().fold(start, |router, asset| {
        let tag = tag(asset.body);
        let handler = async move |headers: HeaderMap| answer(asset, tag, &headers);
        router.route(asset.path, get(handler))
    })
}

/// What names a version of a file. It is weak, as a layer above may compress the same file.
fn tag(body: &[u8]) -> HeaderValue {
    let text = format!("W/\"{:x}\"", Sha256::digest(body));
    HeaderValue::try_from(text).expect("hexadecimal digits and quotes may stand in a header")
}

/// The file, or word that the browser's copy is still good.
fn answer(asset: &'static Asset, tag: HeaderValue, headers: &HeaderMap) -> Response {
    let known = headers.get_all(IF_NONE_MATCH).iter().any(|known| names(known, &tag));
    let of_version: [(HeaderName, HeaderValue); 2] =
        [(ETAG, tag), (CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    if known {
        return (StatusCode::NOT_MODIFIED, of_version).into_response();
    }
    (of_version, [(CONTENT_TYPE, asset.content_type)], asset.body).into_response()
}

/// Whether a value of If-None-Match lists `tag` or stands for any.
fn names(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else {
        return false;
    };
    known.split(',').map(bare).any(|one| one == "*" || one == bare(tag))
}

/// A tag without the mark of a weak one: a copy is good whichever kind names it.
fn bare(tag: &str) -> &str {
    tag.trim().trim_start_matches("W/")
}
