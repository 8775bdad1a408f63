//! The FLUX transformer over a packed ragged batch.
//!
//! One forward pass takes any number of sequences of any sizes, each at its own timestep. Their
//! tokens are concatenated as [text of all | image of all]: every linear layer sees one matrix (two
//! in the double blocks, which have weights of their own for text), while attention and modulation
//! go per sequence. No padding, no same-size rule; a sequence's result does not depend on what it is
//! packed with.
//!
//! Reference: diffusers `FluxTransformer2DModel`.

mod block;
mod config;
mod embed;
mod packing;

pub use config::FluxConfig;

use super::{
    error::LoadError,
    ops::{Linear, Ops},
    rope::Rope,
    weights::{ConfigFile, Weights},
};
use block::{DoubleBlock, Modulation, SingleBlock};
use candle_core::{Result, Tensor};
use embed::TimeTextEmbed;
use packing::Packing;

/// The epsilon of every normalisation in the transformer.
const EPS: f64 = 1e-6;

/// One sequence of a batch: a job, or one half of a job with true CFG.
#[derive(Clone, Debug)]
pub struct Sequence<'a> {
    /// Text embeddings [text, joint_attention_dim].
    pub text: &'a Tensor,
    /// Pooled text embedding [1, pooled_projection_dim].
    pub pooled: &'a Tensor,
    /// Packed latents [image, in_channels]: the target's tokens, then the references'.
    pub image: &'a Tensor,
    /// How many of the image tokens are the target's.
    pub target: usize,
    /// Angles of the image tokens.
    pub rope: &'a Rope,
    /// Flow time: 1 is noise, 0 the picture.
    pub time: f32,
    /// Distilled guidance; ignored by models without that embedding.
    pub guidance: f32,
}

/// The transformer with its weights.
#[derive(Debug)]
pub struct FluxTransformer {
    config: FluxConfig,
    ops: Ops,
    x_embedder: Linear,
    context_embedder: Linear,
    time_text_embed: TimeTextEmbed,
    transformer_blocks: Vec<DoubleBlock>,
    single_transformer_blocks: Vec<SingleBlock>,
    norm_out: Modulation,
    proj_out: Linear,
}

impl FluxTransformer {
    /// Builds the transformer that `config` describes from `weights`.
    ///
    /// # Errors
    /// A [`LoadError`] that names file, field or tensor.
    pub fn load(config: &ConfigFile, weights: &Weights) -> std::result::Result<Self, LoadError> {
        let config = FluxConfig::read(config)?;
        let dim = config.inner_dim();
        let blocks = weights.pp("transformer_blocks");
        let singles = weights.pp("single_transformer_blocks");
        let transformer = Self {
            ops: weights.target().ops,
            x_embedder: Linear::load(&weights.pp("x_embedder"), config.in_channels, dim)?,
            context_embedder: Linear::load(
                &weights.pp("context_embedder"),
                config.joint_attention_dim,
                dim,
            )?,
            time_text_embed: TimeTextEmbed::load(&weights.pp("time_text_embed"), &config)?,
            transformer_blocks: (0..config.num_layers)
                .map(|i| DoubleBlock::load(&blocks.pp(i), &config))
                .collect::<std::result::Result<_, _>>()?,
            single_transformer_blocks: (0..config.num_single_layers)
                .map(|i| SingleBlock::load(&singles.pp(i), &config))
                .collect::<std::result::Result<_, _>>()?,
            norm_out: Modulation::load(&weights.pp("norm_out.linear"), dim, 2)?,
            proj_out: Linear::load(&weights.pp("proj_out"), dim, config.out_channels)?,
            config,
        };
        weights.finish()?;
        Ok(transformer)
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    /// The velocity of each sequence's target tokens, [target, out_channels].
    ///
    /// # Errors
    /// Where a shape does not fit, or the device fails.
    pub fn forward(&self, sequences: &[Sequence<'_>]) -> Result<Vec<Tensor>> {
        let packing = Packing::new(sequences, self.ops, self.config.attention_head_dim / 2)?;
        let temb = self.time_text_embed.forward(sequences)?; // (sequences, dim)
        let temb = temb.silu()?; // every modulation begins with it

        let images: Vec<&Tensor> = sequences.iter().map(|s| s.image).collect();
        let texts: Vec<&Tensor> = sequences.iter().map(|s| s.text).collect();
        let mut img = self.x_embedder.forward(&Tensor::cat(&images, 0)?)?; // (images, dim)
        let mut txt = self.context_embedder.forward(&Tensor::cat(&texts, 0)?)?; // (texts, dim)
        for block in &self.transformer_blocks {
            (img, txt) = block.forward(&img, &txt, &temb, &packing)?;
        }
        let mut x = Tensor::cat(&[txt, img], 0)?; // (texts + images, dim)
        for block in &self.single_transformer_blocks {
            x = block.forward(&x, &temb, &packing)?;
        }
        // Only the targets' tokens are predicted; the references have done their part.
        let x = packing.targets(&x)?;
        let [scale, shift] = self.norm_out.forward(&temb)?;
        let x = self.ops.layer_norm_modulate(&x, EPS, &shift, &scale, &packing.target_rows)?;
        packing.split_targets(&self.proj_out.forward(&x)?)
    }
}
