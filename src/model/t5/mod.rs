//! The T5 encoder: candle-transformers' model behind this project's loading and errors.
//!
//! It sees one prompt at a time, padded to its full length and without an attention mask: the
//! length of the padding is part of what the transformer was trained on.
//!
//! Reference: transformers 5.23.0 `T5EncoderModel`.

use super::{
    error::LoadError,
    weights::{ConfigFile, Weights},
};
use candle_core::{Result, Tensor, bail};
use candle_transformers::models::t5;

/// The encoder with its weights.
#[derive(Debug)]
pub struct T5Encoder {
    model: t5::T5EncoderModel,
    width: usize,
    heads: usize,
    vocabulary: usize,
}

impl T5Encoder {
    /// Builds the encoder that `config` describes from `weights`.
    ///
    /// # Errors
    /// A [`LoadError`] that names file, field or tensor.
    pub fn load(config: &ConfigFile, weights: &Weights) -> std::result::Result<Self, LoadError> {
        config.must_be("feed_forward_proj", &["gated-gelu", "relu"])?;
        for field in ["vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads"] {
            config.size(field)?;
        }
        if config.size_or("relative_attention_num_buckets", 32)? % 2 != 0 {
            return Err(config.wrong("field relative_attention_num_buckets must be even"));
        }
        let sizes: t5::Config = serde_json::from_value(config.json().clone())
            .map_err(|error| config.wrong(error.to_string()))?;
        // The encoder's embedding is tied to the shared one; some writers keep both.
        weights.allow(&["shared.weight", "encoder.embed_tokens.weight"]);
        let model = t5::T5EncoderModel::load(weights.var_builder(), &sizes)
            .map_err(|error| weights.explain(error))?;
        weights.finish()?;
        Ok(Self {
            model,
            width: sizes.d_model,
            heads: sizes.num_heads,
            vocabulary: sizes.vocab_size,
        })
    }

    /// Width of the embeddings.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Heads of its attention.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// ids, padded to the full length -> [ids, width].
    ///
    /// # Errors
    /// Where an id is outside the vocabulary, or the device fails.
    pub fn forward(&mut self, ids: &[u32]) -> Result<Tensor> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            bail!("T5's tokenizer gave id {id}, its model knows {} ids", self.vocabulary);
        }
        let ids = Tensor::new(ids, self.model.device())?.unsqueeze(0)?;
        self.model.forward(&ids)?.squeeze(0)?.contiguous()
    }
}
