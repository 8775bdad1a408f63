//! What the scheduler counts, for metrics.
//!
//! Workers and handles add to it, `/metrics` reads a copy. No names of people or of jobs.

use super::policy::StopReason;
use std::{collections::BTreeMap, time::Duration};

/// Bounds of times, in seconds.
const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0,
];
/// Bounds of tokens in a batch.
const TOKENS: &[f64] = &[256.0, 1024.0, 4096.0, 8192.0, 16_384.0, 32_768.0, 65_536.0, 131_072.0];
/// Bounds of jobs in a step.
const JOBS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0];

/// How often values fell below each of some bounds.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    pub(super) fn add(&mut self, value: f64) {
        for (bound, count) in self.bounds.iter().zip(&mut self.counts) {
            *count += u64::from(value <= *bound);
        }
        self.count += 1;
        self.sum += value;
    }

    /// Each bound with the number of values that are not above it.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        self.bounds.iter().copied().zip(self.counts.iter().copied())
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the values.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Their mean, 0 where there are none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum / self.count as f64 }
    }
}

/// How it stands with an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// It works, or would.
    Ready,
    /// It failed and is being built again.
    Rebuilding,
    /// It failed and could not be built again.
    Down {
        /// What happened last.
        reason: String,
    },
    /// Its thread ended, as it was told to.
    Stopped,
}

/// An engine.
#[derive(Clone, Debug)]
pub struct EngineStats {
    /// What whoever started it calls it.
    pub name: String,
    /// How it stands.
    pub state: EngineState,
    /// Jobs in it now.
    pub running: usize,
    /// Their predicted bytes.
    pub memory: u64,
    /// Denoising steps that it did.
    pub steps: u64,
    /// How often it was built again.
    pub rebuilds: u64,
}

/// The counts since the start, and how things stand.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Jobs in the queue now.
    pub waiting: usize,
    /// Jobs in engines now.
    pub running: usize,
    /// Their predicted bytes.
    pub memory: u64,
    /// When all of them would be done; none before a step was measured.
    pub backlog: Option<Duration>,
    /// From submission to admission.
    pub wait_seconds: Histogram,
    /// Of a denoising step.
    pub step_seconds: Histogram,
    /// Of a slice of text or picture work.
    pub slice_seconds: Histogram,
    /// Tokens in a step.
    pub batch_tokens: Histogram,
    /// Jobs in a step.
    pub batch_jobs: Histogram,
    /// Why admission stopped, counted once a tick.
    pub stops: BTreeMap<StopReason, u64>,
    /// How jobs ended, by [`Event::name`](super::Event::name).
    pub ended: BTreeMap<&'static str, u64>,
    /// Refused submissions, by [`SubmitError::code`](super::SubmitError::code).
    pub refused: BTreeMap<&'static str, u64>,
    /// How often an engine was built again.
    pub rebuilds: u64,
    /// Each engine.
    pub engines: Vec<EngineStats>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            waiting: 0,
            running: 0,
            memory: 0,
            backlog: None,
            wait_seconds: Histogram::new(SECONDS),
            step_seconds: Histogram::new(SECONDS),
            slice_seconds: Histogram::new(SECONDS),
            batch_tokens: Histogram::new(TOKENS),
            batch_jobs: Histogram::new(JOBS),
            stops: BTreeMap::new(),
            ended: BTreeMap::new(),
            refused: BTreeMap::new(),
            rebuilds: 0,
            engines: Vec::new(),
        }
    }
}
