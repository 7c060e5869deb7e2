//! Bounds of a worker's loop: buffers, timers, one turn, log lines.

use super::*;

/// One pooled block: a read fills at most one, and the largest head fits in one.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// Room kept before and after a block's bytes, enough for a chunk-size line and its CRLF.
pub const BLOCK_MARGIN_BYTES: usize = 16;
/// The smallest buffer for bytes that wait outside a block: a typical half-received head.
pub const SMALL_BUFFER_BYTES: usize = 512;
/// Free blocks that a worker keeps; more are given back to the system.
pub const POOL_BLOCKS: usize = 32;
/// Bytes queued towards a connection at which its source stops being read.
pub const QUEUE_HIGH_BYTES: usize = 64 * 1024;
/// Data up to this size is copied behind what is queued already; beyond, its block is handed over where
/// that is half full, or first.
pub const COPY_BYTES: usize = 8 * 1024;

/// The grain of deadlines: how late one may fire.
pub const TIMER_TICK_US: u64 = 16_384;
/// Ticks in the wheel: later deadlines are looked at once a turn (16.8 s).
pub const TIMER_TICKS: usize = 1024;
/// How long a client may send nothing after an answer that ends its connection before that is
/// closed. What it sends until then is read and dropped, so that the answer is not lost to a reset.
pub const LINGER_IDLE_US: u64 = 2 * SECOND_US;
/// How long that may go on in all.
pub const LINGER_US: u64 = 30 * SECOND_US;
/// How long an idle client connection stays after our direction has ended, so that a request that was on its way
/// meets no reset: a round trip to nearly anywhere.
pub const IDLE_LINGER_US: u64 = SECOND_US / 2;
/// How long a tunnel may be silent in both directions.
pub const TUNNEL_IDLE_US: u64 = 3600 * SECOND_US;

/// How long a port that closes for good still accepts connections whose handshake has begun. The system
/// gives a deferred connection to the listener when it sends its SYN-ACK again, after 1 s (RFC 6298, 2);
/// a fifth of a second more is a round trip to nearly anywhere. A SYN that comes in that time is dropped.
pub const LISTENERS_LEAVE_US: u64 = SECOND_US + SECOND_US / 5;
/// How much of a socket is read at once: 33 segments of 1,448 bytes. The next socket then sends whole
/// segments. A block's 65,536 bytes would end in a runt, on Ethernet and on loopback alike.
pub const READ_BYTES: usize = 33 * 1448;
/// Events taken from the poller at once.
pub const POLL_EVENTS: usize = 256;
/// Connections accepted, at most, before others are looked after.
pub const ACCEPTS_PER_TURN: usize = 16;
/// Turns in a row in which connections waited, after which one more is accepted in each.
pub const ACCEPT_STREAK: usize = 4;
/// Passed deadlines acted on before others are looked after.
pub const EXPIRIES_PER_TURN: usize = 4;
/// Full blocks read from one connection before others are looked after.
pub const READS_PER_TURN: usize = 4;
/// Pieces sent with one system call.
pub const SEND_SLICES: usize = 8;
/// How long accepting pauses when the system has no descriptor left for a connection.
pub const ACCEPT_PAUSE_US: u64 = SECOND_US / 10;
/// How long the system must have had room before a new lack of it is news.
pub const ACCEPT_STEADY_US: u64 = 5 * SECOND_US;
/// How often a worker that is awake notes what memory and processor time it has used.
pub const USAGE_US: u64 = SECOND_US;

/// Log written at once: what a pipe with any room takes without waiting (POSIX, PIPE_BUF).
pub const LOG_PIECE_BYTES: usize = 4096;
/// How soon a process that has lost log looks whether stderr has room again, if nothing else happens.
pub const LOST_LOOK_US: u64 = SECOND_US;
/// For how long lines of one kind are counted after the first one was written.
pub const LOG_WINDOW_US: u64 = SECOND_US;
/// Kinds of lines that are counted apart in that time: a cause each at as many backends as fail at once. The
/// memory for it is about 16 KiB.
pub const LOG_KINDS: usize = 128;
/// How much of a path a line of log shows.
pub const LOG_PATH_BYTES: usize = 256;
/// The longest request id that is accepted: ids of tracing systems have up to 64 characters.
pub const REQUEST_ID_BYTES: usize = 128;
/// How much is kept of what TLS says of a failure.
pub const FAILURE_BYTES: usize = 96;
/// How much of a refused message `--trace` shows.
pub const TRACE_REFUSED_BYTES: usize = 4096;

const _: () = assert!(LINGER_IDLE_US < LINGER_US);
const _: () = assert!(TIMER_TICKS.is_multiple_of(64));
const _: () = assert!(SMALL_BUFFER_BYTES < BLOCK_BYTES / 4);
const _: () = assert!(BLOCK_BYTES + 2 * BLOCK_MARGIN_BYTES < u32::MAX as usize);
const _: () = assert!(READ_BYTES <= BLOCK_BYTES && READ_BYTES.is_multiple_of(1448));
