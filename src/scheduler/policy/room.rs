//! How full an engine is, and whether another job has room in it.

use super::{Active, Limits, StopReason};
use crate::engine::Cost;

/// How full an engine is.
#[derive(Clone, Copy, Default)]
pub(super) struct Load {
    pub(super) jobs: usize,
    tokens: usize,
    /// Predicted bytes.
    memory: u64,
    /// Work left.
    pub(super) work: u64,
}

impl Load {
    pub(super) fn of(running: &[Active]) -> Self {
        let add = |load: Self, active: &Active| load.with(&active.job.cost, active.left);
        running.iter().fold(Self::default(), add)
    }

    /// With another job, of which so much work is left.
    pub(super) fn with(self, cost: &Cost, left: u64) -> Self {
        Self {
            jobs: self.jobs + 1,
            tokens: self.tokens.saturating_add(cost.tokens),
            memory: self.memory.saturating_add(cost.memory),
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
        (then.memory > limits.memory).then_some(StopReason::MemoryBudget)
    }
}
