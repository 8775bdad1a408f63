//! The parts of a model, loaded.

use super::{
    checkpoint::Checkpoint, cost::Costs, loras::LoraShelf, memory::Plan, schedule::Schedule,
    tokenizer::PromptTokenizer,
};
use crate::{
    config::{Component, Preview, Sizing},
    model::{
        LoadError,
        clip::ClipTextEncoder,
        flux::FluxTransformer,
        t5::T5Encoder,
        vae::Vae,
        weights::{ConfigFile, Part, Target},
    },
};
use std::sync::Arc;

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
    pub(super) costs: Costs,
    /// Adapters; none until someone brings a shelf.
    pub(super) loras: Arc<LoraShelf>,
}

impl Parts {
    /// Loads a model as it was planned, telling `on_part` what comes next.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        plan: &Plan,
        on_part: &mut dyn FnMut(&str),
    ) -> Result<Self, LoadError> {
        let start = std::time::Instant::now();
        let Checkpoint { folder, manifest, target, .. } = checkpoint;
        let components = &manifest.components;
        let path = |component: &Component| folder.join(&component.path);

        on_part("tokenizers");
        let t5_tokenizer = match &components.tokenizer_2 {
            Some(component) => PromptTokenizer::open(&path(component))?,
            None => {
                let t5 = path(&components.text_encoder_2);
                PromptTokenizer::inside(&checkpoint.t5.weights, &t5)?
            }
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
        let t5 = checkpoint.t5.weights.place(plan.placement(Part::T5));
        let t5 = T5Encoder::load(&checkpoint.t5.config, &t5)?;
        let clip = checkpoint.clip.weights.place(plan.placement(Part::Clip));
        let clip = ClipTextEncoder::load(&checkpoint.clip.config, &clip)?;

        on_part("autoencoder");
        let vae = checkpoint.vae.weights.place(plan.placement(Part::Vae));
        let vae = Vae::load(&checkpoint.vae.config, &vae)?;

        on_part("transformer");
        let transformer = checkpoint.transformer.weights.place(plan.placement(Part::Transformer));
        let transformer = FluxTransformer::load(&checkpoint.transformer.config, &transformer)?;
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
            costs: checkpoint.costs.within(plan.whole),
            loras: Arc::default(),
        })
    }
}
