//! The engine's thread: takes commands, asks the policy, drives the engine, tells what happened.
//!
//! [`spawn`](super::spawn) runs a [`Worker`] on a thread of its own; tests call
//! [`Worker::tick`] themselves. It decides nothing that `policy` could, and no engine's panic gets
//! past `host`.

mod drive;
mod mend;

use super::{
    clock::Clock,
    host::{Factory, Host, StartError},
    meter::{Meter, Work},
    policy::{self, Active, Credits, JobId, Limits},
    progress::{Fault, Outcome, Reporter},
    queue::{Queue, Ticket},
    running::Running,
    shared::Shared,
};
use crate::{domain::Pixels, engine::CostModel};
use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, TryRecvError},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// What the worker is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Put a job into the queue.
    Submit(Box<Ticket>),
    /// End a job, wherever it is.
    Cancel(JobId),
    /// Show how a job would look.
    Preview(JobId, oneshot::Sender<Option<Pixels>>),
    /// Admit no more, let what runs end within a time, then stop.
    Drain(Duration, oneshot::Sender<Drained>),
    /// Interrupt everything and stop.
    Stop,
}

/// How a drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Running jobs that ended otherwise: done, failed or cancelled.
    pub finished: usize,
    /// Jobs that were interrupted, those in the queue included.
    pub interrupted: usize,
}

/// What comes after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Another one.
    Again,
    /// Another one after the next command: there is nothing to do.
    Idle,
    /// None.
    Stop,
}

#[derive(Debug)]
struct Drain {
    until: Duration,
    done: Drained,
    waiters: Vec<oneshot::Sender<Drained>>,
}

/// The owner of the engine.
#[derive(Debug)]
pub struct Worker {
    host: Host,
    clock: Arc<dyn Clock>,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    limits: Limits,
    queue: Queue,
    running: Vec<Running>,
    credits: Credits,
    meter: Meter,
    drain: Option<Drain>,
    stopping: bool,
    queue_changed: bool,
}

impl Worker {
    pub(super) fn build(
        factory: Factory,
        clock: Arc<dyn Clock>,
        commands: Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Result<(Self, Arc<dyn CostModel>), StartError> {
        let mut host = Host::build(factory)?;
        let costs = host.cost_model()?;
        let worker = Self {
            host,
            clock,
            commands,
            limits: shared.limits,
            shared,
            queue: Queue::default(),
            running: Vec::new(),
            credits: Credits::default(),
            meter: Meter::default(),
            drain: None,
            stopping: false,
            queue_changed: false,
        };
        Ok((worker, costs))
    }

    /// Ticks until it is told to stop, or nobody is left who could tell it.
    pub fn run(mut self) {
        loop {
            match self.tick() {
                Tick::Again => {}
                Tick::Idle => match self.commands.recv() {
                    Ok(command) => self.apply(command),
                    Err(_) => self.stopping = true,
                },
                Tick::Stop => break,
            }
        }
    }

    /// Does the next piece of work:
    ///
    /// 1. takes all commands that came;
    /// 2. stops, where it was told to or a drain is over;
    /// 3. plans;
    /// 4. admits;
    /// 5. one denoising step of all that are ready, in one batch;
    /// 6. text and picture work: a slice of a job, as long as a step, and of the next ones where more
    ///    jobs wait for such work than step;
    /// 7. tells the queue its positions.
    ///
    /// Commands are taken between slices too: one waits for a step or a slice at most, and a job that
    /// was cancelled takes no other step.
    pub fn tick(&mut self) -> Tick {
        // 1
        self.take_commands();
        // 2
        let now = self.clock.now();
        let drained =
            self.drain.as_ref().is_some_and(|drain| self.running.is_empty() || now >= drain.until);
        if self.stopping || drained {
            self.stop();
            return Tick::Stop;
        }
        if self.running.is_empty() && self.queue.waiting().is_empty() {
            self.report();
            return Tick::Idle;
        }
        // 3
        let active: Vec<Active> = self.running.iter().map(|job| job.active.clone()).collect();
        let plan = policy::plan(self.queue.waiting(), &active, &self.limits, &self.credits, now);
        *self.shared.stats().stops.entry(plan.stop).or_default() += 1;
        // 4
        self.credits = plan.credits;
        for id in plan.admit {
            self.admit(id, now);
        }
        // 5
        let step = self.step(&plan.step);
        // 6
        self.slices(&plan.slice, step);
        // 7
        self.report();
        Tick::Again
    }

    fn take_commands(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.apply(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    return;
                }
            }
        }
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Submit(ticket) => {
                if let Some(reason) = self.shared.red() {
                    self.end_ticket(*ticket, Outcome::Failed(Fault::EngineDown { reason }));
                } else if self.drain.is_some() || self.stopping {
                    self.end_ticket(*ticket, Outcome::Interrupted);
                } else {
                    self.queue.push(*ticket);
                    self.queue_changed = true;
                }
            }
            Command::Cancel(id) => {
                if let Some(ticket) = self.queue.take(id) {
                    self.end_ticket(ticket, Outcome::Cancelled);
                } else if let Some(job) = self.remove(id) {
                    self.leave(job, Outcome::Cancelled);
                }
                self.queue_changed = true;
            }
            Command::Preview(id, reply) => self.preview(id, reply),
            Command::Drain(within, reply) => {
                let until = self.clock.now().saturating_add(within);
                let drain = self.drain.get_or_insert_with(|| Drain {
                    until,
                    done: Drained::default(),
                    waiters: Vec::new(),
                });
                drain.until = drain.until.min(until);
                drain.waiters.push(reply);
                for ticket in self.queue.clear() {
                    self.end_ticket(ticket, Outcome::Interrupted);
                }
            }
            Command::Stop => self.stopping = true,
        }
    }

    fn stop(&mut self) {
        // From here on a broken engine is not mended.
        self.stopping = true;
        for job in std::mem::take(&mut self.running) {
            self.leave(job, Outcome::Interrupted);
        }
        for ticket in self.queue.clear() {
            self.end_ticket(ticket, Outcome::Interrupted);
        }
        self.report();
        let Some(Drain { done, waiters, until: _ }) = self.drain.take() else { return };
        for waiter in waiters {
            // Whoever asked may have gone.
            let _ = waiter.send(done);
        }
    }

    fn remove(&mut self, id: JobId) -> Option<Running> {
        let index = self.running.iter().position(|job| job.active.job.id == id)?;
        Some(self.running.remove(index))
    }

    fn end_ticket(&mut self, ticket: Ticket, outcome: Outcome) {
        let Ticket { waiting, reporter, place, job: _ } = ticket;
        drop(place);
        self.end(waiting.id, reporter, outcome);
    }

    fn end(&mut self, id: JobId, reporter: Reporter, outcome: Outcome) {
        if let Some(drain) = &mut self.drain {
            let interrupted = matches!(outcome, Outcome::Interrupted);
            drain.done.interrupted += usize::from(interrupted);
            drain.done.finished += usize::from(!interrupted);
        }
        self.shared.ended(id, reporter.end(outcome));
    }

    /// The work that is left of all that run.
    fn backlog(&self) -> Work {
        self.running.iter().fold(Work::default(), |sum, job| sum.plus(job.remaining()))
    }

    /// Tells the gauges, and those in the queue whose position is another than before.
    fn report(&mut self) {
        let mut ahead = self.backlog();
        if std::mem::take(&mut self.queue_changed) {
            let now = self.clock.now();
            let order = policy::order(self.queue.waiting(), &self.limits, &self.credits, now);
            self.queue.tell(&order, ahead, &self.meter);
        }
        for waiting in self.queue.waiting() {
            ahead = ahead.plus(Work::of(&waiting.cost));
        }
        let mut stats = self.shared.stats();
        stats.running = self.running.len();
        let memory = self.running.iter().map(|job| job.active.job.cost.memory);
        stats.memory = memory.fold(0, u64::saturating_add);
        stats.backlog = self.meter.predict(ahead);
    }
}

impl Drop for Worker {
    /// Nobody takes jobs from here on. What is left of them tells that it was interrupted when it is
    /// dropped, after this.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.turn_red("the scheduler's thread panicked".to_owned());
        }
        self.shared.draining.store(true, Ordering::SeqCst);
    }
}
