//! Reading and copying shared memory whose layout another program chose: the header says where each part is,
//! and the directory which metric each cell counts.
//!
//! A program that finds another layout than its own creates its own segment, and copies what it knows by name:
//! the state of the backends once (`copy_state`), and the counts as often as the old workers add to them
//! (`mirror`). The counts of all old workers go into one block, `before`, which only this copy writes. So a count
//! is never lost or doubled: each copy replaces the one before.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::table::Table;
use super::{GEOMETRY_AT, MAGIC, MAGIC_AT, OWNERS_AT, SEATS_AT, SLOTS_AT, USED_AT};
use crate::metrics::ids;

/// How many numbers of the header say where the parts are.
pub(super) const NUMBERS: usize = 18;

/// Where the parts are, in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// The plan's table, and how long it is.
    pub(super) table: usize,
    pub(super) table_cells: usize,
    /// The first slot of the backends' cells, and the distance to the next.
    pub(super) balance: usize,
    pub(super) balance_slot: usize,
    pub(super) slots: usize,
    pub(super) globals: usize,
    pub(super) before: usize,
    /// The first worker's record, the distance to the next, and the block in it.
    pub(super) records: usize,
    pub(super) record: usize,
    pub(super) block: usize,
    /// In a block: how many cells come before the slots, and the distance between slots.
    pub(super) own: usize,
    pub(super) slot: usize,
    /// The identities: those of a slot of the backends' cells, of the master's cells, of a worker's, of a slot's.
    pub(super) ids: usize,
    pub(super) balance_ids: usize,
    pub(super) global_ids: usize,
    pub(super) own_ids: usize,
    pub(super) slot_ids: usize,
    /// All cells before the workers' records.
    pub(super) fixed: usize,
}

impl Geometry {
    pub(super) const fn numbers(&self) -> [usize; NUMBERS] {
        let Geometry { table, table_cells, balance, balance_slot, slots, globals, before, records, record, .. } = *self;
        let Geometry { block, own, slot, ids, balance_ids, global_ids, own_ids, slot_ids, fixed, .. } = *self;
        [
            table,
            table_cells,
            balance,
            balance_slot,
            slots,
            globals,
            before,
            records,
            record,
            block,
            own,
            slot,
            ids,
            balance_ids,
            global_ids,
            own_ids,
            slot_ids,
            fixed,
        ]
    }

    fn of(numbers: [usize; NUMBERS]) -> Geometry {
        let [table, table_cells, balance, balance_slot, slots, globals, before, records, record, rest @ ..] = numbers;
        let [block, own, slot, ids, balance_ids, global_ids, own_ids, slot_ids, fixed] = rest;
        Geometry {
            table,
            table_cells,
            balance,
            balance_slot,
            slots,
            globals,
            before,
            records,
            record,
            block,
            own,
            slot,
            ids,
            balance_ids,
            global_ids,
            own_ids,
            slot_ids,
            fixed,
        }
    }

    /// Whether every part lies within `cells` cells, with this many workers' records, and holds what it has
    /// identities for.
    fn fits(&self, cells: usize, records: usize) -> bool {
        let end = |from: usize, count: usize, each: usize| count.checked_mul(each)?.checked_add(from);
        let within = |end: Option<usize>, most: usize| end.is_some_and(|end| end <= most);
        let block = end(self.own, self.slots, self.slot);
        let ids = [self.balance_ids, self.global_ids, self.own_ids, self.slot_ids];
        let all_ids = ids.into_iter().try_fold(self.ids, usize::checked_add);
        Table::has_room(self.table_cells)
            && within(self.table.checked_add(self.table_cells), cells)
            && within(end(self.balance, self.slots, self.balance_slot), cells)
            && within(self.globals.checked_add(self.own), cells)
            && within(block.and_then(|block| self.before.checked_add(block)), cells)
            && within(block.and_then(|block| self.block.checked_add(block)), self.record)
            && within(end(self.records, records, self.record), cells)
            && within(all_ids, cells)
            && self.balance_ids <= self.balance_slot
            && self.global_ids <= self.own
            && self.own_ids <= self.own
            && self.slot_ids < self.slot
    }
}

/// Shared memory in any layout that the header describes.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    cells: &'a [AtomicU64],
    geometry: Geometry,
    records: usize,
}

/// A block of counts.
#[derive(Clone, Copy)]
struct Block<'a> {
    cells: &'a [AtomicU64],
    own: usize,
    slot: usize,
}

impl<'a> Block<'a> {
    /// The cells of a slot: its generation, then its counts.
    fn slot(self, slot: usize) -> &'a [AtomicU64] {
        &self.cells[self.own + slot * self.slot..][..self.slot]
    }
}

impl<'a> View<'a> {
    /// The shared memory in these cells; `None` if they are none, or a part would lie outside of them.
    pub fn read(cells: &'a [AtomicU64]) -> Option<View<'a>> {
        if cells.len() < GEOMETRY_AT + NUMBERS || cells[MAGIC_AT].load(Acquire) != MAGIC {
            return None;
        }
        let number = |at: usize| usize::try_from(cells[at].load(Relaxed)).unwrap_or(usize::MAX);
        let geometry = Geometry::of(std::array::from_fn(|at| number(GEOMETRY_AT + at)));
        let records = number(SEATS_AT);
        (geometry.fits(cells.len(), records) && records > 0).then_some(View { cells, geometry, records })
    }

    /// The plan's bytes; `None` if there is none.
    pub fn plan(self) -> Option<Vec<u8>> {
        Table::new(&self.cells[self.geometry.table..][..self.geometry.table_cells]).read().1
    }

    /// How many workers' records there are.
    pub fn records(self) -> usize {
        self.records
    }

    fn number(self, at: usize) -> usize {
        usize::try_from(self.cells[at].load(Relaxed)).unwrap_or(usize::MAX)
    }

    /// How many slots, from the first, have ever had an owner.
    fn slots(self) -> usize {
        self.number(SLOTS_AT).min(self.geometry.slots)
    }

    /// Identities: the backends' cells, the master's, a worker's, a slot's.
    fn ids(self) -> [&'a [AtomicU64]; 4] {
        let Geometry { ids, balance_ids, global_ids, own_ids, slot_ids, .. } = self.geometry;
        let mut at = ids;
        [balance_ids, global_ids, own_ids, slot_ids].map(|count| {
            at += count;
            &self.cells[at - count..at]
        })
    }

    fn balance(self, slot: usize) -> &'a [AtomicU64] {
        &self.cells[self.geometry.balance + slot * self.geometry.balance_slot..][..self.geometry.balance_slot]
    }

    fn globals(self) -> &'a [AtomicU64] {
        &self.cells[self.geometry.globals..][..self.geometry.own]
    }

    fn block_at(self, from: usize) -> Block<'a> {
        let Geometry { own, slot, slots, .. } = self.geometry;
        Block { cells: &self.cells[from..from + own + slots * slot], own, slot }
    }

    /// What workers of programs before counted, as far as it was copied.
    fn before(self) -> Block<'a> {
        self.block_at(self.geometry.before)
    }

    /// The blocks of all workers that there have ever been, with their records' numbers.
    fn workers(self) -> impl Iterator<Item = (usize, Block<'a>)> + Clone {
        let Geometry { records, record, block, .. } = self.geometry;
        let used = self.number(USED_AT).min(self.records);
        (0..used).map(move |at| (at, self.block_at(records + at * record + block)))
    }
}

/// For each of `to`'s cells the place in `from` of the one with the same identity.
fn places(from: &[AtomicU64], to: &[AtomicU64]) -> Vec<(Option<usize>, u64)> {
    let find = |id: u64| from.iter().position(|one| one.load(Relaxed) == id);
    to.iter().map(|one| one.load(Relaxed)).map(|id| (find(id), id)).collect()
}

fn copy(places: &[(Option<usize>, u64)], from: &[AtomicU64], to: &[AtomicU64]) {
    for (cell, &(place, _)) in to.iter().zip(places) {
        if let Some(place) = place {
            cell.store(from[place].load(Relaxed), Relaxed);
        }
    }
}

/// Copies what is known of the backends, and what the master counted. To be called once, before `to` is used.
pub fn copy_state(from: View<'_>, to: View<'_>) {
    let ([balance, globals, ..], [to_balance, to_globals, ..]) = (from.ids(), to.ids());
    let (balance, globals) = (places(balance, to_balance), places(globals, to_globals));
    copy(&globals, from.globals(), to.globals());
    let slots = from.slots().min(to.geometry.slots);
    (0..slots).for_each(|slot| copy(&balance, from.balance(slot), to.balance(slot)));
    to.cells[OWNERS_AT].store(from.cells[OWNERS_AT].load(Relaxed), Relaxed);
    to.cells[SLOTS_AT].store(slots as u64, Relaxed);
}

/// Copies the sums of all counts of `from` into the block `before` of `to`, over those copied earlier. `is_living`:
/// whether the worker of a record lives, so that its gauges count.
pub fn mirror(from: View<'_>, to: View<'_>, is_living: impl Fn(usize) -> bool) {
    let ([_, _, own, slot], [_, _, to_own, to_slot]) = (from.ids(), to.ids());
    let (own, counts) = (places(own, to_own), places(slot, to_slot));
    let (before, target) = (from.before(), to.before());
    for (cell, &(place, id)) in target.cells.iter().zip(&own) {
        let Some(place) = place else { continue };
        let read = |block: Block<'_>| block.cells[place].load(Relaxed);
        let workers = from.workers().filter(|(record, _)| !ids::is_gauge(id) || is_living(*record));
        let sum = workers.fold(read(before), |sum, (_, block)| sum.wrapping_add(read(block)));
        cell.store(sum, Relaxed);
    }
    let blocks: Vec<Block<'_>> = from.workers().map(|(_, block)| block).chain([before]).collect();
    for slot in 0..from.slots().min(to.slots()) {
        mirror_slot(&blocks, slot, &counts, target.slot(slot));
    }
}

/// Copies the counts of the slot's latest owner.
fn mirror_slot(blocks: &[Block<'_>], slot: usize, counts: &[(Option<usize>, u64)], target: &[AtomicU64]) {
    let cells = || blocks.iter().map(|block| block.slot(slot));
    let generation = cells().map(|cells| cells[0].load(Acquire)).max().unwrap_or(0);
    if generation == 0 || generation < target[0].load(Relaxed) {
        return;
    }
    let own = || cells().filter(|cells| cells[0].load(Relaxed) == generation);
    if target[0].load(Relaxed) != generation {
        // Nobody may take the counts of the owner before for those of this one.
        target[0].store(0, Relaxed);
    }
    for (cell, &(place, _)) in target[1..].iter().zip(counts) {
        if let Some(place) = place {
            let sum = own().fold(0_u64, |sum, cells| sum.wrapping_add(cells[1 + place].load(Relaxed)));
            cell.store(sum, Relaxed);
        }
    }
    target[0].store(generation, Release);
}

#[cfg(test)]
mod tests {
    use super::super::{Region, cells};
    use super::*;
    use crate::balance::cells::State;
    use crate::limits::SLOTS;
    use crate::metrics::{Count, Global, SlotCount, SlotTime};

    /// A region of three workers, in which the metrics of a worker and of a slot are in another order.
    fn another_layout() -> (&'static [AtomicU64], Region) {
        let cells = cells(3);
        let region = Region::new(cells);
        (cells, region)
    }

    /// Turns the cells of a kind around, with their identities: the same counts in another order.
    fn turn(cells: &[AtomicU64]) {
        let view = View::read(cells).unwrap();
        let [balance, globals, own, slot] = view.ids();
        let reverse = |cells: &[AtomicU64]| {
            let before: Vec<u64> = cells.iter().map(|cell| cell.load(Relaxed)).collect();
            cells.iter().zip(before.iter().rev()).for_each(|(cell, &number)| cell.store(number, Relaxed));
        };
        for at in 0..view.slots() {
            reverse(&view.balance(at)[..balance.len()]);
        }
        reverse(&view.globals()[..globals.len()]);
        for block in view.workers().map(|(_, block)| block).chain([view.before()]) {
            reverse(&block.cells[..own.len()]);
            (0..view.slots()).for_each(|at| reverse(&block.slot(at)[1..=slot.len()]));
        }
        [balance, globals, own, slot].into_iter().for_each(reverse);
    }

    fn total(region: Region, read: impl Fn(crate::metrics::Block) -> u64) -> u64 {
        region.blocks().iter().map(|&block| read(block)).sum()
    }

    #[test]
    fn counts_are_found_by_name_and_each_copy_replaces_the_one_before() {
        let (cells, old) = another_layout();
        old.used().store(2, Relaxed);
        old.slots().store(2, Relaxed);
        old.owners().store(9, Relaxed);
        old.globals().add_global(Global::ReloadsDone, 4);
        old.balance().clear(1, State::Down, 77);
        for record in 0..2 {
            old.block(record).add(Count::Clients, 5);
            old.block(record).set(Count::ClientsNow, 2);
            old.block(record).adopt(1, 3);
            old.block(record).add_slot(SlotCount::Connects, 1, 10);
            old.block(record).observe_slot(SlotTime::Response, 1, 700);
        }
        // A count of an owner that the slot had before.
        old.block(1).adopt(0, 1);
        old.block(0).adopt(0, 2);
        old.block(1).add_slot(SlotCount::Connects, 0, 100);
        turn(cells);
        let (mine, region) = another_layout();
        let (from, to) = (View::read(cells).unwrap(), View::read(mine).unwrap());
        copy_state(from, to);
        mirror(from, to, |record| record == 0);
        region.note_before();
        region.used().store(1, Relaxed);
        region.block(0).add(Count::Clients, 1);
        region.block(0).adopt(1, 3);
        region.block(0).add_slot(SlotCount::Connects, 1, 1);
        assert_eq!(region.globals().get_global(Global::ReloadsDone), 4);
        assert_eq!((region.balance().state(1), region.owners().load(Relaxed)), (State::Down, 9));
        let clients = || total(region, |block| block.get(Count::Clients));
        assert_eq!((clients(), total(region, |block| block.get(Count::ClientsNow))), (11, 2));
        let connects =
            |slot, generation| total(region, |block| block.slot_cell(slot, generation, SlotCount::Connects as usize));
        assert_eq!((connects(1, 3), connects(0, 2), connects(0, 1)), (21, 0, 0));
        assert_eq!(total(region, |block| block.slot_cell(1, 3, SlotCount::METRICS.len() + 1)), 2);
        mirror(from, to, |_| false);
        assert_eq!((clients(), connects(1, 3)), (11, 21));
        assert_eq!(total(region, |block| block.get(Count::ClientsNow)), 0);
        // And what an old worker adds meanwhile comes with the next copy.
        turn(cells);
        old.block(0).add(Count::Clients, 1);
        turn(cells);
        mirror(from, to, |_| false);
        assert_eq!(clients(), 12);
    }

    #[test]
    fn what_another_program_does_not_know_is_left_alone() {
        let ((cells, old), (mine, region)) = (another_layout(), another_layout());
        old.used().store(1, Relaxed);
        old.block(0).add(Count::Clients, 5);
        old.block(0).add(Count::Cut, 7);
        let view = View::read(cells).unwrap();
        view.ids()[2][Count::Clients as usize].fetch_add(2, Relaxed);
        mirror(view, View::read(mine).unwrap(), |_| true);
        region.note_before();
        assert_eq!(total(region, |block| block.get(Count::Clients)), 0);
        assert_eq!(total(region, |block| block.get(Count::Cut)), 7);
    }

    #[test]
    fn a_header_that_leads_outside_is_none() {
        let (cells, _) = another_layout();
        assert!(View::read(cells).is_some());
        assert!(View::read(&cells[..cells.len() - 8]).is_none() && View::read(&[]).is_none());
        for at in [MAGIC_AT, SEATS_AT].into_iter().chain(GEOMETRY_AT..GEOMETRY_AT + NUMBERS - 1) {
            let before = cells[at].load(Relaxed);
            for wrong in [u64::MAX, u64::MAX / 2, 1 << 40] {
                cells[at].store(wrong, Relaxed);
                assert!(View::read(cells).is_none(), "cell {at}: {wrong}");
            }
            cells[at].store(before, Relaxed);
        }
        assert_eq!(View::read(cells).unwrap().records(), 3);
        const { assert!(SLOTS > 2) };
    }
}
