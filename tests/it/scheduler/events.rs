//! What is told: events by number, positions, estimates, counts.

use super::{Bench, ending, job, limits, names, small};
use anyhow::{Context as _, Result, ensure};
use darkroom::{
    engine::fake::Work,
    scheduler::{Event, JobHandle, JobId, Limits, Status, StopReason, Tick},
};
use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

/// What a future gives when it is asked once.
fn poll<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn a_job_tells_its_life_and_can_be_heard_again_from_any_event_on() -> Result<()> {
    let mut bench = Bench::plain()?;
    let handle = bench.submit("ann", small(1))?;
    bench.finish()?;
    let all = handle.watcher().events(0);
    let life = ["queued", "started", "step", "step", "step", "step", "done"];
    ensure!(names(&handle) == life, "{:?}", names(&handle));
    for (index, (number, _)) in all.iter().enumerate() {
        let rest: Vec<u64> =
            handle.watcher().events(*number).iter().map(|(number, _)| *number).collect();
        let expected: Vec<u64> = all[index + 1..].iter().map(|(number, _)| *number).collect();
        ensure!(rest == expected, "after {number}: {rest:?}");
    }
    ensure!(all.is_sorted_by(|a, b| a.0 < b.0), "numbers do not grow");
    ensure!(handle.watcher().events(u64::MAX).is_empty());
    // The news outlive the handle.
    let id = handle.id();
    drop(handle);
    let later = bench.scheduler.watch(id).context("forgotten")?;
    ensure!(later.events(0).len() == all.len());
    Ok(())
}

#[test]
fn a_listener_wakes_for_each_event_and_hears_the_end() -> Result<()> {
    let mut bench = Bench::plain()?;
    let handle = bench.submit("ann", small(1))?;
    let mut listener = handle.watcher().clone();
    let (mut heard, mut last) = (Vec::new(), 0);
    let first = poll(listener.next(last)).context("it is queued")?;
    last = first.last().map_or(last, |(number, _)| *number);
    ensure!(poll(listener.next(last)).is_none(), "news before there are any");
    loop {
        let tick = bench.worker.tick();
        while let Some(news) = poll(listener.next(last)) {
            if news.is_empty() {
                break;
            }
            last = news.last().map_or(last, |(number, _)| *number);
            heard.extend(news.iter().map(|(_, event)| event.name()));
        }
        if tick == Tick::Idle {
            break;
        }
    }
    // The worker told the position anew, which replaced the first event.
    ensure!(heard == names(&handle)[1..] || heard == names(&handle), "{heard:?}");
    ensure!(poll(listener.next(last)).is_some_and(|news| news.is_empty()), "it never ends");
    ensure!(poll(handle.outcome()).is_some());
    Ok(())
}

#[test]
fn only_so_many_ended_jobs_are_remembered() -> Result<()> {
    let mut bench = Bench::new(Limits { remembered: 3, ..limits() }, Work::default())?;
    let mut ids: Vec<JobId> = Vec::new();
    for seed in 0..5 {
        ids.push(bench.submit("ann", small(seed))?.id());
    }
    bench.finish()?;
    let known = ids.iter().filter(|id| bench.scheduler.watch(**id).is_some()).count();
    ensure!(known == 3, "{known} are known");
    Ok(())
}

fn queued(handle: &JobHandle) -> Vec<(usize, Option<f64>)> {
    let events = handle.watcher().events(0).into_iter();
    events
        .filter_map(|(_, event)| match event {
            Event::Queued { position, eta } => Some((position, eta.map(|eta| eta.as_secs_f64()))),
            _ => None,
        })
        .collect()
}

#[test]
fn positions_and_estimates_only_get_better_while_nobody_else_comes() -> Result<()> {
    let mut bench = Bench::new(Limits { jobs: 2, ..limits() }, Work::default())?;
    let mut handles = Vec::new();
    for seed in 0..12 {
        handles.push(bench.submit(["ann", "bob"][seed as usize % 2], job(seed, 64, 64, 8))?);
    }
    let last = handles.pop().context("there are twelve")?;
    // What it was told: position, estimate, and when.
    let mut told: Vec<(usize, Option<f64>, f64)> = Vec::new();
    loop {
        let tick = bench.worker.tick();
        let now = darkroom::scheduler::Clock::now(&bench.clock).as_secs_f64();
        ensure!(queued(&last).len() <= 1, "an old position was kept");
        if let Some((position, eta)) = queued(&last).pop()
            && told.last().is_none_or(|(before, ..)| *before != position)
        {
            told.push((position, eta, now));
        }
        if tick == Tick::Idle {
            break;
        }
    }
    let end = darkroom::scheduler::Clock::now(&bench.clock).as_secs_f64();
    println!("position, estimate and truth of the last of twelve jobs:");
    for (position, eta, now) in &told {
        println!("  {position:2}  {eta:5.2?}  {:.2}", end - now);
    }
    ensure!(told.len() >= 5, "{told:?}");
    ensure!(told[0].1.is_none(), "an estimate before anything was measured");
    let known: Vec<_> = told.iter().filter_map(|&(p, eta, now)| Some((p, eta?, now))).collect();
    ensure!(told.is_sorted_by(|a, b| a.0 > b.0), "positions: {told:?}");
    ensure!(known.is_sorted_by(|a, b| a.1 >= b.1), "estimates: {known:?}");
    for (_, eta, now) in known {
        let truth = end - now;
        ensure!((0.5 * truth..=2.0 * truth).contains(&eta), "{eta} s told, {truth} s taken");
    }
    ensure!(ending(last)? == "done");
    Ok(())
}

#[test]
fn a_running_jobs_estimate_falls_with_its_steps() -> Result<()> {
    let mut bench = Bench::plain()?;
    let handle = bench.submit("ann", job(1, 64, 64, 10))?;
    let mut estimates = Vec::new();
    while bench.worker.tick() == Tick::Again {
        if let Status::Running { eta: Some(eta), .. } = handle.watcher().status() {
            estimates.push(eta);
        }
    }
    ensure!(estimates.len() >= 10 && estimates.is_sorted_by(|a, b| a >= b), "{estimates:?}");
    Ok(())
}

#[test]
fn the_counts_say_what_was_done_and_why_no_more() -> Result<()> {
    let mut bench = Bench::new(Limits { jobs: 2, ..limits() }, Work::default())?;
    let jobs =
        (0..3).map(|seed| bench.submit("ann", small(seed))).collect::<Result<Vec<_>, _>>()?;
    ensure!(bench.scheduler.stats().waiting == 3);
    bench.worker.tick();
    let stats = bench.scheduler.stats();
    ensure!(stats.waiting == 1 && stats.running == 2 && stats.memory == 2 * 8000, "{stats:?}");
    bench.finish()?;
    let stats = bench.scheduler.stats();
    ensure!(stats.step_seconds.count() as usize == bench.steps().len());
    let tokens: usize = bench.steps().iter().map(|seeds| 8 * seeds.len()).sum();
    ensure!(stats.batch_tokens.sum() == tokens as f64);
    ensure!(stats.batch_jobs.sum() == 12.0);
    ensure!(stats.wait_seconds.count() == 3 && stats.wait_seconds.sum() > 0.0);
    ensure!(stats.slice_seconds.count() > 0 && stats.backlog.is_some_and(|left| left.is_zero()));
    for reason in [StopReason::MaxJobs, StopReason::QueueEmpty] {
        ensure!(stats.stops.get(&reason).is_some_and(|count| *count > 0), "{:?}", stats.stops);
    }
    for (bound, count) in stats.batch_jobs.buckets() {
        ensure!(bound < 2.0 || count == stats.batch_jobs.count(), "{bound}: {count}");
    }
    for job in jobs {
        ensure!(ending(job)? == "done");
    }
    Ok(())
}
