//! How the service's errors look on the wire: the one place where they become [`ApiError`]s.

use super::{ApiError, Code};
use crate::{domain::ParamError, service::ServiceError};

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let named = |code: &&Code| code.name() == error.code();
        // The table of codes has all of the service's; one that it lacks is the server's own fault.
        let code = Code::ALL.iter().find(named).copied().unwrap_or(Code::Internal);
        if code.status().is_server_error() && error.retry_after().is_none() {
            return match error {
                // Its own text says no more than the code does.
                ServiceError::Store(cause) => Self::failure(code, cause),
                ServiceError::Submit(_) => Self::new(code, error.to_string()),
                cause => Self::failure(code, cause),
            };
        }
        let told = Self::new(code, error.to_string());
        let told = match error.field() {
            Some(field) => told.field(field),
            None => told,
        };
        match error.retry_after() {
            Some(wait) => told.retry_after(wait),
            None => told,
        }
    }
}

impl From<ParamError> for ApiError {
    fn from(error: ParamError) -> Self {
        ServiceError::from(error).into()
    }
}
