//! The stages of the encoder and the decoder, in the order in which they run.
//!
//! Reference: diffusers `Encoder`, `Decoder`, `ResnetBlock2D`, `UNetMidBlock2D`.

use super::VaeConfig;
use crate::model::{
    error::LoadError,
    ops::{Conv2d, Form, GroupNorm, Linear, Ops, Segment},
    weights::Weights,
};
use candle_core::{Result, Tensor};

const EPS: f64 = 1e-6;

type Loaded<T> = std::result::Result<T, LoadError>;

/// A step of a pass that is not cut further.
#[derive(Debug)]
pub(super) enum Stage {
    Conv(Conv2d),
    Norm(GroupNorm),
    Resnet(Box<Resnet>),
    Attention(Box<Attention>),
}

impl Stage {
    /// x (h, w, c) -> (h', w', c')
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Stage::Conv(conv) => conv.forward(x),
            Stage::Norm(norm) => norm.forward(x),
            Stage::Resnet(resnet) => resnet.forward(x),
            Stage::Attention(attention) => attention.forward(x),
        }
    }
}

/// norm, SiLU, conv, norm, SiLU, conv, and the input added.
#[derive(Debug)]
pub(super) struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl Resnet {
    fn load(weights: &Weights, cin: usize, cout: usize, groups: usize) -> Loaded<Stage> {
        let conv = |name: &str, cin, kernel| {
            Conv2d::load(&weights.pp(name), cin, cout, kernel, Form::Same)
        };
        Ok(Stage::Resnet(Box::new(Self {
            norm1: GroupNorm::load(&weights.pp("norm1"), cin, groups, EPS, true)?,
            conv1: conv("conv1", cin, 3)?,
            norm2: GroupNorm::load(&weights.pp("norm2"), cout, groups, EPS, true)?,
            conv2: conv("conv2", cout, 3)?,
            conv_shortcut: if cin == cout { None } else { Some(conv("conv_shortcut", cin, 1)?) },
        })))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // One name for all: each result is dropped once the next is there.
        let mut h = self.norm1.forward(x)?;
        h = self.conv1.forward(&h)?;
        h = self.norm2.forward(&h)?;
        h = self.conv2.forward(&h)?;
        match &self.conv_shortcut {
            Some(conv) => conv.forward(x)? + h,
            None => x + h,
        }
    }
}

/// Attention of one head over all pixels.
#[derive(Debug)]
pub(super) struct Attention {
    ops: Ops,
    channels: usize,
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn load(weights: &Weights, channels: usize, groups: usize) -> Loaded<Stage> {
        let linear = |name: &str| Linear::load(&weights.pp(name), channels, channels);
        Ok(Stage::Attention(Box::new(Self {
            ops: weights.target().ops,
            channels,
            group_norm: GroupNorm::load(&weights.pp("group_norm"), channels, groups, EPS, false)?,
            to_q: linear("to_q")?,
            to_k: linear("to_k")?,
            to_v: linear("to_v")?,
            to_out: linear("to_out.0")?,
        })))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (h, w, c) = x.dims3()?;
        let rows = self.group_norm.forward(x)?.reshape((h * w, c))?;
        let (q, k, v) =
            (self.to_q.forward(&rows)?, self.to_k.forward(&rows)?, self.to_v.forward(&rows)?);
        let scale = (self.channels as f32).sqrt().recip();
        let whole = [Segment { ranges: [0..h * w, 0..0] }];
        let out = self.ops.attention(&q, &k, &v, 1, scale, &whole)?;
        x + self.to_out.forward(&out)?.reshape((h, w, c))?
    }
}

/// resnet, attention, resnet at the innermost level.
fn middle(weights: &Weights, config: &VaeConfig, c: usize, stages: &mut Vec<Stage>) -> Loaded<()> {
    let groups = config.norm_num_groups;
    let mid = weights.pp("mid_block");
    stages.push(Resnet::load(&mid.pp("resnets.0"), c, c, groups)?);
    if config.mid_block_add_attention {
        stages.push(Attention::load(&mid.pp("attentions.0"), c, groups)?);
    }
    stages.push(Resnet::load(&mid.pp("resnets.1"), c, c, groups)?);
    Ok(())
}

fn conv(weights: &Weights, cin: usize, cout: usize, kernel: usize, form: Form) -> Loaded<Stage> {
    Ok(Stage::Conv(Conv2d::load(weights, cin, cout, kernel, form)?))
}

fn finish(weights: &Weights, config: &VaeConfig, c: usize, cout: usize) -> Loaded<[Stage; 2]> {
    let norm = weights.pp("conv_norm_out");
    Ok([
        Stage::Norm(GroupNorm::load(&norm, c, config.norm_num_groups, EPS, true)?),
        conv(&weights.pp("conv_out"), c, cout, 3, Form::Same)?,
    ])
}

/// Picture (h, w, 3) -> (h / f, w / f, 2 * latent_channels).
pub(super) fn encoder(config: &VaeConfig, weights: &Weights) -> Loaded<Vec<Stage>> {
    let encoder = weights.pp("encoder");
    let channels = &config.block_out_channels;
    let (first, last) = (channels[0], channels[channels.len() - 1]);
    let mut stages = vec![conv(&encoder.pp("conv_in"), 3, first, 3, Form::Same)?];
    let mut c = first;
    for (level, &cout) in channels.iter().enumerate() {
        let block = encoder.pp("down_blocks").pp(level);
        for layer in 0..config.layers_per_block {
            let resnet = block.pp("resnets").pp(layer);
            stages.push(Resnet::load(&resnet, c, cout, config.norm_num_groups)?);
            c = cout;
        }
        if level + 1 < channels.len() {
            stages.push(conv(&block.pp("downsamplers.0.conv"), c, c, 3, Form::Halve)?);
        }
    }
    middle(&encoder, config, last, &mut stages)?;
    let moments = 2 * config.latent_channels;
    stages.extend(finish(&encoder, config, last, moments)?);
    if config.use_quant_conv {
        stages.push(conv(&weights.pp("quant_conv"), moments, moments, 1, Form::Same)?);
    }
    Ok(stages)
}

/// Latents (h / f, w / f, latent_channels) -> picture (h, w, 3).
pub(super) fn decoder(config: &VaeConfig, weights: &Weights) -> Loaded<Vec<Stage>> {
    let decoder = weights.pp("decoder");
    let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
    let latent = config.latent_channels;
    let mut stages = Vec::new();
    if config.use_post_quant_conv {
        stages.push(conv(&weights.pp("post_quant_conv"), latent, latent, 1, Form::Same)?);
    }
    let mut c = channels[0];
    stages.push(conv(&decoder.pp("conv_in"), latent, c, 3, Form::Same)?);
    middle(&decoder, config, c, &mut stages)?;
    for (level, &cout) in channels.iter().enumerate() {
        let block = decoder.pp("up_blocks").pp(level);
        for layer in 0..=config.layers_per_block {
            let resnet = block.pp("resnets").pp(layer);
            stages.push(Resnet::load(&resnet, c, cout, config.norm_num_groups)?);
            c = cout;
        }
        if level + 1 < channels.len() {
            stages.push(conv(&block.pp("upsamplers.0.conv"), c, c, 3, Form::Double)?);
        }
    }
    stages.extend(finish(&decoder, config, c, 3)?);
    Ok(stages)
}
