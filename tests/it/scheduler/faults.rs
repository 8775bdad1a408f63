//! Planned errors and panics: who fails, who goes on, and when the engine is given up.

use super::{Bench, ending, ensure_own, job, limits, names, small};
use anyhow::{Result, ensure};
use darkroom::{
    engine::fake::{At, Call, Fault, Work},
    scheduler::{Health, Limits, SubmitError},
};

/// A planned panic prints where it happened, which a run of tests need not show.
pub(super) fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload_as_str().unwrap_or_default();
            if !text.starts_with("a planned fault") {
                usual(info);
            }
        }));
    });
    work()
}

fn fault(at: At, seed: u64, call: usize, panics: bool) -> Fault {
    Fault { at, seed, call, panics }
}

#[test]
fn an_error_or_panic_in_a_step_fails_its_batch_and_the_engine_is_built_once_more() -> Result<()> {
    for (panics, code) in [(false, "engine_failed"), (true, "engine_panicked")] {
        let mut bench = Bench::plain()?;
        bench.control.plan(fault(At::Step, 1, 10, panics));
        let long = |seed| job(seed, 32, 32, 20);
        let pair = [bench.submit("ann", long(1))?, bench.submit("bob", long(2))?];
        bench.until("nine steps", |bench, _| bench.steps_of(1) == 9)?;
        ensure!(bench.steps_of(2) > 0, "it was to be a batch of two");
        // Neither of the batch: it begins anew.
        let late = small(3);
        let other = bench.submit("cid", late.clone())?;
        quietly(|| bench.finish())?;
        for handle in pair {
            ensure!(ending(handle)? == code, "panics: {panics}");
        }
        ensure!(names(&other).contains(&"restarted"), "{:?}", names(&other));
        ensure_own(other, &late)?;
        let stats = bench.scheduler.stats();
        ensure!(stats.rebuilds == 1 && stats.running == 0, "{stats:?}");
        ensure!(bench.scheduler.health() == Health::Ready);
        // After an error slots are given back; after a panic they go with the engine.
        let released = usize::from(!panics);
        ensure!(bench.count(&Call::Release(1)) == released);
        ensure!(bench.count(&Call::Release(3)) == 1);
    }
    Ok(())
}

#[test]
fn an_error_or_panic_in_a_slice_fails_that_job_alone() -> Result<()> {
    for (call, panics) in [(1, false), (1, true), (3, false), (3, true)] {
        let mut bench = Bench::plain()?;
        bench.control.plan(fault(At::Advance, 1, call, panics));
        let (good, bad) = (small(2), bench.submit("ann", small(1))?);
        let other = bench.submit("bob", good.clone())?;
        quietly(|| bench.finish())?;
        let code = if panics { "engine_panicked" } else { "engine_failed" };
        ensure!(ending(bad)? == code, "call {call}, panics: {panics}");
        ensure_own(other, &good)?;
        ensure!(bench.scheduler.stats().rebuilds == 1);
        ensure!(bench.scheduler.health() == Health::Ready);
        ensure!(bench.count(&Call::Release(1)) == usize::from(!panics));
    }
    Ok(())
}

#[test]
fn an_error_or_panic_at_admission_fails_that_job_alone() -> Result<()> {
    for panics in [false, true] {
        let mut bench = Bench::plain()?;
        bench.control.plan(fault(At::Admit, 2, 1, panics));
        let jobs = [small(1), small(2), small(3)];
        let mut handles = Vec::new();
        for job in &jobs {
            handles.push(bench.submit("ann", job.clone())?);
        }
        quietly(|| bench.finish())?;
        for (handle, job) in handles.into_iter().zip(&jobs) {
            if job.params.seed == 2 {
                ensure!(ending(handle)?.starts_with("engine_"));
            } else {
                ensure_own(handle, job)?;
            }
        }
        ensure!(bench.scheduler.stats().rebuilds == 1, "panics: {panics}");
        // Job 1 was in the engine that failed, and in the next one.
        ensure!(bench.count(&Call::Admit(1)) == 2 && bench.count(&Call::Admit(3)) == 1);
    }
    Ok(())
}

#[test]
fn a_panic_in_a_preview_fails_the_job_that_was_looked_at() -> Result<()> {
    let mut bench = Bench::plain()?;
    bench.control.plan(fault(At::Preview, 1, 1, true));
    let (seen, good) = (bench.submit("ann", small(1))?, small(2));
    let other = bench.submit("bob", good.clone())?;
    bench.until("a step", |bench, _| bench.steps_of(1) == 1)?;
    let shown = bench.scheduler.preview(seen.id());
    quietly(|| bench.finish())?;
    ensure!(shown.blocking_recv().is_err(), "there is no answer");
    ensure!(ending(seen)? == "engine_panicked");
    ensure_own(other, &good)
}

#[test]
fn a_second_failure_in_a_row_turns_the_scheduler_red_and_nothing_hangs() -> Result<()> {
    for at in [At::Admit, At::Advance, At::Step] {
        for panics in [false, true] {
            let mut bench = Bench::new(Limits { jobs: 1, ..limits() }, Work::default())?;
            bench.control.plan(fault(at, 1, 1, panics));
            bench.control.plan(fault(at, 2, 1, panics));
            let mut handles = Vec::new();
            for seed in 1..=4 {
                handles.push(bench.submit("ann", small(seed))?);
            }
            quietly(|| bench.finish())?;
            let red = bench.scheduler.health();
            let Health::Red { reason } = &red else { anyhow::bail!("{at:?}: {red:?}") };
            ensure!(reason.starts_with("it failed twice in a row"), "{reason}");
            let endings = handles.into_iter().map(ending).collect::<Result<Vec<_>>>()?;
            ensure!(endings[..2].iter().all(|code| *code != "engine_down"), "{endings:?}");
            ensure!(endings[2..] == ["engine_down", "engine_down"], "{at:?}: {endings:?}");
            let refused = bench.submit("bob", small(5)).err();
            ensure!(matches!(refused, Some(SubmitError::EngineDown { .. })), "{refused:?}");
            let stats = bench.scheduler.stats();
            ensure!(stats.rebuilds == 1 && stats.waiting == 0 && stats.running == 0);
        }
    }
    Ok(())
}

#[test]
fn failures_with_a_step_between_them_are_not_in_a_row() -> Result<()> {
    let mut bench = Bench::new(Limits { jobs: 1, ..limits() }, Work::default())?;
    let mut handles = Vec::new();
    for seed in 1..=5 {
        bench.control.plan(fault(At::Step, seed, 3, true));
        handles.push(bench.submit("ann", small(seed))?);
    }
    let last = small(6);
    let fine = bench.submit("ann", last.clone())?;
    quietly(|| bench.finish())?;
    for handle in handles {
        ensure!(ending(handle)? == "engine_panicked");
    }
    ensure_own(fine, &last)?;
    ensure!(bench.scheduler.stats().rebuilds == 5 && bench.scheduler.health() == Health::Ready);
    Ok(())
}

#[test]
fn a_job_begins_anew_only_once() -> Result<()> {
    let mut bench = Bench::plain()?;
    // The long text of job 1 is under way while two others fail, with a step between them.
    bench.control.plan(fault(At::Step, 2, 2, true));
    bench.control.plan(fault(At::Step, 3, 2, true));
    let second = bench.submit("bob", small(2))?;
    bench.until("it steps", |bench, _| bench.steps_of(2) == 1)?;
    let witness = bench.submit("ann", job(1, 32, 32, 50))?;
    quietly(|| bench.until("restarted", |_, _| names(&witness).contains(&"restarted")))?;
    bench.until("it steps", |bench, _| bench.steps_of(1) >= 1)?;
    let third = bench.submit("cid", small(3))?;
    quietly(|| bench.finish())?;
    let restarts = names(&witness).iter().filter(|name| **name == "restarted").count();
    ensure!(restarts == 1, "{restarts} restarts");
    for handle in [witness, second, third] {
        ensure!(ending(handle)? == "engine_panicked");
    }
    Ok(())
}
