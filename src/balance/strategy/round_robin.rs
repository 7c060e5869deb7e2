//! Each backend in turn.

use super::super::Slot;

#[derive(Debug)]
pub(in crate::balance) struct RoundRobin {
    next: usize,
}

impl RoundRobin {
    pub(super) fn new(first: usize) -> RoundRobin {
        RoundRobin { next: first }
    }

    pub(super) fn pick(&mut self, slots: &[Slot]) -> Option<usize> {
        if slots.is_empty() {
            return None;
        }
        let slot = self.next % slots.len();
        self.next = slot + 1;
        Some(slot)
    }
}
