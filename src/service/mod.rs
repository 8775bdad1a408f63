//! What people do with Darkroom, whatever wire they come by: submit an edit, watch it, cancel it,
//! list, fetch and delete images.
//!
//! `http` calls it with the owner that a request belongs to; nothing here knows a status, a header
//! or a form. It holds the scheduler and the store, and is the only one that does: every method
//! looks only at what is the owner's, and what belongs to someone else is not there.
//!
//! Blocking work, which is the store's and the codecs', runs on tokio's blocking threads; the
//! methods are asynchronous and may be dropped at any time. A submission that was begun is finished
//! even so, because its record must never say that a job waits which does not.
//!
//! **Invariant:** an input is in [`Upload`]s, then in [`Pixels`](crate::domain::Pixels), and nowhere
//! else; both zero themselves, and the store is never given one.

mod draft;
mod error;
mod images;
mod inner;
mod live;
mod memory;
mod metrics;
mod news;
mod record;
mod submit;

pub use crate::{
    config::{Defaults, Style, Styles},
    imaging::{Limits as DecodeLimits, OutputFormat},
    scheduler::{
        EngineState, EngineStats, Health, Histogram, Priority, Progress, Stats, StopReason,
    },
    store::Time,
};
pub use draft::{Draft, DraftError};
pub use error::ServiceError;
pub use images::{Content, ImagePage, ImageQuery, ImageView, Rendition};
pub use live::{JobState, JobView};
pub use memory::{Received, Upload};
pub use news::{JobEvent, Listen, News, Update};
pub use record::{Failure, Image, Input, LoraUse, ModelName, Record, Terms};
pub use submit::{Room, Submitted};

use crate::{
    domain::{ObjectId, OwnerId},
    imaging,
    scheduler::Scheduler,
    store::{Store, StoreError, Usage},
};
use inner::Inner;
use live::Registry;
use memory::InputMemory;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// How often what has expired is deleted.
const TIMER: Duration = Duration::from_secs(30);

/// What the service is made of.
#[derive(Debug)]
pub struct Parts {
    /// Who runs jobs.
    pub scheduler: Scheduler,
    /// Where images are kept.
    pub store: Arc<dyn Store>,
    /// The model that runs.
    pub model: ModelName,
    /// What it uses where a request says nothing.
    pub defaults: Defaults,
    /// The style presets.
    pub styles: Styles,
    /// Limits and times.
    pub options: Options,
}

/// Limits and times.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long an ended job, and an idempotency key, can be asked for.
    pub keep: Duration,
    /// How long the result of an ephemeral job waits to be fetched.
    pub ephemeral: Duration,
    /// Bytes that all inputs together may take.
    pub input_memory: u64,
    /// What one input may be.
    pub decode: imaging::Limits,
    /// Reference pictures of one job.
    pub images: usize,
}

/// How the queue stands, and an owner's jobs in it.
#[derive(Clone, Debug)]
pub struct QueueView {
    /// Jobs that wait, of all owners.
    pub waiting: usize,
    /// Jobs that the devices have, of all owners.
    pub running: usize,
    /// When all of them would be done; none before a step was measured.
    pub backlog: Option<Duration>,
    /// Whether jobs are taken.
    pub health: Health,
    /// The owner's own unfinished jobs, in order of submission.
    pub jobs: Vec<JobView>,
}

/// What is counted, for metrics.
#[derive(Clone, Debug)]
pub struct Counts {
    /// The scheduler's.
    pub scheduler: Stats,
    /// What is stored, of all owners.
    pub stored: Usage,
    /// Bytes that inputs take now.
    pub input_bytes: u64,
    /// Refused requests, by code.
    pub refused: BTreeMap<&'static str, u64>,
}

/// The service. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Service(Arc<Inner>);

impl Service {
    /// Starts the service in the running tokio runtime: marks what an earlier process left
    /// unfinished as interrupted, and deletes from now on what expires.
    ///
    /// # Errors
    /// The store fails.
    pub fn start(parts: Parts) -> Result<Self, StoreError> {
        let Parts { scheduler, store, model, defaults, styles, options } = parts;
        let interrupted = store.interrupt_unfinished()?;
        if interrupted > 0 {
            tracing::info!(jobs = interrupted, "jobs of the last run are marked as interrupted");
        }
        let inner = Arc::new(Inner {
            memory: InputMemory::new(options.input_memory, options.decode.max_pixels),
            scheduler,
            store,
            model,
            defaults,
            styles,
            options,
            live: Registry::default(),
            disk: Arc::new(Semaphore::new(inner::DISK)),
            tasks: TaskTracker::new(),
            refused: Mutex::default(),
        });
        let weak = Arc::downgrade(&inner);
        // Ends with the service: it holds nothing of it while it sleeps.
        tokio::spawn(async move {
            let mut timer = tokio::time::interval(TIMER);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                timer.tick().await;
                let Some(inner) = weak.upgrade() else { return };
                inner.expire().await;
            }
        });
        Ok(Self(inner))
    }

    /// The model that runs.
    #[must_use]
    pub fn model(&self) -> &ModelName {
        &self.0.model
    }

    /// What the model uses where a request says nothing.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        self.0.defaults
    }

    /// The style presets.
    #[must_use]
    pub fn styles(&self) -> &Styles {
        &self.0.styles
    }

    /// Limits and times.
    #[must_use]
    pub fn options(&self) -> Options {
        self.0.options
    }

    /// Takes a place in the queue, before the body of a request is read.
    ///
    /// # Errors
    /// The queue is full, or no jobs are taken.
    pub fn room(&self) -> Result<Room, ServiceError> {
        use crate::scheduler::SubmitError;
        match self.0.scheduler.health() {
            Health::Ready => {}
            Health::Draining => return Err(SubmitError::Draining.into()),
            Health::Red { reason } => return Err(SubmitError::EngineDown { reason }.into()),
        }
        Ok(Room(self.0.scheduler.reserve()?))
    }

    /// Room for bytes that are received from now on.
    #[must_use]
    pub fn upload(&self) -> Upload {
        Upload::new(self.0.memory.clone())
    }

    /// Submits an edit: `draft` is what to do, `model` the name of the one that must run, `terms`
    /// how, `pictures` the files of its references.
    ///
    /// # Errors
    /// [`ServiceError`]; then nothing of it is left.
    pub async fn submit(
        &self,
        owner: OwnerId,
        room: Room,
        draft: Draft,
        model: Option<String>,
        terms: Terms,
        pictures: Vec<Upload>,
    ) -> Result<Submitted, ServiceError> {
        let inner = Arc::clone(&self.0);
        let work = inner.submit(owner, room, (draft, model, terms), pictures);
        // In a task of its own: a client that hangs up must not cut it in the middle.
        self.0.tasks.spawn(work).await.map_err(|_| ServiceError::Broken)?
    }

    /// A job.
    ///
    /// # Errors
    /// There is none with this id, or the store fails.
    pub async fn job(&self, owner: OwnerId, id: ObjectId) -> Result<JobView, ServiceError> {
        self.0.job(owner, id).await
    }

    /// News of a job.
    ///
    /// # Errors
    /// As [`Service::job`].
    pub async fn listen(
        &self,
        owner: OwnerId,
        id: ObjectId,
        listen: Listen,
    ) -> Result<News, ServiceError> {
        let inner = Arc::clone(&self.0);
        if let Some(live) = inner.live.get(owner, id) {
            return Ok(News::of(inner, live, listen));
        }
        let end = inner.stored_end(owner, id).await?;
        Ok(News::ended(inner, &end, listen))
    }

    /// Cancels a job, and gives how it stands then. One that runs takes no further step; one that
    /// has ended stays as it is.
    ///
    /// # Errors
    /// As [`Service::job`].
    pub async fn cancel(&self, owner: OwnerId, id: ObjectId) -> Result<JobView, ServiceError> {
        if let Some(live) = self.0.live.get(owner, id)
            && self.0.scheduler.cancel(live.job)
        {
            let mut end = live.end.subscribe();
            // The step that is under way is finished first. It cannot fail: `live` has the sender.
            let _ = end.wait_for(Option::is_some).await;
        }
        self.0.job(owner, id).await
    }

    /// Images that are kept, newest first.
    ///
    /// # Errors
    /// A value of the query is out of range, or the store fails.
    pub async fn images(
        &self,
        owner: OwnerId,
        query: ImageQuery,
    ) -> Result<ImagePage, ServiceError> {
        self.0.images(owner, query).await
    }

    /// What is known of an image.
    ///
    /// # Errors
    /// There is none with this id, or the store fails.
    pub async fn image(&self, owner: OwnerId, id: ObjectId) -> Result<ImageView, ServiceError> {
        self.0.image(owner, id).await
    }

    /// An image as a file. That of an ephemeral job is given once.
    ///
    /// # Errors
    /// As [`Service::image`]; or a value of `rendition` is out of range; or the file was lost.
    pub async fn content(
        &self,
        owner: OwnerId,
        id: ObjectId,
        rendition: Rendition,
    ) -> Result<Content, ServiceError> {
        self.0.content(owner, id, rendition).await
    }

    /// Deletes images, with the records of their jobs. Gives those that were there.
    ///
    /// # Errors
    /// There are more than 1000 ids, or the store fails: then nothing is deleted.
    pub async fn delete_images(
        &self,
        owner: OwnerId,
        ids: Vec<ObjectId>,
    ) -> Result<Vec<ObjectId>, ServiceError> {
        self.0.delete_images(owner, ids).await
    }

    /// How the queue stands.
    #[must_use]
    pub fn queue(&self, owner: OwnerId) -> QueueView {
        let stats = self.0.scheduler.stats();
        QueueView {
            waiting: stats.waiting,
            running: stats.running,
            backlog: stats.backlog,
            health: self.0.scheduler.health(),
            jobs: self.0.live.unfinished(owner).iter().map(|live| live.view()).collect(),
        }
    }

    /// Whether jobs are taken.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.scheduler.health()
    }

    /// How it stands with each device.
    #[must_use]
    pub fn engines(&self) -> Vec<EngineStats> {
        self.0.scheduler.stats().engines
    }

    /// Counts a request that was refused, by the code of its answer.
    pub fn count_refusal(&self, code: &'static str) {
        let mut refused = self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(code).or_default() += 1;
    }

    /// What is counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            scheduler: self.0.scheduler.stats(),
            stored: self.0.store.total(),
            input_bytes: self.0.memory.used(),
            refused: self.0.refused.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// What is counted, in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        metrics::write(&self.counts(), &self.0.model)
    }

    /// Takes no more jobs, lets those that run end within a time, interrupts the rest, and waits
    /// until all that is to be stored is.
    pub async fn drain(&self, within: Duration) {
        // An error says that the engine's thread is gone, and its jobs are interrupted.
        drop(self.0.scheduler.drain(within).await);
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}
