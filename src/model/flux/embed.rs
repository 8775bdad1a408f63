//! What all sequences are conditioned on: time, guidance and pooled text, one row for each.
//!
//! Reference: diffusers `CombinedTimestepGuidanceTextProjEmbeddings`.

use super::{FluxConfig, Sequence};
use crate::model::{
    error::LoadError,
    ops::{Activation, Linear, Patches},
    weights::Weights,
};
use candle_core::{DType, Device, Result, Tensor};

/// Channels of the sinusoids.
const SINUSOIDS: usize = 256;
/// The networks see time and guidance in thousandths.
const TIME_FACTOR: f32 = 1000.0;

#[derive(Debug)]
pub(super) struct TimeTextEmbed {
    timestep_embedder: Mlp,
    guidance_embedder: Option<Mlp>,
    text_embedder: Mlp,
}

impl TimeTextEmbed {
    pub(super) fn load(
        weights: &Weights,
        config: &FluxConfig,
    ) -> std::result::Result<Self, LoadError> {
        let dim = config.inner_dim();
        let mlp = |name: &str, k| Mlp::load(&weights.pp(name), k, dim);
        Ok(Self {
            timestep_embedder: mlp("timestep_embedder", SINUSOIDS)?,
            guidance_embedder: if config.guidance_embeds {
                Some(mlp("guidance_embedder", SINUSOIDS)?)
            } else {
                None
            },
            text_embedder: mlp("text_embedder", config.pooled_projection_dim)?,
        })
    }

    /// -> (sequences, dim)
    pub(super) fn forward(&self, sequences: &[Sequence<'_>], patches: &Patches) -> Result<Tensor> {
        let pooled: Vec<&Tensor> = sequences.iter().map(|s| s.pooled).collect();
        let pooled = Tensor::cat(&pooled, 0)?; // (sequences, d_clip)
        let (device, dtype) = (pooled.device(), pooled.dtype());
        let waves = |value: fn(&Sequence<'_>) -> f32| {
            let values: Vec<f32> = sequences.iter().map(|s| value(s) * TIME_FACTOR).collect();
            sinusoids(&values, device)?.to_dtype(dtype)
        };
        let mut embedding = self.timestep_embedder.forward(&waves(|s| s.time)?, patches)?;
        if let Some(guidance) = &self.guidance_embedder {
            embedding = (embedding + guidance.forward(&waves(|s| s.guidance)?, patches)?)?;
        }
        embedding + self.text_embedder.forward(&pooled, patches)?
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = &Linear> {
        let embedders = [&self.timestep_embedder, &self.text_embedder].into_iter();
        embedders.chain(&self.guidance_embedder).flat_map(|mlp| [&mlp.linear_1, &mlp.linear_2])
    }
}

/// [cos | sin] of each value at falling frequencies, in f32 as the reference does.
fn sinusoids(values: &[f32], device: &Device) -> Result<Tensor> {
    let half = SINUSOIDS / 2;
    let frequency = |i: usize| (-(10_000f32.ln()) * i as f32 / half as f32).exp();
    let mut waves = Vec::with_capacity(values.len() * SINUSOIDS);
    for &value in values {
        waves.extend((0..half).map(|i| (value * frequency(i)).cos()));
        waves.extend((0..half).map(|i| (value * frequency(i)).sin()));
    }
    Tensor::from_vec(waves, (values.len(), SINUSOIDS), device)?.to_dtype(DType::F32)
}

/// linear_1, SiLU, linear_2.
#[derive(Debug)]
struct Mlp {
    linear_1: Linear,
    linear_2: Linear,
}

impl Mlp {
    fn load(weights: &Weights, k: usize, dim: usize) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            linear_1: Linear::load_exact(&weights.pp("linear_1"), k, dim)?,
            linear_2: Linear::load_exact(&weights.pp("linear_2"), dim, dim)?,
        })
    }

    fn forward(&self, x: &Tensor, patches: &Patches) -> Result<Tensor> {
        let hidden = self.linear_1.forward_patched(x, Activation::Silu, patches)?;
        self.linear_2.forward_patched(&hidden, Activation::None, patches)
    }
}
