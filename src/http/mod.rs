//! HTTP: the native API, and the edge that every request passes.
//!
//! `app` builds the [`router`] and starts the [`Server`]. Handlers parse, call `service` with the
//! owner that a request belongs to, and shape the answer; they decide nothing. What each layer of
//! the edge is for stands in its module, and their order in `server`.
//!
//! **Invariant:** no header, log line or error shows a prompt, a file's name or a pixel. Response
//! headers are those of a list; errors are [`ApiError`]s, whose causes are logged and not sent.
//! **Invariant:** nothing here opens a connection.

mod body;
mod code;
mod connection;
mod edits;
mod error;
mod events;
mod extract;
mod fields;
mod form;
mod guard;
mod headers;
mod images;
mod info;
mod jobs;
mod json;
mod loras;
mod moment;
mod openapi;
mod ops;
mod params;
mod server;
mod service_error;
mod state;
mod tls;
mod wire;

pub use code::Code;
pub use error::ApiError;
pub use server::{Refused, ServeError, Server, ServerOptions, layered};
pub use state::{App, Lora, Loras, Model, Running};
pub use tls::{Fingerprint, Tls, TlsError};

use crate::ui;
use axum::Router;

/// Every route: the API, its document, and the pages.
pub fn router(app: App) -> Router {
    let (api, document) = openapi::api();
    api.merge(openapi::document(&document)).merge(ui::router()).with_state(app)
}
