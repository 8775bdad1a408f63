//! What an edit will cost, from the sizes of its parts and of the model: formulas, no measurement.
//!
//! The unit of work is a million multiply-adds; norms, activations, modulation and CLIP, together
//! below a tenth of a step, are left out. Memory is what a job holds besides the weights at the
//! worse of its two peaks, a step and its largest picture in the VAE. Activations of a packed batch
//! grow with its tokens, so the sum over jobs is an upper bound of what they take together: only one
//! of them is in the VAE at a time. The factors are counted from the code; they are not yet fitted
//! to measured peaks, and do not know what candle's operations on a GPU allocate besides.

use super::{MAX_IMAGES, parts::Parts, sizes::Sizes};
use crate::{
    config::Sizing,
    domain::{EditParams, ParamError, Size},
    engine::{Cost, CostModel, JobShape},
    model::{flux::FluxConfig, vae::VaeConfig},
};

/// Multiply-adds of a unit of work.
const UNIT: f64 = 1e6;
/// Weights of a block of either kind over its squared width: q, k, v, out and both halves of the
/// feed-forward, which is four times as wide.
const BLOCK: f64 = 12.0;
/// Weights of T5-XXL over its squared width: 24 layers of attention (4) and a gated feed-forward of
/// 2.5 times the width (7.5). Other encoders are taken to be like it.
const T5: f64 = 276.0;
/// Widths of the hidden state that live at once in a block, per token: the state, its norm, q, k, v,
/// attention's result, the feed-forward's four, both joined (five), and the block's result.
const ACTIVATIONS: f64 = 16.0;
/// Bytes of an f32.
const F32: f64 = 4.0;
/// Numbers of a token's latents.
const LATENTS: f64 = 64.0;
/// Pixels of a token.
const TOKEN: f64 = 256.0;

/// What of a model decides the cost of its jobs.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    flux: FluxConfig,
    vae: VaeConfig,
    sizing: Sizing,
    text_width: f64,
    /// Bytes of a number in the type of computation.
    number: f64,
}

/// Checks a job as [`Engine::admit`](crate::engine::Engine::admit) does, and plans its sizes.
pub(super) fn plan(
    sizing: &Sizing,
    params: &EditParams,
    images: &[Size],
) -> Result<Sizes, ParamError> {
    params.validate()?;
    if images.len() > MAX_IMAGES {
        let allowed = format!("at most {MAX_IMAGES} pictures are taken");
        return Err(ParamError::new("image", format!("there {} times", images.len()), allowed));
    }
    Sizes::plan(sizing, params, images)
}

impl Costs {
    pub(super) fn of(parts: &Parts) -> Self {
        Self {
            flux: parts.transformer.config().clone(),
            vae: parts.vae.config().clone(),
            sizing: parts.sizing.clone(),
            text_width: parts.t5.width() as f64,
            number: parts.target.dtype.size_in_bytes() as f64,
        }
    }

    /// Multiply-adds of a step of one sequence: each token through each block's weights, and every
    /// token with every other, twice.
    fn step(&self, tokens: f64) -> f64 {
        let width = self.flux.inner_dim() as f64;
        let blocks = (self.flux.num_layers + self.flux.num_single_layers) as f64;
        blocks * tokens * width * (BLOCK * width + 2.0 * tokens)
    }

    /// Multiply-adds of a pass of the VAE: two 3x3 convolutions in each residual block, at each
    /// level a quarter as many pixels, and two more blocks and attention in the middle.
    fn vae(&self, pixels: f64, blocks: usize) -> f64 {
        let convolutions = |pixels: f64, blocks: usize, channels: usize| {
            pixels * (18 * blocks) as f64 * (channels as f64).powi(2)
        };
        let (mut sum, mut here, mut inner) = (0.0, pixels, (pixels, 0));
        for &channels in &self.vae.block_out_channels {
            sum += convolutions(here, blocks, channels);
            inner = (here, channels);
            here /= 4.0;
        }
        let (here, channels) = inner;
        let attention = f64::from(u8::from(self.vae.mid_block_add_attention));
        sum + convolutions(here, 2, channels) + attention * 2.0 * here * here * channels as f64
    }

    /// Bytes of a pass of the VAE at full size: what the outermost level takes in, its norm, and the
    /// results of two convolutions.
    fn vae_memory(&self, pixels: f64) -> f64 {
        let outer: usize = self.vae.block_out_channels.iter().take(2).sum();
        pixels * (2 * outer) as f64 * self.number
    }
}

/// Counted in f64, which does not overflow, whatever sizes a request names.
fn pixels(size: Size) -> f64 {
    f64::from(size.width) * f64::from(size.height)
}

fn units(work: f64) -> u64 {
    (work / UNIT).ceil() as u64
}

impl CostModel for Costs {
    fn cost(&self, job: &JobShape<'_>) -> Result<Cost, ParamError> {
        let sizes = plan(&self.sizing, job.params, job.images)?;
        let generated = pixels(sizes.generated);
        let target = generated / TOKEN;
        let references = sizes.references.iter().map(|&size| pixels(size) / TOKEN).sum::<f64>();
        let text = job.params.max_sequence_length as f64;
        let sequences = if job.params.effective_negative().is_some() { 2.0 } else { 1.0 };
        let image = target + references;
        let tokens = text + image; // of a sequence

        let layers = self.vae.layers_per_block;
        let encoding = sizes.references.iter().map(|&size| self.vae(pixels(size), layers));
        let prompts = sequences * text * T5 * self.text_width.powi(2);

        let width = self.flux.inner_dim() as f64;
        let inputs = job.images.iter().map(|&size| 3.0 * pixels(size)).sum::<f64>();
        let embeddings = sequences * text * self.text_width * self.number;
        // Latents and the last velocity, the references', and the cosine and sine of every angle.
        let latents = 2.0 * target * LATENTS * F32 + references * LATENTS * self.number;
        let angles = image * self.flux.attention_head_dim as f64 * F32;
        let step = sequences * tokens * ACTIVATIONS * width * self.number;
        let largest = sizes.references.iter().map(|&size| pixels(size)).fold(generated, f64::max);
        let peak = step.max(self.vae_memory(largest));
        Ok(Cost {
            tokens: (sequences * tokens) as usize,
            memory: (inputs + embeddings + latents + angles + peak) as u64,
            before: units(prompts + encoding.sum::<f64>()),
            step: units(sequences * self.step(tokens)),
            steps: job.params.num_inference_steps,
            after: units(self.vae(generated, layers + 1)),
        })
    }
}
