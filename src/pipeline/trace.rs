//! The tensors of a run, for holding it against the reference.
//!
//! Names and shapes are those of the goldens: batch of one, pictures [1, 3, h, w], packed latents
//! [1, tokens, 64].

use candle_core::{DType, Device, Result, Tensor};
use std::{collections::HashMap, path::Path};

/// The tensors of one run under the goldens' names.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    tensors: HashMap<String, Tensor>,
}

impl Trace {
    /// The tensor called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Writes all of them to a safetensors file.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        candle_core::safetensors::save(&self.tensors, path)
    }

    fn keep(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        let tensor = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        self.tensors.insert(name.into(), tensor.unsqueeze(0)?.contiguous()?);
        Ok(())
    }

    /// Rows [n, c] -> [1, n, c].
    pub(super) fn rows(&mut self, name: impl Into<String>, rows: &Tensor) -> Result<()> {
        self.keep(name, rows)
    }

    /// A picture [h, w, 3] -> [1, 3, h, w].
    pub(super) fn picture(&mut self, name: impl Into<String>, picture: &Tensor) -> Result<()> {
        self.keep(name, &picture.permute((2, 0, 1))?)
    }

    /// Token ids -> i64 [1, n].
    pub(super) fn ids(&mut self, name: &str, ids: &[u32]) -> Result<()> {
        let ids: Vec<i64> = ids.iter().copied().map(i64::from).collect();
        let tensor = Tensor::from_vec(ids, (1, ()), &Device::Cpu)?;
        self.tensors.insert(name.to_owned(), tensor);
        Ok(())
    }

    /// Plain numbers of any shape, without a batch.
    pub(super) fn plain(&mut self, name: &str, tensor: Tensor) {
        self.tensors.insert(name.to_owned(), tensor);
    }
}
