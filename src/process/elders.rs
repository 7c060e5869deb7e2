//! Workers of programs before upgrades: they serve on until the new ones accept, are then told to
//! drain, and are not replaced when they end.
//!
//! A few generations of them may drain at once. Past that the oldest is told again, which ends it.

use std::fmt;

use super::handover::Elder;
use super::{Ended, Journal};
use crate::limits::{DRAIN_GRACE_US, GENERATIONS};
use crate::log::Level;
use crate::shared::Region;
use crate::sys::fork::{self, Pid};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Elders {
    elders: Vec<Elder>,
    /// Generations up to this one have been ended.
    ended: Option<u64>,
    /// The whole process ends, and they with it.
    stopping: bool,
    /// When those drain that go on accepting until then, in microseconds; 0 where there are none.
    drain_us: u64,
    /// One was cut off, or failed, since then.
    unclean: bool,
}

impl Elders {
    pub(super) fn new(elders: Vec<Elder>) -> Elders {
        Elders { elders, ended: None, stopping: false, drain_us: 0, unclean: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.elders.is_empty()
    }

    /// Whether none was cut off since `stop`.
    pub(super) fn is_clean(&self) -> bool {
        !self.unclean
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Elder> {
        self.elders.iter()
    }

    /// Adds one that goes on as it was, as the program is about to become another.
    pub(super) fn add(&mut self, elder: Elder) {
        self.elders.push(elder);
    }

    /// Takes the youngest away again.
    pub(super) fn take_back(&mut self) -> Option<Elder> {
        self.elders.pop()
    }

    /// The workers of a generation have taken over: those of before drain.
    pub(super) fn give_place_to(&mut self, generation: u64, journal: &mut Journal, now_us: u64) {
        self.retire(journal, now_us);
        let version = env!("CARGO_PKG_VERSION");
        let text = format_args!("done: version {version} has taken over (generation {generation})");
        journal.line(Level::Info, "upgrade", text);
    }

    /// Has those drain that do not yet, and ends the oldest where there are too many.
    pub(super) fn retire(&mut self, journal: &mut Journal, now_us: u64) {
        for elder in self.elders.iter_mut().filter(|elder| elder.retired_us.is_none()) {
            elder.retired_us = Some(now_us);
            fork::retire(Pid::of_child(elder.pid));
        }
        let mut generations: Vec<u64> = self.elders.iter().map(|elder| elder.generation).collect();
        generations.sort_unstable();
        generations.dedup();
        let Some(&last) = generations.len().checked_sub(GENERATIONS + 1).and_then(|at| generations.get(at)) else {
            return;
        };
        for elder in self.elders.iter().filter(|elder| elder.generation <= last) {
            if self.ended.is_none_or(|ended| elder.generation > ended) {
                let Elder { pid, generation, .. } = elder;
                let draining = generations.len();
                let text = format_args!(
                    "generation {generation} is the oldest of {draining} that still drain, and {GENERATIONS} may: its worker (pid {pid}) is ended"
                );
                journal.line(Level::Warn, "upgrade", text);
                // Told a second time, a worker stops.
                fork::drain(Pid::of_child(elder.pid));
            }
        }
        self.ended = self.ended.max(Some(last));
    }

    /// The whole process ends: those that accept do so for `delay_us` more, and drain then.
    pub(super) fn stop(&mut self, delay_us: u64, now_us: u64) {
        self.stopping = true;
        for elder in self.elders.iter_mut().filter(|elder| elder.retired_us.is_none()) {
            self.drain_us = now_us.saturating_add(delay_us);
            elder.retired_us = Some(self.drain_us);
            fork::drain(Pid::of_child(elder.pid));
        }
    }

    /// A child has ended; whether it was one of these. What it had in the shared memory is taken back.
    pub(super) fn bury(
        &mut self,
        dead: Pid,
        ended: fork::Ended,
        region: Option<Region>,
        journal: &mut Journal,
    ) -> bool {
        let Some(at) = self.elders.iter().position(|elder| elder.pid == dead.number()) else { return false };
        let elder = self.elders.swap_remove(at);
        if let (Some(region), Some(seat)) = (region, elder.seat) {
            region.settle(seat);
        }
        let who = Who(elder);
        match ended {
            fork::Ended::Status(status) if status == Ended::Drained as i32 => {
                journal.line(Level::Debug, "upgrade", format_args!("{who} has drained"));
            }
            // It has told how many itself.
            fork::Ended::Status(status) if status == Ended::Cut as i32 => self.unclean |= self.stopping,
            _ => {
                self.unclean |= self.stopping;
                journal.line(Level::Warn, "upgrade", format_args!("{who} died: {ended}"));
            }
        }
        true
    }

    /// When `expire` is to be called, in microseconds.
    pub(super) fn next_us(&self, drain_us: u64) -> u64 {
        let begin_us = if self.drain_us == 0 { u64::MAX } else { self.drain_us };
        let ends_us = self.elders.iter().map(|elder| Elders::until_us(elder, drain_us));
        ends_us.min().unwrap_or(u64::MAX).min(begin_us)
    }

    fn until_us(elder: &Elder, drain_us: u64) -> u64 {
        elder
            .retired_us
            .map_or(u64::MAX, |retired_us| retired_us.saturating_add(drain_us).saturating_add(DRAIN_GRACE_US))
    }

    /// Has those drain whose delay has passed, and kills those that have taken too long to.
    pub(super) fn expire(&mut self, drain_us: u64, now_us: u64, journal: &mut Journal) {
        if self.drain_us != 0 && now_us >= self.drain_us {
            let delayed = self.elders.iter().filter(|elder| elder.retired_us == Some(self.drain_us));
            delayed.for_each(|elder| fork::retire(Pid::of_child(elder.pid)));
            self.drain_us = 0;
        }
        for elder in &mut self.elders {
            if now_us >= Elders::until_us(elder, drain_us) {
                journal.line(Level::Warn, "upgrade", format_args!("{} runs past the drain time: killed", Who(*elder)));
                // It is looked at again only should that not have ended it.
                elder.retired_us = Some(now_us);
                fork::kill(Pid::of_child(elder.pid));
            }
        }
    }

    /// Kills all of them.
    pub(super) fn kill_all(&mut self) {
        self.unclean |= self.stopping && !self.elders.is_empty();
        self.elders.iter().for_each(|elder| fork::kill(Pid::of_child(elder.pid)));
    }
}

/// An elder in a line of log.
struct Who(Elder);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a worker of generation {} (pid {})", self.0.generation, self.0.pid)
    }
}
