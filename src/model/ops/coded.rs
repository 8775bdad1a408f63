//! A linear layer of candle's operations whose weights stay as their file has them, on the device or on
//! the host, and are unpacked for each product. The numbers are those of weights that were unpacked at
//! the start, so the results are too.

use crate::model::weights::{Placement, Stored, Target};
use candle_core::{DType, Device, Module, Result, Tensor};

/// The layer with its weights.
#[derive(Clone, Debug)]
pub(super) struct Coded {
    weight: Stored,
    /// The weights' bytes on the device, where they are to stay there.
    resident: Option<Tensor>,
    bias: Option<Tensor>,
    device: Device,
    dtype: DType,
}

impl Coded {
    /// A layer of `weight` [n, k] and `bias` [n].
    ///
    /// # Errors
    /// The device's refusal of an allocation.
    pub(super) fn new(
        weight: Stored,
        bias: Option<Tensor>,
        placement: Placement,
        target: &Target,
    ) -> Result<Self> {
        let (device, dtype) = (target.device.clone(), target.dtype);
        // Only CUDA has a kernel that unpacks: elsewhere a copy on the device would be of no use.
        let stays = placement == Placement::Stored && device.is_cuda();
        let resident = stays.then(|| bytes(&weight, &device)).transpose()?;
        Ok(Self { weight, resident, bias, device, dtype })
    }

    pub(super) fn weight(&self) -> &Stored {
        &self.weight
    }

    pub(super) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Bytes of its weights in the device's memory.
    pub(super) fn bytes(&self) -> usize {
        self.resident.as_ref().map_or(0, Tensor::elem_count)
    }

    /// `x` [rows, k] -> [rows, n]
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::Linear::new(self.unpacked()?, self.bias.clone()).forward(x)
    }

    /// The weights [n, k] in the type of computation.
    fn unpacked(&self) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if self.device.is_cuda() {
            let sent = match &self.resident {
                Some(resident) => resident.clone(),
                None => bytes(&self.weight, &self.device)?,
            };
            return super::cuda::dequantise(&self.weight, &sent, self.dtype);
        }
        let shape = (self.weight.n(), self.weight.k());
        Tensor::from_vec(self.weight.floats(), shape, &self.device)?.to_dtype(self.dtype)
    }
}

/// The weights' bytes on the device.
fn bytes(weight: &Stored, device: &Device) -> Result<Tensor> {
    let bytes = weight.bytes();
    Tensor::from_slice(bytes, bytes.len(), device)
}
