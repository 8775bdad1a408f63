//! Rotary position embedding: angles of tokens that sit at (channel, row, column).
//!
//! Angles are computed in f64 and kept in f32 whatever the type of the weights: bf16 holds whole
//! numbers only up to 256, and a canvas of references reaches beyond that.
//!
//! Reference: diffusers `FluxPosEmbed` (`freqs_dtype = float64`).

use candle_core::{DType, Device, Result, Tensor};

const THETA: f64 = 10_000.0;

/// A token's place: channel (0 text and target, 1 and up references), row, column.
pub type Id = [f64; 3];

/// Cosines and sines of a list of tokens, f32 [tokens, head_dim / 2] each.
#[derive(Clone, Debug)]
pub struct Rope {
    /// Cosines, one for each interleaved pair of a head.
    pub cos: Tensor,
    /// Sines, likewise.
    pub sin: Tensor,
}

impl Rope {
    /// The angles of `ids` for RoPE axes of `axes` sizes.
    ///
    /// # Errors
    /// The device's refusal of an allocation.
    pub fn new(ids: &[Id], axes: [usize; 3], device: &Device) -> Result<Self> {
        let half: usize = axes.iter().sum::<usize>() / 2;
        let frequencies: Vec<(usize, f64)> = axes
            .iter()
            .enumerate()
            .flat_map(|(axis, &dim)| {
                let frequency = move |i| THETA.powf(-((2 * i) as f64) / dim as f64);
                (0..dim / 2).map(move |i| (axis, frequency(i)))
            })
            .collect();
        let angles: Vec<f64> = ids
            .iter()
            .flat_map(|id| frequencies.iter().map(|&(axis, frequency)| id[axis] * frequency))
            .collect();
        let to_tensor = |f: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&a| f(a) as f32).collect();
            Tensor::from_vec(values, (ids.len(), half), device)
        };
        Ok(Self { cos: to_tensor(f64::cos)?, sin: to_tensor(f64::sin)? })
    }

    /// Angles of `tokens` text tokens: their ids are all zero, so nothing turns.
    ///
    /// # Errors
    /// The device's refusal of an allocation.
    pub fn still(tokens: usize, half: usize, device: &Device) -> Result<Self> {
        Ok(Self {
            cos: Tensor::ones((tokens, half), DType::F32, device)?,
            sin: Tensor::zeros((tokens, half), DType::F32, device)?,
        })
    }
}
