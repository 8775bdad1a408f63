//! What workers and handles share of the jobs: the queue, whose turn it was, how it stands with each
//! engine, and a drain.
//!
//! It lies behind one lock of [`Shared`](super::shared::Shared), which is held for a look or a change
//! and never while an engine works. It decides nothing, and tells nobody but who waits.

use super::{
    meter::{Forecast, Meter, Work},
    policy::{Active, Credits, JobId, Peer},
    progress::Outcome,
    queue::{Queue, Ticket},
    stats::{EngineState, EngineStats},
};
use std::time::Duration;
use tokio::sync::oneshot;

/// How a drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Running jobs that ended otherwise: done, failed or cancelled.
    pub finished: usize,
    /// Jobs that were interrupted, those in the queue included.
    pub interrupted: usize,
}

#[derive(Debug)]
pub(super) struct Drain {
    pub(super) until: Duration,
    pub(super) done: Drained,
    pub(super) waiters: Vec<oneshot::Sender<Drained>>,
}

/// An engine, as the others see it: what its worker said last.
#[derive(Debug)]
pub(super) struct Seat {
    /// What a person calls it.
    pub(super) name: String,
    pub(super) state: EngineState,
    /// Whether its worker is there to be told anything.
    pub(super) manned: bool,
    pub(super) running: Vec<Active>,
    /// Work that is left of those.
    pub(super) backlog: Work,
    pub(super) meter: Meter,
    pub(super) steps: u64,
    pub(super) rebuilds: u64,
}

impl Seat {
    /// Whether it takes jobs, now or once it was built again.
    fn serves(&self) -> bool {
        self.manned && matches!(self.state, EngineState::Ready | EngineState::Rebuilding)
    }

    /// Predicted bytes of its jobs, one of which is at its peak.
    fn memory(&self) -> u64 {
        let costs = || self.running.iter().map(|active| active.job.cost);
        let peak = costs().map(|cost| cost.peak).max().unwrap_or(0);
        costs().fold(peak, |sum, cost| sum.saturating_add(cost.memory))
    }
}

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) queue: Queue,
    /// Whether positions are others than were told.
    pub(super) queue_changed: bool,
    pub(super) credits: Credits,
    /// No more jobs are taken.
    pub(super) closed: bool,
    pub(super) drain: Option<Drain>,
    /// By the number of the engine.
    pub(super) seats: Vec<Seat>,
}

impl Desk {
    pub(super) fn new(names: Vec<String>) -> Self {
        let seat = |name| Seat {
            name,
            state: EngineState::Ready,
            manned: true,
            running: Vec::new(),
            backlog: Work::default(),
            meter: Meter::default(),
            steps: 0,
            rebuilds: 0,
        };
        Self {
            queue: Queue::default(),
            queue_changed: false,
            credits: Credits::default(),
            closed: false,
            drain: None,
            seats: names.into_iter().map(seat).collect(),
        }
    }

    /// Whether a worker is there.
    pub(super) fn manned(&self) -> bool {
        self.seats.iter().any(|seat| seat.manned)
    }

    /// Whether an engine is there for what waits.
    pub(super) fn serves(&self) -> bool {
        self.seats.iter().any(Seat::serves)
    }

    /// Why every engine is down; none where one is not.
    pub(super) fn red(&self) -> Option<String> {
        let reason = |seat: &Seat| match &seat.state {
            EngineState::Down { reason } if self.seats.len() == 1 => Some(reason.clone()),
            EngineState::Down { reason } => Some(format!("{}: {reason}", seat.name)),
            _ => None,
        };
        let reasons: Option<Vec<String>> = self.seats.iter().map(reason).collect();
        reasons.map(|reasons| reasons.join("; "))
    }

    /// The engines beside that of the number `own`.
    pub(super) fn peers(&self, own: usize) -> Vec<Peer<'_>> {
        let others = self.seats.iter().enumerate().filter(|(number, _)| *number != own);
        others
            .map(|(number, seat)| Peer {
                running: &seat.running,
                open: seat.manned && seat.state == EngineState::Ready,
                first: number < own,
            })
            .collect()
    }

    /// Takes jobs out of the queue for the engine of the number `own`, which counts as having them
    /// from now on.
    pub(super) fn hand_out(&mut self, ids: &[JobId], own: usize) -> Vec<Ticket> {
        let tickets: Vec<Ticket> = ids.iter().filter_map(|id| self.queue.take(*id)).collect();
        if let Some(seat) = self.seats.get_mut(own) {
            let active = tickets.iter().map(|ticket| Active::new(ticket.waiting.clone()));
            seat.running.extend(active);
        }
        self.queue_changed |= !tickets.is_empty();
        tickets
    }

    /// Takes a job back that was handed out.
    pub(super) fn give_back(&mut self, ticket: Ticket, own: usize) {
        if let Some(seat) = self.seats.get_mut(own) {
            seat.running.retain(|active| active.job.id != ticket.waiting.id);
        }
        self.queue.push(ticket);
        self.queue_changed = true;
    }

    /// The number of the engine that has a job.
    pub(super) fn holder(&self, id: JobId) -> Option<usize> {
        self.seats.iter().position(|seat| seat.running.iter().any(|active| active.job.id == id))
    }

    /// A job ends: no engine has it any more, and a drain counts it.
    pub(super) fn forget(&mut self, id: JobId, outcome: &Outcome) {
        for seat in &mut self.seats {
            seat.running.retain(|active| active.job.id != id);
        }
        if let Some(drain) = &mut self.drain {
            let interrupted = matches!(outcome, Outcome::Interrupted);
            drain.done.interrupted += usize::from(interrupted);
            drain.done.finished += usize::from(!interrupted);
        }
    }

    /// When the engines will be done with what they have.
    pub(super) fn forecast(&self) -> Forecast {
        let serving = self.seats.iter().filter(|seat| seat.serves());
        Forecast::new(serving.map(|seat| (seat.meter, seat.backlog)).collect())
    }

    /// How it stands with each engine.
    pub(super) fn engines(&self) -> Vec<EngineStats> {
        let stats = |seat: &Seat| EngineStats {
            name: seat.name.clone(),
            state: seat.state.clone(),
            running: seat.running.len(),
            memory: seat.memory(),
            steps: seat.steps,
            rebuilds: seat.rebuilds,
        };
        self.seats.iter().map(stats).collect()
    }
}
