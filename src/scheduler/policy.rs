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

use crate::engine::Cost;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

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
}

/// What may be used at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Jobs in the engine.
    pub jobs: usize,
    /// Jobs of one user in the engine.
    pub jobs_per_user: usize,
    /// Tokens of all jobs in the engine, and so of a batch.
    pub tokens: usize,
    /// Predicted bytes of all jobs in the engine.
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
}

impl StopReason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::QueueEmpty, Self::MaxJobs, Self::TokenBudget, Self::MemoryBudget, Self::UserLimit];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QueueEmpty => "queue_empty",
            Self::MaxJobs => "max_jobs",
            Self::TokenBudget => "token_budget",
            Self::MemoryBudget => "memory_budget",
            Self::UserLimit => "user_limit",
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

/// Decides a tick. `waiting` is in order of arrival.
#[must_use]
pub fn plan(
    waiting: &[Waiting],
    running: &[Active],
    limits: &Limits,
    credits: &Credits,
    now: Duration,
) -> Plan {
    let (admit, stop, credits) = admit(waiting, running, limits, credits, now);
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
    let slice = slicing.iter().map(|active| active.job.id).collect();
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
    limits: &Limits,
    credits: &Credits,
    now: Duration,
) -> (Vec<JobId>, StopReason, Credits) {
    let mut inside: Vec<&Waiting> = running.iter().map(|active| &active.job).collect();
    let mut lanes = Lanes::new(waiting, limits, credits, now);
    lanes.limit(limits.jobs_per_user, &inside);
    let mut admitted = Vec::new();
    let stop = loop {
        if admitted.len() == waiting.len() {
            break StopReason::QueueEmpty;
        }
        if inside.len() >= limits.jobs {
            break StopReason::MaxJobs;
        }
        let Some(turn) = lanes.next() else { break StopReason::UserLimit };
        // A job alone always goes: submission refuses what the limits cannot hold, and a queue that
        // nothing would ever leave is worse than a limit that is overstepped.
        if !inside.is_empty() {
            let tokens = inside.iter().map(|job| job.cost.tokens);
            if tokens.fold(turn.job.cost.tokens, usize::saturating_add) > limits.tokens {
                break StopReason::TokenBudget;
            }
            let memory = inside.iter().map(|job| job.cost.memory);
            if memory.fold(turn.job.cost.memory, u64::saturating_add) > limits.memory {
                break StopReason::MemoryBudget;
            }
        }
        let job = lanes.take(turn);
        inside.push(job);
        admitted.push(job.id);
    };
    (admitted, stop, lanes.credits())
}

/// 0 for interactive jobs and those that count as such, 1 for the others.
fn class(job: &Waiting, limits: &Limits, now: Duration) -> usize {
    let aged = now.saturating_sub(job.since) >= limits.patience;
    usize::from(job.priority == Priority::Batch && !aged)
}

/// A user's waiting jobs.
struct Lane<'a> {
    user: &'a User,
    /// By class, in order of arrival.
    jobs: [VecDeque<&'a Waiting>; 2],
    credit: u64,
    /// How many more of them may go.
    room: usize,
}

/// Whose turn it is.
#[derive(Clone, Copy)]
struct Turn<'a> {
    job: &'a Waiting,
    lane: usize,
    class: usize,
    /// What everyone who waits in that class is given.
    quantum: u64,
}

/// Every user's lane, in the order of users.
struct Lanes<'a> {
    lanes: Vec<Lane<'a>>,
    /// The first lane after the one whose turn was last.
    first: usize,
    last: Option<&'a User>,
}

impl<'a> Lanes<'a> {
    fn new(waiting: &'a [Waiting], limits: &Limits, credits: &'a Credits, now: Duration) -> Self {
        let mut jobs: BTreeMap<&User, [VecDeque<&Waiting>; 2]> = BTreeMap::new();
        for job in waiting {
            jobs.entry(&job.user).or_default()[class(job, limits, now)].push_back(job);
        }
        let lane = |(user, jobs)| {
            let credit = credits.work.get(user).copied().unwrap_or(0);
            Lane { user, jobs, credit, room: usize::MAX }
        };
        let lanes: Vec<Lane<'_>> = jobs.into_iter().map(lane).collect();
        let last = credits.last.as_ref();
        let first = lanes.partition_point(|lane| Some(lane.user) <= last);
        Self { lanes, first, last }
    }

    /// Lets each user have `jobs` in the engine, with those who are `inside` already.
    fn limit(&mut self, jobs: usize, inside: &[&Waiting]) {
        for lane in &mut self.lanes {
            let theirs = inside.iter().filter(|job| job.user == *lane.user).count();
            lane.room = jobs.saturating_sub(theirs);
        }
    }

    /// Whose turn it is among the users who have room.
    fn next(&self) -> Option<Turn<'a>> {
        let lanes = || self.lanes.iter().enumerate().filter(|(_, lane)| lane.room > 0);
        let of_class = |class: usize| {
            let heads = lanes().filter_map(move |(index, lane)| {
                let job = *lane.jobs[class].front()?;
                let quantum = job.cost.work().saturating_sub(lane.credit);
                Some(Turn { job, lane: index, class, quantum })
            });
            // At equal need the turn passes on: first the users after the last one, then the others.
            heads.min_by_key(|turn| (turn.quantum, turn.lane < self.first, turn.lane))
        };
        of_class(0).or_else(|| of_class(1))
    }

    /// Gives everyone the quantum of that turn, and takes its job out and its work from its user.
    fn take(&mut self, turn: Turn<'a>) -> &'a Waiting {
        let Turn { job, lane, class, quantum } = turn;
        let waiting = |lane: &&mut Lane<'_>| lane.room > 0 && !lane.jobs[class].is_empty();
        for lane in self.lanes.iter_mut().filter(waiting) {
            lane.credit = lane.credit.saturating_add(quantum);
        }
        let lane = &mut self.lanes[lane];
        lane.credit = lane.credit.saturating_sub(job.cost.work());
        lane.room -= 1;
        lane.jobs[class].pop_front();
        (self.first, self.last) = (turn.lane + 1, Some(lane.user));
        job
    }

    /// The credits of those who have a job left.
    fn credits(self) -> Credits {
        let left = self.lanes.iter().filter(|lane| lane.jobs.iter().any(|jobs| !jobs.is_empty()));
        let work = left.filter(|lane| lane.credit > 0).map(|lane| (lane.user.clone(), lane.credit));
        Credits { work: work.collect(), last: self.last.cloned() }
    }
}
