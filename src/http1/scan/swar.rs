//! The portable scanner: eight bytes at a time in a `u64` ("SIMD within a register").
//!
//! The lower half of a class, 0 to 0x7f, is a list of edges: the bytes at which a run of members begins or
//! ends. If the top bit of every byte is cleared, adding `0x80 - edge` sets the top bit of exactly the bytes at
//! or after the edge. It never carries into a neighbour, because 0x7f + 0x7f is below 0x100. The exclusive or
//! of these bits over all edges gives the side of each byte. The upper half is uniform, so the byte's own top
//! bit decides it.

use super::{Class, Scan, Target, Token, Value, upper_half_inside};

/// The largest number of edges of a class (tchar).
const MAX_EDGES: usize = 18;

/// Eight bytes of 0x80.
const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);

struct Edges {
    /// For each edge, `0x80 - edge` in every byte.
    addends: [u64; MAX_EDGES],
    count: usize,
}

const fn edges(inside: &[bool; 256]) -> Edges {
    let mut edges = Edges { addends: [0; MAX_EDGES], count: 0 };
    let mut byte = 1;
    while byte < 0x80 {
        if inside[byte] != inside[byte - 1] {
            edges.addends[edges.count] = u64::from_ne_bytes([0x80 - byte as u8; 8]);
            edges.count += 1;
        }
        byte += 1;
    }
    edges
}

/// A word whose bytes have the top bit set if they are outside `C`. All other bits are clear.
#[inline(always)]
fn outside<C: Class>(word: u64) -> u64 {
    let edges = const { edges(&C::INSIDE) };
    let lower = word & !TOPS;
    let mut outside = if C::INSIDE[0] { 0 } else { TOPS };
    for addend in &edges.addends[..edges.count] {
        outside ^= lower + addend;
    }
    if const { upper_half_inside(&C::INSIDE) } { outside & !word & TOPS } else { (outside | word) & TOPS }
}

/// The scans of this implementation.
#[derive(Clone, Copy)]
pub(super) struct Swar;

impl Scan for Swar {
    fn token_end(self, bytes: &[u8]) -> usize {
        end::<Token>(bytes)
    }

    fn target_end(self, bytes: &[u8]) -> usize {
        end::<Target>(bytes)
    }

    fn value_end(self, bytes: &[u8]) -> usize {
        end::<Value>(bytes)
    }
}

/// The index of the first byte of `bytes` outside `C`, or the length.
pub(super) fn end<C: Class>(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let outside = outside::<C>(u64::from_le_bytes(*chunk));
        if outside != 0 {
            return at + outside.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = &bytes[at..];
    // The padding is either outside the class, or inside and then nothing is found. In both cases the run
    // extends to the end.
    let found = outside::<C>(partial_word(rest)).trailing_zeros() as usize / 8;
    at + found.min(rest.len())
}

/// Up to eight bytes as the low bytes of a little-endian word, the rest zero. Overlapping loads replace a loop.
#[inline(always)]
pub(super) fn partial_word(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    debug_assert!(length <= 8);
    if let Some(word) = bytes.first_chunk::<8>() {
        u64::from_le_bytes(*word)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << (8 * (length - 4))
    } else if let (Some(first), Some(last)) = (bytes.first(), bytes.last()) {
        let middle = length / 2;
        u64::from(*first) | u64::from(bytes[middle]) << (8 * middle) | u64::from(*last) << (8 * (length - 1))
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_word_holds_the_bytes_and_zeros() {
        for length in 0..=8 {
            let mut word = [0; 8];
            (0..length).for_each(|i| word[i] = 0x81 + i as u8);
            assert_eq!(partial_word(&word[..length]).to_le_bytes(), word, "{length}");
        }
    }
}
