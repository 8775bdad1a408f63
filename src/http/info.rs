//! What a client may want to know before it asks for an edit: models, styles, and how the queue
//! stands.

use super::{
    ApiError,
    error::ErrorBody,
    params::NoParams,
    state::{App, Caller, Model as Known},
    wire::Job,
};
use crate::service::{Defaults, Health, Style as Preset};
use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::default().routes(routes!(models)).routes(routes!(styles)).routes(routes!(queue))
}

/// The models of this server.
#[derive(Debug, Serialize, ToSchema)]
struct Models {
    /// One of them runs.
    models: Vec<Model>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
struct Model {
    /// What to send as `model`.
    #[schema(example = "kontext-tiny")]
    name: String,
    /// The family that it belongs to.
    family: String,
    /// Licence of its weights.
    licence: String,
    /// Whether its files are there.
    installed: bool,
    /// What is known of it because it runs; null where it does not.
    #[schema(required = true)]
    running: Option<Running>,
}

/// A model that runs.
#[derive(Debug, Serialize, ToSchema)]
struct Running {
    /// A digest of its files.
    version: String,
    /// What computes; several devices have commas between them.
    #[schema(example = "cuda:0")]
    device: String,
    /// The type of numbers that it computes with.
    #[schema(example = "bf16")]
    precision: String,
    /// The sizes that it was trained for, as `[width, height]` in pixels.
    preferred_sizes: Vec<[u32; 2]>,
    /// What it uses where a request says nothing.
    defaults: ModelDefaults,
}

/// Values for fields that a request leaves out.
#[derive(Debug, Serialize, ToSchema)]
struct ModelDefaults {
    /// Strength of the distilled guidance.
    guidance_scale: f32,
    /// Denoising steps.
    num_inference_steps: u32,
    /// Tokens of the prompt that the model reads at most.
    max_sequence_length: usize,
}

/// The style presets of this server.
#[derive(Debug, Serialize, ToSchema)]
struct StyleList {
    /// In the operator's order.
    styles: Vec<Style>,
}

/// A style preset: a name that stands for a prompt.
#[derive(Debug, Serialize, ToSchema)]
struct Style {
    /// What to send as `style`.
    #[schema(example = "sketch")]
    name: String,
    /// What to show to people.
    title: String,
    /// What it does, in a sentence.
    description: String,
    /// The prompt that it stands for.
    prompt: String,
}

/// How the queue stands.
#[derive(Debug, Serialize, ToSchema)]
struct Queue {
    /// Jobs that wait, of everyone.
    waiting: usize,
    /// Jobs that the devices have, of everyone.
    running: usize,
    /// When all of them would be done, in seconds from now; null before the server has measured a
    /// step.
    #[schema(required = true, minimum = 0)]
    backlog_seconds: Option<f64>,
    /// Whether jobs are taken.
    state: Readiness,
    /// The own jobs that have not ended, in order of submission.
    jobs: Vec<Job>,
}

/// Whether jobs are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Readiness {
    /// They are.
    Ready,
    /// No more: the server is about to stop, and finishes what runs.
    Draining,
    /// The model failed and could not be started again, on any device. The operator must look at it.
    Down,
}

impl From<&Health> for Readiness {
    fn from(health: &Health) -> Self {
        match health {
            Health::Ready => Self::Ready,
            Health::Draining => Self::Draining,
            Health::Red { .. } => Self::Down,
        }
    }
}

impl Model {
    fn new(known: &Known, defaults: Defaults) -> Self {
        let Known { name, family, licence, installed, running } = known.clone();
        let running = running.map(|running| Running {
            version: running.version,
            device: running.device,
            precision: running.precision,
            preferred_sizes: running.preferred_sizes,
            defaults: ModelDefaults {
                guidance_scale: defaults.guidance_scale,
                num_inference_steps: defaults.num_inference_steps,
                max_sequence_length: defaults.max_sequence_length,
            },
        });
        Self { name, family, licence, installed, running }
    }
}

impl From<&Preset> for Style {
    fn from(style: &Preset) -> Self {
        let Preset { name, title, description, prompt } = style.clone();
        Self { name, title, description, prompt }
    }
}

/// List models
///
/// The models that this server knows. One of them runs; a request that names another is refused.
#[utoipa::path(
    get,
    path = "/api/models",
    operation_id = "list_models",
    tag = "server",
    responses(
        (status = 200, description = "The models.", body = Models),
        (status = 422, description = "`unknown_field`.", body = ErrorBody),
    ),
)]
async fn models(State(app): State<App>, _: NoParams) -> Json<Models> {
    let defaults = app.service.defaults();
    Json(Models { models: app.models.iter().map(|known| Model::new(known, defaults)).collect() })
}

/// List styles
///
/// The style presets: names that stand for prompts.
#[utoipa::path(
    get,
    path = "/api/styles",
    operation_id = "list_styles",
    tag = "server",
    responses(
        (status = 200, description = "The styles.", body = StyleList),
        (status = 422, description = "`unknown_field`.", body = ErrorBody),
    ),
)]
async fn styles(State(app): State<App>, _: NoParams) -> Json<StyleList> {
    Json(StyleList { styles: app.service.styles().iter().map(Style::from).collect() })
}

/// Get how the queue stands
///
/// How many jobs there are, of everyone, and the own ones among them. Nobody sees whose the others
/// are or what they do.
#[utoipa::path(
    get,
    path = "/api/queue",
    operation_id = "get_queue",
    tag = "jobs",
    responses(
        (status = 200, description = "The queue.", body = Queue),
        (status = 422, description = "`unknown_field`.", body = ErrorBody),
    ),
)]
async fn queue(
    State(app): State<App>,
    Caller(owner): Caller,
    _: NoParams,
) -> Result<Json<Queue>, ApiError> {
    let view = app.service.queue(owner);
    Ok(Json(Queue {
        waiting: view.waiting,
        running: view.running,
        backlog_seconds: view.backlog.map(|backlog| backlog.as_secs_f64()),
        state: Readiness::from(&view.health),
        jobs: view.jobs.iter().map(Job::from).collect(),
    }))
}
