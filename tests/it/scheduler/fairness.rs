//! Sharing: between users, priorities and sizes, and the bounds of it.

use super::{Bench, ending, ensure_own, is_queued, is_running, job, limits, mixed, request, small};
use anyhow::{Context, Result, ensure};
use darkroom::{
    domain::Size,
    engine::{JobShape, fake::Work},
    scheduler::{Clock, JobHandle, Limits, Priority, Request, SubmitError},
};
use std::{collections::BTreeMap, time::Duration};

#[test]
fn a_user_who_floods_the_queue_leaves_the_others_their_share() -> Result<()> {
    let mut bench = Bench::new(Limits { jobs_per_user: 4, ..limits() }, Work::default())?;
    let submit = |bench: &Bench, user: usize, count: u64| -> Result<Vec<JobHandle>> {
        let name = ["ann", "bob", "cid", "dan"][user];
        (0..count)
            .map(|n| {
                let side = 32 + 16 * ((n + user as u64) % 3) as u32;
                let job = job(1000 * user as u64 + n, side, side, 6);
                bench.submit(name, job).context("refused")
            })
            .collect()
    };
    // The flood has the engine to itself for a while.
    let mut users = vec![submit(&bench, 0, 50)?];
    for _ in 0..10 {
        bench.worker.tick();
    }
    for user in 1..4 {
        users.push(submit(&bench, user, 10)?);
    }
    let before = bench.steps().len();
    let all_wait = |users: &[Vec<JobHandle>]| users.iter().all(|jobs| jobs.iter().any(is_queued));
    while all_wait(&users) {
        bench.worker.tick();
    }
    let mut served = [0.0; 4];
    for seed in bench.steps()[before..].iter().flatten() {
        let user = seed / 1000;
        let side = 2 + (seed % 1000 + user) % 3;
        served[user as usize] += (side * side) as f64;
    }
    let total: f64 = served.iter().sum();
    let shares = served.map(|served| served / total);
    println!("shares of served cost while all wait: {shares:.3?}");
    ensure!(bench.steps().len() - before > 20, "too short to tell");
    ensure!(shares.iter().all(|share| *share > 0.125), "{shares:?}");
    Ok(())
}

#[test]
fn thirty_two_jobs_of_five_sizes_from_four_users_are_packed_and_none_is_mixed_up() -> Result<()> {
    let mut bench = Bench::new(Limits { jobs: 16, ..limits() }, Work::default())?;
    let mut jobs = Vec::new();
    for seed in 0..32 {
        let (user, job) = mixed(seed);
        jobs.push((bench.submit(user, job.clone())?, job));
    }
    bench.finish()?;
    for (handle, job) in jobs {
        ensure_own(handle, &job)?;
    }
    let stats = bench.scheduler.stats();
    let mean = stats.batch_jobs.mean();
    println!(
        "{} steps, {mean:.2} jobs and {:.0} tokens a step",
        stats.batch_jobs.count(),
        stats.batch_tokens.mean()
    );
    ensure!(mean >= 4.0, "{mean} jobs per step");
    ensure!(stats.ended == BTreeMap::from([("done", 32)]), "{:?}", stats.ended);
    ensure!(stats.wait_seconds.count() == 32 && stats.waiting == 0 && stats.running == 0);
    Ok(())
}

#[test]
fn a_batch_job_waits_for_interactive_ones_until_it_has_aged() -> Result<()> {
    let patience = Duration::from_secs(2);
    let mut bench = Bench::new(Limits { jobs: 1, patience, ..limits() }, Work::default())?;
    let batch = Request { priority: Priority::Batch, ..request("ann", small(1000)) };
    let batch = bench.scheduler.submit(batch)?;
    let mut people = Vec::new();
    for seed in 0..60 {
        people.push(bench.submit("bob", small(seed))?);
    }
    let start = |bench: &mut Bench| -> Result<usize> {
        bench.until("started", |_, _| is_running(&batch))?;
        Ok(people.iter().filter(|person| !is_queued(person)).count())
    };
    let before = start(&mut bench)?;
    let waited = bench.scheduler.stats().wait_seconds;
    println!("{before} interactive jobs before the batch job");
    ensure!(before > 5 && before < 30, "{before} jobs went before it");
    ensure!(bench.clock.now() >= patience && waited.count() as usize == before + 1);
    Ok(())
}

#[test]
fn a_full_queue_refuses_with_the_position_and_its_size() -> Result<()> {
    let mut bench = Bench::new(Limits { waiting: 3, jobs: 1, ..limits() }, Work::default())?;
    let mut jobs = Vec::new();
    for seed in 0..3 {
        jobs.push(bench.submit("ann", small(seed))?);
    }
    let full = |retry_after| SubmitError::QueueFull { position: 4, limit: 3, retry_after };
    ensure!(bench.submit("bob", small(3)).err() == Some(full(None)));
    // One leaves for the engine: one place is free, which can be held before there is a job.
    bench.worker.tick();
    let place = bench.scheduler.reserve()?;
    ensure!(place.position() == 3 && bench.scheduler.reserve().is_err());
    drop(place);
    let place = bench.scheduler.reserve()?;
    jobs.push(bench.scheduler.submit_at(place, request("bob", small(3)))?);
    ensure!(bench.submit("bob", small(4)).is_err());
    // A step was measured by now: the refusal says when to come again.
    bench.until("stepped", |bench, _| bench.steps().len() == 1)?;
    let refused = bench.submit("bob", small(4)).err();
    ensure!(
        matches!(refused, Some(SubmitError::QueueFull { retry_after: Some(_), .. })),
        "{refused:?}"
    );
    ensure!(bench.scheduler.stats().refused == BTreeMap::from([("queue_full", 4)]));
    // Cancelled in the queue, a job gives its place back.
    ensure!(bench.scheduler.cancel(jobs[2].id()));
    bench.worker.tick();
    jobs.push(bench.submit("bob", small(4))?);
    bench.finish()?;
    let endings = jobs.into_iter().map(ending).collect::<Result<Vec<_>>>()?;
    ensure!(endings == ["done", "done", "cancelled", "done", "done"], "{endings:?}");
    Ok(())
}

#[test]
fn a_user_runs_no_more_jobs_at_once_than_they_may() -> Result<()> {
    let mut bench = Bench::new(Limits { jobs_per_user: 2, ..limits() }, Work::default())?;
    let ann = (0..6).map(|seed| bench.submit("ann", small(seed))).collect::<Result<Vec<_>, _>>()?;
    let bob = bench.submit("bob", small(6))?;
    let mut most = 0;
    for _ in 0..super::MANY {
        let tick = bench.worker.tick();
        most = most.max(ann.iter().filter(|job| is_running(job)).count());
        ensure!(!is_queued(&bob), "another user waits for a limit that is not theirs");
        if tick != darkroom::scheduler::Tick::Again {
            break;
        }
    }
    ensure!(most == 2, "{most} at once");
    for job in ann.into_iter().chain([bob]) {
        ensure!(ending(job)? == "done");
    }
    Ok(())
}

#[test]
fn what_can_never_run_is_refused_with_the_numbers_before_it_has_a_place() -> Result<()> {
    let bench = Bench::new(Limits { tokens: 100, memory: 50_000, ..limits() }, Work::default())?;
    let weigh = |side| {
        let job = job(1, side, side, 1);
        let images = [Size::new(side, side)];
        bench.scheduler.weigh(&JobShape { params: &job.params, images: &images })
    };
    ensure!(weigh(80)?.tokens == 50);
    ensure!(weigh(128) == Err(SubmitError::TooManyTokens { predicted: 128, limit: 100 }));
    ensure!(weigh(96) == Err(SubmitError::TooMuchMemory { predicted: 72_000, limit: 50_000 }));
    let refused = bench.submit("ann", job(1, 96, 96, 1)).err().context("it fits")?;
    ensure!(refused.to_string() == "the job would take 72000 bytes, 50000 are there");
    let mut wrong = small(1);
    wrong.params.num_inference_steps = 0;
    let refused = bench.submit("ann", wrong).err().context("no steps")?;
    ensure!(refused.code() == "invalid_parameter", "{refused}");
    ensure!(bench.scheduler.stats().waiting == 0, "a refused job kept its place");
    Ok(())
}
