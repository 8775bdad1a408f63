//! The thread of an engine: takes commands, asks the policy, drives the engine, tells what happened.
//!
//! [`spawn`](super::spawn) runs a [`Worker`] on a thread of its own; tests call
//! [`Worker::tick`] themselves. It decides nothing that `policy` could, and no engine's panic gets
//! past `host`. With the workers of other engines it shares the desk.

mod drive;
mod mend;

use super::{
    clock::Clock,
    host::{Factory, Host, StartError},
    meter::{Meter, Work},
    policy::{self, Active, JobId, Limits, Plan},
    progress::{Outcome, Reporter},
    queue::Ticket,
    running::Running,
    shared::Shared,
};
use crate::{domain::Pixels, engine::CostModel};
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// What a worker is told. What is for all of them is on the desk.
#[derive(Debug)]
pub(super) enum Command {
    /// Look at the desk.
    Wake,
    /// End a job that runs.
    Cancel(JobId),
    /// Show how a job would look.
    Preview(JobId, oneshot::Sender<Option<Pixels>>),
    /// Interrupt everything and stop.
    Stop,
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

/// The owner of an engine.
#[derive(Debug)]
pub struct Worker {
    /// The number of its engine.
    number: usize,
    host: Host,
    clock: Arc<dyn Clock>,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    limits: Limits,
    running: Vec<Running>,
    meter: Meter,
    /// Steps that it did, and how often it was built again.
    steps: u64,
    rebuilds: u64,
    stopping: bool,
    /// The engine is given up.
    down: bool,
    /// Another worker may wait for what has changed here.
    changed: bool,
}

impl Worker {
    pub(super) fn build(
        number: usize,
        factory: Factory,
        clock: Arc<dyn Clock>,
        commands: Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Result<(Self, Arc<dyn CostModel>), StartError> {
        let mut host = Host::build(factory)?;
        let costs = host.cost_model()?;
        let worker = Self {
            number,
            host,
            clock,
            commands,
            limits: shared.limits,
            shared,
            running: Vec::new(),
            meter: Meter::default(),
            steps: 0,
            rebuilds: 0,
            stopping: false,
            down: false,
            changed: false,
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
    /// 3. plans, and takes out of the queue whom the plan admits;
    /// 4. admits;
    /// 5. one denoising step of all that are ready, in one batch;
    /// 6. text and picture work: a slice of a job, as long as a step, and of the next ones where more
    ///    jobs wait for such work than step;
    /// 7. tells the others how full the engine is, and the queue its positions.
    ///
    /// Commands are taken between slices too: one waits for a step or a slice at most, and a job that
    /// was cancelled takes no other step.
    pub fn tick(&mut self) -> Tick {
        // 1
        self.take_commands();
        // 2
        let now = self.clock.now();
        if self.stopping || self.is_drained(now) {
            self.stop();
            return Tick::Stop;
        }
        // 3
        let Some((plan, tickets)) = self.plan(now) else {
            self.report();
            return Tick::Idle;
        };
        // 4
        for ticket in tickets {
            self.admit(ticket, now);
        }
        // 5
        let step = self.step(&plan.step);
        // 6
        self.slices(&plan.slice, step);
        // 7
        self.report();
        Tick::Again
    }

    fn is_drained(&self, now: Duration) -> bool {
        let desk = self.shared.desk();
        desk.drain.as_ref().is_some_and(|drain| self.running.is_empty() || now >= drain.until)
    }

    /// What to do, with those who are to be admitted; none where there is nothing.
    fn plan(&self, now: Duration) -> Option<(Plan, Vec<Ticket>)> {
        let active: Vec<Active> = self.running.iter().map(Running::active).collect();
        let mut desk = self.shared.desk();
        let idle = active.is_empty();
        if self.down || (idle && desk.queue.waiting().is_empty()) {
            return None;
        }
        let (waiting, peers) = (desk.queue.waiting(), desk.peers(self.number));
        let plan = policy::plan(waiting, &active, &peers, &self.limits, &desk.credits, now);
        *self.shared.stats().stops.entry(plan.stop).or_default() += 1;
        if idle && plan.admit.is_empty() {
            return None;
        }
        desk.credits = plan.credits.clone();
        let tickets = desk.hand_out(&plan.admit, self.number);
        let others_may_go = !tickets.is_empty() && !desk.queue.waiting().is_empty();
        drop(desk);
        if others_may_go {
            self.shared.wake();
        }
        Some((plan, tickets))
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
            Command::Wake => {}
            Command::Cancel(id) => {
                match self.remove(id) {
                    Some(job) => self.leave(job, Outcome::Cancelled),
                    // It ended, or this engine gave it back.
                    None => {
                        self.shared.cancel(id);
                    }
                }
            }
            Command::Preview(id, reply) => self.preview(id, reply),
            Command::Stop => self.stopping = true,
        }
    }

    fn stop(&mut self) {
        // From here on a broken engine is not mended.
        self.stopping = true;
        for job in std::mem::take(&mut self.running) {
            self.leave(job, Outcome::Interrupted);
        }
        self.report();
        self.shared.left(self.number, None);
    }

    fn remove(&mut self, id: JobId) -> Option<Running> {
        let index = self.running.iter().position(|job| job.active.job.id == id)?;
        Some(self.running.remove(index))
    }

    fn end(&mut self, id: JobId, reporter: Reporter, outcome: Outcome) {
        self.shared.end(id, reporter, outcome);
        self.changed = true;
    }

    /// Tells the others how full the engine is, the gauges, and those in the queue whose position is
    /// another than before.
    fn report(&mut self) {
        let (now, number) = (self.clock.now(), self.number);
        let backlog = self.running.iter().map(Running::remaining);
        let mut desk = self.shared.desk();
        let desk = &mut *desk;
        if let Some(seat) = desk.seats.get_mut(number) {
            seat.backlog = backlog.fold(Work::default(), Work::plus);
            seat.running = self.running.iter().map(Running::active).collect();
            (seat.meter, seat.steps, seat.rebuilds) = (self.meter, self.steps, self.rebuilds);
        }
        let mut forecast = desk.forecast();
        if std::mem::take(&mut desk.queue_changed) {
            let order = policy::order(desk.queue.waiting(), &self.limits, &desk.credits, now);
            desk.queue.tell(&order, forecast.clone());
        }
        for waiting in desk.queue.waiting() {
            forecast.add(Work::of(&waiting.cost));
        }
        self.shared.stats().backlog = forecast.end();
        if std::mem::take(&mut self.changed) && !desk.queue.waiting().is_empty() {
            self.shared.wake();
        }
    }
}

impl Drop for Worker {
    /// What is left of its jobs tells that it was interrupted when it is dropped, after this.
    fn drop(&mut self) {
        let died = std::thread::panicking();
        self.shared.left(self.number, died.then(|| "the scheduler's thread panicked".to_owned()));
    }
}
