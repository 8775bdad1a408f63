//! A model's files, opened and checked against each other, and nothing of them loaded: what can be
//! known before the memory is taken.

use super::{
    cost::Costs,
    memory::{self, Needs, Plan, Room, TooSmall},
};
use crate::{
    config::{Component, Manifest},
    model::{
        LoadError,
        flux::FluxConfig,
        t5::T5Config,
        vae::VaeConfig,
        weights::{ConfigFile, Part, Source, Target, Weights},
    },
};
use std::path::{Path, PathBuf};

/// Latent pixels of a token's side.
const PATCH: usize = 2;
/// Picture pixels of a latent pixel's side: what the sizes and positions are counted in.
const VAE_SCALE: usize = 8;

/// A model that can be planned for, and loaded any number of times. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(super) folder: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) target: Target,
    pub(super) transformer: Opened,
    pub(super) vae: Opened,
    pub(super) clip: Opened,
    pub(super) t5: Opened,
    pub(super) costs: Costs,
}

/// A network's files.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) config: ConfigFile,
    pub(super) weights: Weights,
}

impl Opened {
    fn open(
        folder: &Path,
        component: &Component,
        part: Part,
        target: &Target,
    ) -> Result<Self, LoadError> {
        let at = folder.join(&component.path);
        let weights = || Weights::open(&Source::new(&at, part), target);
        // A configuration first: where both are missing it is what a person looks for.
        if let Some(config) = &component.config {
            return Ok(Self {
                config: ConfigFile::open(&folder.join(config))?,
                weights: weights()?,
            });
        }
        if component.is_file() {
            let weights = weights()?;
            return Ok(Self { config: weights.implied_config()?, weights });
        }
        Ok(Self { config: ConfigFile::open(&at.join("config.json"))?, weights: weights()? })
    }
}

impl Checkpoint {
    /// Opens the model in `folder`.
    ///
    /// # Errors
    /// [`LoadError`] that names file or field, what was expected and what was found.
    pub fn open(folder: &Path, manifest: &Manifest, target: &Target) -> Result<Self, LoadError> {
        let components = &manifest.components;
        let open = |component, part| Opened::open(folder, component, part, target);
        let t5 = open(&components.text_encoder_2, Part::T5)?;
        let clip = open(&components.text_encoder, Part::Clip)?;
        let vae = open(&components.vae, Part::Vae)?;
        let transformer = open(&components.transformer, Part::Transformer)?;

        let (t5_config, vae_config) = (T5Config::read(&t5.config)?, VaeConfig::read(&vae.config)?);
        let flux = FluxConfig::read(&transformer.config)?;
        if vae_config.scale_factor() != VAE_SCALE {
            return Err(vae.config.wrong(format!(
                "field block_out_channels has {} levels, expected 4, which shrink a picture by 8",
                vae_config.block_out_channels.len()
            )));
        }
        let token = vae_config.latent_channels * PATCH * PATCH;
        for (field, value, other, expected) in [
            ("in_channels", flux.in_channels, "4 * latent_channels of the vae", token),
            ("out_channels", flux.out_channels, "4 * latent_channels of the vae", token),
            (
                "joint_attention_dim",
                flux.joint_attention_dim,
                "d_model of text_encoder_2",
                t5_config.d_model,
            ),
            (
                "pooled_projection_dim",
                flux.pooled_projection_dim,
                "hidden_size of text_encoder",
                clip.config.size("hidden_size")?,
            ),
        ] {
            if value != expected {
                return Err(transformer
                    .config
                    .wrong(format!("field {field} is {value}, expected {other} = {expected}")));
            }
        }
        let number = target.dtype.size_in_bytes();
        let costs = Costs::new(flux, vae_config, t5_config, manifest.sizing(), number);
        Ok(Self {
            folder: folder.to_owned(),
            manifest: manifest.clone(),
            target: target.clone(),
            transformer,
            vae,
            clip,
            t5,
            costs,
        })
    }

    /// Where its networks are to be.
    ///
    /// # Errors
    /// [`TooSmall`] where `room` has a budget that is too small for it.
    pub fn plan(&self, room: Room) -> Result<Plan, TooSmall> {
        let part = |part, opened: &Opened| (part, opened.weights.footprint());
        let needs = Needs {
            parts: vec![
                part(Part::Transformer, &self.transformer),
                part(Part::T5, &self.t5),
                part(Part::Clip, &self.clip),
                part(Part::Vae, &self.vae),
            ],
            usual: self.costs.usual(self.manifest.defaults.max_sequence_length),
            number: self.target.dtype.size_in_bytes() as u64,
            on_cpu: self.target.device.is_cpu(),
        };
        memory::plan(&needs, room)
    }
}
