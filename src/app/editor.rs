//! One edit after another, each alone: what the command line runs.

use super::{AppError, Catalog, Compute, ModelEntry};
use crate::{
    config::Settings,
    domain::{ParamError, Pixels, Size},
    engine::{Engine, EngineError, Job, JobShape, Phase, Progress, Slot},
    pipeline::{Checkpoint, LoraShelf, Pipeline, Plan, Trace},
};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a slice of work may take before progress is told.
const SLICE: Duration = Duration::from_millis(50);

/// What an edit is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Encoding the prompt.
    Text,
    /// Encoding the pictures.
    Pictures,
    /// Denoising.
    Steps,
    /// Decoding the result.
    Decoding,
}

/// A finished edit.
#[derive(Debug)]
pub struct Edited {
    /// The result.
    pub pixels: Pixels,
    /// What the model made before it was cropped to the size of the result.
    pub generated: Size,
    /// Time of all denoising steps.
    pub denoising: Duration,
    /// Time from admission to result.
    pub total: Duration,
    /// Whether the prompt was longer than `max_sequence_length` and lost its end.
    pub prompt_was_cut: bool,
    /// Passes through the transformer that `step_cache` shortened.
    pub shortened: usize,
    /// The tensors of the run, where they were asked for.
    pub trace: Option<Trace>,
}

/// A loaded model that runs edits one by one.
#[derive(Debug)]
pub struct Editor {
    pipeline: Pipeline,
    plan: Plan,
    shelf: Arc<LoraShelf>,
}

impl Editor {
    /// Loads a model into the memory that the settings allow, telling `on_part` what is loaded next.
    ///
    /// # Errors
    /// [`AppError::Load`], [`AppError::Memory`].
    pub fn load(
        model: &ModelEntry,
        compute: &Compute,
        settings: &Settings,
        on_part: impl FnMut(&str),
    ) -> Result<Self, AppError> {
        let checkpoint = Checkpoint::open(&model.folder, &model.manifest, &compute.target)?;
        let plan = checkpoint.plan(compute.room(settings, 1))?;
        let mut pipeline = Pipeline::load(&checkpoint, &plan, on_part)?;
        let shelf = Catalog::find().map(|catalog| LoraShelf::new(&catalog.loras()));
        let shelf = Arc::new(shelf.unwrap_or_default());
        pipeline.shelve(Arc::clone(&shelf));
        Ok(Self { pipeline, plan, shelf })
    }

    /// Where the model's weights are.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes that a job will take besides the weights, by prediction.
    ///
    /// # Errors
    /// The first parameter that cannot be used.
    pub fn predict(&self, job: &Job) -> Result<u64, ParamError> {
        let shape = JobShape { params: &job.params, images: &job.sizes() };
        Ok(self.pipeline.cost(&shape)?.most())
    }

    /// Lets edits name the adapter in `file`.
    pub fn put_lora(&self, name: &str, file: &Path) {
        self.shelf.put(name, file);
    }

    /// Runs one edit to its end, telling how far it is.
    ///
    /// # Errors
    /// [`EngineError`]; the job is released either way.
    pub fn edit(
        &mut self,
        job: Job,
        trace: bool,
        mut on_progress: impl FnMut(Stage, Progress),
    ) -> Result<Edited, EngineError> {
        let slot = self.pipeline.admit(job)?;
        if trace {
            self.pipeline.trace(slot);
        }
        let result = self.run(slot, &mut on_progress);
        self.pipeline.release(slot);
        result
    }

    fn run(
        &mut self,
        slot: Slot,
        on_progress: &mut dyn FnMut(Stage, Progress),
    ) -> Result<Edited, EngineError> {
        let start = Instant::now();
        let generated = self.pipeline.sizes(slot).ok_or(EngineError::UnknownSlot(slot))?.generated;
        let (mut denoising, mut shortened) = (Duration::ZERO, 0);
        loop {
            match self.pipeline.advance(slot, SLICE)? {
                Phase::Text(progress) => on_progress(Stage::Text, progress),
                Phase::Images(progress) => on_progress(Stage::Pictures, progress),
                Phase::Decoding(progress) => on_progress(Stage::Decoding, progress),
                Phase::Ready => {
                    let begin = Instant::now();
                    for outcome in self.pipeline.step(&[slot]) {
                        on_progress(Stage::Steps, outcome.result?);
                    }
                    denoising += begin.elapsed();
                    shortened = self.pipeline.shortened(slot);
                }
                Phase::Done(pixels) => {
                    return Ok(Edited {
                        pixels,
                        generated,
                        denoising,
                        total: start.elapsed(),
                        prompt_was_cut: self.pipeline.prompt_was_cut(slot),
                        shortened,
                        trace: self.pipeline.take_trace(slot),
                    });
                }
            }
        }
    }
}
