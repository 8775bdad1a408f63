//! How long a unit of predicted work takes, measured: the worker's basis of estimates and budgets.

use crate::engine::Cost;
use std::time::Duration;

/// Weight of a new measurement in a moving average.
const NEW: f64 = 0.2;
/// The budget of a tick's slices where nothing stepped in it: that soon is a command read.
const SLICE: Duration = Duration::from_millis(50);
/// Below this slices would be all overhead.
const SHORTEST: Duration = Duration::from_millis(1);

/// How long the text and picture work of a tick may take, for each job and in all, where `waiting`
/// jobs want it and the step of `stepping` others took `step`.
///
/// Each job as long as the step: none stalls the others longer. All as long as the step for each
/// job that steps: those that wait for such work are given as much of the device as those that step,
/// or a batch would never fill where pictures cost more than steps.
pub(super) fn budget(step: Duration, stepping: usize, waiting: usize) -> (Duration, Duration) {
    if stepping == 0 {
        return (SLICE, SLICE);
    }
    let each = step.max(SHORTEST);
    let share = waiting as f64 / stepping as f64;
    let all = Duration::try_from_secs_f64(each.as_secs_f64() * share).unwrap_or(each);
    (each, all.max(each))
}

/// Moving averages of measured times.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// Seconds of a unit of work in a step.
    step_unit: Option<f64>,
    /// Seconds of a unit of text or picture work, which has another speed.
    slice_unit: Option<f64>,
}

fn average(old: &mut Option<f64>, new: f64) {
    *old = Some(old.map_or(new, |old| old + NEW * (new - old)));
}

impl Meter {
    /// A step of that much work was done.
    pub(super) fn step(&mut self, took: Duration, work: u64) {
        average(&mut self.step_unit, took.as_secs_f64() / work.max(1) as f64);
    }

    /// That much text or picture work was done, in some number of slices.
    pub(super) fn slices(&mut self, took: Duration, work: u64) {
        if work > 0 {
            average(&mut self.slice_unit, took.as_secs_f64() / work as f64);
        }
    }

    /// How long the device is busy with that much work; none before a step was measured.
    pub(super) fn predict(&self, work: Work) -> Option<Duration> {
        let step = self.step_unit?;
        let slice = self.slice_unit.unwrap_or(step);
        Duration::try_from_secs_f64(work.steps as f64 * step + work.slices as f64 * slice).ok()
    }
}

/// When several engines will be done, where each further job goes to the one that is done first.
#[derive(Clone, Debug)]
pub(super) struct Forecast {
    engines: Vec<(Meter, Work)>,
}

impl Forecast {
    /// Engines with the work that they have. One that has measured nothing yet is taken to be as fast
    /// as another.
    pub(super) fn new(mut engines: Vec<(Meter, Work)>) -> Self {
        let known = |(meter, _): &&(Meter, Work)| meter.step_unit.is_some();
        if let Some((model, _)) = engines.iter().find(known).copied() {
            for (meter, _) in engines.iter_mut().filter(|(meter, _)| meter.step_unit.is_none()) {
                *meter = model;
            }
        }
        Self { engines }
    }

    /// Adds a job, and says when it is done; none before a step was measured.
    pub(super) fn add(&mut self, work: Work) -> Option<Duration> {
        let done = |(meter, ahead): &&mut (Meter, Work)| (meter.predict(*ahead), ahead.sum());
        let (meter, ahead) = self.engines.iter_mut().min_by_key(done)?;
        *ahead = ahead.plus(work);
        meter.predict(*ahead)
    }

    /// When all is done.
    pub(super) fn end(&self) -> Option<Duration> {
        self.engines.iter().map(|(meter, ahead)| meter.predict(*ahead)).max().flatten()
    }
}

/// Work by its kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Of steps.
    pub(super) steps: u64,
    /// Of text and pictures.
    pub(super) slices: u64,
}

impl Work {
    /// All of a job.
    pub(super) fn of(cost: &Cost) -> Self {
        let steps = cost.step.saturating_mul(u64::from(cost.steps));
        Self { steps, slices: cost.before.saturating_add(cost.after) }
    }

    /// Both kinds together.
    pub(super) fn sum(self) -> u64 {
        self.steps.saturating_add(self.slices)
    }

    pub(super) fn plus(self, other: Self) -> Self {
        let steps = self.steps.saturating_add(other.steps);
        Self { steps, slices: self.slices.saturating_add(other.slices) }
    }
}
