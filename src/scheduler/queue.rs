//! The jobs that wait, in order of arrival, and the places in front of them.
//!
//! The [`Queue`] is part of the desk. Its bound is kept by [`Places`], which the handle takes one of
//! before a job exists, so that a full queue is told at once. It decides nothing: `policy` says who
//! leaves.

use super::{
    meter::{Forecast, Work},
    policy::{JobId, Waiting},
    progress::{Event, Reporter, Status},
};
use crate::engine::Job;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The places of a queue.
#[derive(Clone, Debug)]
pub(super) struct Places {
    taken: Arc<AtomicUsize>,
    limit: usize,
}

impl Places {
    pub(super) fn new(limit: usize) -> Self {
        Self { taken: Arc::default(), limit }
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Takes one, or says how many were taken.
    pub(super) fn take(&self) -> Result<Place, usize> {
        let more = |taken: usize| (taken < self.limit).then_some(taken + 1);
        let position = self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)? + 1;
        Ok(Place { taken: Arc::clone(&self.taken), position })
    }
}

/// A place in the queue, given back when it is dropped. It can be held before the job is there, so
/// that a picture is not decoded for a queue that has no room.
#[derive(Debug)]
pub struct Place {
    taken: Arc<AtomicUsize>,
    position: usize,
}

impl Place {
    /// How many places were taken before it, plus one.
    #[must_use]
    pub fn position(&self) -> usize {
        self.position
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A waiting job: what it needs to run and who is told.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) waiting: Waiting,
    pub(super) job: Job,
    pub(super) reporter: Reporter,
    /// Held while it waits.
    pub(super) place: Place,
}

#[derive(Debug)]
struct Rest {
    job: Job,
    reporter: Reporter,
    place: Place,
    told: Option<usize>,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Vec<Waiting>,
    rest: BTreeMap<JobId, Rest>,
}

impl Queue {
    /// Puts a job in, in order of arrival: at the end, unless an engine gives it back.
    pub(super) fn push(&mut self, ticket: Ticket) {
        let Ticket { waiting, job, reporter, place } = ticket;
        self.rest.insert(waiting.id, Rest { job, reporter, place, told: None });
        let index = self.waiting.partition_point(|other| other.id < waiting.id);
        self.waiting.insert(index, waiting);
    }

    /// The jobs in order of arrival, as the policy sees them.
    pub(super) fn waiting(&self) -> &[Waiting] {
        &self.waiting
    }

    /// Takes a job out, wherever it is.
    pub(super) fn take(&mut self, id: JobId) -> Option<Ticket> {
        let Rest { job, reporter, place, told: _ } = self.rest.remove(&id)?;
        let index = self.waiting.iter().position(|waiting| waiting.id == id)?;
        Some(Ticket { waiting: self.waiting.remove(index), job, reporter, place })
    }

    /// Takes all jobs out.
    pub(super) fn clear(&mut self) -> Vec<Ticket> {
        let ids: Vec<JobId> = self.waiting.iter().map(|waiting| waiting.id).collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// Tells each job its position, unless that is what it was told last. `order` is that of
    /// leaving, `forecast` what the engines have before the first.
    pub(super) fn tell(&mut self, order: &[JobId], mut forecast: Forecast) {
        let work: BTreeMap<JobId, Work> =
            self.waiting.iter().map(|job| (job.id, Work::of(&job.cost))).collect();
        for (index, id) in order.iter().enumerate() {
            let eta = forecast.add(work.get(id).copied().unwrap_or_default());
            let Some(rest) = self.rest.get_mut(id) else { continue };
            let position = index + 1;
            if rest.told.replace(position) != Some(position) {
                let status = Status::Queued { position, eta };
                rest.reporter.tell(Event::Queued { position, eta }, status);
            }
        }
    }
}
