//! The strategies: one file each, and a line each in the tables here.

mod least_requests;
mod random;
mod round_robin;
mod weighted;

use super::Slot;
use crate::collections::random::Random;

/// How a backend is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Each in turn.
    RoundRobin,
    /// In turn, by weight, interleaved.
    Weighted,
    /// At random, by weight.
    Random,
    /// The less busy, for its weight, of two picked at random.
    LeastRequests,
}

impl Strategy {
    /// All strategies with the names that the command line accepts.
    pub const NAMES: [(&'static str, Strategy); 4] = [
        ("round_robin", Strategy::RoundRobin),
        ("weighted", Strategy::Weighted),
        ("random", Strategy::Random),
        ("least_requests", Strategy::LeastRequests),
    ];
}

/// A strategy at work, with what it remembers.
#[derive(Debug)]
pub(super) enum Picker {
    RoundRobin(round_robin::RoundRobin),
    Weighted(weighted::Weighted),
    Random(random::ByWeight),
    LeastRequests,
}

impl Picker {
    pub(super) fn new(strategy: Strategy, slots: &[Slot], first: usize) -> Picker {
        match strategy {
            Strategy::RoundRobin => Picker::RoundRobin(round_robin::RoundRobin::new(first)),
            Strategy::Weighted => Picker::Weighted(weighted::Weighted::new(slots)),
            Strategy::Random => Picker::Random(random::ByWeight::new(slots)),
            Strategy::LeastRequests => Picker::LeastRequests,
        }
    }

    pub(super) fn pick(&mut self, slots: &[Slot], random: &mut Random) -> Option<usize> {
        match self {
            Picker::RoundRobin(strategy) => strategy.pick(slots),
            Picker::Weighted(strategy) => strategy.pick(slots),
            Picker::Random(strategy) => strategy.pick(random),
            Picker::LeastRequests => least_requests::pick(slots, random),
        }
    }
}
