//! The scheduler over the fake engine, ticked by hand on a clock that only the fake moves.

mod devices;
mod ending;
mod events;
mod fairness;
mod faults;
mod policy;
mod slicing;
mod threads;

use anyhow::{Context, Result, ensure};
use darkroom::{
    domain::{EditParams, Pixels, Prompt, ReferenceMethod, Size},
    engine::{
        Job,
        fake::{self, Call, Control, FakeEngine, Work},
    },
    scheduler::{
        Factory, JobHandle, Limits, ManualClock, Outcome, Priority, Request, Scheduler, Status,
        SubmitError, Tick, User, Worker, by_hand,
    },
};
use std::{sync::Arc, time::Duration};

/// More ticks than any of these tests takes.
const MANY: usize = 20_000;

/// Room for everything that a test does not limit itself.
fn limits() -> Limits {
    Limits {
        jobs: 8,
        jobs_per_user: 8,
        tokens: 100_000,
        memory: 1_000_000_000,
        waiting: 1000,
        patience: Duration::from_secs(3600),
        remembered: 1000,
    }
}

/// A scheduler, the engine behind it, and the clock of both.
struct Bench {
    scheduler: Scheduler,
    worker: Worker,
    clock: ManualClock,
    control: Control,
}

fn factory(work: Work, control: &Control, clock: &ManualClock) -> Factory {
    let (control, clock) = (control.clone(), clock.clone());
    Box::new(move || {
        let clock = clock.clone();
        let spend = move |time| clock.advance(time);
        Ok(Box::new(FakeEngine::new(work, control.clone(), spend)))
    })
}

impl Bench {
    fn new(limits: Limits, work: Work) -> Result<Self> {
        let (control, clock) = (Control::default(), ManualClock::default());
        let factory = factory(work, &control, &clock);
        let (scheduler, worker) = by_hand(factory, limits, Arc::new(clock.clone()))?;
        Ok(Self { scheduler, worker, clock, control })
    }

    fn plain() -> Result<Self> {
        Self::new(limits(), Work::default())
    }

    fn submit(&self, user: &str, job: Job) -> Result<JobHandle, SubmitError> {
        self.scheduler.submit(request(user, job))
    }

    /// Ticks until nothing is left to do.
    fn finish(&mut self) -> Result<()> {
        self.until("idle", |_, tick| tick != Tick::Again)
    }

    /// Ticks until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self, Tick) -> bool) -> Result<()> {
        for _ in 0..MANY {
            let tick = self.worker.tick();
            if holds(self, tick) {
                return Ok(());
            }
        }
        anyhow::bail!("not {what} after {MANY} ticks")
    }

    /// The seeds of each step so far.
    fn steps(&self) -> Vec<Vec<u64>> {
        let calls = self.control.calls().into_iter();
        calls
            .filter_map(|call| if let Call::Step(seeds) = call { Some(seeds) } else { None })
            .collect()
    }

    fn steps_of(&self, seed: u64) -> usize {
        self.steps().iter().filter(|seeds| seeds.contains(&seed)).count()
    }

    fn count(&self, call: &Call) -> usize {
        self.control.calls().iter().filter(|other| *other == call).count()
    }
}

fn request(user: &str, job: Job) -> Request {
    let (user, priority) = (User::new(user), Priority::Interactive);
    Request { user, priority, job, cancel_on_disconnect: false }
}

/// An edit of a picture of `width` by `height`, whose seed is its name.
fn job(seed: u64, width: u32, height: u32, steps: u32) -> Job {
    let rgb = (0..width * height * 3).map(|i| (u64::from(i) * (seed + 3)) as u8).collect();
    let params = EditParams {
        prompt: Prompt::new("x".repeat(1 + seed as usize % 7)),
        negative_prompt: None,
        true_cfg_scale: 1.0,
        guidance_scale: 2.5,
        num_inference_steps: steps,
        seed,
        size: Some(Size::new(width, height)),
        aspect_ratio: None,
        max_sequence_length: 32,
        reference_method: ReferenceMethod::Offset,
        step_cache: 0.0,
        exact_size: false,
        loras: Vec::new(),
    };
    Job { params, images: Pixels::new(width, height, rgb).into_iter().collect() }
}

/// Nine tokens, four steps.
fn small(seed: u64) -> Job {
    job(seed, 32, 32, 4)
}

fn is_running(handle: &JobHandle) -> bool {
    matches!(handle.watcher().status(), Status::Running { .. })
}

fn is_queued(handle: &JobHandle) -> bool {
    matches!(handle.watcher().status(), Status::Queued { .. })
}

fn names(handle: &JobHandle) -> Vec<&'static str> {
    handle.watcher().events(0).iter().map(|(_, event)| event.name()).collect()
}

/// The name of a job's last event, which must be the end that its outcome says.
fn ending(mut handle: JobHandle) -> Result<&'static str> {
    let last = names(&handle).pop().context("no events")?;
    let outcome = handle.try_outcome().context("no outcome")?;
    ensure!(handle.try_outcome().is_none(), "the outcome was given twice");
    let same = match outcome {
        Outcome::Done(_) => last == "done",
        Outcome::Failed(fault) => {
            ensure!(last == "failed");
            return Ok(fault.code());
        }
        Outcome::Cancelled => last == "cancelled",
        Outcome::Interrupted => last == "interrupted",
    };
    ensure!(same, "the last event is {last}");
    Ok(last)
}

/// The `seed`th of a mixed load: jobs of five sizes and three lengths, and four users.
fn mixed(seed: u64) -> (&'static str, Job) {
    let (width, height) = [(32, 32), (48, 32), (64, 64), (16, 80), (96, 48)][seed as usize % 5];
    let user = ["ann", "bob", "cid", "dan"][seed as usize % 4];
    (user, job(seed, width, height, 4 + seed as u32 % 3))
}

/// Checks that a job gave its own result.
fn ensure_own(mut handle: JobHandle, job: &Job) -> Result<()> {
    let seed = job.params.seed;
    match handle.try_outcome() {
        Some(Outcome::Done(pixels)) => {
            ensure!(pixels == fake::result(job), "job {seed} has another's result");
            Ok(())
        }
        other => anyhow::bail!("job {seed}: {other:?}"),
    }
}
