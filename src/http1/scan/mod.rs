//! Byte scanners for the HTTP/1 head parser. A scanner finds the end of a run of allowed bytes.
//!
//! Each class of bytes is defined once, by its predicate ([`is_token`], [`is_target`], [`is_value`]). The
//! tables and constants of every implementation are computed from it at compile time. There are three
//! implementations: `swar` (eight bytes in a `u64`, on every machine), and on x86-64 `sse4.2` (16 bytes) and
//! `avx2` (32 bytes). The first scan chooses one by the features of the processor. All give the same results:
//! the tests here and the fuzz target `scan` compare each with the predicate, byte by byte.
//!
//! Invariants: no implementation reads outside its slice (every load goes through a reference to an array of
//! the load's size); a [`Scanner`] for an instruction set exists only if the processor has that set.
//!
//! Heads consist of short runs (names of 4 to 20 bytes, values of 3 to 100), so the latency of one scan
//! matters. On x86-64 a run shorter than 16 bytes, with 16 bytes readable, takes one load, one classification
//! and one count of zeros, without a branch on its length. A parser makes two scans for each field. It is
//! therefore a [`Work`], compiled once for each implementation, so that the scans are inlined.

// A call of a function that is compiled for an instruction set is unsafe. `end`, `with` and the scans of `x86`
// make such calls.
#![allow(unsafe_code)]

mod swar;
#[cfg(target_arch = "x86_64")]
mod x86;

/// True if `byte` is a tchar, which methods and field names consist of (RFC 9110, 5.6.2).
pub const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// True if `byte` is allowed in a request target: any visible ASCII byte except `#`, which would begin a
/// fragment (RFC 9112, 3.2), and 0x80 and above, because many clients send unescaped UTF-8.
pub const fn is_target(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0x80..=0xff) && byte != b'#'
}

/// True if `byte` is allowed in a field value: visible ASCII, SP, HTAB and obs-text (RFC 9110, 5.5). CR, LF,
/// NUL, the other controls and DEL are not allowed.
pub const fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..=0xff)
}

/// The index of the first byte of `bytes` that is not a tchar ([`is_token`]), or the length.
#[inline]
pub fn token_end(bytes: &[u8]) -> usize {
    Scanner::chosen().token_end(bytes)
}

/// The index of the first byte of `bytes` that a request target cannot contain ([`is_target`]), or the length.
#[inline]
pub fn target_end(bytes: &[u8]) -> usize {
    Scanner::chosen().target_end(bytes)
}

/// The index of the first byte of `bytes` that a field value cannot contain ([`is_value`]), or the length.
#[inline]
pub fn value_end(bytes: &[u8]) -> usize {
    Scanner::chosen().value_end(bytes)
}

/// The index of the first LF of `bytes`, if there is one.
#[inline]
pub fn line_feed(bytes: &[u8]) -> Option<usize> {
    Scanner::chosen().line_feed(bytes)
}

/// The scans of one implementation.
pub trait Scan: Copy {
    /// See [`token_end`](fn@token_end).
    fn token_end(self, bytes: &[u8]) -> usize;
    /// See [`target_end`](fn@target_end).
    fn target_end(self, bytes: &[u8]) -> usize;
    /// See [`value_end`](fn@value_end).
    fn value_end(self, bytes: &[u8]) -> usize;
}

/// Chooses the implementation in each scan, for code that makes few scans.
impl Scan for Scanner {
    fn token_end(self, bytes: &[u8]) -> usize {
        self.end::<Token>(bytes)
    }

    fn target_end(self, bytes: &[u8]) -> usize {
        self.end::<Target>(bytes)
    }

    fn value_end(self, bytes: &[u8]) -> usize {
        self.end::<Value>(bytes)
    }
}

/// A computation with many scans.
pub trait Work {
    /// The result.
    type Output;
    /// Runs the computation. It is inlined into a function that is compiled for the implementation's
    /// instruction set.
    fn run(self, scan: impl Scan) -> Self::Output;
}

/// Runs a [`Work`] with the chosen implementation.
#[inline]
pub fn with<W: Work>(work: W) -> W::Output {
    match Scanner::chosen().0 {
        Level::Swar => work.run(swar::Swar),
        // SAFETY: `chosen` found that the processor has SSE4.2, which is the only requirement of the function.
        #[cfg(target_arch = "x86_64")]
        Level::Sse42 => unsafe { x86::with_sse42(work) },
        // SAFETY: as above, with AVX2.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { x86::with_avx2(work) },
    }
}

/// The name of the chosen implementation: `avx2`, `sse4.2` or `swar`.
pub fn level() -> &'static str {
    Scanner::chosen().name()
}

/// An implementation that this processor can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanner(Level);

/// Private, so that only [`Scanner::chosen`] and [`Scanner::available`] create one, after they have checked the
/// processor. The soundness of [`Scanner::end`] depends on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Swar,
    #[cfg(target_arch = "x86_64")]
    Sse42,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Scanner {
    /// The fastest implementation for this processor. The standard library checks the processor once and caches
    /// the result, so a call costs one load and one test.
    #[inline]
    pub fn chosen() -> Scanner {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx2") {
                return Scanner(Level::Avx2);
            }
            if std::arch::is_x86_feature_detected!("sse4.2") {
                return Scanner(Level::Sse42);
            }
        }
        Scanner(Level::Swar)
    }

    /// Every implementation that this processor can run, the slowest first, for tests and benches.
    pub fn available() -> impl Iterator<Item = Scanner> {
        let levels = [
            Some(Level::Swar),
            #[cfg(target_arch = "x86_64")]
            std::arch::is_x86_feature_detected!("sse4.2").then_some(Level::Sse42),
            #[cfg(target_arch = "x86_64")]
            std::arch::is_x86_feature_detected!("avx2").then_some(Level::Avx2),
        ];
        levels.into_iter().flatten().map(Scanner)
    }

    /// The name of the implementation, as in [`level`].
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Swar => "swar",
            #[cfg(target_arch = "x86_64")]
            Level::Sse42 => "sse4.2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
        }
    }

    /// [`token_end`](fn@token_end) by this implementation.
    #[inline]
    pub fn token_end(self, bytes: &[u8]) -> usize {
        self.end::<Token>(bytes)
    }

    /// [`target_end`](fn@target_end) by this implementation.
    #[inline]
    pub fn target_end(self, bytes: &[u8]) -> usize {
        self.end::<Target>(bytes)
    }

    /// [`value_end`](fn@value_end) by this implementation.
    #[inline]
    pub fn value_end(self, bytes: &[u8]) -> usize {
        self.end::<Value>(bytes)
    }

    /// [`line_feed`](fn@line_feed) by this implementation.
    #[inline]
    pub fn line_feed(self, bytes: &[u8]) -> Option<usize> {
        let at = self.end::<NotLineFeed>(bytes);
        (at < bytes.len()).then_some(at)
    }

    #[inline]
    fn end<C: Class>(self, bytes: &[u8]) -> usize {
        match self.0 {
            Level::Swar => swar::end::<C>(bytes),
            // SAFETY: a `Scanner` of this level is created only after the processor was found to have SSE4.2,
            // which is the only requirement of the function.
            #[cfg(target_arch = "x86_64")]
            Level::Sse42 => unsafe { x86::end_sse42::<C>(bytes) },
            // SAFETY: as above, with AVX2.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { x86::end_avx2::<C>(bytes) },
        }
    }
}

/// A class of bytes, as a table that the implementations derive their constants from. Bytes from 0x80 on must
/// be all inside or all outside, because both classification methods rely on it.
trait Class {
    /// True for each byte inside the class.
    const INSIDE: [bool; 256];
}

struct Token;
struct Target;
struct Value;
struct NotLineFeed;

/// The table of a predicate. It is a macro because a `const fn` cannot call through a function pointer.
macro_rules! table {
    ($inside:expr) => {{
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = $inside(byte as u8);
            byte += 1;
        }
        table
    }};
}

const fn is_not_line_feed(byte: u8) -> bool {
    byte != b'\n'
}

impl Class for Token {
    const INSIDE: [bool; 256] = table!(is_token);
}

impl Class for Target {
    const INSIDE: [bool; 256] = table!(is_target);
}

impl Class for Value {
    const INSIDE: [bool; 256] = table!(is_value);
}

impl Class for NotLineFeed {
    const INSIDE: [bool; 256] = table!(is_not_line_feed);
}

/// True if bytes from 0x80 on are inside the class. Does not compile if they differ.
const fn upper_half_inside(inside: &[bool; 256]) -> bool {
    let mut byte = 0x80;
    while byte < 0x100 {
        assert!(inside[byte] == inside[0x80], "the upper half of a class must be of one kind");
        byte += 1;
    }
    inside[0x80]
}

#[cfg(test)]
mod tests;
