//! What the operator says, typed and checked: settings, model manifests and style presets.
//!
//! Reading happens here and nowhere else; whoever uses a value can rely on its range.

mod error;
mod manifest;
mod settings;
mod styles;
mod variant;

pub use error::ConfigError;
pub use manifest::{
    Component, Components, Defaults, FILE, Manifest, Preview, ReferenceSize, Sizing,
};
pub use settings::{
    Blobs, JobSettings, LimitSettings, MemorySettings, ModelSettings, OutboundSettings,
    SchedulerSettings, ServerSettings, Settings, StoreSettings, TlsMode, TlsSettings, units,
};
pub use styles::{Style, Styles};
pub use variant::{Part, Source, Variant, is_repository, is_revision};

use serde::de::DeserializeOwned;
use std::path::Path;

/// The largest file that is read as a configuration, in bytes.
const MAX_FILE: u64 = 1 << 20;

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse(path, &read_text(path)?)
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let io = |source| ConfigError::Io { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_FILE {
        let reason = format!("it has {size} bytes, at most {MAX_FILE} are read");
        return Err(ConfigError::Value { path: path.to_owned(), reason });
    }
    std::fs::read_to_string(path).map_err(io)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| syntax(path, text, &error))
}

/// What the TOML parser refuses, on one line: the crate's own text draws the place below it.
fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let line = error.span().map(|span| format!("line {}: ", line_of(text, span.start)));
    let reason = format!("{}{}", line.unwrap_or_default(), error.message().replace('\n', ", "));
    ConfigError::Value { path: path.to_owned(), reason }
}

/// The line of an offset, counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
