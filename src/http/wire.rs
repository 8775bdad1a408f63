//! What the native API answers, as JSON: the shapes, and how the service's views become them.
//!
//! Handlers make these and hand them to axum. The doc comments here are the API's documentation: they
//! go into `/openapi.json` word by word. Nothing here decides anything, and no type prints a prompt.

use super::{loras::LoraUse, moment::time};
use crate::{
    domain::{ObjectId, Prompt},
    service::{
        Failure, Image as ServiceImage, ImageView, Input as ServiceInput, JobState, JobView,
        OutputFormat, Priority as ServicePriority, Record,
    },
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// It waits for the device.
    Queued,
    /// The device has it, or its result is being stored.
    Running,
    /// Its image can be fetched.
    Done,
    /// It could not be finished; `error` says why.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// The server ended before the job did. Its inputs are gone by design: send it again.
    Interrupted,
}

/// A file format of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// Lossless.
    Png,
    /// Lossy.
    Jpeg,
    /// Lossy.
    Webp,
}

/// Who waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Priority {
    /// A person.
    Interactive,
    /// Nobody at present: interactive jobs go first, until it has waited for long.
    Batch,
}

/// An edit, from its submission to its end.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Job {
    /// Its id: 32 digits of 0-9 and a-f.
    #[schema(example = "3f0c7b6a9d1e4c52a8b7d6e5f4031221")]
    id: String,
    /// Where it stands.
    state: State,
    /// When it was submitted.
    #[schema(format = DateTime)]
    created: String,
    /// When the device began with it. Known once the job has ended.
    #[schema(required = true, format = DateTime)]
    started: Option<String>,
    /// When it ended.
    #[schema(required = true, format = DateTime)]
    finished: Option<String>,
    /// While it is queued: how many jobs are before it, plus one.
    #[schema(required = true, minimum = 1)]
    position: Option<usize>,
    /// When its image may be there, in seconds from now. That of a queued job is from the moment when
    /// its position last changed. Null before the server has measured a step, and after the end.
    #[schema(required = true, minimum = 0)]
    eta_seconds: Option<f64>,
    /// While it runs: what it is busy with, `text`, `images`, `steps`, `decoding` or `saving`.
    #[schema(required = true)]
    stage: Option<&'static str>,
    /// While it runs: how far it is in its stage.
    #[schema(required = true)]
    progress: Option<Progress>,
    /// Its image, once it is done.
    #[schema(required = true)]
    image: Option<JobImage>,
    /// Why it failed.
    #[schema(required = true)]
    error: Option<JobError>,
    /// What was asked for, with the values that the server chose.
    request: EditRequest,
    /// The model that it runs on.
    model: ModelVersion,
    /// The pictures that came with it, in their order. They themselves are not kept.
    inputs: Vec<Input>,
    /// Where its events are told.
    #[schema(example = "/api/jobs/3f0c7b6a9d1e4c52a8b7d6e5f4031221/events")]
    events_url: String,
}

/// How far a job is in its stage.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Progress {
    /// Parts done: denoising steps, in the stage `steps`.
    done: usize,
    /// Parts in all.
    total: usize,
}

/// The image of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobImage {
    /// Its id: 32 digits of 0-9 and a-f.
    id: String,
    /// Width in pixels.
    width: u32,
    /// Height in pixels.
    height: u32,
    /// Where its file is.
    #[schema(example = "/api/images/a81b0c2d3e4f5061728394a5b6c7d8e9/content")]
    url: String,
}

/// Why a job failed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobError {
    /// For programs: `invalid_parameter`, `engine_failed`, `engine_panicked`, `engine_down`,
    /// `store_failed` or `internal`.
    code: String,
    /// For people.
    message: String,
}

/// What was asked for, with the values that the server chose.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EditRequest {
    /// What to change, as it was sent.
    #[serde(serialize_with = "prompt")]
    #[schema(required = true, value_type = Option<String>)]
    prompt: Option<Prompt>,
    /// The name of the style whose prompt stands before the own one.
    #[schema(required = true)]
    style: Option<String>,
    /// What to avoid.
    #[serde(serialize_with = "prompt")]
    #[schema(required = true, value_type = Option<String>)]
    negative_prompt: Option<Prompt>,
    /// Strength of the guidance against the negative prompt; 1 is off.
    true_cfg_scale: f32,
    /// Strength of the distilled guidance.
    guidance_scale: f32,
    /// Denoising steps.
    num_inference_steps: u32,
    /// Seed of the noise, given or chosen: the same request with it gives the same image.
    seed: u64,
    /// Width that was asked for, in pixels.
    #[schema(required = true)]
    width: Option<u32>,
    /// Height that was asked for, in pixels.
    #[schema(required = true)]
    height: Option<u32>,
    /// Aspect ratio that was asked for, width to height.
    #[schema(required = true, example = "3:2")]
    aspect_ratio: Option<String>,
    /// Tokens of the prompt that the model reads at most.
    max_sequence_length: usize,
    /// From which difference on a step runs in full; 0: always.
    step_cache: f32,
    /// The adapters that were asked for.
    loras: Vec<LoraUse>,
    /// The format in which the image is given where nobody asks for another.
    output_format: Format,
    /// Who waits for it.
    priority: Priority,
    /// Whether nothing of it is kept: the image can be fetched once.
    ephemeral: bool,
}

/// Which model, and which files of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelVersion {
    /// Its name.
    #[schema(example = "kontext-tiny")]
    name: String,
    /// A digest of its files.
    version: String,
}

/// What is kept of an input picture: neither its pixels nor its name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Input {
    /// The format of its file.
    format: Format,
    /// Width in pixels, upright.
    width: u32,
    /// Height in pixels, upright.
    height: u32,
    /// Bytes of its file.
    bytes: u64,
}

/// An image that is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Image {
    /// Its id: 32 digits of 0-9 and a-f.
    #[schema(example = "a81b0c2d3e4f5061728394a5b6c7d8e9")]
    id: String,
    /// The id of its job.
    job: String,
    /// When its job was submitted.
    #[schema(format = DateTime)]
    created: String,
    /// When the device began with its job.
    #[schema(required = true, format = DateTime)]
    started: Option<String>,
    /// When it was made. Lists are in this order, and `from` and `until` mean it.
    #[schema(required = true, format = DateTime)]
    finished: Option<String>,
    /// Width in pixels.
    width: u32,
    /// Height in pixels.
    height: u32,
    /// Bytes of the file that is kept, a PNG.
    bytes: u64,
    /// Whether its file was lost or damaged on the server's disk.
    lost: bool,
    /// Where its file is.
    #[schema(example = "/api/images/a81b0c2d3e4f5061728394a5b6c7d8e9/content")]
    url: String,
    /// What was asked for, with the values that the server chose.
    request: EditRequest,
    /// The model that it was made with.
    model: ModelVersion,
    /// The pictures that it was made from, in their order. They themselves are not kept.
    inputs: Vec<Input>,
}

impl From<JobState> for State {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Queued => Self::Queued,
            JobState::Running => Self::Running,
            JobState::Done => Self::Done,
            JobState::Failed => Self::Failed,
            JobState::Cancelled => Self::Cancelled,
            JobState::Interrupted => Self::Interrupted,
        }
    }
}

impl From<OutputFormat> for Format {
    fn from(format: OutputFormat) -> Self {
        match format {
            OutputFormat::Png => Self::Png,
            OutputFormat::Jpeg => Self::Jpeg,
            OutputFormat::Webp => Self::Webp,
        }
    }
}

impl From<ServicePriority> for Priority {
    fn from(priority: ServicePriority) -> Self {
        match priority {
            ServicePriority::Interactive => Self::Interactive,
            ServicePriority::Batch => Self::Batch,
        }
    }
}

impl From<&JobView> for Job {
    fn from(view: &JobView) -> Self {
        let record = &*view.record;
        Self {
            id: view.id.to_string(),
            state: view.state.into(),
            created: time(record.created),
            started: record.started.map(time),
            finished: record.finished.map(time),
            position: view.position,
            eta_seconds: view.eta.map(|eta| eta.as_secs_f64()),
            stage: view.stage,
            progress: view.progress.map(|now| Progress { done: now.done, total: now.total }),
            image: record.image.map(JobImage::from),
            error: record.error.as_ref().map(JobError::from),
            request: record.into(),
            model: record.into(),
            inputs: record.inputs.iter().map(Input::from).collect(),
            events_url: format!("/api/jobs/{}/events", view.id),
        }
    }
}

impl From<ServiceImage> for JobImage {
    fn from(image: ServiceImage) -> Self {
        let ServiceImage { id, width, height } = image;
        Self { id: id.to_string(), width, height, url: content_url(id) }
    }
}

impl From<&Failure> for JobError {
    fn from(failure: &Failure) -> Self {
        Self { code: failure.code.clone(), message: failure.message.clone() }
    }
}

impl From<&Record> for EditRequest {
    fn from(record: &Record) -> Self {
        Self {
            prompt: record.prompt.clone(),
            style: record.style.clone(),
            negative_prompt: record.negative_prompt.clone(),
            true_cfg_scale: record.true_cfg_scale,
            guidance_scale: record.guidance_scale,
            num_inference_steps: record.num_inference_steps,
            seed: record.seed,
            width: record.size.map(|[width, _]| width),
            height: record.size.map(|[_, height]| height),
            aspect_ratio: record.aspect_ratio.clone(),
            max_sequence_length: record.max_sequence_length,
            step_cache: record.step_cache,
            loras: record.loras.iter().map(LoraUse::from).collect(),
            output_format: record.output_format.into(),
            priority: record.priority.into(),
            ephemeral: record.ephemeral,
        }
    }
}

impl From<&Record> for ModelVersion {
    fn from(record: &Record) -> Self {
        Self { name: record.model.clone(), version: record.model_version.clone() }
    }
}

impl From<&ServiceInput> for Input {
    fn from(input: &ServiceInput) -> Self {
        let ServiceInput { format, width, height, bytes } = *input;
        Self { format: format.into(), width, height, bytes }
    }
}

impl From<&ImageView> for Image {
    fn from(view: &ImageView) -> Self {
        let record = &*view.record;
        // An image is only ever stored with its size.
        let (width, height) = record.image.map_or((0, 0), |image| (image.width, image.height));
        Self {
            id: view.id.to_string(),
            job: record.job.to_string(),
            created: time(record.created),
            started: record.started.map(time),
            finished: record.finished.map(time),
            width,
            height,
            bytes: view.bytes,
            lost: view.lost,
            url: content_url(view.id),
            request: record.into(),
            model: record.into(),
            inputs: record.inputs.iter().map(Input::from).collect(),
        }
    }
}

fn content_url(image: ObjectId) -> String {
    format!("/api/images/{image}/content")
}

/// A prompt cannot be serialised by accident: here it is on purpose, for its owner.
fn prompt<S: Serializer>(prompt: &Option<Prompt>, to: S) -> Result<S::Ok, S::Error> {
    prompt.as_ref().map(Prompt::text).serialize(to)
}
