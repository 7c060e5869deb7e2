//! The requests in flight of one worker at each backend, so that they can be subtracted when the worker dies.
//!
//! A request is counted twice: in a cell of its worker, and in the cell of its slot that all workers share. A worker
//! may be killed between the two stores. So the worker's cell says that it is between them:
//!
//! ```text
//! begin    own: odd      shared: +1      own: one more, even
//! finish   own: odd      shared: −1      own: one fewer, even
//! ```
//!
//! The low half of a cell is the count. The high half grows with each store, and is odd between the two stores. If a
//! dead worker's cell is even, the shared cell contains exactly its count. If it is odd, the shared cell is corrected
//! by the cells of all other workers, while these continue (`stray`).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::cells::Cells;
use crate::limits::SETTLE_LOOKS;

/// One store.
const STEP: u64 = 1 << 32;
/// The bits of the count.
const COUNT: u64 = STEP - 1;

fn is_between(cell: u64) -> bool {
    cell & STEP != 0
}

/// Returns the requests in flight of a worker that is not between two stores.
pub fn count(own: &AtomicU64) -> u64 {
    own.load(Relaxed) & COUNT
}

/// Counts a request of the worker that owns the cell, unless `max` are in flight already.
pub(super) fn begin(own: &AtomicU64, cells: Cells, slot: usize, max: u32) -> bool {
    let before = own.load(Relaxed);
    own.store(before.wrapping_add(STEP), Relaxed);
    let entered = cells.enter(slot, max);
    own.store(before.wrapping_add(2 * STEP + u64::from(entered)), Release);
    entered
}

/// Ends a request; does nothing if there is none.
pub(super) fn finish(own: &AtomicU64, cells: Cells, slot: usize) {
    let before = own.load(Relaxed);
    if before & COUNT > 0 {
        own.store(before.wrapping_add(STEP), Relaxed);
        cells.leave(slot, 1);
        own.store(before.wrapping_add(2 * STEP - 1), Release);
    }
}

/// Subtracts the requests of a dead worker at a slot. `others`: the slot's cells of all other workers, dead or alive.
/// `pause` gives workers between two stores the time to continue.
pub fn reclaim<'a>(
    own: &AtomicU64,
    cells: Cells,
    slot: usize,
    others: impl Iterator<Item = &'a AtomicU64> + Clone,
    pause: fn(),
) {
    let left = own.load(Relaxed);
    if left == 0 {
        // Unused memory stays untouched.
        return;
    }
    if is_between(left) {
        // If this cannot be found out, the pending store counts as not made.
        let stray = (0..SETTLE_LOOKS).find_map(|_| {
            let found = stray(cells, slot, others.clone());
            if found.is_none() {
                pause();
            }
            found
        });
        let stray = stray.unwrap_or((left & COUNT).cast_signed());
        cells.leave(slot, stray.cast_unsigned());
    } else {
        cells.leave(slot, left & COUNT);
    }
    own.store(0, Relaxed);
}

/// Returns by how much a slot's shared cell exceeds the sum of these cells. The difference is constant, except while
/// a worker is between its two stores. So it is read at a moment at which no worker is: first the cells, then the
/// shared cell, then the cells again.
///
/// - A store to the shared cell that precedes the one that was read follows the store that made its worker's cell
///   odd. So the second reading finds that cell odd or changed.
/// - A worker whose cell is even has made its stores to the shared cell before, and they are visible.
///
/// So if both readings are equal and even, the value of the shared cell belongs to them. Otherwise this returns
/// `None`.
fn stray<'a>(cells: Cells, slot: usize, others: impl Iterator<Item = &'a AtomicU64> + Clone) -> Option<i64> {
    let read = || others.clone().map(|cell| cell.load(Acquire));
    let (mut sum, mut stores, mut quiet) = (0, 0_u64, true);
    for cell in read() {
        (sum, stores, quiet) = (sum + (cell & COUNT), stores.wrapping_add(cell >> 32), quiet && !is_between(cell));
    }
    let shared = cells.entered(slot);
    // The number of stores of each cell only grows. If the sum is the same, no cell has changed.
    let again = read().fold(0_u64, |stores, cell| stores.wrapping_add(cell >> 32));
    (quiet && stores == again).then(|| shared - sum.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::super::cells::private;
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn workers(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    /// A worker is killed at each place between two stores, as it begins or finishes.
    #[test]
    fn requests_of_a_worker_killed_at_any_point_are_reclaimed() {
        let (cells, own) = (private(1), workers(3));
        assert!(begin(&own[1], cells, 0, 0) && begin(&own[2], cells, 0, 0));
        let rest = || own[1..].iter();
        for had in [0, 1, 5] {
            for (shared, stores) in [(0_i64, 1), (1, 1), (-1, 1), (0, 0)] {
                (0..had).for_each(|_| assert!(begin(&own[0], cells, 0, 0)));
                own[0].fetch_add(stores * STEP, Relaxed);
                cells.leave(0, (-shared).cast_unsigned());
                reclaim(&own[0], cells, 0, rest(), || ());
                assert_eq!((cells.entered(0), own[0].load(Relaxed)), (2, 0), "{had} {shared} {stores}");
            }
        }
        finish(&own[1], cells, 0);
        finish(&own[2], cells, 0);
        finish(&own[2], cells, 0);
        assert_eq!(cells.entered(0), 0);
    }

    #[test]
    fn a_limit_that_is_met_counts_nothing() {
        let (cells, own) = (private(1), workers(2));
        assert!(begin(&own[0], cells, 0, 1) && !begin(&own[1], cells, 0, 1));
        reclaim(&own[1], cells, 0, own[..1].iter(), || ());
        assert_eq!(cells.entered(0), 1);
        reclaim(&own[0], cells, 0, own[1..].iter(), || ());
        assert!(begin(&own[1], cells, 0, 1));
    }

    #[test]
    fn reclaiming_is_exact_while_other_workers_continue() {
        let (cells, own, done) = (private(1), workers(3), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for worker in &own[1..] {
                let done = &done;
                scope.spawn(move || {
                    while !done.load(Relaxed) {
                        assert!(begin(worker, cells, 0, 0));
                        assert!(begin(worker, cells, 0, 0));
                        (0..2).for_each(|_| finish(worker, cells, 0));
                    }
                });
            }
            for n in 0..2000_u64 {
                // A worker that died as it began: before the shared store, or after it.
                own[0].store(STEP, Relaxed);
                cells.leave(0, (n % 2).wrapping_neg());
                // The others are between two stores most of the time, and may be descheduled there.
                let found = (0..).find_map(|_| stray(cells, 0, own[1..].iter()));
                assert_eq!(found, Some((n % 2) as i64));
                cells.leave(0, n % 2);
            }
            done.store(true, Relaxed);
        });
        assert_eq!(cells.entered(0), 0);
    }
}
