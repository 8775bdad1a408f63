//! What is kept of a job and of its image, beside the pixels: one record, stored under the owner's
//! seal. JSON, so that a later version can add a field and still read this one.
//!
//! Of the inputs only format, size and length are in it: no name, no pixel, no digest.

use super::Draft;
use crate::{
    domain::{AspectRatio, EditParams, Lora, ObjectId, Prompt, Size},
    imaging::{OutputFormat, Probe},
    scheduler::Priority,
    store::Time,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use sha2::{Digest, Sha256};
use std::str::FromStr;

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;

/// What is kept of a job, and of the image that it gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// The job.
    #[serde(with = "text")]
    pub job: ObjectId,
    /// The prompt as it was sent.
    #[serde(with = "prompt")]
    pub prompt: Option<Prompt>,
    /// The style that was asked for.
    pub style: Option<String>,
    /// What the model was told: the style's prompt and the person's.
    #[serde(with = "prompt")]
    pub full_prompt: Option<Prompt>,
    /// See [`EditParams::negative_prompt`].
    #[serde(with = "prompt")]
    pub negative_prompt: Option<Prompt>,
    /// See [`EditParams::true_cfg_scale`].
    pub true_cfg_scale: f32,
    /// See [`EditParams::guidance_scale`].
    pub guidance_scale: f32,
    /// See [`EditParams::num_inference_steps`].
    pub num_inference_steps: u32,
    /// See [`EditParams::seed`].
    pub seed: u64,
    /// The size that was asked for, `[width, height]` in pixels.
    pub size: Option<[u32; 2]>,
    /// The aspect ratio that was asked for, as in `3:2`.
    pub aspect_ratio: Option<String>,
    /// See [`EditParams::max_sequence_length`].
    pub max_sequence_length: usize,
    /// See [`EditParams::step_cache`].
    #[serde(default)]
    pub step_cache: f32,
    /// See [`EditParams::loras`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<LoraUse>,
    /// The model's name.
    pub model: String,
    /// Which files of that name: a digest of them.
    pub model_version: String,
    /// The format that the result is given in when nobody asks for another.
    #[serde(with = "text")]
    pub output_format: OutputFormat,
    /// Who waits for it.
    #[serde(with = "priority")]
    pub priority: Priority,
    /// Whether the result is only ever in memory.
    pub ephemeral: bool,
    /// The pictures that came with it.
    pub inputs: Vec<Input>,
    /// When it was submitted.
    #[serde(with = "time")]
    pub created: Time,
    /// When the device began with it.
    #[serde(with = "optional_time")]
    pub started: Option<Time>,
    /// When it ended.
    #[serde(with = "optional_time")]
    pub finished: Option<Time>,
    /// Its image.
    pub image: Option<Image>,
    /// Why it failed.
    pub error: Option<Failure>,
    fingerprint: String,
}

/// An adapter that was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoraUse {
    /// Its name.
    pub name: String,
    /// Its strength.
    pub scale: f32,
}

/// What is kept of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its file's format.
    #[serde(with = "text")]
    pub format: OutputFormat,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// Bytes of its file.
    pub bytes: u64,
}

/// A result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its id.
    #[serde(with = "text")]
    pub id: ObjectId,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A stable name.
    pub code: String,
    /// What happened.
    pub message: String,
}

/// How an edit is to be run and its result to be given.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The format of the result.
    pub output_format: OutputFormat,
    /// Keep nothing: the result is in memory, can be fetched once, and leaves no record.
    pub ephemeral: bool,
    /// Who waits for it.
    pub priority: Priority,
    /// The key by which a repeated request is known.
    pub idempotency_key: Option<String>,
}

impl Default for Terms {
    fn default() -> Self {
        let priority = Priority::Interactive;
        let output_format = OutputFormat::Png;
        Self { output_format, ephemeral: false, priority, idempotency_key: None }
    }
}

/// The model that runs, as it stands in records and lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    /// Its name.
    pub name: String,
    /// Which files of that name.
    pub version: String,
}

impl ModelName {
    /// Name and version, as in `kontext-tiny@0123abcd`.
    #[must_use]
    pub fn full(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

impl From<&Lora> for LoraUse {
    fn from(lora: &Lora) -> Self {
        Self { name: lora.name.clone(), scale: lora.scale }
    }
}

impl Input {
    pub(super) fn new(probe: Probe, bytes: usize) -> Self {
        let Size { width, height } = probe.size;
        Self { format: probe.format, width, height, bytes: bytes as u64 }
    }
}

impl Record {
    pub(super) fn new(
        job: ObjectId,
        draft: &Draft,
        params: &EditParams,
        terms: &Terms,
        model: &ModelName,
        inputs: Vec<Input>,
        created: Time,
    ) -> Self {
        let fingerprint = fingerprint(draft, terms, &inputs);
        Self {
            version: VERSION,
            job,
            prompt: draft.prompt.clone(),
            style: draft.style.clone(),
            full_prompt: draft.style.is_some().then(|| params.prompt.clone()),
            negative_prompt: draft.negative_prompt.clone(),
            true_cfg_scale: params.true_cfg_scale,
            guidance_scale: params.guidance_scale,
            num_inference_steps: params.num_inference_steps,
            seed: params.seed,
            size: params.size.map(|size| [size.width, size.height]),
            aspect_ratio: params.aspect_ratio.map(ratio),
            max_sequence_length: params.max_sequence_length,
            step_cache: params.step_cache,
            loras: params.loras.iter().map(LoraUse::from).collect(),
            model: model.name.clone(),
            model_version: model.version.clone(),
            output_format: terms.output_format,
            priority: terms.priority,
            ephemeral: terms.ephemeral,
            inputs,
            created,
            started: None,
            finished: None,
            image: None,
            error: None,
            fingerprint,
        }
    }

    /// Whether a request with the same idempotency key is the one that this was made for.
    pub(super) fn is_same_request(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// Whether it says `text`, in small letters, in a prompt or a style.
    pub(super) fn mentions(&self, text: &str) -> bool {
        let prompts = [&self.prompt, &self.full_prompt, &self.negative_prompt];
        let prompts = prompts.into_iter().flatten().map(Prompt::text);
        prompts.chain(self.style.as_deref()).any(|said| said.to_lowercase().contains(text))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it has no map and no float that JSON lacks")
    }

    /// None where the bytes are none, or a newer version's.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.version <= VERSION)
    }
}

fn ratio(ratio: AspectRatio) -> String {
    format!("{}:{}", ratio.width, ratio.height)
}

/// What makes two requests the same: all that was asked for, and what is kept of the inputs.
fn fingerprint(draft: &Draft, terms: &Terms, inputs: &[Input]) -> String {
    let prompts = [&draft.prompt, &draft.negative_prompt].map(|p| p.as_ref().map(Prompt::text));
    let rest = Draft { prompt: None, negative_prompt: None, ..draft.clone() };
    let terms = Terms { idempotency_key: None, ..terms.clone() };
    let hash = Sha256::digest(format!("{prompts:?} {rest:?} {terms:?} {inputs:?}"));
    format!("{hash:x}")
}

/// What has a `Display` and reads it again.
mod text {
    use super::{Deserialize, Deserializer, Error, FromStr, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &impl std::fmt::Display,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: std::fmt::Display>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A prompt cannot be serialised by accident: here it is on purpose, for the seal.
mod prompt {
    use super::{Deserialize, Deserializer, Prompt, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        prompt: &Option<Prompt>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        prompt.as_ref().map(Prompt::text).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Prompt>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Prompt::new))
    }
}

mod priority {
    use super::{Deserialize, Deserializer, Error, Priority, Serializer};

    pub(super) fn serialize<S: Serializer>(priority: &Priority, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(priority.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Priority, D::Error> {
        let text = String::deserialize(from)?;
        let known = Priority::ALL.into_iter().find(|priority| priority.name() == text);
        known.ok_or_else(|| D::Error::custom("no such priority"))
    }
}

mod time {
    use super::{Deserialize, Deserializer, Serializer, Time};

    pub(super) fn serialize<S: Serializer>(time: &Time, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(time.millis())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        Ok(Time::from_millis(u64::deserialize(from)?))
    }
}

mod optional_time {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Time};

    pub(super) fn serialize<S: Serializer>(time: &Option<Time>, to: S) -> Result<S::Ok, S::Error> {
        time.map(Time::millis).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Time>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Time::from_millis))
    }
}
