//! How full an engine is: whether another job has room in it, and whether one may begin what needs
//! its peak of memory.

use super::{Active, Activity, JobId, Limits, StopReason};
use crate::engine::Cost;

/// How full an engine is.
#[derive(Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) jobs: usize,
    tokens: usize,
    /// Bytes that jobs hold, apart from their peaks.
    memory: u64,
    /// The largest peak of a job.
    peak: u64,
    /// The peaks of all that are in the middle of one.
    begun: u64,
    /// Work left.
    pub(super) work: u64,
}

impl Load {
    pub(super) fn of(running: &[Active]) -> Self {
        running.iter().fold(Self::default(), |load, active| {
            let begun = if active.has_begun() { active.job.cost.peak } else { 0 };
            let load = load.with(&active.job.cost, active.left);
            Self { begun: load.begun.saturating_add(begun), ..load }
        })
    }

    /// With another job, of which so much work is left.
    pub(super) fn with(self, cost: &Cost, left: u64) -> Self {
        Self {
            jobs: self.jobs + 1,
            tokens: self.tokens.saturating_add(cost.tokens),
            memory: self.memory.saturating_add(cost.memory),
            peak: self.peak.max(cost.peak),
            begun: self.begun,
            work: self.work.saturating_add(left),
        }
    }

    /// Why another job has no room; none where it has.
    pub(super) fn refuses(&self, cost: &Cost, limits: &Limits) -> Option<StopReason> {
        if self.jobs >= limits.jobs {
            return Some(StopReason::MaxJobs);
        }
        // A job alone always goes: submission refuses what the limits cannot hold, and a queue that
        // nothing would ever leave is worse than a limit that is overstepped.
        if self.jobs == 0 {
            return None;
        }
        let then = self.with(cost, 0);
        if then.tokens > limits.tokens {
            return Some(StopReason::TokenBudget);
        }
        // Each job must be able to begin once the others are done with that.
        let memory = then.memory.saturating_add(then.peak.max(then.begun));
        (memory > limits.memory).then_some(StopReason::MemoryBudget)
    }
}

impl Active {
    /// Whether it holds its peak.
    fn has_begun(&self) -> bool {
        self.activity != Activity::Stepping && self.slices > 0
    }
}

/// Those of `jobs` that may have a slice, in the same order: all that are in the middle of text,
/// pictures or a result, and those that may begin. None overtakes one that may not.
pub(super) fn begin(jobs: Vec<&Active>, load: Load, limits: &Limits) -> Vec<JobId> {
    let begun = jobs.iter().filter(|active| active.has_begun()).count();
    let mut free = limits.memory.saturating_sub(load.memory).saturating_sub(load.begun);
    let (mut alone, mut closed) = (begun == 0, false);
    let may = |active: &&Active| {
        if active.has_begun() {
            return true;
        }
        let peak = active.job.cost.peak;
        closed |= !alone && peak > free;
        if !closed {
            (alone, free) = (false, free.saturating_sub(peak));
        }
        !closed
    };
    jobs.into_iter().filter(may).map(|active| active.job.id).collect()
}
