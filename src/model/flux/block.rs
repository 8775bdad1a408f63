//! The two kinds of transformer blocks.
//!
//! Reference: diffusers `FluxTransformerBlock`, `FluxSingleTransformerBlock`, `AdaLayerNormZero`.

use super::{EPS, FluxConfig, Packing};
use crate::model::{
    error::LoadError,
    ops::{Activation, Linear, Ops, QkNorm, RowMap},
    weights::Weights,
};
use candle_core::{Result, Tensor};

/// A linear layer from the conditioning to N vectors for each sequence.
#[derive(Debug)]
pub(super) struct Modulation(Linear);

impl Modulation {
    pub(super) fn load(
        weights: &Weights,
        dim: usize,
        parts: usize,
    ) -> std::result::Result<Self, LoadError> {
        Ok(Self(Linear::load(weights, dim, parts * dim)?))
    }

    /// temb (sequences, dim), already through SiLU -> N times (sequences, dim)
    pub(super) fn forward<const N: usize>(&self, temb: &Tensor) -> Result<[Tensor; N]> {
        let all = self.0.forward(temb)?;
        let dim = temb.dim(1)?;
        let parts: Vec<Tensor> =
            (0..N).map(|i| all.narrow(1, i * dim, dim)?.contiguous()).collect::<Result<_>>()?;
        parts.try_into().map_err(|_| candle_core::Error::Msg("modulation parts".to_owned()))
    }
}

/// Query, key and value of one stream, normalised.
#[derive(Debug)]
struct Qkv {
    q: Linear,
    k: Linear,
    v: Linear,
    norm_q: QkNorm,
    norm_k: QkNorm,
}

impl Qkv {
    fn load(
        weights: &Weights,
        config: &FluxConfig,
        names: [&str; 5],
    ) -> std::result::Result<Self, LoadError> {
        let (dim, head) = (config.inner_dim(), config.attention_head_dim);
        let linear = |name| Linear::load(&weights.pp(name), dim, dim);
        Ok(Self {
            q: linear(names[0])?,
            k: linear(names[1])?,
            v: linear(names[2])?,
            norm_q: QkNorm::load(&weights.pp(names[3]), head, EPS)?,
            norm_k: QkNorm::load(&weights.pp(names[4]), head, EPS)?,
        })
    }

    /// x (rows, dim), angles of its rows -> q, k, v (rows, dim)
    fn forward(&self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<[Tensor; 3]> {
        Ok([
            self.norm_q.forward(&self.q.forward(x)?, cos, sin)?,
            self.norm_k.forward(&self.k.forward(x)?, cos, sin)?,
            self.v.forward(x)?,
        ])
    }
}

/// What one stream of a double block has for itself.
#[derive(Debug)]
struct Stream {
    norm1: Modulation,
    qkv: Qkv,
    to_out: Linear,
    ff_in: Linear,
    ff_out: Linear,
}

impl Stream {
    fn load(
        weights: &Weights,
        config: &FluxConfig,
        norm1: &str,
        qkv: [&str; 5],
        to_out: &str,
        ff: &str,
    ) -> std::result::Result<Self, LoadError> {
        let dim = config.inner_dim();
        Ok(Self {
            norm1: Modulation::load(&weights.pp(norm1).pp("linear"), dim, 6)?,
            qkv: Qkv::load(&weights.pp("attn"), config, qkv)?,
            to_out: Linear::load(&weights.pp("attn").pp(to_out), dim, dim)?,
            ff_in: Linear::load(&weights.pp(ff).pp("net.0.proj"), dim, 4 * dim)?,
            ff_out: Linear::load(&weights.pp(ff).pp("net.2"), 4 * dim, dim)?,
        })
    }

    /// The stream after attention: gated residual, then the gated feed-forward.
    fn finish(
        &self,
        ops: Ops,
        x: &Tensor,
        attention: &Tensor,
        [gate_msa, shift_mlp, scale_mlp, gate_mlp]: [&Tensor; 4],
        rows: &RowMap,
    ) -> Result<Tensor> {
        let x = ops.gated_add(x, gate_msa, &self.to_out.forward(attention)?, rows)?;
        let normed = ops.layer_norm_modulate(&x, EPS, shift_mlp, scale_mlp, rows)?;
        let hidden = self.ff_in.forward_act(&normed, Activation::GeluTanh)?; // (rows, 4 dim)
        ops.gated_add(&x, gate_mlp, &self.ff_out.forward(&hidden)?, rows)
    }
}

/// Text and image with weights of their own, joined in attention.
#[derive(Debug)]
pub(super) struct DoubleBlock {
    ops: Ops,
    heads: usize,
    scale: f32,
    img: Stream,
    txt: Stream,
}

impl DoubleBlock {
    pub(super) fn load(
        weights: &Weights,
        config: &FluxConfig,
    ) -> std::result::Result<Self, LoadError> {
        Ok(Self {
            ops: weights.target().ops,
            heads: config.num_attention_heads,
            scale: (config.attention_head_dim as f32).sqrt().recip(),
            img: Stream::load(
                weights,
                config,
                "norm1",
                ["to_q", "to_k", "to_v", "norm_q", "norm_k"],
                "to_out.0",
                "ff",
            )?,
            txt: Stream::load(
                weights,
                config,
                "norm1_context",
                ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"],
                "to_add_out",
                "ff_context",
            )?,
        })
    }

    /// img (images, dim), txt (texts, dim), temb (sequences, dim) -> img, txt
    pub(super) fn forward(
        &self,
        img: &Tensor,
        txt: &Tensor,
        temb: &Tensor,
        packing: &Packing,
    ) -> Result<(Tensor, Tensor)> {
        let ops = self.ops;
        let [i_shift, i_scale, i_gate, i_shift_mlp, i_scale_mlp, i_gate_mlp] =
            self.img.norm1.forward(temb)?;
        let [t_shift, t_scale, t_gate, t_shift_mlp, t_scale_mlp, t_gate_mlp] =
            self.txt.norm1.forward(temb)?;
        let (images, texts) = (packing.images, packing.texts);
        let angles = |x: &Tensor, start, rows| x.narrow(0, start, rows)?.contiguous();
        let stream = |stream: &Stream, x, shift, scale, rows, start, count| {
            let normed = ops.layer_norm_modulate(x, EPS, shift, scale, rows)?;
            let cos = angles(&packing.rope.cos, start, count)?;
            let sin = angles(&packing.rope.sin, start, count)?;
            stream.qkv.forward(&normed, &cos, &sin)
        };
        let [iq, ik, iv] =
            stream(&self.img, img, &i_shift, &i_scale, &packing.image_rows, texts, images)?;
        let [tq, tk, tv] =
            stream(&self.txt, txt, &t_shift, &t_scale, &packing.text_rows, 0, texts)?;

        let join = |t: Tensor, i: Tensor| Tensor::cat(&[t, i], 0);
        let out = {
            let (q, k, v) = (join(tq, iq)?, join(tk, ik)?, join(tv, iv)?); // (texts + images, dim)
            ops.attention(&q, &k, &v, self.heads, self.scale, &packing.segments)?
        };
        let t_out = out.narrow(0, 0, texts)?.contiguous()?;
        let i_out = out.narrow(0, texts, images)?.contiguous()?;

        let i = [&i_gate, &i_shift_mlp, &i_scale_mlp, &i_gate_mlp];
        let t = [&t_gate, &t_shift_mlp, &t_scale_mlp, &t_gate_mlp];
        Ok((
            self.img.finish(ops, img, &i_out, i, &packing.image_rows)?,
            self.txt.finish(ops, txt, &t_out, t, &packing.text_rows)?,
        ))
    }
}

/// Text and image as one stream, attention beside the feed-forward.
#[derive(Debug)]
pub(super) struct SingleBlock {
    ops: Ops,
    heads: usize,
    scale: f32,
    norm: Modulation,
    qkv: Qkv,
    proj_mlp: Linear,
    proj_out: Linear,
}

impl SingleBlock {
    pub(super) fn load(
        weights: &Weights,
        config: &FluxConfig,
    ) -> std::result::Result<Self, LoadError> {
        let dim = config.inner_dim();
        Ok(Self {
            ops: weights.target().ops,
            heads: config.num_attention_heads,
            scale: (config.attention_head_dim as f32).sqrt().recip(),
            norm: Modulation::load(&weights.pp("norm.linear"), dim, 3)?,
            qkv: Qkv::load(
                &weights.pp("attn"),
                config,
                ["to_q", "to_k", "to_v", "norm_q", "norm_k"],
            )?,
            proj_mlp: Linear::load(&weights.pp("proj_mlp"), dim, 4 * dim)?,
            proj_out: Linear::load(&weights.pp("proj_out"), 5 * dim, dim)?,
        })
    }

    /// x (texts + images, dim), temb (sequences, dim) -> x
    pub(super) fn forward(&self, x: &Tensor, temb: &Tensor, packing: &Packing) -> Result<Tensor> {
        let ops = self.ops;
        let rows = &packing.all_rows;
        let [shift, scale, gate] = self.norm.forward(temb)?;
        let normed = ops.layer_norm_modulate(x, EPS, &shift, &scale, rows)?;
        let out = {
            let [q, k, v] = self.qkv.forward(&normed, &packing.rope.cos, &packing.rope.sin)?;
            ops.attention(&q, &k, &v, self.heads, self.scale, &packing.segments)?
        };
        let hidden = self.proj_mlp.forward_act(&normed, Activation::GeluTanh)?; // (rows, 4 dim)
        drop(normed); // the next line is where a step needs the most memory
        let joined = Tensor::cat(&[out, hidden], 1)?; // (rows, 5 dim)
        ops.gated_add(x, &gate, &self.proj_out.forward(&joined)?, rows)
    }
}
