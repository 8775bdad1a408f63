//! The autoencoder between pictures and latents.
//!
//! A pass through it is a list of operations that can be walked a unit at a time, so that whoever
//! runs it can do other work in between; where the cuts fall never changes a byte. A unit is a band
//! of an operation on a CPU ([`UNIT`](super::ops::UNIT)), a whole operation on a GPU. Pictures and
//! latents are channel-last, [height, width, channels]. Any `block_out_channels`,
//! `layers_per_block` and `norm_num_groups` from config.json.
//!
//! Reference: diffusers `AutoencoderKL`. A reference picture is encoded to the *mean* of its
//! distribution, never a sample of it.

mod config;
mod stage;

pub use config::VaeConfig;

use super::{
    error::LoadError,
    ops::Bands,
    weights::{ConfigFile, Weights},
};
use candle_core::{Result, Tensor};
use stage::{Stage, State};

/// The autoencoder with its weights.
#[derive(Debug)]
pub struct Vae {
    config: VaeConfig,
    encoder: Vec<Stage>,
    decoder: Vec<Stage>,
}

/// A pass under way.
#[derive(Debug)]
pub struct Pass {
    state: State,
    next: usize,
    encoding: bool,
}

impl Pass {
    fn new(x: Tensor, encoding: bool) -> Self {
        Self { state: State { x, kept: None, bands: Bands::default() }, next: 0, encoding }
    }

    /// Operations behind and in all.
    #[must_use]
    pub fn progress(&self, vae: &Vae) -> (usize, usize) {
        (self.next, vae.stages(self.encoding).len())
    }

    /// Multiply-adds so far, as units are measured; of stock operations none.
    #[must_use]
    pub fn spent(&self) -> u64 {
        self.state.bands.spent()
    }
}

impl Vae {
    /// Builds the autoencoder that `config` describes from `weights`.
    ///
    /// # Errors
    /// A [`LoadError`] that names file, field or tensor.
    pub fn load(config: &ConfigFile, weights: &Weights) -> std::result::Result<Self, LoadError> {
        let config = VaeConfig::read(config)?;
        let encoder = stage::encoder(&config, weights)?;
        let decoder = stage::decoder(&config, weights)?;
        weights.finish()?;
        Ok(Self { config, encoder, decoder })
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    fn stages(&self, encoding: bool) -> &[Stage] {
        if encoding { &self.encoder } else { &self.decoder }
    }

    /// Begins to encode `picture` [h, w, 3] in -1..1, h and w multiples of the scale factor.
    #[must_use]
    pub fn encode(&self, picture: Tensor) -> Pass {
        Pass::new(picture, true)
    }

    /// Begins to decode `latents` [h / f, w / f, latent_channels], as the transformer has them.
    ///
    /// # Errors
    /// The device's failure.
    pub fn decode(&self, latents: &Tensor) -> Result<Pass> {
        let x = latents.affine(1.0 / self.config.scaling_factor, self.config.shift_factor)?;
        Ok(Pass::new(x, false))
    }

    /// Runs the next unit. At the end gives the result: latents [h / f, w / f, latent_channels] as
    /// the transformer wants them, or a picture [h, w, 3] in about -1..1.
    ///
    /// # Errors
    /// Where a shape does not fit, or the device fails.
    pub fn advance(&self, pass: &mut Pass) -> Result<Option<Tensor>> {
        let stages = self.stages(pass.encoding);
        if let Some(stage) = stages.get(pass.next) {
            pass.next += usize::from(stage.advance(&mut pass.state)?);
        }
        if pass.next < stages.len() {
            return Ok(None);
        }
        if !pass.encoding {
            return Ok(Some(pass.state.x.clone()));
        }
        // (h, w, 2 * latent_channels): the mean, then the logarithm of the variance, which we ignore
        let VaeConfig { latent_channels, scaling_factor, shift_factor, .. } = self.config;
        let mean = pass.state.x.narrow(2, 0, latent_channels)?.contiguous()?;
        Ok(Some(mean.affine(scaling_factor, -shift_factor * scaling_factor)?))
    }
}
