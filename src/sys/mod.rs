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
