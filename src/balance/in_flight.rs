//! What one worker has in flight at each backend, so that it can be taken back when the worker dies.
//!
//! A request is counted twice: here, where only its worker writes, and in the cell of its slot that
//! all workers share. A worker may be killed between the two, and then nobody can tell from its own
//! cell whether the other was stored to. So a cell says that its worker is between the two:
//!
//! ```text
//! begin    own: odd      shared: +1      own: one more, even
//! finish   own: odd      shared: −1      own: one fewer, even
//! ```
//!
//! The low half of a cell is the count, the high half grows with each of its stores and is odd
//! between the two. Where a dead worker's cell is even, the shared one holds exactly its count. Where it
//! is odd, the shared cell is set right by all the other workers' cells, while they go on (`stray`).

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

/// How many requests a worker whose cell this is has in flight, when it is not between two stores.
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

/// Counts a request out again; nothing where there is none.
pub(super) fn finish(own: &AtomicU64, cells: Cells, slot: usize) {
    let before = own.load(Relaxed);
    if before & COUNT > 0 {
        own.store(before.wrapping_add(STEP), Relaxed);
        cells.leave(slot, 1);
        own.store(before.wrapping_add(2 * STEP - 1), Release);
    }
}

/// Takes back what a worker had in flight at a slot, as it has died. `others` are the cells that the
/// slot has of all other workers, dead and alive; `pause` lets those go on that are between two stores.
pub fn reclaim<'a>(
    own: &AtomicU64,
    cells: Cells,
    slot: usize,
    others: impl Iterator<Item = &'a AtomicU64> + Clone,
    pause: fn(),
) {
    let left = own.load(Relaxed);
    if left == 0 {
        // Memory that nobody has used stays so.
        return;
    }
    if is_between(left) {
        // Where it cannot be found out, a store that it had begun is taken not to have been made.
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

/// By how much a slot's shared cell is more than these cells say together. That is the same at any
/// moment, whatever their workers do, apart from those who are between their two stores; so it is
/// read at a moment at which none is. The cells are read, then the shared one, then they are read again:
///
/// - a store to the shared one that comes before the one that is seen there comes after its
///   worker's cell became odd, so that the second reading finds that cell odd or changed;
/// - a worker whose cell is seen even has made its stores to the shared one before, and they are seen.
///
/// So where the second reading finds what the first did, all of it even, what was seen of the shared
/// cell belongs to them. `None` where it does not.
fn stray<'a>(cells: Cells, slot: usize, others: impl Iterator<Item = &'a AtomicU64> + Clone) -> Option<i64> {
    let read = || others.clone().map(|cell| cell.load(Acquire));
    let (mut sum, mut stores, mut quiet) = (0, 0_u64, true);
    for cell in read() {
        (sum, stores, quiet) = (sum + (cell & COUNT), stores.wrapping_add(cell >> 32), quiet && !is_between(cell));
    }
    let shared = cells.entered(slot);
    // Each cell's stores only grow, so that they have not where their sum has not.
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

    /// Kills a worker at each place where it may be between two stores, as it begins or finishes.
    #[test]
    fn wherever_a_worker_is_killed_what_it_had_is_taken_back() {
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
    fn what_is_taken_back_is_exact_while_others_go_on() {
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
