//! Reads and copies shared memory whose layout another program chose. The header says where each part is, and the
//! directory says which metric each cell counts.
//!
//! A program that finds another layout creates its own segment, and copies the data that it knows by name. It copies
//! the state of the backends once (`copy_state`), and the counts as often as the old workers add to them (`mirror`).
//! The counts of all old workers go into one block, `before`. Only this copy writes to that block, and each copy
//! replaces the one before. So a count is never lost and never counted twice.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::header::{GEOMETRY_AT, MAGIC, MAGIC_AT, OWNERS_AT, RECORDS_AT, SLOTS_AT, USED_AT};
use super::table::Table;
use crate::metrics::ids;

/// Makes the geometry from a list of its numbers. The order of the list is the order of the cells in the header, so
/// a program that needs another number appends it.
macro_rules! geometry {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// The places of the parts, in cells.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) struct Geometry {
            $($(#[doc = $doc])* pub(super) $name: usize,)*
        }

        /// The count of the header's cells that say where the parts are.
        pub(super) const NUMBERS: usize = [$(stringify!($name)),*].len();

        impl Geometry {
            /// Returns the numbers as the header has them.
            pub(super) const fn numbers(&self) -> [usize; NUMBERS] {
                [$(self.$name),*]
            }

            fn of(numbers: [usize; NUMBERS]) -> Geometry {
                let [$($name),*] = numbers;
                Geometry { $($name),* }
            }
        }
    };
}

geometry! {
    /// The plan's table. Programs that know the list of tables (`tables`) do not need it.
    table,
    /// The length of the plan's table.
    table_cells,
    /// The first slot of the backends' cells.
    balance,
    /// The distance from one slot of these cells to the next.
    balance_slot,
    /// The count of slots.
    slots,
    /// The master's cells.
    globals,
    /// The block `before`.
    before,
    /// The first worker record.
    records,
    /// The distance from one worker record to the next.
    record,
    /// The place of the block in a worker record.
    block,
    /// The count of cells before the slots in a block.
    own,
    /// The distance from one slot of a block to the next.
    slot,
    /// The directory: identities of the cells of a slot, of the master, of a worker, and of a worker's slot.
    ids,
    /// The count of identities of a slot of the backends' cells.
    balance_ids,
    /// The count of identities of the master's cells.
    global_ids,
    /// The count of identities of a worker's own cells.
    own_ids,
    /// The count of identities of the cells of a worker's slot.
    slot_ids,
}

impl Geometry {
    /// True if every part is within `cells` cells, with this many worker records, and has a cell for each of its
    /// identities.
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

/// A view of shared memory in any layout that the header describes.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    cells: &'a [AtomicU64],
    geometry: Geometry,
    records: usize,
}

/// The counts of one worker.
#[derive(Clone, Copy)]
struct Block<'a> {
    cells: &'a [AtomicU64],
    own: usize,
    slot: usize,
}

impl<'a> Block<'a> {
    /// Returns the cells of a slot: its generation, then its counts.
    fn slot(self, slot: usize) -> &'a [AtomicU64] {
        &self.cells[self.own + slot * self.slot..][..self.slot]
    }
}

impl<'a> View<'a> {
    /// Returns the shared memory in these cells. `None`: they hold none, or a part would be outside of them.
    pub fn read(cells: &'a [AtomicU64]) -> Option<View<'a>> {
        if cells.len() < GEOMETRY_AT + NUMBERS || cells[MAGIC_AT].load(Acquire) != MAGIC {
            return None;
        }
        let number = |at: usize| usize::try_from(cells[at].load(Relaxed)).unwrap_or(usize::MAX);
        let geometry = Geometry::of(std::array::from_fn(|at| number(GEOMETRY_AT + at)));
        let records = number(RECORDS_AT);
        (geometry.fits(cells.len(), records) && records > 0).then_some(View { cells, geometry, records })
    }

    /// Returns the plan's table as the geometry describes it.
    pub(super) fn plan(self) -> Table<'a> {
        Table::new(&self.cells[self.geometry.table..][..self.geometry.table_cells])
    }

    /// Returns the count of worker records.
    pub fn records(self) -> usize {
        self.records
    }

    fn number(self, at: usize) -> usize {
        usize::try_from(self.cells[at].load(Relaxed)).unwrap_or(usize::MAX)
    }

    /// Returns the count of slots that have ever had an owner. They are the first ones.
    fn slots(self) -> usize {
        self.number(SLOTS_AT).min(self.geometry.slots)
    }

    /// Returns the identities of the backends' cells, the master's, a worker's, and those of a worker's slot.
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

    /// Returns the counts that were copied from the workers of earlier programs.
    fn before(self) -> Block<'a> {
        self.block_at(self.geometry.before)
    }

    /// Returns the blocks of all workers that there have ever been, with the numbers of their records.
    fn workers(self) -> impl Iterator<Item = (usize, Block<'a>)> + Clone {
        let Geometry { records, record, block, .. } = self.geometry;
        let used = self.number(USED_AT).min(self.records);
        (0..used).map(move |at| (at, self.block_at(records + at * record + block)))
    }
}

/// Returns, for each identity of `to`, the place of the same identity in `from`.
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

/// Copies the state of the backends and the master's counts. It is called once, before `to` is used.
pub fn copy_state(from: View<'_>, to: View<'_>) {
    let ([balance, globals, ..], [to_balance, to_globals, ..]) = (from.ids(), to.ids());
    let (balance, globals) = (places(balance, to_balance), places(globals, to_globals));
    copy(&globals, from.globals(), to.globals());
    let slots = from.slots().min(to.geometry.slots);
    (0..slots).for_each(|slot| copy(&balance, from.balance(slot), to.balance(slot)));
    to.cells[OWNERS_AT].store(from.cells[OWNERS_AT].load(Relaxed), Relaxed);
    to.cells[SLOTS_AT].store(slots as u64, Relaxed);
}

/// Copies the sums of all counts of `from` into the block `before` of `to`. They replace the sums that were copied
/// earlier. `is_living` is true if the worker of a record lives: the gauges of a dead worker do not count.
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
        // While the counts of two owners are mixed, a reader must find the generation of neither.
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

    /// A region of three workers.
    fn three_workers() -> (&'static [AtomicU64], Region) {
        let cells = cells(3);
        let region = Region::new(cells);
        (cells, region)
    }

    /// Reverses the cells of each kind together with their identities: the same counts in another order.
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
        let (cells, old) = three_workers();
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
        // The slot had another owner before, whose count must not be copied.
        old.block(1).adopt(0, 1);
        old.block(0).adopt(0, 2);
        old.block(1).add_slot(SlotCount::Connects, 0, 100);
        turn(cells);
        let (mine, region) = three_workers();
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
        // The next copy contains the counts that an old worker has added since.
        turn(cells);
        old.block(0).add(Count::Clients, 1);
        turn(cells);
        mirror(from, to, |_| false);
        assert_eq!(clients(), 12);
    }

    #[test]
    fn a_count_that_the_other_program_does_not_know_is_not_copied() {
        let ((cells, old), (mine, region)) = (three_workers(), three_workers());
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
    fn a_header_with_a_part_outside_of_the_memory_is_refused() {
        let (cells, _) = three_workers();
        assert!(View::read(cells).is_some());
        assert!(View::read(&cells[..cells.len() - 8]).is_none() && View::read(&[]).is_none());
        for at in [MAGIC_AT, RECORDS_AT].into_iter().chain(GEOMETRY_AT..GEOMETRY_AT + NUMBERS) {
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
