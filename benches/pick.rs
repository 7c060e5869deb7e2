//! Picking a backend: each strategy, over ten and over a thousand.

#[allow(dead_code, reason = "the rows here are all of one tolerance")]
mod timer;

use std::process::ExitCode;

use timer::Timer;
use zzz_lb::balance::cells::private;
use zzz_lb::balance::strategy::Strategy;
use zzz_lb::balance::{Balancer, Member, Pick, Rules};

const PICKS: usize = 1000;

fn main() -> ExitCode {
    let mut timer = Timer::new();
    for (name, strategy) in Strategy::NAMES {
        for backends in [10_u16, 1000] {
            let rules = Rules { strategy, fails: 3, passes: 2, interval_us: 0, slow_start_us: 0, retry_percent: 20 };
            let cells = private(backends.into());
            let mine = (0..backends).map(|_| 0.into()).collect();
            let mut balancer = Balancer::new(rules, cells, Vec::leak(mine), 1);
            let members = (0..backends).map(|slot| Member { slot, weight: slot % 5 + 1, backup: false, max: 0 });
            balancer.set(rules, members);
            timer.row(&format!("pick/{name}/{backends}"), PICKS, 0, || {
                for _ in 0..PICKS {
                    if let Pick::Slot(slot) = balancer.pick(&[], 1) {
                        balancer.finished(slot);
                    }
                }
            });
        }
    }
    timer.finish()
}
