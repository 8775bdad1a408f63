//! The autoencoder's config.json.

use super::tiles::OVERLAP;
use crate::model::{error::LoadError, weights::ConfigFile};

/// Sizes of an autoencoder, named as in the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of each level, from the picture inwards.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each level; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of a latent pixel.
    pub latent_channels: usize,
    /// Groups of every normalisation.
    pub norm_num_groups: usize,
    /// Latents are multiplied by this after the shift.
    pub scaling_factor: f64,
    /// Latents are lowered by this.
    pub shift_factor: f64,
    /// Whether the middle has attention.
    pub mid_block_add_attention: bool,
    /// Whether a 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1x1 convolution comes before the decoder.
    pub use_post_quant_conv: bool,
    /// Side of the pictures that it was trained with, and of a tile.
    pub sample_size: usize,
}

impl VaeConfig {
    pub(crate) fn read(file: &ConfigFile) -> Result<Self, LoadError> {
        file.must_be("_class_name", &["AutoencoderKL"])?;
        file.must_be("act_fn", &["silu"])?;
        file.must_be("in_channels", &["3"])?;
        file.must_be("out_channels", &["3"])?;
        let config = Self {
            block_out_channels: file.sizes("block_out_channels")?,
            layers_per_block: file.size("layers_per_block")?,
            latent_channels: file.size("latent_channels")?,
            norm_num_groups: file.size_or("norm_num_groups", 32)?,
            scaling_factor: file.number_or("scaling_factor", 0.18215)?,
            shift_factor: file.number_or("shift_factor", 0.0)?,
            mid_block_add_attention: file.flag_or("mid_block_add_attention", true)?,
            use_quant_conv: file.flag_or("use_quant_conv", true)?,
            use_post_quant_conv: file.flag_or("use_post_quant_conv", true)?,
            sample_size: file.size_or("sample_size", 32)?,
        };
        let levels = config.block_out_channels.len();
        for (field, kind) in
            [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")]
        {
            let types = file.json().get(field).and_then(|v| v.as_array());
            if types.is_none_or(|t| t.len() != levels || t.iter().any(|v| v != kind)) {
                return Err(file.wrong(format!("field {field}: expected {levels} times {kind}")));
            }
        }
        let groups = config.norm_num_groups;
        if config.block_out_channels.iter().any(|c| c % groups != 0) {
            return Err(file.wrong(format!(
                "field norm_num_groups is {groups}, which does not divide every one of \
                 block_out_channels = {:?}",
                config.block_out_channels
            )));
        }
        if config.scaling_factor == 0.0 {
            return Err(file.wrong("field scaling_factor is 0, expected another number"));
        }
        Ok(config)
    }

    /// Picture pixels along a side of a latent pixel: 8 for four levels.
    #[must_use]
    pub fn scale_factor(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Sides of a tile of a picture and of its latents. None where the part of the latents that tiles
    /// overlap by is no whole number of them.
    #[must_use]
    pub fn tile(&self) -> Option<[usize; 2]> {
        let latents = self.sample_size / self.scale_factor();
        let whole = latents > 0 && latents.is_multiple_of(OVERLAP);
        (whole && latents * self.scale_factor() == self.sample_size)
            .then_some([self.sample_size, latents])
    }
}
