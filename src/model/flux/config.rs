//! The transformer's config.json: sizes, checked against each other.

use crate::model::{error::LoadError, weights::ConfigFile};

/// Sizes of a FLUX transformer, named as in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FluxConfig {
    /// Channels of a packed latent token: 64.
    pub in_channels: usize,
    /// Channels of the prediction: 64.
    pub out_channels: usize,
    /// Double blocks.
    pub num_layers: usize,
    /// Single blocks.
    pub num_single_layers: usize,
    /// Size of a head.
    pub attention_head_dim: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Width of the T5 embeddings.
    pub joint_attention_dim: usize,
    /// Width of the CLIP embedding.
    pub pooled_projection_dim: usize,
    /// Whether the model was distilled with a guidance embedding.
    pub guidance_embeds: bool,
    /// RoPE dimensions for channel, row and column.
    pub axes_dims_rope: [usize; 3],
}

impl FluxConfig {
    pub(crate) fn read(file: &ConfigFile) -> Result<Self, LoadError> {
        file.must_be("_class_name", &["FluxTransformer2DModel"])?;
        file.must_be("patch_size", &["1"])?;
        let in_channels = file.size("in_channels")?;
        let axes = file.sizes("axes_dims_rope")?;
        let config = Self {
            in_channels,
            out_channels: file.size_or("out_channels", in_channels)?,
            num_layers: file.size("num_layers")?,
            num_single_layers: file.size("num_single_layers")?,
            attention_head_dim: file.size("attention_head_dim")?,
            num_attention_heads: file.size("num_attention_heads")?,
            joint_attention_dim: file.size("joint_attention_dim")?,
            pooled_projection_dim: file.size("pooled_projection_dim")?,
            guidance_embeds: file.flag_or("guidance_embeds", false)?,
            axes_dims_rope: axes.as_slice().try_into().map_err(|_| {
                file.wrong(format!("field axes_dims_rope is {axes:?}, expected 3 numbers"))
            })?,
        };
        let head = config.attention_head_dim;
        if axes.iter().sum::<usize>() != head || axes.iter().any(|a| a % 2 != 0) {
            return Err(file.wrong(format!(
                "field axes_dims_rope is {axes:?}, expected even numbers whose sum is \
                 attention_head_dim = {head}"
            )));
        }
        if head > 512 {
            return Err(file.wrong(format!("field attention_head_dim is {head}, at most 512")));
        }
        Ok(config)
    }

    /// Width of the hidden state.
    #[must_use]
    pub fn inner_dim(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }
}
