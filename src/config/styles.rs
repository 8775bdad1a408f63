//! Style presets, `models/styles.toml`: names that stand for prompts.

use super::{ConfigError, read};
use serde::Deserialize;
use std::path::Path;

/// The presets, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Styles {
    #[serde(rename = "style")]
    styles: Vec<Style>,
}

/// One preset.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Style {
    /// What a person types: lower case, digits and hyphens.
    pub name: String,
    /// What a person reads.
    pub title: String,
    /// What it does, in a sentence.
    pub description: String,
    /// The prompt that it stands for.
    pub prompt: String,
}

impl Styles {
    /// Reads the presets.
    ///
    /// # Errors
    /// [`ConfigError`] with file and key where a value is missing, repeated or out of range.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let styles: Self = read(path)?;
        let wrong = |reason: String| ConfigError::Value { path: path.to_owned(), reason };
        for (i, style) in styles.styles.iter().enumerate() {
            let name = &style.name;
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if name.is_empty() || name.len() > 40 || !name.bytes().all(plain) {
                return Err(wrong(format!(
                    "style.name is {name:?}, expected 1 to 40 lower-case letters, digits and hyphens"
                )));
            }
            if styles.styles[..i].iter().any(|other| other.name == *name) {
                return Err(wrong(format!("style {name:?} is there twice")));
            }
            if style.prompt.trim().is_empty() {
                return Err(wrong(format!("style {name:?} has an empty prompt")));
            }
        }
        Ok(styles)
    }

    /// The preset called `name`.
    ///
    /// # Errors
    /// [`ConfigError::Unknown`], which lists all names.
    pub fn get(&self, name: &str) -> Result<&Style, ConfigError> {
        let known = || self.styles.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        self.styles.iter().find(|style| style.name == name).ok_or_else(|| ConfigError::Unknown {
            kind: "style",
            name: name.to_owned(),
            known: known(),
        })
    }

    /// All presets.
    pub fn iter(&self) -> impl Iterator<Item = &Style> {
        self.styles.iter()
    }
}
