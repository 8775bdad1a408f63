//! What happens next, decided by a pure function: no clock, no locks, no engine.
//!
//! The worker calls [`plan`] once a tick with plain values and does what the [`Plan`] says; tests
//! call it with tables.
//!
//! **Fairness** is deficit round robin over predicted work. Every user with a waiting job has a
//! credit. The round's quantum is the least that lets someone's first job go: everyone who waits is
//! given that much, the job goes, and its user pays its whole work. So over time each user who keeps
//! jobs waiting is given the same work, however many jobs there are and however large. Who has no
//! job waiting loses their credit: nobody saves up.
//!
//! **Priority**: a batch job is taken only when no interactive one may go, until it has waited for
//! [`Limits::patience`]; from then on it counts as interactive, and its user's share carries it.
//!
//! **Order** is kept when room is short: the job whose turn it is waits for room, and none behind it
//! overtakes, because a large job would otherwise wait for as long as small ones arrive.
//!
//! **Memory**: a job holds its [`Cost::peak`] from the first to the last slice of an activity. So as
//! many are in the middle of one as have room, at least one, and the others begin when these are done.
//!
//! **Several engines** share one queue, its order and its credits. Each plans for itself and sees the
//! others as [`Peer`]s. The job whose turn it is goes to the engine with the least work left among
//! those that have room for it; until that one takes it, between two of its steps, nobody takes the
//! next.

mod lanes;
mod room;

use crate::engine::Cost;
use lanes::Lanes;
use room::Load;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Whose job it is. Fairness and limits are between users.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User(Arc<str>);

impl User {
    /// The user of that id.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0
    }
}

/// A job's name in this scheduler, in order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Who is waiting for the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A person.
    #[default]
    Interactive,
    /// Nobody at present: it may take longer.
    Batch,
}

impl Priority {
    /// Every priority.
    pub const ALL: [Self; 2] = [Self::Interactive, Self::Batch];

    /// Its name in requests and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

/// A job in the queue.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The job.
    pub id: JobId,
    /// Whose.
    pub user: User,
    /// Its priority.
    pub priority: Priority,
    /// Its predicted cost.
    pub cost: Cost,
    /// When it came.
    pub since: Duration,
}

/// What a running job needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Slices of text and picture work.
    Preparing,
    /// A denoising step.
    Stepping,
    /// Slices of decoding.
    Finishing,
}

/// A job in the engine.
#[derive(Clone, Debug)]
pub struct Active {
    /// What it was in the queue.
    pub job: Waiting,
    /// What it needs.
    pub activity: Activity,
    /// Slices that it was given in this activity.
    pub slices: u64,
    /// Predicted work of it that is left.
    pub left: u64,
}

impl Active {
    pub(super) fn new(job: Waiting) -> Self {
        let left = job.cost.work();
        Self { job, activity: Activity::Preparing, slices: 0, left }
    }
}

/// Another engine of the same queue.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// The jobs in it.
    pub running: &'a [Active],
    /// Whether it takes jobs: it is neither down nor being built again.
    pub open: bool,
    /// Whether it goes first where it has as much work left.
    pub first: bool,
}

/// What may be used at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs in an engine.
    pub jobs: usize,
    /// Jobs of one user in all engines together.
    pub jobs_per_user: usize,
    /// Tokens of all jobs in an engine, and so of a batch.
    pub tokens: usize,
    /// Predicted bytes of all jobs in an engine.
    pub memory: u64,
    /// Jobs in the queue.
    pub waiting: usize,
    /// How long a batch job waits before it counts as an interactive one.
    pub patience: Duration,
    /// Ended jobs whose events can still be read.
    pub remembered: usize,
}

/// Why no more jobs were admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopReason {
    /// Nothing waits.
    QueueEmpty,
    /// The engine has as many jobs as it may.
    MaxJobs,
    /// The next job's tokens would not fit in a batch.
    TokenBudget,
    /// The next job's predicted memory would not fit.
    MemoryBudget,
    /// All that wait belong to users who have as many jobs running as they may.
    UserLimit,
    /// The next job is for another engine, which has less to do.
    OtherEngine,
}

impl StopReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::QueueEmpty,
        Self::MaxJobs,
        Self::TokenBudget,
        Self::MemoryBudget,
        Self::UserLimit,
        Self::OtherEngine,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueEmpty => "queue_empty",
            Self::MaxJobs => "max_jobs",
            Self::TokenBudget => "token_budget",
            Self::MemoryBudget => "memory_budget",
            Self::UserLimit => "user_limit",
            Self::OtherEngine => "other_engine",
        }
    }
}

/// What each user was given and has not used, and whose turn was last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credits {
    work: BTreeMap<User, u64>,
    last: Option<User>,
}

/// What to do in a tick.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to admit, in order.
    pub admit: Vec<JobId>,
    /// Why no more.
    pub stop: StopReason,
    /// Who steps, of those that run already.
    pub step: Vec<JobId>,
    /// Who gets slices of text or picture work, of those that run already: the first before the next,
    /// while the tick's time for that lasts.
    pub slice: Vec<JobId>,
    /// The credits after that.
    pub credits: Credits,
}

/// Decides a tick of an engine that has the jobs `running`. `waiting` is in order of arrival.
#[must_use]
pub fn plan(
    waiting: &[Waiting],
    running: &[Active],
    peers: &[Peer<'_>],
    limits: &Limits,
    credits: &Credits,
    now: Duration,
) -> Plan {
    let (admit, stop, credits) = admit(waiting, running, peers, limits, credits, now);
    let stepping = running.iter().filter(|active| active.activity == Activity::Stepping);
    // Admission keeps the sum of all jobs' tokens within a batch, so whoever is ready steps.
    let step = stepping.map(|active| active.job.id).collect();
    // Fewest slices first: a small job is not held up by a large one, and a large one is served
    // whenever no other asks. At equal slices those that will soon give their place back go first.
    let order = |active: &&Active| {
        let finishing = active.activity == Activity::Finishing;
        (class(&active.job, limits, now), active.slices, !finishing, active.job.id)
    };
    let slicing = running.iter().filter(|active| active.activity != Activity::Stepping);
    let mut slicing: Vec<&Active> = slicing.collect();
    slicing.sort_by_key(order);
    let inside = waiting.iter().filter(|job| admit.contains(&job.id));
    let load = inside.fold(Load::of(running), |load, job| load.with(&job.cost, 0));
    let slice = room::begin(slicing, load, limits);
    Plan { admit, stop, step, slice, credits }
}

/// The order in which the queue would be admitted if nothing else came and there were room.
#[must_use]
pub fn order(waiting: &[Waiting], limits: &Limits, credits: &Credits, now: Duration) -> Vec<JobId> {
    let mut lanes = Lanes::new(waiting, limits, credits, now);
    let next = || lanes.next().map(|turn| lanes.take(turn).id);
    std::iter::from_fn(next).collect()
}

fn admit(
    waiting: &[Waiting],
    running: &[Active],
    peers: &[Peer<'_>],
    limits: &Limits,
    credits: &Credits,
    now: Duration,
) -> (Vec<JobId>, StopReason, Credits) {
    let everywhere = peers.iter().flat_map(|peer| peer.running).chain(running);
    let mut lanes = Lanes::new(waiting, limits, credits, now);
    lanes.limit(limits.jobs_per_user, everywhere.map(|active| &active.job.user));
    let others: Vec<(Load, bool)> = peers
        .iter()
        .filter(|peer| peer.open)
        .map(|peer| (Load::of(peer.running), peer.first))
        .collect();
    let mut own = Load::of(running);
    let mut admitted = Vec::new();
    let stop = loop {
        if admitted.len() == waiting.len() {
            break StopReason::QueueEmpty;
        }
        if own.jobs >= limits.jobs {
            break StopReason::MaxJobs;
        }
        let Some(turn) = lanes.next() else { break StopReason::UserLimit };
        let cost = turn.job.cost;
        if let Some(reason) = own.refuses(&cost, limits) {
            break reason;
        }
        let before = |(other, first): &(Load, bool)| {
            let less = if *first { other.work <= own.work } else { other.work < own.work };
            less && other.refuses(&cost, limits).is_none()
        };
        if others.iter().any(before) {
            break StopReason::OtherEngine;
        }
        let job = lanes.take(turn);
        own = own.with(&cost, cost.work());
        admitted.push(job.id);
    };
    (admitted, stop, lanes.credits())
}

/// 0 for interactive jobs and those that count as such, 1 for the others.
fn class(job: &Waiting, limits: &Limits, now: Duration) -> usize {
    let aged = now.saturating_sub(job.since) >= limits.patience;
    usize::from(job.priority == Priority::Batch && !aged)
}
