//! Benchmarks the choice of a backend: each strategy with ten and with a thousand backends, and the ratio of
//! the two.

#[allow(dead_code, reason = "the rows here are all of one tolerance")]
mod timer;

use std::process::ExitCode;
use std::time::Duration;

use timer::{Against, TOLERANCE, Timer};
use zzz_lb::balance::cells::private;
use zzz_lb::balance::strategy::Strategy;
use zzz_lb::balance::{Balancer, Member, Pick, Rules, Want};
use zzz_lb::collections::random::Random;

const PICKS: usize = 1000;
/// The highest allowed ratio of a pick from a thousand backends to one from ten.
const MOST: f64 = 1.5;
const BATCH: Duration = Duration::from_micros(500);

fn balancer(strategy: Strategy, backends: u16) -> Balancer {
    let rules = Rules { strategy, fails: 3, passes: 2, interval_us: 0, slow_start_us: 0, retry_percent: 20 };
    let mine = (0..backends).map(|_| 0.into()).collect();
    let mut balancer = Balancer::new(rules, private(backends.into()), Vec::leak(mine), 1);
    let members =
        (0..backends).map(|slot| Member { slot, weight: slot % 5 + 1, backup: false, max: 0, identity: slot.into() });
    balancer.set(rules, members);
    balancer
}

fn pick(balancer: &mut Balancer) {
    for _ in 0..PICKS {
        if let Pick::Slot(slot) = balancer.pick(Want::other_than(&[]), 1) {
            balancer.finished(slot);
        }
    }
}

/// Like `pick`, by hash.
fn pick_by_hash(balancer: &mut Balancer) {
    let mut random = Random::new(1);
    for _ in 0..PICKS {
        let want = Want { hash: Some(random.any()), ..Want::other_than(&[]) };
        if let Pick::Slot(slot) = balancer.pick(want, 1) {
            balancer.finished(slot);
        }
    }
}

fn main() -> ExitCode {
    let mut timer = Timer::new();
    for strategy in Strategy::ALL {
        let name = strategy.name;
        let pick = if strategy == Strategy::by_hash() { pick_by_hash } else { pick };
        let (mut ten, mut thousand) = (balancer(strategy, 10), balancer(strategy, 1000));
        timer.row(&format!("pick/{name}/10"), PICKS, 0, || pick(&mut ten));
        timer.row(&format!("pick/{name}/1000"), PICKS, 0, || pick(&mut thousand));
        let against = Against {
            steps: PICKS as u64,
            tolerance: TOLERANCE,
            most: Some(MOST),
            batch: BATCH,
            run: || pick(&mut ten),
        };
        timer.row_against(&format!("pick/{name}/1000_to_10"), PICKS, 0, || pick(&mut thousand), against);
    }
    timer.finish()
}
