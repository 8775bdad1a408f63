//! The two kinds of transformer blocks.
//!
//! Reference: diffusers `FluxTransformerBlock`, `FluxSingleTransformerBlock`, `AdaLayerNormZero`.

use super::{EPS, FluxConfig, Packing};
use crate::model::{
    error::LoadError,
    ops::{Activation, Linear, Ops, Patches, QkNorm, RowMap},
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
        Ok(Self(Linear::load_exact(weights, dim, parts * dim)?))
    }

    /// temb (sequences, dim), already through SiLU -> N times (sequences, dim)
    pub(super) fn forward<const N: usize>(
        &self,
        temb: &Tensor,
        patches: &Patches,
    ) -> Result<[Tensor; N]> {
        let all = self.0.forward_patched(temb, Activation::None, patches)?;
        let dim = temb.dim(1)?;
        let parts: Vec<Tensor> =
            (0..N).map(|i| all.narrow(1, i * dim, dim)?.contiguous()).collect::<Result<_>>()?;
        parts.try_into().map_err(|_| candle_core::Error::Msg("modulation parts".to_owned()))
    }

    pub(super) fn layer(&self) -> &Linear {
        &self.0
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
    fn forward(
        &self,
        x: &Tensor,
        cos: &Tensor,
        sin: &Tensor,
        patches: &Patches,
    ) -> Result<[Tensor; 3]> {
        let linear = |layer: &Linear| layer.forward_patched(x, Activation::None, patches);
        Ok([
            self.norm_q.forward(&linear(&self.q)?, cos, sin)?,
            self.norm_k.forward(&linear(&self.k)?, cos, sin)?,
            linear(&self.v)?,
        ])
    }

    fn layers(&self) -> [&Linear; 3] {
        [&self.q, &self.k, &self.v]
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
        (rows, patches): (&RowMap, &Patches),
    ) -> Result<Tensor> {
        let attention = self.to_out.forward_patched(attention, Activation::None, patches)?;
        let x = ops.gated_add(x, gate_msa, &attention, rows)?;
        let normed = ops.layer_norm_modulate(&x, EPS, shift_mlp, scale_mlp, rows)?;
        let hidden = self.ff_in.forward_patched(&normed, Activation::GeluTanh, patches)?; // (rows, 4 dim)
        let out = self.ff_out.forward_patched(&hidden, Activation::None, patches)?;
        ops.gated_add(&x, gate_mlp, &out, rows)
    }

    fn layers(&self) -> impl Iterator<Item = &Linear> {
        let rest = [self.norm1.layer(), &self.to_out, &self.ff_in, &self.ff_out];
        self.qkv.layers().into_iter().chain(rest)
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
            self.img.norm1.forward(temb, &packing.patches.sequences)?;
        let [t_shift, t_scale, t_gate, t_shift_mlp, t_scale_mlp, t_gate_mlp] =
            self.txt.norm1.forward(temb, &packing.patches.sequences)?;
        let (images, texts) = (packing.images, packing.texts);
        let angles = |x: &Tensor, start, rows| x.narrow(0, start, rows)?.contiguous();
        let i_rows = (&packing.image_rows, &packing.patches.images);
        let t_rows = (&packing.text_rows, &packing.patches.texts);
        let stream = |stream: &Stream, x, shift, scale, (rows, patches), start, count| {
            let normed = ops.layer_norm_modulate(x, EPS, shift, scale, rows)?;
            let cos = angles(&packing.rope.cos, start, count)?;
            let sin = angles(&packing.rope.sin, start, count)?;
            stream.qkv.forward(&normed, &cos, &sin, patches)
        };
        let [iq, ik, iv] = stream(&self.img, img, &i_shift, &i_scale, i_rows, texts, images)?;
        let [tq, tk, tv] = stream(&self.txt, txt, &t_shift, &t_scale, t_rows, 0, texts)?;

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
            self.img.finish(ops, img, &i_out, i, i_rows)?,
            self.txt.finish(ops, txt, &t_out, t, t_rows)?,
        ))
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = &Linear> {
        self.img.layers().chain(self.txt.layers())
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
        let (rows, patches) = (&packing.all_rows, &packing.patches.all);
        let [shift, scale, gate] = self.norm.forward(temb, &packing.patches.sequences)?;
        let normed = ops.layer_norm_modulate(x, EPS, &shift, &scale, rows)?;
        let out = {
            let rope = &packing.rope;
            let [q, k, v] = self.qkv.forward(&normed, &rope.cos, &rope.sin, patches)?;
            ops.attention(&q, &k, &v, self.heads, self.scale, &packing.segments)?
        };
        let hidden = self.proj_mlp.forward_patched(&normed, Activation::GeluTanh, patches)?; // (rows, 4 dim)
        drop(normed); // the next line is where a step needs the most memory
        let joined = Tensor::cat(&[out, hidden], 1)?; // (rows, 5 dim)
        let out = self.proj_out.forward_patched(&joined, Activation::None, patches)?;
        ops.gated_add(x, &gate, &out, rows)
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = &Linear> {
        let rest = [self.norm.layer(), &self.proj_mlp, &self.proj_out];
        self.qkv.layers().into_iter().chain(rest)
    }
}
