//! The linear layer: y = act(x w^T + b) over the rows of a packed matrix.
//!
//! On the CPU the weights are packed once, when they are loaded, or stay in their file as they lie
//! there, which gives the same bytes; on a GPU they are unpacked when they are loaded, or in each call
//! (`coded`). On the CPU every row goes through the same sequence of operations whatever
//! the number of rows. (The gemm crate behind candle's matmul
//! changes its path with that number, which would break equal bytes.)

use super::{Activation, Ops, Patches, coded::Coded, expect, matrix, output, values};
use crate::model::{
    error::LoadError,
    weights::{Placement, Stored, Target, Weights, is_plain},
};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Module, Result, Shape, Tensor, bail};
use darkroom_kernels::{Packed, quant};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A linear layer with its weights.
#[derive(Clone, Debug)]
pub struct Linear {
    name: String,
    inputs: usize,
    outputs: usize,
    inner: Inner,
    calls: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
enum Inner {
    Own { weight: Packed, bias: Option<Vec<f32>> },
    Stored { weight: Stored, bias: Option<Vec<f32>> },
    InBytes { weight: InBytes, bias: Option<Vec<f32>> },
    Stock(candle_nn::Linear),
    Coded(Box<Coded>),
}

impl Linear {
    /// Loads `weight` [n, k] and `bias` [n].
    ///
    /// # Errors
    /// A [`LoadError`] that names the tensor which is missing or misshapen.
    pub fn load(weights: &Weights, k: usize, n: usize) -> std::result::Result<Self, LoadError> {
        Self::build(weights, k, n, true)
    }

    /// Loads `weight` [n, k] and `bias` [n] for a layer that sees a row for each sequence: there bytes
    /// would take longer, and what it gives is for all tokens.
    ///
    /// # Errors
    /// As [`Linear::load`].
    pub fn load_exact(
        weights: &Weights,
        k: usize,
        n: usize,
    ) -> std::result::Result<Self, LoadError> {
        let mut linear = Self::load(weights, k, n)?;
        linear.inner = match linear.inner {
            Inner::InBytes { weight: InBytes(weight), bias } => Inner::Stored { weight, bias },
            other => other,
        };
        Ok(linear)
    }

    /// Loads `weight` [n, k].
    ///
    /// # Errors
    /// As [`Linear::load`].
    pub fn load_without_bias(
        weights: &Weights,
        k: usize,
        n: usize,
    ) -> std::result::Result<Self, LoadError> {
        Self::build(weights, k, n, false)
    }

    fn build(
        weights: &Weights,
        k: usize,
        n: usize,
        bias: bool,
    ) -> std::result::Result<Self, LoadError> {
        let (target, placement) = (weights.target(), weights.placement());
        let plain = weights.format("weight").is_none_or(is_plain);
        let inner = match target.ops {
            Ops::Own => {
                let bias = bias.then(|| weights.host("bias", &[n])).transpose()?;
                if plain && placement == Placement::Unpacked {
                    let weight =
                        weights.matrix("weight", n, k, |row| Packed::from_fn(n, k, row))?;
                    Inner::Own { weight, bias }
                } else {
                    let weight = weights.stored("weight", n, k)?;
                    if target.in_bytes && !plain {
                        Inner::InBytes { weight: InBytes(weight), bias }
                    } else {
                        Inner::Stored { weight, bias }
                    }
                }
            }
            Ops::Stock => {
                let unpacked = match placement {
                    Placement::Unpacked => true,
                    Placement::Stored => plain,
                    Placement::Streamed => false,
                };
                let bias = bias.then(|| weights.tensor("bias", &[n])).transpose()?;
                if unpacked {
                    let weight = weights.tensor("weight", &[n, k])?;
                    Inner::Stock(candle_nn::Linear::new(weight, bias))
                } else {
                    let weight = weights.stored("weight", n, k)?;
                    Inner::Coded(Box::new(Coded::new(weight, bias, placement, target)?))
                }
            }
        };
        let (name, calls) = (weights.path().to_owned(), target.linear_calls.clone());
        Ok(Self { name, inputs: k, outputs: n, inner, calls })
    }

    /// A layer of the weights `weight` [n, k], row by row, and `bias` [n]: one that belongs to an
    /// adapter. Its calls are not counted.
    ///
    /// # Errors
    /// Where the lengths do not fit, or the device fails.
    pub fn of(weight: &[f32], k: usize, bias: Option<&[f32]>, target: &Target) -> Result<Self> {
        let n = weight.len().checked_div(k).unwrap_or(0);
        expect("the numbers of a matrix", weight.len(), n * k)?;
        expect("the numbers of a bias", bias.map_or(n, <[f32]>::len), n)?;
        let inner = match target.ops {
            Ops::Own => {
                Inner::Own { weight: Packed::new(weight, n, k), bias: bias.map(<[f32]>::to_vec) }
            }
            Ops::Stock => {
                let tensor = |values: &[f32], shape: &[usize]| {
                    Tensor::from_slice(values, shape, &target.device)?.to_dtype(target.dtype)
                };
                let bias = bias.map(|bias| tensor(bias, &[n])).transpose()?;
                Inner::Stock(candle_nn::Linear::new(tensor(weight, &[n, k])?, bias))
            }
        };
        Ok(Self { name: String::new(), inputs: k, outputs: n, inner, calls: Arc::default() })
    }

    /// Its path in its network, as `transformer_blocks.0.attn.to_q`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The width of what goes in.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The width of what comes out.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Its weights in their file, where they are there.
    pub(in crate::model) fn stored(&self) -> Option<&Stored> {
        match &self.inner {
            Inner::Stored { weight, .. } => Some(weight),
            Inner::InBytes { weight: InBytes(weight), .. } => Some(weight),
            Inner::Coded(coded) => Some(coded.weight()),
            Inner::Own { .. } | Inner::Stock(_) => None,
        }
    }

    /// Bytes of its weights in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.inner {
            Inner::Own { weight, .. } => weight.bytes(),
            Inner::Stored { .. } | Inner::InBytes { .. } => 0, // of the file
            Inner::Coded(coded) => coded.bytes(),
            Inner::Stock(linear) => {
                linear.weight().elem_count() * linear.weight().dtype().size_in_bytes()
            }
        }
    }

    /// Hands its weights [n, k] to `use_row`, one row after another.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn rows(&self, mut use_row: impl FnMut(&[f32])) -> Result<()> {
        let mut row = vec![0.0; self.inputs];
        let mut each = |fill: &dyn Fn(usize, &mut [f32])| {
            for i in 0..self.outputs {
                fill(i, &mut row);
                use_row(&row);
            }
        };
        let stored = |weight: &Stored, i, row: &mut [f32]| {
            weight.row(i, row);
        };
        match &self.inner {
            Inner::Own { weight, .. } => each(&|i, row| weight.row(i, row)),
            Inner::Stored { weight, .. } | Inner::InBytes { weight: InBytes(weight), .. } => {
                each(&|i, row| stored(weight, i, row))
            }
            Inner::Coded(coded) => each(&|i, row| stored(coded.weight(), i, row)),
            Inner::Stock(linear) => {
                for i in 0..self.outputs {
                    let weights = linear.weight().get(i)?.to_dtype(DType::F32)?;
                    use_row(&weights.to_vec1::<f32>()?);
                }
            }
        }
        Ok(())
    }

    /// Its bias [n], for the rows of an output.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn bias(&self) -> Result<Option<Tensor>> {
        match &self.inner {
            Inner::Own { bias, .. } | Inner::Stored { bias, .. } | Inner::InBytes { bias, .. } => {
                let device = &candle_core::Device::Cpu;
                bias.as_ref().map(|bias| Tensor::new(bias.as_slice(), device)).transpose()
            }
            Inner::Stock(linear) => Ok(linear.bias().cloned()),
            Inner::Coded(coded) => Ok(coded.bias().cloned()),
        }
    }

    /// `x` [rows, k] -> [rows, n].
    ///
    /// # Errors
    /// Where the shape does not fit, or the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_act(x, Activation::None)
    }

    /// `x` [rows, k] -> act([rows, n]).
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_act(&self, x: &Tensor, act: Activation) -> Result<Tensor> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match &self.inner {
            Inner::Own { weight, bias } => {
                x.apply_op1_no_bwd(&OwnLinear { weight, bias: bias.as_deref(), act })
            }
            Inner::Stored { weight, bias } => {
                x.apply_op1_no_bwd(&OwnLinear { weight, bias: bias.as_deref(), act })
            }
            Inner::InBytes { weight, bias } => {
                x.apply_op1_no_bwd(&OwnLinear { weight, bias: bias.as_deref(), act })
            }
            Inner::Stock(linear) => Ops::Stock.activate(linear.forward(x)?, act),
            Inner::Coded(coded) => Ops::Stock.activate(coded.forward(x)?, act),
        }
    }

    /// `x` [rows, k] -> act([rows, n]), with what the adapters of its rows do to this layer.
    ///
    /// # Errors
    /// As [`Linear::forward`].
    pub fn forward_patched(
        &self,
        x: &Tensor,
        act: Activation,
        patches: &Patches,
    ) -> Result<Tensor> {
        if !patches.touch(&self.name) {
            return self.forward_act(x, act);
        }
        let y = self.forward(x)?;
        patches.apply(self, x, &y)?;
        let ops = match &self.inner {
            Inner::Own { .. } | Inner::Stored { .. } | Inner::InBytes { .. } => Ops::Own,
            Inner::Stock(_) | Inner::Coded(_) => Ops::Stock,
        };
        ops.activate(y, act)
    }
}

/// Weights that a kernel takes.
trait Kernel {
    /// Outputs and inputs.
    fn sizes(&self) -> (usize, usize);
    /// y = act(x w^T + bias) over `rows` rows.
    fn run(&self, x: &[f32], rows: usize, bias: Option<&[f32]>, act: Activation, y: &mut [f32]);
}

impl Kernel for Packed {
    fn sizes(&self) -> (usize, usize) {
        (self.n(), self.k())
    }

    fn run(&self, x: &[f32], rows: usize, bias: Option<&[f32]>, act: Activation, y: &mut [f32]) {
        darkroom_kernels::linear(x, rows, self, bias, act, y);
    }
}

impl Kernel for Stored {
    fn sizes(&self) -> (usize, usize) {
        (self.n(), self.k())
    }

    fn run(&self, x: &[f32], rows: usize, bias: Option<&[f32]>, act: Activation, y: &mut [f32]) {
        quant::linear(x, rows, &self.matrix(), bias, act, y);
    }
}

/// Weights that are multiplied in bytes.
#[derive(Clone, Debug)]
struct InBytes(Stored);

impl Kernel for InBytes {
    fn sizes(&self) -> (usize, usize) {
        self.0.sizes()
    }

    fn run(&self, x: &[f32], rows: usize, bias: Option<&[f32]>, act: Activation, y: &mut [f32]) {
        quant::linear_in_bytes(x, rows, &self.0.matrix(), bias, act, y);
    }
}

struct OwnLinear<'a, W> {
    weight: &'a W,
    bias: Option<&'a [f32]>,
    act: Activation,
}

impl<W: Kernel> CustomOp1 for OwnLinear<'_, W> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, k) = matrix(layout)?;
        let (n, inputs) = self.weight.sizes();
        expect("the input's width of a linear layer", k, inputs)?;
        let Some(len) = rows.checked_mul(n) else { bail!("{rows} rows overflow") };
        let mut y = vec![0.0; len];
        self.weight.run(values(storage, layout)?, rows, self.bias, self.act, &mut y);
        output(y, (rows, n))
    }
}
