//! The linear layer: y = act(x w^T + b) over the rows of a packed matrix.
//!
//! On the CPU the weights are packed once, when they are loaded, and every row goes through the same
//! sequence of operations whatever the number of rows. (The gemm crate behind candle's matmul
//! changes its path with that number, which would break equal bytes.)

use super::{Activation, Ops, expect, matrix, output, values};
use crate::model::{error::LoadError, weights::Weights};
use candle_core::{CpuStorage, CustomOp1, Layout, Module, Result, Shape, Tensor, bail};
use darkroom_kernels::Packed;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A linear layer with its weights.
#[derive(Clone, Debug)]
pub struct Linear {
    inner: Inner,
    calls: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
enum Inner {
    Own { weight: Packed, bias: Option<Vec<f32>> },
    Stock(candle_nn::Linear),
}

impl Linear {
    /// Loads `weight` [n, k] and `bias` [n].
    ///
    /// # Errors
    /// A [`LoadError`] that names the tensor which is missing or misshapen.
    pub fn load(weights: &Weights, k: usize, n: usize) -> std::result::Result<Self, LoadError> {
        Self::build(weights, k, n, true)
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
        let target = weights.target();
        let inner = match target.ops {
            Ops::Own => {
                let weight = weights.matrix("weight", n, k, |row| Packed::from_fn(n, k, row))?;
                let bias = bias.then(|| weights.host("bias", &[n])).transpose()?;
                Inner::Own { weight, bias }
            }
            Ops::Stock => Inner::Stock(candle_nn::Linear::new(
                weights.tensor("weight", &[n, k])?,
                bias.then(|| weights.tensor("bias", &[n])).transpose()?,
            )),
        };
        Ok(Self { inner, calls: target.linear_calls.clone() })
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
            Inner::Stock(linear) => {
                let y = linear.forward(x)?;
                match act {
                    Activation::None => Ok(y),
                    Activation::GeluTanh => y.gelu(),
                    Activation::Silu => y.silu(),
                }
            }
        }
    }
}

struct OwnLinear<'a> {
    weight: &'a Packed,
    bias: Option<&'a [f32]>,
    act: Activation,
}

impl CustomOp1 for OwnLinear<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, k) = matrix(layout)?;
        expect("the input's width of a linear layer", k, self.weight.k())?;
        let Some(len) = rows.checked_mul(self.weight.n()) else { bail!("{rows} rows overflow") };
        let mut y = vec![0.0; len];
        let x = values(storage, layout)?;
        darkroom_kernels::linear(x, rows, self.weight, self.bias, self.act, &mut y);
        output(y, (rows, self.weight.n()))
    }
}
