//! Why a file is no adapter for a model.

use crate::model::LoadError;

/// What is wrong with an adapter's file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// It cannot be read, or is not safetensors.
    #[error(transparent)]
    File(#[from] LoadError),
    /// It holds nothing.
    #[error("{file} holds no tensors")]
    Empty {
        /// The file.
        file: String,
    },
    /// It holds tensors for which there is no layer or no meaning.
    #[error("{file}: {count} tensors fit no layer of this model: {names}")]
    Unknown {
        /// The file.
        file: String,
        /// How many.
        count: usize,
        /// The first few names.
        names: String,
    },
    /// It changes a network that cannot be changed.
    #[error("{file}: {count} tensors change the T5 text encoder, which is not supported: {names}")]
    TextEncoder {
        /// The file.
        file: String,
        /// How many.
        count: usize,
        /// The first few names.
        names: String,
    },
    /// Two names say the same of the same layer.
    #[error("{file}: tensors {first} and {second} are for the same layer")]
    Twice {
        /// The file.
        file: String,
        /// A tensor.
        first: String,
        /// Another one.
        second: String,
    },
    /// What it holds for a layer is not what any kind of adapter has.
    #[error("{file}: the tensors of {layer} are no whole adapter: {found}")]
    Incomplete {
        /// The file.
        file: String,
        /// The layer, as the file calls it.
        layer: String,
        /// What is there.
        found: String,
    },
    /// A tensor does not fit its layer, or another tensor of it.
    #[error("{file}: tensor {tensor} has shape {found:?}, expected {expected}")]
    Shape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// What would fit.
        expected: String,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor holds something that is no number.
    #[error("{file}: tensor {tensor} holds NaN or infinity")]
    NotFinite {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// The settings that the writer left in the file cannot be read.
    #[error("{file}: its lora_adapter_metadata cannot be used: {reason}")]
    Metadata {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
}
