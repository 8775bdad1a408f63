//! What a person asks for, with everything that they left open, and how that becomes parameters.
//!
//! Fields are named as in diffusers. `http` and the command line fill a [`Draft`]; here, and nowhere
//! else, a style becomes part of a prompt and a missing value becomes the model's.

use crate::{
    config::{ConfigError, Defaults, Styles},
    domain::{AspectRatio, EditParams, Lora, ParamError, Prompt, ReferenceMethod, Size},
};

/// An edit as it was asked for: nothing is filled in yet.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// What to change. May be left out where a style says it.
    pub prompt: Option<Prompt>,
    /// The name of a style preset, whose prompt stands before the person's own.
    pub style: Option<String>,
    /// What to avoid.
    pub negative_prompt: Option<Prompt>,
    /// See [`EditParams::true_cfg_scale`]; 1 where it is not given.
    pub true_cfg_scale: Option<f32>,
    /// See [`EditParams::guidance_scale`].
    pub guidance_scale: Option<f32>,
    /// See [`EditParams::num_inference_steps`].
    pub num_inference_steps: Option<u32>,
    /// See [`EditParams::seed`]; a random one below 2^32 where it is not given.
    pub seed: Option<u64>,
    /// Width of the result in pixels; only together with the height.
    pub width: Option<u32>,
    /// Height of the result in pixels.
    pub height: Option<u32>,
    /// See [`EditParams::aspect_ratio`]; only without width and height.
    pub aspect_ratio: Option<AspectRatio>,
    /// See [`EditParams::max_sequence_length`].
    pub max_sequence_length: Option<usize>,
    /// See [`EditParams::reference_method`].
    pub reference_method: Option<ReferenceMethod>,
    /// See [`EditParams::step_cache`]; off where it is not given.
    pub step_cache: Option<f32>,
    /// See [`EditParams::exact_size`].
    pub exact_size: bool,
    /// See [`EditParams::loras`].
    pub loras: Vec<Lora>,
}

/// Why a draft is no edit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DraftError {
    /// A value is out of range, or does not go with another.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// There is no such style.
    #[error(transparent)]
    Style(ConfigError),
    /// No random seed could be drawn.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

impl Draft {
    /// The parameters: what was said, and the model's `defaults` for the rest.
    ///
    /// # Errors
    /// [`DraftError`] with the first field that cannot be used.
    pub fn resolve(
        &self,
        defaults: Defaults,
        styles: Option<&Styles>,
    ) -> Result<EditParams, DraftError> {
        let style = match (&self.style, styles) {
            (Some(name), Some(styles)) => Some(styles.get(name).map_err(DraftError::Style)?),
            _ => None,
        };
        let own = self.prompt.as_ref().map(Prompt::text).unwrap_or_default();
        let prompt = match style {
            Some(style) if own.trim().is_empty() => Prompt::new(style.prompt.clone()),
            Some(style) => Prompt::new(format!("{}. {own}", style.prompt)),
            None => Prompt::new(own),
        };
        let params = EditParams {
            prompt,
            negative_prompt: self.negative_prompt.clone(),
            true_cfg_scale: self.true_cfg_scale.unwrap_or(1.0),
            guidance_scale: self.guidance_scale.unwrap_or(defaults.guidance_scale),
            num_inference_steps: self.num_inference_steps.unwrap_or(defaults.num_inference_steps),
            seed: self.seed.map_or_else(random_seed, Ok)?,
            size: self.size()?,
            aspect_ratio: self.aspect_ratio,
            max_sequence_length: self.max_sequence_length.unwrap_or(defaults.max_sequence_length),
            reference_method: self.reference_method.unwrap_or_default(),
            step_cache: self.step_cache.unwrap_or_default(),
            exact_size: self.exact_size,
            loras: self.loras.clone(),
        };
        params.validate()?;
        Ok(params)
    }

    fn size(&self) -> Result<Option<Size>, ParamError> {
        let size = match (self.width, self.height) {
            (None, None) => return Ok(None),
            (Some(width), Some(height)) => Size::new(width, height),
            (Some(_), None) => return Err(alone("height", "width")),
            (None, Some(_)) => return Err(alone("width", "height")),
        };
        if self.aspect_ratio.is_some() {
            let allowed = "leave it out, or leave out width and height";
            return Err(ParamError::new("aspect_ratio", "given beside a size", allowed));
        }
        Ok(Some(size))
    }
}

fn alone(missing: &'static str, given: &'static str) -> ParamError {
    ParamError::new(missing, "missing", format!("give both width and height, or no {given}"))
}

fn random_seed() -> Result<u64, DraftError> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(DraftError::Random)?;
    Ok(u32::from_le_bytes(bytes).into())
}
