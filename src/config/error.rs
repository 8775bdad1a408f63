//! What can be wrong with a configuration file, or with a variable that stands for one.

use std::path::PathBuf;

/// Why a configuration could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A key or value in it cannot be used.
    #[error("{}: {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Key, value and what is allowed.
        reason: String,
    },
    /// A setting cannot be used.
    #[error("{place}: {reason}")]
    Setting {
        /// The file and its line, or the variable of the environment.
        place: String,
        /// Key, value and what is allowed.
        reason: String,
    },
    /// A name that the file does not hold.
    #[error("{kind} {name:?} is not known, expected one of: {known}")]
    Unknown {
        /// What the name is for.
        kind: &'static str,
        /// The name.
        name: String,
        /// All names, separated by commas.
        known: String,
    },
}
