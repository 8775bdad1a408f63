//! The composition root: the only module that sees all others. It finds models, picks the device,
//! and puts the parts together for whoever runs a command.

mod catalog;
mod device;
mod discover;
mod doctor;
mod editor;
mod fit;
mod machine;
mod models;
mod process;
mod repair;
mod serve;

pub use crate::{
    engine::{EngineError, Job, Progress},
    hub::{Event, Finding, Lock, Removed, Work},
    imaging::{ImagingError, OutputFormat},
    pipeline::Usual,
    service::{Draft, DraftError},
    store::SalvageReport,
};
use catalog::DEFAULT_MODEL;
pub use catalog::{Catalog, ModelEntry};
pub use device::Compute;
pub use doctor::{Check, State, examine};
pub use editor::{Edited, Editor, Stage};
pub use models::{Listed, ModelState, Plan, PullRequest, list, pull, removable, remove, verify};
pub use repair::repair;
pub use serve::{Notice, Report, serve};

use crate::{
    config::ConfigError,
    domain::{ParamError, Pixels},
    http::ServeError,
    hub::HubError,
    imaging,
    model::LoadError,
    pipeline::TooSmall,
    scheduler::StartError,
    store::StoreError,
};
use std::path::PathBuf;

/// Starts to write events to standard error; see `telemetry`.
pub fn start_log() {
    crate::telemetry::init();
}

/// Why a command could not get what it needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// A configuration file is wrong, or a name is not in it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model's files cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The model does not fit into the memory that it may have.
    #[error(transparent)]
    Memory(#[from] TooSmall),
    /// No folder with manifests was found.
    #[error(
        "no folder `models` with {DEFAULT_MODEL}.toml in {}, nor beside the program: run from the \
         project's folder, or name a model's folder with --model DIR",
        .0.display()
    )]
    NoCatalog(PathBuf),
    /// There is no model of that name, nor a folder.
    #[error("model {name:?} is not known: it is no folder, and the manifests are: {known}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// The models that have a manifest.
        known: String,
    },
    /// The model has a manifest but no files, or not all of them.
    #[error(
        "the files of model {name} are not all in {}: `darkroom pull {name}` gets them, or name \
         another folder with --model DIR",
        folder.display()
    )]
    NotInstalled {
        /// The model.
        name: String,
        /// Where its files should be.
        folder: PathBuf,
    },
    /// The manifest does not say where the model comes from.
    #[error("model {0} is pulled from nowhere: its manifest has no [source]")]
    NoSource(String),
    /// The model is part of Darkroom.
    #[error("model {0} comes with Darkroom and is not removed")]
    Shipped(String),
    /// A repository's name is none.
    #[error("{0:?} is no repository, expected OWNER/REPO or OWNER/REPO@REVISION")]
    NoRepository(String),
    /// A repository would lie where another model does.
    #[error("{repo} would be called {name}, which is another model's name here")]
    NameTaken {
        /// The name.
        name: String,
        /// The repository.
        repo: String,
    },
    /// The model has no such variant.
    #[error("model {name} has no variant {variant:?}, but: {known}")]
    UnknownVariant {
        /// The model.
        name: String,
        /// What was asked for.
        variant: String,
        /// Its variants.
        known: String,
    },
    /// A model could not be pulled, checked or removed.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A folder without a manifest does not hold a part.
    #[error(
        "no {part} in {}: expected a folder {part} in the layout of diffusers, or a file of \
         safetensors or GGUF that holds it",
        folder.display()
    )]
    NoPart {
        /// The model's folder.
        folder: PathBuf,
        /// The part, as manifests call it.
        part: &'static str,
    },
    /// A folder without a manifest holds a part several times.
    #[error(
        "several files in {} hold the {part}: {files}; name one of them in a manifest beside the \
         folder, NAME.toml",
        folder.display()
    )]
    Ambiguous {
        /// The model's folder.
        folder: PathBuf,
        /// The part, as manifests call it.
        part: &'static str,
        /// The files.
        files: String,
    },
    /// The device cannot be used.
    #[error("device {device} cannot be used: {reason}")]
    Device {
        /// What was asked for.
        device: String,
        /// Why not, and what would work.
        reason: String,
    },
    /// A name of a device or a precision is none.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// There is no store to repair.
    #[error("there is no store in {}: name its folder in store.path", .0.display())]
    NoStore(PathBuf),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The address or the certificate cannot be used.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The system refuses what a server needs.
    #[error("the server cannot run: {0}")]
    Runtime(#[source] std::io::Error),
    /// A file of the model cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Decodes a picture under the standing limits.
///
/// # Errors
/// [`ImagingError`] where the bytes are no picture that can be read in full.
pub fn decode(bytes: &[u8]) -> Result<Pixels, ImagingError> {
    imaging::decode(bytes, &imaging::Limits::default())
}

/// Encodes a result, without any metadata.
///
/// # Errors
/// [`ImagingError`] where the encoder fails.
pub fn encode(pixels: &Pixels, format: OutputFormat) -> Result<Vec<u8>, ImagingError> {
    imaging::encode(pixels, format, None)
}
