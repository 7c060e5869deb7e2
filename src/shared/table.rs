//! What one process tells all others: some bytes, and which edition they are.
//!
//! Two buffers take turns. The writer fills the one that does not hold, and then says that it does;
//! a reader copies the one that holds, and does so again where another edition has come meanwhile,
//! as the one after that would be written over what it copied.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use crate::limits::PLAN_BYTES;

/// The cells before the buffers: a line, so that looking for an edition touches no buffer.
const EDITION: usize = 8;
/// A buffer: the length, then the bytes.
const BUFFER: usize = 1 + PLAN_BYTES / 8;

/// A view of the cells. Another program's may have buffers of another size.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    cells: &'a [AtomicU64],
    /// Cells of a buffer.
    buffer: usize,
}

impl<'a> Table<'a> {
    /// How many cells it takes.
    pub const CELLS: usize = EDITION + 2 * BUFFER;

    pub(super) fn new(cells: &'a [AtomicU64]) -> Table<'a> {
        assert!(Table::has_room(cells.len()), "both buffers have a length");
        Table { cells, buffer: (cells.len() - EDITION) / 2 }
    }

    /// Whether so many cells can be a table.
    pub(super) fn has_room(cells: usize) -> bool {
        cells >= EDITION + 2
    }

    /// Bytes that an edition may have.
    fn room(self) -> usize {
        (self.buffer - 1) * 8
    }

    /// Which edition holds: 0 before the first, each one more than the last.
    pub fn edition(self) -> u64 {
        self.cells[0].load(Acquire)
    }

    fn buffer(self, edition: u64) -> &'a [AtomicU64] {
        &self.cells[EDITION + (edition % 2) as usize * self.buffer..][..self.buffer]
    }

    /// Makes these bytes the next edition; false, and nothing done, where they are too many. There
    /// is one writer.
    pub fn publish(self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room() {
            return false;
        }
        let edition = self.edition() + 1;
        let buffer = self.buffer(edition);
        // A reader that finds any of what follows finds the edition before, too, to have changed.
        fence(Release);
        buffer[0].store(bytes.len() as u64, Relaxed);
        for (cell, part) in buffer[1..].iter().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..part.len()].copy_from_slice(part);
            cell.store(u64::from_le_bytes(whole), Relaxed);
        }
        self.cells[0].store(edition, Release);
        true
    }

    /// The edition that holds, and its bytes; `None` before the first.
    pub fn read(self) -> (u64, Option<Vec<u8>>) {
        loop {
            let edition = self.edition();
            if edition == 0 {
                return (0, None);
            }
            let buffer = self.buffer(edition);
            let length = (buffer[0].load(Relaxed) as usize).min(self.room());
            let cells = buffer[1..].iter().take(length.div_ceil(8));
            let mut bytes: Vec<u8> = cells.flat_map(|cell| cell.load(Relaxed).to_le_bytes()).collect();
            bytes.truncate(length);
            fence(Acquire);
            if self.cells[0].load(Relaxed) == edition {
                return (edition, Some(bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn table() -> Table<'static> {
        Table::new(Vec::leak((0..Table::CELLS).map(|_| AtomicU64::new(0)).collect()))
    }

    #[test]
    fn what_is_published_is_read() {
        let table = table();
        assert_eq!(table.read(), (0, None));
        for (edition, text) in ["", "a", "12345678", "a plan of some length"].into_iter().enumerate() {
            assert!(table.publish(text.as_bytes()));
            assert_eq!(table.read(), (edition as u64 + 1, Some(text.as_bytes().to_vec())));
        }
        assert!(!table.publish(&vec![0; PLAN_BYTES + 1]));
        assert!(table.publish(&vec![7; PLAN_BYTES]));
        assert_eq!(table.read().1.map(|bytes| bytes.len()), Some(PLAN_BYTES));
    }

    #[test]
    fn no_reader_sees_half_of_an_edition() {
        let (table, done) = (table(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..20_000_usize {
                    table.publish(&vec![n as u8; n % 200 + 1]);
                }
                done.store(true, Release);
            });
            while !done.load(Acquire) {
                if let (edition, Some(bytes)) = table.read() {
                    assert_eq!(bytes.len(), edition as usize % 200 + 1);
                    assert!(bytes.iter().all(|&byte| byte == edition as u8), "{edition}: {bytes:?}");
                }
            }
        });
    }
}
