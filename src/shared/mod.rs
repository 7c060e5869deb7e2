//! Memory that all processes of one balancer share: what is where in it.
//!
//! ```text
//! header      what it is, and which layout
//! table       the plan: two buffers, and which one holds
//! balance     the backends' cells
//! globals     what the master counts
//! workers     for each: what it has in flight by slot, and what it counts
//! ```
//!
//! There are no pointers in it, only cells of 64 bits, each written whole. Parts that different
//! processes write never share a line of 64 bytes.

pub mod table;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::balance::cells::Cells;
use crate::limits::SLOTS;
use crate::metrics::Block;
use table::Table;

/// "zzz_lb" and a number that grows when the layout changes.
const MAGIC: u64 = 0x7a7a_7a5f_6c62_0001;
/// Cells in a line.
const LINE: usize = 8;
const HEADER: usize = LINE;

/// A view of the whole.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    cells: &'static [AtomicU64],
}

/// Where the parts begin, in cells.
struct Layout {
    table: usize,
    balance: usize,
    globals: usize,
    workers: usize,
}

const LAYOUT: Layout = {
    let table = HEADER;
    let balance = table + Table::CELLS.next_multiple_of(LINE);
    let globals = balance + Cells::needed(SLOTS).next_multiple_of(LINE);
    let workers = globals + Block::needed(0).next_multiple_of(LINE);
    Layout { table, balance, globals, workers }
};

/// Cells of a worker: what it has in flight, and its block.
const IN_FLIGHT: usize = SLOTS.next_multiple_of(LINE);
const WORKER: usize = IN_FLIGHT + Block::needed(SLOTS).next_multiple_of(LINE);

impl Region {
    /// How many bytes the region of that many workers takes.
    pub fn bytes(workers: usize) -> usize {
        (LAYOUT.workers + workers * WORKER) * size_of::<AtomicU64>()
    }

    /// Makes a region of cells that are zeros.
    pub fn new(cells: &'static [AtomicU64]) -> Region {
        assert!(size_of_val(cells) >= Region::bytes(1), "a region is made as large as it has to be");
        cells[0].store(MAGIC, Relaxed);
        Region { cells }
    }

    /// The plan.
    pub fn table(self) -> Table {
        Table::new(&self.cells[LAYOUT.table..LAYOUT.balance])
    }

    /// What all know about the backends.
    pub fn balance(self) -> Cells {
        Cells::new(&self.cells[LAYOUT.balance..][..Cells::needed(SLOTS)])
    }

    /// What the master counts.
    pub fn globals(self) -> Block {
        Block::new(&self.cells[LAYOUT.globals..LAYOUT.workers])
    }

    /// What a worker counts.
    pub fn block(self, worker: usize) -> Block {
        Block::new(&self.cells[LAYOUT.workers + worker * WORKER + IN_FLIGHT..][..Block::needed(SLOTS)])
    }

    /// Takes back what a worker had in flight and open, as it has ended, whatever it was doing.
    pub fn settle(self, worker: usize) {
        self.block(worker).settle();
        for (slot, cell) in self.in_flight(worker).iter().enumerate() {
            let left = cell.swap(0, Relaxed);
            if left > 0 {
                self.balance().leave(slot, left);
            }
        }
    }

    /// What a worker has in flight, by slot.
    pub fn in_flight(self, worker: usize) -> &'static [AtomicU64] {
        &self.cells[LAYOUT.workers + worker * WORKER..][..SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Count, SlotCount};

    #[test]
    fn the_parts_lie_apart() {
        let cells: Vec<AtomicU64> = (0..Region::bytes(3) / size_of::<AtomicU64>()).map(|_| AtomicU64::new(0)).collect();
        let region = Region::new(Vec::leak(cells));
        for worker in 0..3 {
            region.block(worker).add(Count::Clients, 1);
            region.block(worker).add_slot(SlotCount::Connects, SLOTS - 1, u64::MAX);
            region.in_flight(worker).iter().for_each(|cell| cell.store(worker as u64 + 1, Relaxed));
        }
        region.balance().clear(SLOTS - 1, 77);
        assert!(region.table().publish(b"plan"));
        assert!(region.in_flight(0).iter().all(|cell| cell.load(Relaxed) == 1));
        assert!(region.in_flight(2).iter().all(|cell| cell.load(Relaxed) == 3));
        assert_eq!(region.table().read(), (1, Some(b"plan".to_vec())));
    }
}
