//! From a draft and its pictures to a job in the queue, and from there to an image in the store.
//!
//! What can be refused is refused in the order of what it costs: the queue's place first, before a
//! body is read; then parameters, files' headers and the predicted cost; then memory; and only then
//! is a picture decoded. What was acknowledged is in the store before: a server that dies says
//! `interrupted` of it afterwards.

use super::{
    Draft, JobView, Record, ServiceError, Terms, Upload,
    inner::{Inner, blocking},
    live::{End, JobState, Live},
    memory::{Hold, Received},
    record::{Failure, Image, Input},
};
use crate::{
    domain::{EditParams, ObjectId, OwnerId, ParamError, Pixels, SecretBytes, Size},
    imaging::{self, ImagingError, OutputFormat, Probe},
    scheduler::{Event, Fault, Job, JobHandle, JobShape, Outcome, Place, Request, User, Watcher},
    store::{Change, Claim, Entry, StoreError, Time, random_id},
};
use std::{sync::Arc, time::SystemTime};

/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 255;

/// A place in the queue, taken before the body of a request is read.
#[derive(Debug)]
pub struct Room(pub(super) Place);

/// A job that was taken, or the one that an earlier request with the same key made.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The job.
    pub job: JobView,
    /// Whether it was there before.
    pub replayed: bool,
}

/// A job whose record is written: what is left cannot be refused any more.
struct Accepted {
    owner: OwnerId,
    record: Record,
    room: Room,
    job: Job,
    holds: Vec<Hold>,
}

/// A file that has come, and what it says of itself.
type Picture = (Received, Probe);

fn picture(index: usize, source: ImagingError) -> ServiceError {
    ServiceError::Picture { number: index + 1, source }
}

pub(super) fn now() -> Time {
    Time::from(SystemTime::now())
}

impl Inner {
    /// Everything up to the queue. Runs to its end even if nobody waits for it any more.
    pub(super) async fn submit(
        self: Arc<Self>,
        owner: OwnerId,
        room: Room,
        (draft, model, terms): (Draft, Option<String>, Terms),
        uploads: Vec<Upload>,
    ) -> Result<Submitted, ServiceError> {
        if let Some(name) = model.filter(|name| *name != self.model.name) {
            let running = self.model.name.clone();
            return Err(ServiceError::UnknownModel { name, running });
        }
        check_key(&terms)?;
        let params = draft.resolve(self.defaults, Some(&self.styles))?;
        let limit = self.options.images;
        if uploads.len() > limit {
            return Err(ServiceError::TooManyPictures { count: uploads.len(), limit });
        }
        let pictures = self.receive(uploads).await?;
        let sizes: Vec<Size> = pictures.iter().map(|(_, probe)| probe.size).collect();
        let inputs = pictures.iter().map(|(file, probe)| Input::new(*probe, file.len())).collect();
        // With adapters it reads the headers of files that are new.
        let (scheduler, asked, images) = (self.scheduler.clone(), params.clone(), sizes.clone());
        let weigh = move || scheduler.weigh(&JobShape { params: &asked, images: &images });
        blocking(weigh).await??;
        let id = random_id()?;
        let record = Record::new(id, &draft, &params, &terms, &self.model, inputs, now());
        if let Some(known) = self.known(owner, &record, &terms).await? {
            return Ok(known);
        }
        let (images, mut holds) = self.decode(pictures).await?;
        let job = Job { params, images };
        if terms.ephemeral {
            holds.push(self.memory.take(result_bytes(&job.params, &sizes))?);
        }
        // Another request with the same key may find this one from here on.
        self.live.announce(owner, Arc::new(record.clone()));
        let submitted = match self.write_submission(owner, &record, &terms).await {
            Ok(Some(known)) => Ok(known),
            Ok(None) => {
                let accepted = Accepted { owner, record, room, job, holds };
                let job = Arc::clone(&self).enqueue(accepted).await;
                job.map(|job| Submitted { job, replayed: false })
            }
            Err(error) => Err(error),
        };
        self.live.withdraw(id);
        submitted
    }

    /// Puts uploads together, and reads what their files say of themselves.
    async fn receive(&self, uploads: Vec<Upload>) -> Result<Vec<Picture>, ServiceError> {
        let limits = self.options.decode;
        let read = move |(index, upload): (usize, Upload)| {
            let file = upload.join();
            let probe = imaging::probe(&file, &limits).map_err(|source| picture(index, source))?;
            Ok((file, probe))
        };
        blocking(move || uploads.into_iter().enumerate().map(read).collect()).await?
    }

    /// The job of an earlier request with the same key.
    async fn known(
        &self,
        owner: OwnerId,
        record: &Record,
        terms: &Terms,
    ) -> Result<Option<Submitted>, ServiceError> {
        let Some(key) = terms.idempotency_key.clone().filter(|_| !terms.ephemeral) else {
            return Ok(None);
        };
        let job = self.disk(move |store| Ok(store.find_key(owner, &key, now())?)).await?;
        match job {
            Some(job) => self.replay(owner, job, record).await.map(Some),
            None => Ok(None),
        }
    }

    async fn replay(
        &self,
        owner: OwnerId,
        job: ObjectId,
        record: &Record,
    ) -> Result<Submitted, ServiceError> {
        let job = self.job(owner, job).await.map_err(|error| match error {
            ServiceError::NotFound { .. } => ServiceError::Deleted,
            error => error,
        })?;
        if job.record.is_same_request(record) {
            Ok(Submitted { job, replayed: true })
        } else {
            Err(ServiceError::KeyReused)
        }
    }

    /// Decodes pictures one after another, and drops each file behind it.
    async fn decode(
        &self,
        pictures: Vec<Picture>,
    ) -> Result<(Vec<Pixels>, Vec<Hold>), ServiceError> {
        let (mut decoded, mut holds) = (Vec::new(), Vec::new());
        for (index, (file, probe)) in pictures.into_iter().enumerate() {
            let pixels = u64::from(probe.size.width) * u64::from(probe.size.height);
            holds.push(self.memory.take(3 * pixels)?);
            let scratch = self.memory.scratch(pixels).await;
            let limits = self.options.decode;
            let work = move || {
                let decoded = imaging::decode(&file, &limits);
                drop(scratch);
                decoded.map_err(|source| picture(index, source))
            };
            decoded.push(blocking(work).await??);
        }
        Ok((decoded, holds))
    }

    /// Makes the submission durable; an earlier one with the same key wins.
    async fn write_submission(
        &self,
        owner: OwnerId,
        record: &Record,
        terms: &Terms,
    ) -> Result<Option<Submitted>, ServiceError> {
        let (id, created) = (record.job, record.created);
        let expires = self.expiry(created);
        let key = terms.idempotency_key.clone();
        let taken = if terms.ephemeral {
            key.and_then(|key| self.live.claim(owner, &key, id, (created, expires)))
        } else {
            let bytes = record.encode();
            let write = self.disk(move |store| {
                let state = JobState::Queued.stored();
                let job = Entry::job(id, state, created, &bytes).expiring(expires);
                let mut changes = vec![Change::Add(job)];
                if let Some(text) = &key {
                    changes.push(Change::Claim(Claim { text, job: id, created, expires }));
                }
                match store.write(owner, &changes) {
                    Ok(_) => Ok(None),
                    Err(StoreError::KeyTaken { job }) => Ok(Some(job)),
                    Err(error) => Err(error.into()),
                }
            });
            write.await?
        };
        match taken {
            Some(job) => self.replay(owner, job, record).await.map(Some),
            None => Ok(None),
        }
    }

    async fn enqueue(self: Arc<Self>, accepted: Accepted) -> Result<JobView, ServiceError> {
        let Accepted { owner, record, room, job, holds } = accepted;
        let user = User::new(&owner.to_string());
        let request = Request { user, priority: record.priority, job, cancel_on_disconnect: false };
        let handle = match self.scheduler.submit_at(room.0, request) {
            Ok(handle) => handle,
            Err(error) => {
                // It was weighed before, so this is a server that stops or an engine that went down
                // meanwhile. Nothing was acknowledged, so nothing is left.
                let id = record.job;
                if !record.ephemeral {
                    self.disk(move |store| {
                        let class = crate::store::Class::Job;
                        Ok(store.write(owner, &[Change::Delete(class, id)])?)
                    })
                    .await?;
                }
                return Err(error.into());
            }
        };
        let live = Arc::new(Live::new(owner, handle.watcher().clone(), record));
        self.live.add(Arc::clone(&live));
        let view = live.view();
        let finish = Arc::clone(&self).finish(live, handle, holds);
        self.tasks.spawn(finish);
        Ok(view)
    }

    /// Waits for a job's end, stores its image, and tells of it.
    async fn finish(self: Arc<Self>, live: Arc<Live>, handle: JobHandle, holds: Vec<Hold>) {
        let mut record = (*live.record).clone();
        record.started = started(handle.watcher().clone()).await;
        // Set once, here.
        let _ = live.started.set(Arc::new(record.clone()));
        let outcome = handle.outcome().await;
        record.finished = Some(now());
        let end = match outcome {
            Outcome::Done(pixels) => self.save(live.owner, record, pixels).await,
            Outcome::Failed(fault) => {
                End { state: JobState::Failed, record: failed(record, &fault) }
            }
            Outcome::Cancelled => End { state: JobState::Cancelled, record: record.into() },
            Outcome::Interrupted => End { state: JobState::Interrupted, record: record.into() },
        };
        // Its inputs went with the engine's slot; from here on others may have their room.
        drop(holds);
        if !live.record.ephemeral && end.state != JobState::Done {
            self.write_end(live.owner, &end).await;
        }
        tracing::debug!(job = %live.record.job, state = end.state.name(), "job ended");
        live.end.send_replace(Some(end));
        self.live.ended(live.record.job);
    }

    /// Encodes a result and keeps it, in one write with its job's end.
    async fn save(&self, owner: OwnerId, mut record: Record, pixels: Pixels) -> End {
        match self.try_save(owner, &mut record, pixels).await {
            Ok(()) => End { state: JobState::Done, record: record.into() },
            Err(error) => {
                tracing::error!(job = %record.job, %error, "a result could not be stored");
                record.image = None;
                let (code, message) = (error.code().to_owned(), error.to_string());
                record.error = Some(Failure { code, message });
                End { state: JobState::Failed, record: record.into() }
            }
        }
    }

    async fn try_save(
        &self,
        owner: OwnerId,
        record: &mut Record,
        pixels: Pixels,
    ) -> Result<(), ServiceError> {
        let (width, height) = (pixels.width(), pixels.height());
        let image = Image { id: random_id()?, width, height };
        record.image = Some(image);
        let encode = move || imaging::encode(&pixels, OutputFormat::Png, None);
        let png = blocking(encode).await?.map_err(ServiceError::Rendition)?;
        let png = SecretBytes::from(png);
        if record.ephemeral {
            let until = Time::from(SystemTime::now() + self.options.ephemeral);
            self.live.keep(owner, image, Arc::new(record.clone()), png, until);
            return Ok(());
        }
        let (id, created, finished) = (record.job, record.created, record.finished);
        let expires = self.expiry(created);
        let bytes = record.encode();
        self.disk(move |store| {
            let made = finished.unwrap_or(created);
            let picture = Entry::picture(image.id, made, &bytes, &png);
            let state = JobState::Done.stored();
            let job = Entry::job(id, state, created, &bytes).expiring(expires);
            store.write(owner, &[Change::Add(picture), Change::Set(job)])?;
            Ok(())
        })
        .await
    }

    async fn write_end(&self, owner: OwnerId, end: &End) {
        let (record, state) = (Arc::clone(&end.record), end.state.stored());
        let expires = self.expiry(record.created);
        let written = self
            .disk(move |store| {
                let bytes = record.encode();
                let job = Entry::job(record.job, state, record.created, &bytes).expiring(expires);
                store.write(owner, &[Change::Set(job)])?;
                Ok(())
            })
            .await;
        if let Err(error) = written {
            // It is told all the same; after a restart it reads as interrupted.
            tracing::error!(job = %end.record.job, %error, "the end of a job could not be stored");
        }
    }

    pub(super) fn expiry(&self, created: Time) -> Time {
        let keep = u64::try_from(self.options.keep.as_millis()).unwrap_or(u64::MAX);
        Time::from_millis(created.millis().saturating_add(keep))
    }
}

/// Waits until a job is begun with, or has ended without.
async fn started(mut watcher: Watcher) -> Option<Time> {
    let mut after = 0;
    loop {
        let events = watcher.next(after).await;
        after = events.last()?.0;
        for (_, event) in events {
            match event {
                Event::Started => return Some(now()),
                Event::Failed(_) | Event::Cancelled | Event::Interrupted => return None,
                _ => {}
            }
        }
    }
}

fn failed(mut record: Record, fault: &Fault) -> Arc<Record> {
    let (code, message) = (fault.code().to_owned(), fault.to_string());
    record.error = Some(Failure { code, message });
    record.into()
}

fn check_key(terms: &Terms) -> Result<(), ServiceError> {
    let Some(key) = &terms.idempotency_key else { return Ok(()) };
    if key.is_empty() || key.len() > MAX_KEY {
        let (is, allowed) = (format!("{} bytes long", key.len()), format!("1 to {MAX_KEY} bytes"));
        return Err(ParamError::new("idempotency-key", is, allowed).into());
    }
    Ok(())
}

/// What an ephemeral result takes until it is fetched, at most: a PNG is hardly larger than its
/// pixels, and a result without a size of its own is about as large as a megapixel.
fn result_bytes(params: &EditParams, inputs: &[Size]) -> u64 {
    let size = params.size.or_else(|| inputs.first().copied().filter(|_| params.exact_size));
    let pixels = size.map_or(1 << 20, |size| u64::from(size.width) * u64::from(size.height));
    3 * pixels + (64 << 10)
}
