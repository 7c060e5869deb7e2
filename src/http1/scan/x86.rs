//! The scanners for x86-64: 16 bytes at a time (SSE4.2), and 32 (AVX2).
//!
//! A byte below 0x80 is classified by two table look-ups in a register (PSHUFB): its low nibble
//! picks a set of high nibbles, one bit each, and its high nibble picks the bit to test. For a
//! byte from 0x80 on the first look-up gives the empty set. So the sets list whichever of inside
//! and outside the upper half is *not*: tchars for tokens, and forbidden bytes for the rest.
//!
//! The only memory access is [`load_16`] and [`load_32`], from references to whole arrays: a
//! slice's last bytes are loaded by an array that overlaps bytes already seen or, where the
//! slice is shorter than that, put together from smaller loads.

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

/// For each high nibble its bit; those from 8 on never meet a non-empty set.
const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 0, 0, 0, 0, 0, 0, 0, 0];

/// The scans of one instruction set. Private to this file: only `with_sse42` and `with_avx2` make one, in
/// code that is compiled for its set, where the scans are inlined.
macro_rules! scans {
    ($name:ident, $end:ident) => {
        #[derive(Clone, Copy)]
        struct $name;

        impl Scan for $name {
            #[inline(always)]
            fn token_end(self, bytes: &[u8]) -> usize {
                // SAFETY: the value exists only in a function that was called because the processor has the set.
                unsafe { $end::<Token>(bytes) }
            }

            #[inline(always)]
            fn target_end(self, bytes: &[u8]) -> usize {
                // SAFETY: the value exists only in a function that was called because the processor has the set.
                unsafe { $end::<Target>(bytes) }
            }

            #[inline(always)]
            fn value_end(self, bytes: &[u8]) -> usize {
                // SAFETY: the value exists only in a function that was called because the processor has the set.
                unsafe { $end::<Value>(bytes) }
            }
        }
    };
}

scans!(Sse42, end_sse42);
scans!(Avx2, end_avx2);

/// Does a work with SSE4.2.
#[target_feature(enable = "sse4.2")]
pub(super) fn with_sse42<W: Work>(work: W) -> W::Output {
    work.run(Sse42)
}

/// Does a work with AVX2.
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

/// The index of the first byte of `bytes` outside `C`, or the length. The first 16 bytes alone,
/// as most runs end there.
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

/// The answer for `bytes` of which all but the last 16 are known to be inside `C`.
#[inline]
#[target_feature(enable = "sse4.2")]
fn end_of_tail<C: Class>(bytes: &[u8]) -> usize {
    let length = bytes.len();
    if let Some(last) = bytes.last_chunk::<16>() {
        return found(length - 16, outside_16::<C>(load_16(last)), length);
    }
    let chunk = if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        // Between 8 and 15 bytes: the last eight, less those that the first eight hold.
        let rest = u64::from_le_bytes(*last).checked_shr(8 * (16 - length as u32)).unwrap_or(0);
        _mm_set_epi64x(rest as i64, u64::from_le_bytes(*first) as i64)
    } else {
        _mm_set_epi64x(0, partial_word(bytes) as i64)
    };
    found(0, outside_16::<C>(chunk), length)
}

/// Where the lowest bit of `outside` says that the run from `at` ends, or `length`, whatever the
/// padding past it was taken for.
#[inline]
fn found(at: usize, outside: u32, length: usize) -> usize {
    (at + outside.trailing_zeros() as usize).min(length)
}

/// One bit for each byte, set where it is outside `C`.
#[inline]
#[target_feature(enable = "sse4.2")]
fn outside_16<C: Class>(chunk: __m128i) -> u32 {
    let sets = load_16(const { &sets(&C::INSIDE) });
    let high = _mm_and_si128(_mm_srli_epi16::<4>(chunk), _mm_set1_epi8(15));
    let listed = _mm_and_si128(_mm_shuffle_epi8(sets, chunk), _mm_shuffle_epi8(load_16(&BITS), high));
    let unlisted = _mm_movemask_epi8(_mm_cmpeq_epi8(listed, _mm_setzero_si128())) as u32;
    if const { upper_half_inside(&C::INSIDE) } { unlisted ^ 0xffff } else { unlisted }
}

/// One bit for each byte, set where it is outside `C`.
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
    // SAFETY: the reference makes exactly the 16 bytes that are read readable, and `loadu` asks
    // for no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx")]
fn load_32(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference makes exactly the 32 bytes that are read readable, and `loadu` asks
    // for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}
