//! The engine's keeper: the one place where its panics are caught and where it is built again.
//!
//! Only its worker uses it, on the engine's thread. It knows nothing of queues or users.

use super::progress::Fault;
use crate::{
    domain::Pixels,
    engine::{CostModel, Engine, EngineError, Job, Phase, Slot, StepOutcome},
};
use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

/// What a factory gives instead of an engine.
pub type BuildError = Box<dyn Error + Send + Sync>;
/// Builds an engine, on the thread that will own it. Called again after a failure.
pub type Factory = Box<dyn FnMut() -> Result<Box<dyn Engine>, BuildError> + Send>;

/// Failures in a row after which the engine is not built again.
const FAILURES: u32 = 2;

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The factory said no.
    #[error("the engine could not be built: {0}")]
    Build(#[source] BuildError),
    /// The factory panicked.
    #[error("the engine panicked while it was built")]
    Panic,
    /// The system gave no thread.
    #[error("no thread for the engine: {0}")]
    Thread(#[source] std::io::Error),
    /// One of several engines.
    #[error("{name}: {reason}")]
    Engine {
        /// What whoever started it calls it.
        name: String,
        /// Why it is not there.
        #[source]
        reason: Box<StartError>,
    },
    /// None was to be started.
    #[error("there is no engine to start")]
    NoEngine,
}

impl StartError {
    /// The error as that of the engine of that name.
    pub(super) fn of(self, name: String) -> Self {
        Self::Engine { name, reason: Box::new(self) }
    }
}

pub(super) struct Host {
    factory: Factory,
    engine: Option<Box<dyn Engine>>,
    /// Failures since the last success.
    failures: u32,
}

/// Runs `work`, and gives none where it panicked. What was broken by that must not be used again:
/// every caller drops the engine. The panic's text is for standard error alone, as it may quote what
/// a job contains.
fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

fn build(factory: &mut Factory) -> Result<Box<dyn Engine>, StartError> {
    caught(factory).ok_or(StartError::Panic)?.map_err(StartError::Build)
}

impl Host {
    pub(super) fn build(mut factory: Factory) -> Result<Self, StartError> {
        let engine = Some(build(&mut factory)?);
        Ok(Self { factory, engine, failures: 0 })
    }

    pub(super) fn cost_model(&mut self) -> Result<Arc<dyn CostModel>, StartError> {
        self.call("cost_model", |engine| engine.cost_model()).map_err(|_| StartError::Panic)
    }

    pub(super) fn admit(&mut self, job: Job) -> Result<Slot, Fault> {
        self.call("admit", |engine| engine.admit(job))?.map_err(Fault::from)
    }

    pub(super) fn advance(&mut self, slot: Slot, budget: Duration) -> Result<Phase, Fault> {
        self.call("advance", |engine| engine.advance(slot, budget))?.map_err(Fault::from)
    }

    pub(super) fn step(&mut self, slots: &[Slot]) -> Result<Vec<StepOutcome>, Fault> {
        self.call("step", |engine| engine.step(slots))
    }

    pub(super) fn preview(&mut self, slot: Slot) -> Result<Option<Pixels>, Fault> {
        self.call("preview", |engine| engine.preview(slot))
    }

    pub(super) fn release(&mut self, slot: Slot) -> Result<(), Fault> {
        self.call("release", |engine| engine.release(slot))
    }

    fn call<T>(
        &mut self,
        call: &'static str,
        work: impl FnOnce(&mut dyn Engine) -> T,
    ) -> Result<T, Fault> {
        let Some(engine) = &mut self.engine else {
            return Err(Fault::EngineDown { reason: "it is not built".to_owned() });
        };
        let result = caught(|| work(engine.as_mut()));
        if result.is_none() {
            self.discard();
        }
        result.ok_or(Fault::Panic { call })
    }

    /// A step or a whole job went well.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Builds the engine again after `fault`, or says why not: it failed twice in a row, or cannot
    /// be built. All slots are gone either way.
    pub(super) fn recover(&mut self, fault: &Fault) -> Result<(), String> {
        self.discard();
        self.failures += 1;
        if self.failures >= FAILURES {
            return Err(self.give_up(fault));
        }
        self.engine = Some(build(&mut self.factory).map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Drops the engine for good, and says why.
    pub(super) fn give_up(&mut self, fault: &Fault) -> String {
        self.discard();
        format!("it failed twice in a row, at last: {fault}")
    }

    fn discard(&mut self) {
        let engine = self.engine.take();
        // What panicked once may panic again while it is dropped.
        caught(|| drop(engine));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.discard();
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("failures", &self.failures).finish_non_exhaustive()
    }
}

/// Whether the engine has to be built again after `fault`, rather than one job given up.
pub(super) fn is_breakdown(fault: &Fault) -> bool {
    match fault {
        Fault::Panic { .. } | Fault::EngineDown { .. } => true,
        Fault::Engine(error) => matches!(**error, EngineError::Compute(_)),
        Fault::Param(_) => false,
    }
}
