//! The stages of the encoder and the decoder, in the order in which they run.
//!
//! Reference: diffusers `Encoder`, `Decoder`, `ResnetBlock2D`, `UNetMidBlock2D`.

use super::VaeConfig;
use crate::model::{
    error::LoadError,
    ops::{Bands, Conv2d, Form, GroupNorm, PixelAttention},
    weights::Weights,
};
use candle_core::{Result, Tensor};

const EPS: f64 = 1e-6;

type Loaded<T> = std::result::Result<T, LoadError>;

/// An operation of a pass.
#[derive(Debug)]
pub(super) enum Stage {
    /// The picture through a convolution; `add`: then what was kept is added, and no longer kept.
    Conv { conv: Conv2d, add: bool },
    /// The picture through a normalisation; `keep`: what it was before is kept.
    Norm { norm: GroupNorm, keep: bool },
    /// What was kept through a convolution.
    Shortcut(Conv2d),
    /// The picture through attention, and what was kept added.
    Attention(Box<PixelAttention>),
}

/// What a pass holds.
#[derive(Debug)]
pub(super) struct State {
    pub(super) x: Tensor,
    /// The input of the residual block that the pass is in.
    pub(super) kept: Option<Tensor>,
    /// Where the operation at hand stands.
    pub(super) bands: Bands,
}

impl Stage {
    /// Runs the next unit of the operation. Whether that was its last.
    pub(super) fn advance(&self, state: &mut State) -> Result<bool> {
        let State { x, kept, bands } = state;
        let y = match self {
            Stage::Conv { conv, add } => conv.advance(bands, x, kept.as_ref().filter(|_| *add))?,
            Stage::Norm { norm, .. } => norm.advance(bands, x)?,
            Stage::Shortcut(conv) => conv.advance(bands, input(kept)?, None)?,
            Stage::Attention(attention) => attention.advance(bands, x, input(kept)?)?,
        };
        let Some(y) = y else { return Ok(false) };
        match self {
            Stage::Shortcut(_) => *kept = Some(y),
            Stage::Norm { keep: true, .. } => *kept = Some(std::mem::replace(x, y)),
            Stage::Conv { add: true, .. } | Stage::Attention(_) => (*x, *kept) = (y, None),
            Stage::Conv { .. } | Stage::Norm { .. } => *x = y,
        }
        Ok(true)
    }
}

fn input(kept: &Option<Tensor>) -> Result<&Tensor> {
    kept.as_ref().ok_or_else(|| candle_core::Error::msg("no block's input was kept"))
}

/// norm, SiLU, conv, norm, SiLU, conv, and the input added.
fn resnet(
    weights: &Weights,
    cin: usize,
    cout: usize,
    groups: usize,
    stages: &mut Vec<Stage>,
) -> Loaded<()> {
    let norm = |name: &str, c| GroupNorm::load(&weights.pp(name), c, groups, EPS, true);
    stages.push(Stage::Norm { norm: norm("norm1", cin)?, keep: true });
    stages.push(conv(&weights.pp("conv1"), cin, cout, 3, Form::Same)?);
    // Here the input and the picture are all there is: later or earlier there would be more.
    if cin != cout {
        let shortcut = weights.pp("conv_shortcut");
        stages.push(Stage::Shortcut(Conv2d::load(&shortcut, cin, cout, 1, Form::Same)?));
    }
    stages.push(Stage::Norm { norm: norm("norm2", cout)?, keep: false });
    let conv = Conv2d::load(&weights.pp("conv2"), cout, cout, 3, Form::Same)?;
    stages.push(Stage::Conv { conv, add: true });
    Ok(())
}

/// norm, attention of one head over all pixels, and the input added.
fn attention(weights: &Weights, c: usize, groups: usize, stages: &mut Vec<Stage>) -> Loaded<()> {
    let norm = GroupNorm::load(&weights.pp("group_norm"), c, groups, EPS, false)?;
    stages.push(Stage::Norm { norm, keep: true });
    stages.push(Stage::Attention(Box::new(PixelAttention::load(weights, c)?)));
    Ok(())
}

/// resnet, attention, resnet at the innermost level.
fn middle(weights: &Weights, config: &VaeConfig, c: usize, stages: &mut Vec<Stage>) -> Loaded<()> {
    let groups = config.norm_num_groups;
    let mid = weights.pp("mid_block");
    resnet(&mid.pp("resnets.0"), c, c, groups, stages)?;
    if config.mid_block_add_attention {
        attention(&mid.pp("attentions.0"), c, groups, stages)?;
    }
    resnet(&mid.pp("resnets.1"), c, c, groups, stages)
}

fn conv(weights: &Weights, cin: usize, cout: usize, kernel: usize, form: Form) -> Loaded<Stage> {
    let conv = Conv2d::load(weights, cin, cout, kernel, form)?;
    Ok(Stage::Conv { conv, add: false })
}

fn finish(weights: &Weights, config: &VaeConfig, c: usize, cout: usize) -> Loaded<[Stage; 2]> {
    let norm = weights.pp("conv_norm_out");
    let norm = GroupNorm::load(&norm, c, config.norm_num_groups, EPS, true)?;
    Ok([Stage::Norm { norm, keep: false }, conv(&weights.pp("conv_out"), c, cout, 3, Form::Same)?])
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
            let layer = block.pp("resnets").pp(layer);
            resnet(&layer, c, cout, config.norm_num_groups, &mut stages)?;
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
            let layer = block.pp("resnets").pp(layer);
            resnet(&layer, c, cout, config.norm_num_groups, &mut stages)?;
            c = cout;
        }
        if level + 1 < channels.len() {
            stages.push(conv(&block.pp("upsamplers.0.conv"), c, c, 3, Form::Double)?);
        }
    }
    stages.extend(finish(&decoder, config, c, 3)?);
    Ok(stages)
}
