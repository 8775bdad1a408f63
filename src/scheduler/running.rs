//! A job in the engine, as the worker sees it.

use super::{
    meter::{Meter, Work},
    policy::{Active, Activity, Waiting},
    progress::{Event, Reporter, Stage, Status},
};
use crate::engine::{Job, Phase, Progress, Slot};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Running {
    pub(super) active: Active,
    pub(super) slot: Slot,
    /// Kept for another beginning, should the engine fail under other jobs.
    pub(super) job: Job,
    pub(super) restarted: bool,
    pub(super) reporter: Reporter,
    pub(super) steps: Progress,
    stage: Stage,
    progress: Progress,
    /// Time of this activity's slices.
    spent: Duration,
}

impl Running {
    pub(super) fn new(waiting: Waiting, slot: Slot, job: Job, reporter: Reporter) -> Self {
        let active = Active::new(waiting);
        let nothing = Progress { done: 0, total: 0 };
        let steps = Progress { done: 0, total: active.job.cost.steps as usize };
        let (stage, progress, spent) = (Stage::Text, nothing, Duration::ZERO);
        Self { active, slot, job, restarted: false, reporter, steps, stage, progress, spent }
    }

    /// Begins anew in `slot` of another engine.
    pub(super) fn restart(&mut self, slot: Slot) {
        self.slot = slot;
        self.restarted = true;
        self.steps.done = 0;
        (self.stage, self.progress) = (Stage::Text, Progress { done: 0, total: 0 });
        self.turn(Activity::Preparing);
    }

    fn turn(&mut self, activity: Activity) {
        if self.active.activity != activity {
            (self.active.slices, self.spent) = (0, Duration::ZERO);
        }
        self.active.activity = activity;
    }

    /// A step was done.
    pub(super) fn stepped(&mut self, steps: Progress) {
        self.steps = steps;
        (self.stage, self.progress) = (Stage::Steps, steps);
        if steps.done >= steps.total {
            self.turn(Activity::Finishing);
        }
    }

    /// A slice was done. Whole activities are what the predicted work is known of, so only their
    /// ends are measured.
    pub(super) fn sliced(&mut self, phase: &Phase, took: Duration, meter: &mut Meter) {
        self.active.slices += 1;
        self.spent += took;
        match phase {
            Phase::Text(progress) => (self.stage, self.progress) = (Stage::Text, *progress),
            Phase::Images(progress) => (self.stage, self.progress) = (Stage::Images, *progress),
            Phase::Ready => {
                meter.slices(self.spent, self.active.job.cost.before);
                (self.stage, self.progress) = (Stage::Steps, self.steps);
                self.turn(Activity::Stepping);
            }
            Phase::Decoding(progress) => {
                (self.stage, self.progress) = (Stage::Decoding, *progress);
                self.turn(Activity::Finishing);
            }
            Phase::Done(_) => meter.slices(self.spent, self.active.job.cost.after),
        }
    }

    pub(super) fn steps_left(&self) -> u64 {
        self.steps.total.saturating_sub(self.steps.done) as u64
    }

    /// What of its work is still to be done.
    pub(super) fn remaining(&self) -> Work {
        let cost = &self.active.job.cost;
        let left = self.steps_left();
        let before = if self.active.activity == Activity::Preparing { cost.before } else { 0 };
        Work { steps: cost.step.saturating_mul(left), slices: before.saturating_add(cost.after) }
    }

    /// It, as the policy sees it.
    pub(super) fn active(&self) -> Active {
        Active { left: self.remaining().sum(), ..self.active.clone() }
    }

    /// Tells where it stands, with a step's event where there is one.
    pub(super) fn tell(&self, event: Option<Event>, eta: Option<Duration>) {
        let status = Status::Running { stage: self.stage, progress: self.progress, eta };
        match event {
            Some(event) => self.reporter.tell(event, status),
            None => self.reporter.update(status),
        }
    }
}
