//! Decides when a dead worker is replaced. Pure.
//!
//! A worker that never accepted died because of its start. Consecutive deaths of this kind are delayed more and
//! more, except the first, and after the last of them the master gives up. A worker that did accept is replaced
//! at once. If it died again soon, for example because of a request that kills every worker, the replacement
//! waits for a pause that clients hardly notice and that protects the machine. A service whose workers accept
//! never ends for this reason.
//!
//! A failed fork is not a death: it is repeated after the same pauses, without limit.

use std::time::Duration;

use crate::limits::{RESPAWN_DEATHS, RESPAWN_DELAY_MOST_US, RESPAWN_DELAY_US, RESPAWN_PAUSE_US, STEADY_LIFE_US};

/// The way in which a worker's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) enum Death {
    /// It never accepted.
    Early,
    /// It had accepted, and lived this long.
    Serving(Duration),
}

/// The reaction to a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) enum Verdict {
    /// Replace the worker after this long.
    Respawn(Duration),
    /// Workers die of how they start: end everything.
    GiveUp,
}

/// The history of one worker's place.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::process) struct Respawn {
    early_deaths: u32,
    failed_forks: u32,
    /// The last one died soon after it accepted.
    hurt: bool,
}

impl Respawn {
    /// Records a death.
    pub(in crate::process) fn died(&mut self, death: Death) -> Verdict {
        self.failed_forks = 0;
        match death {
            Death::Serving(lived) => {
                self.early_deaths = 0;
                let soon = lived < Duration::from_micros(STEADY_LIFE_US);
                let again = std::mem::replace(&mut self.hurt, soon) && soon;
                Verdict::Respawn(Duration::from_micros(if again { RESPAWN_PAUSE_US } else { 0 }))
            }
            Death::Early => {
                self.early_deaths += 1;
                match self.early_deaths {
                    RESPAWN_DEATHS.. => Verdict::GiveUp,
                    deaths => Verdict::Respawn(pause(deaths - 1)),
                }
            }
        }
    }

    /// Records a failed fork. Returns the pause before the next attempt.
    pub(in crate::process) fn not_forked(&mut self) -> Duration {
        self.failed_forks = self.failed_forks.saturating_add(1);
        pause(self.failed_forks)
    }
}

/// The pause after this many repetitions: none at first, and then doubled each time.
fn pause(times: u32) -> Duration {
    let doubled = times.checked_sub(1).map_or(0, |doublings| 1 << doublings.min(u64::BITS / 2));
    Duration::from_micros(RESPAWN_DELAY_US.saturating_mul(doubled).min(RESPAWN_DELAY_MOST_US))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Death = Death::Serving(Duration::from_millis(999));
    const STEADY: Death = Death::Serving(Duration::from_secs(1));

    fn after_ms(ms: u64) -> Verdict {
        Verdict::Respawn(Duration::from_millis(ms))
    }

    #[test]
    fn early_deaths_are_delayed_more_and_more_until_it_gives_up() {
        let mut place = Respawn::default();
        for delay_ms in [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            assert_eq!(place.died(Death::Early), after_ms(delay_ms));
        }
        assert_eq!(place.died(Death::Early), Verdict::GiveUp);
    }

    #[test]
    fn a_life_that_served_wipes_out_early_deaths() {
        for life in [SOON, STEADY] {
            let mut place = Respawn::default();
            for _ in 0..RESPAWN_DEATHS - 1 {
                place.died(Death::Early);
            }
            assert_eq!(place.died(life), after_ms(0));
            assert_eq!(place.died(Death::Early), after_ms(0));
            assert_eq!(place.died(Death::Early), after_ms(100));
        }
    }

    #[test]
    fn a_worker_that_served_is_replaced_without_end_and_soon() {
        let mut place = Respawn::default();
        assert_eq!(place.died(SOON), after_ms(0));
        for _ in 0..1000 {
            assert_eq!(place.died(SOON), after_ms(20));
        }
        assert_eq!(place.died(STEADY), after_ms(0));
        assert_eq!(place.died(SOON), after_ms(0));
    }

    #[test]
    fn a_fork_that_fails_is_tried_again_without_end() {
        let mut place = Respawn::default();
        let mut pauses = (0..1000).map(|_| place.not_forked().as_millis());
        assert_eq!(pauses.by_ref().take(7).collect::<Vec<_>>(), [100, 200, 400, 800, 1600, 3200, 5000]);
        assert!(pauses.all(|ms| ms == 5000));
        assert_eq!(place.died(Death::Early), after_ms(0));
        assert_eq!(place.not_forked(), Duration::from_millis(100));
    }
}
