//! The settings that diffusers leaves in the header of a file: alpha, which its tensors do not hold.

use super::{error::LoraError, names::Part};
use crate::model::weights::TensorFile;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// Where they are.
const KEY: &str = "lora_adapter_metadata";
/// The network that they are about.
const PREFIX: &str = "transformer.";

/// PEFT's settings of a LoRA, as far as they scale it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Alphas {
    lora_alpha: Option<f32>,
    #[serde(default)]
    alpha_pattern: HashMap<String, f32>,
    #[serde(default)]
    use_rslora: bool,
}

impl Alphas {
    pub(super) fn read(file: &TensorFile) -> Result<Self, LoraError> {
        let Some(text) = file.metadata(KEY) else { return Ok(Self::default()) };
        let wrong = |reason: serde_json::Error| LoraError::Metadata {
            file: file.name(),
            reason: reason.to_string(),
        };
        let all: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(wrong)?;
        let own = all.into_iter();
        let own = own.filter_map(|(key, v)| Some((key.strip_prefix(PREFIX)?.to_owned(), v)));
        serde_json::from_value(Value::Object(own.collect())).map_err(wrong)
    }

    /// What a product of rank `rank` is multiplied by, if the file says so.
    pub(super) fn of(&self, parts: &[Part], rank: usize) -> Option<f32> {
        let layer = parts.first().map(|part| part.layer.as_str())?;
        let own = self.alpha_pattern.iter().find(|(pattern, _)| {
            let rest = layer.strip_suffix(pattern.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        let alpha = own.map(|(_, &alpha)| alpha).or(self.lora_alpha)?;
        let rank = rank as f32;
        let scale = alpha / if self.use_rslora { rank.sqrt() } else { rank };
        scale.is_finite().then_some(scale)
    }
}
