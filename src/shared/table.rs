//! Bytes that one process publishes to all others, with the number of their edition.
//!
//! There are two buffers. The writer fills the buffer that does not hold the current edition, and then raises the
//! edition. A reader copies the buffer of the current edition. It copies again if the edition has changed meanwhile,
//! because the writer may then have written to that buffer.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

/// The cells before the buffers: a line, so that a look at the edition reads no buffer.
const EDITION: usize = 8;

/// A view of the cells. The table of another program may have buffers of another size.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    cells: &'a [AtomicU64],
    /// The cells of a buffer.
    buffer: usize,
}

impl<'a> Table<'a> {
    /// Returns the cells of a table whose editions have at most this many bytes. A buffer is the length, then the bytes.
    pub(super) const fn cells(bytes: usize) -> usize {
        EDITION + 2 * (1 + bytes.div_ceil(8))
    }

    pub(super) fn new(cells: &'a [AtomicU64]) -> Table<'a> {
        assert!(Table::has_room(cells.len()), "both buffers have a length");
        Table { cells, buffer: (cells.len() - EDITION) / 2 }
    }

    /// True if this many cells can be a table.
    pub(super) fn has_room(cells: usize) -> bool {
        cells >= EDITION + 2
    }

    /// Returns the greatest size of an edition in bytes.
    fn room(self) -> usize {
        (self.buffer - 1) * 8
    }

    /// Returns the number of the current edition. It is 0 before the first, and grows by one with each.
    pub fn edition(self) -> u64 {
        self.cells[0].load(Acquire)
    }

    fn buffer(self, edition: u64) -> &'a [AtomicU64] {
        &self.cells[EDITION + (edition % 2) as usize * self.buffer..][..self.buffer]
    }

    /// Publishes these bytes as the next edition. Only one process does so. Returns false, and changes nothing, if
    /// they are too many. The rest of the buffer is zeros, so that no byte of an earlier edition outlives it.
    pub fn publish(self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room() {
            return false;
        }
        let edition = self.edition() + 1;
        let buffer = self.buffer(edition);
        // A reader that finds one of the stores below also finds that the edition before has changed.
        fence(Release);
        let left = (buffer[0].load(Relaxed) as usize).min(self.room()).div_ceil(8);
        buffer[0].store(bytes.len() as u64, Relaxed);
        for (cell, part) in buffer[1..].iter().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..part.len()].copy_from_slice(part);
            cell.store(u64::from_le_bytes(whole), Relaxed);
        }
        buffer[1..=left].iter().skip(bytes.len().div_ceil(8)).for_each(|cell| cell.store(0, Relaxed));
        self.cells[0].store(edition, Release);
        true
    }

    /// Returns the cells that the current edition takes.
    pub fn current(self) -> &'a [AtomicU64] {
        let buffer = self.buffer(self.edition());
        let length = (buffer[0].load(Relaxed) as usize).min(self.room());
        &buffer[..1 + length.div_ceil(8)]
    }

    /// Returns the current edition and its bytes. `None`: nothing was published.
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

    const BYTES: usize = 100_000;

    fn table() -> Table<'static> {
        Table::new(Vec::leak((0..Table::cells(BYTES)).map(|_| AtomicU64::new(0)).collect()))
    }

    #[test]
    fn an_edition_that_was_published_is_read() {
        let table = table();
        assert_eq!(table.read(), (0, None));
        for (edition, text) in ["", "a", "12345678", "a plan of some length"].into_iter().enumerate() {
            assert!(table.publish(text.as_bytes()));
            assert_eq!(table.read(), (edition as u64 + 1, Some(text.as_bytes().to_vec())));
        }
        assert!(!table.publish(&vec![0; BYTES + 1]));
        assert!(table.publish(&vec![7; BYTES]));
        assert_eq!(table.read().1.map(|bytes| bytes.len()), Some(BYTES));
    }

    #[test]
    fn no_byte_of_an_earlier_edition_stays_in_its_buffer() {
        let table = table();
        for bytes in [&[7; 100][..], &[8; 100], &[1; 9], &[2; 3], b"", b""] {
            assert!(table.publish(bytes));
            assert_eq!(table.current().len(), 1 + bytes.len().div_ceil(8));
        }
        assert!(table.cells[EDITION..].iter().all(|cell| cell.load(Relaxed) == 0));
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
