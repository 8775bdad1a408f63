//! What the handles and the worker both touch: health, counts, and the news of known jobs.

use super::{
    policy::{JobId, Limits},
    progress::Watcher,
    queue::Places,
    stats::Stats,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
};

/// Whether jobs are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// They are.
    Ready,
    /// No more: the scheduler finishes what runs.
    Draining,
    /// The engine failed and could not be built again.
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

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) places: Places,
    pub(super) next_id: AtomicU64,
    pub(super) draining: AtomicBool,
    red: Mutex<Option<String>>,
    stats: Mutex<Stats>,
    known: Mutex<Known>,
}

/// Every critical section here is one assignment or one insertion: a panic leaves the value whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            places: Places::new(limits.waiting),
            next_id: AtomicU64::new(1),
            draining: AtomicBool::new(false),
            red: Mutex::default(),
            stats: Mutex::default(),
            known: Mutex::default(),
        }
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, Stats> {
        lock(&self.stats)
    }

    pub(super) fn red(&self) -> Option<String> {
        lock(&self.red).clone()
    }

    pub(super) fn turn_red(&self, reason: String) {
        *lock(&self.red) = Some(reason);
    }

    pub(super) fn know(&self, watcher: Watcher) {
        lock(&self.known).jobs.insert(watcher.id(), watcher);
    }

    pub(super) fn watcher(&self, id: JobId) -> Option<Watcher> {
        lock(&self.known).jobs.get(&id).cloned()
    }

    /// Counts the end of a job, and forgets the oldest of those that ended.
    pub(super) fn ended(&self, id: JobId, how: &'static str) {
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
