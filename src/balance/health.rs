//! Whether backends are fit: what requests and probes tell of them, and whose probe is due.
//!
//! ```text
//! Unproven, Added ──an answer, or a probe passed──▶ Healthy
//! Added ──where none is up, or there are no probes──▶ Unproven
//! Unproven, Added, Healthy ──`fails` failures in a row, of requests or of probes──▶ Down
//! Down ──`passes` probes passed in a row──▶ Healthy
//! Down ──where there are no probes: after a while──▶ Unproven, one failure from Down
//! ```
//!
//! Backends begin Unproven with the program, and Added later on.
//!
//! Failures of requests and of probes are counted apart: a backend that answers requests and fails
//! each probe is meant to be taken out, and the other way round.

use super::Balancer;
use super::cells::State;
use crate::limits::{PROBE_JITTER, PROBE_LOOK_US, UNPROBED_US};

/// A change of a backend's state that a probe has brought, and after how many in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets requests again.
    Up(u64),
    /// It gets none any more.
    Down(u64),
}

impl Balancer {
    /// An exchange has failed by its backend's fault. If the backend is down now: after how many in a row.
    pub fn failed(&mut self, slot: usize, now_us: u64) -> Option<u64> {
        let failures = self.cells.fail(slot);
        if failures >= u64::from(self.rules.fails) && self.cells.take_down(slot, now_us) {
            self.look_at_health(now_us);
            if self.rules.interval_us == 0 {
                self.next_probe_us = self.next_probe_us.min(now_us.saturating_add(UNPROBED_US));
            }
            return Some(failures);
        }
        None
    }

    /// A backend has answered as it should.
    pub fn succeeded(&mut self, slot: usize) {
        self.cells.succeed(slot);
    }

    /// A probe has passed, or has not; the change that this brings, if any.
    pub fn probed(&mut self, slot: usize, passed: bool, now_us: u64) -> Option<Change> {
        let count = self.cells.probed(slot, passed);
        let change = match passed {
            true if self.cells.state(slot) != State::Down => {
                self.cells.prove(slot);
                None
            }
            true if count >= u64::from(self.rules.passes) => {
                self.cells.bring_up(slot, now_us).then_some(Change::Up(count))
            }
            false if count >= u64::from(self.rules.fails) => {
                self.cells.take_down(slot, now_us).then_some(Change::Down(count))
            }
            _ => None,
        };
        self.look_at_health(now_us);
        change
    }

    /// When `take_probes` is to be asked next, in microseconds.
    pub fn next_probe_us(&self) -> u64 {
        if self.members.is_empty() { u64::MAX } else { self.next_probe_us }
    }

    /// Takes the probes upon itself that are due and that no other worker has taken: their slots.
    pub fn take_probes(&mut self, now_us: u64, taken: &mut Vec<usize>) {
        if now_us < self.next_probe_us {
            return;
        }
        let interval_us = self.rules.interval_us;
        if interval_us == 0 {
            return self.give_chances(now_us);
        }
        let mut next_us = u64::MAX;
        for at in 0..self.members.len() {
            let slot = usize::from(self.members[at].slot);
            let due_us = self.cells.probe_due_us(slot);
            let mut again_us = due_us;
            // One further away than the interval is due by rules that do not hold any more.
            if due_us <= now_us || due_us > now_us.saturating_add(interval_us) {
                again_us = now_us + interval_us - self.random.below(interval_us / PROBE_JITTER);
                if self.cells.claim_probe(slot, due_us, again_us) && due_us <= now_us {
                    taken.push(slot);
                }
            }
            next_us = next_us.min(again_us);
        }
        // Not all workers at once; and not at once again, whatever is due.
        self.next_probe_us = next_us.max(now_us + PROBE_LOOK_US) + self.random.below(PROBE_LOOK_US);
    }

    /// Where nothing is probed: tries those again that have been down for a while.
    pub(super) fn give_chances(&mut self, now_us: u64) {
        self.next_probe_us = u64::MAX;
        for member in &self.members {
            let slot = usize::from(member.slot);
            if self.cells.state(slot) == State::Down {
                let due_us = self.cells.changed_us(slot).saturating_add(UNPROBED_US);
                if due_us <= now_us {
                    self.cells.give_chance(slot, self.rules.fails.into(), now_us);
                } else {
                    self.next_probe_us = self.next_probe_us.min(due_us);
                }
            }
        }
    }
}
