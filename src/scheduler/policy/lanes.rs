//! Whose turn it is: the lanes of the users who wait, with their credits.
//!
//! [`plan`](super::plan) takes jobs out of them in turn; the head of `policy` says what is fair.

use super::{Credits, Limits, User, Waiting, class};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// A user's waiting jobs.
struct Lane<'a> {
    user: &'a User,
    /// By class, in order of arrival.
    jobs: [VecDeque<&'a Waiting>; 2],
    credit: u64,
    /// How many more of them may go.
    room: usize,
}

/// Whose turn it is.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) job: &'a Waiting,
    lane: usize,
    class: usize,
    /// What everyone who waits in that class is given.
    quantum: u64,
}

/// Every user's lane, in the order of users.
pub(super) struct Lanes<'a> {
    lanes: Vec<Lane<'a>>,
    /// The first lane after the one whose turn was last.
    first: usize,
    last: Option<&'a User>,
}

impl<'a> Lanes<'a> {
    pub(super) fn new(
        waiting: &'a [Waiting],
        limits: &Limits,
        credits: &'a Credits,
        now: Duration,
    ) -> Self {
        let mut jobs: BTreeMap<&User, [VecDeque<&Waiting>; 2]> = BTreeMap::new();
        for job in waiting {
            jobs.entry(&job.user).or_default()[class(job, limits, now)].push_back(job);
        }
        let lane = |(user, jobs)| {
            let credit = credits.work.get(user).copied().unwrap_or(0);
            Lane { user, jobs, credit, room: usize::MAX }
        };
        let lanes: Vec<Lane<'_>> = jobs.into_iter().map(lane).collect();
        let last = credits.last.as_ref();
        let first = lanes.partition_point(|lane| Some(lane.user) <= last);
        Self { lanes, first, last }
    }

    /// Lets each user have so many jobs in engines; `inside` are the users of those that are there.
    pub(super) fn limit<'b>(&mut self, jobs: usize, inside: impl Iterator<Item = &'b User>) {
        let mut theirs: BTreeMap<&User, usize> = BTreeMap::new();
        for user in inside {
            *theirs.entry(user).or_default() += 1;
        }
        for lane in &mut self.lanes {
            lane.room = jobs.saturating_sub(theirs.get(lane.user).copied().unwrap_or(0));
        }
    }

    /// Whose turn it is among the users who have room.
    pub(super) fn next(&self) -> Option<Turn<'a>> {
        let lanes = || self.lanes.iter().enumerate().filter(|(_, lane)| lane.room > 0);
        let of_class = |class: usize| {
            let heads = lanes().filter_map(move |(index, lane)| {
                let job = *lane.jobs[class].front()?;
                let quantum = job.cost.work().saturating_sub(lane.credit);
                Some(Turn { job, lane: index, class, quantum })
            });
            // At equal need the turn passes on: first the users after the last one, then the others.
            heads.min_by_key(|turn| (turn.quantum, turn.lane < self.first, turn.lane))
        };
        of_class(0).or_else(|| of_class(1))
    }

    /// Gives everyone the quantum of that turn, and takes its job out and its work from its user.
    pub(super) fn take(&mut self, turn: Turn<'a>) -> &'a Waiting {
        let Turn { job, lane, class, quantum } = turn;
        let waiting = |lane: &&mut Lane<'_>| lane.room > 0 && !lane.jobs[class].is_empty();
        for lane in self.lanes.iter_mut().filter(waiting) {
            lane.credit = lane.credit.saturating_add(quantum);
        }
        let lane = &mut self.lanes[lane];
        lane.credit = lane.credit.saturating_sub(job.cost.work());
        lane.room -= 1;
        lane.jobs[class].pop_front();
        (self.first, self.last) = (turn.lane + 1, Some(lane.user));
        job
    }

    /// The credits of those who have a job left.
    pub(super) fn credits(self) -> Credits {
        let left = self.lanes.iter().filter(|lane| lane.jobs.iter().any(|jobs| !jobs.is_empty()));
        let work = left.filter(|lane| lane.credit > 0).map(|lane| (lane.user.clone(), lane.credit));
        Credits { work: work.collect(), last: self.last.cloned() }
    }
}
