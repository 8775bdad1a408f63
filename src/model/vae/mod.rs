//! The autoencoder between pictures and latents.
//!
//! A pass through it is a list of operations that can be walked a unit at a time, so that whoever
//! runs it can do other work in between; where the cuts fall never changes a byte. A unit is a band
//! of an operation on a CPU ([`UNIT`](super::ops::UNIT)), a whole operation on a GPU. Pictures and
//! latents are channel-last, [height, width, channels]. Any `block_out_channels`,
//! `layers_per_block` and `norm_num_groups` from config.json. Where a whole picture would take too
//! much memory, a pass goes over tiles of it.
//!
//! Reference: diffusers `AutoencoderKL`. A reference picture is encoded to the *mean* of its
//! distribution, never a sample of it.

mod config;
mod stage;
mod tiles;

pub use config::VaeConfig;

use super::{
    error::LoadError,
    ops::Bands,
    weights::{ConfigFile, Weights},
};
use candle_core::{Result, Tensor};
use stage::{Stage, State};
pub use tiles::OVERLAP;
use tiles::{Layout, Tiles};

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
    tiles: Option<Tiles>,
}

/// What a pass goes over at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The picture.
    Whole,
    /// Tiles of it, if it is larger than one.
    Tiles,
}

impl State {
    fn new(x: Tensor) -> Self {
        Self { x, kept: None, bands: Bands::default() }
    }
}

impl Pass {
    fn new(x: Tensor, encoding: bool, layout: Option<Layout>) -> Result<Self> {
        let tiles = match layout {
            Some(layout) if layout.cuts(&x)? => Some(Tiles::new(layout, x.clone())?),
            _ => None,
        };
        let first = tiles.as_ref().map_or(Ok(x), Tiles::next)?;
        Ok(Self { state: State::new(first), next: 0, encoding, tiles })
    }

    /// Operations behind and in all.
    #[must_use]
    pub fn progress(&self, vae: &Vae) -> (usize, usize) {
        let stages = vae.stages(self.encoding).len();
        let (behind, tiles) = self.tiles.as_ref().map_or((0, 1), Tiles::progress);
        ((behind * stages + self.next).min(tiles * stages), tiles * stages)
    }

    /// Multiply-adds so far, as units are measured, of the tile at hand; of stock operations none.
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

    /// Tiles of a pass, if they can be.
    fn layout(&self, extent: Extent, encoding: bool) -> Option<Layout> {
        let [picture, latents] = self.config.tile()?;
        match extent {
            Extent::Whole => None,
            Extent::Tiles if encoding => Some(Layout::new(picture, latents)),
            Extent::Tiles => Some(Layout::new(latents, picture)),
        }
    }

    /// Begins to encode `picture` [h, w, 3] in -1..1, h and w multiples of the scale factor.
    ///
    /// # Errors
    /// Where the shape does not fit, or the device fails.
    pub fn encode(&self, picture: Tensor, extent: Extent) -> Result<Pass> {
        Pass::new(picture, true, self.layout(extent, true))
    }

    /// Begins to decode `latents` [h / f, w / f, latent_channels], as the transformer has them.
    ///
    /// # Errors
    /// As [`Vae::encode`].
    pub fn decode(&self, latents: &Tensor, extent: Extent) -> Result<Pass> {
        let x = latents.affine(1.0 / self.config.scaling_factor, self.config.shift_factor)?;
        Pass::new(x, false, self.layout(extent, false))
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
        let VaeConfig { latent_channels, scaling_factor, shift_factor, .. } = self.config;
        let mut x = pass.state.x.clone();
        if pass.encoding {
            // (h, w, 2 * latent_channels): the mean, then the logarithm of the variance, which we
            // ignore
            x = x.narrow(2, 0, latent_channels)?.contiguous()?;
        }
        if let Some(tiles) = &mut pass.tiles {
            match tiles.put(x)? {
                Some(whole) => x = whole,
                None => {
                    (pass.state, pass.next) = (State::new(tiles.next()?), 0);
                    return Ok(None);
                }
            }
        }
        if pass.encoding {
            x.affine(scaling_factor, -shift_factor * scaling_factor).map(Some)
        } else {
            Ok(Some(x))
        }
    }
}
