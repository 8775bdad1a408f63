//! What a job will cost, said before it runs.
//!
//! The scheduler asks for it at submission, to refuse what cannot fit, to share the device fairly
//! and to estimate when a job ends. The figures are predictions: nothing here measures.

use crate::domain::{EditParams, ParamError, Size};

/// What of a job decides its cost: no pixels, so that it can be weighed before they are decoded.
#[derive(Clone, Copy, Debug)]
pub struct JobShape<'a> {
    /// What to do.
    pub params: &'a EditParams,
    /// The sizes of its reference pictures, in order.
    pub images: &'a [Size],
}

/// The predicted cost of a job.
///
/// Work is counted in units of the engine's own, the same in all three fields; how long a unit takes
/// is measured by whoever schedules. Bytes do not include the model's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Tokens that it adds to every batch it is in.
    pub tokens: usize,
    /// Bytes that it holds while it waits for its turn, or takes a step beside others.
    pub memory: u64,
    /// Bytes that it needs besides while text, pictures or the result are under way, between slices of
    /// that too.
    pub peak: u64,
    /// Work before its first step: text and reference pictures.
    pub before: u64,
    /// Work of one denoising step.
    pub step: u64,
    /// Denoising steps.
    pub steps: u32,
    /// Work after its last step: decoding.
    pub after: u64,
}

impl Cost {
    /// Bytes that it needs at most.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.memory.saturating_add(self.peak)
    }

    /// All of its work, at least 1: nothing is free, or a share of it could not be counted.
    #[must_use]
    pub fn work(&self) -> u64 {
        let steps = self.step.saturating_mul(u64::from(self.steps));
        self.before.saturating_add(steps).saturating_add(self.after).max(1)
    }
}

/// Predicts costs, on any thread.
pub trait CostModel: Send + Sync + std::fmt::Debug {
    /// What one job would cost.
    ///
    /// # Errors
    /// The first parameter that the engine would refuse.
    fn cost(&self, job: &JobShape<'_>) -> Result<Cost, ParamError>;
}
