//! Where the weights of a part lie: a folder of its own, or a file, in which there may be more.

use super::{files::Mapped, names};
use crate::model::error::LoadError;
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// A network of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// FLUX's transformer.
    Transformer,
    /// The autoencoder.
    Vae,
    /// CLIP's text encoder.
    Clip,
    /// T5's encoder.
    T5,
}

/// The weights of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// A folder in the layout of diffusers, or a file of any kind that is read.
    pub path: PathBuf,
    /// Which part to take.
    pub part: Part,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Transformer, Self::Vae, Self::Clip, Self::T5];

    /// Its name in a manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Transformer => "transformer",
            Self::Vae => "vae",
            Self::Clip => "text_encoder",
            Self::T5 => "text_encoder_2",
        }
    }

    /// The name of its file in a folder, without what follows the dot.
    pub(super) fn stem(self) -> &'static str {
        match self {
            Self::Transformer | Self::Vae => "diffusion_pytorch_model",
            Self::Clip | Self::T5 => "model",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Source {
    /// The weights of `part` in the folder or file `path`.
    pub fn new(path: impl Into<PathBuf>, part: Part) -> Self {
        Self { path: path.into(), part }
    }
}

/// The parts that a file holds, told by the names of its tensors. A file of something else holds
/// none.
///
/// # Errors
/// [`LoadError::Io`], [`LoadError::Format`].
pub fn parts_of(file: &Path) -> Result<Vec<Part>, LoadError> {
    let (_, header) = Mapped::open(file)?;
    let names = header.tensors.iter().map(|tensor| tensor.name.as_str());
    let mut parts: Vec<Part> = names::parts(names).into_iter().map(|naming| naming.part).collect();
    parts.sort_unstable();
    Ok(parts)
}
