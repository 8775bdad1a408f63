//! A block of the encoder: attention within the prompt, then the feed-forward.
//!
//! Reference: transformers `T5LayerSelfAttention`, `T5LayerFF`, `T5DenseGatedActDense`,
//! `T5DenseActDense`.

use super::T5Config;
use crate::model::{
    error::LoadError,
    ops::{Activation, Linear, Ops, RelativeBias, RmsNorm, Segment},
    weights::Weights,
};
use candle_core::{Result, Tensor};

type Loaded<T> = std::result::Result<T, LoadError>;

/// A block with its weights.
#[derive(Debug)]
pub(super) struct Block {
    attention: SelfAttention,
    feed_forward: FeedForward,
}

impl Block {
    pub(super) fn load(weights: &Weights, config: &T5Config) -> Loaded<Self> {
        let layer = weights.pp("layer");
        Ok(Self {
            attention: SelfAttention::load(&layer.pp(0), config)?,
            feed_forward: FeedForward::load(&layer.pp(1), config)?,
        })
    }

    /// x (rows, d_model) -> x
    pub(super) fn forward(&self, x: &Tensor, bias: &RelativeBias) -> Result<Tensor> {
        self.feed_forward.forward(&self.attention.forward(x, bias)?)
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = &Linear> {
        let SelfAttention { q, k, v, o, .. } = &self.attention;
        let wi = match &self.feed_forward.wi {
            Input::Gated { wi_0, wi_1 } => [Some(wi_0), Some(wi_1)],
            Input::Plain(wi) => [Some(wi), None],
        };
        [q, k, v, o, &self.feed_forward.wo].into_iter().chain(wi.into_iter().flatten())
    }
}

#[derive(Debug)]
struct SelfAttention {
    ops: Ops,
    layer_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
}

impl SelfAttention {
    fn load(weights: &Weights, config: &T5Config) -> Loaded<Self> {
        let (width, inner) = (config.d_model, config.inner_dim());
        let w = weights.pp("SelfAttention");
        let linear = |name| Linear::load_without_bias(&w.pp(name), width, inner);
        Ok(Self {
            ops: weights.target().ops,
            layer_norm: norm(weights, config)?,
            q: linear("q")?,
            k: linear("k")?,
            v: linear("v")?,
            o: Linear::load_without_bias(&w.pp("o"), inner, width)?,
        })
    }

    fn forward(&self, x: &Tensor, bias: &RelativeBias) -> Result<Tensor> {
        let out = {
            let normed = self.layer_norm.forward(x)?;
            // (rows, heads * d_kv)
            let (q, k) = (self.q.forward(&normed)?, self.k.forward(&normed)?);
            let v = self.v.forward(&normed)?;
            drop(normed);
            let whole = [Segment { ranges: [0..x.dim(0)?, 0..0] }];
            // T5 was trained without the usual scale.
            self.ops.attention_biased(&q, &k, &v, 1.0, bias, &whole)?
        };
        x + self.o.forward(&out)?
    }
}

#[derive(Debug)]
struct FeedForward {
    layer_norm: RmsNorm,
    wi: Input,
    wo: Linear,
}

#[derive(Debug)]
enum Input {
    Gated { wi_0: Linear, wi_1: Linear },
    Plain(Linear),
}

impl FeedForward {
    fn load(weights: &Weights, config: &T5Config) -> Loaded<Self> {
        let (width, inner) = (config.d_model, config.d_ff);
        let w = weights.pp("DenseReluDense");
        let linear = |name| Linear::load_without_bias(&w.pp(name), width, inner);
        let wi = if config.gated {
            Input::Gated { wi_0: linear("wi_0")?, wi_1: linear("wi_1")? }
        } else {
            Input::Plain(linear("wi")?)
        };
        let wo = Linear::load_without_bias(&w.pp("wo"), inner, width)?;
        Ok(Self { layer_norm: norm(weights, config)?, wi, wo })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let normed = self.layer_norm.forward(x)?;
        // (rows, d_ff)
        let hidden = match &self.wi {
            Input::Gated { wi_0, wi_1 } => {
                let gate = wi_0.forward_act(&normed, Activation::GeluTanh)?;
                let hidden = wi_1.forward(&normed)?;
                drop(normed); // the next line is where a block needs the most memory
                (gate * hidden)?
            }
            Input::Plain(wi) => {
                let hidden = wi.forward(&normed)?;
                drop(normed);
                hidden.relu()?
            }
        };
        x + self.wo.forward(&hidden)?
    }
}

fn norm(weights: &Weights, config: &T5Config) -> Loaded<RmsNorm> {
    RmsNorm::load(&weights.pp("layer_norm"), config.d_model, config.layer_norm_epsilon)
}
