//! Decides which job gets the device next: a queue, a pure policy, and the thread of the engine.
//!
//! [`spawn`] starts a thread that builds and owns an [`Engine`](crate::engine::Engine), and gives a
//! [`Scheduler`], which any number of threads and tasks may hold. The thread wakes (1) when a job is
//! submitted, (2) when one is cancelled or asked for a preview, (3) when it is to drain or stop; and
//! it does not sleep while a job waits or runs.
//!
//! Only that thread touches the engine. Nothing here knows HTTP, files, tensors or what an edit is:
//! what a job costs is said by the engine, whose it is by whoever submits it.

mod clock;
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
pub use handle::{JobHandle, Request, Scheduler, SubmitError};
pub use host::{BuildError, Factory, StartError};
pub use policy::{
    Active, Activity, Credits, JobId, Limits, Plan, Priority, StopReason, User, Waiting, order,
    plan,
};
pub use progress::{Event, Fault, Outcome, Stage, Status, Watcher};
pub use queue::Place;
pub use shared::Health;
pub use stats::{Histogram, Stats};
pub use worker::{Drained, Tick, Worker};

use shared::Shared;
use std::sync::{Arc, mpsc};

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
    let (commands, receiver) = mpsc::channel();
    let shared = Arc::new(Shared::new(limits));
    let (ready, built) = mpsc::channel();
    let (of_worker, its_clock) = (Arc::clone(&shared), Arc::clone(&clock));
    let body = move || match Worker::build(factory, its_clock, receiver, of_worker) {
        Ok((worker, costs)) => {
            // Whoever waits for it is blocked below.
            drop(ready.send(Ok(costs)));
            worker.run();
        }
        Err(error) => drop(ready.send(Err(error))),
    };
    let name = std::thread::Builder::new().name("engine".to_owned());
    let thread = name.spawn(body).map_err(StartError::Thread)?;
    let costs = built.recv().map_err(|_| StartError::Panic)??;
    Ok(Scheduler::new(shared, commands, costs, clock, Some(thread)))
}

/// A scheduler whose worker is not started: whoever holds the [`Worker`] ticks it, on the thread
/// that this was called on.
///
/// # Errors
/// As [`spawn`].
pub fn by_hand(
    factory: Factory,
    limits: Limits,
    clock: Arc<dyn Clock>,
) -> Result<(Scheduler, Worker), StartError> {
    let (commands, receiver) = mpsc::channel();
    let shared = Arc::new(Shared::new(limits));
    let (worker, costs) =
        Worker::build(factory, Arc::clone(&clock), receiver, Arc::clone(&shared))?;
    Ok((Scheduler::new(shared, commands, costs, clock, None), worker))
}
