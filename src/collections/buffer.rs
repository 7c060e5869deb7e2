//! A block of bytes with a filled range, and the pool of blocks.
//!
//! Invariant: `start <= end <= bytes.len()`. A pooled block has a margin before and after its data, so that a
//! chunk's size line and its CRLF can be written around the data in place. Only blocks of the standard size
//! return to the pool.

use crate::limits::{BLOCK_BYTES, BLOCK_MARGIN_BYTES, POOL_BLOCKS, SMALL_BUFFER_BYTES, WAITING_BYTES};

const STANDARD_BYTES: usize = BLOCK_MARGIN_BYTES + BLOCK_BYTES + BLOCK_MARGIN_BYTES;

/// Owned bytes with a filled range.
pub struct Buffer {
    bytes: Box<[u8]>,
    start: u32,
    end: u32,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({:?})", String::from_utf8_lossy(self.filled()))
    }
}

impl Buffer {
    /// A buffer of twice the size of `bytes`, rounded up, for data that waits outside a pooled block.
    fn small(bytes: &[u8]) -> Buffer {
        let mut kept = Buffer::sized((bytes.len() * 2).max(SMALL_BUFFER_BYTES).next_power_of_two());
        kept.append(bytes);
        kept
    }

    /// An empty buffer with this room.
    pub fn sized(room: usize) -> Buffer {
        let mut buffer = Buffer { bytes: vec![0; room + 2 * BLOCK_MARGIN_BYTES].into_boxed_slice(), start: 0, end: 0 };
        buffer.rewind();
        buffer
    }

    /// The memory that it occupies.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// The filled bytes.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start as usize..self.end as usize]
    }

    /// The number of filled bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// True if no byte is filled.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// True if at least half of the buffer is filled.
    pub fn is_half_full(&self) -> bool {
        self.len() >= (self.bytes.len() - 2 * BLOCK_MARGIN_BYTES) / 2
    }

    /// The free space after the filled bytes, without the margin for framing.
    pub fn room(&mut self) -> &mut [u8] {
        let limit = self.bytes.len() - BLOCK_MARGIN_BYTES;
        let end = (self.end as usize).min(limit);
        &mut self.bytes[end..limit]
    }

    /// Marks `n` bytes of `room` as filled, at most all of it.
    pub fn fill(&mut self, n: usize) {
        self.end = (self.end as usize + n).min(self.bytes.len()) as u32;
    }

    /// Removes `n` bytes from the front, at most all.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start as usize + n).min(self.end as usize) as u32;
    }

    /// Copies as much of `bytes` as fits and returns the number of bytes copied.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let room = self.room();
        let n = bytes.len().min(room.len());
        room[..n].copy_from_slice(&bytes[..n]);
        self.end += n as u32;
        n
    }

    /// Writes `before` in front of the filled bytes and `after` behind them, into the margins. Returns false
    /// and changes nothing if a margin is too small.
    pub fn wrap(&mut self, before: &[u8], after: &[u8]) -> bool {
        let (start, end) = (self.start as usize, self.end as usize);
        if before.len() > start || after.len() > self.bytes.len() - end {
            return false;
        }
        self.bytes[start - before.len()..start].copy_from_slice(before);
        self.bytes[end..end + after.len()].copy_from_slice(after);
        self.start -= before.len() as u32;
        self.end += after.len() as u32;
        true
    }

    fn rewind(&mut self) {
        self.start = BLOCK_MARGIN_BYTES as u32;
        self.end = self.start;
    }

    fn is_standard(&self) -> bool {
        self.bytes.len() == STANDARD_BYTES
    }
}

/// The free blocks of a worker.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Buffer>,
}

impl Pool {
    /// Creates an empty pool.
    pub fn new() -> Pool {
        Pool::default()
    }

    /// An empty block with `BLOCK_BYTES` of room: the one returned last, because it is still in the cache, or a
    /// new one.
    pub fn take(&mut self) -> Buffer {
        let mut block = self.free.pop().unwrap_or_else(|| Buffer {
            bytes: vec![0; STANDARD_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        });
        block.rewind();
        block
    }

    /// Returns a buffer. It is freed if the pool has `POOL_BLOCKS` already, or if the buffer has another size.
    pub fn give(&mut self, buffer: Buffer) {
        if buffer.is_standard() && self.free.len() < POOL_BLOCKS {
            self.free.push(buffer);
        }
    }

    /// Shrinks a partly filled buffer for storage: an empty one is returned to the pool, and a few bytes are
    /// copied so that they do not occupy a block.
    pub fn keep(&mut self, buffer: Buffer) -> Option<Buffer> {
        if buffer.is_empty() {
            self.give(buffer);
            return None;
        }
        if buffer.is_standard() && buffer.len() <= WAITING_BYTES {
            let small = Buffer::small(buffer.filled());
            self.give(buffer);
            return Some(small);
        }
        Some(buffer)
    }

    /// Appends all of `bytes` to data that waits, in a larger buffer if they do not fit.
    pub fn extend(&mut self, buffer: Option<Buffer>, bytes: &[u8]) -> Buffer {
        let Some(mut buffer) = buffer else { return Buffer::small(bytes) };
        if buffer.room().len() >= bytes.len() {
            buffer.append(bytes);
            return buffer;
        }
        let larger = Buffer::small(&[buffer.filled(), bytes].concat());
        self.give(buffer);
        larger
    }

    /// Makes room in `buffer` by moving the filled bytes to the front or to a larger buffer. Afterwards there
    /// is room, unless `BLOCK_BYTES` are filled. A few bytes get a block: they are often the begin of a frame, and many
    /// more follow, so a read should have room for these.
    pub fn widen(&mut self, mut buffer: Buffer) -> Buffer {
        let is_few = buffer.len() < SMALL_BUFFER_BYTES / 2 && !buffer.is_standard();
        if !is_few && !buffer.room().is_empty() {
            return buffer;
        }
        let mut wider = if is_few || buffer.len() * 2 >= BLOCK_BYTES / 2 || buffer.is_standard() {
            self.take()
        } else {
            return Buffer::small(buffer.filled());
        };
        wider.append(buffer.filled());
        self.give(buffer);
        wider
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_empty_and_is_used_again() {
        let mut pool = Pool::new();
        let mut block = pool.take();
        assert_eq!(block.room().len(), BLOCK_BYTES);
        block.append(b"left over");
        pool.give(block);
        let again = pool.take();
        assert!(again.is_empty());
        assert!(pool.free.is_empty());
    }

    #[test]
    fn the_pool_keeps_a_bounded_number() {
        let mut pool = Pool::new();
        let blocks: Vec<Buffer> = (0..POOL_BLOCKS + 5).map(|_| pool.take()).collect();
        blocks.into_iter().for_each(|block| pool.give(block));
        assert_eq!(pool.free.len(), POOL_BLOCKS);
    }

    #[test]
    fn framing_is_written_around_data_in_place() {
        let mut pool = Pool::new();
        let mut block = pool.take();
        block.append(b"xhello");
        block.consume(1);
        assert!(block.wrap(b"5\r\n", b"\r\n"));
        assert_eq!(block.filled(), b"5\r\nhello\r\n");
        assert!(!block.wrap(&[b'x'; 64], b""));
    }

    #[test]
    fn a_full_block_still_has_its_margin() {
        let mut block = Pool::new().take();
        let n = block.room().len();
        block.fill(n);
        assert!(block.room().is_empty());
        assert!(block.wrap(b"10000\r\n", b"\r\n"));
        assert_eq!(block.len(), n + 9);
    }

    #[test]
    fn a_few_kept_bytes_do_not_hold_a_block() {
        let mut pool = Pool::new();
        let mut block = pool.take();
        block.append(b"GET /");
        let mut kept = pool.keep(block).expect("bytes are kept");
        assert_eq!(kept.filled(), b"GET /");
        assert!(kept.bytes.len() < 2048);
        assert_eq!(pool.free.len(), 1);
        let mut text = b"GET /".to_vec();
        while text.len() < BLOCK_BYTES {
            kept = pool.widen(kept);
            let n = kept.append(&vec![b'a'; (BLOCK_BYTES - text.len()).min(700)]);
            assert!(n > 0);
            text.resize(text.len() + n, b'a');
        }
        assert_eq!(kept.filled(), &text[..]);
        kept = pool.widen(kept);
        assert!(kept.room().is_empty());
    }
}
