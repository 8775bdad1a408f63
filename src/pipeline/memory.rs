//! Where the weights of each network are while the model runs, and what is left for jobs: chosen from
//! what the headers of the files say and from the memory that there is.
//!
//! A plan is a function of sizes alone, so it can be shown, tested, and held against what a process
//! really takes. [`Placement`] says where a network can be. On a CPU weights that stay in their file
//! are pages of the system's cache, which any other program may have when it needs them; they are
//! counted, since a model whose pages do not stay there is read from the disk in every step.

use crate::{
    domain::{Bytes, Size},
    model::weights::{Footprint, Part, Placement, is_plain},
};
use std::fmt;

/// Part of what is free that is used without being told to: the rest is for the system, for other
/// programs, and for what the counts leave out.
const SHARE: f64 = 0.8;

/// What of all memory a pass of the VAE over a whole picture may take where nobody says. It is a part
/// of what is there, not of what is free: whether a picture is cut into tiles changes its bytes, and
/// equal seeds give equal bytes at each start.
const WHOLE: f64 = 0.5;

/// What a process has before it has a model: tokenizers, stacks, buffers of kernels, the program. A
/// budget is for all of it.
const PROCESS: u64 = 12 << 20;

/// What there is to plan with, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What the device has: on a CPU the machine, or the container.
    pub total: u64,
    /// What of it is free.
    pub free: u64,
    /// What may be used, where somebody said so: on a CPU by the process, on a GPU of the device.
    pub budget: Option<u64>,
    /// What jobs may use together, where somebody said so.
    pub jobs: Option<u64>,
}

impl Room {
    /// More than any model takes: everything is where it is fastest.
    #[must_use]
    pub fn ample() -> Self {
        Self { total: 1 << 50, free: 1 << 50, budget: None, jobs: None }
    }

    /// The share of one of `engines` alike on one device.
    #[must_use]
    pub fn split(self, engines: u64) -> Self {
        let share = |bytes: u64| bytes / engines.max(1);
        Self {
            total: share(self.total),
            free: share(self.free),
            budget: self.budget.map(share),
            jobs: self.jobs,
        }
    }
}

/// What is asked for, besides the room.
#[derive(Clone, Debug)]
pub(super) struct Needs {
    /// The networks by their headers.
    pub(super) parts: Vec<(Part, Footprint)>,
    /// An edit of the model's own size.
    pub(super) usual: Usual,
    /// Bytes of a number in the type of computation.
    pub(super) number: u64,
    /// Whether own kernels compute, in the memory of which the files' pages are.
    pub(super) on_cpu: bool,
}

/// An edit of a picture in the size that the model was trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usual {
    /// The size of picture and result.
    pub size: Size,
    /// Bytes that it needs besides the weights.
    pub bytes: u64,
}

/// A network in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub part: Part,
    /// Where it is.
    pub placement: Placement,
    /// The format of most of its weights, as in `Q4_K`; empty where it has none.
    pub format: &'static str,
    /// Bytes that it holds in memory, or on the device.
    pub held: u64,
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The networks.
    pub parts: Vec<Planned>,
    /// Bytes that the process (on a GPU: the device) has without jobs.
    pub weights: u64,
    /// Bytes of files that are in the system's cache while the model runs; none on a GPU.
    pub cached: u64,
    /// Bytes that jobs may take together.
    pub jobs: u64,
    /// Bytes that a pass of the VAE over a whole picture may take. Above it there are tiles.
    pub whole: u64,
    /// What an edit of the model's own size takes.
    pub usual: Usual,
}

/// A budget in which the model cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "memory.budget is {}, and this model needs at least {}: {} for its weights and {} for an edit of \
     {}; raise it, take a model of smaller weights, or set scheduler.memory to what smaller edits need",
    Bytes(*budget), Bytes(weights.saturating_add(usual.bytes)), Bytes(*weights), Bytes(usual.bytes),
    usual.size
)]
pub struct TooSmall {
    /// What was allowed.
    pub budget: u64,
    /// What weights take at the least.
    pub weights: u64,
    /// What a usual edit takes.
    pub usual: Usual,
}

/// Where transformer and text encoders are, from what is fastest to what takes the least. The
/// transformer runs in each step, the encoders once for a job, so these go first.
const ORDER: [(Placement, Placement); 6] = [
    (Placement::Unpacked, Placement::Unpacked),
    (Placement::Unpacked, Placement::Stored),
    (Placement::Unpacked, Placement::Streamed),
    (Placement::Stored, Placement::Stored),
    (Placement::Stored, Placement::Streamed),
    (Placement::Streamed, Placement::Streamed),
];

/// Chooses.
///
/// # Errors
/// [`TooSmall`] where a budget was given and nothing fits into it. Without one there is always a plan:
/// what is free now may not be what is free later.
pub(super) fn plan(needs: &Needs, room: Room) -> Result<Plan, TooSmall> {
    let total = room.budget.unwrap_or((room.free as f64 * SHARE) as u64);
    let job = room.jobs.unwrap_or(needs.usual.bytes);
    let all = ORDER.map(|order| needs.arrange(order));
    let fits = |plan: &&Plan| plan.weights.saturating_add(plan.cached).saturating_add(job) <= total;
    let least = |plan: &&Plan| plan.weights + plan.cached;
    let mut plan = match (all.iter().find(fits), all.iter().min_by_key(least)) {
        (Some(plan), _) => plan.clone(),
        (None, Some(plan)) if room.budget.is_none() => plan.clone(),
        (None, least) => {
            let weights = least.map_or(0, |plan| plan.weights + plan.cached);
            return Err(TooSmall { budget: total, weights, usual: needs.usual });
        }
    };
    let left = total.saturating_sub(plan.weights + plan.cached);
    plan.jobs = room.jobs.unwrap_or(left.max(needs.usual.bytes));
    let said = room.jobs.or(room.budget.map(|_| plan.jobs));
    plan.whole = said.unwrap_or((room.total as f64 * WHOLE) as u64);
    Ok(plan)
}

impl Needs {
    fn arrange(&self, (transformer, encoders): (Placement, Placement)) -> Plan {
        let mut plan = Plan {
            parts: Vec::new(),
            weights: if self.on_cpu { PROCESS } else { 0 },
            cached: 0,
            jobs: 0,
            whole: 0,
            usual: self.usual,
        };
        for (part, print) in &self.parts {
            let placement = match part {
                Part::Transformer => transformer,
                Part::T5 => encoders,
                Part::Clip => match encoders {
                    Placement::Streamed => Placement::Stored, // it is small
                    other => other,
                },
                Part::Vae => Placement::Unpacked, // nearly all of it are convolutions
            };
            // On a CPU quantised weights are unpacked nowhere.
            let quantised = print.format.is_some_and(|format| !is_plain(format));
            let placement = match placement {
                Placement::Unpacked if self.on_cpu && quantised => Placement::Stored,
                other => other,
            };
            let held = print.held(placement, self.number, self.on_cpu);
            plan.weights += held;
            plan.cached += if self.on_cpu { print.mapped(placement) } else { 0 };
            let format = print.format.map_or("", |format| format.name());
            plan.parts.push(Planned { part: *part, placement, format, held });
        }
        plan
    }
}

impl Plan {
    /// Where the weights of `part` are.
    #[must_use]
    pub fn placement(&self, part: Part) -> Placement {
        let found = self.parts.iter().find(|planned| planned.part == part);
        found.map_or(Placement::Unpacked, |planned| planned.placement)
    }

    /// The most that the process (on a GPU: the device) has at a time while jobs take `jobs`. Pages of
    /// files are not in it, since they are the system's.
    #[must_use]
    pub fn peak(&self, jobs: u64) -> u64 {
        self.weights.saturating_add(jobs)
    }
}

/// The networks in words: `transformer Q4_K streamed, vae BF16 unpacked`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Planned { part, placement, format, .. }) in self.parts.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{part} {format} {placement}")?;
        }
        Ok(())
    }
}
