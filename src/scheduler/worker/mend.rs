//! What the worker does when the engine fails: who ends, who begins anew, and when it is given up.
//!
//! Every way out of the engine goes through [`Worker::leave`], which gives the slot back.

use super::{
    super::{
        host::is_breakdown,
        policy::JobId,
        progress::{Event, Fault, Outcome},
        running::Running,
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
        if !is_breakdown(fault) || self.stopping || self.shared.red().is_some() {
            return;
        }
        tracing::warn!(code = fault.code(), "the engine failed and is built again");
        let mut down = self.host.recover(fault).err();
        self.shared.stats().rebuilds += u64::from(down.is_none());
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
        if let Some(reason) = down {
            self.go_down(reason);
        }
    }

    /// Fails everything, and takes no more.
    fn go_down(&mut self, reason: String) {
        tracing::error!(%reason, "the engine is down");
        self.shared.turn_red(reason.clone());
        let fault = Fault::EngineDown { reason };
        for job in std::mem::take(&mut self.running) {
            self.end(job.active.job.id, job.reporter, Outcome::Failed(fault.clone()));
        }
        for ticket in self.queue.clear() {
            self.end_ticket(ticket, Outcome::Failed(fault.clone()));
        }
        self.queue_changed = true;
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
