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
        let slot = if self.next < slots.len() { self.next } else { 0 };
        self.next = slot + 1;
        (slot < slots.len()).then_some(slot)
    }
}
