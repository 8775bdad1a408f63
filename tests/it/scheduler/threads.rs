//! The engine's own thread: how it starts, and that it stops.

use super::{factory, job, limits, request, small};
use anyhow::{Context, Result, ensure};
use darkroom::{
    engine::{
        Engine,
        fake::{Call, Control, FakeEngine, Work, result},
    },
    scheduler::{
        Drained, Health, ManualClock, Outcome, StartError, SubmitError, Tick, Watcher, by_hand,
        spawn,
    },
};
use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

#[test]
fn a_job_runs_on_the_engines_thread() -> Result<()> {
    let (control, clock) = (Control::default(), ManualClock::default());
    let engine = factory(Work::default(), &control, &clock);
    let scheduler = spawn(engine, limits(), Arc::new(clock))?;
    let (first, second) = (small(1), job(2, 48, 64, 7));
    let handles = [
        scheduler.submit(request("ann", first.clone()))?,
        scheduler.submit(request("bob", second.clone()))?,
    ];
    for (handle, job) in handles.into_iter().zip([first, second]) {
        match handle.wait() {
            Outcome::Done(pixels) => ensure!(pixels == result(&job)),
            other => anyhow::bail!("{other:?}"),
        }
    }
    ensure!(scheduler.health() == Health::Ready);
    Ok(())
}

#[test]
fn an_engine_that_cannot_be_built_is_an_error_of_the_start() -> Result<()> {
    let clock = Arc::new(ManualClock::default());
    let no = Box::new(|| Err("there is no model".into()));
    let error = spawn(no, limits(), Arc::clone(&clock) as _).err().context("it started")?;
    ensure!(error.to_string() == "the engine could not be built: there is no model", "{error}");
    let named = Box::new(|| {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        Err(name.into())
    });
    let error = spawn(named, limits(), clock).err().context("it started")?;
    ensure!(matches!(&error, StartError::Build(name) if name.to_string() == "engine"), "{error}");
    Ok(())
}

#[test]
fn dropping_the_last_handle_stops_the_thread_and_interrupts_its_jobs() -> Result<()> {
    let (control, clock) = (Control::default(), ManualClock::default());
    let engine = factory(Work::default(), &control, &clock);
    let scheduler = spawn(engine, limits(), Arc::new(clock))?;
    let other = scheduler.clone();
    // More steps than are done before the handle is gone; a watcher keeps nothing alive.
    let handle = scheduler.submit(request("ann", job(1, 16, 16, 1000)))?;
    let watcher: Watcher = handle.watcher().clone();
    drop(scheduler);
    ensure!(!control.calls().iter().any(|call| matches!(call, Call::Drop(_))), "a handle is left");
    drop(other);
    // The engine is gone by the time that drop returns.
    ensure!(matches!(control.calls().last(), Some(Call::Drop(0))), "the engine is still there");
    ensure!(watcher.status().is_over());
    ensure!(matches!(handle.wait(), Outcome::Interrupted | Outcome::Done(_)));
    Ok(())
}

#[test]
fn many_threads_submit_cancel_and_leave_and_every_job_ends_with_its_slot_given_back() -> Result<()>
{
    let (control, clock) = (Control::default(), ManualClock::default());
    let engine = factory(Work::default(), &control, &clock);
    let scheduler = spawn(engine, limits(), Arc::new(clock))?;
    let submit = &|user: u64| -> Result<usize> {
        let mut done = 0;
        for n in 0..20 {
            let job = job(100 * user + n, 32, 48, 1 + n as u32 % 5);
            let mut request = request(&format!("user {user}"), job.clone());
            request.cancel_on_disconnect = n % 5 == 1;
            let handle = scheduler.submit(request)?;
            match n % 5 {
                0 => drop(scheduler.cancel(handle.id())),
                1 => continue,
                _ => {}
            }
            match handle.wait() {
                Outcome::Done(pixels) => {
                    ensure!(pixels == result(&job), "job {n} has another's result");
                    done += 1;
                }
                Outcome::Cancelled if n % 5 == 0 => {}
                other => anyhow::bail!("{other:?}"),
            }
        }
        Ok(done)
    };
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..4).map(|user| scope.spawn(move || submit(user))).collect();
        for thread in threads {
            let done = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            ensure!(done >= 12, "{done} of 12 that nobody cancelled");
        }
        Ok(())
    })?;
    let counted = scheduler.stats();
    drop(scheduler);
    ensure!(counted.refused.is_empty() && counted.rebuilds == 0);
    for seed in (0..4).flat_map(|user| (0..20).map(move |n| 100 * user + n)) {
        let count = |call: Call| control.calls().iter().filter(|other| **other == call).count();
        let (admitted, released) = (count(Call::Admit(seed)), count(Call::Release(seed)));
        ensure!(admitted <= 1 && released == admitted, "job {seed}: {released} of {admitted}");
    }
    Ok(())
}

#[test]
fn a_drain_ends_the_thread_after_the_running_job() -> Result<()> {
    let control = Control::default();
    // The engine tells that it works, and works on when the gate is opened by being dropped.
    let ((working, arrived), (gate, closed)) = (mpsc::channel(), mpsc::channel::<()>());
    let mut spend = Some(move |_| {
        let _ = (working.send(()), closed.recv());
    });
    let of_engine = control.clone();
    let engine = Box::new(move || {
        let spend = spend.take().ok_or("built twice")?;
        let engine = FakeEngine::new(Work::default(), of_engine.clone(), spend);
        Ok(Box::new(engine) as Box<dyn Engine>)
    });
    let scheduler = spawn(engine, limits(), Arc::new(ManualClock::default()))?;
    let handle = scheduler.submit(request("ann", small(1)))?;
    arrived.recv()?;
    let drained = scheduler.drain(Duration::from_secs(3600));
    ensure!(scheduler.submit(request("ann", small(2))).is_err());
    drop(gate);
    ensure!(drained.blocking_recv()? == Drained { finished: 1, interrupted: 0 });
    ensure!(matches!(handle.wait(), Outcome::Done(_)));
    drop(scheduler);
    ensure!(matches!(control.calls().last(), Some(Call::Drop(0))));
    Ok(())
}

#[test]
fn a_thread_that_died_is_red_and_leaves_no_job_hanging() -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let clock = ManualClock::default();
        let engine = factory(Work::default(), &Control::default(), &clock);
        let (scheduler, mut worker) = by_hand(engine, limits(), Arc::new(clock))?;
        let handle = scheduler.submit(request("ann", small(1)))?;
        worker.tick();
        drop(sender.send((scheduler, handle)));
        super::faults::quietly(|| assert!(worker.tick() == Tick::Stop, "a planned fault"));
        Ok::<_, anyhow::Error>(())
    });
    let (scheduler, handle) = receiver.recv()?;
    ensure!(thread.join().is_err(), "it did not panic");
    ensure!(matches!(handle.wait(), Outcome::Interrupted));
    ensure!(matches!(scheduler.health(), Health::Red { .. }), "{:?}", scheduler.health());
    let refused = scheduler.submit(request("ann", small(2))).err();
    ensure!(matches!(refused, Some(SubmitError::EngineDown { .. })), "{refused:?}");
    Ok(())
}
