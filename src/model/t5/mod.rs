//! The T5 encoder.
//!
//! It sees one prompt at a time, padded to its full length and without an attention mask: the
//! length of the padding is part of what the transformer was trained on. A pass is walked a block at
//! a time, so that whoever runs it can do other work in between. Of the table of embeddings, a
//! quarter of a gigabyte in the released model, only the rows of the prompt are ever read.
//!
//! Reference: transformers 5.23.0 `T5EncoderModel`.

mod block;
mod config;

pub use config::T5Config;

use super::{
    error::LoadError,
    ops::{Linear, RelativeBias, RmsNorm},
    weights::{ConfigFile, Stored, Stream, Target, Weights},
};
use block::Block;
use candle_core::{Result, Tensor, bail};

/// The encoder with its weights.
#[derive(Debug)]
pub struct T5Encoder {
    config: T5Config,
    /// [vocab_size, d_model], of which a prompt's rows are read from the file.
    embedding: Stored,
    target: Target,
    /// `relative_attention_bias` [buckets, heads], which all blocks share.
    bias: Vec<f32>,
    blocks: Vec<Block>,
    /// The blocks' weights.
    stream: Stream,
    final_layer_norm: RmsNorm,
}

/// A prompt under way.
#[derive(Debug)]
pub struct Pass {
    x: Tensor,
    bias: RelativeBias,
    next: usize,
}

impl Pass {
    /// Blocks behind and in all.
    #[must_use]
    pub fn progress(&self, encoder: &T5Encoder) -> (usize, usize) {
        (self.next, encoder.blocks.len())
    }
}

impl T5Encoder {
    /// Builds the encoder that `config` describes from `weights`.
    ///
    /// # Errors
    /// A [`LoadError`] that names file, field or tensor.
    pub fn load(config: &ConfigFile, weights: &Weights) -> std::result::Result<Self, LoadError> {
        let config = T5Config::read(config)?;
        // The encoder's embedding is tied to the shared one; some writers keep both.
        weights.allow(&["shared.weight", "encoder.embed_tokens.weight"]);
        let encoder = weights.pp("encoder");
        let shared = weights.contains("shared.weight") || !encoder.contains("embed_tokens.weight");
        let embedding = if shared { weights.pp("shared") } else { encoder.pp("embed_tokens") };
        let embedding = embedding.stored("weight", config.vocab_size, config.d_model)?;
        let blocks = encoder.pp("block");
        let buckets = [config.relative_attention_num_buckets, config.num_heads];
        let bias = blocks
            .pp("0.layer.0.SelfAttention.relative_attention_bias")
            .host("weight", &buckets)?;
        let norm = encoder.pp("final_layer_norm");
        let blocks: Vec<Block> = (0..config.num_layers)
            .map(|i| Block::load(&blocks.pp(i), &config))
            .collect::<std::result::Result<_, _>>()?;
        let layers = blocks.iter().map(|block| block.layers().filter_map(Linear::stored));
        let encoder = Self {
            stream: Stream::new(weights, layers),
            embedding,
            target: weights.target().clone(),
            bias,
            blocks,
            final_layer_norm: RmsNorm::load(&norm, config.d_model, config.layer_norm_epsilon)?,
            config,
        };
        weights.finish()?;
        Ok(encoder)
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Begins to encode `ids`, padded to the full length.
    ///
    /// # Errors
    /// Where an id is outside the vocabulary, or the device fails.
    pub fn encode(&self, ids: &[u32]) -> Result<Pass> {
        let T5Config { vocab_size, d_model, num_heads, .. } = self.config;
        let Some(rows) = self.embedding.rows(ids) else {
            let id = ids.iter().max().copied().unwrap_or_default();
            bail!("T5's tokenizer gave id {id}, its model knows {vocab_size} ids");
        };
        let target = &self.target;
        let x = Tensor::from_vec(rows, (ids.len(), d_model), &target.device)?;
        let bias = RelativeBias::new(self.bias(ids.len()), num_heads, target.ops, &target.device)?;
        Ok(Pass { x: x.to_dtype(target.dtype)?, bias, next: 0 })
    }

    /// What each head adds for each distance that `n` rows have, [heads, 2 n - 1].
    fn bias(&self, n: usize) -> Vec<f32> {
        let heads = self.config.num_heads;
        let farthest = n.saturating_sub(1) as isize;
        let buckets: Vec<usize> =
            (-farthest..=farthest).map(|distance| self.config.bucket(distance)).collect();
        let of_head =
            |head| buckets.iter().filter_map(move |bucket| self.bias.get(bucket * heads + head));
        (0..heads).flat_map(of_head).copied().collect()
    }

    /// Runs the next block. After the last gives the embeddings [ids, d_model].
    ///
    /// # Errors
    /// Where the device fails.
    pub fn advance(&self, pass: &mut Pass) -> Result<Option<Tensor>> {
        if let Some(block) = self.blocks.get(pass.next) {
            let _here = self.stream.enter(pass.next);
            pass.x = block.forward(&pass.x, &pass.bias)?;
            pass.next += 1;
        }
        if pass.next < self.blocks.len() {
            return Ok(None);
        }
        self.final_layer_norm.forward(&pass.x).map(Some)
    }
}
