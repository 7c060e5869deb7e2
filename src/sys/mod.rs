//! The system: one file per facility, each a safe wrapper that returns `io::Result`. Nothing
//! else in the program, the SIMD scanners apart, has `unsafe` in it.

pub mod address;
pub mod affinity;
pub mod clock;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub mod epoll;
pub mod fork;
pub mod limit;
pub mod listen;
pub mod signal;
pub mod socket;
pub mod user;

use std::io::{ErrorKind, Write};

/// A change of a descriptor's readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the descriptor was registered under.
    pub token: u64,
    /// A read would not block: there are bytes, the end, or an error.
    pub readable: bool,
    /// A write would not block, or would fail.
    pub writable: bool,
    /// The peer's direction has ended: reads go on until they say so.
    pub ended: bool,
    /// The connection failed.
    pub broken: bool,
}

/// Writes text to stderr, as much as it takes. A log that is gone or full loses lines: it never
/// stops the program and is never waited for in a loop.
pub fn write_stderr(mut text: &[u8]) {
    let mut stderr = std::io::stderr().lock();
    while !text.is_empty() {
        match stderr.write(text) {
            Ok(0) => return,
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
