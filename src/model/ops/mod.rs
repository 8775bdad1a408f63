//! The operations that the model is written in, behind one seam.
//!
//! [`Ops::Own`] runs this project's CPU kernels, whose every row is computed in an order that
//! depends on that row alone: the same bytes alone or in a batch. [`Ops::Stock`] runs candle's
//! operations, for CUDA and Metal, with own kernels for CUDA where candle's would be slow or coarse
//! (`cuda`); it runs on a CPU too, which is how the tests hold it against the goldens. Model code
//! never asks which one it is.
//!
//! Layout: tokens are rows, `[rows, channels]`; pictures are channel-last, `[height, width,
//! channels]`. All tensors that enter are contiguous.

mod attention;
mod bands;
mod coded;
mod conv;
#[cfg(feature = "cuda")]
mod cuda;
mod delta;
#[cfg(feature = "flash-attn")]
mod flash;
mod linear;
mod norm;
mod pixels;

pub use attention::RelativeBias;
pub use bands::{Bands, UNIT};
pub use conv::{Conv2d, Form};
pub use darkroom_kernels::{Activation, Segment, give_back_large_buffers, instruction_set};
pub use delta::{Axis, DELTA_ROWS, Decomposed, Delta, DeltaForm, Deltas, Patches, Weighted};
pub use linear::Linear;
pub use norm::{GroupNorm, QkNorm, RmsNorm};
pub use pixels::PixelAttention;

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Tensor, bail};

/// Which implementation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ops {
    /// The kernels of this project; f32 on a CPU only.
    Own,
    /// candle's operations, on any device and in any type; on CUDA a few own kernels among them.
    Stock,
}

impl Ops {
    /// Whether an own kernel computes a norm of `x` with all that follows it.
    fn fused(self, x: &Tensor) -> bool {
        self == Ops::Own || (cfg!(feature = "cuda") && x.device().is_cuda())
    }
}

/// For each row of a packed matrix, the sequence that it belongs to.
#[derive(Clone, Debug)]
pub struct RowMap {
    host: Vec<u32>,
    /// The same numbers on the device, where the stock operations gather by them.
    device: Option<Tensor>,
}

impl RowMap {
    /// Wraps `sequence_of_row` for the given implementation and device.
    ///
    /// # Errors
    /// The device's refusal of an allocation.
    pub fn new(sequence_of_row: Vec<u32>, ops: Ops, device: &Device) -> Result<Self> {
        let device = match ops {
            Ops::Own => None,
            Ops::Stock => Some(Tensor::new(sequence_of_row.as_slice(), device)?),
        };
        Ok(Self { host: sequence_of_row, device })
    }

    /// The sequence of each row.
    #[must_use]
    pub fn sequences(&self) -> &[u32] {
        &self.host
    }

    /// Spreads `[sequences, c]` to `[rows, c]`.
    fn spread(&self, per_sequence: &Tensor) -> Result<Tensor> {
        match &self.device {
            Some(index) => per_sequence.index_select(index, 0),
            None => bail!("a row map for own kernels was given to a stock operation"),
        }
    }
}

/// The f32 values of a contiguous CPU tensor.
fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a kernel was given a strided tensor of shape {:?}", layout.dims());
    };
    match storage.as_slice::<f32>()?.get(start..end) {
        Some(values) => Ok(values),
        None => bail!("a tensor of shape {:?} does not fit its storage", layout.dims()),
    }
}

/// Rows and columns of a matrix.
fn matrix(layout: &Layout) -> Result<(usize, usize)> {
    match layout.dims() {
        [rows, columns] => Ok((*rows, *columns)),
        other => bail!("a matrix is expected, found shape {other:?}"),
    }
}

fn expect(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { bail!("{what} is {found}, expected {expected}") }
}

/// What a kernel gives back to candle.
fn output(values: Vec<f32>, shape: impl Into<Shape>) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(values), shape.into()))
}
