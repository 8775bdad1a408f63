//! `darkroom repair`: a store whose database does not open becomes readable again.

use super::{AppError, serve::store_options};
use crate::{
    config::Settings,
    store::{SalvageReport, salvage},
};

/// Repairs the store that the settings name. One that opens is not changed, beyond what opening
/// repairs.
///
/// # Errors
/// [`AppError::NoStore`] where there is none, [`AppError::Store`] where it is in use or the disk fails.
pub fn repair(settings: &Settings) -> Result<SalvageReport, AppError> {
    let folder = &settings.store.path;
    // Opening would make one.
    if !folder.is_dir() {
        return Err(AppError::NoStore(folder.clone()));
    }
    Ok(salvage(&store_options(settings))?)
}
