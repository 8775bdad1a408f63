//! CLIP's text encoder, of which FLUX wants the pooled output.
//!
//! It sees one prompt of at most 77 tokens at a time, so plain operations serve.
//!
//! Reference: transformers 5.23.0 `CLIPTextModel`.

use super::{
    error::LoadError,
    ops::{Activation, Linear, Patches, Weighted},
    weights::{ConfigFile, Stored, Weights},
};
use candle_core::{D, DType, Result, Tensor, bail};
use candle_nn::{LayerNorm, Module};

/// The encoder with its weights.
#[derive(Debug)]
pub struct ClipTextEncoder {
    /// [vocab_size, hidden_size], of which a prompt's rows are read from the file.
    token_embedding: Stored,
    position_embedding: Tensor,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
    heads: usize,
    hidden: usize,
    positions: usize,
    eos_token_id: u32,
}

#[derive(Debug)]
struct Layer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    quick: bool,
}

impl ClipTextEncoder {
    /// Builds the encoder that `config` describes from `weights`.
    ///
    /// # Errors
    /// A [`LoadError`] that names file, field or tensor.
    pub fn load(config: &ConfigFile, weights: &Weights) -> std::result::Result<Self, LoadError> {
        config.must_be("hidden_act", &["quick_gelu", "gelu"])?;
        let hidden = config.size("hidden_size")?;
        let inner = config.size("intermediate_size")?;
        let heads = config.size("num_attention_heads")?;
        let vocabulary = config.size("vocab_size")?;
        let positions = config.size("max_position_embeddings")?;
        let eps = config.number_or("layer_norm_eps", 1e-5)?;
        let quick = config.json().get("hidden_act").is_none_or(|act| act == "quick_gelu");
        if hidden % heads != 0 {
            return Err(config.wrong(format!(
                "field hidden_size is {hidden}, expected a multiple of num_attention_heads = {heads}"
            )));
        }
        // Older writers put everything one level down, and keep a row of positions beside it.
        let nested = weights.contains("text_model.embeddings.token_embedding.weight");
        let w = if nested { weights.pp("text_model") } else { weights.clone() };
        w.allow(&["embeddings.position_ids"]);
        let norm = |w: &Weights| -> std::result::Result<LayerNorm, LoadError> {
            Ok(LayerNorm::new(w.tensor("weight", &[hidden])?, w.tensor("bias", &[hidden])?, eps))
        };
        let layer = |i: usize| -> std::result::Result<Layer, LoadError> {
            let w = w.pp("encoder.layers").pp(i);
            let attention = |name| Linear::load(&w.pp("self_attn").pp(name), hidden, hidden);
            Ok(Layer {
                layer_norm1: norm(&w.pp("layer_norm1"))?,
                q_proj: attention("q_proj")?,
                k_proj: attention("k_proj")?,
                v_proj: attention("v_proj")?,
                out_proj: attention("out_proj")?,
                layer_norm2: norm(&w.pp("layer_norm2"))?,
                fc1: Linear::load(&w.pp("mlp.fc1"), hidden, inner)?,
                fc2: Linear::load(&w.pp("mlp.fc2"), inner, hidden)?,
                quick,
            })
        };
        let embeddings = w.pp("embeddings");
        let encoder = Self {
            token_embedding: embeddings
                .pp("token_embedding")
                .stored("weight", vocabulary, hidden)?,
            position_embedding: embeddings
                .tensor("position_embedding.weight", &[positions, hidden])?,
            layers: (0..config.size("num_hidden_layers")?)
                .map(layer)
                .collect::<std::result::Result<_, _>>()?,
            final_layer_norm: norm(&w.pp("final_layer_norm"))?,
            heads,
            hidden,
            positions,
            eos_token_id: config.size_or("eos_token_id", 2)? as u32,
        };
        weights.finish()?;
        Ok(encoder)
    }

    /// The number of tokens that it takes, padding included: 77.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.positions
    }

    /// Width of the pooled output.
    #[must_use]
    pub fn width(&self) -> usize {
        self.hidden
    }

    /// The linear layers, which adapters name.
    pub fn layers(&self) -> impl Iterator<Item = &Linear> {
        let layers = self.layers.iter();
        layers.flat_map(|l| [&l.q_proj, &l.k_proj, &l.v_proj, &l.out_proj, &l.fc1, &l.fc2])
    }

    /// ids, padded to the full length, and what is added to the layers -> the pooled output
    /// [1, hidden].
    ///
    /// # Errors
    /// Where an id is outside the vocabulary, there are too many, or the device fails.
    pub fn pooled(&self, ids: &[u32], adapters: &[Weighted]) -> Result<Tensor> {
        let n = ids.len();
        let Some(rows) = self.token_embedding.rows(ids) else {
            let id = ids.iter().max().copied().unwrap_or_default();
            bail!(
                "CLIP's tokenizer gave id {id}, its model knows {} ids",
                self.token_embedding.n()
            );
        };
        let device = self.position_embedding.device();
        let x = Tensor::from_vec(rows, (n, self.hidden), device)?;
        let mut x = (x.to_dtype(self.position_embedding.dtype())?
            + self.position_embedding.narrow(0, 0, n)?)?; // (n, hidden)
        let mask: Vec<f32> = (0..n)
            .flat_map(|row| (0..n).map(move |key| if key > row { f32::NEG_INFINITY } else { 0.0 }))
            .collect();
        let mask = Tensor::from_vec(mask, (1, n, n), device)?;
        let patches = Patches::whole(n, adapters);
        for layer in &self.layers {
            x = layer.forward(&x, &mask, self.heads, &patches)?;
        }
        let x = self.final_layer_norm.forward(&x)?;
        x.narrow(0, self.pooled_position(ids), 1)
    }

    /// The first end of text. Old configurations say 2 for an id that is another in truth; there the
    /// reference takes the largest id, which is the end of text in CLIP's own vocabulary.
    fn pooled_position(&self, ids: &[u32]) -> usize {
        let wanted = match self.eos_token_id {
            2 => ids.iter().max().copied().unwrap_or_default(),
            eos => eos,
        };
        ids.iter().position(|&id| id == wanted).unwrap_or(0)
    }
}

impl Layer {
    /// x (n, hidden), mask (1, n, n) -> (n, hidden)
    fn forward(
        &self,
        x: &Tensor,
        mask: &Tensor,
        heads: usize,
        patches: &Patches,
    ) -> Result<Tensor> {
        let (n, hidden) = x.dims2()?;
        let dim = hidden / heads;
        let through =
            |layer: &Linear, x: &Tensor| layer.forward_patched(x, Activation::None, patches);
        let normed = self.layer_norm1.forward(x)?;
        let split = |linear: &Linear| -> Result<Tensor> {
            let y = through(linear, &normed)?.reshape((n, heads, dim))?;
            y.transpose(0, 1)?.contiguous() // (heads, n, dim)
        };
        let (q, k, v) = (split(&self.q_proj)?, split(&self.k_proj)?, split(&self.v_proj)?);
        let scores = q.matmul(&k.t()?.contiguous()?)?.to_dtype(DType::F32)?;
        let scores = (scores / (dim as f64).sqrt())?.broadcast_add(mask)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(x.dtype())?;
        let out = weights.matmul(&v)?.transpose(0, 1)?.reshape((n, hidden))?;
        let x = (x + through(&self.out_proj, &out)?)?;
        let hidden = through(&self.fc1, &self.layer_norm2.forward(&x)?)?;
        let hidden = if self.quick {
            (&hidden * candle_nn::ops::sigmoid(&(&hidden * 1.702)?)?)?
        } else {
            hidden.gelu_erf()?
        };
        x + through(&self.fc2, &hidden)?
    }
}
