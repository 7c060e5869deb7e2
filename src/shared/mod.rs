//! The memory that all processes of one balancer share, and the place of each part in it.
//!
//! ```text
//! header          magic, layout, count of worker records, places of the parts
//! tables          the plan and the secrets: each has two buffers, and the edition that holds
//! directory       the identity of each metric's cell
//! balance         the backends' cells
//! globals         the master's counts
//! before          the counts of workers of programs with another layout
//! worker records  for each worker: its state, its requests in flight by slot, its counts
//! ```
//!
//! Invariants:
//!
//! - The memory has no pointers, only cells of 64 bits. A cell is written whole. Parts with different writers never
//!   share a line of 64 bytes.
//! - Any program that knows `MAGIC` can read the tables (`tables`), regardless of the layout of the rest.
//! - A worker is the only writer of its worker record as long as it lives. The next worker there continues its
//!   counts. There are more worker records than workers, because old workers live on after an upgrade.
//! - The memory outlives an upgrade if both programs have the same layout. Otherwise the new program makes another
//!   region, and copies the data that it knows by name (`directory`).

pub mod directory;
mod header;
pub mod table;
mod tables;
pub mod worker;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::balance::cells::{self, Cells};
use crate::balance::in_flight;
use crate::limits::SLOTS;
use crate::metrics::{self, Block, ids};
use directory::{Geometry, NUMBERS, View};
pub use header::MAGIC;
use header::{BEFORE_AT, GEOMETRY_AT, LAYOUT_AT, LINE, MAGIC_AT, OWNERS_AT, RECORDS_AT, SLOTS_AT, USED_AT};
use table::Table;
pub use tables::{plan_in, secrets_in};
use worker::WorkerRecord;

const HEADER: usize = (GEOMETRY_AT + NUMBERS).next_multiple_of(LINE);

/// A view of the shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    cells: &'static [AtomicU64],
}

/// The parts of a worker record: its line, its requests in flight, its block.
const IN_FLIGHT: usize = LINE;
const BLOCK: usize = IN_FLIGHT + SLOTS.next_multiple_of(LINE);

/// The places of the parts in this program's layout.
const LAYOUT: Geometry = {
    let counts = [cells::NAMES.len(), ids::GLOBAL.len(), ids::OWN.len(), ids::SLOT.len()];
    let directory = HEADER + tables::CELLS;
    let balance = (directory + counts[0] + counts[1] + counts[2] + counts[3]).next_multiple_of(LINE);
    let globals = balance + Cells::needed(SLOTS).next_multiple_of(LINE);
    let before = globals + Block::needed(0).next_multiple_of(LINE);
    let records = before + Block::needed(SLOTS).next_multiple_of(LINE);
    Geometry {
        table: HEADER + tables::PLAN_AT.at,
        table_cells: tables::PLAN_AT.cells,
        balance: balance + cells::COMMON,
        balance_slot: cells::SLOT,
        slots: SLOTS,
        globals,
        before,
        records,
        record: BLOCK + Block::needed(SLOTS).next_multiple_of(LINE),
        block: BLOCK,
        own: metrics::OWN,
        slot: metrics::SLOT,
        ids: directory,
        balance_ids: counts[0],
        global_ids: counts[1],
        own_ids: counts[2],
        slot_ids: counts[3],
    }
};

const BALANCE: usize = LAYOUT.balance - cells::COMMON;
/// The cells of a worker record.
const RECORD: usize = LAYOUT.record;

/// A hash of the layout: the places of the parts, and the identity of each cell.
const FINGERPRINT: u64 = {
    let numbers = LAYOUT.numbers();
    let mut hash = ids::of("layout");
    let mut at = 0;
    while at < NUMBERS {
        hash = ids::hash(hash, &numbers[at].to_le_bytes());
        at += 1;
    }
    at = 0;
    while at < cells::NAMES.len() {
        hash = ids::hash(hash, cells::NAMES[at].as_bytes());
        at += 1;
    }
    let lists: [&[u64]; 3] = [&ids::GLOBAL, &ids::OWN, &ids::SLOT];
    let mut list = 0;
    while list < lists.len() {
        at = 0;
        while at < lists[list].len() {
            hash = ids::hash(hash, &lists[list][at].to_le_bytes());
            at += 1;
        }
        list += 1;
    }
    hash
};

impl Region {
    /// Returns the size in bytes of a region with this many worker records.
    pub fn bytes(records: usize) -> usize {
        (LAYOUT.records + records * RECORD) * size_of::<AtomicU64>()
    }

    /// Makes a region of cells that are zeros. It has as many worker records as fit, and at least one.
    pub fn new(cells: &'static [AtomicU64]) -> Region {
        assert!(size_of_val(cells) >= Region::bytes(1), "a region is made as large as it has to be");
        let records = (cells.len() - LAYOUT.records) / RECORD;
        for (cell, number) in cells[GEOMETRY_AT..].iter().zip(LAYOUT.numbers()) {
            cell.store(number as u64, Relaxed);
        }
        let names = cells::NAMES.iter().map(|name| ids::of(name));
        let ids = names.chain(ids::GLOBAL).chain(ids::OWN).chain(ids::SLOT);
        cells[LAYOUT.ids..].iter().zip(ids).for_each(|(cell, id)| cell.store(id, Relaxed));
        tables::write(cells, HEADER);
        cells[LAYOUT_AT].store(FINGERPRINT, Relaxed);
        cells[RECORDS_AT].store(records as u64, Relaxed);
        cells[MAGIC_AT].store(MAGIC, Release);
        Region { cells }
    }

    /// Makes a region of one worker record that this process does not share.
    pub fn private() -> Region {
        Region::new(Vec::leak((0..Region::bytes(1) / size_of::<AtomicU64>()).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Returns the count of worker records in the region that another program made of these cells. `None`: it has
    /// another layout.
    pub fn records_in(cells: &[AtomicU64]) -> Option<usize> {
        let read = |at: usize| cells.get(at).map_or(0, |cell| cell.load(Acquire));
        let records = usize::try_from(read(RECORDS_AT)).ok()?;
        let alike = read(MAGIC_AT) == MAGIC && read(LAYOUT_AT) == FINGERPRINT;
        let whole =
            records.checked_mul(RECORD).is_some_and(|needed| needed <= cells.len().saturating_sub(LAYOUT.records));
        (alike && whole && records > 0).then_some(records)
    }

    /// Returns the region that another program made of these cells. `None`: it has another layout.
    pub fn adopt(cells: &'static [AtomicU64]) -> Option<Region> {
        Region::records_in(cells).map(|_| Region { cells })
    }

    /// Copies another region's plan and secrets, and the counts of the owners of slots.
    pub fn copy_plan(self, from: Region) {
        for (to, from) in [(self.table(), from.table()), (self.secrets(), from.secrets())] {
            from.read().1.into_iter().for_each(|bytes| _ = to.publish(&bytes));
        }
        self.owners().store(from.owners().load(Relaxed), Relaxed);
        self.slots().store(from.slots().load(Relaxed), Relaxed);
    }

    /// Returns a view of the same memory by its header, as another program reads it.
    pub fn view(self) -> View<'static> {
        View::read(self.cells).expect("the header of a region is right")
    }

    /// Returns the count of worker records.
    pub fn records(self) -> usize {
        self.cells[RECORDS_AT].load(Relaxed) as usize
    }

    /// Returns the count of worker records that have ever had a worker. They are the first ones: the rest have no
    /// counts.
    pub fn used(self) -> &'static AtomicU64 {
        &self.cells[USED_AT]
    }

    /// Returns the count of owners that slots have ever had, which numbers the generations.
    pub fn owners(self) -> &'static AtomicU64 {
        &self.cells[OWNERS_AT]
    }

    /// Returns the count of slots that have ever had an owner. They are the first ones.
    pub fn slots(self) -> &'static AtomicU64 {
        &self.cells[SLOTS_AT]
    }

    /// Returns the line of a worker record, which tells whether its worker lives.
    pub fn record(self, record: usize) -> WorkerRecord {
        WorkerRecord::new(&self.cells[LAYOUT.records + record * RECORD..][..LINE])
    }

    /// Returns the plan's table.
    pub fn table(self) -> Table<'static> {
        Table::new(&self.cells[LAYOUT.table..][..LAYOUT.table_cells])
    }

    /// Returns the table of secrets.
    pub fn secrets(self) -> Table<'static> {
        Table::new(&self.cells[HEADER + tables::SECRETS_AT.at..][..tables::SECRETS_AT.cells])
    }

    /// Returns the state of the backends, which all workers share.
    pub fn balance(self) -> Cells {
        Cells::new(&self.cells[BALANCE..][..Cells::needed(SLOTS)])
    }

    /// Returns the master's counts.
    pub fn globals(self) -> Block {
        Block::new(&self.cells[LAYOUT.globals..][..Block::needed(0)])
    }

    /// Notes that counts were copied into the block `before`: sums include it from now on.
    pub fn note_before(self) {
        self.cells[BEFORE_AT].store(1, Release);
    }

    /// Returns all blocks: `before`, if counts were copied there, and those of the workers.
    pub fn blocks(self) -> Vec<Block> {
        let before = (self.cells[BEFORE_AT].load(Acquire) != 0)
            .then(|| Block::new(&self.cells[LAYOUT.before..][..Block::needed(SLOTS)]));
        before.into_iter().chain((0..self.records()).map(|record| self.block(record))).collect()
    }

    /// Returns the counts of a worker record.
    pub fn block(self, record: usize) -> Block {
        Block::new(&self.cells[LAYOUT.records + record * RECORD + BLOCK..][..Block::needed(SLOTS)])
    }

    /// Takes back the requests in flight and the gauges of a worker that has ended. It may have ended at any point.
    pub fn reclaim(self, record: usize) {
        self.record(record).clear();
        self.block(record).reclaim();
        let used = (self.used().load(Relaxed) as usize).min(self.records());
        // A read of a slot that never had an owner would make the system provide a page for it.
        let slots = self.slots().load(Relaxed) as usize;
        for (slot, cell) in self.in_flight(record).iter().enumerate().take(slots) {
            let others = (0..used).filter(|&other| other != record).map(|other| &self.in_flight(other)[slot]);
            in_flight::reclaim(cell, self.balance(), slot, others, std::thread::yield_now);
        }
    }

    /// Returns the requests in flight of a worker record, by slot.
    pub fn in_flight(self, record: usize) -> &'static [AtomicU64] {
        &self.cells[LAYOUT.records + record * RECORD + IN_FLIGHT..][..SLOTS]
    }
}

/// Returns cells for a region of this many worker records.
#[cfg(test)]
fn cells(records: usize) -> &'static [AtomicU64] {
    Vec::leak((0..Region::bytes(records) / size_of::<AtomicU64>()).map(|_| AtomicU64::new(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::cells::State;
    use crate::metrics::{Count, SlotCount};

    #[test]
    fn the_parts_do_not_overlap() {
        let region = Region::new(cells(3));
        assert_eq!(region.records(), 3);
        for worker in 0..3 {
            region.block(worker).add(Count::Clients, 1);
            region.block(worker).add_slot(SlotCount::Connects, SLOTS - 1, u64::MAX);
            region.in_flight(worker).iter().for_each(|cell| cell.store(worker as u64 + 1, Relaxed));
        }
        region.balance().clear(SLOTS - 1, State::Unproven, 77);
        assert!(region.table().publish(b"plan"));
        assert!(region.in_flight(0).iter().all(|cell| cell.load(Relaxed) == 1));
        assert!(region.in_flight(2).iter().all(|cell| cell.load(Relaxed) == 3));
        assert_eq!(region.table().read(), (1, Some(b"plan".to_vec())));
        for record in 0..3 {
            region.record(record).beat(7);
            region.reclaim(record);
            assert_eq!(region.record(record).beaten_us(), 0);
        }
    }

    #[test]
    fn a_program_adopts_only_its_own_layout() {
        let cells = cells(2);
        assert!(Region::adopt(cells).is_none(), "it is no region yet");
        Region::new(cells).block(1).add(Count::Clients, 3);
        assert_eq!(Region::adopt(cells).unwrap().block(1).get(Count::Clients), 3);
        assert!(Region::adopt(&cells[..cells.len() - 8]).is_none(), "a part is cut off");
        for at in [MAGIC_AT, LAYOUT_AT, RECORDS_AT] {
            let before = cells[at].fetch_add(1, Relaxed);
            assert!(Region::adopt(cells).is_none(), "cell {at}");
            cells[at].store(before, Relaxed);
        }
        assert!(Region::adopt(&[]).is_none());
    }

    #[test]
    fn the_tables_come_before_everything_that_a_program_may_lay_out_otherwise() {
        let parts = [LAYOUT.ids, LAYOUT.balance, LAYOUT.globals, LAYOUT.before, LAYOUT.records];
        assert!(parts.into_iter().all(|part| part >= HEADER + tables::CELLS));
        let cells = cells(1);
        let region = Region::new(cells);
        assert!(region.table().publish(b"plan"));
        assert_eq!(plan_in(cells), Some(b"plan".to_vec()), "the list and the geometry mean the same table");
        assert_eq!(View::read(cells).unwrap().plan().read().1, Some(b"plan".to_vec()));
    }
}
