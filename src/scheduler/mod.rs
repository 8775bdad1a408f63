//! Decides which job gets a device next: a queue, a pure policy, and a thread for each engine.
//!
//! [`spawn`] starts a thread that builds and owns an [`Engine`](crate::engine::Engine), and gives a
//! [`Scheduler`], which any number of threads and tasks may hold. The thread wakes (1) when a job is
//! submitted, (2) when one is cancelled or asked for a preview, (3) when it is to drain or stop,
//! (4) when another engine took a job or is done with one; and it does not sleep while a job is there
//! that it may run.
//!
//! Only that thread touches the engine. With [`spawn_all`] there are several, which share one queue:
//! a job that one has taken stays there, and fails with it. Nothing here knows HTTP, files, tensors or
//! what an edit is: what a job costs is said by the engine, whose it is by whoever submits it.

mod clock;
mod desk;
mod handle;
mod host;
mod meter;
mod policy;
mod progress;
mod queue;
mod running;
mod shared;
mod stats;
mod worker;

// What a request is made of and weighed by: whoever submits names the engine through here.
pub use crate::engine::{Cost, Job, JobShape, Progress};
pub use clock::{Clock, ManualClock, SystemClock};
pub use desk::Drained;
pub use handle::{JobHandle, Request, Scheduler, SubmitError};
pub use host::{BuildError, Factory, StartError};
pub use policy::{
    Active, Activity, Credits, JobId, Limits, Peer, Plan, Priority, StopReason, User, Waiting,
    order, plan,
};
pub use progress::{Event, Fault, Outcome, Stage, Status, Watcher};
pub use queue::Place;
pub use shared::Health;
pub use stats::{EngineState, EngineStats, Histogram, Stats};
pub use worker::{Tick, Worker};

use handle::Owner;
use shared::Shared;
use std::sync::{Arc, mpsc};

/// An engine to be started: what a person calls it, and what builds it.
pub type Named = (String, Factory);

/// Starts the thread `engine`, builds the engine on it, and waits until that is done. The thread
/// ends with the last clone of the [`Scheduler`], or with a drain.
///
/// # Errors
/// [`StartError`] where the engine cannot be built: there is no scheduler without one.
pub fn spawn(
    factory: Factory,
    limits: Limits,
    clock: Arc<dyn Clock>,
) -> Result<Scheduler, StartError> {
    spawn_all(vec![("engine".to_owned(), factory)], limits, clock)
}

/// As [`spawn`], with several engines, on threads `engine-0` and so on, that are built at the same
/// time. They must be alike: what a job costs is said by the first.
///
/// # Errors
/// [`StartError::Engine`], which names the first that cannot be built; then none is left.
pub fn spawn_all(
    engines: Vec<Named>,
    limits: Limits,
    clock: Arc<dyn Clock>,
) -> Result<Scheduler, StartError> {
    let (names, factories): (Vec<String>, Vec<Factory>) = engines.into_iter().unzip();
    let several = names.len() > 1;
    let (shared, receivers) = Shared::new(limits, names.clone());
    let shared = Arc::new(shared);
    // Dropped with an error it stops those that were built.
    let mut owner = Owner::new(Arc::clone(&shared));
    let named = |name, error: StartError| if several { error.of(name) } else { error };
    let mut building = Vec::new();
    for (number, ((factory, commands), name)) in
        factories.into_iter().zip(receivers).zip(names).enumerate()
    {
        let (ready, built) = mpsc::channel();
        let (shared, clock) = (Arc::clone(&shared), Arc::clone(&clock));
        let body = move || match Worker::build(number, factory, clock, commands, shared) {
            Ok((worker, costs)) => {
                // Whoever waits for it is blocked below.
                drop(ready.send(Ok(costs)));
                worker.run();
            }
            Err(error) => drop(ready.send(Err(error))),
        };
        let thread = if several { format!("engine-{number}") } else { "engine".to_owned() };
        let thread = std::thread::Builder::new().name(thread).spawn(body);
        match thread {
            Ok(thread) => owner.add(thread),
            Err(error) => return Err(named(name, StartError::Thread(error))),
        }
        building.push((name, built));
    }
    let mut costs = None;
    for (name, built) in building {
        let built = built.recv().unwrap_or(Err(StartError::Panic));
        costs.get_or_insert(built.map_err(|error| named(name, error))?);
    }
    Ok(Scheduler::new(owner, costs.ok_or(StartError::NoEngine)?, clock))
}

/// A scheduler whose workers are not started: whoever holds a [`Worker`] ticks it, on the thread that
/// this was called on.
///
/// # Errors
/// As [`spawn`].
pub fn by_hand(
    factory: Factory,
    limits: Limits,
    clock: Arc<dyn Clock>,
) -> Result<(Scheduler, Worker), StartError> {
    let (scheduler, workers) = by_hand_all(vec![("engine".to_owned(), factory)], limits, clock)?;
    let worker = workers.into_iter().next().ok_or(StartError::NoEngine)?;
    Ok((scheduler, worker))
}

/// As [`by_hand`], with several engines.
///
/// # Errors
/// As [`spawn`].
pub fn by_hand_all(
    engines: Vec<Named>,
    limits: Limits,
    clock: Arc<dyn Clock>,
) -> Result<(Scheduler, Vec<Worker>), StartError> {
    let (names, factories): (Vec<String>, Vec<Factory>) = engines.into_iter().unzip();
    let (shared, receivers) = Shared::new(limits, names);
    let shared = Arc::new(shared);
    let (mut workers, mut costs) = (Vec::new(), None);
    for (number, (factory, commands)) in factories.into_iter().zip(receivers).enumerate() {
        let (its_clock, its_shared) = (Arc::clone(&clock), Arc::clone(&shared));
        let (worker, its_costs) = Worker::build(number, factory, its_clock, commands, its_shared)?;
        costs.get_or_insert(its_costs);
        workers.push(worker);
    }
    let costs = costs.ok_or(StartError::NoEngine)?;
    Ok((Scheduler::new(Owner::new(shared), costs, clock), workers))
}
