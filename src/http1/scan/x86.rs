//! The scanners for x86-64: 16 bytes at a time (SSE4.2) or 32 (AVX2).
//!
//! Two table look-ups in a register (PSHUFB) classify a byte below 0x80: its low nibble selects a set of high
//! nibbles, one bit each, and its high nibble selects the bit to test. For a byte from 0x80 on, the first
//! look-up gives the empty set. The sets therefore list the side of the class that the upper half is *not* on:
//! tchars for tokens, forbidden bytes for the other classes.
//!
//! All memory is read by [`load_16`] and [`load_32`], through references to whole arrays. The last bytes of a
//! slice are loaded by an array that overlaps bytes already scanned. A slice shorter than an array is assembled
//! from smaller loads.

use std::arch::x86_64::*;

use super::swar::partial_word;
use super::{Class, Scan, Target, Token, Value, Work, upper_half_inside};

/// For each low nibble, the high nibbles (0 to 7, one bit each) of the bytes listed.
const fn sets(inside: &[bool; 256]) -> [u8; 16] {
    let listed = !upper_half_inside(inside);
    let mut sets = [0; 16];
    let mut byte = 0;
    while byte < 0x80 {
        if inside[byte] == listed {
            sets[byte & 15] |= 1 << (byte >> 4);
        }
        byte += 1;
    }
    sets
}

/// The bit of each high nibble. Nibbles from 8 on always meet an empty set.
const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0];

/// The scans of one instruction set. The type is private to this file: only `with_sse42` and `with_avx2` create
/// it, in code that is compiled for the instruction set, so that the scans are inlined.
macro_rules! scans {
    ($name:ident, $end:ident) => {
        #[derive(Clone, Copy)]
        struct $name;

        impl Scan for $name {
            #[inline(always)]
            fn token_end(self, bytes: &[u8]) -> usize {
                // SAFETY: the value exists only in a function that runs after the processor was found to have
                // the instruction set.
                unsafe { $end::<Token>(bytes) }
            }

            #[inline(always)]
            fn target_end(self, bytes: &[u8]) -> usize {
                // SAFETY: the value exists only in a function that runs after the processor was found to have
                // the instruction set.
                unsafe { $end::<Target>(bytes) }
            }

            #[inline(always)]
            fn value_end(self, bytes: &[u8]) -> usize {
                // SAFETY: the value exists only in a function that runs after the processor was found to have
                // the instruction set.
                unsafe { $end::<Value>(bytes) }
            }
        }
    };
}

scans!(Sse42, end_sse42);
scans!(Avx2, end_avx2);

/// Runs a [`Work`] with SSE4.2.
#[target_feature(enable = "sse4.2")]
pub(super) fn with_sse42<W: Work>(work: W) -> W::Output {
    work.run(Sse42)
}

/// Runs a [`Work`] with AVX2.
#[target_feature(enable = "avx2")]
pub(super) fn with_avx2<W: Work>(work: W) -> W::Output {
    work.run(Avx2)
}

/// The index of the first byte of `bytes` outside `C`, or the length.
#[inline]
#[target_feature(enable = "sse4.2")]
pub(super) fn end_sse42<C: Class>(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<16>() {
        let outside = outside_16::<C>(load_16(chunk));
        if outside != 0 {
            return at + outside.trailing_zeros() as usize;
        }
        at += 16;
    }
    end_of_tail::<C>(bytes)
}

/// The index of the first byte of `bytes` outside `C`, or the length. The first 16 bytes are scanned alone,
/// because most runs end there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn end_avx2<C: Class>(bytes: &[u8]) -> usize {
    let Some(first) = bytes.first_chunk::<16>() else { return end_of_tail::<C>(bytes) };
    let outside = outside_16::<C>(load_16(first));
    if outside != 0 {
        return outside.trailing_zeros() as usize;
    }
    let mut at = 16;
    while let Some(chunk) = bytes[at..].first_chunk::<32>() {
        let outside = outside_32::<C>(load_32(chunk));
        if outside != 0 {
            return at + outside.trailing_zeros() as usize;
        }
        at += 32;
    }
    let Some(last) = bytes.last_chunk::<32>() else { return end_of_tail::<C>(bytes) };
    found(bytes.len() - 32, outside_32::<C>(load_32(last)), bytes.len())
}

/// The result for `bytes` if all except the last 16 are known to be inside `C`.
#[inline]
#[target_feature(enable = "sse4.2")]
fn end_of_tail<C: Class>(bytes: &[u8]) -> usize {
    let length = bytes.len();
    if let Some(last) = bytes.last_chunk::<16>() {
        return found(length - 16, outside_16::<C>(load_16(last)), length);
    }
    let chunk = if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        // Between 8 and 15 bytes: the last eight, without those that the first eight contain.
        let rest = u64::from_le_bytes(*last).checked_shr(8 * (16 - length as u32)).unwrap_or(0);
        _mm_set_epi64x(rest as i64, u64::from_le_bytes(*first) as i64)
    } else {
        _mm_set_epi64x(0, partial_word(bytes) as i64)
    };
    found(0, outside_16::<C>(chunk), length)
}

/// The end of the run that starts at `at`: the lowest bit of `outside`, at most `length`. The padding after
/// `length` may have any class.
#[inline]
fn found(at: usize, outside: u32, length: usize) -> usize {
    (at + outside.trailing_zeros() as usize).min(length)
}

/// One bit for each byte, set if the byte is outside `C`.
#[inline]
#[target_feature(enable = "sse4.2")]
fn outside_16<C: Class>(chunk: __m128i) -> u32 {
    let sets = load_16(const { &sets(&C::INSIDE) });
    let high = _mm_and_si128(_mm_srli_epi16::<4>(chunk), _mm_set1_epi8(15));
    let listed = _mm_and_si128(_mm_shuffle_epi8(sets, chunk), _mm_shuffle_epi8(load_16(&BITS), high));
    let unlisted = _mm_movemask_epi8(_mm_cmpeq_epi8(listed, _mm_setzero_si128())) as u32;
    if const { upper_half_inside(&C::INSIDE) } { unlisted ^ 0xffff } else { unlisted }
}

/// One bit for each byte, set if the byte is outside `C`.
#[inline]
#[target_feature(enable = "avx2")]
fn outside_32<C: Class>(chunk: __m256i) -> u32 {
    let sets = _mm256_broadcastsi128_si256(load_16(const { &sets(&C::INSIDE) }));
    let bits = _mm256_broadcastsi128_si256(load_16(&BITS));
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(chunk), _mm256_set1_epi8(15));
    let listed = _mm256_and_si256(_mm256_shuffle_epi8(sets, chunk), _mm256_shuffle_epi8(bits, high));
    let unlisted = _mm256_movemask_epi8(_mm256_cmpeq_epi8(listed, _mm256_setzero_si256())) as u32;
    if const { upper_half_inside(&C::INSIDE) } { !unlisted } else { unlisted }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load_16(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference makes exactly the 16 bytes readable that are read, and `loadu` needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx")]
fn load_32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference makes exactly the 32 bytes readable that are read, and `loadu` needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}
