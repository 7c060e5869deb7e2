//! Bounds of messages and of local replies.

use super::*;

/// A message head, from the start line to the empty line. A longer one gets 431 (from a client) or causes 502
/// (from a backend).
pub const HEAD_BYTES: usize = 64 * 1024;
/// Field lines in a request head. More: 431.
pub const HEAD_FIELDS: usize = 100;
/// Field lines in a response head. More: 502. Applications set many cookies and policies, and a client's parser
/// accepts at least as many.
pub const RESPONSE_FIELDS: usize = 256;
/// The request target. Longer: 414. It is a quarter of the head, so that the fields always have space.
pub const TARGET_BYTES: usize = 16 * 1024;
/// A request method. Longer: 501. The longest registered method has 17 letters.
pub const METHOD_BYTES: usize = 32;
/// A trailer section in bytes. `HEAD_FIELDS` limits its lines.
pub const TRAILER_BYTES: usize = 8 * 1024;
/// One chunk-size line: sixteen digits and a few extensions. No known software sends longer ones.
pub const CHUNK_LINE_BYTES: usize = 256;
/// All chunk extensions of one message together, so that one-byte chunks cannot carry a stream of ignored
/// bytes.
pub const CHUNK_EXTENSION_BYTES: usize = 16 * 1024;

/// 1xx responses to one request, forwarded or not: one every few seconds for an hour. More: 502.
pub const INTERIM_RESPONSES: u16 = 1000;

/// Options in the Connection fields of a message. Each option is compared with every field.
pub const CONNECTION_OPTIONS: usize = 32;

/// Retry-After of a 503, in seconds: soon, but not at once.
pub const RETRY_AFTER_S: &str = "1";
/// Connections to the admin port of one worker. Further connections are closed at once.
pub const ADMIN_CONNECTIONS: usize = 64;
/// The time for which a drained worker still serves open connections to the admin port.
pub const ADMIN_DRAIN_US: u64 = SECOND_US;
/// The part of the metrics page that is generated before other connections are served.
pub const METRICS_PORTION_BYTES: usize = 16 * 1024;
/// Metric cells that are read for such a part. With hundreds of workers, adding them up takes longer than
/// printing the sums, because each cell may be in another processor's cache.
pub const METRICS_CELLS: usize = 16 * 1024;

/// The line of a PROXY header of version 1 with its end, in bytes (`doc/proxy-protocol.txt` of HAProxy, 2.1).
pub const PROXY_LINE_BYTES: usize = 107;
/// A PROXY header of version 2, in bytes. TLVs carry names and subjects of certificates, which fit. A longer header ends
/// the connection.
pub const PROXY_HEADER_BYTES: usize = 4 * 1024;
/// The time for a PROXY header from the accept on, in microseconds. The sender has it ready.
pub const PROXY_HEADER_US: u64 = 5 * SECOND_US;

/// Backends that a cookie names: one for each route of a host that a client uses in a session.
pub const STICKY_TOKENS: usize = 4;
/// The longest life of a cookie in seconds. Browsers shorten a longer one to 400 days.
pub const COOKIE_AGE_S: u64 = 400 * 24 * 3600;
/// The fewest bytes of `--sticky-key`: as many as the hash has.
pub const STICKY_KEY_BYTES: usize = 32;
/// The file of `--sticky-key`. A longer one is not a key.
pub const STICKY_KEY_FILE_BYTES: usize = 4096;

const _: () = assert!(HEAD_BYTES <= BLOCK_BYTES);
const _: () = assert!(PROXY_LINE_BYTES < PROXY_HEADER_BYTES && PROXY_HEADER_BYTES <= BLOCK_BYTES);
const _: () = assert!(METRICS_PORTION_BYTES * 2 <= BLOCK_BYTES);
const _: () = assert!(TARGET_BYTES * 4 <= HEAD_BYTES);
const _: () = assert!(TRAILER_BYTES <= BLOCK_BYTES);
const _: () = assert!(CHUNK_LINE_BYTES < CHUNK_EXTENSION_BYTES);
