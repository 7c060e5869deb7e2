//! Histograms of durations: counts below fixed bounds, and the sum.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The upper bounds, each included, in microseconds: 0.5 ms to 60 s.
pub const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// The bounds shown for each backend: enough to distinguish a slow backend from a fast one. A thousand backends
/// have a thousand histograms.
pub(super) const COARSE_US: [u64; 4] = [10_000, 50_000, 250_000, 1_000_000];

/// A view of a histogram's cells: a count for each bound, one for values above all bounds, and the sum in
/// microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Histogram {
    cells: &'static [AtomicU64],
}

/// The totals of several histograms. A count covers the values up to its bound and above the previous bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) counts: [u64; BOUNDS_US.len() + 1],
    pub(super) sum_us: u64,
}

impl Histogram {
    /// The number of cells of a histogram.
    pub const CELLS: usize = BOUNDS_US.len() + 2;

    pub(super) fn new(cells: &'static [AtomicU64]) -> Histogram {
        Histogram { cells }
    }

    pub(super) fn observe(self, us: u64) {
        let at = BOUNDS_US.partition_point(|&bound| bound < us);
        super::Block::raise(&self.cells[at], 1);
        super::Block::raise(&self.cells[BOUNDS_US.len() + 1], us);
    }

    pub(super) fn add_to(self, totals: &mut Totals) {
        for (total, cell) in totals.counts.iter_mut().zip(self.cells) {
            *total += cell.load(Relaxed);
        }
        totals.sum_us += self.cells[BOUNDS_US.len() + 1].load(Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_what_is_below_it() {
        let histogram = Histogram::new(Vec::leak((0..Histogram::CELLS).map(|_| AtomicU64::new(0)).collect()));
        for us in [0, 500, 501, 60_000_000, 60_000_001] {
            histogram.observe(us);
        }
        let mut totals = Totals::default();
        histogram.add_to(&mut totals);
        assert_eq!((totals.counts[0], totals.counts[1], totals.counts[15], totals.counts[16]), (2, 1, 1, 1));
        assert_eq!((totals.counts.iter().sum::<u64>(), totals.sum_us), (5, 120_001_002));
    }
}
