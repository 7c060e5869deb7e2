//! The strategies: one file for each, and a line for each in [`Strategy::ALL`].

pub(super) mod hash;
mod least_requests;
mod random;
mod round_robin;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::cells::Cells;
use super::rotation::Rotation;
use crate::collections::random::Random;

/// The inputs of a strategy.
pub(super) struct View<'a> {
    /// The rotation, which is never empty.
    pub(super) rotation: &'a Rotation,
    /// The number of picks, of all workers together.
    pub(super) turn: &'static AtomicU64,
    pub(super) cells: Cells,
    pub(super) random: &'a mut Random,
}

impl View<'_> {
    /// Returns a number that no other pick of the group gets. The numbers are consecutive.
    fn ticket(&self) -> u64 {
        self.turn.fetch_add(1, Relaxed)
    }
}

/// The strategy of a pick.
#[derive(Clone, Copy)]
pub struct Strategy {
    /// The name on the command line.
    pub name: &'static str,
    /// Returns the slot of a backend of the rotation.
    pub(super) pick: fn(&mut View<'_>) -> u16,
}

impl Strategy {
    /// All strategies; the first is the default.
    pub const ALL: [Strategy; 4] = [
        Strategy { name: "round_robin", pick: round_robin::pick },
        Strategy { name: "random", pick: random::pick },
        Strategy { name: "least_requests", pick: least_requests::pick },
        // A request with a hash is picked by it (`Want::hash`), and any other one by turn.
        Strategy { name: "hash", pick: round_robin::pick },
    ];

    /// The names with their strategies. `weighted` is another name for `round_robin`.
    pub const NAMES: [(&'static str, Strategy); Strategy::ALL.len() + 1] = {
        let mut names = [("weighted", Strategy::ALL[0]); Strategy::ALL.len() + 1];
        let mut at = 0;
        while at < Strategy::ALL.len() {
            // The second place has the other name.
            let place = if at == 0 { 0 } else { at + 1 };
            names[place] = (Strategy::ALL[at].name, Strategy::ALL[at]);
            at += 1;
        }
        names
    };

    /// Returns the strategy that picks by the hash of a part of the request.
    pub fn by_hash() -> Strategy {
        Strategy::ALL[3]
    }

    /// Returns the strategy with a name.
    pub fn named(name: &str) -> Option<Strategy> {
        Strategy::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, strategy)| strategy)
    }
}

impl Default for Strategy {
    fn default() -> Strategy {
        Strategy::ALL[0]
    }
}

/// Names are unique, so they identify strategies.
impl PartialEq for Strategy {
    fn eq(&self, other: &Strategy) -> bool {
        self.name == other.name
    }
}

impl Eq for Strategy {}

impl std::fmt::Debug for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
