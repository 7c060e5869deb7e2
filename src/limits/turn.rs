//! Bounds of a worker's loop: buffers, timers, one turn, log lines.

use super::*;

/// One pooled block. A read fills at most one block, and the largest head fits into one.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// Free space before and after a block's bytes, enough for a chunk-size line and its CRLF.
pub const BLOCK_MARGIN_BYTES: usize = 16;
/// The smallest buffer for bytes outside a block: a typical incomplete head.
pub const SMALL_BUFFER_BYTES: usize = 512;
/// Bytes that do not wait in a block, but in a buffer of about their size.
pub const WAITING_BYTES: usize = BLOCK_BYTES / 4;
/// Free blocks that a worker keeps. Further blocks return to the system.
pub const POOL_BLOCKS: usize = 32;
/// Bytes queued on a connection at which its source is no longer read.
pub const QUEUE_HIGH_BYTES: usize = 64 * 1024;
/// Data up to this size is copied behind the queued data. Larger data passes its block on if the block is at
/// least half full, or is the first in the queue.
pub const COPY_BYTES: usize = 8 * 1024;

/// The resolution of deadlines: the maximum delay of one.
pub const TIMER_TICK_US: u64 = 16_384;
/// Ticks in the wheel. Later deadlines are examined once per turn of the wheel (16.8 s).
pub const TIMER_TICKS: usize = 1024;
/// The time for which a client may send nothing after a response that ends its connection, before the
/// connection is closed. Data that arrives until then is read and dropped, so that a reset does not destroy the
/// response.
pub const LINGER_IDLE_US: u64 = 2 * SECOND_US;
/// The maximum duration of such a lingering close.
pub const LINGER_US: u64 = 30 * SECOND_US;
/// The time for which an idle client connection stays open after the proxy has ended its direction, so that a
/// request already under way meets no reset. It exceeds most round-trip times.
pub const IDLE_LINGER_US: u64 = SECOND_US / 2;
/// The time for which a tunnel may be silent in both directions.
pub const TUNNEL_IDLE_US: u64 = 3600 * SECOND_US;

/// The time for which a port that closes for good still accepts connections whose handshake has begun. The
/// kernel passes a deferred connection to the listener when it repeats its SYN-ACK after 1 s (RFC 6298, 2). A
/// further fifth of a second exceeds most round-trip times. A SYN that arrives in this time is dropped.
pub const LISTENERS_LEAVE_US: u64 = SECOND_US + SECOND_US / 5;
/// The size of one read: 33 segments of 1,448 bytes, so that the forwarded data also fills whole segments. A
/// read of 65,536 bytes would leave a partial segment, on Ethernet and on loopback.
pub const READ_BYTES: usize = 33 * 1448;
/// Events taken from the poller at once.
pub const POLL_EVENTS: usize = 256;
/// Connections accepted per turn before other connections are served.
pub const ACCEPTS_PER_TURN: usize = 16;
/// The number of consecutive turns with waiting connections after which one more is accepted per turn.
pub const ACCEPT_STREAK: usize = 4;
/// Expired deadlines handled per turn before other connections are served.
pub const EXPIRIES_PER_TURN: usize = 4;
/// Full blocks read from one connection per turn before other connections are served.
pub const READS_PER_TURN: usize = 4;
/// Pieces sent with one system call.
pub const SEND_SLICES: usize = 8;
/// The pause in accepting after the system has run out of descriptors.
pub const ACCEPT_PAUSE_US: u64 = SECOND_US / 10;
/// The time for which descriptors must have been available before a new shortage is logged.
pub const ACCEPT_STEADY_US: u64 = 5 * SECOND_US;
/// The interval at which an active worker records its memory and processor time.
pub const USAGE_US: u64 = SECOND_US;

/// The largest piece of log written at once: a pipe with any space accepts it without blocking (POSIX,
/// PIPE_BUF).
pub const LOG_PIECE_BYTES: usize = 4096;
/// The interval at which a process that has lost log lines checks for space on stderr, if nothing else happens.
pub const LOST_LOOK_US: u64 = SECOND_US;
/// The time for which lines of one kind are counted after the first one was written.
pub const LOG_WINDOW_US: u64 = SECOND_US;
/// Kinds of lines that are counted separately in that time: one cause for each of the backends that fail at
/// once. This takes about 16 KiB.
pub const LOG_KINDS: usize = 128;
/// The part of a path that a log line shows.
pub const LOG_PATH_BYTES: usize = 256;
/// The longest request id that is accepted. Ids of tracing systems have up to 64 characters.
pub const REQUEST_ID_BYTES: usize = 128;
/// The part of a refused message that `--trace` shows.
pub const TRACE_REFUSED_BYTES: usize = 4096;

const _: () = assert!(LINGER_IDLE_US < LINGER_US);
const _: () = assert!(TIMER_TICKS.is_multiple_of(64));
const _: () = assert!(SMALL_BUFFER_BYTES < WAITING_BYTES);
const _: () = assert!(BLOCK_BYTES + 2 * BLOCK_MARGIN_BYTES < u32::MAX as usize);
const _: () = assert!(READ_BYTES <= BLOCK_BYTES && READ_BYTES.is_multiple_of(1448));
