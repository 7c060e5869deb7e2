//! The list of tables at the front of the shared memory. Every program that knows `MAGIC` can read them, although it
//! may not know the layout of the rest.
//!
//! Each table has a name and its length before it: a line with the hash of the name and the count of cells, then the
//! cells. A line whose name is 0 ends the list. So a program passes over the tables that it does not know.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use super::directory::View;
use super::header::{LINE, MAGIC, MAGIC_AT, TABLES_AT};
use super::table::Table;
use crate::limits::{PLAN_BYTES, SECRETS_BYTES};
use crate::metrics::ids;

/// The name of the plan's table.
const PLAN: u64 = ids::of("plan");
/// The name of the table of secrets.
const SECRETS: u64 = ids::of("secrets");

/// A table of this program: its name, and its first cell behind the begin of the list.
pub(super) struct Place {
    name: u64,
    pub(super) at: usize,
    pub(super) cells: usize,
}

impl Place {
    const fn after(end: usize, name: u64, bytes: usize) -> Place {
        Place { name, at: end + LINE, cells: Table::cells(bytes) }
    }

    const fn end(&self) -> usize {
        self.at + self.cells.next_multiple_of(LINE)
    }
}

/// The plan. It is the first table, because programs without the list find it there.
pub(super) const PLAN_AT: Place = Place::after(0, PLAN, PLAN_BYTES);
/// The secrets.
pub(super) const SECRETS_AT: Place = Place::after(PLAN_AT.end(), SECRETS, SECRETS_BYTES);
/// The cells that the list of this program takes, with the line that ends it.
pub(super) const CELLS: usize = SECRETS_AT.end() + LINE;

/// Writes the list, which begins at the cell `from`.
pub(super) fn write(cells: &[AtomicU64], from: usize) {
    for table in [PLAN_AT, SECRETS_AT] {
        let line = from + table.at - LINE;
        cells[line].store(table.name, Relaxed);
        cells[line + 1].store(table.cells as u64, Relaxed);
    }
    cells[TABLES_AT].store(from as u64, Relaxed);
}

/// Returns the bytes of the plan in the memory of any program that has this `MAGIC`. `None`: there is no plan.
pub fn plan_in(cells: &[AtomicU64]) -> Option<Vec<u8>> {
    let table = match list_in(cells)? {
        // Programs before this list have no other place of the plan than their geometry.
        0 => View::read(cells)?.plan(),
        from => find(cells, from, PLAN)?,
    };
    table.read().1
}

/// Returns the bytes of the secrets in the memory of any program that has this `MAGIC`. `None`: there are none.
pub fn secrets_in(cells: &[AtomicU64]) -> Option<Vec<u8>> {
    let from = list_in(cells).filter(|&from| from > 0)?;
    find(cells, from, SECRETS)?.read().1
}

/// Returns the first cell of the list; 0 if the program has none. `None`: the memory has another `MAGIC`.
fn list_in(cells: &[AtomicU64]) -> Option<usize> {
    let is_known = cells.len() >= LINE && cells[MAGIC_AT].load(Acquire) == MAGIC;
    usize::try_from(cells.get(TABLES_AT).filter(|_| is_known)?.load(Relaxed)).ok()
}

/// Returns the table of a name in the list that begins at the cell `from`.
fn find(cells: &[AtomicU64], mut from: usize, name: u64) -> Option<Table<'_>> {
    loop {
        let line = cells.get(from..from.checked_add(LINE)?)?;
        let (found, length) = (line[0].load(Relaxed), usize::try_from(line[1].load(Relaxed)).ok()?);
        let begin = from + LINE;
        let table = cells.get(begin..begin.checked_add(length)?)?;
        match found {
            0 => return None,
            _ if found == name => return Table::has_room(length).then(|| Table::new(table)),
            _ => from = begin.checked_add(length.checked_next_multiple_of(LINE)?)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GEOMETRY_AT, HEADER, LAYOUT_AT, Region, cells};
    use super::*;

    #[test]
    fn a_plan_is_found_although_the_rest_of_the_memory_is_not_understood() {
        let cells = cells(1);
        assert_eq!(plan_in(cells), None, "it is no shared memory");
        let region = Region::new(cells);
        assert_eq!(plan_in(cells), None, "nothing was published");
        assert!(region.table().publish(b"plan"));
        cells[LAYOUT_AT].fetch_add(1, Relaxed);
        cells[GEOMETRY_AT..HEADER].iter().for_each(|cell| cell.store(u64::MAX, Relaxed));
        assert!(Region::adopt(cells).is_none() && View::read(cells).is_none());
        assert_eq!(plan_in(cells), Some(b"plan".to_vec()));
        cells[MAGIC_AT].fetch_add(1, Relaxed);
        assert_eq!(plan_in(cells), None, "the bytes have another meaning");
    }

    #[test]
    fn a_program_without_the_list_has_its_plan_where_the_geometry_says() {
        let cells = cells(1);
        let region = Region::new(cells);
        assert!(region.table().publish(b"plan"));
        cells[TABLES_AT].store(0, Relaxed);
        cells[HEADER].store(u64::MAX, Relaxed);
        assert_eq!(plan_in(cells), Some(b"plan".to_vec()));
        cells[GEOMETRY_AT].store(u64::MAX, Relaxed);
        assert_eq!(plan_in(cells), None);
    }

    #[test]
    fn secrets_are_found_although_the_rest_of_the_memory_is_not_understood() {
        let cells = cells(1);
        assert_eq!(secrets_in(cells), None, "it is no shared memory");
        let region = Region::new(cells);
        assert_eq!(secrets_in(cells), None, "nothing was published");
        assert!(region.table().publish(b"plan") && region.secrets().publish(b"keys"));
        cells[GEOMETRY_AT..HEADER].iter().for_each(|cell| cell.store(u64::MAX, Relaxed));
        assert_eq!((plan_in(cells), secrets_in(cells)), (Some(b"plan".to_vec()), Some(b"keys".to_vec())));
        // A program of before has no such table, and one before that no list.
        cells[HEADER + SECRETS_AT.at - LINE].store(0, Relaxed);
        assert_eq!((plan_in(cells), secrets_in(cells)), (Some(b"plan".to_vec()), None));
        cells[TABLES_AT].store(0, Relaxed);
        assert_eq!(secrets_in(cells), None);
    }

    #[test]
    fn tables_of_other_names_are_passed_over() {
        let list: Vec<AtomicU64> = (0..200).map(|_| AtomicU64::new(0)).collect();
        let put = |at: usize, name: u64, length: u64| {
            list[at].store(name, Relaxed);
            list[at + 1].store(length, Relaxed);
        };
        put(8, ids::of("another"), 21);
        put(40, PLAN, 30);
        assert!(find(&list, 8, PLAN).unwrap().publish(b"found"));
        assert_eq!(find(&list, 8, PLAN).unwrap().read().1, Some(b"found".to_vec()));
        assert!(find(&list, 8, ids::of("a third")).is_none(), "the list ends");
    }

    #[test]
    fn a_list_that_leads_outside_of_the_memory_has_no_tables() {
        let cells = cells(1);
        assert!(Region::new(cells).table().publish(b"plan"));
        let from = cells[TABLES_AT].load(Relaxed) as usize;
        for wrong in [u64::MAX, u64::MAX - 7, u64::MAX / 2, cells.len() as u64, cells.len() as u64 - 4] {
            let before = cells[TABLES_AT].swap(wrong, Relaxed);
            assert_eq!(plan_in(cells), None, "the list at {wrong}");
            cells[TABLES_AT].store(before, Relaxed);
            let before = cells[from + 1].swap(wrong, Relaxed);
            assert_eq!(plan_in(cells), None, "a table of {wrong} cells");
            cells[from].store(1, Relaxed);
            assert_eq!(plan_in(cells), None, "another table of {wrong} cells");
            cells[from].store(PLAN, Relaxed);
            cells[from + 1].store(before, Relaxed);
        }
        cells[from + 1].store(1, Relaxed);
        assert_eq!(plan_in(cells), None, "a table without room");
    }
}
