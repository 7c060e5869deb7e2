//! The rotation: the slots that a strategy picks from, their weights, and their order.
//!
//! A cycle has as many turns as the sum of weights, and each slot has as many of them as its weight, so every cycle
//! is exact. The order is smooth: the turns of a heavy slot lie between those of others. It is precomputed if that
//! costs little (smooth weighted round robin, as in nginx: 5 and 1 give a a a b a a). Otherwise it is computed for
//! each turn. The shares lie side by side on a ring with the length of the cycle, and each turn advances by a step
//! near the golden section of the ring. The step and the length have no common divisor, so a cycle visits every point
//! once, and consecutive steps are far apart.

use crate::limits::ORDERED_STEPS;

/// The slots of the rotation. Weights are kept without their common divisor.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    slots: Vec<u16>,
    /// The end of each slot's share. The last one is the sum of weights.
    ends: Vec<u64>,
    /// An index into `ends`: for every 2^`shift` points, the turn whose share contains the first of them.
    guide: Vec<u16>,
    /// The number of points for each entry of `guide`, as a power of two.
    shift: u32,
    step: u64,
    /// The turns of a cycle in order; empty if they are not precomputed.
    order: Vec<u16>,
    /// Memory for computing the order.
    credits: Vec<i64>,
}

impl Rotation {
    /// Replaces the slots and their weights.
    pub(super) fn set(&mut self, members: impl Iterator<Item = (u16, u16)>) {
        self.slots.clear();
        self.ends.clear();
        let (mut total, mut divisor) = (0, 0);
        for (slot, weight) in members {
            total += u64::from(weight.max(1));
            divisor = common_divisor(weight.max(1).into(), divisor);
            self.slots.push(slot);
            self.ends.push(total);
        }
        self.ends.iter_mut().for_each(|end| *end /= divisor);
        let total = self.total();
        self.step = step(total);
        self.guide(total);
        self.order(total);
    }

    /// Builds the guide. It has at least one entry for each slot, and at most two for each slot plus one. So an entry
    /// mostly is the turn itself.
    fn guide(&mut self, total: u64) {
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

    /// Precomputes the order of a cycle, unless that takes too many steps.
    fn order(&mut self, total: u64) {
        let count = self.slots.len();
        self.order.clear();
        if total == count as u64 {
            return self.order.extend(0..count as u16);
        } else if total * count as u64 > ORDERED_STEPS {
            return;
        }
        self.credits.clear();
        self.credits.resize(count, 0);
        for _ in 0..total {
            // Each slot gains its weight, and the richest one pays for all.
            let mut richest = 0;
            for turn in 0..count {
                self.credits[turn] += self.weight(turn) as i64;
                if self.credits[turn] > self.credits[richest] {
                    richest = turn;
                }
            }
            self.credits[richest] -= total as i64;
            self.order.push(richest as u16);
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

    /// Returns the turn for a number that counts picks.
    pub(super) fn rotated(&self, ticket: u64) -> usize {
        if self.order.is_empty() {
            let total = self.total();
            // Both factors are below the sum of 1,024 weights of 16 bits, so the product does not overflow.
            self.of_share(ticket % total * self.step % total)
        } else {
            self.order[(ticket % self.order.len() as u64) as usize].into()
        }
    }

    /// Returns the turn whose share contains a point below the sum of weights.
    pub(super) fn of_share(&self, point: u64) -> usize {
        let mut turn = usize::from(self.guide[(point >> self.shift) as usize]);
        while self.ends[turn] <= point {
            turn += 1;
        }
        turn
    }
}

/// Returns the smallest number from the golden section of `total` on that has no common divisor with it.
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

    /// Returns the slots of a cycle as letters.
    fn cycle(weights: &[u16]) -> String {
        let mut turns = Rotation::default();
        turns.set(weights.iter().enumerate().map(|(slot, &weight)| (slot as u16, weight)));
        (0..turns.total()).map(|ticket| char::from(b'a' + turns.rotated(ticket) as u8)).collect()
    }

    #[test]
    fn turns_are_interleaved_by_weight() {
        for (weights, order) in [
            (&[1, 1, 1][..], "abc"),
            (&[7, 7, 7], "abc"),
            (&[5, 1], "aaabaa"),
            (&[10, 2], "aaabaa"),
            (&[5, 1, 1], "aabacaa"),
            (&[3, 2, 1], "abacba"),
            (&[1, 9], "bbbbabbbbb"),
            (&[4], "a"),
        ] {
            assert_eq!(cycle(weights), order, "{weights:?}");
        }
        // The cycle is too long to be precomputed, and still has no burst.
        let long = cycle(&[40_001, 20_000, 10_000]);
        assert!(!long.contains("aaaa") && !long.contains("bb") && !long.contains("cc"));
        assert_eq!(long.matches('a').count(), 40_001);
    }

    #[test]
    fn shares_lie_end_to_end() {
        let mut turns = Rotation::default();
        turns.set([(7, 2), (3, 1), (9, 5)].into_iter());
        let points: Vec<u16> = (0..turns.total()).map(|point| turns.at(turns.of_share(point))).collect();
        assert_eq!(points, [7, 7, 3, 9, 9, 9, 9, 9]);
        assert_eq!((turns.weight(0), turns.weight(1), turns.weight(2)), (2, 1, 5));
        for weights in [vec![1; 1000], vec![65_535; 1024], (1..500).collect(), vec![1, 65_535, 1], vec![7]] {
            turns.set(weights.iter().enumerate().map(|(slot, &weight)| (slot as u16, weight)));
            assert!(turns.guide.len() <= 2 * weights.len() + 1, "{} entries", turns.guide.len());
            for point in (0..turns.total()).step_by(1 + turns.total() as usize / 5000).chain([turns.total() - 1]) {
                let turn = turns.ends.partition_point(|&end| end <= point);
                assert_eq!(turns.of_share(point), turn);
            }
        }
    }
}
