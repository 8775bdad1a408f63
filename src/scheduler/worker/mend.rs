//! What the worker does when the engine fails: who ends, who begins anew, and when it is given up.
//!
//! Every way out of the engine goes through [`Worker::leave`], which gives the slot back.

use super::{
    super::{
        host::is_breakdown,
        policy::JobId,
        progress::{Event, Fault, Outcome},
        queue::Ticket,
        running::Running,
        stats::EngineState,
    },
    Worker,
};

impl Worker {
    /// Ends jobs that failed, and mends the engine where that is why.
    pub(super) fn fail(&mut self, failed: Vec<(JobId, Fault)>) {
        let mut breakdown = None;
        for (id, fault) in failed {
            let Some(job) = self.remove(id) else { continue };
            if is_breakdown(&fault) {
                breakdown = Some(fault.clone());
            }
            self.leave(job, Outcome::Failed(fault));
        }
        if let Some(fault) = breakdown {
            self.mend(&fault);
        }
    }

    /// After a failure of the engine itself: builds it again and begins the jobs anew that it had
    /// besides those that failed, each once. Where it fails again at that, it is down.
    pub(super) fn mend(&mut self, fault: &Fault) {
        if !is_breakdown(fault) || self.stopping || self.down {
            return;
        }
        tracing::warn!(
            engine = self.number,
            code = fault.code(),
            "the engine failed and is built again"
        );
        // That may take a while, and what waits need not.
        self.turn(EngineState::Rebuilding);
        self.shared.wake();
        let mut down = self.host.recover(fault).err();
        self.rebuilds += u64::from(down.is_none());
        for mut job in std::mem::take(&mut self.running) {
            if down.is_some() {
                self.running.push(job);
            } else if job.restarted {
                self.end(job.active.job.id, job.reporter, Outcome::Failed(fault.clone()));
            } else {
                match self.host.admit(job.job.clone()) {
                    Ok(slot) => {
                        job.restart(slot);
                        job.tell(Some(Event::Restarted), None);
                        self.running.push(job);
                    }
                    Err(again) => {
                        down = is_breakdown(&again).then(|| self.host.give_up(&again));
                        self.end(job.active.job.id, job.reporter, Outcome::Failed(again));
                    }
                }
            }
        }
        match down {
            Some(reason) => self.go_down(reason),
            None => self.turn(EngineState::Ready),
        }
    }

    /// Tells the others how it stands with the engine.
    fn turn(&self, state: EngineState) {
        if let Some(seat) = self.shared.desk().seats.get_mut(self.number) {
            seat.state = state;
        }
    }

    /// Fails what the engine had, and takes no more. What waits is for the other engines; without one
    /// it fails too.
    fn go_down(&mut self, reason: String) {
        tracing::error!(engine = self.number, %reason, "the engine is down");
        self.down = true;
        self.turn(EngineState::Down { reason: reason.clone() });
        let fault = Fault::EngineDown { reason };
        for job in std::mem::take(&mut self.running) {
            self.end(job.active.job.id, job.reporter, Outcome::Failed(fault.clone()));
        }
        let mut desk = self.shared.desk();
        let tickets = if desk.serves() { Vec::new() } else { desk.queue.clear() };
        drop(desk);
        for ticket in tickets {
            self.shared.end_ticket(ticket, Outcome::Failed(fault.clone()));
        }
        self.shared.wake();
    }

    /// Puts a job back that was to be admitted when the engine went down.
    pub(super) fn give_back(&mut self, ticket: Ticket) {
        let id = ticket.waiting.id;
        let mut desk = self.shared.desk();
        match desk.red() {
            None if !desk.closed => {
                desk.give_back(ticket, self.number);
                drop(desk);
                self.shared.wake();
            }
            red => {
                drop(desk);
                let down = |reason| Outcome::Failed(Fault::EngineDown { reason });
                self.end(id, ticket.reporter, red.map_or(Outcome::Interrupted, down));
            }
        }
    }

    /// Gives a job's slot back and ends it: the one way out of the engine.
    pub(super) fn leave(&mut self, job: Running, outcome: Outcome) {
        let released = self.host.release(job.slot);
        self.end(job.active.job.id, job.reporter, outcome);
        if let Err(fault @ Fault::Panic { .. }) = released {
            self.mend(&fault);
        }
    }
}
