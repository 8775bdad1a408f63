//! What everyone else holds: [`Scheduler`], and a [`JobHandle`] for each job submitted.
//!
//! All of it may be called from any thread, from asynchronous code too: it looks at the desk and sends
//! commands, and waits for an engine nowhere but where its documentation says so.

use super::{
    clock::Clock,
    desk::Drained,
    policy::{JobId, Priority, User, Waiting},
    progress::{Outcome, Watcher, channel},
    queue::{Place, Ticket},
    shared::{Health, Shared},
    stats::Stats,
};
use crate::{
    domain::{ParamError, Pixels},
    engine::{Cost, CostModel, Job, JobShape},
};
use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;

/// A job to be scheduled.
#[derive(Debug)]
pub struct Request {
    /// Whose it is.
    pub user: User,
    /// Who waits for it.
    pub priority: Priority,
    /// The job.
    pub job: Job,
    /// Whether the job is cancelled when its [`JobHandle`] is dropped before the job ended. Without
    /// it a job whose submitter has gone runs to its end.
    pub cancel_on_disconnect: bool,
}

/// Why a job was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The queue has no place.
    #[error("the job would be number {position} in a queue of {limit}")]
    QueueFull {
        /// The position that the job would have had.
        position: usize,
        /// The places of the queue.
        limit: usize,
        /// When a place may be free; none before a step was measured.
        retry_after: Option<Duration>,
    },
    /// It would not fit in a batch.
    #[error("the job has {predicted} tokens, a batch takes {limit}")]
    TooManyTokens {
        /// Its tokens.
        predicted: usize,
        /// The tokens of a batch.
        limit: usize,
    },
    /// It would not fit in memory.
    #[error("the job would take {predicted} bytes, {limit} are there")]
    TooMuchMemory {
        /// Its predicted bytes.
        predicted: u64,
        /// The bytes that jobs may take.
        limit: u64,
    },
    /// A parameter cannot be used.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// The scheduler finishes what it has, and takes no more.
    #[error("no more jobs are taken: the server is about to stop")]
    Draining,
    /// Every engine failed and could not be built again.
    #[error("the engine is down: {reason}")]
    EngineDown {
        /// What happened last.
        reason: String,
    },
}

impl SubmitError {
    /// Its stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::QueueFull { .. } => "queue_full",
            Self::TooManyTokens { .. } => "too_many_tokens",
            Self::TooMuchMemory { .. } => "too_much_memory",
            Self::Param(_) => "invalid_parameter",
            Self::Draining => "draining",
            Self::EngineDown { .. } => "engine_down",
        }
    }
}

/// Stops the threads with the last handle.
#[derive(Debug)]
pub(super) struct Owner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Owner {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, threads: Mutex::default() }
    }

    pub(super) fn add(&mut self, thread: JoinHandle<()>) {
        self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // They may have stopped already.
        self.shared.stop();
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.thread().id() != std::thread::current().id() {
                // A panic there has ended every job as interrupted, and was printed.
                drop(thread.join());
            }
        }
    }
}

/// A handle to the scheduler. Dropping the last clone interrupts all jobs and waits for the threads
/// of the engines, which takes a step at most.
#[derive(Clone, Debug)]
pub struct Scheduler {
    shared: Arc<Shared>,
    costs: Arc<dyn CostModel>,
    clock: Arc<dyn Clock>,
    _owner: Arc<Owner>,
}

impl Scheduler {
    pub(super) fn new(owner: Owner, costs: Arc<dyn CostModel>, clock: Arc<dyn Clock>) -> Self {
        Self { shared: Arc::clone(&owner.shared), costs, clock, _owner: Arc::new(owner) }
    }

    /// Weighs a job that is not there yet: what it would cost, or why it can never run.
    ///
    /// # Errors
    /// All of [`SubmitError`] but a full queue.
    pub fn weigh(&self, shape: &JobShape<'_>) -> Result<Cost, SubmitError> {
        let (cost, limits) = (self.costs.cost(shape)?, &self.shared.limits);
        match self.health() {
            Health::Ready => {}
            Health::Draining => return Err(SubmitError::Draining),
            Health::Red { reason } => return Err(SubmitError::EngineDown { reason }),
        }
        if cost.tokens > limits.tokens {
            let (predicted, limit) = (cost.tokens, limits.tokens);
            return Err(SubmitError::TooManyTokens { predicted, limit });
        }
        if cost.most() > limits.memory {
            let (predicted, limit) = (cost.most(), limits.memory);
            return Err(SubmitError::TooMuchMemory { predicted, limit });
        }
        Ok(cost)
    }

    /// Takes a place in the queue, for [`Scheduler::submit_at`]: before a picture is decoded for it.
    ///
    /// # Errors
    /// [`SubmitError::QueueFull`].
    pub fn reserve(&self) -> Result<Place, SubmitError> {
        let place = self.shared.places.take().map_err(|taken| {
            let stats = self.stats();
            let jobs = u32::try_from(taken + stats.running).unwrap_or(u32::MAX).max(1);
            SubmitError::QueueFull {
                position: taken + 1,
                limit: self.shared.limits.waiting,
                retry_after: stats.backlog.map(|backlog| backlog / jobs),
            }
        });
        place.inspect_err(|error| self.count(error))
    }

    /// Submits a job.
    ///
    /// # Errors
    /// [`SubmitError`]; the job is dropped.
    pub fn submit(&self, request: Request) -> Result<JobHandle, SubmitError> {
        self.submit_at(self.reserve()?, request)
    }

    /// Submits a job to a place that was taken before.
    ///
    /// # Errors
    /// [`SubmitError`]; the job is dropped, and the place is free again.
    pub fn submit_at(&self, place: Place, request: Request) -> Result<JobHandle, SubmitError> {
        let Request { user, priority, job, cancel_on_disconnect } = request;
        let cost = self
            .weigh(&JobShape { params: &job.params, images: &job.sizes() })
            .inspect_err(|error| self.count(error))?;
        let since = self.clock.now();
        let mut desk = self.shared.desk();
        // It may have come to that since the job was weighed.
        if desk.closed || !desk.serves() {
            let error = match desk.red() {
                Some(reason) => SubmitError::EngineDown { reason },
                None => SubmitError::Draining,
            };
            drop(desk);
            self.count(&error);
            return Err(error);
        }
        // Numbered on the desk: the queue is in the order of numbers.
        let id = JobId(self.shared.next_id.fetch_add(1, Ordering::SeqCst));
        let (reporter, watcher, outcome) = channel(id, place.position());
        self.shared.know(watcher.clone());
        let waiting = Waiting { id, user, priority, cost, since };
        desk.queue.push(Ticket { waiting, job, reporter, place });
        desk.queue_changed = true;
        drop(desk);
        self.shared.wake();
        let cancel = cancel_on_disconnect.then(|| Arc::clone(&self.shared));
        Ok(JobHandle { watcher, outcome, cancel })
    }

    /// Cancels a job. One in the queue leaves at once, one that runs takes no step after the one that
    /// is under way. False where no such job waits or runs.
    #[must_use]
    pub fn cancel(&self, id: JobId) -> bool {
        self.shared.cancel(id)
    }

    /// The news of a job: while it lives, and for a while after.
    #[must_use]
    pub fn watch(&self, id: JobId) -> Option<Watcher> {
        self.shared.watcher(id)
    }

    /// How a job would look; told between two steps. None where it has no step behind it or none
    /// before it.
    #[must_use]
    pub fn preview(&self, id: JobId) -> oneshot::Receiver<Option<Pixels>> {
        let (reply, answer) = oneshot::channel();
        self.shared.preview(id, reply);
        answer
    }

    /// Takes no more jobs, interrupts those that wait, lets those that run end within a time,
    /// interrupts the rest, and stops the threads. Told when that is done.
    #[must_use]
    pub fn drain(&self, within: Duration) -> oneshot::Receiver<Drained> {
        let (reply, answer) = oneshot::channel();
        self.shared.drain(self.clock.now().saturating_add(within), reply);
        answer
    }

    /// Whether jobs are taken: as long as one engine is there.
    #[must_use]
    pub fn health(&self) -> Health {
        let desk = self.shared.desk();
        match desk.red() {
            Some(reason) => Health::Red { reason },
            None if desk.closed => Health::Draining,
            None => Health::Ready,
        }
    }

    /// A copy of the counts.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let engines = self.shared.desk().engines();
        Stats {
            waiting: self.shared.places.taken(),
            running: engines.iter().map(|engine| engine.running).sum(),
            memory: engines.iter().map(|engine| engine.memory).fold(0, u64::saturating_add),
            rebuilds: engines.iter().map(|engine| engine.rebuilds).sum(),
            engines,
            ..self.shared.stats().clone()
        }
    }

    fn count(&self, error: &SubmitError) {
        *self.shared.stats().refused.entry(error.code()).or_default() += 1;
    }
}

/// A submitted job: its news, and its result, which moves out once.
#[derive(Debug)]
pub struct JobHandle {
    watcher: Watcher,
    outcome: oneshot::Receiver<Outcome>,
    /// Where the job is to be cancelled with this handle.
    cancel: Option<Arc<Shared>>,
}

impl JobHandle {
    /// The job.
    #[must_use]
    pub fn id(&self) -> JobId {
        self.watcher.id()
    }

    /// Its news.
    #[must_use]
    pub fn watcher(&self) -> &Watcher {
        &self.watcher
    }

    /// Waits for the end.
    pub async fn outcome(mut self) -> Outcome {
        // A worker that is gone has interrupted whatever it had.
        (&mut self.outcome).await.unwrap_or(Outcome::Interrupted)
    }

    /// Waits for the end, blocking: not for asynchronous code.
    #[must_use]
    pub fn wait(mut self) -> Outcome {
        let (_, closed) = oneshot::channel();
        std::mem::replace(&mut self.outcome, closed).blocking_recv().unwrap_or(Outcome::Interrupted)
    }

    /// The end, if it was reached and not yet taken.
    pub fn try_outcome(&mut self) -> Option<Outcome> {
        self.outcome.try_recv().ok()
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if let Some(shared) = &self.cancel {
            // A job that has ended is nowhere.
            shared.cancel(self.id());
        }
    }
}
