//! Why the service could not do as asked. Stable codes; how they look on a wire is `http`'s.

use super::DraftError;
use crate::{imaging::ImagingError, scheduler::SubmitError, store::StoreError};
use std::time::Duration;

/// Why the service could not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The edit as it was asked for is none.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// The scheduler does not take it.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A picture cannot be used.
    #[error("picture {number}: {source}")]
    Picture {
        /// Which one, from 1.
        number: usize,
        /// Why.
        source: ImagingError,
    },
    /// More pictures than one job may have.
    #[error("there are {count} pictures; one job takes at most {limit}")]
    TooManyPictures {
        /// How many there are.
        count: usize,
        /// How many may be there.
        limit: usize,
    },
    /// The memory for inputs is taken.
    #[error(
        "the server holds as many inputs as it may: {needed} bytes more are needed, {free} of \
         {limit} are free; try again when other jobs have ended"
    )]
    InputMemory {
        /// Bytes that it would take.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes in all.
        limit: u64,
    },
    /// Another model than the one that runs was asked for.
    #[error("model {name:?} does not run here; this server runs {running:?}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// What runs.
        running: String,
    },
    /// A parameter of a request about what is stored.
    #[error(transparent)]
    Param(#[from] crate::domain::ParamError),
    /// A cursor that no page gave.
    #[error("cursor is none of ours, send the `next` of the page before")]
    Cursor,
    /// The result cannot be written as asked.
    #[error(transparent)]
    Rendition(ImagingError),
    /// No such thing, or not this owner's.
    #[error("there is no {what} with this id")]
    NotFound {
        /// What was looked for: `job` or `image`.
        what: &'static str,
    },
    /// The result of an ephemeral job was fetched before, or waited too long.
    #[error(
        "the result of an ephemeral job can be fetched once, for a limited time; this one is gone"
    )]
    Taken,
    /// The job that an idempotency key stands for was deleted.
    #[error("the job of this idempotency key was deleted; use a new key")]
    Deleted,
    /// An idempotency key came with another request than before.
    #[error("this idempotency key was used for another request; use a new key")]
    KeyReused,
    /// A stored picture's file is gone or damaged.
    #[error("the image is damaged or lost on the server's disk")]
    Lost(#[source] StoreError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// A part of the server ended before its answer: it is stopping, or has a fault.
    #[error("the server could not finish the request")]
    Broken,
}

impl ServiceError {
    /// Its stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Draft(DraftError::Style(_)) => "style_not_found",
            Self::Draft(DraftError::Param(_)) | Self::Param(_) | Self::Rendition(_) => {
                "invalid_parameter"
            }
            Self::Draft(DraftError::Random(_)) | Self::Broken => "internal",
            Self::Submit(error) => error.code(),
            Self::Picture { source, .. } => match source {
                ImagingError::Empty
                | ImagingError::UnknownFormat
                | ImagingError::ForeignFormat { .. }
                | ImagingError::Unsupported { .. } => "unsupported_image",
                ImagingError::TooLarge { .. } | ImagingError::TooLong { .. } => "image_too_large",
                _ => "broken_image",
            },
            Self::TooManyPictures { .. } => "too_many_images",
            Self::InputMemory { .. } => "input_memory_full",
            Self::UnknownModel { .. } => "model_not_found",
            Self::Cursor => "invalid_cursor",
            Self::NotFound { .. } => "not_found",
            Self::Taken => "result_taken",
            Self::Deleted => "job_deleted",
            Self::KeyReused => "idempotency_mismatch",
            Self::Lost(_) => "image_lost",
            Self::Store(_) => "store_failed",
        }
    }

    /// The field of the request that it is about.
    #[must_use]
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Draft(DraftError::Param(error)) | Self::Param(error) => Some(error.field),
            Self::Submit(SubmitError::Param(error)) => Some(error.field),
            Self::Draft(DraftError::Style(_)) => Some("style"),
            Self::Picture { .. } | Self::TooManyPictures { .. } => Some("image"),
            Self::UnknownModel { .. } => Some("model"),
            Self::Cursor => Some("cursor"),
            Self::KeyReused | Self::Deleted => Some("idempotency-key"),
            Self::Rendition(ImagingError::Quality { .. }) => Some("quality"),
            Self::Rendition(_) => Some("format"),
            _ => None,
        }
    }

    /// When the same request may succeed, if waiting is what helps.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        /// Where nothing was measured yet.
        const SOON: Duration = Duration::from_secs(5);
        match self {
            Self::Submit(SubmitError::QueueFull { retry_after, .. }) => {
                Some(retry_after.unwrap_or(SOON))
            }
            Self::Submit(SubmitError::Draining) | Self::InputMemory { .. } => Some(SOON),
            _ => None,
        }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Lost { .. } | StoreError::Damaged { .. } => Self::Lost(error),
            error => Self::Store(error),
        }
    }
}
