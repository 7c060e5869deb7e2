//! The requests of one worker in flight at each backend, so that they can be reclaimed when the worker dies.
//!
//! A request is counted twice: in the worker's own cell, which only this worker writes, and in the slot's
//! shared cell. A worker may be killed between the two stores. Its own cell alone would not reveal whether the
//! shared cell was updated. Therefore a cell marks the time between the two stores:
//!
//! ```text
//! begin    own: odd      shared: +1      own: one more, even
//! finish   own: odd      shared: −1      own: one fewer, even
//! ```
//!
//! The low half of a cell is the count. The high half grows with each store and is odd between the two. If a
//! dead worker's cell is even, the shared cell contains exactly its count. If it is odd, the shared cell is
//! corrected with the help of all other workers' cells, while those workers continue (`stray`).

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

/// The number of requests in flight of the worker with this cell, outside the time between two stores.
pub fn count(own: &AtomicU64) -> u64 {
    own.load(Relaxed) & COUNT
}

/// Counts a request in, of the worker whose cell this is, unless `max` are in flight already.
pub(super) fn begin(own: &AtomicU64, cells: Cells, slot: usize, max: u32) -> bool {
    let before = own.load(Relaxed);
    own.store(before.wrapping_add(STEP), Relaxed);
    let entered = cells.enter(slot, max);
    own.store(before.wrapping_add(2 * STEP + u64::from(entered)), Release);
    entered
}

/// Counts down one request; nothing if there is none.
pub(super) fn finish(own: &AtomicU64, cells: Cells, slot: usize) {
    let before = own.load(Relaxed);
    if before & COUNT > 0 {
        own.store(before.wrapping_add(STEP), Relaxed);
        cells.leave(slot, 1);
        own.store(before.wrapping_add(2 * STEP - 1), Release);
    }
}

/// Reclaims the requests of a dead worker at a slot. `others` are the slot's cells of all other workers, dead
/// and alive. `pause` lets workers continue that are between two stores.
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
        // If the difference cannot be determined, a store that had begun counts as not made.
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

/// The difference between a slot's shared cell and the sum of these cells. The difference is constant while no
/// worker is between its two stores, so it is read at such a moment. The cells are read, then the shared cell,
/// then the cells again:
///
/// - A store to the shared cell before the value that is read comes after its worker's cell became odd. The
///   second reading therefore finds that cell odd or changed.
/// - A worker whose cell is even has completed its earlier stores to the shared cell, and these are visible.
///
/// If the second reading equals the first and all cells are even, the value of the shared cell belongs to them.
/// Otherwise `None`.
fn stray<'a>(cells: Cells, slot: usize, others: impl Iterator<Item = &'a AtomicU64> + Clone) -> Option<i64> {
    let read = || others.clone().map(|cell| cell.load(Acquire));
    let (mut sum, mut stores, mut quiet) = (0, 0_u64, true);
    for cell in read() {
        (sum, stores, quiet) = (sum + (cell & COUNT), stores.wrapping_add(cell >> 32), quiet && !is_between(cell));
    }
    let shared = cells.entered(slot);
    // The stores of each cell only grow, so an equal sum means that no cell changed.
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

    /// Kills a worker at each point between its two stores, both when it begins and when it finishes.
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
                // One that died as it began: before the shared store, or after it.
                own[0].store(STEP, Relaxed);
                cells.leave(0, (n % 2).wrapping_neg());
                // The others are between two stores most of the time, and may be kept waiting there.
                let found = (0..).find_map(|_| stray(cells, 0, own[1..].iter()));
                assert_eq!(found, Some((n % 2) as i64));
                cells.leave(0, n % 2);
            }
            done.store(true, Relaxed);
        });
        assert_eq!(cells.entered(0), 0);
    }
}
