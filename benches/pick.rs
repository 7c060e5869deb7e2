//! Picking a backend: each strategy, over ten and over a thousand.

mod timer;

use timer::Timer;
use zzz_lb::balance::Balancer;
use zzz_lb::balance::strategy::Strategy;

const PICKS: usize = 1000;

fn main() {
    let mut timer = Timer::new();
    for (name, strategy) in Strategy::NAMES {
        for backends in [10_u16, 1000] {
            let mut balancer = Balancer::new(strategy, (0..backends).map(|n| n % 5 + 1), 1);
            timer.row(&format!("pick/{name}/{backends}"), PICKS, 0, || {
                for _ in 0..PICKS {
                    if let Some(slot) = balancer.pick(&[]) {
                        balancer.finished(slot);
                    }
                }
            });
        }
    }
    timer.finish();
}
