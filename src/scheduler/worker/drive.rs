//! The worker's calls of the engine: admission, steps, slices and previews, and what is told of
//! them. `tick` calls each in its turn; which jobs they are for was decided before.

use super::{
    super::{
        meter::{Work, budget},
        policy::{Activity, JobId},
        progress::{Event, Fault, Outcome},
        queue::Ticket,
        running::Running,
    },
    Worker,
};
use crate::{
    domain::Pixels,
    engine::{EngineError, Phase, Slot},
};
use std::time::Duration;
use tokio::sync::oneshot;

impl Worker {
    pub(super) fn admit(&mut self, ticket: Ticket, now: Duration) {
        if self.down {
            return self.give_back(ticket);
        }
        let Ticket { waiting, job, reporter, place } = ticket;
        drop(place);
        match self.host.admit(job.clone()) {
            Ok(slot) => {
                let wait = now.saturating_sub(waiting.since).as_secs_f64();
                self.shared.stats().wait_seconds.add(wait);
                let job = Running::new(waiting, slot, job, reporter);
                job.tell(Some(Event::Started), self.eta(&job));
                self.running.push(job);
            }
            Err(fault) => {
                self.end(waiting.id, reporter, Outcome::Failed(fault.clone()));
                self.mend(&fault);
            }
        }
    }

    /// One step of those jobs that are ready; how long it took, and of how many.
    pub(super) fn step(&mut self, ids: &[JobId]) -> (Duration, usize) {
        // An engine that was built again while jobs were admitted has nobody who is ready.
        let ready = |job: &&Running| {
            job.active.activity == Activity::Stepping && ids.contains(&job.active.job.id)
        };
        let batch: Vec<&Running> = self.running.iter().filter(ready).collect();
        if batch.is_empty() {
            return (Duration::ZERO, 0);
        }
        let slots: Vec<Slot> = batch.iter().map(|job| job.slot).collect();
        let tokens: usize = batch.iter().map(|job| job.active.job.cost.tokens).sum();
        let work = batch.iter().map(|job| job.active.job.cost.step).fold(0, u64::saturating_add);
        let start = self.clock.now();
        let outcomes = self.host.step(&slots);
        let took = self.clock.now().saturating_sub(start);

        let mut results: Vec<(Slot, Result<_, Fault>)> = match outcomes {
            Ok(outcomes) => outcomes
                .into_iter()
                .map(|outcome| (outcome.slot, outcome.result.map_err(Fault::from)))
                .collect(),
            Err(fault) => slots.iter().map(|&slot| (slot, Err(fault.clone()))).collect(),
        };
        // A job that the engine says nothing of would step for ever.
        for &slot in &slots {
            if !results.iter().any(|(told, _)| *told == slot) {
                results.push((slot, Err(Fault::from(EngineError::UnknownSlot(slot)))));
            }
        }
        if results.iter().any(|(_, result)| result.is_ok()) {
            self.host.succeeded();
            self.meter.step(took, work);
            self.steps += 1;
            let mut stats = self.shared.stats();
            stats.step_seconds.add(took.as_secs_f64());
            stats.batch_tokens.add(tokens as f64);
            stats.batch_jobs.add(slots.len() as f64);
        }
        let (mut stepped, mut failed) = (Vec::new(), Vec::new());
        for (slot, result) in results {
            let Some(job) = self.running.iter_mut().find(|job| job.slot == slot) else { continue };
            match result {
                Ok(progress) => {
                    job.stepped(progress);
                    stepped.push((slot, progress));
                }
                Err(fault) => failed.push((job.active.job.id, fault)),
            }
        }
        for (slot, progress) in stepped {
            let Some(job) = self.running.iter().find(|job| job.slot == slot) else { continue };
            let event = Event::Step { progress, seconds: took.as_secs_f64() };
            job.tell(Some(event), self.eta(job));
        }
        self.fail(failed);
        (took, slots.len())
    }

    /// The text and picture work of a tick: of the first job, and of the next where time is left.
    /// `step` is what [`Worker::step`] gave.
    pub(super) fn slices(&mut self, ids: &[JobId], step: (Duration, usize)) {
        let (each, mut all) = budget(step.0, step.1, ids.len());
        for &id in ids {
            let mut left = each.min(all);
            // On with the same job, through changes of its phase, while it has such work.
            while !left.is_zero() {
                let start = self.clock.now();
                let more = self.slice(id, left);
                let took = self.clock.now().saturating_sub(start);
                (left, all) = (left.saturating_sub(took), all.saturating_sub(took));
                self.take_commands();
                if self.stopping {
                    return;
                }
                if !more {
                    break;
                }
            }
        }
    }

    /// A slice of one job. False where it has no such work any more.
    fn slice(&mut self, id: JobId, budget: Duration) -> bool {
        let slicing =
            |job: &Running| job.active.job.id == id && job.active.activity != Activity::Stepping;
        let Some(index) = self.running.iter().position(slicing) else { return false };
        let start = self.clock.now();
        let result = self.host.advance(self.running[index].slot, budget);
        let took = self.clock.now().saturating_sub(start);
        match result {
            Ok(phase) => {
                self.shared.stats().slice_seconds.add(took.as_secs_f64());
                let job = &mut self.running[index];
                job.sliced(&phase, took, &mut self.meter);
                if let Phase::Done(pixels) = phase {
                    let job = self.running.remove(index);
                    self.host.succeeded();
                    self.leave(job, Outcome::Done(pixels));
                    return false;
                }
                let job = &self.running[index];
                job.tell(None, self.eta(job));
                job.active.activity != Activity::Stepping
            }
            Err(fault) => {
                self.fail(vec![(id, fault)]);
                false
            }
        }
    }

    pub(super) fn preview(&mut self, id: JobId, reply: oneshot::Sender<Option<Pixels>>) {
        let slot = self.running.iter().find(|job| job.active.job.id == id).map(|job| job.slot);
        let shown = slot.map_or(Ok(None), |slot| self.host.preview(slot));
        match shown {
            // Whoever asked may have gone.
            Ok(pixels) => drop(reply.send(pixels)),
            Err(fault) => self.fail(vec![(id, fault)]),
        }
    }

    /// When a running job may be done: it shares its steps with those that step as long as it does.
    fn eta(&self, job: &Running) -> Option<Duration> {
        let (left, own) = (job.steps_left(), job.remaining());
        let others = self.running.iter().filter(|other| other.slot != job.slot);
        let shared = others
            .map(|other| other.active.job.cost.step.saturating_mul(left.min(other.steps_left())));
        let steps = shared.fold(own.steps, u64::saturating_add);
        self.meter.predict(Work { steps, slices: own.slices })
    }
}
