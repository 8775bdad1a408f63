//! axum's extractors of paths and queries, with errors in the API's shape. Handlers take these and
//! not axum's.

use super::{ApiError, Code};
use crate::{domain::ObjectId, service::ServiceError};
use axum::{
    extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

/// The captured parts of the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match AxumPath::from_request_parts(parts, state).await {
            Ok(AxumPath(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(ApiError::new(Code::BadRequest, sentence(&rejection.body_text())))
            }
        }
    }
}

/// The query, into a structure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match AxumQuery::from_request_parts(parts, state).await {
            Ok(AxumQuery(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(ApiError::new(Code::InvalidParameter, sentence(&rejection.body_text())))
            }
        }
    }
}

/// The id of a `what` in a path. A text that is no id names none.
///
/// # Errors
/// There is none of that name.
pub(super) fn id(text: &str, what: &'static str) -> Result<ObjectId, ApiError> {
    text.parse().map_err(|_| ServiceError::NotFound { what }.into())
}

/// axum's text in the style of ours: lower case at its start.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
