//! The engine: turns pictures and a sentence into a picture, on one device.
//!
//! [`Pipeline`] implements [`Engine`]. It owns the model and every job that was admitted, and does
//! nothing by itself: whoever drives it decides which job gets the next slice of work.
//!
//! Reference: diffusers 0.42.1 `FluxKontextPipeline`, with Black Forest Labs' rule for sizes.

mod batch;
mod checkpoint;
mod cost;
mod job;
mod loras;
mod memory;
mod pack;
mod parts;
mod preview;
mod rng;
mod schedule;
mod sizes;
mod tokenizer;
mod trace;

pub use checkpoint::Checkpoint;
pub use loras::{Listed, LoraShelf};
pub use memory::{Plan, Planned, Room, TooSmall, Usual};
pub use rng::randn;
pub use sizes::Sizes;
pub use trace::Trace;

use crate::{
    domain::Pixels,
    engine::{CostModel, Engine, EngineError, Job, Phase, Slot, StepOutcome},
    model::{LoadError, flux::StepCache},
};
use job::{Running, Stage};
use parts::Parts;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// The most reference pictures of one job.
const MAX_IMAGES: usize = 8;

/// A model on a device, and the jobs that it works on.
#[derive(Debug)]
pub struct Pipeline {
    parts: Parts,
    jobs: BTreeMap<Slot, Running>,
    next: u64,
}

impl Pipeline {
    /// Loads a model as it was planned, telling `on_part` what is loaded next.
    ///
    /// # Errors
    /// [`LoadError`] that names file, tensor or field, what was expected and what was found.
    pub fn load(
        checkpoint: &Checkpoint,
        plan: &Plan,
        mut on_part: impl FnMut(&str),
    ) -> Result<Self, LoadError> {
        let parts = Parts::load(checkpoint, plan, &mut on_part)?;
        Ok(Self { parts, jobs: BTreeMap::new(), next: 0 })
    }

    /// Lets jobs name the adapters of `shelf`; without one there are none.
    pub fn shelve(&mut self, shelf: Arc<LoraShelf>) {
        let Parts { transformer, clip, target, .. } = &self.parts;
        shelf.place(transformer, clip, target);
        self.parts.loras = shelf;
    }

    /// The sizes that were planned for a job.
    #[must_use]
    pub fn sizes(&self, slot: Slot) -> Option<&Sizes> {
        self.jobs.get(&slot).map(|job| &job.sizes)
    }

    /// Whether a job's prompt had more than `max_sequence_length` tokens and lost its end; known
    /// once the text phase is over.
    #[must_use]
    pub fn prompt_was_cut(&self, slot: Slot) -> bool {
        self.jobs.get(&slot).is_some_and(|job| job.truncated)
    }

    /// Passes of a job through the transformer that its cache shortened, while it is being denoised:
    /// at most one a step, two with a negative prompt.
    #[must_use]
    pub fn shortened(&self, slot: Slot) -> usize {
        let denoising = self.jobs.get(&slot).and_then(Running::denoising);
        denoising.map_or(0, |job| job.caches.iter().map(StepCache::reused).sum())
    }

    /// Keeps the tensors of a job from now on, for [`Pipeline::take_trace`].
    pub fn trace(&mut self, slot: Slot) {
        if let Some(job) = self.jobs.get_mut(&slot) {
            job.trace.get_or_insert_default();
        }
    }

    /// The tensors that a traced job has gone through so far.
    pub fn take_trace(&mut self, slot: Slot) -> Option<Trace> {
        self.jobs.get_mut(&slot)?.trace.take()
    }
}

fn compute(error: impl std::error::Error + Send + Sync + 'static) -> EngineError {
    EngineError::Compute(Box::new(error))
}

impl Engine for Pipeline {
    fn admit(&mut self, job: Job) -> Result<Slot, EngineError> {
        let sizes = cost::plan(&self.parts.sizing, &job.params, &job.sizes())?;
        self.parts.loras.weigh(&job.params.loras)?;
        let slot = Slot(self.next);
        self.next += 1;
        tracing::debug!(
            slot = slot.0,
            output = %sizes.output,
            references = sizes.references.len(),
            steps = job.params.num_inference_steps,
            "admitted"
        );
        self.jobs.insert(slot, Running::new(job.params, job.images, sizes));
        Ok(slot)
    }

    fn advance(&mut self, slot: Slot, budget: Duration) -> Result<Phase, EngineError> {
        let job = self.jobs.get_mut(&slot).ok_or(EngineError::UnknownSlot(slot))?;
        if matches!(job.stage, Stage::Over) {
            return Err(EngineError::WrongPhase { slot, call: "advance" });
        }
        let start = Instant::now();
        let mut phase = job.unit(&mut self.parts).map_err(compute)?;
        // On within the same phase while time is left; a new phase is told first.
        while start.elapsed() < budget
            && matches!(phase, Phase::Text(_) | Phase::Images(_) | Phase::Decoding(_))
        {
            let next = job.unit(&mut self.parts).map_err(compute)?;
            let same = std::mem::discriminant(&next) == std::mem::discriminant(&phase);
            phase = next;
            if !same {
                break;
            }
        }
        Ok(phase)
    }

    fn step(&mut self, slots: &[Slot]) -> Vec<StepOutcome> {
        let ready = |job: &Running| matches!(&job.stage, Stage::Denoising(d) if !d.finished());
        let wanted: BTreeSet<Slot> = slots.iter().copied().collect();
        let mut outcomes: Vec<StepOutcome> = Vec::new();
        for &slot in &wanted {
            let error = match self.jobs.get(&slot) {
                None => EngineError::UnknownSlot(slot),
                Some(job) if !ready(job) => EngineError::WrongPhase { slot, call: "step" },
                Some(_) => continue,
            };
            outcomes.push(StepOutcome { slot, result: Err(error) });
        }
        let mut batch: Vec<(Slot, &mut Running)> = self
            .jobs
            .iter_mut()
            .filter(|(slot, job)| wanted.contains(slot) && ready(job))
            .map(|(&slot, job)| (slot, job))
            .collect();
        if batch.is_empty() {
            return outcomes;
        }
        let mut jobs: Vec<&mut Running> = batch.iter_mut().map(|(_, job)| &mut **job).collect();
        let (start, count) = (Instant::now(), jobs.len());
        let failure = batch::step(&self.parts, &mut jobs).err().map(Arc::new);
        tracing::trace!(jobs = count, elapsed = ?start.elapsed(), "denoising step");
        for (slot, job) in batch {
            let result = match (&failure, &job.stage) {
                (None, Stage::Denoising(denoising)) => Ok(denoising.progress()),
                (None, _) => Err(EngineError::WrongPhase { slot, call: "step" }),
                (Some(error), _) => {
                    job.stage = Stage::Over;
                    Err(compute(error.clone()))
                }
            };
            outcomes.push(StepOutcome { slot, result });
        }
        outcomes
    }

    fn preview(&mut self, slot: Slot) -> Option<Pixels> {
        let job = self.jobs.get(&slot)?;
        let Stage::Denoising(denoising) = &job.stage else { return None };
        // A preview that fails is none: the job itself has not.
        preview::preview(denoising, job.sizes.generated, &self.parts.preview).ok()?
    }

    fn release(&mut self, slot: Slot) {
        self.jobs.remove(&slot);
    }

    fn cost_model(&self) -> Arc<dyn CostModel> {
        Arc::new(self.parts.costs.with(&self.parts.loras))
    }
}
