//! At random by weight: a number below the sum of weights falls into one backend's share.

use super::super::Slot;
use crate::collections::random::Random;

#[derive(Debug)]
pub(in crate::balance) struct ByWeight {
    /// Where each backend's share ends.
    ends: Vec<u64>,
}

impl ByWeight {
    pub(super) fn new(slots: &[Slot]) -> ByWeight {
        let mut sum = 0;
        let ends = slots.iter().map(|slot| {
            sum += u64::from(slot.weight);
            sum
        });
        ByWeight { ends: ends.collect() }
    }

    pub(super) fn pick(&self, random: &mut Random) -> Option<usize> {
        let at = random.below(*self.ends.last()?);
        Some(self.ends.partition_point(|&end| end <= at))
    }
}
