//! Launches the kernels of `../cuda` on a GPU.
//!
//! Every function checks the sizes, allocates its output on the stream and returns when the work is
//! queued there. The arithmetic is f32 inside, whatever the type of the numbers, and a row's result
//! does not depend on the rows beside it.

use crate::quant::Format;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, CudaView, DeviceRepr,
    DriverError, LaunchConfig, PushKernelArg,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Threads of every block, as `../cuda/common.cuh` has it.
const THREADS: usize = 256;
/// Threads of a warp.
const WARP: usize = 32;

/// A type that numbers have on a GPU.
pub trait Number: DeviceRepr {
    /// The end of the names of its kernels.
    const NAME: &'static str;
}

impl Number for f32 {
    const NAME: &'static str = "f32";
}

impl Number for half::f16 {
    const NAME: &'static str = "f16";
}

impl Number for half::bf16 {
    const NAME: &'static str = "bf16";
}

/// Why nothing was launched.
#[derive(Debug)]
pub enum LaunchError {
    /// The driver refused.
    Driver(DriverError),
    /// The sizes do not fit each other, or are more than a launch takes.
    Sizes(String),
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Driver(error) => write!(f, "CUDA: {error}"),
            Self::Sizes(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Driver(error) => Some(error),
            Self::Sizes(_) => None,
        }
    }
}

impl From<DriverError> for LaunchError {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

fn expect(fits: bool, what: impl FnOnce() -> String) -> Result<(), LaunchError> {
    if fits { Ok(()) } else { Err(LaunchError::Sizes(what())) }
}

/// A size as a kernel takes it, or as a grid does.
fn small(size: usize, what: &str) -> Result<u32, LaunchError> {
    // A grid's first dimension ends at 2^31 - 1, and nothing else comes near.
    let fits = u32::try_from(size).ok().filter(|&size| size <= i32::MAX as u32);
    fits.ok_or_else(|| LaunchError::Sizes(format!("{size} {what} are more than a launch takes")))
}

fn grid(blocks: usize) -> Result<LaunchConfig, LaunchError> {
    let grid_dim = (small(blocks, "blocks")?, 1, 1);
    Ok(LaunchConfig { grid_dim, block_dim: (THREADS as u32, 1, 1), shared_mem_bytes: 0 })
}

/// The files of `../cuda`, compiled to PTX by the build script.
#[derive(Clone, Copy)]
enum File {
    Dequantise,
    Norm,
    Rope,
}

impl File {
    fn ptx(self) -> &'static str {
        match self {
            Self::Dequantise => include_str!(concat!(env!("OUT_DIR"), "/dequantise.ptx")),
            Self::Norm => include_str!(concat!(env!("OUT_DIR"), "/norm.ptx")),
            Self::Rope => include_str!(concat!(env!("OUT_DIR"), "/rope.ptx")),
        }
    }
}

/// The modules that a context has loaded: the driver compiles the PTX for the GPU that is there, once
/// for each context.
struct Loaded {
    context: Arc<CudaContext>,
    modules: [Option<Arc<CudaModule>>; 3],
}

static LOADED: Mutex<Vec<Loaded>> = Mutex::new(Vec::new());

fn function(stream: &CudaStream, file: File, name: &str) -> Result<CudaFunction, LaunchError> {
    let context = stream.context();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let found = loaded.iter().position(|loaded| Arc::ptr_eq(&loaded.context, context));
    let at = found.unwrap_or_else(|| {
        // A device that was opened anew has a context of its own; what the old one loaded may go.
        loaded.retain(|loaded| loaded.context.ordinal() != context.ordinal());
        loaded.push(Loaded { context: context.clone(), modules: [const { None }; 3] });
        loaded.len() - 1
    });
    let slot = &mut loaded[at].modules[file as usize];
    let module = match slot {
        Some(module) => module.clone(),
        None => slot.insert(context.load_module(file.ptx().into())?).clone(),
    };
    Ok(module.load_function(name)?)
}

/// `LayerNorm(x) * (1 + scale[seq]) + shift[seq]`: `x` `[rows, c]`, `shift` and `scale`
/// `[sequences, c]` -> `[rows, c]`. `seq_of_row` `[rows]` names each row's sequence; one that is not
/// there counts as the last, as nobody on this side sees the numbers.
///
/// # Errors
/// Where a size does not fit, or the driver fails.
pub fn layer_norm_modulate<T: Number>(
    stream: &Arc<CudaStream>,
    x: &CudaView<'_, T>,
    c: usize,
    eps: f32,
    shift: &CudaView<'_, T>,
    scale: &CudaView<'_, T>,
    seq_of_row: &CudaView<'_, u32>,
) -> Result<CudaSlice<T>, LaunchError> {
    let rows = seq_of_row.len();
    expect(rows.checked_mul(c) == Some(x.len()), || {
        format!("{} numbers in {rows} rows of {c}", x.len())
    })?;
    let sequences = shift.len().checked_div(c).unwrap_or(0);
    let whole = sequences * c == shift.len() && shift.len() == scale.len();
    expect(x.is_empty() || (whole && sequences > 0), || {
        format!("{} shifts and {} scales of {c}", shift.len(), scale.len())
    })?;
    // SAFETY: the kernel below writes every number, and nothing reads them before it ran.
    let mut y = unsafe { stream.alloc::<T>(x.len())? };
    if x.is_empty() {
        return Ok(y);
    }
    let kernel = function(stream, File::Norm, &format!("layer_norm_modulate_{}", T::NAME))?;
    let (width, sequences) = (small(c, "channels")?, small(sequences, "sequences")?);
    let config = grid(rows)?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(x).arg(shift).arg(scale).arg(seq_of_row).arg(&sequences).arg(&width).arg(&eps);
    launch.arg(&mut y);
    // SAFETY: the arguments are those of the kernel's signature, x and y hold a row for each block,
    // and the kernel goes to no sequence beyond the last.
    unsafe { launch.launch(config)? };
    Ok(y)
}

/// RMSNorm of each head, times `weight`, then the rotation of interleaved pairs. `x`
/// `[rows, heads * dim]`, `weight` `[dim]`, `cos` and `sin` `[rows, dim / 2]` -> as `x`.
///
/// # Errors
/// Where a size does not fit, or the driver fails.
pub fn rms_norm_rope<T: Number>(
    stream: &Arc<CudaStream>,
    x: &CudaView<'_, T>,
    heads: usize,
    eps: f32,
    weight: &CudaView<'_, f32>,
    cos: &CudaView<'_, f32>,
    sin: &CudaView<'_, f32>,
) -> Result<CudaSlice<T>, LaunchError> {
    let dim = weight.len();
    let width = heads.saturating_mul(dim);
    expect(width > 0 && dim.is_multiple_of(2) && x.len().is_multiple_of(width), || {
        format!("{} numbers in {heads} heads of {dim}", x.len())
    })?;
    let angles = x.len() / width * (dim / 2);
    expect(cos.len() == angles && sin.len() == angles, || {
        format!("{} cosines and {} sines for {angles} pairs", cos.len(), sin.len())
    })?;
    // SAFETY: the kernel below writes every number, and nothing reads them before it ran.
    let mut y = unsafe { stream.alloc::<T>(x.len())? };
    if x.is_empty() {
        return Ok(y);
    }
    let kernel = function(stream, File::Rope, &format!("rms_norm_rope_{}", T::NAME))?;
    let items = x.len() / dim;
    let (count, heads, dim) = (items as u64, small(heads, "heads")?, small(dim, "channels")?);
    let config = grid(items.div_ceil(THREADS / WARP))?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(x).arg(weight).arg(cos).arg(sin).arg(&count).arg(&heads).arg(&dim);
    launch.arg(&eps).arg(&mut y);
    // SAFETY: the arguments are those of the kernel's signature and of the sizes checked above, and
    // warps beyond `count` touch nothing.
    unsafe { launch.launch(config)? };
    Ok(y)
}

/// The weights `[n, k]` that `bytes` holds in `format`, times `scale`: none, one, or one for each row.
///
/// # Errors
/// Where a size does not fit, or the driver fails.
pub fn dequantise<T: Number>(
    stream: &Arc<CudaStream>,
    format: Format,
    n: usize,
    k: usize,
    bytes: &CudaView<'_, u8>,
    scale: Option<&CudaView<'_, f32>>,
) -> Result<CudaSlice<T>, LaunchError> {
    let size = format.row_bytes(k).and_then(|row| row.checked_mul(n));
    let len = n.checked_mul(k).filter(|_| size == Some(bytes.len())).ok_or_else(|| {
        LaunchError::Sizes(format!("{} bytes for [{n}, {k}] in {}", bytes.len(), format.name()))
    })?;
    let scales = scale.map_or(1, CudaView::len);
    expect(scales == 1 || scales == n, || format!("{scales} scales for {n} rows"))?;
    // SAFETY: the kernel below writes every number, and nothing reads them before it ran.
    let mut y = unsafe { stream.alloc::<T>(len)? };
    if len == 0 {
        return Ok(y);
    }
    let name = format!("dequantise_{}_{}", format.name(), T::NAME);
    let kernel = function(stream, File::Dequantise, &name)?;
    let (step, width, count, none) = (u32::from(scales > 1), k as u64, len as u64, 0u64);
    let config = grid(len.div_ceil(THREADS))?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(bytes);
    match scale {
        Some(scale) => launch.arg(scale),
        None => launch.arg(&none), // the null pointer
    };
    launch.arg(&step).arg(&width).arg(&count).arg(&mut y);
    // SAFETY: the arguments are those of the kernel's signature and of the sizes checked above, and
    // threads beyond `count` touch nothing.
    unsafe { launch.launch(config)? };
    Ok(y)
}
