//! The header of the shared memory: the places of its cells. Any program that knows `MAGIC` can read it.

/// "zzz_lb" and a number. The number grows when the header, the tables, the directory, or the members of a plan get
/// another meaning.
pub const MAGIC: u64 = 0x7a7a_7a5f_6c62_0005;
/// Cells in a line.
pub(super) const LINE: usize = 8;
/// The header's cells.
pub(super) const MAGIC_AT: usize = 0;
pub(super) const LAYOUT_AT: usize = 1;
pub(super) const RECORDS_AT: usize = 2;
pub(super) const USED_AT: usize = 3;
pub(super) const OWNERS_AT: usize = 4;
pub(super) const SLOTS_AT: usize = 5;
pub(super) const BEFORE_AT: usize = 6;
/// The place of the list of tables. It is 0 in the memory of a program that has no list.
pub(super) const TABLES_AT: usize = 7;
pub(super) const GEOMETRY_AT: usize = LINE;
