//! The jobs that this process has taken: those that have not ended, and the last ones that have.
//!
//! A job's news are the scheduler's until the scheduler is done with it; then its result is encoded
//! and stored, and only after that its end is told. Older jobs are read from the store.

use super::{Record, record::Image};
use crate::{
    domain::{ObjectId, OwnerId, SecretBytes},
    scheduler::{JobId, Progress, Stage, Status, Watcher},
    store::{State, Time},
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Ended jobs whose steps can still be read again. Their ends can be for as long as they are stored.
const REMEMBERED: usize = 1000;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// It waits.
    Queued,
    /// The device has it, or its result is being stored.
    Running,
    /// Its image is there.
    Done,
    /// It could not be finished.
    Failed,
    /// Someone stopped it.
    Cancelled,
    /// The server ended before it did. Its inputs are gone by design.
    Interrupted,
}

impl JobState {
    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// Whether nothing will change any more.
    #[must_use]
    pub const fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    pub(super) fn stored(self) -> State {
        match self {
            Self::Queued => State::Queued,
            Self::Running => State::Running,
            Self::Done => State::Done,
            Self::Failed => State::Failed,
            Self::Cancelled => State::Cancelled,
            Self::Interrupted => State::Interrupted,
        }
    }

    /// A job that is stored as unfinished and not known here was another process's.
    pub(super) fn from_stored(state: State) -> Self {
        match state {
            State::Done => Self::Done,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
            _ => Self::Interrupted,
        }
    }
}

/// A job, as its owner sees it.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Its id.
    pub id: ObjectId,
    /// Where it stands.
    pub state: JobState,
    /// What is kept of it.
    pub record: Arc<Record>,
    /// While it waits: how many jobs are before it, plus one.
    pub position: Option<usize>,
    /// When its image may be there, counted from the last change of the queue while it waits and
    /// from its last step while it runs; none before a step was measured.
    pub eta: Option<Duration>,
    /// While it runs: what it is busy with, which is `text`, `images`, `steps`, `decoding` or
    /// `saving`.
    pub stage: Option<&'static str>,
    /// While it runs: how far it is in that.
    pub progress: Option<Progress>,
}

impl JobView {
    pub(super) fn plain(state: JobState, record: Arc<Record>) -> Self {
        let id = record.job;
        Self { id, state, record, position: None, eta: None, stage: None, progress: None }
    }
}

/// How a job ended, with what is kept of it from then on.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) state: JobState,
    pub(super) record: Arc<Record>,
}

/// The newest preview of a job: the step that it is of, and its PNG.
pub(super) type Preview = Option<(usize, Arc<[u8]>)>;

/// A job of this process.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) owner: OwnerId,
    pub(super) job: JobId,
    pub(super) watcher: Watcher,
    /// As it was submitted.
    pub(super) record: Arc<Record>,
    /// The same with the moment at which the device began with it.
    pub(super) started: OnceLock<Arc<Record>>,
    pub(super) end: watch::Sender<Option<End>>,
    pub(super) preview: tokio::sync::Mutex<Preview>,
}

impl Live {
    pub(super) fn new(owner: OwnerId, watcher: Watcher, record: Record) -> Self {
        let (end, _) = watch::channel(None);
        let (job, record) = (watcher.id(), Arc::new(record));
        let (started, preview) = (OnceLock::new(), tokio::sync::Mutex::default());
        Self { owner, job, watcher, record, started, end, preview }
    }

    pub(super) fn view(&self) -> JobView {
        if let Some(end) = self.end.borrow().clone() {
            return JobView::plain(end.state, end.record);
        }
        let mut view = JobView::plain(
            JobState::Running,
            Arc::clone(self.started.get().unwrap_or(&self.record)),
        );
        match self.watcher.status() {
            Status::Queued { position, eta } => {
                view.state = JobState::Queued;
                (view.position, view.eta) = (Some(position), eta);
            }
            Status::Running { stage, progress, eta } => {
                (view.progress, view.eta) = (Some(progress), eta);
                view.stage = Some(match stage {
                    Stage::Text => "text",
                    Stage::Images => "images",
                    Stage::Steps => "steps",
                    Stage::Decoding => "decoding",
                });
            }
            _ => view.stage = Some("saving"),
        }
        view
    }
}

/// The result of an ephemeral job.
#[derive(Debug)]
struct Kept {
    owner: OwnerId,
    record: Arc<Record>,
    /// Until it was fetched.
    png: Option<SecretBytes>,
    until: Time,
}

/// What was found of an ephemeral result.
pub(super) enum Found {
    /// It was given out or waited too long, but its job is remembered.
    Taken,
    /// Here it is; nobody else gets it.
    Result(Arc<Record>, SecretBytes),
}

#[derive(Debug, Default)]
struct Inner {
    /// Jobs whose record is written and which are not in the queue yet.
    pending: BTreeMap<ObjectId, (OwnerId, Arc<Record>)>,
    jobs: BTreeMap<ObjectId, Arc<Live>>,
    ended: VecDeque<ObjectId>,
    kept: BTreeMap<ObjectId, Kept>,
    /// Idempotency keys of ephemeral jobs, of which nothing is stored.
    keys: HashMap<(OwnerId, String), (ObjectId, Time)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<Inner>);

impl Registry {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is a few insertions or removals that hold no promise to each other.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job that is about to be written and queued: from here on it can be asked for.
    pub(super) fn announce(&self, owner: OwnerId, record: Arc<Record>) {
        self.lock().pending.insert(record.job, (owner, record));
    }

    /// It did not get that far.
    pub(super) fn withdraw(&self, id: ObjectId) {
        self.lock().pending.remove(&id);
    }

    /// A job that is in the queue.
    pub(super) fn add(&self, live: Arc<Live>) {
        let mut inner = self.lock();
        inner.pending.remove(&live.record.job);
        inner.jobs.insert(live.record.job, live);
    }

    /// How a job stands that has not been forgotten.
    pub(super) fn view(&self, owner: OwnerId, id: ObjectId) -> Option<JobView> {
        let inner = self.lock();
        if let Some(live) = inner.jobs.get(&id).filter(|live| live.owner == owner) {
            return Some(live.view());
        }
        let (_, record) = inner.pending.get(&id).filter(|(of, _)| *of == owner)?;
        Some(JobView::plain(JobState::Queued, Arc::clone(record)))
    }

    /// One that was just ended; the oldest one that was is forgotten.
    pub(super) fn ended(&self, id: ObjectId) {
        let mut inner = self.lock();
        inner.ended.push_back(id);
        while inner.ended.len() > REMEMBERED {
            if let Some(old) = inner.ended.pop_front() {
                inner.jobs.remove(&old);
            }
        }
    }

    pub(super) fn get(&self, owner: OwnerId, id: ObjectId) -> Option<Arc<Live>> {
        self.lock().jobs.get(&id).filter(|live| live.owner == owner).cloned()
    }

    /// An owner's jobs that have not ended, in order of submission.
    pub(super) fn unfinished(&self, owner: OwnerId) -> Vec<Arc<Live>> {
        let inner = self.lock();
        let mine = inner.jobs.values().filter(|live| live.owner == owner);
        let mut jobs: Vec<_> = mine.filter(|live| live.end.borrow().is_none()).cloned().collect();
        jobs.sort_by_key(|live| live.job);
        jobs
    }

    pub(super) fn forget(&self, owner: OwnerId, id: ObjectId) {
        let mut inner = self.lock();
        if inner.jobs.get(&id).is_some_and(|live| live.owner == owner) {
            inner.jobs.remove(&id);
            inner.ended.retain(|ended| *ended != id);
        }
    }

    /// The job that an ephemeral request's key stands for, or `id` from now on.
    pub(super) fn claim(
        &self,
        owner: OwnerId,
        key: &str,
        id: ObjectId,
        (now, until): (Time, Time),
    ) -> Option<ObjectId> {
        let mut inner = self.lock();
        let key = (owner, key.to_owned());
        if let Some((job, _)) = inner.keys.get(&key).filter(|(_, until)| *until > now) {
            return Some(*job);
        }
        inner.keys.insert(key, (id, until));
        None
    }

    pub(super) fn keep(
        &self,
        owner: OwnerId,
        image: Image,
        record: Arc<Record>,
        png: SecretBytes,
        until: Time,
    ) {
        self.lock().kept.insert(image.id, Kept { owner, record, png: Some(png), until });
    }

    /// Takes an ephemeral result out.
    pub(super) fn take(&self, owner: OwnerId, image: ObjectId) -> Option<Found> {
        let mut inner = self.lock();
        let kept = inner.kept.get_mut(&image).filter(|kept| kept.owner == owner)?;
        let record = Arc::clone(&kept.record);
        Some(kept.png.take().map_or(Found::Taken, |png| Found::Result(record, png)))
    }

    /// What is known of an ephemeral result, and its bytes, which are 0 once it was taken.
    pub(super) fn kept(&self, owner: OwnerId, image: ObjectId) -> Option<(Arc<Record>, u64)> {
        let inner = self.lock();
        let kept = inner.kept.get(&image).filter(|kept| kept.owner == owner)?;
        let bytes = kept.png.as_ref().map_or(0, |png| png.len() as u64);
        Some((Arc::clone(&kept.record), bytes))
    }

    /// Forgets an ephemeral result and its job. False where there is none.
    pub(super) fn discard(&self, owner: OwnerId, image: ObjectId) -> bool {
        let Some((record, _)) = self.kept(owner, image) else { return false };
        self.lock().kept.remove(&image);
        self.forget(owner, record.job);
        true
    }

    /// Drops what has waited too long.
    pub(super) fn expire(&self, now: Time) {
        let mut inner = self.lock();
        inner.keys.retain(|_, (_, until)| *until > now);
        let late: Vec<_> = inner.kept.iter().filter(|(_, kept)| kept.until <= now).collect();
        let late: Vec<_> = late.into_iter().map(|(id, kept)| (*id, kept.record.job)).collect();
        for (image, job) in late {
            inner.kept.remove(&image);
            inner.jobs.remove(&job);
            inner.ended.retain(|ended| *ended != job);
        }
    }
}
