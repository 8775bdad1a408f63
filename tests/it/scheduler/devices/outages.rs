//! Engines that fail, stop or go, and what becomes of their jobs and of those that wait.

use super::{
    super::{ending, ensure_own, faults::quietly, job, limits, small},
    Fleet,
};
use anyhow::{Result, ensure};
use darkroom::{
    engine::{
        Job,
        fake::{At, Fault, Work},
    },
    scheduler::{Drained, EngineState, Health, Limits, SubmitError},
};
use std::{collections::BTreeMap, time::Duration};

#[test]
fn an_engine_that_is_down_fails_its_jobs_and_the_other_serves_on() -> Result<()> {
    let mut fleet = Fleet::new(2, Limits { jobs: 3, ..limits() }, Work::default())?;
    // The first job there, then one of those that begin anew.
    for seed in [0, 2] {
        fleet.controls[0].plan(Fault { at: At::Advance, seed, call: 1, panics: true });
    }
    let jobs: Vec<Job> = (0..12).map(|seed| job(seed, 32, 32, 6)).collect();
    let mut handles = Vec::new();
    for job in &jobs {
        handles.push(fleet.submit("ann", job.clone())?);
    }
    quietly(|| fleet.finish())?;
    ensure!(matches!(fleet.state(0), EngineState::Down { .. }), "{:?}", fleet.state(0));
    ensure!(fleet.state(1) == EngineState::Ready);
    ensure!(fleet.scheduler.health() == Health::Ready, "one is there");
    let mut failed = Vec::new();
    for (handle, job) in handles.into_iter().zip(&jobs) {
        if fleet.engines_of(job.params.seed).contains(&0) {
            failed.push(ending(handle)?);
        } else {
            ensure_own(handle, job)?;
        }
    }
    println!("{failed:?}");
    ensure!(failed[..2] == ["engine_panicked"; 2], "{failed:?}");
    ensure!(failed.len() < 5 && failed[2..].iter().all(|end| *end == "engine_down"), "{failed:?}");
    // Who comes now is served.
    let late = small(100);
    let handle = fleet.submit("bob", late.clone())?;
    fleet.finish()?;
    ensure_own(handle, &late)
}

#[test]
fn only_when_every_engine_is_down_no_more_jobs_are_taken() -> Result<()> {
    let mut fleet = Fleet::new(2, Limits { jobs: 1, ..limits() }, Work::default())?;
    for control in &fleet.controls {
        for seed in 0..8 {
            control.plan(Fault { at: At::Advance, seed, call: 1, panics: false });
        }
    }
    let mut handles = Vec::new();
    for seed in 0..8 {
        handles.push(fleet.submit("ann", small(seed))?);
    }
    fleet.finish()?;
    let Health::Red { reason } = fleet.scheduler.health() else { anyhow::bail!("it is not red") };
    ensure!(reason.contains("fake:0: it failed twice in a row"), "{reason}");
    ensure!(reason.contains("fake:1: it failed twice in a row"), "{reason}");
    let refused = fleet.submit("bob", small(9)).err();
    ensure!(matches!(refused, Some(SubmitError::EngineDown { .. })), "{refused:?}");
    let mut endings = BTreeMap::new();
    for handle in handles {
        *endings.entry(ending(handle)?).or_insert(0) += 1;
    }
    ensure!(endings == BTreeMap::from([("engine_failed", 4), ("engine_down", 4)]), "{endings:?}");
    ensure!(fleet.scheduler.stats().rebuilds == 2 && fleet.scheduler.stats().waiting == 0);
    Ok(())
}

#[test]
fn what_an_engine_was_about_to_take_when_it_went_down_goes_to_the_other() -> Result<()> {
    let mut fleet = Fleet::two()?;
    for seed in [1, 2] {
        fleet.controls[1].plan(Fault { at: At::Admit, seed, call: 1, panics: true });
    }
    let busy = fleet.submit("ann", job(9, 256, 256, 40))?;
    fleet.tick();
    // The first engine has more to do than all of these, so the second takes them at once.
    let jobs = [1, 2, 3, 4].map(small);
    let mut handles = Vec::new();
    for job in &jobs {
        handles.push(fleet.submit("ann", job.clone())?);
    }
    quietly(|| fleet.finish())?;
    ensure!(matches!(fleet.state(1), EngineState::Down { .. }), "{:?}", fleet.state(1));
    let had = [1, 2, 3, 4].map(|seed| fleet.engines_of(seed));
    ensure!(had == [vec![1], vec![1], vec![0], vec![0]], "{had:?}");
    let kept = handles.split_off(2);
    for handle in handles {
        ensure!(ending(handle)? == "engine_panicked");
    }
    for (handle, job) in kept.into_iter().zip(&jobs[2..]) {
        ensure_own(handle, job)?;
    }
    ensure!(ending(busy)? == "done");
    Ok(())
}

#[test]
fn a_drain_waits_for_every_engine_and_interrupts_the_queue() -> Result<()> {
    let mut fleet = Fleet::new(2, Limits { jobs: 2, ..limits() }, Work::default())?;
    let mut jobs = Vec::new();
    for seed in 0..7 {
        jobs.push(fleet.submit("ann", job(seed, 32, 32, if seed == 1 { 900 } else { 4 }))?);
    }
    fleet.until("all full", |fleet| fleet.scheduler.stats().running == 4)?;
    let mut drained = fleet.scheduler.drain(Duration::from_secs(10));
    ensure!(fleet.scheduler.health() == Health::Draining);
    ensure!(fleet.submit("bob", small(9)).err() == Some(SubmitError::Draining));
    ensure!(drained.try_recv().is_err(), "before the running ones are done");
    fleet.finish()?;
    ensure!(fleet.workers.iter().all(Option::is_none), "a worker is left");
    ensure!(drained.try_recv()? == Drained { finished: 3, interrupted: 4 });
    let endings = jobs.into_iter().map(ending).collect::<Result<Vec<_>>>()?;
    let interrupted = ["interrupted"; 3];
    ensure!(endings[..4] == ["done", "interrupted", "done", "done"], "{endings:?}");
    ensure!(endings[4..] == interrupted, "{endings:?}");
    ensure!([0, 1].map(|engine| fleet.state(engine)) == [const { EngineState::Stopped }; 2]);
    Ok(())
}

#[test]
fn an_engine_that_goes_without_a_word_takes_its_jobs_with_it_and_no_others() -> Result<()> {
    let mut fleet = Fleet::new(2, Limits { jobs: 1, ..limits() }, Work::default())?;
    let jobs: Vec<Job> = (0..4).map(|seed| job(seed, 32, 32, 30)).collect();
    let mut handles = Vec::new();
    for job in &jobs {
        handles.push(fleet.submit("ann", job.clone())?);
    }
    fleet
        .until("both step", |fleet| [0, 1].iter().all(|engine| !fleet.steps(*engine).is_empty()))?;
    fleet.workers[0] = None;
    fleet.finish()?;
    ensure!(ending(handles.remove(0))? == "interrupted");
    for (handle, job) in handles.into_iter().zip(&jobs[1..]) {
        ensure!(fleet.engines_of(job.params.seed) == [1]);
        ensure_own(handle, job)?;
    }
    ensure!(fleet.scheduler.health() == Health::Ready);
    let waits = fleet.submit("ann", small(9))?;
    fleet.workers[1] = None;
    ensure!(ending(waits)? == "interrupted");
    ensure!(fleet.submit("ann", small(10)).err() == Some(SubmitError::Draining));
    Ok(())
}
