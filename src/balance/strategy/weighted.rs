//! In turn by weight, interleaved: at each pick every backend earns its weight, and the one
//! with the most pays the sum of all weights. Exact over a cycle of that many picks.

use super::super::Slot;

#[derive(Debug)]
pub(in crate::balance) struct Weighted {
    credit: Vec<i64>,
    total: i64,
}

impl Weighted {
    pub(super) fn new(slots: &[Slot]) -> Weighted {
        Weighted { credit: vec![0; slots.len()], total: slots.iter().map(|slot| i64::from(slot.weight)).sum() }
    }

    pub(super) fn pick(&mut self, slots: &[Slot]) -> Option<usize> {
        let mut best = None;
        for (index, (credit, slot)) in self.credit.iter_mut().zip(slots).enumerate() {
            *credit += i64::from(slot.weight);
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((index, *credit));
            }
        }
        let (index, _) = best?;
        self.credit[index] -= self.total;
        Some(index)
    }
}
