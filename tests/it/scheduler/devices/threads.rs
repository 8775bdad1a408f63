//! Several engines on threads of their own.

use super::super::{factory, job, limits, request};
use anyhow::{Context, Result, ensure};
use darkroom::{
    engine::fake::{Call, Control, Work, result},
    scheduler::{Factory, Limits, ManualClock, Outcome, Scheduler, spawn_all},
};
use std::sync::Arc;

/// Engines on threads of their own, by their names.
fn threads(names: &[&str], limits: Limits) -> Result<(Scheduler, Vec<Control>)> {
    let clock = ManualClock::default();
    let controls: Vec<Control> = names.iter().map(|_| Control::default()).collect();
    let engine = |(name, control): (&&str, &Control)| {
        ((*name).to_owned(), factory(Work::default(), control, &clock))
    };
    let engines = names.iter().zip(&controls).map(engine).collect();
    Ok((spawn_all(engines, limits, Arc::new(clock))?, controls))
}

#[test]
fn threads_that_sleep_are_woken_for_what_another_left_them() -> Result<()> {
    // Whoever sleeps while it should work is a test that never ends.
    for (jobs, jobs_per_user) in [(1, 1), (1, 2), (2, 3), (8, 8)] {
        let limits = Limits { jobs, jobs_per_user, ..limits() };
        let (scheduler, controls) = threads(&["a", "b", "c"], limits)?;
        let submit = &|user: u64| -> Result<()> {
            let mut handles = Vec::new();
            for n in 0..25 {
                let job = job(100 * user + n, 32, 16 + 16 * (n as u32 % 3), 1 + n as u32 % 4);
                handles
                    .push((scheduler.submit(request(&format!("user {user}"), job.clone()))?, job));
            }
            for (handle, job) in handles {
                if job.params.seed % 10 == 7 {
                    let _ = scheduler.cancel(handle.id());
                }
                match handle.wait() {
                    Outcome::Done(pixels) => ensure!(pixels == result(&job), "another's result"),
                    Outcome::Cancelled if job.params.seed % 10 == 7 => {}
                    other => anyhow::bail!("{other:?}"),
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..3).map(|user| scope.spawn(move || submit(user))).collect();
            for thread in threads {
                thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            }
            Ok(())
        })?;
        drop(scheduler);
        for seed in (0..3).flat_map(|user| (0..25).map(move |n| 100 * user + n)) {
            let calls = || controls.iter().flat_map(Control::calls);
            let count = |wanted: Call| calls().filter(|call| *call == wanted).count();
            let (admitted, released) = (count(Call::Admit(seed)), count(Call::Release(seed)));
            ensure!(admitted <= 1 && released == admitted, "job {seed}: {released} of {admitted}");
        }
        let dropped = |control: &Control| control.calls().last() == Some(&Call::Drop(0));
        ensure!(controls.iter().all(dropped), "an engine is still there");
    }
    Ok(())
}

#[test]
fn an_engine_that_cannot_be_built_is_named_and_stops_the_others() -> Result<()> {
    let (control, clock) = (Control::default(), ManualClock::default());
    let good = factory(Work::default(), &control, &clock);
    let bad: Factory = Box::new(|| {
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        Err(format!("no memory for {thread}").into())
    });
    let engines = vec![("cuda:0".to_owned(), good), ("cuda:1".to_owned(), bad)];
    let error = spawn_all(engines, limits(), Arc::new(clock)).err().context("it started")?;
    let expected = "cuda:1: the engine could not be built: no memory for engine-1";
    ensure!(error.to_string() == expected, "{error}");
    ensure!(control.calls() == [Call::Drop(0)], "the other engine is still there");
    let none = spawn_all(Vec::new(), limits(), Arc::new(ManualClock::default())).err();
    ensure!(none.is_some_and(|error| error.to_string() == "there is no engine to start"));
    Ok(())
}
