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
        weights::{ConfigFile, Part, Source, Target, Weights},
    },
};
use std::{path::Path, sync::Arc};

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
        let path = |component: &Component| folder.join(&component.path);
        let open = |component: &Component, part: Part| -> Result<_, LoadError> {
            let at = path(component);
            let weights = || Weights::open(&Source::new(&at, part), target);
            if let Some(config) = &component.config {
                return Ok((ConfigFile::open(&folder.join(config))?, weights()?));
            }
            if component.is_file() {
                let weights = weights()?;
                return Ok((weights.implied_config()?, weights));
            }
            Ok((ConfigFile::open(&at.join("config.json"))?, weights()?))
        };

        on_part("tokenizers");
        let (t5_config, t5_weights) = open(&components.text_encoder_2, Part::T5)?;
        let t5_tokenizer = match &components.tokenizer_2 {
            Some(component) => PromptTokenizer::open(&path(component))?,
            None => PromptTokenizer::inside(&t5_weights, &path(&components.text_encoder_2))?,
        };
        let clip_tokenizer = match &components.tokenizer {
            Some(component) => PromptTokenizer::open(&path(component))?,
            None => return Err(PromptTokenizer::missing(folder, "tokenizer")),
        };
        let schedule = match &components.scheduler {
            Some(at) => ConfigFile::open(&path(at).join("scheduler_config.json"))?,
            None => ConfigFile::released_scheduler(folder)?,
        };
        let schedule = Schedule::read(&schedule)?;

        on_part("text encoders");
        let t5 = T5Encoder::load(&t5_config, &t5_weights)?;
        let (config, weights) = open(&components.text_encoder, Part::Clip)?;
        let clip = ClipTextEncoder::load(&config, &weights)?;

        on_part("autoencoder");
        let (vae_config, weights) = open(&components.vae, Part::Vae)?;
        let vae = Vae::load(&vae_config, &weights)?;
        if vae.config().scale_factor() != VAE_SCALE {
            return Err(vae_config.wrong(format!(
                "field block_out_channels has {} levels, expected 4, which shrink a picture by 8",
                vae.config().block_out_channels.len()
            )));
        }

        on_part("transformer");
        let (flux_config, weights) = open(&components.transformer, Part::Transformer)?;
        let transformer = FluxTransformer::load(&flux_config, &weights)?;
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
