//! The parts of a model, loaded and checked against each other.

use super::{loras::LoraShelf, schedule::Schedule, tokenizer::PromptTokenizer};
use crate::{
    config::{Component, Manifest, Preview, Sizing},
    model::{
        LoadError,
        clip::ClipTextEncoder,
        flux::FluxTransformer,
        t5::T5Encoder,
        vae::Vae,
        weights::{ConfigFile, Target, Weights},
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Latent pixels of a token's side.
const PATCH: usize = 2;
/// Picture pixels of a latent pixel's side: what the sizes and positions are counted in.
const VAE_SCALE: usize = 8;

/// A model, ready to run.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) t5_tokenizer: PromptTokenizer,
    pub(super) clip_tokenizer: PromptTokenizer,
    pub(super) t5: T5Encoder,
    pub(super) clip: ClipTextEncoder,
    pub(super) transformer: FluxTransformer,
    pub(super) vae: Vae,
    pub(super) schedule: Schedule,
    pub(super) sizing: Sizing,
    pub(super) preview: Preview,
    pub(super) target: Target,
    /// Adapters; none until someone brings a shelf.
    pub(super) loras: Arc<LoraShelf>,
}

impl Parts {
    /// Loads the model in `folder`, telling `on_part` what comes next.
    pub(super) fn load(
        folder: &Path,
        manifest: &Manifest,
        target: &Target,
        on_part: &mut dyn FnMut(&str),
    ) -> Result<Self, LoadError> {
        let start = std::time::Instant::now();
        let components = &manifest.components;
        let part = |component: &Component| folder.join(&component.path);
        let config = |folder: &PathBuf| ConfigFile::open(&folder.join("config.json"));
        let weights = |folder: &PathBuf, stem| Weights::open(folder, stem, target);

        on_part("tokenizers");
        let t5_tokenizer = PromptTokenizer::open(&part(&components.tokenizer_2))?;
        let clip_tokenizer = PromptTokenizer::open(&part(&components.tokenizer))?;
        let scheduler = part(&components.scheduler).join("scheduler_config.json");
        let schedule = Schedule::read(&ConfigFile::open(&scheduler)?)?;

        on_part("text encoders");
        let at = part(&components.text_encoder_2);
        let t5 = T5Encoder::load(&config(&at)?, &weights(&at, "model")?)?;
        let at = part(&components.text_encoder);
        let clip = ClipTextEncoder::load(&config(&at)?, &weights(&at, "model")?)?;

        on_part("autoencoder");
        let at = part(&components.vae);
        let vae_config = config(&at)?;
        let vae = Vae::load(&vae_config, &weights(&at, "diffusion_pytorch_model")?)?;
        if vae.config().scale_factor() != VAE_SCALE {
            return Err(vae_config.wrong(format!(
                "field block_out_channels has {} levels, expected 4, which shrink a picture by 8",
                vae.config().block_out_channels.len()
            )));
        }

        on_part("transformer");
        let at = part(&components.transformer);
        let flux_config = config(&at)?;
        let transformer =
            FluxTransformer::load(&flux_config, &weights(&at, "diffusion_pytorch_model")?)?;
        let flux = transformer.config();
        let token = vae.config().latent_channels * PATCH * PATCH;
        for (field, value, other, expected) in [
            ("in_channels", flux.in_channels, "4 * latent_channels of the vae", token),
            ("out_channels", flux.out_channels, "4 * latent_channels of the vae", token),
            (
                "joint_attention_dim",
                flux.joint_attention_dim,
                "d_model of text_encoder_2",
                t5.config().d_model,
            ),
            (
                "pooled_projection_dim",
                flux.pooled_projection_dim,
                "hidden_size of text_encoder",
                clip.width(),
            ),
        ] {
            if value != expected {
                return Err(flux_config
                    .wrong(format!("field {field} is {value}, expected {other} = {expected}")));
            }
        }
        tracing::debug!(elapsed = ?start.elapsed(), "model loaded");
        Ok(Self {
            t5_tokenizer,
            clip_tokenizer,
            t5,
            clip,
            transformer,
            vae,
            schedule,
            sizing: manifest.sizing(),
            preview: manifest.preview.clone(),
            target: target.clone(),
            loras: Arc::default(),
        })
    }
}
