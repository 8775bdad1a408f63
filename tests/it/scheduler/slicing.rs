//! Interleaving: steps of some jobs, text and picture work of others.

use super::{Bench, ensure_own, is_running, job, limits, small};
use anyhow::{Result, ensure};
use darkroom::{
    engine::fake::Work,
    scheduler::{Clock, JobHandle, Limits, Stage, Status, Tick},
};
use std::time::Duration;

#[test]
fn a_large_decode_lets_the_steps_of_others_go_on() -> Result<()> {
    let mut bench = Bench::plain()?;
    let large = job(1, 512, 512, 1); // 256 units of decoding, 10 ms each
    let big = bench.submit("ann", large.clone())?;
    bench.until("decoding", |_, _| {
        matches!(big.watcher().status(), Status::Running { stage, .. }
            if stage == darkroom::scheduler::Stage::Decoding)
    })?;
    let other = job(2, 32, 32, 30);
    let steady = bench.submit("bob", other.clone())?;
    let mut longest = Duration::ZERO;
    while !steady.watcher().status().is_over() {
        let (start, steps) = (bench.clock.now(), bench.steps_of(2));
        bench.worker.tick();
        if bench.steps_of(2) > steps {
            longest = longest.max(bench.clock.now() - start);
        }
    }
    ensure!(bench.steps_of(2) == 30 && is_running(&big), "the decode was over too soon to tell");
    println!("at most {longest:?} from step to step, 20.8 ms without the decode");
    // The step, as much for the decode, and the unit that it was in the middle of.
    ensure!(longest <= Duration::from_micros(2 * 20_800 + 10_000), "{longest:?}");
    bench.finish()?;
    ensure_own(big, &large)?;
    ensure_own(steady, &other)
}

#[test]
fn a_tick_takes_one_step_and_a_slice_of_about_as_long() -> Result<()> {
    // Units of a millisecond, steps of 30: a slice holds many units, and still no more than a step.
    let work = Work {
        unit: Duration::from_millis(1),
        step: Duration::from_millis(30),
        token: Duration::ZERO,
        pixels_per_decode: 64,
        ..Work::default()
    };
    let mut bench = Bench::new(limits(), work)?;
    let jobs: Vec<_> = (0..4).map(|seed| job(seed, 128, 128, 8 + seed as u32)).collect();
    let mut handles = Vec::new();
    for job in &jobs {
        handles.push(bench.submit("ann", job.clone())?);
    }
    let (mut longest, step) = (Duration::ZERO, Duration::from_millis(30));
    loop {
        let (start, steps) = (bench.clock.now(), bench.steps().len());
        let running = handles.iter().filter(|handle| super::is_running(handle)).count() as u32;
        let tick = bench.worker.tick();
        if tick == Tick::Idle {
            break;
        }
        let (took, steps) = (bench.clock.now() - start, bench.steps().split_off(steps));
        ensure!(steps.len() <= 1, "two steps in one tick");
        if let Some(batch) = steps.first() {
            longest = longest.max(took);
            let stepping = batch.len() as u32;
            // As long as the step, or as long for each that waits as for each that steps.
            let allowed = step + step.max(step * (running - stepping) / stepping);
            ensure!(
                took <= allowed + Duration::from_millis(running.into()),
                "{took:?} for {batch:?}"
            );
        }
    }
    println!("the longest tick with a step took {longest:?}, a step 30 ms");
    for (handle, job) in handles.into_iter().zip(&jobs) {
        ensure_own(handle, job)?;
    }
    Ok(())
}

#[test]
fn jobs_join_and_leave_between_steps() -> Result<()> {
    let mut bench = Bench::plain()?;
    let first = bench.submit("ann", job(1, 32, 32, 12))?;
    bench.until("two steps", |bench, _| bench.steps_of(1) == 2)?;
    let second = bench.submit("bob", job(2, 64, 32, 3))?;
    bench.finish()?;
    let mut sizes: Vec<usize> = bench.steps().iter().map(Vec::len).collect();
    sizes.dedup();
    ensure!(sizes == [1, 2, 1], "{:?}", bench.steps());
    ensure!(bench.steps_of(1) == 12 && bench.steps_of(2) == 3);
    for handle in [first, second] {
        ensure!(super::ending(handle)? == "done");
    }
    Ok(())
}

#[test]
fn a_preview_is_shown_between_two_steps() -> Result<()> {
    let mut bench = Bench::plain()?;
    let running = bench.submit("ann", small(1))?;
    let early = bench.scheduler.preview(running.id());
    bench.until("a step", |bench, _| bench.steps_of(1) == 1)?;
    ensure!(early.blocking_recv()?.is_none(), "a preview before there is anything to show");
    let shown = bench.scheduler.preview(running.id());
    bench.worker.tick();
    ensure!(shown.blocking_recv()?.is_some_and(|picture| picture.width() == 2));
    bench.finish()?;
    let late = bench.scheduler.preview(running.id());
    bench.worker.tick();
    ensure!(late.blocking_recv()?.is_none());
    ensure!(super::ending(running)? == "done");
    Ok(())
}

#[test]
fn where_memory_is_short_one_job_is_done_with_its_peak_before_another_begins() -> Result<()> {
    // A job has 128 tokens, and room for one peak is there beside what three hold.
    let work = Work { peak: 2000, text: 20, ..Work::default() };
    let tight = Limits { memory: 128 * (3 * 1000 + 2000), ..limits() };
    for (limits, at_once) in [(tight, 1), (limits(), 3)] {
        let mut bench = Bench::new(limits, work)?;
        let jobs: Vec<_> = (0..3).map(|seed| job(seed, 128, 128, 3 + 2 * seed as u32)).collect();
        let mut handles = Vec::new();
        for job in &jobs {
            handles.push(bench.submit("ann", job.clone())?);
        }
        let begun = |handle: &JobHandle| {
            let Status::Running { stage, progress, .. } = handle.watcher().status() else {
                return false;
            };
            stage != Stage::Steps && progress.done > 0
        };
        let (mut most, mut running) = (0, 0);
        while bench.worker.tick() == Tick::Again {
            most = most.max(handles.iter().filter(|handle| begun(handle)).count());
            running = running.max(handles.iter().filter(|handle| is_running(handle)).count());
        }
        ensure!(running == 3, "{running} at once: there is room for all");
        ensure!(most == at_once, "{most} in the middle of text, pictures or a result");
        for (handle, job) in handles.into_iter().zip(&jobs) {
            ensure_own(handle, job)?;
        }
    }
    Ok(())
}
