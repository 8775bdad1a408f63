//! What files of the operator say, typed and checked: model manifests and style presets.
//!
//! Reading happens here and nowhere else; whoever uses a value can rely on its range.

mod error;
mod manifest;
mod styles;

pub use error::ConfigError;
pub use manifest::{Component, Components, Defaults, Manifest, Preview, ReferenceSize, Sizing};
pub use styles::{Style, Styles};

use serde::de::DeserializeOwned;
use std::path::Path;

/// The largest file that is read as a configuration, in bytes.
const MAX_FILE: u64 = 1 << 20;

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let io = |source| ConfigError::Io { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_FILE {
        let reason = format!("it has {size} bytes, at most {MAX_FILE} are read");
        return Err(ConfigError::Value { path: path.to_owned(), reason });
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    parse(path, &text)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        let line = line.map(|n| format!("line {n}: ")).unwrap_or_default();
        // One line: the crate's own text draws the place below it.
        let reason = format!("{line}{}", error.message().replace('\n', ", "));
        ConfigError::Value { path: path.to_owned(), reason }
    })
}
