//! The health of backends: the results of requests and probes, and the times of the probes.
//!
//! ```text
//! Unproven, Added ──a response, or a passed probe──▶ Healthy
//! Added ──no backend is up, or there are no probes──▶ Unproven
//! Unproven, Added, Healthy ──`fails` failures in a row, of requests or of probes──▶ Down
//! Down ──`passes` passed probes in a row──▶ Healthy
//! Down ──there are no probes, and some time has passed──▶ Unproven, one failure from Down
//! ```
//!
//! Backends of the first plan begin Unproven, and later ones begin Added.
//!
//! Failures of requests and of probes are counted apart, so a backend that serves requests and fails each probe goes
//! down, and so does the reverse.

use super::Balancer;
use super::cells::State;
use crate::limits::{PROBE_JITTER, PROBE_LOOK_US, UNPROBED_US};

/// A change of a backend's state by a probe, with the number of equal results in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The backend gets requests again.
    Up(u64),
    /// The backend gets no more requests.
    Down(u64),
}

impl Balancer {
    /// Notes a failed exchange. Returns the number of failures in a row if the backend is down now.
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

    /// Notes a proper response of a backend.
    pub fn succeeded(&mut self, slot: usize) {
        self.cells.succeed(slot);
    }

    /// Notes the result of a probe. Returns the change that it causes.
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

    /// Returns when `take_probes` is to be called next, in microseconds.
    pub fn next_probe_us(&self) -> u64 {
        if self.members.is_empty() { u64::MAX } else { self.next_probe_us }
    }

    /// Takes the slots of the probes that are due and that no other worker has taken.
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
            // A time further away than the interval comes from former rules.
            if due_us <= now_us || due_us > now_us.saturating_add(interval_us) {
                again_us = now_us + interval_us - self.random.below(interval_us / PROBE_JITTER);
                if self.cells.claim_probe(slot, due_us, again_us) && due_us <= now_us {
                    taken.push(slot);
                }
            }
            next_us = next_us.min(again_us);
        }
        // Workers look at different times, and no worker looks again at once.
        self.next_probe_us = next_us.max(now_us + PROBE_LOOK_US) + self.random.below(PROBE_LOOK_US);
    }

    /// Without probes, tries backends again that have been down for a while.
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
