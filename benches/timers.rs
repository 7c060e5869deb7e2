//! Benchmarks deadlines: postponing one, arming a new one, and one turn of the wheel.

mod timer;

use std::hint::black_box;
use std::process::ExitCode;

use timer::Timer;
use zzz_lb::collections::timers::Timers;

const CONNECTIONS: usize = 10_000;
const SECOND_US: u64 = 1_000_000;

fn main() -> ExitCode {
    let mut timer = Timer::new();

    let mut timers = Timers::new(0);
    let mut now_us = 0;
    (0..CONNECTIONS).for_each(|index| timers.set(index, 60 * SECOND_US));
    timer.row("timers/move_later", CONNECTIONS, 0, || {
        now_us += 1000;
        (0..CONNECTIONS).for_each(|index| timers.set(index, now_us + 60 * SECOND_US));
    });

    let mut timers = Timers::new(0);
    timer.row("timers/arm_and_clear", CONNECTIONS, 0, || {
        (0..CONNECTIONS).for_each(|index| timers.set(index, 10 * SECOND_US));
        (0..CONNECTIONS).for_each(|index| timers.clear(index));
    });

    // Every connection is busy: each tick finds some with a later deadline.
    let mut timers = Timers::new(0);
    let (mut now_us, mut due) = (0, Vec::new());
    timer.row("timers/lazy_turn", CONNECTIONS, 0, || {
        (0..CONNECTIONS).for_each(|index| timers.set(index, now_us + 60 * SECOND_US));
        now_us += 20 * SECOND_US;
        timers.expire(now_us, &mut due);
        assert!(due.is_empty());
    });

    // One distant deadline, so that the whole wheel is searched.
    let mut timers = Timers::new(0);
    timers.set(0, 16 * SECOND_US);
    timer.row("timers/next", 1, 0, || black_box(&timers).next_us());
    timer.finish()
}
