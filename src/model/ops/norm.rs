//! Normalisations, and what the transformer does right after them: modulation per sequence, rotary
//! embedding, and the gated residual.

use super::{
    Ops, RowMap,
    bands::{Bands, Found, with_values},
    expect, matrix, output, values,
};
use crate::model::{error::LoadError, weights::Weights};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use darkroom_kernels::GroupSums;
#[cfg(feature = "cuda")]
use {super::cuda, candle_core::CudaStorage};

/// Multiply-adds that take as long as a group norm does for a number.
const NUMBER: usize = 48;

impl Ops {
    /// LayerNorm(x) * (1 + scale) + shift. x [rows, c]; shift and scale [sequences, c].
    ///
    /// # Errors
    /// Where shapes do not fit, or the device fails.
    pub fn layer_norm_modulate(
        self,
        x: &Tensor,
        eps: f64,
        shift: &Tensor,
        scale: &Tensor,
        rows: &RowMap,
    ) -> Result<Tensor> {
        if self.fused(x) {
            return x.apply_op3_no_bwd(shift, scale, &OwnModulate { eps: eps as f32, rows });
        }
        let x32 = x.to_dtype(DType::F32)?;
        let x32 = x32.broadcast_sub(&x32.mean_keepdim(D::Minus1)?)?;
        let variance = x32.sqr()?.mean_keepdim(D::Minus1)?;
        let normed = x32.broadcast_div(&(variance + eps)?.sqrt()?)?.to_dtype(x.dtype())?;
        (normed * (rows.spread(scale)? + 1.0)?)? + rows.spread(shift)?
    }

    /// x + gate * u. x and u [rows, c]; gate [sequences, c].
    ///
    /// # Errors
    /// Where shapes do not fit, or the device fails.
    pub fn gated_add(self, x: &Tensor, gate: &Tensor, u: &Tensor, rows: &RowMap) -> Result<Tensor> {
        match self {
            Ops::Own => x.apply_op3_no_bwd(gate, u, &OwnGatedAdd { rows }),
            Ops::Stock => x + (rows.spread(gate)? * u)?,
        }
    }
}

/// Checks that each row's sequence is one of `sequences`, which the kernels rely on.
fn check_rows(rows: &RowMap, found: usize, sequences: usize) -> Result<()> {
    expect("rows", found, rows.host.len())?;
    let last = rows.host.iter().max().map_or(0, |&s| s as usize + 1);
    expect("sequences beyond those given", last.saturating_sub(sequences), 0)
}

struct OwnModulate<'a> {
    eps: f32,
    rows: &'a RowMap,
}

impl OwnModulate<'_> {
    /// Rows and channels.
    fn check(&self, x: &Layout, shift: &Layout, scale: &Layout) -> Result<(usize, usize)> {
        let (rows, c) = matrix(x)?;
        let (sequences, width) = matrix(shift)?;
        expect("the shift's width", width, c)?;
        check_rows(self.rows, rows, sequences)?;
        expect("the scale's size", scale.shape().elem_count(), sequences * c)?;
        Ok((rows, c))
    }
}

impl CustomOp3 for OwnModulate<'_> {
    fn name(&self) -> &'static str {
        "layer_norm_modulate"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, c) = self.check(x_layout, shift_layout, scale_layout)?;
        let mut y = vec![0.0; rows * c];
        darkroom_kernels::layer_norm_modulate(
            values(x, x_layout)?,
            c,
            self.eps,
            values(shift, shift_layout)?,
            values(scale, scale_layout)?,
            &self.rows.host,
            &mut y,
        );
        output(y, (rows, c))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        shift: &CudaStorage,
        shift_layout: &Layout,
        scale: &CudaStorage,
        scale_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.check(x_layout, shift_layout, scale_layout)?;
        let modulation = [(shift, shift_layout), (scale, scale_layout)];
        cuda::layer_norm_modulate((x, x_layout), self.eps, modulation, self.rows)
    }
}

struct OwnGatedAdd<'a> {
    rows: &'a RowMap,
}

impl CustomOp3 for OwnGatedAdd<'_> {
    fn name(&self) -> &'static str {
        "gated_add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gate: &CpuStorage,
        gate_layout: &Layout,
        u: &CpuStorage,
        u_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, c) = matrix(x_layout)?;
        let (sequences, width) = matrix(gate_layout)?;
        expect("the gate's width", width, c)?;
        check_rows(self.rows, rows, sequences)?;
        expect("the update's size", u_layout.shape().elem_count(), rows * c)?;
        let mut y = vec![0.0; rows * c];
        darkroom_kernels::gated_add(
            values(x, x_layout)?,
            values(gate, gate_layout)?,
            values(u, u_layout)?,
            c,
            &self.rows.host,
            &mut y,
        );
        output(y, (rows, c))
    }
}

/// RMSNorm of each row, in f32 throughout.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    ops: Ops,
    weight: Vec<f32>,
    /// The same weight on the device, for the stock path.
    device: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// Loads `weight` [c].
    ///
    /// # Errors
    /// A [`LoadError`] that names the tensor.
    pub fn load(weights: &Weights, c: usize, eps: f64) -> std::result::Result<Self, LoadError> {
        let weight = weights.host("weight", &[c])?;
        let target = weights.target();
        let device = Tensor::new(weight.as_slice(), &target.device)?;
        Ok(Self { ops: target.ops, weight, device, eps })
    }

    /// x [rows, c] -> the same shape.
    ///
    /// # Errors
    /// Where the shape does not fit, or the device fails.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.ops == Ops::Own {
            return x.apply_op1_no_bwd(self);
        }
        rms_norm(x, &self.device, self.eps)?.to_dtype(x.dtype())
    }
}

/// The norm of the last dimension in stock operations -> f32
fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.to_dtype(DType::F32)?;
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean + eps)?.sqrt()?)?.broadcast_mul(weight)
}

impl CustomOp1 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, c) = matrix(layout)?;
        expect("the input's width of a norm", c, self.weight.len())?;
        let mut y = vec![0.0; rows * c];
        darkroom_kernels::rms_norm(values(x, layout)?, self.eps as f32, &self.weight, &mut y);
        output(y, (rows, c))
    }
}

/// RMSNorm of each head of a query or key, then the rotary embedding, in f32 throughout.
#[derive(Clone, Debug)]
pub struct QkNorm {
    ops: Ops,
    weight: Vec<f32>,
    /// The same weight on the device, for the stock path.
    device: Tensor,
    eps: f64,
}

impl QkNorm {
    /// Loads `weight` [dim].
    ///
    /// # Errors
    /// A [`LoadError`] that names the tensor.
    pub fn load(weights: &Weights, dim: usize, eps: f64) -> std::result::Result<Self, LoadError> {
        let weight = weights.host("weight", &[dim])?;
        let target = weights.target();
        let device = Tensor::new(weight.as_slice(), &target.device)?;
        Ok(Self { ops: target.ops, weight, device, eps })
    }

    /// x [rows, heads * dim]; cos and sin f32 [rows, dim / 2], one angle for each interleaved pair.
    ///
    /// # Errors
    /// Where shapes do not fit, or the device fails.
    pub fn forward(&self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
        if self.ops.fused(x) {
            return x.apply_op3_no_bwd(cos, sin, self);
        }
        let (rows, width) = x.dims2()?;
        let dim = self.weight.len();
        let shape = (rows, width / dim, dim / 2, 2);
        let heads = x.reshape((rows, width / dim, dim))?;
        let pairs = rms_norm(&heads, &self.device, self.eps)?.reshape(shape)?;
        let (a, b) = (pairs.narrow(3, 0, 1)?, pairs.narrow(3, 1, 1)?);
        let (cos, sin) = (cos.reshape((rows, 1, dim / 2, 1))?, sin.reshape((rows, 1, dim / 2, 1))?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
        Tensor::cat(&[first, second], 3)?.reshape((rows, width))?.to_dtype(x.dtype())
    }
}

impl QkNorm {
    /// Rows and their width.
    fn check(&self, x: &Layout, angles: [&Layout; 2]) -> Result<(usize, usize)> {
        let (rows, width) = matrix(x)?;
        let dim = self.weight.len();
        expect("the width's rest by the head's size", width % dim, 0)?;
        for layout in angles {
            expect("the angles' number", layout.shape().elem_count(), rows * (dim / 2))?;
        }
        Ok((rows, width))
    }
}

impl CustomOp3 for QkNorm {
    fn name(&self) -> &'static str {
        "rms_norm_rope"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        cos: &CpuStorage,
        cos_layout: &Layout,
        sin: &CpuStorage,
        sin_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = self.check(x_layout, [cos_layout, sin_layout])?;
        let dim = self.weight.len();
        let mut y = vec![0.0; rows * width];
        darkroom_kernels::rms_norm_rope(
            values(x, x_layout)?,
            width / dim,
            dim,
            self.eps as f32,
            &self.weight,
            values(cos, cos_layout)?,
            values(sin, sin_layout)?,
            &mut y,
        );
        output(y, (rows, width))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        cos: &CudaStorage,
        cos_layout: &Layout,
        sin: &CudaStorage,
        sin_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.check(x_layout, [cos_layout, sin_layout])?;
        let angles = [(cos, cos_layout), (sin, sin_layout)];
        cuda::rms_norm_rope((x, x_layout), self.eps as f32, &self.device, angles)
    }
}

/// GroupNorm of a channel-last picture, then SiLU where the layer after it wants that.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    ops: Ops,
    groups: usize,
    eps: f64,
    silu: bool,
    weight: Vec<f32>,
    bias: Vec<f32>,
    device: [Tensor; 2],
}

impl GroupNorm {
    /// Loads `weight` and `bias` [channels].
    ///
    /// # Errors
    /// A [`LoadError`] that names the tensor.
    pub fn load(
        weights: &Weights,
        channels: usize,
        groups: usize,
        eps: f64,
        silu: bool,
    ) -> std::result::Result<Self, LoadError> {
        let weight = weights.host("weight", &[channels])?;
        let bias = weights.host("bias", &[channels])?;
        let target = weights.target();
        let on_device = |v: &[f32]| Tensor::new(v, &target.device);
        let device = [on_device(&weight)?, on_device(&bias)?];
        Ok(Self { ops: target.ops, groups, eps, silu, weight, bias, device })
    }

    /// Runs the next band of x [h, w, channels] -> the same shape. Gives the output after the last.
    ///
    /// # Errors
    /// Where the shape does not fit, or the device fails.
    pub fn advance(&self, bands: &mut Bands, x: &Tensor) -> Result<Option<Tensor>> {
        let (h, w, c) = x.dims3()?;
        expect("the picture's channels", c, self.weight.len())?;
        if self.ops == Ops::Stock {
            return self.whole(x).map(Some);
        }
        let pixels = h * w;
        let band = bands.take(pixels, NUMBER * c, GroupSums::PIXELS);
        let numbers = band.start * c..band.end * c;
        match std::mem::take(&mut bands.found) {
            Found::Sums(sums) if sums.pixels() == pixels => {
                let (eps, y) = (self.eps as f32, bands.room(pixels, c, &band));
                with_values(x, |x| {
                    sums.apply(&x[numbers], eps, &self.weight, &self.bias, self.silu, y);
                })?;
                bands.found = Found::Sums(sums);
                bands.finish(&band, pixels, (h, w, c))
            }
            found => {
                let mut sums = match found {
                    Found::Sums(sums) => sums,
                    _ => GroupSums::new(c, self.groups),
                };
                with_values(x, |x| sums.add(&x[numbers]))?;
                bands.found = Found::Sums(sums);
                if band.end == pixels {
                    bands.again();
                }
                Ok(None)
            }
        }
    }

    fn whole(&self, x: &Tensor) -> Result<Tensor> {
        let (h, w, c) = x.dims3()?;
        let per = c / self.groups;
        // (h, w, c) -> (groups, pixels * channels of the group)
        let grouped = x.to_dtype(DType::F32)?.reshape((h * w, self.groups, per))?;
        let grouped = grouped.transpose(0, 1)?.reshape((self.groups, h * w * per))?;
        let centred = grouped.broadcast_sub(&grouped.mean_keepdim(1)?)?;
        let variance = centred.sqr()?.mean_keepdim(1)?;
        let normed = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        let normed =
            normed.reshape((self.groups, h * w, per))?.transpose(0, 1)?.reshape((h, w, c))?;
        let y = normed.broadcast_mul(&self.device[0])?.broadcast_add(&self.device[1])?;
        if self.silu { y.silu()? } else { y }.to_dtype(x.dtype())
    }
}
