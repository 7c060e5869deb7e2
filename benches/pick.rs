//! Picking a backend: each strategy, over ten and over a thousand.

#[allow(dead_code, reason = "the rows here name their tolerance")]
mod timer;

use std::process::ExitCode;

use timer::{TOLERANCE, Timer};
use zzz_lb::balance::Balancer;
use zzz_lb::balance::strategy::Strategy;

const PICKS: usize = 1000;
/// Of a row that took from 9.3 to 11.1 ns in sixty runs of one binary, whatever the cause.
const WEIGHTED_10_TOLERANCE: f64 = 0.3;

fn main() -> ExitCode {
    let mut timer = Timer::new();
    for (name, strategy) in Strategy::NAMES {
        for backends in [10_u16, 1000] {
            let mut balancer = Balancer::new(strategy, (0..backends).map(|n| n % 5 + 1), 1);
            let row = format!("pick/{name}/{backends}");
            let tolerance = if row == "pick/weighted/10" { WEIGHTED_10_TOLERANCE } else { TOLERANCE };
            timer.row_within(&row, PICKS, 0, tolerance, || {
                for _ in 0..PICKS {
                    if let Some(slot) = balancer.pick(&[]) {
                        balancer.finished(slot);
                    }
                }
            });
        }
    }
    timer.finish()
}
