//! The seam between whoever schedules work and whatever computes it.
//!
//! An engine runs on one thread and blocks. It knows no JSON, no PNG, no HTTP and no disk: a job
//! comes in as pixels and parameters and goes out as pixels. Work is handed out in slices, so that
//! several jobs can share a device: [`Engine::advance`] runs a slice of one job's text or picture
//! work, [`Engine::step`] one denoising step of many jobs at once. What a job would cost is said by
//! a [`CostModel`], which leaves the thread: a request is weighed while the engine is busy.

mod cost;
pub mod fake;

pub use cost::{Cost, CostModel, JobShape};

use crate::domain::{EditParams, ParamError, Pixels, Size};
use std::{sync::Arc, time::Duration};

/// The longest side of a preview, in pixels.
pub const PREVIEW_SIDE: u32 = 256;

/// An edit to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to do.
    pub params: EditParams,
    /// The reference pictures, the first of which is edited. None: a picture from text alone.
    pub images: Vec<Pixels>,
}

impl Job {
    /// The sizes of its pictures, in order.
    #[must_use]
    pub fn sizes(&self) -> Vec<Size> {
        self.images.iter().map(Pixels::size).collect()
    }
}

/// An admitted job's place in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u64);

/// How far a piece of work is, in units of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Units done.
    pub done: usize,
    /// Units in all.
    pub total: usize,
}

/// Where a job stands after a slice of work.
#[derive(Debug)]
pub enum Phase {
    /// The prompt is being encoded.
    Text(Progress),
    /// The reference pictures are being encoded.
    Images(Progress),
    /// Every further step goes through [`Engine::step`].
    Ready,
    /// The result is being decoded.
    Decoding(Progress),
    /// The result; given once.
    Done(Pixels),
}

/// What a denoising step did for one job.
#[derive(Debug)]
pub struct StepOutcome {
    /// The job.
    pub slot: Slot,
    /// Steps done and in all, or why the job cannot go on.
    pub result: Result<Progress, EngineError>,
}

/// Why an engine could not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A parameter is out of range, or does not suit this model.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// No job is in that slot: it was never admitted, or it was released.
    #[error("no job in slot {}", .0.0)]
    UnknownSlot(Slot),
    /// The job is in another phase than the call is for.
    #[error("the job in slot {} is not ready for {call}", slot.0)]
    WrongPhase {
        /// The job.
        slot: Slot,
        /// The call that was made.
        call: &'static str,
    },
    /// The computation failed: a device error, or memory that ran out.
    #[error("the computation failed: {0}")]
    Compute(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Something that computes edits.
pub trait Engine {
    /// Takes a job in. Checks its parameters and plans its sizes; does no work yet.
    ///
    /// # Errors
    /// [`EngineError::Param`] where a parameter cannot be used.
    fn admit(&mut self, job: Job) -> Result<Slot, EngineError>;

    /// Runs text, picture encoding or decoding of one job, at least one unit of it, until `budget`
    /// is used up or the phase ends. A job that has all its steps behind it is decoded.
    ///
    /// # Errors
    /// [`EngineError::UnknownSlot`], [`EngineError::Compute`], or [`EngineError::WrongPhase`] where
    /// the result was already given.
    fn advance(&mut self, slot: Slot, budget: Duration) -> Result<Phase, EngineError>;

    /// One denoising step of each job, packed into one batch. Jobs may differ in size and in the
    /// step they are at; none changes another's result. A slot named twice steps once.
    fn step(&mut self, slots: &[Slot]) -> Vec<StepOutcome>;

    /// How the job would look if the rest of its steps went as straight as the last one: an eighth
    /// of its size, at most [`PREVIEW_SIDE`] pixels a side. None before its first step, once it is
    /// being decoded, and from a model that has no colours for its latents.
    fn preview(&mut self, slot: Slot) -> Option<Pixels>;

    /// Forgets a job and drops everything it held, whatever its phase. Idempotent.
    fn release(&mut self, slot: Slot);

    /// What jobs will cost, as a value of its own.
    fn cost_model(&self) -> Arc<dyn CostModel>;

    /// What one job would cost.
    ///
    /// # Errors
    /// The first parameter that [`Engine::admit`] would refuse.
    fn cost(&self, job: &JobShape<'_>) -> Result<Cost, ParamError> {
        self.cost_model().cost(job)
    }
}
