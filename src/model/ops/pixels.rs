//! Attention of one head over all pixels of a picture, as the middle of the VAE has it.

use super::{
    Linear, Ops, Segment,
    bands::{Bands, Found, add, with_values},
    expect,
};
use crate::model::{error::LoadError, weights::Weights};
use candle_core::{Device, Result, Tensor};
use darkroom_kernels::PackedKeys;

/// Pixels of a band, or a multiple of them: with fewer, waiting for the keys would be most of it.
const QUERIES: usize = 48;

/// The attention with its four layers, and the input added.
#[derive(Clone, Debug)]
pub struct PixelAttention {
    ops: Ops,
    channels: usize,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl PixelAttention {
    /// Loads `to_q`, `to_k`, `to_v` and `to_out.0`, all from `channels` to as many.
    ///
    /// # Errors
    /// A [`LoadError`] that names the tensor.
    pub fn load(weights: &Weights, channels: usize) -> std::result::Result<Self, LoadError> {
        let linear = |name: &str| Linear::load(&weights.pp(name), channels, channels);
        Ok(Self {
            ops: weights.target().ops,
            channels,
            to_q: linear("to_q")?,
            to_k: linear("to_k")?,
            to_v: linear("to_v")?,
            to_out: linear("to_out.0")?,
        })
    }

    fn scale(&self) -> f32 {
        (self.channels as f32).sqrt().recip()
    }

    /// Runs the next band: the normalised `x` [h, w, channels] through attention, and `onto` of the
    /// same shape added. Gives the result after the last.
    ///
    /// # Errors
    /// Where a shape does not fit, or the device fails.
    pub fn advance(&self, bands: &mut Bands, x: &Tensor, onto: &Tensor) -> Result<Option<Tensor>> {
        let (h, w, c) = x.dims3()?;
        expect("the picture's channels", c, self.channels)?;
        let (rows, n) = (x.reshape((h * w, c))?, h * w);
        if self.ops == Ops::Stock {
            return (onto + self.whole(&rows)?.reshape((h, w, c))?).map(Some);
        }
        match std::mem::take(&mut bands.found) {
            Found::Keys(keys) => {
                let band = bands.take(n, 2 * c * (n + c), QUERIES);
                let x = rows.narrow(0, band.start, band.len())?;
                let mut out = vec![0.0; band.len() * c];
                with_values(&self.to_q.forward(&x)?, |q| keys.attend(q, self.scale(), &mut out))?;
                let out = self.to_out.forward(&Tensor::from_vec(out, x.dims(), &Device::Cpu)?)?;
                let y = bands.room(n, c, &band);
                with_values(&out, |out| y.copy_from_slice(out))?;
                add(onto, &band, c, y)?;
                bands.found = Found::Keys(keys);
                bands.finish(&band, n, (h, w, c))
            }
            found => {
                let mut kept = match found {
                    Found::Rows(kept) => kept,
                    _ => [Vec::with_capacity(n * c), Vec::with_capacity(n * c)],
                };
                let band = bands.take(n, 2 * c * c, 1);
                let x = rows.narrow(0, band.start, band.len())?;
                for (layer, kept) in [&self.to_k, &self.to_v].into_iter().zip(&mut kept) {
                    with_values(&layer.forward(&x)?, |y| kept.extend_from_slice(y))?;
                }
                bands.found = if band.end < n {
                    Found::Rows(kept)
                } else {
                    bands.again();
                    Found::Keys(PackedKeys::new(&kept[0], &kept[1], c))
                };
                Ok(None)
            }
        }
    }

    fn whole(&self, rows: &Tensor) -> Result<Tensor> {
        let q = self.to_q.forward(rows)?;
        let (k, v) = (self.to_k.forward(rows)?, self.to_v.forward(rows)?);
        let whole = [Segment { ranges: [0..rows.dim(0)?, 0..0] }];
        self.to_out.forward(&self.ops.attention(&q, &k, &v, 1, self.scale(), &whole)?)
    }
}
