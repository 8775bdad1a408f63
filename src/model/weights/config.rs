//! A component's config.json, read field by field with errors that name field, value and what is
//! allowed.

use super::super::error::LoadError;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// No number in a configuration is larger: a size above it is a mistake or an attack.
const MAX: u64 = 1 << 20;

/// An open config.json.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    json: Value,
}

impl ConfigFile {
    /// Reads `path`.
    ///
    /// # Errors
    /// [`LoadError::Io`], or [`LoadError::Config`] where it is not a JSON object.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoadError::Io { path: path.to_owned(), source })?;
        let json: Value = serde_json::from_str(&text).map_err(|error| LoadError::Config {
            path: path.to_owned(),
            reason: format!("not valid JSON: {error}"),
        })?;
        let file = Self { path: path.to_owned(), json };
        if file.json.is_object() { Ok(file) } else { Err(file.wrong("a JSON object is expected")) }
    }

    /// A configuration that is in no file of its own; errors name `path`, which it belongs to.
    pub(super) fn new(path: &Path, json: Value) -> Self {
        Self { path: path.to_owned(), json }
    }

    /// The scheduler of the released model, for a model in `folder` that comes without one.
    ///
    /// # Errors
    /// None in a build whose tests passed: the text is part of the program.
    pub fn released_scheduler(folder: &Path) -> Result<Self, LoadError> {
        super::released::released(folder, "scheduler")
    }

    /// An error about this file.
    #[must_use]
    pub fn wrong(&self, reason: impl Into<String>) -> LoadError {
        LoadError::Config { path: self.path.clone(), reason: reason.into() }
    }

    /// The whole file, for a reader that brings its own types.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.json
    }

    fn field(&self, name: &str) -> Option<&Value> {
        self.json.get(name).filter(|value| !value.is_null())
    }

    fn bad(&self, name: &str, expected: &str) -> LoadError {
        let found = self.json.get(name).map_or("missing".to_owned(), ToString::to_string);
        self.wrong(format!("field {name} is {found}, expected {expected}"))
    }

    /// A whole number from 1 to 2^20.
    ///
    /// # Errors
    /// [`LoadError::Config`] where it is missing or out of range.
    pub fn size(&self, name: &str) -> Result<usize, LoadError> {
        let value = self.field(name).and_then(Value::as_u64).filter(|n| (1..=MAX).contains(n));
        value.map(|n| n as usize).ok_or_else(|| self.bad(name, "a whole number from 1 to 1048576"))
    }

    /// As [`ConfigFile::size`], with a value for a field that is absent or null.
    ///
    /// # Errors
    /// [`LoadError::Config`] where it is out of range.
    pub fn size_or(&self, name: &str, default: usize) -> Result<usize, LoadError> {
        if self.field(name).is_none() { Ok(default) } else { self.size(name) }
    }

    /// A list of sizes.
    ///
    /// # Errors
    /// [`LoadError::Config`] where it is missing, empty, longer than 16 or holds anything else.
    pub fn sizes(&self, name: &str) -> Result<Vec<usize>, LoadError> {
        let list = self.field(name).and_then(Value::as_array);
        let list = list.filter(|items| (1..=16).contains(&items.len()));
        let sizes = list.and_then(|items| {
            let size = |v: &Value| v.as_u64().filter(|n| (1..=MAX).contains(n)).map(|n| n as usize);
            items.iter().map(size).collect()
        });
        sizes.ok_or_else(|| self.bad(name, "a list of 1 to 16 whole numbers from 1 to 1048576"))
    }

    /// A finite number, with a value for a field that is absent or null.
    ///
    /// # Errors
    /// [`LoadError::Config`] where it is something else.
    pub fn number_or(&self, name: &str, default: f64) -> Result<f64, LoadError> {
        let Some(value) = self.field(name) else { return Ok(default) };
        value.as_f64().filter(|x| x.is_finite()).ok_or_else(|| self.bad(name, "a number"))
    }

    /// True or false, with a value for a field that is absent or null.
    ///
    /// # Errors
    /// [`LoadError::Config`] where it is something else.
    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool, LoadError> {
        let Some(value) = self.field(name) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.bad(name, "true or false"))
    }

    /// Refuses every value of a field but one of `allowed`; an absent field passes.
    ///
    /// # Errors
    /// [`LoadError::Config`] where another value is there.
    pub fn must_be(&self, name: &str, allowed: &[&str]) -> Result<(), LoadError> {
        let fits = |value: &Value| {
            value.as_str().map_or_else(
                || allowed.contains(&value.to_string().as_str()),
                |text| allowed.contains(&text),
            )
        };
        let ok = self.field(name).is_none_or(fits);
        if ok { Ok(()) } else { Err(self.bad(name, &allowed.join(" or "))) }
    }
}
