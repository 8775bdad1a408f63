//! A model's manifest, `models/NAME.toml`: where its parts lie and what it was trained for.

use super::{ConfigError, Source, Variant, parse, read};
use crate::domain::Size;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The manifest of the released model, whose values a folder without one gets.
const RELEASED: &str = include_str!("../../models/flux1-kontext-dev.toml");
/// Channels of a latent pixel, and so rows of the preview matrix.
const LATENT_CHANNELS: usize = 16;

/// The format of a part that is a file, alone or with others in it, of any kind that is read.
pub const FILE: &str = "file";

/// A model's manifest.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The pipeline that runs it: `flux-kontext`.
    pub family: String,
    /// Licence of the weights.
    pub licence: String,
    /// Sizes that it was trained for; see [`Sizing`].
    preferred_sizes: Vec<[u32; 2]>,
    #[serde(default)]
    reference_size: ReferenceSize,
    /// Where its parts lie.
    pub components: Components,
    /// What a request gets that says nothing.
    pub defaults: Defaults,
    /// How a latent pixel looks.
    pub preview: Preview,
    /// Where it comes from.
    pub source: Option<Source>,
    /// The forms in which it can be had, best first.
    #[serde(default)]
    pub variants: Vec<Variant>,
}

/// The parts of a model, named as in diffusers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are diffusers' own")]
pub struct Components {
    pub transformer: Component,
    pub vae: Component,
    pub text_encoder: Component,
    pub text_encoder_2: Component,
    pub tokenizer: Option<Component>,
    pub tokenizer_2: Option<Component>,
    pub scheduler: Option<Component>,
}

/// One part of a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Its folder or file, relative to the model's folder.
    pub path: PathBuf,
    /// The layout of that folder: `diffusers`, `transformers` or `tokenizers`; or [`FILE`].
    pub format: String,
    /// The config.json of a part that comes as a file; without it the sizes are the tensors'.
    pub config: Option<PathBuf>,
}

/// Values for what a request leaves open, named as in diffusers.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Denoising steps.
    pub num_inference_steps: u32,
    /// Distilled guidance.
    pub guidance_scale: f32,
    /// Tokens of the T5 prompt, padding included: the length that the model was trained with.
    pub max_sequence_length: usize,
}

/// The linear map from a latent pixel to a colour.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preview {
    /// RGB of a latent of zeros, -1..1.
    pub bias: [f32; 3],
    /// RGB of each of the 16 channels.
    pub matrix: Vec<[f32; 3]>,
}

/// Which size everything gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// The sizes that the model was trained for; never empty, all multiples of 16.
    pub preferred_sizes: Vec<Size>,
    /// How references are sized.
    pub reference_size: ReferenceSize,
}

/// How a reference picture is sized before it is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceSize {
    /// Stretched to the preferred size of the nearest aspect ratio: Kontext's rule.
    #[default]
    Preferred,
    /// Stretched to the size of the result.
    Output,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and key where a value is missing, unknown or out of range.
    pub fn open(path: &Path) -> Result<Self, ConfigError> {
        let manifest: Self = read(path)?;
        manifest.check(path)?;
        Ok(manifest)
    }

    /// The values of the released FLUX.1-Kontext-dev.
    ///
    /// # Errors
    /// None in a build whose tests passed: the text is part of the program.
    pub fn released() -> Result<Self, ConfigError> {
        parse(Path::new("models/flux1-kontext-dev.toml"), RELEASED)
    }

    /// The sizes that it was trained for.
    #[must_use]
    pub fn sizing(&self) -> Sizing {
        Sizing {
            preferred_sizes: self.preferred_sizes.iter().map(|&[w, h]| Size::new(w, h)).collect(),
            reference_size: self.reference_size,
        }
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |reason: String| ConfigError::Value { path: path.to_owned(), reason };
        if self.family != "flux-kontext" {
            let family = &self.family;
            return Err(wrong(format!("family is {family:?}, expected \"flux-kontext\"")));
        }
        if self.preferred_sizes.is_empty() {
            return Err(wrong(
                "preferred_sizes is empty, expected [width, height] pairs".to_owned(),
            ));
        }
        for &[w, h] in &self.preferred_sizes {
            let fits = |side: u32| (16..=4096).contains(&side) && side.is_multiple_of(16);
            if !fits(w) || !fits(h) {
                return Err(wrong(format!(
                    "preferred_sizes holds [{w}, {h}], expected multiples of 16 from 16 to 4096"
                )));
            }
        }
        for (name, component, format) in self.components.each() {
            let file = component.is_file() && name != "scheduler";
            if component.format != format && !file {
                let or = if name == "scheduler" { "" } else { " or \"file\"" };
                return Err(wrong(format!(
                    "components.{name}.format is {:?}, expected {format:?}{or}",
                    component.format
                )));
            }
            if component.config.is_some() && !file {
                return Err(wrong(format!(
                    "components.{name}.config is given, but a folder has its own config.json"
                )));
            }
            // The manifest describes what lies in the model's folder, nothing outside it.
            let plain = |part| matches!(part, std::path::Component::Normal(_));
            for (key, path) in component.paths() {
                if !path.components().all(plain) {
                    return Err(wrong(format!(
                        "components.{name}.{key} is {path:?}, expected a path inside the model's \
                         folder"
                    )));
                }
            }
        }
        let defaults = self.defaults;
        if !(1..=1000).contains(&defaults.num_inference_steps) {
            let steps = defaults.num_inference_steps;
            let reason = format!("defaults.num_inference_steps is {steps}, expected 1 to 1000");
            return Err(wrong(reason));
        }
        if !(0.0..=100.0).contains(&defaults.guidance_scale) {
            let scale = defaults.guidance_scale;
            return Err(wrong(format!("defaults.guidance_scale is {scale}, expected 0 to 100")));
        }
        if !(1..=512).contains(&defaults.max_sequence_length) {
            let tokens = defaults.max_sequence_length;
            let reason = format!("defaults.max_sequence_length is {tokens}, expected 1 to 512");
            return Err(wrong(reason));
        }
        let rows = self.preview.matrix.len();
        if rows != LATENT_CHANNELS {
            let reason = format!("preview.matrix has {rows} rows, expected {LATENT_CHANNELS}");
            return Err(wrong(reason));
        }
        self.check_variants().map_err(wrong)
    }
}

impl Component {
    /// Whether it is a file, not a folder.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.format == FILE
    }

    /// Its paths by their keys.
    fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let config = self.config.as_deref().map(|path| ("config", path));
        std::iter::once(("path", self.path.as_path())).chain(config)
    }
}

impl Components {
    /// The folders and files of all parts, relative to the model's.
    #[must_use]
    pub fn paths(&self) -> Vec<&Path> {
        let parts = self.each().into_iter();
        parts.flat_map(|(_, component, _)| component.paths().map(|(_, path)| path)).collect()
    }

    /// Each part with its name and the layout that its folder must have.
    pub(super) fn each(&self) -> Vec<(&'static str, &Component, &'static str)> {
        let parts = [
            ("transformer", Some(&self.transformer), "diffusers"),
            ("vae", Some(&self.vae), "diffusers"),
            ("text_encoder", Some(&self.text_encoder), "transformers"),
            ("text_encoder_2", Some(&self.text_encoder_2), "transformers"),
            ("tokenizer", self.tokenizer.as_ref(), "tokenizers"),
            ("tokenizer_2", self.tokenizer_2.as_ref(), "tokenizers"),
            ("scheduler", self.scheduler.as_ref(), "diffusers"),
        ];
        let given =
            parts.into_iter().filter_map(|(name, part, layout)| Some((name, part?, layout)));
        given.collect()
    }
}
