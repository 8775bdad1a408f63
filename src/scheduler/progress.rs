//! What is told about a job while it waits and runs, and how its result leaves.
//!
//! The worker holds a [`Reporter`], everyone else [`Watcher`]s. Two forms of the same news: a
//! [`Status`] of which only the latest counts, and a list of numbered [`Event`]s that can be read
//! again from any number on. The result itself moves out once, through a channel of its own.
//! Nothing here decides anything.

use super::policy::JobId;
use crate::{
    domain::{ParamError, Pixels},
    engine::{EngineError, Progress},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{oneshot, watch};

/// Why a job failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A parameter cannot be used.
    #[error(transparent)]
    Param(#[from] ParamError),
    /// The engine could not go on with it.
    #[error(transparent)]
    Engine(Arc<EngineError>),
    /// The engine panicked while it worked on the job, alone or with others.
    #[error("the engine panicked in {call}")]
    Panic {
        /// The call.
        call: &'static str,
    },
    /// The engine failed under other jobs and could not be built again.
    #[error("the engine is down: {reason}")]
    EngineDown {
        /// What happened last.
        reason: String,
    },
}

impl Fault {
    /// Its stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Param(_) => "invalid_parameter",
            Self::Engine(_) => "engine_failed",
            Self::Panic { .. } => "engine_panicked",
            Self::EngineDown { .. } => "engine_down",
        }
    }
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Param(error) => Self::Param(error),
            error => Self::Engine(Arc::new(error)),
        }
    }
}

/// News of a job.
#[derive(Clone, Debug)]
pub enum Event {
    /// It waits. A newer one of these replaces the one before it.
    Queued {
        /// How many jobs are before it, plus one.
        position: usize,
        /// When its result may be there, from the moment of the event; none before a step was
        /// measured.
        eta: Option<Duration>,
    },
    /// The engine has it.
    Started,
    /// The engine failed under other jobs and was built again; this one begins anew.
    Restarted,
    /// A denoising step is done.
    Step {
        /// Steps done and in all.
        progress: Progress,
        /// How long the step took, for all the jobs in it.
        seconds: f64,
    },
    /// The result is there.
    Done,
    /// It failed.
    Failed(Fault),
    /// It was cancelled.
    Cancelled,
    /// The scheduler stopped before it ended.
    Interrupted,
}

impl Event {
    /// Its stable name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Started => "started",
            Self::Restarted => "restarted",
            Self::Step { .. } => "step",
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// What a running job is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The prompt.
    Text,
    /// The reference pictures.
    Images,
    /// Denoising.
    Steps,
    /// The result.
    Decoding,
}

/// Where a job stands.
#[derive(Clone, Debug)]
pub enum Status {
    /// It waits.
    Queued {
        /// How many jobs are before it, plus one.
        position: usize,
        /// See [`Event::Queued`].
        eta: Option<Duration>,
    },
    /// The engine has it.
    Running {
        /// What it is busy with.
        stage: Stage,
        /// How far it is in that.
        progress: Progress,
        /// When its result may be there, from now; none before a step was measured.
        eta: Option<Duration>,
    },
    /// The result is there.
    Done,
    /// It failed.
    Failed(Fault),
    /// It was cancelled.
    Cancelled,
    /// The scheduler stopped before it ended.
    Interrupted,
}

impl Status {
    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !matches!(self, Self::Queued { .. } | Self::Running { .. })
    }
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// Well.
    Done(Pixels),
    /// It failed.
    Failed(Fault),
    /// It was cancelled.
    Cancelled,
    /// The scheduler stopped before it ended.
    Interrupted,
}

#[derive(Debug)]
struct Log {
    last: u64,
    events: VecDeque<(u64, Event)>,
}

type SharedLog = Arc<Mutex<Log>>;

fn lock(log: &SharedLog) -> MutexGuard<'_, Log> {
    // Each change is one push: whoever panicked left the list whole.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The worker's end. Dropped before its job ended, it tells that the job was interrupted.
#[derive(Debug)]
pub(super) struct Reporter {
    log: SharedLog,
    status: watch::Sender<Status>,
    outcome: Option<oneshot::Sender<Outcome>>,
}

/// Both ends of a job's news, and its result's.
pub(super) fn channel(
    id: JobId,
    position: usize,
) -> (Reporter, Watcher, oneshot::Receiver<Outcome>) {
    let first = Event::Queued { position, eta: None };
    let log = Log { last: 1, events: VecDeque::from([(1, first)]) };
    let log = Arc::new(Mutex::new(log));
    let (status, latest) = watch::channel(Status::Queued { position, eta: None });
    let (outcome, result) = oneshot::channel();
    let reporter = Reporter { log: Arc::clone(&log), status, outcome: Some(outcome) };
    (reporter, Watcher { id, log, status: latest }, result)
}

impl Reporter {
    /// Adds an event, then makes the status new, which wakes whoever waits for either.
    pub(super) fn tell(&self, event: Event, status: Status) {
        let mut log = lock(&self.log);
        // Positions change with every job that comes and goes, and nobody reads old ones.
        if matches!(event, Event::Queued { .. })
            && matches!(log.events.back(), Some((_, Event::Queued { .. })))
        {
            log.events.pop_back();
        }
        log.last += 1;
        let number = log.last;
        log.events.push_back((number, event));
        drop(log);
        self.status.send_replace(status);
    }

    /// Makes the status new without an event.
    pub(super) fn update(&self, status: Status) {
        self.status.send_replace(status);
    }

    /// The end, and its event's name. The result is there before anyone is told of it.
    pub(super) fn end(mut self, outcome: Outcome) -> &'static str {
        self.finish(outcome)
    }

    fn finish(&mut self, outcome: Outcome) -> &'static str {
        let (event, status) = match &outcome {
            Outcome::Done(_) => (Event::Done, Status::Done),
            Outcome::Failed(fault) => (Event::Failed(fault.clone()), Status::Failed(fault.clone())),
            Outcome::Cancelled => (Event::Cancelled, Status::Cancelled),
            Outcome::Interrupted => (Event::Interrupted, Status::Interrupted),
        };
        let name = event.name();
        if let Some(sender) = self.outcome.take() {
            // Nobody may be waiting for it any more; then the pixels are dropped here.
            drop(sender.send(outcome));
            self.tell(event, status);
        }
        name
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.finish(Outcome::Interrupted);
    }
}

/// Reads the news of one job; as many as there are people who look.
#[derive(Clone, Debug)]
pub struct Watcher {
    id: JobId,
    log: SharedLog,
    status: watch::Receiver<Status>,
}

impl Watcher {
    /// The job.
    #[must_use]
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Where the job stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// The events after the one numbered `after`; 0 for all. Numbers grow, with gaps.
    #[must_use]
    pub fn events(&self, after: u64) -> Vec<(u64, Event)> {
        let log = lock(&self.log);
        let from = log.events.partition_point(|(number, _)| *number <= after);
        log.events.range(from..).cloned().collect()
    }

    /// Waits for events after the one numbered `after`. None come after the end.
    pub async fn next(&mut self, after: u64) -> Vec<(u64, Event)> {
        loop {
            // Marked as seen before the list is read, so that what comes after it wakes us.
            let over = self.status.borrow_and_update().is_over();
            let events = self.events(after);
            if over || !events.is_empty() || self.status.changed().await.is_err() {
                return if events.is_empty() { self.events(after) } else { events };
            }
        }
    }
}
