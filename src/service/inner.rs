//! What the parts of the service share: the store behind its blocking threads, jobs by id, previews,
//! and the timer's work.

use super::{
    JobView, ModelName, Options, Record, ServiceError,
    live::{End, JobState, Live, Registry},
    memory::InputMemory,
    submit,
};
use crate::{
    config::{Defaults, Styles},
    domain::{ObjectId, OwnerId},
    imaging::{self, OutputFormat},
    scheduler::Scheduler,
    store::{Change, Class, Store},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Operations of the store at once: each may hold a picture.
pub(super) const DISK: usize = 8;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) scheduler: Scheduler,
    pub(super) store: Arc<dyn Store>,
    pub(super) model: ModelName,
    pub(super) defaults: Defaults,
    pub(super) styles: Styles,
    pub(super) options: Options,
    pub(super) memory: InputMemory,
    pub(super) live: Registry,
    pub(super) disk: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    pub(super) refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// Runs `work` on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ServiceError> {
    // It fails where the work panicked, or the runtime stops.
    tokio::task::spawn_blocking(work).await.map_err(|_| ServiceError::Broken)
}

impl Inner {
    pub(super) async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, ServiceError> + Send + 'static,
    ) -> Result<T, ServiceError> {
        let permit = Arc::clone(&self.disk).acquire_owned().await;
        let store = Arc::clone(&self.store);
        blocking(move || {
            let done = work(&*store);
            drop(permit);
            done
        })
        .await?
    }

    pub(super) async fn job(&self, owner: OwnerId, id: ObjectId) -> Result<JobView, ServiceError> {
        if let Some(view) = self.live.view(owner, id) {
            return Ok(view);
        }
        let end = self.stored_end(owner, id).await?;
        Ok(JobView::plain(end.state, end.record))
    }

    pub(super) async fn stored_end(
        &self,
        owner: OwnerId,
        id: ObjectId,
    ) -> Result<End, ServiceError> {
        let found = self
            .disk(move |store| {
                let at = (owner, Class::Job, id);
                let Some(head) = store.head(at)? else { return Ok(None) };
                let Some(bytes) = store.record(at)? else { return Ok(None) };
                let record = Record::decode(&bytes).ok_or(ServiceError::Broken)?;
                let state = JobState::from_stored(head.state);
                Ok(Some(End { state, record: Arc::new(record) }))
            })
            .await?;
        found.ok_or(ServiceError::NotFound { what: "job" })
    }

    /// The preview of a job after `step` steps or later; one picture for all who ask.
    pub(super) async fn preview(&self, live: &Live, step: usize) -> Option<Arc<[u8]>> {
        let mut newest = live.preview.lock().await;
        if let Some((_, png)) = newest.as_ref().filter(|(of, _)| *of >= step) {
            return Some(Arc::clone(png));
        }
        let pixels = self.scheduler.preview(live.job).await.ok().flatten()?;
        let encode = move || imaging::encode(&pixels, OutputFormat::Png, None);
        let png: Arc<[u8]> = blocking(encode).await.ok()?.ok()?.into();
        *newest = Some((step, Arc::clone(&png)));
        Some(png)
    }

    /// Deletes what has expired.
    pub(super) async fn expire(&self) {
        self.live.expire(submit::now());
        let deleted = self
            .disk(|store| {
                let mut of_owner = BTreeMap::<OwnerId, Vec<_>>::new();
                for (owner, class, id) in store.expired(submit::now())? {
                    of_owner.entry(owner).or_default().push(Change::Delete(class, id));
                }
                for (owner, changes) in of_owner {
                    store.write(owner, &changes)?;
                }
                Ok(())
            })
            .await;
        if let Err(error) = deleted {
            tracing::error!(%error, "what has expired could not be deleted");
        }
    }
}
