//! The first-block cache: a step whose first block did almost what it did in the step before takes
//! the other blocks' work from there.
//!
//! What the first block adds to the image tokens is a cheap measure of how far the picture has moved.
//! Where that differs by less than a threshold from the last step in which all blocks ran, what the
//! others added then is added again. Each sequence decides for itself, so a batch may hold some that
//! go on and some that do not; those that do are packed anew.
//!
//! Reference: diffusers 0.42.1 `FirstBlockCacheConfig` (`hooks/first_block_cache.py`), after Chen's
//! ParaAttention. Of the last block's tokens only the target's are kept: no others are read.

use candle_core::{Result, Tensor};

/// What one sequence keeps between two steps.
#[derive(Clone, Debug)]
pub struct StepCache {
    threshold: f32,
    kept: Option<Kept>,
    reused: usize,
}

#[derive(Clone, Debug)]
struct Kept {
    /// What the first block added to the image tokens [image, dim].
    head: Tensor,
    /// What all others added to the target's tokens [target, dim].
    tail: Tensor,
}

impl StepCache {
    /// An empty cache: the first step runs in full.
    #[must_use]
    pub fn new(threshold: f32) -> Self {
        Self { threshold, kept: None, reused: 0 }
    }

    /// Steps that took the other blocks' work from an earlier one.
    #[must_use]
    pub fn reused(&self) -> usize {
        self.reused
    }

    /// Whether the other blocks need not run after a first one that added `head`.
    pub(super) fn serves(&mut self, head: &Tensor) -> Result<bool> {
        let Some(kept) = &self.kept else { return Ok(false) };
        let mean = |x: &Tensor| x.abs()?.mean_all()?.to_dtype(candle_core::DType::F32)?.to_scalar();
        let moved: f32 = mean(&(head - &kept.head)?)?;
        let before: f32 = mean(&kept.head)?;
        // Not a number is not less: such a step runs in full, and fails where it must.
        let serves = moved / before <= self.threshold;
        self.reused += usize::from(serves);
        Ok(serves)
    }

    /// The target's tokens behind the last block, from those behind the first.
    pub(super) fn reuse(&self, target: &Tensor) -> Result<Tensor> {
        match &self.kept {
            Some(kept) => target + &kept.tail,
            None => Ok(target.clone()),
        }
    }

    /// Keeps a step that ran in full: what the first block added, and the target's tokens behind the
    /// first and the last block.
    pub(super) fn keep(&mut self, head: Tensor, first: &Tensor, last: &Tensor) -> Result<()> {
        self.kept = Some(Kept { head, tail: (last - first)? });
        Ok(())
    }
}
