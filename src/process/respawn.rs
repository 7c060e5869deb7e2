//! When a dead worker is replaced. Pure.
//!
//! A worker that lived for a while is replaced at once. Deaths in a row that each came early are
//! delayed more and more, the first not at all, and at the last of them the master gives up.

use std::time::Duration;

use crate::limits::{RESPAWN_DEATHS, RESPAWN_DELAY_MOST_US, RESPAWN_DELAY_US, STEADY_LIFE_US};

/// What is to be done about a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Replace the worker after this long.
    Respawn(Duration),
    /// Workers die of how they start: end everything.
    GiveUp,
}

/// The history of one worker's place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Respawn {
    early_deaths: u32,
}

impl Respawn {
    /// Tells of a death after a life of `lived`.
    pub(super) fn died(&mut self, lived: Duration) -> Verdict {
        if lived >= Duration::from_micros(STEADY_LIFE_US) {
            self.early_deaths = 0;
            return Verdict::Respawn(Duration::ZERO);
        }
        self.early_deaths += 1;
        match self.early_deaths {
            RESPAWN_DEATHS.. => Verdict::GiveUp,
            0 | 1 => Verdict::Respawn(Duration::ZERO),
            deaths => {
                let delay_us = RESPAWN_DELAY_US.saturating_mul(1 << (deaths - 2)).min(RESPAWN_DELAY_MOST_US);
                Verdict::Respawn(Duration::from_micros(delay_us))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: Duration = Duration::from_millis(999);
    const STEADY: Duration = Duration::from_secs(1);

    #[test]
    fn early_deaths_are_delayed_more_and_more_until_it_gives_up() {
        let mut place = Respawn::default();
        for delay_ms in [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert_eq!(place.died(EARLY), Verdict::Respawn(Duration::from_millis(delay_ms)));
        }
        assert_eq!(place.died(EARLY), Verdict::GiveUp);
    }

    #[test]
    fn a_steady_life_wipes_out_early_deaths() {
        let mut place = Respawn::default();
        for _ in 0..RESPAWN_DEATHS - 1 {
            place.died(EARLY);
        }
        assert_eq!(place.died(STEADY), Verdict::Respawn(Duration::ZERO));
        assert_eq!(place.died(EARLY), Verdict::Respawn(Duration::ZERO));
        assert_eq!(place.died(EARLY), Verdict::Respawn(Duration::from_millis(100)));
    }
}
