//! Bounds of HTTP/2 (RFC 9113) and HPACK (RFC 7541).

use super::*;

/// The largest frame payload in both directions: the protocol's minimum for SETTINGS_MAX_FRAME_SIZE (RFC 9113,
/// 6.5.2), so that a whole frame always fits into a block.
pub const H2_FRAME_BYTES: usize = 16 * 1024;
/// The size of the HPACK dynamic table for a peer's fields (RFC 7541, 4.2).
pub const H2_TABLE_BYTES: usize = 4096;
/// SETTINGS_MAX_HEADER_LIST_SIZE, with 32 bytes added per field (RFC 9113, 6.5.2): as large as a head may be.
pub const H2_LIST_BYTES: usize = HEAD_BYTES;
/// The decoded size of one field block, counted the same way, above which the connection ends. Fields beyond
/// the other limits are not kept, but decoding still copies them.
pub const H2_DECODED_BYTES: usize = 4 * H2_LIST_BYTES;
/// A field block as received, over all of its frames. It equals the limit on decoded fields, so that a message
/// with too many fields is refused alone. A connection has one block at a time, so a backend can make a worker
/// hold a buffer of up to twice this size for each connection.
pub const H2_BLOCK_BYTES: usize = H2_DECODED_BYTES;
/// A field block of a client: twice as large as a list may be, so that a message with a larger list is refused alone. A
/// client that does not end its block holds no more than it may hold without the budget.
pub const H2_CLIENT_BLOCK_BYTES: usize = H2_PARITY_BYTES;
/// Frames of one field block: four times as many as it needs.
pub const H2_BLOCK_FRAMES: u32 = 64;
/// Memory that a decoder keeps for a name, and for a value, after their block is decoded.
pub const H2_STRING_BYTES: usize = 4096;
/// Concurrent streams of a connection for either side, even if the peer would allow more.
pub const H2_STREAMS: u32 = 128;
/// Concurrent streams of a client: the least that RFC 9113, 6.5.2 recommends.
pub const H2_CLIENT_STREAMS: u32 = 100;
/// Requests of a client on one connection before it is asked to open another one, so that clients spread over the
/// workers again.
pub const H2_CLIENT_REQUESTS: u32 = 10_000;
/// The time for which a TLS backend is assumed to support only one HTTP version after it has refused the other.
/// The refusal may have concerned one resource, or one of several servers behind the address.
pub const SEEN_US: u64 = 60 * SECOND_US;
/// The initial window of a client's stream: the data that the client may send before any has been read. A window to a
/// backend grows to this size for a client over HTTP/1 without the budget.
pub const H2_WINDOW_BYTES: u32 = 64 * 1024;
/// The initial window of a stream to a backend: a frame. A client over HTTP/2 that pauses makes the worker hold one for each
/// of its streams, because a window cannot be taken back. So the budget has room for several hundred streams. The window
/// grows for a client that reads.
pub const H2_BACKEND_WINDOW_BYTES: u32 = 16 * 1024;
/// The maximum window of a stream whose data never waits. 1 MiB fills 8 Gbit/s at a round trip of 1 ms.
pub const H2_WINDOW_MAX_BYTES: u32 = 1 << 20;
/// The total growth of all windows of streams to backends in one worker, including data of ended streams that
/// clients have not read. It is also the budget that lends memory to the connections of clients over HTTP/2: all of
/// them together hold at most this much beyond `H2_PARITY_BYTES` each. Growth leaves less to lend. One hostile client may
/// spend all of it by closed windows, and a worker then grows by less than 7 MiB.
pub const H2_GROWTH_BYTES: u32 = 6 << 20;
/// The part of that budget to which windows grow for clients over HTTP/2. The rest is for the first windows of further
/// streams.
pub const H2_SPARE_BYTES: u32 = H2_GROWTH_BYTES / 4;
/// The bytes that a client's connection over HTTP/2 may make a worker hold without the budget: as much as a connection
/// over HTTP/1, a block in each direction.
pub const H2_PARITY_BYTES: usize = 2 * QUEUE_HIGH_BYTES;
/// The bytes for which a client's stream is charged before it holds anything: the records of its two connections and
/// of its request.
pub const H2_STREAM_BYTES: usize = 1024;
/// The connection's receive window. It is replenished on receipt, so that no stream waits for another.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Frames without progress that a peer may send between messages and content.
pub const H2_IDLE_FRAMES: u32 = 1000;
/// Frames without progress that a message or a piece of content earns.
pub const H2_IDLE_FRAMES_EARNED: u32 = 4;
/// The time that earns another frame without progress, so that a backend may send keepalive PINGs forever on an
/// idle connection.
pub const H2_REFILL_US: u64 = SECOND_US / 10;
/// Requests that a client may cancel at once. A browser that leaves a page cancels fewer, and an attack sends tens of
/// thousands per second (CVE-2023-44487). It is the default of nghttp2.
pub const H2_RESETS: u32 = 1000;
/// The time that earns another cancellation: 33 per second.
pub const H2_RESET_REFILL_US: u64 = SECOND_US / 33;
/// Resets that a client may make us send on one connection, by streams that break the rules (CVE-2025-8671).
pub const H2_PROVOKED_RESETS: u32 = 500;
/// A DATA frame with less content than this counts as one without progress, if the client's window admits no more and
/// more is queued (CVE-2019-9511).
pub const H2_DRIBBLE_BYTES: usize = 64;
/// The work of one client in a turn of the worker. A unit is about a tenth of a microsecond, so other clients wait some
/// 60 us for it. A read has room for five thousand small frames, and a client may send a hundred requests at once.
pub const H2_TURN_UNITS: u64 = 640;
/// The work of a frame. A DATA frame counts two or three times.
pub const H2_FRAME_UNITS: u64 = 4;
/// The work of a request, except its fields and its connection.
pub const H2_REQUEST_UNITS: u64 = 24;
/// Connections to backends that are dialled for one client in a turn of the worker. Each takes about as long as the other
/// work of the turn, because the handshake may happen in the system call.
pub const H2_TURN_DIALS: usize = 2;
/// The size of a list of fields that costs a unit, with 32 bytes added per field.
pub const H2_LIST_UNIT_BYTES: u64 = 64;
/// Requests of clients over HTTP/2 in one worker. More: 503. A client over HTTP/1 has one at a time. The budget lends
/// for some 6,000 of them, even if their clients hold nothing else.
pub const H2_REQUESTS: usize = 32 * 1024;
/// Frames that may still arrive on a stream after our reset: the head, the trailers, and an end or a reset.
pub const H2_LATE_FRAMES_RESET: u32 = 3;
/// Like `H2_LATE_FRAMES_RESET`, for all recently reset streams of a connection. Clients may cancel thousands of
/// requests in a second, and a slow backend answers all of them later.
pub const H2_LATE_FRAMES: u32 = 64 * 1024;
/// Resets that may still arrive for streams that have just ended: as many as can be open at once.
pub const H2_CROSSING_FRAMES: u32 = H2_STREAMS;
/// Consecutive HTTP/2 connections that a backend may end with the same error, which a client could have caused,
/// without a response between them. After these, the error counts as the backend's.
pub const H2_FAULTS: u8 = 8;
/// Streams of one request that backends may refuse before a further attempt counts against the retry budget.
pub const H2_REFUSALS: u8 = 2;
/// The time for which a field block may be incomplete before its connection gets no new streams. The rest has
/// usually been sent.
pub const H2_BLOCK_GRACE_US: u64 = SECOND_US / 100;
/// The time in which a client acknowledges the shutdown of its connection. Afterwards no further stream is served.
pub const H2_SHUTDOWN_US: u64 = SECOND_US;
/// Replies to a peer's frames that may be queued, apart from the data of streams.
pub const H2_REPLY_BYTES: usize = 64 * 1024;

const _: () = assert!(H2_CLIENT_STREAMS <= H2_STREAMS);
const _: () = assert!(2 * H2_LIST_BYTES <= H2_CLIENT_BLOCK_BYTES && H2_CLIENT_BLOCK_BYTES <= H2_BLOCK_BYTES);
const _: () = assert!(H2_LIST_BYTES < H2_BLOCK_BYTES && H2_BLOCK_BYTES < H2_BLOCK_FRAMES as usize * H2_FRAME_BYTES);
