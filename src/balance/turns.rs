//! Who takes turns: the slots that a strategy picks from, their shares laid end to end.

/// Slots that take turns. See `strategy::weighted` for what the step is for.
#[derive(Debug, Default)]
pub(super) struct Turns {
    slots: Vec<u16>,
    /// Where each one's share ends; the last is the sum of weights.
    ends: Vec<u64>,
    /// For every so many points, the turn in whose share the first of them lies: where to look from.
    guide: Vec<u16>,
    /// How many points have one entry there, as a power of two.
    shift: u32,
    step: u64,
}

impl Turns {
    /// Takes others, with their weights, in place of those before.
    pub(super) fn set(&mut self, members: impl Iterator<Item = (u16, u16)>) {
        self.slots.clear();
        self.ends.clear();
        let mut total = 0;
        for (slot, weight) in members {
            total += u64::from(weight.max(1));
            self.slots.push(slot);
            self.ends.push(total);
        }
        self.step = step(total);
        // At least an entry for each turn, and less than two and one more: so mostly it is the turn sought.
        self.shift = (total / self.slots.len().max(1) as u64).max(1).ilog2();
        self.guide.clear();
        let mut turn = 0;
        for point in (0..total).step_by(1 << self.shift) {
            while self.ends[turn] <= point {
                turn += 1;
            }
            self.guide.push(turn as u16);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn at(&self, turn: usize) -> u16 {
        self.slots[turn]
    }

    pub(super) fn weight(&self, turn: usize) -> u64 {
        self.ends[turn] - turn.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    pub(super) fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// The slot in whose share a point below the sum of weights lies.
    pub(super) fn by_share(&self, point: u64) -> u16 {
        let mut turn = usize::from(self.guide[(point >> self.shift) as usize]);
        while self.ends[turn] <= point {
            turn += 1;
        }
        self.slots[turn]
    }
}

/// The number nearest to the golden section of `total`, from above, that has no divisor with it.
fn step(total: u64) -> u64 {
    let from = (total as f64 * 0.618_033_988_749_895) as u64;
    (from.max(1)..=total.max(1)).find(|&step| common_divisor(step, total) == 1).unwrap_or(1)
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_met_once_in_a_cycle() {
        for total in (1..500).chain([65_535, 1_000_000]) {
            let step = step(total);
            assert_eq!(common_divisor(step, total), 1, "{total}");
            assert!(total < 100 || step * 10 > total * 6 && step * 10 < total * 8, "{total}: {step}");
        }
    }

    #[test]
    fn shares_lie_end_to_end() {
        let mut turns = Turns::default();
        turns.set([(7, 2), (3, 1), (9, 5)].into_iter());
        let points: Vec<u16> = (0..turns.total()).map(|point| turns.by_share(point)).collect();
        assert_eq!(points, [7, 7, 3, 9, 9, 9, 9, 9]);
        assert_eq!((turns.weight(0), turns.weight(1), turns.weight(2)), (2, 1, 5));
        for weights in [vec![1; 1000], vec![65_535; 1024], (1..500).collect(), vec![1, 65_535, 1], vec![7]] {
            turns.set(weights.iter().enumerate().map(|(slot, &weight)| (slot as u16, weight)));
            assert!(turns.guide.len() <= 2 * weights.len() + 1, "{} entries", turns.guide.len());
            for point in (0..turns.total()).step_by(1 + turns.total() as usize / 5000).chain([turns.total() - 1]) {
                let turn = turns.ends.partition_point(|&end| end <= point);
                assert_eq!(usize::from(turns.by_share(point)), turn);
            }
        }
    }
}
