//! News of one job, for one listener: what happened, what happens, and how it ends.

use super::{
    inner::Inner,
    live::{End, JobState, Live},
    record::{Failure, Image},
};
use crate::scheduler::Event;
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Something that happened to a job.
#[derive(Clone, Debug)]
pub enum JobEvent {
    /// It waits.
    Queued {
        /// How many jobs are before it, plus one.
        position: usize,
        /// When its image may be there; none before a step was measured.
        eta: Option<Duration>,
    },
    /// The device has it.
    Started,
    /// The device failed under other jobs; this one begins anew.
    Restarted,
    /// A denoising step is done.
    Step {
        /// Steps done.
        step: usize,
        /// Steps in all.
        steps: usize,
        /// How long it took, for all jobs in it.
        seconds: f64,
    },
    /// How it would look if the rest went as straight as the last step.
    Preview {
        /// Steps done.
        step: usize,
        /// A PNG of at most 256 pixels a side.
        png: Arc<[u8]>,
    },
    /// Its image is stored, or kept in memory if it is ephemeral.
    Done(Image),
    /// It failed.
    Failed(Failure),
    /// It was cancelled.
    Cancelled,
    /// The server ended before it did.
    Interrupted,
}

/// An event, and its number where it can be asked for again: numbers grow, with gaps.
pub type Update = (Option<u64>, JobEvent);

/// How to listen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Listen {
    /// Only events after this number.
    pub after: u64,
    /// With a preview after each step, if the model has colours for its latents.
    pub previews: bool,
    /// The job is cancelled if the listener goes before it ended.
    pub cancel_on_disconnect: bool,
}

/// News of a job, until it ended.
#[derive(Debug)]
pub struct News {
    service: Arc<Inner>,
    live: Option<Arc<Live>>,
    listen: Listen,
    pending: VecDeque<Update>,
    over: bool,
}

impl News {
    pub(super) fn of(service: Arc<Inner>, live: Arc<Live>, listen: Listen) -> Self {
        Self { service, live: Some(live), listen, pending: VecDeque::new(), over: false }
    }

    /// The end of a job that only the store knows.
    pub(super) fn ended(service: Arc<Inner>, end: &End, listen: Listen) -> Self {
        let pending = VecDeque::from([(None, last(end))]);
        Self { service, live: None, listen, pending, over: true }
    }

    /// Whether there is nothing more to tell, so that a listener need not come back.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let over = self.live.as_ref().is_none_or(|live| {
            live.end.borrow().is_some() && live.watcher.events(self.listen.after).is_empty()
        });
        over && self.pending.is_empty()
    }

    /// Waits for the next event; none after the last one.
    pub async fn next(&mut self) -> Option<Update> {
        loop {
            if let Some(update) = self.pending.pop_front() {
                return Some(update);
            }
            if self.over {
                return None;
            }
            self.wait().await;
        }
    }

    async fn wait(&mut self) {
        let Some(live) = self.live.clone() else {
            self.over = true;
            return;
        };
        let events = live.watcher.clone().next(self.listen.after).await;
        let Some((newest, _)) = events.last() else {
            // Everything was told before, to another listener.
            self.over = true;
            return;
        };
        self.listen.after = *newest;
        let mut stepped = None;
        for (number, event) in events {
            let told = match event {
                Event::Queued { position, eta } => JobEvent::Queued { position, eta },
                Event::Started => JobEvent::Started,
                Event::Restarted => JobEvent::Restarted,
                Event::Step { progress, seconds } => {
                    let (step, steps) = (progress.done, progress.total);
                    stepped = (step < steps).then_some(step);
                    JobEvent::Step { step, steps, seconds }
                }
                // The scheduler is done with it; the job has ended when its result is stored.
                Event::Done | Event::Failed(_) | Event::Cancelled | Event::Interrupted => {
                    let mut end = live.end.subscribe();
                    let end = end.wait_for(Option::is_some).await.map(|end| end.clone());
                    self.over = true;
                    stepped = None;
                    end.ok().flatten().map_or(JobEvent::Interrupted, |end| last(&end))
                }
            };
            self.pending.push_back((Some(number), told));
        }
        if let Some(step) = stepped.filter(|_| self.listen.previews)
            && let Some(png) = self.service.preview(&live, step).await
        {
            self.pending.push_back((None, JobEvent::Preview { step, png }));
        }
    }
}

fn last(end: &End) -> JobEvent {
    match (end.state, end.record.image, &end.record.error) {
        (JobState::Done, Some(image), _) => JobEvent::Done(image),
        (JobState::Failed, _, Some(failure)) => JobEvent::Failed(failure.clone()),
        (JobState::Cancelled, ..) => JobEvent::Cancelled,
        _ => JobEvent::Interrupted,
    }
}

impl Drop for News {
    fn drop(&mut self) {
        if self.listen.cancel_on_disconnect
            && !self.over
            && let Some(live) = &self.live
        {
            // False where it has just ended.
            let _ = self.service.scheduler.cancel(live.job);
        }
    }
}
