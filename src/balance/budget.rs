//! The retry budget: a share of the recent requests, and a few retries a second in addition. So retries do not
//! multiply the load while a backend is out.

use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use super::cells::Cells;
use crate::limits::{RETRY_FLOOR, RETRY_WINDOW_US, SECOND_US};

/// The cost of one retry in hundredths. Each request pays the percentage.
const RETRY: u64 = 100;

/// The retries that one worker may make.
#[derive(Debug)]
pub(super) struct Budget {
    percent: u64,
    /// The payments within the current window, and the rest of the former one.
    current: u64,
    before: u64,
    window: u64,
}

impl Budget {
    pub(super) fn new(percent: u32) -> Budget {
        Budget { percent: percent.into(), current: 0, before: 0, window: 0 }
    }

    pub(super) fn set(&mut self, percent: u32) {
        self.percent = percent.into();
    }

    fn turn(&mut self, now_us: u64) {
        let window = now_us / RETRY_WINDOW_US;
        if window != self.window {
            self.before = if window == self.window + 1 { self.current } else { 0 };
            self.current = 0;
            self.window = window;
        }
    }

    /// Notes a request.
    pub(super) fn request(&mut self, now_us: u64) {
        self.turn(now_us);
        self.current += self.percent;
    }

    /// True if a request may be sent again; the retry is paid then. All workers share the few retries a second:
    /// `cells` has the time of the next one.
    pub(super) fn allows(&mut self, cells: Cells, now_us: u64) -> bool {
        self.turn(now_us);
        for purse in [&mut self.before, &mut self.current] {
            if *purse >= RETRY {
                *purse -= RETRY;
                return true;
            }
        }
        if self.percent == 0 {
            return false;
        }
        let cell = cells.retry();
        let mut from_us = cell.load(Relaxed);
        loop {
            if from_us > now_us {
                return false;
            }
            // Unused retries of the last second are still available, and no more.
            let next_us = from_us.max(now_us.saturating_sub(SECOND_US)) + SECOND_US / RETRY_FLOOR;
            match cell.compare_exchange_weak(from_us, next_us, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(found) => from_us = found,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::private;
    use super::*;

    const NOW_US: u64 = 100 * RETRY_WINDOW_US;

    fn allowed(budget: &mut Budget, cells: Cells, now_us: u64) -> u64 {
        (0..10_000).take_while(|_| budget.allows(cells, now_us)).count() as u64
    }

    #[test]
    fn a_share_of_the_requests_and_a_few_a_second() {
        let (cells, mut budget) = (private(0), Budget::new(20));
        (0..1000).for_each(|_| budget.request(NOW_US));
        assert_eq!(allowed(&mut budget, cells, NOW_US), 200 + RETRY_FLOOR + 1);
        assert_eq!(allowed(&mut budget, cells, NOW_US), 0);
        assert_eq!(allowed(&mut budget, cells, NOW_US + SECOND_US / 2), RETRY_FLOOR.div_ceil(2) - 1);
    }

    #[test]
    fn old_payments_expire() {
        let (cells, mut budget) = (private(0), Budget::new(20));
        (0..1000).for_each(|_| budget.request(NOW_US));
        let next_us = NOW_US + RETRY_WINDOW_US;
        assert!(allowed(&mut budget, cells, next_us) > 200);
        (0..1000).for_each(|_| budget.request(next_us));
        assert!(allowed(&mut budget, cells, next_us + 2 * RETRY_WINDOW_US) <= RETRY_FLOOR + 1);
    }

    #[test]
    fn no_percentage_is_no_retry() {
        let (cells, mut budget) = (private(0), Budget::new(0));
        budget.request(NOW_US);
        assert!(!budget.allows(cells, NOW_US));
    }
}
