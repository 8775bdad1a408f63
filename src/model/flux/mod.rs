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
mod cache;
mod config;
mod embed;
mod packing;

pub use cache::StepCache;
pub use config::FluxConfig;

use super::{
    error::LoadError,
    ops::{Activation, Linear, Ops, Weighted},
    rope::Rope,
    weights::{ConfigFile, Stream, Weights},
};
use block::{DoubleBlock, Modulation, SingleBlock};
use candle_core::{Result, Tensor, bail};
use embed::TimeTextEmbed;
use packing::Packing;

/// The epsilon of every normalisation in the transformer.
const EPS: f64 = 1e-6;

/// One sequence of a batch: a job, or one half of a job with true CFG.
#[derive(Debug)]
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
    /// What is added to the layers for this sequence's rows.
    pub adapters: &'a [Weighted],
    /// What it keeps from step to step, where steps may be shortened.
    pub cache: Option<&'a mut StepCache>,
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
    /// The blocks' weights, double ones first.
    stream: Stream,
}

impl FluxTransformer {
    /// Builds the transformer that `config` describes from `weights`.
    ///
    /// # Errors
    /// A [`LoadError`] that names file, field or tensor.
    pub fn load(config: &ConfigFile, weights: &Weights) -> std::result::Result<Self, LoadError> {
        let config = FluxConfig::read(config)?;
        let dim = config.inner_dim();
        let doubles = weights.pp("transformer_blocks");
        let singles = weights.pp("single_transformer_blocks");
        let doubles: Vec<DoubleBlock> = (0..config.num_layers)
            .map(|i| DoubleBlock::load(&doubles.pp(i), &config))
            .collect::<std::result::Result<_, _>>()?;
        let singles: Vec<SingleBlock> = (0..config.num_single_layers)
            .map(|i| SingleBlock::load(&singles.pp(i), &config))
            .collect::<std::result::Result<_, _>>()?;
        let layers = doubles.iter().map(|block| block.layers().collect::<Vec<_>>());
        let layers = layers.chain(singles.iter().map(|block| block.layers().collect()));
        let stored = layers.map(|layers| layers.into_iter().filter_map(Linear::stored));
        let transformer = Self {
            ops: weights.target().ops,
            stream: Stream::new(weights, stored),
            x_embedder: Linear::load(&weights.pp("x_embedder"), config.in_channels, dim)?,
            context_embedder: Linear::load(
                &weights.pp("context_embedder"),
                config.joint_attention_dim,
                dim,
            )?,
            time_text_embed: TimeTextEmbed::load(&weights.pp("time_text_embed"), &config)?,
            transformer_blocks: doubles,
            single_transformer_blocks: singles,
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

    /// The linear layers, which adapters name.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        let single =
            [&self.x_embedder, &self.context_embedder, self.norm_out.layer(), &self.proj_out];
        single
            .into_iter()
            .chain(self.time_text_embed.layers())
            .chain(self.transformer_blocks.iter().flat_map(DoubleBlock::layers))
            .chain(self.single_transformer_blocks.iter().flat_map(SingleBlock::layers))
    }

    /// The velocity of each sequence's target tokens, [target, out_channels].
    ///
    /// # Errors
    /// Where a shape does not fit, or the device fails.
    pub fn forward(&self, sequences: &mut [Sequence<'_>]) -> Result<Vec<Tensor>> {
        let packing = self.pack(&sequences.iter().collect::<Vec<_>>())?;
        let (patches, none) = (&packing.patches, Activation::None);
        let temb = self.time_text_embed.forward(sequences, &patches.sequences)?; // (sequences, dim)
        let temb = temb.silu()?; // every modulation begins with it

        let images: Vec<&Tensor> = sequences.iter().map(|s| s.image).collect();
        let texts: Vec<&Tensor> = sequences.iter().map(|s| s.text).collect();
        // Joined inputs are let go at once: blocks need the room.
        let embed = |layer: &Linear, inputs: &[&Tensor], patches| {
            layer.forward_patched(&Tensor::cat(inputs, 0)?, none, patches)
        };
        let img = embed(&self.x_embedder, &images, &patches.images)?; // (images, dim)
        let txt = embed(&self.context_embedder, &texts, &patches.texts)?; // (texts, dim)
        // Only the targets' tokens are predicted; the references have done their part.
        let x = match self.transformer_blocks.split_first() {
            Some((first, others)) if sequences.iter().any(|s| s.cache.is_some()) => {
                self.cached(first, others, sequences, img, &txt, &temb, &packing)?
            }
            _ => packing.targets(&self.blocks(
                &self.transformer_blocks,
                img,
                txt,
                &temb,
                &packing,
            )?)?,
        };
        let [scale, shift] = self.norm_out.forward(&temb, &patches.sequences)?;
        let x = self.ops.layer_norm_modulate(&x, EPS, &shift, &scale, &packing.target_rows)?;
        packing.split_targets(&self.proj_out.forward_patched(&x, none, &patches.targets)?)
    }

    fn pack(&self, sequences: &[&Sequence<'_>]) -> Result<Packing> {
        Packing::new(sequences, self.ops, self.config.attention_head_dim / 2)
    }

    /// The last double blocks, `doubles`, and all single ones: img (images, dim), txt (texts, dim), temb
    /// (sequences, dim) -> (texts + images, dim)
    fn blocks(
        &self,
        doubles: &[DoubleBlock],
        mut img: Tensor,
        mut txt: Tensor,
        temb: &Tensor,
        packing: &Packing,
    ) -> Result<Tensor> {
        let (all, singles) = (self.transformer_blocks.len(), &self.single_transformer_blocks);
        for (index, block) in (all - doubles.len()..).zip(doubles) {
            let _here = self.stream.enter(index);
            (img, txt) = block.forward(&img, &txt, temb, packing)?;
        }
        let mut x = Tensor::cat(&[txt, img], 0)?;
        for (index, block) in (all..).zip(singles) {
            let _here = self.stream.enter(index);
            x = block.forward(&x, temb, packing)?;
        }
        Ok(x)
    }

    /// The first block for all sequences, the others for those whose cache does not serve: the
    /// targets' tokens behind the last block.
    fn cached(
        &self,
        first: &DoubleBlock,
        others: &[DoubleBlock],
        sequences: &mut [Sequence<'_>],
        img: Tensor,
        txt: &Tensor,
        temb: &Tensor,
        packing: &Packing,
    ) -> Result<Tensor> {
        let before = img;
        let (img, txt) = {
            let _here = self.stream.enter(0);
            first.forward(&before, txt, temb, packing)?
        };
        let heads: Vec<Tensor> = packing
            .spans
            .iter()
            .map(|[_, image]| {
                let of = |x: &Tensor| x.narrow(0, image.start, image.len());
                of(&img)? - of(&before)?
            })
            .collect::<Result<_>>()?;
        drop(before);
        let mut serves = Vec::with_capacity(sequences.len());
        for (sequence, head) in sequences.iter_mut().zip(&heads) {
            serves.push(match &mut sequence.cache {
                Some(cache) => cache.serves(head)?,
                None => false,
            });
        }

        let on = || (0..).zip(&serves).filter(|(_, serves)| !**serves).map(|(index, _)| index);
        let going: Vec<&Sequence<'_>> =
            on().filter_map(|index: usize| sequences.get(index)).collect();
        let mut lasts = Vec::new();
        if !going.is_empty() {
            let inner = self.pack(&going)?;
            let spans = || on().filter_map(|index| packing.spans.get(index).cloned());
            let img = packing::rows(&img, spans().map(|[_, image]| image))?;
            let txt = packing::rows(&txt, spans().map(|[text, _]| text))?;
            let temb = packing::rows(temb, on().map(|index| index..index + 1))?;
            let x = self.blocks(others, img, txt, &temb, &inner)?;
            lasts = inner.split_targets(&inner.targets(&x)?)?;
        }
        let mut lasts = lasts.into_iter();
        let mut targets = Vec::with_capacity(sequences.len());
        let each = sequences.iter_mut().zip(heads).zip(&packing.spans).zip(serves);
        for (((sequence, head), [_, image]), serves) in each {
            let first = img.narrow(0, image.start, sequence.target)?;
            targets.push(match &mut sequence.cache {
                Some(cache) if serves => cache.reuse(&first)?,
                cache => {
                    let Some(last) = lasts.next() else { bail!("a sequence was not computed") };
                    if let Some(cache) = cache {
                        cache.keep(head, &first, &last)?;
                    }
                    last
                }
            });
        }
        Tensor::cat(&targets, 0)
    }
}
