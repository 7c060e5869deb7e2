//! Bounds of messages and of local replies.

use super::*;

/// A whole message head, start line to empty line. Past it: 431 to a client, 502 from a backend.
pub const HEAD_BYTES: usize = 64 * 1024;
/// Field lines in the head of a request. Past it: 431.
pub const HEAD_FIELDS: usize = 100;
/// Field lines in the head of a response. Past it: 502. Applications set many cookies and policies, and a
/// client's parser takes at least as many.
pub const RESPONSE_FIELDS: usize = 256;
/// The request target. Past it: 414. A quarter of the head, so that fields always have room.
pub const TARGET_BYTES: usize = 16 * 1024;
/// A request method. The longest registered one has 17 letters; past this: 501.
pub const METHOD_BYTES: usize = 32;
/// A trailer section, both its bytes and, by `HEAD_FIELDS`, its lines.
pub const TRAILER_BYTES: usize = 8 * 1024;
/// One chunk-size line: sixteen digits and a few extensions; nothing real uses more.
pub const CHUNK_LINE_BYTES: usize = 256;
/// All chunk extensions of one message together, so that one-byte chunks cannot carry a stream
/// of ignored bytes.
pub const CHUNK_EXTENSION_BYTES: usize = 16 * 1024;

/// 1xx responses to one request, passed on or not: one in every few seconds for an hour. Past it: 502.
pub const INTERIM_RESPONSES: u16 = 1000;

/// Options that a message's Connection fields may name: each is looked for among the fields.
pub const CONNECTION_OPTIONS: usize = 32;

/// What Retry-After says with a 503, in seconds: soon, but not at once.
pub const RETRY_AFTER_S: &str = "1";
/// Connections to the admin port in one worker; more are closed at once.
pub const ADMIN_CONNECTIONS: usize = 64;
/// How long a worker that has drained still answers those on the admin port who have asked, or are
/// about to.
pub const ADMIN_DRAIN_US: u64 = SECOND_US;
/// A portion of the metrics' text that is made before others are looked after.
pub const METRICS_PORTION_BYTES: usize = 16 * 1024;
/// Cells that are read for such a portion: with hundreds of workers adding them up takes longer
/// than writing the sums down, and each may have to come from another processor's cache.
pub const METRICS_CELLS: usize = 16 * 1024;

const _: () = assert!(HEAD_BYTES <= BLOCK_BYTES);
const _: () = assert!(METRICS_PORTION_BYTES * 2 <= BLOCK_BYTES);
const _: () = assert!(TARGET_BYTES * 4 <= HEAD_BYTES);
const _: () = assert!(TRAILER_BYTES <= BLOCK_BYTES);
const _: () = assert!(CHUNK_LINE_BYTES < CHUNK_EXTENSION_BYTES);
