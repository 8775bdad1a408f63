//! Own kernels on a CUDA device: from candle's storages to the launches and back.

use super::RowMap;
use crate::model::weights::Stored;
use candle_core::{
    CudaStorage, DType, Error, Layout, Result, Shape, Storage, Tensor,
    backend::BackendStorage,
    bail,
    cuda::{
        CudaDType,
        cudarc::driver::{CudaSlice, CudaView},
    },
    op::BackpropOp,
};
use darkroom_kernels::cuda::{self, LaunchError, Number};
use half::{bf16, f16};

/// A tensor's storage, and which part of it the tensor is.
pub(super) type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// The numbers of a contiguous tensor.
fn numbers<'a, T: CudaDType>((storage, layout): Operand<'a>) -> Result<CudaView<'a, T>> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("a kernel was given a strided tensor of shape {:?}", layout.dims());
    };
    match storage.as_cuda_slice::<T>()?.try_slice(start..end) {
        Some(numbers) => Ok(numbers),
        None => bail!("a tensor of shape {:?} does not fit its storage", layout.dims()),
    }
}

/// Calls `task` with the numbers of a tensor that is on a GPU for certain.
fn with_numbers<T: CudaDType, U>(
    x: &Tensor,
    task: impl FnOnce(&CudaView<'_, T>) -> Result<U>,
) -> Result<U> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => task(&numbers((storage, layout))?),
        _ => bail!("a GPU kernel was given a tensor in host memory"),
    }
}

/// What a launch gives back to candle.
fn output<T: CudaDType>(
    like: &CudaStorage,
    y: std::result::Result<CudaSlice<T>, LaunchError>,
) -> Result<CudaStorage> {
    Ok(CudaStorage::wrap_cuda_slice(y.map_err(Error::wrap)?, like.device().clone()))
}

/// Calls a function that is generic over the type of numbers.
macro_rules! in_type {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            DType::F32 => $function::<f32>($($argument),*),
            DType::F16 => $function::<f16>($($argument),*),
            DType::BF16 => $function::<bf16>($($argument),*),
            other => bail!("there is no GPU kernel for numbers of type {}", other.as_str()),
        }
    };
}

/// [`cuda::layer_norm_modulate`]. x [rows, c]; shift and scale [sequences, c].
pub(super) fn layer_norm_modulate(
    x: Operand<'_>,
    eps: f32,
    [shift, scale]: [Operand<'_>; 2],
    rows: &RowMap,
) -> Result<(CudaStorage, Shape)> {
    fn run<T: CudaDType + Number>(
        x: Operand<'_>,
        eps: f32,
        shift: Operand<'_>,
        scale: Operand<'_>,
        rows: &Tensor,
    ) -> Result<CudaStorage> {
        let (c, stream) = (x.1.shape().dims2()?.1, x.0.device().cuda_stream());
        with_numbers(rows, |rows| {
            let (shift, scale) = (numbers(shift)?, numbers(scale)?);
            let x_ = numbers::<T>(x)?;
            output(x.0, cuda::layer_norm_modulate(&stream, &x_, c, eps, &shift, &scale, rows))
        })
    }
    let Some(on_device) = &rows.device else { bail!("a row map without its copy on the GPU") };
    let y = in_type!(x.0.dtype(), run(x, eps, shift, scale, on_device))?;
    Ok((y, x.1.shape().clone()))
}

/// [`cuda::rms_norm_rope`]. x [rows, heads * dim]; weight [dim]; cos and sin [rows, dim / 2].
pub(super) fn rms_norm_rope(
    x: Operand<'_>,
    eps: f32,
    weight: &Tensor,
    [cos, sin]: [Operand<'_>; 2],
) -> Result<(CudaStorage, Shape)> {
    fn run<T: CudaDType + Number>(
        x: Operand<'_>,
        eps: f32,
        weight: &Tensor,
        cos: Operand<'_>,
        sin: Operand<'_>,
    ) -> Result<CudaStorage> {
        let heads = x.1.shape().dims2()?.1 / weight.elem_count().max(1);
        let stream = x.0.device().cuda_stream();
        with_numbers(weight, |weight| {
            let (cos, sin) = (numbers(cos)?, numbers(sin)?);
            let y = cuda::rms_norm_rope(&stream, &numbers::<T>(x)?, heads, eps, weight, &cos, &sin);
            output(x.0, y)
        })
    }
    let y = in_type!(x.0.dtype(), run(x, eps, weight, cos, sin))?;
    Ok((y, x.1.shape().clone()))
}

/// [`cuda::dequantise`]: the matrix `weight` [n, k], whose bytes are on the GPU as `sent`, in `dtype`.
pub(super) fn dequantise(weight: &Stored, sent: &Tensor, dtype: DType) -> Result<Tensor> {
    fn run<T: CudaDType + Number>(weight: &Stored, sent: &Tensor) -> Result<CudaStorage> {
        let (storage, layout) = sent.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            bail!("a GPU kernel was given a tensor in host memory")
        };
        let (device, stream) = (storage.device(), storage.device().cuda_stream());
        let scales = weight.scales().map(|scales| device.clone_htod(scales)).transpose()?;
        let scales = scales.as_ref().map(CudaSlice::as_view);
        let bytes = numbers::<u8>((storage, layout))?;
        let (format, n, k) = (weight.format(), weight.n(), weight.k());
        output(storage, cuda::dequantise::<T>(&stream, format, n, k, &bytes, scales.as_ref()))
    }
    let y = in_type!(dtype, run(weight, sent))?;
    let shape = Shape::from((weight.n(), weight.k()));
    Ok(Tensor::from_storage(Storage::Cuda(y), shape, BackpropOp::none(), false))
}
