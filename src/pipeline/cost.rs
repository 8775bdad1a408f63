//! What an edit will cost, from the sizes of its parts and of the model: formulas, no measurement.
//!
//! The unit of work is a million multiply-adds; norms, activations, modulation and CLIP, together
//! below a tenth of a step, are left out. Memory is what a job holds besides the weights in the worst
//! of its four phases: text, pictures, steps, decoding. Each phase's peak is counted from the code,
//! tensor by tensor; `tests/memory` holds the counts against what is really allocated on a CPU.
//! What candle's operations on a GPU allocate besides is not in them.
//! Where a pass of the VAE over the whole of a picture would take more than the plan allows, it goes in
//! tiles; that is decided here, by sizes alone.
//!
//! `memory` is what a job holds before its first slice or in a step, whichever is more: a step's
//! activations grow with the tokens of its batch, so what jobs take together is at most the sum of
//! that, and the `peak`s of those that are in the middle of another phase.

use super::{
    MAX_IMAGES,
    loras::{Load, LoraShelf},
    memory::Usual,
    sizes::{Sizes, nearest},
};
use crate::{
    config::Sizing,
    domain::{EditParams, ParamError, Size},
    engine::{Cost, CostModel, JobShape},
    model::{
        flux::FluxConfig,
        ops::DELTA_ROWS,
        t5::T5Config,
        vae::{Extent, OVERLAP, VaeConfig},
    },
};
use std::sync::Arc;

/// Multiply-adds of a unit of work.
const UNIT: f64 = 1e6;
/// Weights of a block of either kind over its squared width: q, k, v, out and both halves of the
/// feed-forward, which is four times as wide.
const BLOCK: f64 = 12.0;
/// Widths of the hidden state for each token of a step, where a single block joins attention and
/// feed-forward: the state (1), both results (1 + 4), and the two joined (5). A double block has ten:
/// the state, attention's result, and of the image's feed-forward eight.
const STEP: f64 = 11.0;
/// Channels of a head that attention packs together.
const LANES: usize = 16;
/// Widths of the hidden state for each row that adapters change at once: of the widest layer, which
/// is four times as wide, the change, the change at its strength, and the sum.
const DELTAS: f64 = 12.0;
/// Bytes of an f32.
const F32: f64 = 4.0;
/// Bytes of a pixel of an input.
const RGB: f64 = 3.0;
/// Bytes of a pixel of a reference that becomes a tensor: as bytes and as f32.
const PREPARED: f64 = RGB + 3.0 * F32;
/// Numbers of a token's latents.
const LATENTS: f64 = 64.0;
/// Pixels of a token.
const TOKEN: f64 = 256.0;
/// For what is not counted: modulation vectors, tables of rows, sums of norms. Measured peaks are at
/// most 1.04 times the count.
const UNCOUNTED: f64 = 1.05;
/// Bytes that the smallest job takes: CLIP's activations and the tokenizers.
const SMALLEST: f64 = 512.0 * 1024.0;

/// What of a model decides the cost of its jobs.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    flux: FluxConfig,
    vae: VaeConfig,
    t5: T5Config,
    sizing: Sizing,
    /// Bytes of a number in the type of computation.
    number: f64,
    /// Bytes that a pass of the VAE over a whole picture may take.
    whole: f64,
    loras: Arc<LoraShelf>,
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
    /// Those of a model, computing with numbers of `number` bytes.
    pub(super) fn new(
        flux: FluxConfig,
        vae: VaeConfig,
        t5: T5Config,
        sizing: Sizing,
        number: usize,
    ) -> Self {
        let (number, whole) = (number as f64, f64::INFINITY);
        Self { flux, vae, t5, sizing, number, whole, loras: Arc::default() }
    }

    /// The same where a pass of the VAE over a whole picture may take `whole` bytes.
    pub(super) fn within(&self, whole: u64) -> Self {
        Self { whole: whole as f64, ..self.clone() }
    }

    /// The same for jobs that may name the adapters of `loras`.
    pub(super) fn with(&self, loras: &Arc<LoraShelf>) -> Self {
        Self { loras: Arc::clone(loras), ..self.clone() }
    }

    /// What an edit of a picture in the model's own size takes, with `text` tokens of prompt.
    pub(super) fn usual(&self, text: usize) -> Usual {
        let size = nearest(&self.sizing.preferred_sizes, 1.0);
        let sizes = Sizes { output: size, generated: size, references: vec![size] };
        let one = pixels(size) / TOKEN;
        let tokens = Tokens {
            text: text as f64,
            target: one,
            references: one,
            sequences: 1.0,
            cached: false,
        };
        let (_, worst) = self.memory(&tokens, &[size], &sizes, Load::default());
        Usual { size, bytes: worst as u64 }
    }

    /// How the VAE goes over a picture.
    pub(super) fn extent(&self, size: Size, decoding: bool) -> Extent {
        let whole = UNCOUNTED * self.vae_memory(pixels(size), decoding);
        if whole > self.whole && self.vae.tile().is_some() { Extent::Tiles } else { Extent::Whole }
    }

    /// Pixels that the VAE goes over at a time, and in all.
    fn covered(&self, size: Size, decoding: bool) -> (f64, f64) {
        let whole = (pixels(size), pixels(size));
        let (Extent::Tiles, Some([side, _])) = (self.extent(size, decoding), self.vae.tile())
        else {
            return whole;
        };
        let (side, stride) = (side as f64, (side - side / OVERLAP) as f64);
        let sides = [size.width, size.height].map(f64::from);
        if sides.iter().all(|&n| n <= side) {
            return whole;
        }
        let all = sides.map(|n| {
            let tiles = (n / stride).ceil();
            (0..tiles as usize).map(|i| side.min(n - i as f64 * stride)).sum::<f64>()
        });
        (sides.iter().map(|n| n.min(side)).product(), all.iter().product())
    }

    /// Multiply-adds of a step of one sequence: each token through each block's weights, and every
    /// token with every other, twice.
    fn step(&self, tokens: f64) -> f64 {
        let width = self.flux.inner_dim() as f64;
        let blocks = (self.flux.num_layers + self.flux.num_single_layers) as f64;
        blocks * tokens * width * (BLOCK * width + 2.0 * tokens)
    }

    /// Multiply-adds of a prompt of so many tokens: each through the weights of every block, and with
    /// every other, twice.
    fn t5(&self, tokens: f64) -> f64 {
        let T5Config { d_model, d_ff, num_layers, gated, .. } = self.t5;
        let feed_forward = if gated { 3 * d_ff } else { 2 * d_ff };
        let inner = self.t5.inner_dim() as f64;
        let weights = d_model as f64 * (4.0 * inner + feed_forward as f64);
        num_layers as f64 * tokens * (weights + 2.0 * tokens * inner)
    }

    /// Bytes of a pass of T5 over so many tokens, in a block: either at the attention, with the state,
    /// q, k and v, keys and values once more in packed form, and the result; or at the gate, with the
    /// states before and after attention, both inputs and their product.
    fn t5_memory(&self, tokens: f64) -> f64 {
        let T5Config { d_model, d_kv, d_ff, num_heads, gated, .. } = self.t5;
        let packed = num_heads * d_kv.next_multiple_of(LANES);
        let attention = d_model + 4 * self.t5.inner_dim() + 2 * packed;
        let feed_forward = 2 * d_model + if gated { 3 * d_ff } else { 2 * d_ff };
        tokens * attention.max(feed_forward) as f64 * self.number
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

    /// Bytes of a pass of the VAE in its largest residual block, the first of some level: either at
    /// its first convolution, with input, norm and result, or at its second, with the input brought to
    /// as many channels as the result has, norm and result.
    fn vae_memory(&self, pixels: f64, decoding: bool) -> f64 {
        let channels = &self.vae.block_out_channels;
        let (mut here, mut peak) = (pixels, 0.0_f64);
        for (level, &to) in channels.iter().enumerate() {
            let before = if decoding { Some(level + 1) } else { level.checked_sub(1) };
            let from = before.and_then(|level| channels.get(level)).map_or(to, |&from| from);
            let block = (2 * from + to).max(3 * to);
            peak = peak.max(here * block as f64);
            here /= 4.0;
        }
        peak * self.number
    }

    /// Bytes of a pass of the VAE over a picture: of a tile, what is cut up, and the result, twice while
    /// it is put together.
    fn pass(&self, size: Size, decoding: bool) -> f64 {
        let (once, all) = self.covered(size, decoding);
        let (picture, latents) = (3.0 * pixels(size), LATENTS * pixels(size) / TOKEN);
        let sides = if decoding { latents + 2.0 * picture } else { picture + 2.0 * latents };
        let sides = if all > pixels(size) { sides * self.number } else { 0.0 };
        self.vae_memory(once, decoding) + sides
    }

    /// Bytes that a job holds besides the weights: between phases and in steps, and in the worst of its
    /// phases.
    fn memory(&self, tokens: &Tokens, images: &[Size], sizes: &Sizes, loras: Load) -> (f64, f64) {
        let given = images.iter().map(|&size| RGB * pixels(size)).sum::<f64>();
        let mut inputs = given;
        let states = tokens.text * self.t5.d_model as f64 * self.number;
        let embeddings = tokens.sequences * states;
        let text = inputs + embeddings - states + self.t5_memory(tokens.text);

        // Each input is narrowed, shortened and turned into a tensor; then it goes.
        let mut pictures = 0.0_f64;
        for (&image, &reference) in images.iter().zip(&sizes.references) {
            let narrowed = RGB * pixels(Size::new(reference.width, image.height));
            let prepared = inputs + narrowed + PREPARED * pixels(reference);
            inputs -= RGB * pixels(image);
            let encoded = inputs + self.pass(reference, false);
            pictures = pictures.max(prepared).max(encoded);
        }

        let image = tokens.target + tokens.references;
        let head = self.flux.attention_head_dim as f64; // a cosine and a sine for each two
        let angles = (image + tokens.packed()) * head * F32;
        // The target's and the last velocity, then the references' and both joined.
        let joined = if tokens.references > 0.0 { tokens.references + image } else { 0.0 };
        let latents = LATENTS * (2.0 * tokens.target * F32 + joined * self.number);
        let width = self.flux.inner_dim() as f64 * self.number;
        let states = STEP * width * tokens.packed();
        // What the first block added to each token of the pictures, and the others to the target's,
        // of the last full step and of this one, and the first block's result.
        let kept = tokens.sequences * width * (3.0 * image + 2.0 * tokens.target);
        let kept = if tokens.cached { kept } else { 0.0 };
        let steps = embeddings + latents + angles + states + kept + self.deltas(tokens, loras);

        let decoding = self.pass(sizes.generated, true);
        let held = given.max(steps);
        let worst = text.max(embeddings + pictures).max(held).max(decoding);
        let adapters = loras.bytes as f64;
        (UNCOUNTED * held + adapters, (UNCOUNTED * worst).max(SMALLEST) + adapters)
    }

    /// Bytes of what adapters add to a layer, for the rows that are changed at once.
    fn deltas(&self, tokens: &Tokens, loras: Load) -> f64 {
        let rows = tokens.packed().min(DELTA_ROWS as f64);
        let widest = DELTAS * self.flux.inner_dim() as f64;
        if loras.bytes > 0 { rows * widest * self.number } else { 0.0 }
    }
}

/// Tokens of a job.
struct Tokens {
    /// Of a prompt.
    text: f64,
    /// Of the picture that is made.
    target: f64,
    /// Of all references.
    references: f64,
    /// Times that all of them go through the transformer in a step.
    sequences: f64,
    /// Whether steps are kept to shorten later ones.
    cached: bool,
}

impl Tokens {
    fn of(params: &EditParams, sizes: &Sizes) -> Self {
        let references = sizes.references.iter().map(|&size| pixels(size) / TOKEN);
        Self {
            text: params.max_sequence_length as f64,
            target: pixels(sizes.generated) / TOKEN,
            references: references.sum(),
            sequences: if params.effective_negative().is_some() { 2.0 } else { 1.0 },
            cached: params.step_cache > 0.0,
        }
    }

    /// Of a sequence.
    fn each(&self) -> f64 {
        self.text + self.target + self.references
    }

    /// Of all sequences.
    fn packed(&self) -> f64 {
        self.sequences * self.each()
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
        let loras = self.loras.weigh(&job.params.loras)?;
        let tokens = Tokens::of(job.params, &sizes);
        let layers = self.vae.layers_per_block;
        let vae = |size, decoding, blocks| self.vae(self.covered(size, decoding).1, blocks);
        let encoding = sizes.references.iter().map(|&size| vae(size, false, layers));
        let prompts = tokens.sequences * self.t5(tokens.text);
        let (held, worst) = self.memory(&tokens, job.images, &sizes, loras);
        Ok(Cost {
            tokens: tokens.packed() as usize,
            memory: held as u64,
            peak: (worst as u64).saturating_sub(held as u64),
            before: units(prompts + encoding.sum::<f64>()),
            step: units(
                tokens.sequences * self.step(tokens.each()) + tokens.packed() * loras.work as f64,
            ),
            steps: job.params.num_inference_steps,
            after: units(vae(sizes.generated, true, layers + 1)),
        })
    }
}
