//! Every way that a job ends: done, cancelled in any phase, interrupted; its slot goes back once.

use super::{Bench, ending, job, limits, names, request, small};
use anyhow::{Result, ensure};
use darkroom::{
    engine::fake::{At, Call, Fault, Work},
    scheduler::{Drained, Health, Limits, Request, Stage, Status, SubmitError, Tick},
};
use std::time::Duration;

/// A slice holds one unit, so that every stage can be seen.
fn slow() -> Work {
    let (text, image) = (3, 3);
    let unit = Duration::from_millis(100);
    Work { text, image, unit, pixels_per_decode: 256, ..Work::default() }
}

fn stage(status: &Status) -> Option<Stage> {
    if let Status::Running { stage, .. } = status { Some(*stage) } else { None }
}

#[test]
fn a_cancelled_job_takes_no_further_step_and_the_others_go_on() -> Result<()> {
    let mut bench = Bench::plain()?;
    let (doomed, other) =
        (bench.submit("ann", job(1, 32, 32, 20))?, bench.submit("bob", small(2))?);
    bench.until("five steps", |bench, _| bench.steps_of(1) == 5)?;
    ensure!(bench.scheduler.cancel(doomed.id()));
    bench.worker.tick();
    ensure!(bench.steps_of(1) == 5, "it stepped after it was cancelled");
    ensure!(bench.count(&Call::Release(1)) == 1);
    ensure!(!bench.scheduler.cancel(doomed.id()), "cancelled twice");
    bench.finish()?;
    ensure!(bench.steps_of(1) == 5);
    ensure!(ending(doomed)? == "cancelled" && ending(other)? == "done");
    ensure!(bench.count(&Call::Release(1)) == 1 && bench.count(&Call::Release(2)) == 1);
    Ok(())
}

#[test]
fn a_job_can_be_cancelled_in_every_phase_and_gives_its_slot_back_once() -> Result<()> {
    for wanted in [Stage::Text, Stage::Images, Stage::Steps, Stage::Decoding] {
        let mut bench = Bench::new(limits(), slow())?;
        let handle = bench.submit("ann", small(1))?;
        bench.until("there", |_, _| stage(&handle.watcher().status()) == Some(wanted))?;
        let before = bench.control.calls().len();
        ensure!(bench.scheduler.cancel(handle.id()));
        ensure!(bench.worker.tick() == Tick::Idle, "{wanted:?}: work after the cancellation");
        let calls = bench.control.calls().split_off(before);
        ensure!(calls == [Call::Release(1)], "{wanted:?}: {calls:?}");
        ensure!(ending(handle)? == "cancelled");
        ensure!(bench.scheduler.stats().running == 0);
    }
    Ok(())
}

#[test]
fn a_job_cancelled_in_the_queue_never_reaches_the_engine() -> Result<()> {
    let mut bench = Bench::new(Limits { jobs: 1, ..limits() }, Work::default())?;
    let (first, second) = (bench.submit("ann", small(1))?, bench.submit("ann", small(2))?);
    bench.worker.tick();
    ensure!(bench.scheduler.cancel(second.id()));
    bench.worker.tick();
    ensure!(names(&second) == ["queued", "cancelled"], "{:?}", names(&second));
    bench.finish()?;
    ensure!(ending(first)? == "done" && ending(second)? == "cancelled");
    ensure!(!bench.control.calls().contains(&Call::Admit(2)));
    ensure!(!bench.scheduler.cancel(darkroom::scheduler::JobId(999)), "no such job");
    Ok(())
}

#[test]
fn a_dropped_submitter_cancels_only_where_it_asked_so() -> Result<()> {
    let mut bench = Bench::plain()?;
    let stays = bench.submit("ann", small(1))?;
    let leaves = Request { cancel_on_disconnect: true, ..request("ann", small(2)) };
    let leaves = bench.scheduler.submit(leaves)?;
    let (stayed, left) = (stays.watcher().clone(), leaves.watcher().clone());
    bench.until("a step", |bench, _| bench.steps_of(2) == 1)?;
    drop((stays, leaves));
    bench.finish()?;
    ensure!(matches!(stayed.status(), Status::Done), "{:?}", stayed.status());
    ensure!(matches!(left.status(), Status::Cancelled), "{:?}", left.status());
    ensure!(bench.steps_of(2) == 1 && bench.count(&Call::Release(2)) == 1);
    // After the end there is nothing to cancel.
    let done = Request { cancel_on_disconnect: true, ..request("ann", small(3)) };
    let done = bench.scheduler.submit(done)?;
    bench.finish()?;
    ensure!(ending(done)? == "done");
    Ok(())
}

#[test]
fn a_slot_is_released_once_whatever_the_ending() -> Result<()> {
    let mut bench = Bench::plain()?;
    bench.control.plan(Fault { at: At::Advance, seed: 3, call: 2, panics: false });
    let mut jobs = Vec::new();
    for seed in 1..=4 {
        jobs.push(bench.submit("ann", job(seed, 32, 32, 3 * seed as u32))?);
    }
    bench.until("a step", |bench, _| bench.steps_of(2) == 1)?;
    ensure!(bench.scheduler.cancel(jobs[1].id()));
    bench.until("done", |_, _| matches!(jobs[0].watcher().status(), Status::Done))?;
    drop(bench.scheduler.drain(Duration::ZERO));
    bench.until("over", |_, tick| tick == Tick::Stop)?;
    let endings = jobs.into_iter().map(ending).collect::<Result<Vec<_>>>()?;
    ensure!(endings == ["done", "cancelled", "engine_failed", "interrupted"], "{endings:?}");
    for seed in 1..=4 {
        // The engine of the fault went with the slots of the jobs that began anew.
        ensure!(bench.count(&Call::Release(seed)) == 1, "job {seed}");
    }
    Ok(())
}

#[test]
fn a_drain_lets_running_jobs_end_and_interrupts_the_queue() -> Result<()> {
    let mut bench = Bench::new(Limits { jobs: 2, ..limits() }, Work::default())?;
    let mut jobs = Vec::new();
    for seed in 0..4 {
        jobs.push(bench.submit("ann", small(seed))?);
    }
    bench.until("a step", |bench, _| bench.steps().len() == 1)?;
    let mut drained = bench.scheduler.drain(Duration::from_secs(60));
    ensure!(bench.scheduler.health() == Health::Draining);
    ensure!(bench.submit("bob", small(9)).err() == Some(SubmitError::Draining));
    bench.until("over", |_, tick| tick == Tick::Stop)?;
    ensure!(drained.try_recv()? == Drained { finished: 2, interrupted: 2 });
    let endings = jobs.into_iter().map(ending).collect::<Result<Vec<_>>>()?;
    ensure!(endings == ["done", "done", "interrupted", "interrupted"], "{endings:?}");
    Ok(())
}

#[test]
fn a_drain_interrupts_what_is_not_done_in_time() -> Result<()> {
    let mut bench = Bench::plain()?;
    let (long, short) = (bench.submit("ann", job(1, 32, 32, 500))?, bench.submit("ann", small(2))?);
    bench.until("a step", |bench, _| bench.steps_of(1) == 1)?;
    let mut drained = bench.scheduler.drain(Duration::from_secs(2));
    let start = darkroom::scheduler::Clock::now(&bench.clock);
    bench.until("over", |_, tick| tick == Tick::Stop)?;
    let took = darkroom::scheduler::Clock::now(&bench.clock) - start;
    ensure!(drained.try_recv()? == Drained { finished: 1, interrupted: 1 });
    ensure!(took >= Duration::from_secs(2) && took < Duration::from_millis(2100), "{took:?}");
    ensure!(ending(long)? == "interrupted" && ending(short)? == "done");
    ensure!(bench.count(&Call::Release(1)) == 1 && bench.count(&Call::Release(2)) == 1);
    Ok(())
}

#[test]
fn a_drain_of_an_idle_scheduler_is_over_at_once() -> Result<()> {
    let mut bench = Bench::plain()?;
    let mut drained = bench.scheduler.drain(Duration::from_secs(60));
    ensure!(bench.worker.tick() == Tick::Stop);
    ensure!(drained.try_recv()? == Drained::default());
    drop(bench.worker);
    let mut late = bench.scheduler.drain(Duration::ZERO);
    ensure!(late.try_recv().is_err(), "nobody is there to drain");
    Ok(())
}

#[test]
fn nothing_hangs_when_the_worker_goes_without_a_word() -> Result<()> {
    let mut bench = Bench::new(Limits { jobs: 1, ..limits() }, Work::default())?;
    let mut jobs = vec![bench.submit("ann", small(1))?, bench.submit("ann", small(2))?];
    bench.worker.tick();
    jobs.push(bench.submit("ann", small(3))?);
    drop(bench.worker);
    ensure!(bench.scheduler.submit(request("ann", small(4))).err() == Some(SubmitError::Draining));
    for job in jobs {
        ensure!(ending(job)? == "interrupted");
    }
    Ok(())
}
