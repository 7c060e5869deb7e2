//! Workers of previous programs: they serve until the new ones accept, then get the signal to drain, and are
//! not replaced when they end.
//!
//! A few generations of them may drain at once. A further one ends the oldest by a second signal.

use std::fmt;

use crate::collections::order;
use crate::limits::{DRAIN_GRACE_US, GENERATIONS};
use crate::log::Level;
use crate::process::child::Ended;
use crate::process::journal::Journal;
use crate::process::upgrade::handover::OldWorker;
use crate::process::upgrade::old_memory::OldMemory;
use crate::shared::Region;
use crate::sys::fork::{self, Pid};

/// All of them.
#[derive(Debug, Default)]
pub(in crate::process) struct OldWorkers {
    old_workers: Vec<OldWorker>,
    /// Generations up to this one have been ended.
    ended: Option<u64>,
    /// The whole process ends, and they with it.
    stopping: bool,
    /// The time at which the accepting ones must drain, in microseconds; `u64::MAX` if there are none.
    drain_at_us: u64,
    /// One was cut off, or failed, since then.
    unclean: bool,
    /// The memory that some use.
    memory: OldMemory,
}

impl OldWorkers {
    /// These workers, and the memory that some of them use.
    pub(in crate::process) fn new(old_workers: Vec<OldWorker>, memory: OldMemory) -> OldWorkers {
        OldWorkers { old_workers, ended: None, stopping: false, drain_at_us: u64::MAX, unclean: false, memory }
    }

    /// The numbers of the memory that some use.
    pub(in crate::process) fn memory(&self) -> Vec<i32> {
        self.memory.ids()
    }

    pub(in crate::process) fn is_empty(&self) -> bool {
        self.old_workers.is_empty()
    }

    /// True if none was cut off since `stop`.
    pub(in crate::process) fn is_clean(&self) -> bool {
        !self.unclean
    }

    pub(in crate::process) fn iter(&self) -> impl Iterator<Item = &OldWorker> {
        self.old_workers.iter()
    }

    /// Adds a worker that continues while the program is replaced.
    pub(in crate::process) fn add(&mut self, old_worker: OldWorker) {
        self.old_workers.push(old_worker);
    }

    /// Takes the youngest away again.
    pub(in crate::process) fn take_back(&mut self) -> Option<OldWorker> {
        self.old_workers.pop()
    }

    /// The workers of a generation have taken over: those of before drain, for `drain_us`.
    pub(in crate::process) fn give_place_to(
        &mut self,
        generation: u64,
        drain_us: u64,
        journal: &mut Journal,
        now_us: u64,
    ) {
        self.retire(drain_us, journal, now_us);
        let version = env!("CARGO_PKG_VERSION");
        let text = format_args!("done: version {version} has taken over (generation {generation})");
        journal.line(Level::Info, "upgrade", text);
    }

    /// Drains those that do not drain yet, for `drain_us`, and ends the oldest if there are too many.
    fn retire(&mut self, drain_us: u64, journal: &mut Journal, now_us: u64) {
        for old_worker in self.old_workers.iter_mut().filter(|old_worker| old_worker.is_accepting()) {
            retire(old_worker, drain_us, now_us);
        }
        let mut generations: Vec<u64> = self.old_workers.iter().map(|old_worker| old_worker.generation).collect();
        order::sort_few(&mut generations, |one, other| one > other);
        generations.dedup();
        let Some(&last) = generations.len().checked_sub(GENERATIONS + 1).and_then(|at| generations.get(at)) else {
            return;
        };
        for old_worker in self.old_workers.iter().filter(|old_worker| old_worker.generation <= last) {
            if self.ended.is_none_or(|ended| old_worker.generation > ended) {
                let OldWorker { pid, generation, .. } = old_worker;
                let draining = generations.len();
                let text = format_args!(
                    "generation {generation} is the oldest of {draining} that still drain, and {GENERATIONS} may: its worker (pid {pid}) is ended"
                );
                journal.line(Level::Warn, "upgrade", text);
                // A second signal stops a worker.
                fork::drain(Pid::of_child(old_worker.pid));
            }
        }
        self.ended = self.ended.max(Some(last));
    }

    /// The whole process ends: those that accept do so for `delay_us` more, and drain then.
    pub(in crate::process) fn stop(&mut self, delay_us: u64, now_us: u64) {
        self.stopping = true;
        self.drain_at_us = now_us.saturating_add(delay_us);
        let accepting = self.old_workers.iter().filter(|old_worker| old_worker.is_accepting());
        accepting.for_each(|old_worker| fork::drain(Pid::of_child(old_worker.pid)));
    }

    /// Handles the end of a child. Returns true if it was an old worker. Its requests in shared memory are
    /// reclaimed.
    pub(in crate::process) fn on_child_exit(
        &mut self,
        dead: Pid,
        ended: fork::Ended,
        region: Option<Region>,
        journal: &mut Journal,
    ) -> bool {
        let Some(at) = self.old_workers.iter().position(|old_worker| old_worker.pid == dead.number()) else {
            return false;
        };
        let old_worker = self.old_workers.swap_remove(at);
        if let (Some(region), Some(record), None) = (region, old_worker.record, old_worker.memory) {
            region.reclaim(record);
        }
        self.memory.worker_ended(&self.old_workers);
        let who = Who(old_worker);
        match ended {
            fork::Ended::Status(status) if status == Ended::Drained as i32 => {
                journal.line(Level::Debug, "upgrade", format_args!("{who} has drained"));
            }
            // The worker itself has logged the number.
            fork::Ended::Status(status) if status == Ended::Cut as i32 => self.unclean |= self.stopping,
            _ => {
                self.unclean |= self.stopping;
                journal.line(Level::Warn, "upgrade", format_args!("{who} died: {ended}"));
            }
        }
        true
    }

    /// The time of the next `expire`, in microseconds.
    pub(in crate::process) fn next_us(&self) -> u64 {
        self.old_workers
            .iter()
            .filter_map(|old_worker| old_worker.until_us)
            .fold(self.drain_at_us.min(self.memory.next_us()), u64::min)
    }

    /// Has those drain, for `drain_us`, whose delay has passed, and kills those that have taken too long to.
    pub(in crate::process) fn expire(&mut self, drain_us: u64, now_us: u64, journal: &mut Journal) {
        self.memory.expire(&self.old_workers, now_us);
        if now_us >= self.drain_at_us {
            self.drain_at_us = u64::MAX;
            // Workers that drain because of an upgrade stop waiting for their idle clients after a second
            // signal.
            let draining = self.old_workers.iter().filter(|old_worker| !old_worker.is_accepting());
            draining.for_each(|old_worker| fork::retire(Pid::of_child(old_worker.pid)));
            self.retire(drain_us, journal, now_us);
        }
        for old_worker in &mut self.old_workers {
            if old_worker.until_us.is_some_and(|until_us| now_us >= until_us) {
                journal.line(
                    Level::Warn,
                    "upgrade",
                    format_args!("{} runs past the drain time: killed", Who(*old_worker)),
                );
                // It is looked at again only should that not have ended it.
                old_worker.until_us = Some(now_us.saturating_add(DRAIN_GRACE_US));
                fork::kill(Pid::of_child(old_worker.pid));
            }
        }
    }

    /// Makes all of them cut their requests and end.
    pub(in crate::process) fn stop_at_once(&mut self, now_us: u64) {
        self.drain_at_us = u64::MAX;
        for old_worker in &mut self.old_workers {
            old_worker.until_us = Some(now_us.saturating_add(DRAIN_GRACE_US));
            // A second signal stops a worker.
            fork::drain(Pid::of_child(old_worker.pid));
        }
    }

    /// Kills all of them.
    pub(in crate::process) fn kill_all(&mut self) {
        self.unclean |= self.stopping && !self.old_workers.is_empty();
        self.old_workers.iter().for_each(|old_worker| fork::kill(Pid::of_child(old_worker.pid)));
    }
}

/// Drains a worker for `drain_us`. Its deadline is fixed now, as it is in the worker itself: a drain time that
/// is reloaded applies to later drains.
pub(in crate::process) fn retire(worker: &mut OldWorker, drain_us: u64, now_us: u64) {
    worker.until_us = Some(now_us.saturating_add(drain_us).saturating_add(DRAIN_GRACE_US));
    fork::retire(Pid::of_child(worker.pid));
}

/// An old worker in a line of log.
struct Who(OldWorker);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a worker of generation {} (pid {})", self.0.generation, self.0.pid)
    }
}
