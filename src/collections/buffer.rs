//! A block of bytes with a filled range in it, and the pool that blocks come from.
//!
//! Invariant: `start <= end <= bytes.len()`. A pooled block keeps a little room before and
//! after what is read into it, so that a chunk's size line and its CRLF can be written around
//! data where it lies. Only blocks of the standard size go back to the pool.

use crate::limits::{BLOCK_BYTES, BLOCK_MARGIN_BYTES, POOL_BLOCKS, SMALL_BUFFER_BYTES};

const STANDARD_BYTES: usize = BLOCK_MARGIN_BYTES + BLOCK_BYTES + BLOCK_MARGIN_BYTES;

/// Owned bytes, of which a range is filled.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    start: u32,
    end: u32,
}

impl Buffer {
    /// A buffer of just the size for `bytes` and as much again, rounded up: for what must be
    /// kept a while outside a pooled block.
    fn small(bytes: &[u8]) -> Buffer {
        let size = (bytes.len() * 2).max(SMALL_BUFFER_BYTES).next_power_of_two();
        let mut kept = Buffer { bytes: vec![0; size + 2 * BLOCK_MARGIN_BYTES].into_boxed_slice(), start: 0, end: 0 };
        kept.rewind();
        kept.append(bytes);
        kept
    }

    /// The filled bytes.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start as usize..self.end as usize]
    }

    /// How many bytes are filled.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether nothing is filled.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether no less of it is filled than not.
    pub fn is_half_full(&self) -> bool {
        self.len() >= (self.bytes.len() - 2 * BLOCK_MARGIN_BYTES) / 2
    }

    /// The room behind the filled bytes, less the margin kept for framing.
    pub fn room(&mut self) -> &mut [u8] {
        let limit = self.bytes.len() - BLOCK_MARGIN_BYTES;
        let end = (self.end as usize).min(limit);
        &mut self.bytes[end..limit]
    }

    /// Says that `n` bytes of the room have been filled. More than the room counts as all of it.
    pub fn fill(&mut self, n: usize) {
        self.end = (self.end as usize + n).min(self.bytes.len()) as u32;
    }

    /// Drops `n` bytes from the front. More than are filled counts as all of them.
    pub fn consume(&mut self, n: usize) {
        self.start = (self.start as usize + n).min(self.end as usize) as u32;
    }

    /// Copies as much of `bytes` as there is room for; how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let room = self.room();
        let n = bytes.len().min(room.len());
        room[..n].copy_from_slice(&bytes[..n]);
        self.end += n as u32;
        n
    }

    /// Puts `before` in front of and `after` behind the filled bytes, in the margins. False,
    /// with nothing done, where a margin is too small.
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

/// The blocks that a worker has free.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Buffer>,
}

impl Pool {
    /// An empty pool.
    pub fn new() -> Pool {
        Pool::default()
    }

    /// An empty block with `BLOCK_BYTES` of room: the one given back last, which is still warm
    /// in the cache, or a fresh one.
    pub fn take(&mut self) -> Buffer {
        let mut block = self.free.pop().unwrap_or_else(|| Buffer {
            bytes: vec![0; STANDARD_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        });
        block.rewind();
        block
    }

    /// Takes a buffer back. Past `POOL_BLOCKS`, and in any other size, it is freed.
    pub fn give(&mut self, buffer: Buffer) {
        if buffer.is_standard() && self.free.len() < POOL_BLOCKS {
            self.free.push(buffer);
        }
    }

    /// What to keep of a partly used buffer until more comes: nothing where nothing is filled,
    /// and a small copy where a block would be held for a few bytes.
    pub fn keep(&mut self, buffer: Buffer) -> Option<Buffer> {
        if buffer.is_empty() {
            self.give(buffer);
            return None;
        }
        if buffer.is_standard() && buffer.len() <= BLOCK_BYTES / 4 {
            let small = Buffer::small(buffer.filled());
            self.give(buffer);
            return Some(small);
        }
        Some(buffer)
    }

    /// Makes room in `buffer`: moves what is filled to the front, or to a larger buffer. After
    /// it there is room, unless `BLOCK_BYTES` are filled already.
    pub fn widen(&mut self, mut buffer: Buffer) -> Buffer {
        if !buffer.room().is_empty() {
            return buffer;
        }
        let mut wider = if buffer.len() * 2 >= BLOCK_BYTES / 2 || buffer.is_standard() {
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
    fn framing_is_written_around_data_where_it_lies() {
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
