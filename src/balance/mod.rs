//! Which backend gets a request. Pure: it knows slots by number, what they weigh and how busy
//! they are, and is told how each request went.

pub mod strategy;

use crate::collections::random::Random;
use strategy::{Picker, Strategy};

/// What a strategy may know about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The configured weight, 1 or more.
    pub weight: u16,
    /// Requests given to it and not reported back yet.
    pub in_flight: u32,
}

/// Picks backends by one strategy.
#[derive(Debug)]
pub struct Balancer {
    slots: Vec<Slot>,
    picker: Picker,
    random: Random,
}

impl Balancer {
    /// A balancer over backends of these weights. Workers get different seeds, so that they
    /// begin at different backends.
    pub fn new(strategy: Strategy, weights: impl IntoIterator<Item = u16>, seed: u64) -> Balancer {
        let slots: Vec<Slot> = weights.into_iter().map(|weight| Slot { weight: weight.max(1), in_flight: 0 }).collect();
        let mut random = Random::new(seed);
        let first = random.below(slots.len() as u64) as usize;
        Balancer { picker: Picker::new(strategy, &slots, first), slots, random }
    }

    /// A backend for a request, other than those in `tried`; `None` where none is left.
    /// `finished` must follow for each.
    pub fn pick(&mut self, tried: &[u16]) -> Option<usize> {
        let picked = self.picker.pick(&self.slots, &mut self.random).filter(|slot| !is_tried(tried, *slot));
        // A strategy that names one tried before has had its say: any other will do.
        let slot = picked.or_else(|| {
            let start = self.random.below(self.slots.len() as u64) as usize;
            (0..self.slots.len()).map(|n| (start + n) % self.slots.len()).find(|slot| !is_tried(tried, *slot))
        })?;
        self.slots[slot].in_flight += 1;
        Some(slot)
    }

    /// Says that a picked backend is done with its request, however that went.
    pub fn finished(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.in_flight = slot.in_flight.saturating_sub(1);
        }
    }
}

fn is_tried(tried: &[u16], slot: usize) -> bool {
    tried.iter().any(|&before| usize::from(before) == slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(strategy: Strategy, weights: &[u16], picks: usize) -> Vec<usize> {
        let mut balancer = Balancer::new(strategy, weights.iter().copied(), 1);
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            let slot = balancer.pick(&[]).unwrap();
            counts[slot] += 1;
            balancer.finished(slot);
        }
        counts
    }

    #[test]
    fn round_robin_is_even_and_weighted_is_exact() {
        assert_eq!(counts(Strategy::RoundRobin, &[1, 9, 1], 300), [100, 100, 100]);
        assert_eq!(counts(Strategy::Weighted, &[1, 2, 5], 800), [100, 200, 500]);
    }

    #[test]
    fn weighted_interleaves() {
        let mut balancer = Balancer::new(Strategy::Weighted, [5, 1, 1], 1);
        let picks: Vec<usize> = (0..7).map(|_| balancer.pick(&[]).unwrap()).collect();
        assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn random_honours_weight() {
        let counts = counts(Strategy::Random, &[1, 3], 40_000);
        // Chi-squared with one degree of freedom: 10.83 is passed once in a thousand.
        let chi: f64 = counts.iter().zip([10_000.0, 30_000.0]).map(|(&n, e)| (n as f64 - e).powi(2) / e).sum();
        assert!(chi < 10.83, "{counts:?}");
    }

    #[test]
    fn least_requests_prefers_the_less_busy_for_its_weight() {
        let mut balancer = Balancer::new(Strategy::LeastRequests, [1, 1, 2], 1);
        for _ in 0..4000 {
            balancer.pick(&[]).unwrap();
        }
        let busy: Vec<u32> = balancer.slots.iter().map(|slot| slot.in_flight).collect();
        assert!(busy[0].abs_diff(1000) < 60 && busy[1].abs_diff(1000) < 60 && busy[2].abs_diff(2000) < 60, "{busy:?}");
    }

    #[test]
    fn what_was_tried_is_not_picked_again() {
        for strategy in Strategy::NAMES.map(|(_, strategy)| strategy) {
            let mut balancer = Balancer::new(strategy, [1, 1, 1], 3);
            for _ in 0..50 {
                assert_eq!(balancer.pick(&[0, 2]), Some(1));
                assert_eq!(balancer.pick(&[0, 1, 2]), None);
            }
        }
        assert_eq!(Balancer::new(Strategy::RoundRobin, [], 3).pick(&[]), None);
    }
}
