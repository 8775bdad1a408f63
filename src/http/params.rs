//! The parameters of a query string, by name: unknown, repeated and malformed ones are refused with
//! their names. Handlers of the native API read theirs through here.

use super::{ApiError, Code, extract::Query};
use crate::domain::ParamError;
use axum::{extract::FromRequestParts, http::request::Parts};
use std::{collections::BTreeMap, str::FromStr};

/// The longest part of a client's text that an error says again, in characters.
const SHOWN: usize = 40;

/// Parameters that are known, each at most once. One with an empty value, as forms send it, counts as
/// not given.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Sorts what a query holds.
    ///
    /// # Errors
    /// A name is none of `known`, or is there twice.
    pub(super) fn of(pairs: Vec<(String, String)>, known: &[&str]) -> Result<Self, ApiError> {
        let mut params = BTreeMap::new();
        for (name, value) in pairs {
            let shown = shown(&name);
            if !known.contains(&name.as_str()) {
                let here = if known.is_empty() {
                    "this address takes none".to_owned()
                } else {
                    format!("expected one of {}", known.join(", "))
                };
                let message = format!("the parameter {shown} is not known, {here}");
                return Err(ApiError::new(Code::UnknownField, message).field(shown));
            }
            if params.insert(name, value).is_some() {
                let message = format!("the parameter {shown} is given twice, send it once");
                return Err(ApiError::new(Code::InvalidParameter, message).field(shown));
            }
        }
        params.retain(|_, value| !value.is_empty());
        Ok(Self(params))
    }

    /// The text of a parameter.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// The value of a parameter; `allowed` says what can be read, as in `expected true or false`.
    ///
    /// # Errors
    /// Its text is no such value.
    pub(super) fn parse<T: FromStr>(
        &mut self,
        name: &'static str,
        allowed: &str,
    ) -> Result<Option<T>, ApiError> {
        self.read(name, allowed, |text| text.parse().ok())
    }

    /// As [`Params::parse`], for values that `read` reads.
    ///
    /// # Errors
    /// It gives none.
    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        allowed: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        let refused = || ParamError::new(name, format!("\"{}\"", shown(&text)), allowed);
        Ok(Some(read(&text).ok_or_else(refused)?))
    }
}

/// For addresses that take no parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoParams;

impl<S: Send + Sync> FromRequestParts<S> for NoParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::from_request_parts(parts, state).await?;
        Params::of(pairs, &[]).map(|_| Self)
    }
}

/// The beginning of a client's text, without control characters: fit to be said in an error.
pub(super) fn shown(text: &str) -> String {
    let start: String = text.chars().take(SHOWN).collect();
    let more = if start.len() < text.len() { "..." } else { "" };
    format!("{}{more}", start.escape_debug())
}
