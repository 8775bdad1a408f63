//! Several engines under one queue, ticked by hand in turn: each has its own, all share one clock.

mod outages;
mod threads;

use super::{ending, ensure_own, factory, is_queued, job, limits, mixed, request, small};
use anyhow::{Context, Result, ensure};
use darkroom::{
    domain::Pixels,
    engine::{
        Job,
        fake::{Call, Control, Work},
    },
    scheduler::{
        EngineState, Event, JobHandle, Limits, ManualClock, Scheduler, SubmitError, Tick, Worker,
        by_hand_all,
    },
};
use std::{collections::BTreeMap, sync::Arc};

/// A scheduler, and the engines behind it with what they were called.
struct Fleet {
    scheduler: Scheduler,
    /// None of one that has gone.
    workers: Vec<Option<Worker>>,
    controls: Vec<Control>,
}

impl Fleet {
    fn new(engines: usize, limits: Limits, work: Work) -> Result<Self> {
        let clock = ManualClock::default();
        let controls: Vec<Control> = (0..engines).map(|_| Control::default()).collect();
        let engine = |(number, control): (usize, &Control)| {
            (format!("fake:{number}"), factory(work, control, &clock))
        };
        let engines = controls.iter().enumerate().map(engine).collect();
        let (scheduler, workers) = by_hand_all(engines, limits, Arc::new(clock))?;
        Ok(Self { scheduler, workers: workers.into_iter().map(Some).collect(), controls })
    }

    fn two() -> Result<Self> {
        Self::new(2, limits(), Work::default())
    }

    fn submit(&self, user: &str, job: Job) -> Result<JobHandle, SubmitError> {
        self.scheduler.submit(request(user, job))
    }

    /// A tick of each that is there; those that stop go. Whether any has more to do.
    fn tick(&mut self) -> bool {
        let mut more = false;
        for worker in &mut self.workers {
            match worker.as_mut().map(Worker::tick) {
                Some(Tick::Again) => more = true,
                Some(Tick::Stop) => *worker = None,
                Some(Tick::Idle) | None => {}
            }
        }
        more
    }

    /// Ticks until nothing is left to do. What one leaves may be for another that was asked before it.
    fn finish(&mut self) -> Result<()> {
        for _ in 0..super::MANY {
            if !self.tick() && !self.tick() {
                return Ok(());
            }
        }
        anyhow::bail!("not idle after {} ticks", super::MANY)
    }

    /// Ticks until something holds.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        for _ in 0..super::MANY {
            self.tick();
            if holds(self) {
                return Ok(());
            }
        }
        anyhow::bail!("not {what} after {} ticks", super::MANY)
    }

    /// The seeds of each step of an engine.
    fn steps(&self, engine: usize) -> Vec<Vec<u64>> {
        let calls = self.controls[engine].calls().into_iter();
        let seeds = |call| if let Call::Step(seeds) = call { Some(seeds) } else { None };
        calls.filter_map(seeds).collect()
    }

    /// The engines that had a job, each as often as it was admitted.
    fn engines_of(&self, seed: u64) -> Vec<usize> {
        let had = |engine: &usize| {
            let calls = self.controls[*engine].calls();
            calls.iter().filter(|call| **call == Call::Admit(seed)).count()
        };
        let engines = 0..self.controls.len();
        engines.flat_map(|engine| vec![engine; had(&engine)]).collect()
    }

    fn state(&self, engine: usize) -> EngineState {
        self.scheduler.stats().engines[engine].state.clone()
    }
}

#[test]
fn two_engines_serve_a_mixed_load_and_each_job_is_done_once() -> Result<()> {
    let mut fleet = Fleet::two()?;
    let mut jobs = Vec::new();
    for seed in 0..40 {
        let (user, job) = mixed(seed);
        jobs.push((fleet.submit(user, job.clone())?, job));
    }
    fleet.finish()?;
    for (handle, job) in jobs {
        let engines = fleet.engines_of(job.params.seed);
        ensure!(engines.len() == 1, "job {} was in {engines:?}", job.params.seed);
        ensure_own(handle, &job)?;
    }
    let stats = fleet.scheduler.stats();
    ensure!(stats.ended == BTreeMap::from([("done", 40)]), "{:?}", stats.ended);
    ensure!(stats.waiting == 0 && stats.running == 0 && stats.memory == 0, "{stats:?}");
    let served = [0, 1].map(|engine| fleet.steps(engine).iter().map(Vec::len).sum::<usize>());
    println!("steps of jobs in each engine: {served:?}, {:.2} a step", stats.batch_jobs.mean());
    ensure!(served.iter().all(|steps| *steps > 70), "{served:?} of 198");
    ensure!(stats.batch_jobs.mean() >= 2.0, "{}", stats.batch_jobs.mean());
    let counted: Vec<u64> = stats.engines.iter().map(|engine| engine.steps).collect();
    ensure!(counted == [0, 1].map(|engine| fleet.steps(engine).len() as u64), "{counted:?}");
    Ok(())
}

#[test]
fn a_job_goes_to_the_engine_with_less_to_do_and_stays_there() -> Result<()> {
    let mut fleet = Fleet::two()?;
    let large = fleet.submit("ann", job(1, 96, 96, 20))?;
    fleet.tick();
    let others = [2, 3].map(small);
    let handles =
        [fleet.submit("ann", others[0].clone())?, fleet.submit("ann", others[1].clone())?];
    fleet.tick();
    let running: Vec<usize> =
        fleet.scheduler.stats().engines.iter().map(|engine| engine.running).collect();
    ensure!(running == [1, 2], "{running:?}");
    fleet.finish()?;
    ensure!([1, 2, 3].map(|seed| fleet.engines_of(seed)) == [vec![0], vec![1], vec![1]]);
    ensure!(ending(large)? == "done");
    for (handle, job) in handles.into_iter().zip(&others) {
        ensure_own(handle, job)?;
    }
    Ok(())
}

#[test]
fn a_user_who_floods_two_engines_leaves_the_others_their_share() -> Result<()> {
    let mut fleet = Fleet::new(2, Limits { jobs: 4, ..limits() }, Work::default())?;
    let submit = |fleet: &Fleet, user: usize, count: u64| -> Result<Vec<JobHandle>> {
        let name = ["ann", "bob", "cid", "dan"][user];
        let mut handles = Vec::new();
        for n in 0..count {
            let side = 32 + 16 * ((n + user as u64) % 3) as u32;
            handles.push(fleet.submit(name, job(1000 * user as u64 + n, side, side, 6))?);
        }
        Ok(handles)
    };
    let mut users = vec![submit(&fleet, 0, 60)?];
    for _ in 0..5 {
        fleet.tick();
    }
    for user in 1..4 {
        users.push(submit(&fleet, user, 15)?);
    }
    let before = [0, 1].map(|engine| fleet.steps(engine).len());
    let all_wait = |users: &[Vec<JobHandle>]| users.iter().all(|jobs| jobs.iter().any(is_queued));
    while all_wait(&users) {
        fleet.tick();
        for jobs in &users {
            // The jobs of a user begin in their order.
            ensure!(jobs.is_sorted_by_key(is_queued), "one began before an older one");
        }
    }
    let mut served = [0.0; 4];
    for engine in [0, 1] {
        for seed in fleet.steps(engine)[before[engine]..].iter().flatten() {
            let user = seed / 1000;
            let side = 2 + (seed % 1000 + user) % 3;
            served[user as usize] += (side * side) as f64;
        }
    }
    let total: f64 = served.iter().sum();
    let shares = served.map(|served| served / total);
    println!("shares of served cost while all wait: {shares:.3?}");
    ensure!(shares.iter().all(|share| *share > 0.125), "{shares:?}");
    Ok(())
}

#[test]
fn a_users_limit_holds_over_all_engines() -> Result<()> {
    let mut fleet = Fleet::new(2, Limits { jobs_per_user: 3, ..limits() }, Work::default())?;
    let mut jobs = Vec::new();
    for seed in 0..9 {
        jobs.push(fleet.submit("ann", job(seed, 32, 32, 3 + seed as u32))?);
    }
    let mut most = 0;
    while fleet.tick() || fleet.tick() {
        most = most.max(fleet.scheduler.stats().running);
    }
    ensure!(most == 3, "{most} at once");
    for handle in jobs {
        ensure!(ending(handle)? == "done");
    }
    Ok(())
}

#[test]
fn the_estimate_of_a_queue_counts_every_engine() -> Result<()> {
    let mut told = Vec::new();
    for engines in [1, 2, 4] {
        let limits = Limits { jobs: 1, ..limits() };
        let mut fleet = Fleet::new(engines, limits, Work::default())?;
        let jobs = 20 + engines as u64;
        let mut handles = Vec::new();
        for seed in 0..jobs {
            handles.push(fleet.submit("ann", job(seed, 64, 64, 8))?);
        }
        // A job of each engine is done, and twenty or one less wait.
        let done = |fleet: &Fleet| {
            fleet.scheduler.stats().ended.get("done").is_some_and(|done| *done >= engines as u64)
        };
        fleet.until("measured", done)?;
        fleet.tick();
        let last = handles.pop().context("there are some")?;
        let events = last.watcher().events(0);
        let Some((_, Event::Queued { eta: Some(eta), .. })) = events.last() else {
            anyhow::bail!("{events:?}")
        };
        told.push(eta.as_secs_f64());
        let backlog = fleet.scheduler.stats().backlog.context("measured")?.as_secs_f64();
        ensure!(backlog >= eta.as_secs_f64() * 0.9, "{backlog}, but {eta:?}");
    }
    println!("seconds that the last of twenty is told: {told:.2?}");
    for (eta, engines) in told.iter().zip([1.0, 2.0, 4.0]) {
        let share = eta * engines / told[0];
        ensure!((0.8..=1.35).contains(&share), "{told:?}");
    }
    Ok(())
}

#[test]
fn a_running_job_is_cancelled_and_shown_by_the_engine_that_has_it() -> Result<()> {
    let mut fleet = Fleet::two()?;
    let first = fleet.submit("ann", job(1, 32, 32, 50))?;
    let second = fleet.submit("ann", job(2, 32, 32, 50))?;
    fleet.until("both step", |fleet| [0, 1].iter().all(|engine| fleet.steps(*engine).len() > 3))?;
    ensure!(fleet.engines_of(2) == [1]);
    let shown = fleet.scheduler.preview(second.id());
    fleet.tick();
    ensure!(shown.blocking_recv()?.as_ref().map(Pixels::width) == Some(2));
    let steps = fleet.steps(1).len();
    ensure!(fleet.scheduler.cancel(second.id()));
    fleet.tick();
    ensure!(fleet.steps(1).len() == steps, "a step after the cancellation");
    ensure!(!fleet.scheduler.cancel(second.id()), "cancelled twice");
    fleet.finish()?;
    ensure!(ending(second)? == "cancelled" && ending(first)? == "done");
    Ok(())
}
