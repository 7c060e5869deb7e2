//! Memory that all processes of one balancer share: what is where in it.
//!
//! ```text
//! header      what it is, which layout, how many worker records there are, and where the parts are
//! directory   the identity of each metric's cell
//! table       the plan: two buffers, and which one holds
//! balance     the backends' cells
//! globals     what the master counts
//! before      what workers of programs with another layout counted
//! worker records       for each worker: that it lives, what it has in flight by slot, and what it counts
//! ```
//!
//! There are no pointers in it, only cells of 64 bits, each written whole. Parts that different
//! processes write never share a line of 64 bytes.
//!
//! A worker has its worker record to itself for as long as it lives; who comes after it there counts on from
//! what it counted. There are more worker records than workers, because those of before an upgrade live on
//! beside those of after it. The region itself outlives upgrades if both programs lay it out alike. If they do not,
//! the new program makes another region, and copies what it knows by name (`directory`).

pub mod directory;

pub mod table;

pub mod worker;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::balance::cells::{self, Cells};
use crate::balance::in_flight;
use crate::limits::SLOTS;
use crate::metrics::{self, Block, ids};
use directory::{Geometry, NUMBERS, View};
use table::Table;
use worker::WorkerRecord;

/// "zzz_lb" and a number that grows when the meaning changes of the header, the directory, or what a plan says of
/// its members.
pub const MAGIC: u64 = 0x7a7a_7a5f_6c62_0005;
/// Cells in a line.
const LINE: usize = 8;
/// Where in the header is what.
const MAGIC_AT: usize = 0;
const LAYOUT_AT: usize = 1;
const SEATS_AT: usize = 2;
const USED_AT: usize = 3;
const OWNERS_AT: usize = 4;
const SLOTS_AT: usize = 5;
const BEFORE_AT: usize = 6;
const GEOMETRY_AT: usize = LINE;
const HEADER: usize = (GEOMETRY_AT + NUMBERS).next_multiple_of(LINE);

/// A view of the whole.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    cells: &'static [AtomicU64],
}

/// Where in a worker record is what: its line, what it has in flight, its block.
const IN_FLIGHT: usize = LINE;
const BLOCK: usize = IN_FLIGHT + SLOTS.next_multiple_of(LINE);

/// Where the parts are in this program's layout.
const LAYOUT: Geometry = {
    let counts = [cells::NAMES.len(), ids::GLOBAL.len(), ids::OWN.len(), ids::SLOT.len()];
    let table = (HEADER + counts[0] + counts[1] + counts[2] + counts[3]).next_multiple_of(LINE);
    let balance = table + Table::CELLS.next_multiple_of(LINE);
    let globals = balance + Cells::needed(SLOTS).next_multiple_of(LINE);
    let before = globals + Block::needed(0).next_multiple_of(LINE);
    let records = before + Block::needed(SLOTS).next_multiple_of(LINE);
    Geometry {
        table,
        table_cells: Table::CELLS,
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
        ids: HEADER,
        balance_ids: counts[0],
        global_ids: counts[1],
        own_ids: counts[2],
        slot_ids: counts[3],
        fixed: records,
    }
};

const BALANCE: usize = LAYOUT.balance - cells::COMMON;
const SEAT: usize = LAYOUT.record;

/// Tells layouts apart: what is where, and what is counted in which cell.
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
    /// How many bytes the region of that many worker records takes.
    pub fn bytes(records: usize) -> usize {
        (LAYOUT.records + records * SEAT) * size_of::<AtomicU64>()
    }

    /// Makes a region of cells that are zeros, with as many worker records as fit, one at least.
    pub fn new(cells: &'static [AtomicU64]) -> Region {
        assert!(size_of_val(cells) >= Region::bytes(1), "a region is made as large as it has to be");
        let records = (cells.len() - LAYOUT.records) / SEAT;
        for (cell, number) in cells[GEOMETRY_AT..].iter().zip(LAYOUT.numbers()) {
            cell.store(number as u64, Relaxed);
        }
        let names = cells::NAMES.iter().map(|name| ids::of(name));
        let ids = names.chain(ids::GLOBAL).chain(ids::OWN).chain(ids::SLOT);
        cells[LAYOUT.ids..].iter().zip(ids).for_each(|(cell, id)| cell.store(id, Relaxed));
        cells[LAYOUT_AT].store(FINGERPRINT, Relaxed);
        cells[SEATS_AT].store(records as u64, Relaxed);
        cells[MAGIC_AT].store(MAGIC, Release);
        Region { cells }
    }

    /// A region of one worker record that no other process has.
    pub fn private() -> Region {
        Region::new(Vec::leak((0..Region::bytes(1) / size_of::<AtomicU64>()).map(|_| AtomicU64::new(0)).collect()))
    }

    /// How many worker records there are in the region that another program made of these cells; `None` where it is
    /// laid out otherwise.
    pub fn records_in(cells: &[AtomicU64]) -> Option<usize> {
        let read = |at: usize| cells.get(at).map_or(0, |cell| cell.load(Acquire));
        let records = usize::try_from(read(SEATS_AT)).ok()?;
        let alike = read(MAGIC_AT) == MAGIC && read(LAYOUT_AT) == FINGERPRINT;
        let whole =
            records.checked_mul(SEAT).is_some_and(|needed| needed <= cells.len().saturating_sub(LAYOUT.records));
        (alike && whole && records > 0).then_some(records)
    }

    /// The region that another program made of these cells; `None` where it is laid out otherwise.
    pub fn adopt(cells: &'static [AtomicU64]) -> Option<Region> {
        Region::records_in(cells).map(|_| Region { cells })
    }

    /// Takes over another's plan, and which slots have had owners.
    pub fn copy_plan(self, from: Region) {
        if let Some(plan) = from.table().read().1 {
            self.table().publish(&plan);
        }
        self.owners().store(from.owners().load(Relaxed), Relaxed);
        self.slots().store(from.slots().load(Relaxed), Relaxed);
    }

    /// The same memory by its header, as another program sees it.
    pub fn view(self) -> View<'static> {
        View::read(self.cells).expect("the header of a region is right")
    }

    /// How many worker records there are.
    pub fn records(self) -> usize {
        self.cells[SEATS_AT].load(Relaxed) as usize
    }

    /// How many worker records, from the first, have ever had a worker: those after them count nothing.
    pub fn used(self) -> &'static AtomicU64 {
        &self.cells[USED_AT]
    }

    /// How often a slot has had a new owner.
    pub fn owners(self) -> &'static AtomicU64 {
        &self.cells[OWNERS_AT]
    }

    /// How many slots, from the first, have ever had an owner.
    pub fn slots(self) -> &'static AtomicU64 {
        &self.cells[SLOTS_AT]
    }

    /// That a worker record's worker lives, and what it does.
    pub fn record(self, record: usize) -> WorkerRecord {
        WorkerRecord::new(&self.cells[LAYOUT.records + record * SEAT..][..LINE])
    }

    /// The plan.
    pub fn table(self) -> Table<'static> {
        Table::new(&self.cells[LAYOUT.table..][..LAYOUT.table_cells])
    }

    /// What all know about the backends.
    pub fn balance(self) -> Cells {
        Cells::new(&self.cells[BALANCE..][..Cells::needed(SLOTS)])
    }

    /// What the master counts.
    pub fn globals(self) -> Block {
        Block::new(&self.cells[LAYOUT.globals..][..Block::needed(0)])
    }

    /// From now on the block `before` counts, too.
    pub fn note_before(self) {
        self.cells[BEFORE_AT].store(1, Release);
    }

    /// All blocks: `before`, if anything was copied there, and the workers'.
    pub fn blocks(self) -> Vec<Block> {
        let before = (self.cells[BEFORE_AT].load(Acquire) != 0)
            .then(|| Block::new(&self.cells[LAYOUT.before..][..Block::needed(SLOTS)]));
        before.into_iter().chain((0..self.records()).map(|record| self.block(record))).collect()
    }

    /// What the worker in a worker record counts.
    pub fn block(self, record: usize) -> Block {
        Block::new(&self.cells[LAYOUT.records + record * SEAT + BLOCK..][..Block::needed(SLOTS)])
    }

    /// Takes back what the worker in a worker record had in flight and open, as it has ended, whatever it was
    /// doing.
    pub fn reclaim(self, record: usize) {
        self.record(record).clear();
        self.block(record).reclaim();
        let used = (self.used().load(Relaxed) as usize).min(self.records());
        // Memory of slots that never had an owner is not even looked at, which would take it up.
        let slots = self.slots().load(Relaxed) as usize;
        for (slot, cell) in self.in_flight(record).iter().enumerate().take(slots) {
            let others = (0..used).filter(|&other| other != record).map(|other| &self.in_flight(other)[slot]);
            in_flight::reclaim(cell, self.balance(), slot, others, std::thread::yield_now);
        }
    }

    /// What the worker in a worker record has in flight, by slot.
    pub fn in_flight(self, record: usize) -> &'static [AtomicU64] {
        &self.cells[LAYOUT.records + record * SEAT + IN_FLIGHT..][..SLOTS]
    }
}

/// Cells for a region of so many worker records, for tests.
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
    fn the_parts_lie_apart() {
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
    fn another_program_finds_it_where_it_is_laid_out_alike() {
        let cells = cells(2);
        assert!(Region::adopt(cells).is_none(), "nobody has made it one");
        Region::new(cells).block(1).add(Count::Clients, 3);
        assert_eq!(Region::adopt(cells).unwrap().block(1).get(Count::Clients), 3);
        assert!(Region::adopt(&cells[..cells.len() - 8]).is_none(), "a part is cut off");
        for at in [MAGIC_AT, LAYOUT_AT, SEATS_AT] {
            let before = cells[at].fetch_add(1, Relaxed);
            assert!(Region::adopt(cells).is_none(), "cell {at}");
            cells[at].store(before, Relaxed);
        }
        assert!(Region::adopt(&[]).is_none());
    }

    #[test]
    fn a_plan_is_found_if_the_rest_has_another_layout() {
        let cells = cells(1);
        let region = Region::new(cells);
        assert_eq!(View::read(cells).unwrap().plan(), None, "there is none");
        assert!(region.table().publish(b"plan"));
        cells[LAYOUT_AT].fetch_add(1, Relaxed);
        assert!(Region::adopt(cells).is_none());
        assert_eq!(View::read(cells).unwrap().plan(), Some(b"plan".to_vec()));
        cells[MAGIC_AT].fetch_add(1, Relaxed);
        assert!(View::read(cells).is_none(), "its bytes mean something else");
    }
}
