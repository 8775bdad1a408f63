//! What can go wrong between a folder of weights and a tensor, told so that a person can mend it.

use std::path::PathBuf;

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file or folder could not be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A component has no weights where they are expected.
    #[error(
        "no weights in {}: expected {expected} or {expected}.index.json with its shards",
        folder.display()
    )]
    NoWeights {
        /// The component's folder.
        folder: PathBuf,
        /// The file name that was looked for.
        expected: String,
    },
    /// A weights file is not valid: truncated, its header lies, or it is of another kind.
    #[error("{} is not a valid {kind} file: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it was read as: safetensors, GGUF, or weights where its first bytes say neither.
        kind: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file does not hold the part of a model that it is named for.
    #[error(
        "{}: no tensors of a FLUX model's {part} are in it (parts in it: {held}); name the file \
         that has them in the model's manifest",
        path.display()
    )]
    NoPart {
        /// The file.
        path: PathBuf,
        /// The part that was looked for.
        part: &'static str,
        /// The parts that it holds.
        held: String,
    },
    /// A tensor that holds several matrices cannot be cut into them.
    #[error(
        "{}: tensor {tensor} has shape {found:?}, which cannot be cut into rows of {holds}",
        path.display()
    )]
    Fused {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The matrix that it should hold.
        holds: String,
    },
    /// A scale of 8-bit floats is none that is known.
    #[error("{}: {tensor} should hold {expected}, found {found}", path.display())]
    Scale {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What is read.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A shard index does not say what it must.
    #[error("{}: {reason}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the configuration calls for is not there.
    #[error("{}: tensor {tensor} is missing, expected shape {expected:?}", path.display())]
    Missing {
        /// The file, or the folder where there are several files.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// The shape that config.json implies.
        expected: Vec<usize>,
    },
    /// A tensor has another shape than the configuration implies.
    #[error(
        "{}: tensor {tensor} has shape {found:?}, but config.json implies {expected:?}",
        path.display()
    )]
    Shape {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// The shape that config.json implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor's type is none that can be computed with.
    #[error(
        "{}: tensor {tensor} has type {found}, expected {expected}",
        path.display()
    )]
    Type {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// The type in the file.
        found: String,
        /// The types that are read there.
        expected: &'static str,
    },
    /// The files hold tensors that the configuration has no place for.
    #[error(
        "{}: {count} tensors have no place in the model that config.json describes: {names}",
        path.display()
    )]
    Surplus {
        /// The file, or the folder where there are several files.
        path: PathBuf,
        /// How many there are.
        count: usize,
        /// The first few names.
        names: String,
    },
    /// A quantised matrix cannot be computed with where it lies.
    #[error(
        "{}: tensor {tensor} of shape {shape:?} has rows that are no whole blocks of {format}",
        path.display()
    )]
    Blocks {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its format.
        format: &'static str,
    },
    /// A configuration file is not JSON, or a value in it cannot be used.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// Field, value and what is allowed.
        reason: String,
    },
    /// A tokenizer's files cannot be used.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The device refused an allocation or a copy.
    #[error("the device failed while loading: {0}")]
    Device(#[source] candle_core::Error),
}

impl From<candle_core::Error> for LoadError {
    fn from(error: candle_core::Error) -> Self {
        Self::Device(error)
    }
}
