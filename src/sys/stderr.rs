//! Writes the log to stderr. If the reader is slow or gone, lines are lost, but the program never blocks.

#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock;
use crate::limits::LOG_PIECE_BYTES;
use crate::log::{Level, Log, timestamp};

/// Lost log that was not reported yet: bytes, lines, and the times of the first and the last line in
/// microseconds since 1970. There is one thread; the atomics only allow a static.
static LOST: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Bytes of lost log that are not yet counted in metrics.
static UNCOUNTED: AtomicU64 = AtomicU64::new(0);

/// The number of bytes of log lost since the last call.
pub fn take_lost() -> u64 {
    if UNCOUNTED.load(Ordering::Relaxed) == 0 { 0 } else { UNCOUNTED.swap(0, Ordering::Relaxed) }
}

/// Writes text to stderr as far as this does not block. The rest is dropped. A later line reports its size when
/// there is space again.
pub fn write_stderr(text: &[u8]) {
    let mut rest = text;
    while !rest.is_empty() {
        if !has_room() {
            lose(rest);
            return;
        }
        report_lost();
        // The report may have used up the space.
        if !has_room() {
            lose(rest);
            return;
        }
        let piece = &rest[..piece(rest)];
        write(piece);
        rest = &rest[piece.len()..];
    }
}

fn lose(text: &[u8]) {
    UNCOUNTED.fetch_add(text.len() as u64, Ordering::Relaxed);
    let now_us = clock::unix_us();
    let [bytes, lines, first_us, last_us] = &LOST;
    if bytes.fetch_add(text.len() as u64, Ordering::Relaxed) == 0 {
        first_us.store(now_us, Ordering::Relaxed);
    }
    lines.fetch_add(text.iter().filter(|&&b| b == b'\n').count() as u64, Ordering::Relaxed);
    last_us.store(now_us, Ordering::Relaxed);
}

/// True if lost lines are not reported yet.
pub fn has_lost() -> bool {
    LOST[0].load(Ordering::Relaxed) != 0
}

/// Reports the lost lines, if there are any and stderr has space again.
pub fn report_lost() {
    if !has_lost() || !has_room() {
        return;
    }
    let [bytes, lines, first_us, last_us] = LOST.each_ref().map(|cell| cell.swap(0, Ordering::Relaxed));
    let [first, last] = [first_us, last_us].map(timestamp);
    let shown = |stamp: [u8; 24]| String::from_utf8_lossy(&stamp).into_owned();
    let mut log = Log::new(Level::Warn);
    log.set_clock(clock::unix_us());
    let (pid, plural) = (std::process::id(), if lines == 1 { "" } else { "s" });
    let text = format_args!(
        "process {pid} lost {lines} line{plural} ({bytes} bytes) from {} to {}: stderr was full",
        shown(first),
        shown(last)
    );
    log.line(Level::Warn, "log", text);
    write(log.text());
}

/// Clears the losses inherited from the parent process, which reports them itself.
pub fn forget_lost() {
    LOST.iter().for_each(|cell| cell.store(0, Ordering::Relaxed));
    UNCOUNTED.store(0, Ordering::Relaxed);
}

/// True if this variable identifies stderr by device and inode as a stream to systemd's journal
/// (systemd.exec(5), JOURNAL_STREAM).
pub fn is_journal(journal_stream: Option<&OsStr>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(OsStr::to_str).and_then(|text| text.split_once(':')) else {
        return false;
    };
    // SAFETY: all zeroes is a valid stat, and the call writes one, to a live local.
    let stat = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        if libc::fstat(libc::STDERR_FILENO, &raw mut stat) != 0 {
            return false;
        }
        stat
    };
    device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino)
}

/// The length of the next write: whole lines, at most what a pipe with any space accepts.
fn piece(text: &[u8]) -> usize {
    if text.len() <= LOG_PIECE_BYTES {
        return text.len();
    }
    text[..LOG_PIECE_BYTES].iter().rposition(|&b| b == b'\n').map_or(LOG_PIECE_BYTES, |end| end + 1)
}

/// True if a piece can be written without blocking. Other programs may share the descriptor, so it must not be
/// made non-blocking.
fn has_room() -> bool {
    let mut polled = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: the pointer is to one live pollfd, and the count is 1.
    let ready = unsafe { libc::poll(&raw mut polled, 1, 0) };
    ready == 1 && polled.revents & libc::POLLOUT != 0
}

fn write(piece: &[u8]) {
    // SAFETY: the pointer and the length are a live slice's. A failure cannot be reported anywhere.
    unsafe { libc::write(libc::STDERR_FILENO, piece.as_ptr().cast(), piece.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_at_line_ends_if_possible() {
        assert_eq!(piece(b"a\nb"), 3);
        let long = [vec![b'x'; LOG_PIECE_BYTES - 10], b"\n".to_vec(), vec![b'y'; 100]].concat();
        assert_eq!(piece(&long), LOG_PIECE_BYTES - 9);
        assert_eq!(piece(&vec![b'x'; 2 * LOG_PIECE_BYTES]), LOG_PIECE_BYTES);
    }
}
