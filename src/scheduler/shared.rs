//! What the handles and the workers all touch: the desk, counts, and the news of known jobs; and how
//! workers are called.

use super::{
    desk::{Desk, Drain, Drained},
    policy::{JobId, Limits},
    progress::{Outcome, Reporter, Watcher},
    queue::{Places, Ticket},
    stats::{EngineState, Stats},
    worker::Command,
};
use crate::domain::Pixels;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::AtomicU64,
        mpsc::{Receiver, Sender, channel},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// Whether jobs are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// They are: an engine is there.
    Ready,
    /// No more: the scheduler finishes what runs.
    Draining,
    /// Every engine failed and could not be built again.
    Red {
        /// What happened last.
        reason: String,
    },
}

/// The jobs whose news can be read: all that have not ended, and the last ones that have.
#[derive(Debug, Default)]
struct Known {
    jobs: BTreeMap<JobId, Watcher>,
    ended: VecDeque<JobId>,
}

/// Locks are taken in the order of the fields.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) places: Places,
    pub(super) next_id: AtomicU64,
    workers: Vec<Sender<Command>>,
    desk: Mutex<Desk>,
    stats: Mutex<Stats>,
    known: Mutex<Known>,
}

/// Nothing that may panic is done in the middle of a change: a panic leaves the value whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// For engines of these names; with what the worker of each hears.
    pub(super) fn new(limits: Limits, names: Vec<String>) -> (Self, Vec<Receiver<Command>>) {
        let (workers, receivers) = names.iter().map(|_| channel()).unzip();
        let shared = Self {
            limits,
            places: Places::new(limits.waiting),
            next_id: AtomicU64::new(1),
            workers,
            desk: Mutex::new(Desk::new(names)),
            stats: Mutex::default(),
            known: Mutex::default(),
        };
        (shared, receivers)
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        lock(&self.desk)
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, Stats> {
        lock(&self.stats)
    }

    pub(super) fn know(&self, watcher: Watcher) {
        lock(&self.known).jobs.insert(watcher.id(), watcher);
    }

    pub(super) fn watcher(&self, id: JobId) -> Option<Watcher> {
        lock(&self.known).jobs.get(&id).cloned()
    }

    /// Wakes every worker that sleeps, to look at the desk; the others look at it anyway.
    pub(super) fn wake(&self) {
        for worker in &self.workers {
            // One that has gone needs no waking.
            drop(worker.send(Command::Wake));
        }
    }

    /// Tells every worker to stop.
    pub(super) fn stop(&self) {
        for worker in &self.workers {
            drop(worker.send(Command::Stop));
        }
    }

    /// Cancels a job that waits, or tells the engine that has it. False where there is none.
    pub(super) fn cancel(&self, id: JobId) -> bool {
        let mut desk = self.desk();
        if let Some(ticket) = desk.queue.take(id) {
            desk.queue_changed = true;
            drop(desk);
            self.end_ticket(ticket, Outcome::Cancelled);
            self.wake();
            return true;
        }
        let worker = desk.holder(id).and_then(|number| self.workers.get(number));
        worker.is_some_and(|worker| worker.send(Command::Cancel(id)).is_ok())
    }

    /// Asks the engine that has a job how it would look. Without one the answer is none.
    pub(super) fn preview(&self, id: JobId, reply: oneshot::Sender<Option<Pixels>>) {
        let holder = self.desk().holder(id);
        // Where the worker is gone the channel closes, and whoever asked may have gone too.
        match holder.and_then(|number| self.workers.get(number)) {
            Some(worker) => drop(worker.send(Command::Preview(id, reply))),
            None => drop(reply.send(None)),
        }
    }

    /// Takes no more jobs, interrupts those that wait, and tells `reply` when the others have ended or
    /// it is `until`. Where no worker is left nothing is told.
    pub(super) fn drain(&self, until: Duration, reply: oneshot::Sender<Drained>) {
        let mut desk = self.desk();
        desk.closed = true;
        if !desk.manned() {
            return;
        }
        let drain = desk.drain.get_or_insert_with(|| Drain {
            until,
            done: Drained::default(),
            waiters: Vec::new(),
        });
        drain.until = drain.until.min(until);
        drain.waiters.push(reply);
        let tickets = desk.queue.clear();
        // Counted here, because the last worker may answer before all of them are told.
        if let Some(drain) = &mut desk.drain {
            drain.done.interrupted += tickets.len();
        }
        drop(desk);
        for ticket in tickets {
            self.end_ticket(ticket, Outcome::Interrupted);
        }
        self.wake();
    }

    /// A worker goes, with a reason where it was not told to. The last one interrupts what waits and
    /// answers a drain.
    pub(super) fn left(&self, number: usize, reason: Option<String>) {
        let mut desk = self.desk();
        let Some(seat) = desk.seats.get_mut(number) else { return };
        if !std::mem::replace(&mut seat.manned, false) {
            return;
        }
        seat.running.clear();
        match reason {
            Some(reason) => seat.state = EngineState::Down { reason },
            None if matches!(seat.state, EngineState::Down { .. }) => {}
            None => seat.state = EngineState::Stopped,
        }
        let tickets = if desk.serves() {
            Vec::new()
        } else {
            desk.closed = true;
            desk.queue.clear()
        };
        let last = !desk.manned();
        drop(desk);
        for ticket in tickets {
            self.end_ticket(ticket, Outcome::Interrupted);
        }
        if !last {
            return self.wake();
        }
        let drain = self.desk().drain.take();
        let Some(Drain { done, waiters, until: _ }) = drain else { return };
        for waiter in waiters {
            // Whoever asked may have gone.
            let _ = waiter.send(done);
        }
    }

    /// Ends a job that was taken out of the queue.
    pub(super) fn end_ticket(&self, ticket: Ticket, outcome: Outcome) {
        let Ticket { waiting, reporter, place, job: _ } = ticket;
        drop(place);
        self.tell_end(waiting.id, reporter, outcome);
    }

    /// Ends a job that an engine had.
    pub(super) fn end(&self, id: JobId, reporter: Reporter, outcome: Outcome) {
        self.desk().forget(id, &outcome);
        self.tell_end(id, reporter, outcome);
    }

    /// Tells a job's end, counts it, and forgets the oldest of those that ended.
    fn tell_end(&self, id: JobId, reporter: Reporter, outcome: Outcome) {
        let how = reporter.end(outcome);
        *self.stats().ended.entry(how).or_default() += 1;
        let mut known = lock(&self.known);
        known.ended.push_back(id);
        while known.ended.len() > self.limits.remembered {
            if let Some(old) = known.ended.pop_front() {
                known.jobs.remove(&old);
            }
        }
    }
}
