//! Content in which every byte follows from its exchange, its direction and its offset, so a byte in a wrong exchange
//! or a wrong place shows. The content is a window into one random table, so making and comparing it is a copy and a
//! comparison of memory.

use std::sync::LazyLock;

use zzz_lb::collections::random::Random;

/// A prime, so the windows of different exchanges rarely begin at the same place.
const PERIOD: usize = 65_521;

static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random::new(0x7461_626c);
    let once: Vec<u8> = (0..PERIOD).map(|_| random.any() as u8).collect();
    [once.clone(), once].concat()
});

/// The direction of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From a client to a backend.
    Up,
    /// From a backend to a client.
    Down,
}

fn start(id: usize, way: Way, offset: usize) -> usize {
    ((id * 2 + usize::from(way == Way::Down)) * 7919 + offset) % PERIOD
}

/// Returns the first `length` bytes of an exchange's content.
pub(super) fn content(id: usize, way: Way, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        let at = start(id, way, out.len());
        out.extend_from_slice(&TABLE[at..at + (length - out.len()).min(PERIOD)]);
    }
    out
}

/// True if `bytes` are an exchange's content at `offset`.
pub(super) fn matches(id: usize, way: Way, offset: usize, bytes: &[u8]) -> bool {
    bytes.chunks(PERIOD).enumerate().all(|(nth, piece)| {
        let at = start(id, way, offset + nth * PERIOD);
        TABLE[at..at + piece.len()] == *piece
    })
}
