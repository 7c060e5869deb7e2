//! The log's way out. A reader that is slow, or gone, loses lines: it never stops the program.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::LOG_PIECE_BYTES;

/// Bytes of log that stderr had no room for and nobody was told of.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Writes text to stderr, as far as it takes it without waiting. What it does not take is
/// dropped, and counted in a line once there is room again.
pub fn write_stderr(text: &[u8]) {
    let mut rest = text;
    while !rest.is_empty() {
        if !has_room() {
            LOST.fetch_add(rest.len() as u64, Ordering::Relaxed);
            return;
        }
        let lost = LOST.swap(0, Ordering::Relaxed);
        if lost > 0 {
            write(format!("({lost} bytes of log lost: stderr was full)\n").as_bytes());
            continue;
        }
        let piece = &rest[..piece(rest)];
        write(piece);
        rest = &rest[piece.len()..];
    }
}

/// How much of the text goes at once: whole lines, up to what a pipe with any room takes.
fn piece(text: &[u8]) -> usize {
    if text.len() <= LOG_PIECE_BYTES {
        return text.len();
    }
    text[..LOG_PIECE_BYTES].iter().rposition(|&b| b == b'\n').map_or(LOG_PIECE_BYTES, |end| end + 1)
}

/// Whether a piece can be written without waiting. The descriptor may be shared with other
/// programs, so that it is not ours to make non-blocking.
fn has_room() -> bool {
    let mut polled = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer is to one live pollfd, and the count is 1.
    let ready = unsafe { libc::poll(&raw mut polled, 1, 0) };
    ready == 1 && polled.revents & libc::POLLOUT != 0
}

fn write(piece: &[u8]) {
    // SAFETY: the pointer and the length are a live slice's. Where it fails there is nobody to
    // tell.
    unsafe { libc::write(libc::STDERR_FILENO, piece.as_ptr().cast(), piece.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_with_lines_where_they_can() {
        assert_eq!(piece(b"a\nb"), 3);
        let long = [vec![b'x'; LOG_PIECE_BYTES - 10], b"\n".to_vec(), vec![b'y'; 100]].concat();
        assert_eq!(piece(&long), LOG_PIECE_BYTES - 9);
        assert_eq!(piece(&vec![b'x'; 2 * LOG_PIECE_BYTES]), LOG_PIECE_BYTES);
    }
}
