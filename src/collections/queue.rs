//! Bytes to be sent on a connection, in a few buffers. An empty queue owns no memory, so an idle connection
//! costs none.

use std::collections::VecDeque;

use super::buffer::{Buffer, Pool};
use crate::limits::{COPY_BYTES, SMALL_BUFFER_BYTES, WAITING_BYTES};

/// Queued bytes in sending order.
#[derive(Debug, Default)]
pub struct Queue {
    first: Option<Buffer>,
    /// Boxed, because most queues hold one buffer, and every idle connection has a queue.
    rest: Option<Box<Rest>>,
    len: usize,
}

/// The buffers after the first one.
#[derive(Debug, Default)]
struct Rest(VecDeque<Buffer>);

impl Queue {
    /// Creates an empty queue.
    pub fn new() -> Queue {
        Queue::default()
    }

    /// The number of queued bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if no bytes are queued.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `bytes` to the end.
    pub fn write(&mut self, pool: &mut Pool, mut bytes: &[u8]) {
        self.len += bytes.len();
        loop {
            if let Some(last) = self.rest.as_mut().and_then(|rest| rest.0.back_mut()).or(self.first.as_mut()) {
                bytes = &bytes[last.append(bytes)..];
            }
            if bytes.is_empty() {
                return;
            }
            self.link(pool.take());
        }
    }

    /// Appends a whole buffer. A buffer that is less than half full and not the first is copied instead, so
    /// that the queue does not occupy nearly empty blocks.
    pub fn push(&mut self, pool: &mut Pool, buffer: Buffer) {
        if !buffer.is_half_full() && self.first.is_some() || buffer.is_empty() {
            self.write(pool, buffer.filled());
            pool.give(buffer);
            return;
        }
        self.len += buffer.len();
        self.link(buffer);
    }

    /// Appends the first `length` bytes of a buffer and returns the rest. A large piece that uses the whole
    /// buffer is appended without copying.
    pub fn take(&mut self, pool: &mut Pool, mut buffer: Buffer, length: usize) -> Option<Buffer> {
        if length == buffer.len() && length > COPY_BYTES {
            self.push(pool, buffer);
            return None;
        }
        self.write(pool, &buffer.filled()[..length]);
        buffer.consume(length);
        Some(buffer)
    }

    /// Moves bytes from the front to the end of another queue.
    pub fn pass(&mut self, pool: &mut Pool, to: &mut Queue, n: usize) {
        let mut left = n.min(self.len);
        while let Some(first) = self.first.as_ref().filter(|_| left > 0) {
            let step = left.min(first.len());
            to.write(pool, &first.filled()[..step]);
            self.consume(pool, step);
            left -= step;
        }
    }

    fn link(&mut self, buffer: Buffer) {
        match self.first {
            None => self.first = Some(buffer),
            Some(_) => self.rest.get_or_insert_default().0.push_back(buffer),
        }
    }

    /// The queued bytes, buffer by buffer.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let rest = self.rest.iter().flat_map(|rest| &rest.0);
        self.first.iter().chain(rest).map(Buffer::filled)
    }

    /// Removes `n` sent bytes from the front and returns their buffers to the pool.
    pub fn consume(&mut self, pool: &mut Pool, mut n: usize) {
        n = n.min(self.len);
        self.len -= n;
        while let Some(first) = &mut self.first {
            let step = n.min(first.len());
            first.consume(step);
            n -= step;
            if !first.is_empty() {
                return;
            }
            let next = self.rest.as_mut().and_then(|rest| rest.0.pop_front());
            if let Some(done) = std::mem::replace(&mut self.first, next) {
                pool.give(done);
            }
        }
        self.rest = None;
    }

    /// The memory of the buffers.
    pub fn capacity(&self) -> usize {
        let rest = self.rest.iter().flat_map(|rest| &rest.0);
        self.first.iter().chain(rest).map(Buffer::capacity).sum()
    }

    /// The memory of the bytes if they wait: few bytes are in a small buffer then.
    pub fn memory(&self) -> usize {
        let capacity = self.capacity();
        if self.len <= WAITING_BYTES { capacity.min(small(self.len)) } else { capacity }
    }

    /// Moves few bytes that occupy much more memory into a small buffer, because they are going to wait.
    pub fn shrink(&mut self, pool: &mut Pool) {
        let is_few = self.len > 0 && self.len <= WAITING_BYTES;
        if !is_few || self.capacity() <= 2 * self.len.max(SMALL_BUFFER_BYTES) {
            return;
        }
        let mut buffer = Buffer::sized(small(self.len));
        self.slices().for_each(|slice| _ = buffer.append(slice));
        self.clear(pool);
        (self.len, self.first) = (buffer.len(), Some(buffer));
    }

    /// Discards all bytes.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.consume(pool, self.len);
    }
}

/// The size of a small buffer for so many bytes: a few more have room.
fn small(len: usize) -> usize {
    (len + len / 4).max(SMALL_BUFFER_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BLOCK_BYTES;

    fn all(queue: &Queue) -> Vec<u8> {
        queue.slices().flatten().copied().collect()
    }

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut pool = Pool::new();
        let mut queue = Queue::new();
        let mut expected = Vec::new();
        for i in 0..200_u32 {
            let piece: Vec<u8> = (0..i * 11).map(|n| (n + i) as u8).collect();
            if i % 3 == 0 {
                let mut block = pool.take();
                block.append(&piece);
                queue.push(&mut pool, block);
            } else {
                queue.write(&mut pool, &piece);
            }
            expected.extend(piece);
        }
        assert_eq!(queue.len(), expected.len());
        while !queue.is_empty() {
            assert_eq!(all(&queue), expected);
            let n = expected.len().min(7919);
            queue.consume(&mut pool, n);
            expected.drain(..n);
        }
        assert!(expected.is_empty());
        assert!(queue.first.is_none());
    }

    #[test]
    fn a_large_buffer_is_handed_over_and_a_small_one_copied() {
        let mut pool = Pool::new();
        let mut queue = Queue::new();
        queue.write(&mut pool, b"head");
        let mut small = pool.take();
        small.append(&[1; 100]);
        queue.push(&mut pool, small);
        assert_eq!(queue.slices().count(), 1);
        let mut large = pool.take();
        large.append(&[2; BLOCK_BYTES]);
        queue.push(&mut pool, large);
        assert_eq!(queue.slices().count(), 2);
        assert_eq!(queue.len(), 104 + BLOCK_BYTES);
    }

    #[test]
    fn blocks_hold_at_most_twice_the_queued_bytes() {
        for piece in [COPY_BYTES + 1, 9_000, BLOCK_BYTES / 2 - 1, BLOCK_BYTES / 2 + 100] {
            let (mut pool, mut queue) = (Pool::new(), Queue::new());
            for _ in 0..100 {
                let mut block = pool.take();
                block.append(&vec![1; piece]);
                assert!(queue.take(&mut pool, block, piece).is_none());
            }
            let blocks = queue.slices().count();
            assert!(blocks * BLOCK_BYTES <= 2 * queue.len() + BLOCK_BYTES, "{blocks} for {piece} each");
        }
    }

    #[test]
    fn bytes_pass_to_another_queue_across_buffers() {
        let (mut pool, mut from, mut to) = (Pool::new(), Queue::new(), Queue::new());
        for value in 0..3 {
            let mut block = pool.take();
            block.append(&[value; 10_000]);
            assert!(from.take(&mut pool, block, 10_000).is_none());
        }
        let mut block = pool.take();
        block.append(&[3; 10]);
        assert_eq!(from.take(&mut pool, block, 4).unwrap().len(), 6);
        let expected = all(&from);
        for step in [1, 9_999, 12_000, 99_999] {
            from.pass(&mut pool, &mut to, step);
        }
        assert_eq!((all(&to), from.len()), (expected, 0));
    }

    #[test]
    fn an_empty_queue_owns_nothing() {
        let mut pool = Pool::new();
        let mut queue = Queue::new();
        for _ in 0..10 {
            let mut block = pool.take();
            block.append(&[0; BLOCK_BYTES]);
            queue.push(&mut pool, block);
        }
        queue.clear(&mut pool);
        assert!(queue.is_empty() && queue.first.is_none());
        assert!(queue.rest.is_none());
    }

    #[test]
    fn few_bytes_that_wait_occupy_about_their_size() {
        let mut pool = Pool::new();
        let mut queue = Queue::new();
        for n in 1..=WAITING_BYTES / 100 {
            queue.write(&mut pool, &[n as u8; 100]);
            queue.shrink(&mut pool);
            let (len, capacity) = (queue.len(), queue.capacity());
            assert!(capacity <= 2 * len.max(SMALL_BUFFER_BYTES), "{len} bytes occupy {capacity}");
            assert_eq!(queue.memory(), capacity.min(small(len)));
        }
        let expected: Vec<u8> = (1..=WAITING_BYTES / 100).flat_map(|n| [n as u8; 100]).collect();
        assert_eq!(all(&queue), expected);
        queue.write(&mut pool, &[0; WAITING_BYTES]);
        queue.shrink(&mut pool);
        assert_eq!(queue.memory(), queue.capacity(), "more bytes are in blocks");
    }
}
