//! What a person asks for: the parameters of an edit, named as in diffusers, checked in one place.

use super::{Lora, Size};
use std::str::FromStr;
use zeroize::Zeroizing;

/// The longest prompt, in characters.
const MAX_PROMPT: usize = 32_000;
/// The shortest and longest side of an output, in pixels.
const SIDES: std::ops::RangeInclusive<u32> = 16..=4096;

/// A parameter that cannot be used: which one, what it was, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, {allowed}")]
pub struct ParamError {
    /// The field's name, as in the API.
    pub field: &'static str,
    /// The value, or its length where it is private.
    pub value: String,
    /// What would be accepted.
    pub allowed: String,
}

impl ParamError {
    /// An error about `field`.
    #[must_use]
    pub fn new(
        field: &'static str,
        value: impl std::fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        Self { field, value: value.to_string(), allowed: allowed.into() }
    }
}

/// A prompt. Private: it has no `Display`, its `Debug` shows a length only, and it is zeroed when it
/// is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Prompt(Zeroizing<String>);

impl Prompt {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for the tokenizer alone.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    fn check(&self, field: &'static str) -> Result<(), ParamError> {
        let length = self.0.chars().count();
        if length > MAX_PROMPT {
            let allowed = format!("at most {MAX_PROMPT} are allowed");
            return Err(ParamError::new(field, format!("{length} characters long"), allowed));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Prompt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prompt({} characters)", self.0.chars().count())
    }
}

/// Width to height, as in `3:2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AspectRatio {
    /// The width's part, 1 to 100.
    pub width: u32,
    /// The height's part, 1 to 100.
    pub height: u32,
}

impl AspectRatio {
    /// Width over height.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.width) / f64::from(self.height)
    }
}

impl FromStr for AspectRatio {
    type Err = ParamError;

    fn from_str(text: &str) -> Result<Self, ParamError> {
        let part = |part: &str| part.trim().parse().ok().filter(|n| (1..=100).contains(n));
        let parts = text.split_once(':').and_then(|(w, h)| Some((part(w)?, part(h)?)));
        let (width, height) = parts.ok_or_else(|| {
            ParamError::new("aspect_ratio", text, "expected W:H with whole numbers from 1 to 100")
        })?;
        let ratio = Self { width, height };
        if (0.125..=8.0).contains(&ratio.ratio()) {
            Ok(ratio)
        } else {
            Err(ParamError::new("aspect_ratio", text, "expected a ratio from 1:8 to 8:1"))
        }
    }
}

/// Where several references stand on the grid of positions (numbered as ComfyUI's methods).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReferenceMethod {
    /// Side by side on a growing canvas, all at index 1: what the released Kontext understands.
    #[default]
    Offset,
    /// Each at an index of its own, for models trained so.
    Index,
}

impl FromStr for ReferenceMethod {
    type Err = ParamError;

    fn from_str(text: &str) -> Result<Self, ParamError> {
        match text {
            "offset" => Ok(Self::Offset),
            "index" => Ok(Self::Index),
            other => Err(ParamError::new("reference_method", other, "expected offset or index")),
        }
    }
}

/// The parameters of an edit.
#[derive(Clone, Debug)]
pub struct EditParams {
    /// What to change.
    pub prompt: Prompt,
    /// What to avoid; it works where `true_cfg_scale` is above 1. An empty one counts as given.
    pub negative_prompt: Option<Prompt>,
    /// Strength of classifier-free guidance against the negative prompt; 1 is off.
    pub true_cfg_scale: f32,
    /// Strength of the distilled guidance.
    pub guidance_scale: f32,
    /// Denoising steps.
    pub num_inference_steps: u32,
    /// Seed of the initial noise; equal seeds give equal bytes.
    pub seed: u64,
    /// Size of the output; chosen from the model's sizes where it is not given.
    pub size: Option<Size>,
    /// Aspect ratio of the output, where no size is given.
    pub aspect_ratio: Option<AspectRatio>,
    /// Tokens of the T5 prompt, padding included.
    pub max_sequence_length: usize,
    /// Where several references stand.
    pub reference_method: ReferenceMethod,
    /// First-block cache: a step whose first block differs from the last full step's by less than
    /// this part, 0 to 1, takes the other blocks' work from there. 0 is off.
    pub step_cache: f32,
    /// Take pictures at their own size, floored to multiples of 16, instead of the model's sizes.
    pub exact_size: bool,
    /// Adapters, whose effects add up.
    pub loras: Vec<Lora>,
}

impl EditParams {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range.
    pub fn validate(&self) -> Result<(), ParamError> {
        if self.prompt.text().trim().is_empty() {
            return Err(ParamError::new("prompt", "empty", "say what to change in the picture"));
        }
        self.prompt.check("prompt")?;
        if let Some(negative) = &self.negative_prompt {
            negative.check("negative_prompt")?;
        }
        let within = |field, value: f32, from: f32, to: f32| {
            if (from..=to).contains(&value) {
                Ok(())
            } else {
                let allowed = format!("expected a number from {from} to {to}");
                Err(ParamError::new(field, value, allowed))
            }
        };
        within("guidance_scale", self.guidance_scale, 0.0, 100.0)?;
        within("true_cfg_scale", self.true_cfg_scale, 0.0, 100.0)?;
        within("step_cache", self.step_cache, 0.0, 1.0)?;
        if !(1..=1000).contains(&self.num_inference_steps) {
            let steps = self.num_inference_steps;
            return Err(ParamError::new("num_inference_steps", steps, "expected 1 to 1000"));
        }
        if !(1..=512).contains(&self.max_sequence_length) {
            let tokens = self.max_sequence_length;
            return Err(ParamError::new("max_sequence_length", tokens, "expected 1 to 512"));
        }
        Lora::validate_all(&self.loras)?;
        if let Some(size) = self.size {
            for (field, side) in [("width", size.width), ("height", size.height)] {
                if !SIDES.contains(&side) {
                    let allowed = format!("expected {} to {} pixels", SIDES.start(), SIDES.end());
                    return Err(ParamError::new(field, side, allowed));
                }
            }
        }
        Ok(())
    }

    /// The negative prompt, where it has an effect.
    #[must_use]
    pub fn effective_negative(&self) -> Option<&Prompt> {
        self.negative_prompt.as_ref().filter(|_| self.true_cfg_scale > 1.0)
    }
}
