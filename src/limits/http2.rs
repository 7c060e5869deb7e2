//! Bounds of HTTP/2 (RFC 9113) and HPACK (RFC 7541).

use super::*;

/// The payload of a frame that we take: the least there may be (RFC 9113, 6.5.2), so that a whole
/// frame always has room in a block. We send no longer ones either.
pub const H2_FRAME_BYTES: usize = 16 * 1024;
/// The table that a peer's fields are put into, and by which it may shorten them (RFC 7541, 4.2).
pub const H2_TABLE_BYTES: usize = 4096;
/// A list of fields, each counted with 32 more (RFC 9113, 6.5.2): as large as a head may be.
pub const H2_LIST_BYTES: usize = HEAD_BYTES;
/// How much the fields of one block may come to, counted likewise, before decoding them is given up: past
/// the limits they are not kept, but still copied.
pub const H2_DECODED_BYTES: usize = 4 * H2_LIST_BYTES;
/// A block of fields as it is received, over all of its frames: what may be decoded, so that a message whose
/// fields are too many is alone to be refused for them. A connection has one at once: this, in a buffer of up
/// to twice the size, is what a backend can have a worker hold for each of its connections.
pub const H2_BLOCK_BYTES: usize = H2_DECODED_BYTES;
/// Frames that one block of fields may be in: four times as many as it takes.
pub const H2_BLOCK_FRAMES: u32 = 64;
/// Memory that a decoder keeps for a name, and for a value, once their block is read.
pub const H2_STRING_BYTES: usize = 4096;
/// Streams open at once on a connection, by either side, whatever the peer would allow.
pub const H2_STREAMS: u32 = 128;
/// How long a backend with TLS is taken to speak but one version of HTTP after it has shown so: it may
/// have been about one resource, or one server of several behind its address.
pub const SEEN_US: u64 = 60 * SECOND_US;
/// What a stream's sender may send before its receiver has taken any of it, at first.
pub const H2_WINDOW_BYTES: u32 = 64 * 1024;
/// To what that grows where nothing has to wait: 1 MiB fills 8 Gbit/s over a round trip of 1 ms.
pub const H2_WINDOW_MAX_BYTES: u32 = 1 << 20;
/// By how much the windows of all streams in one worker may have grown together, what their clients
/// have not taken of streams that are over included: with a first window and a full queue for each
/// client, what slow ones can have a worker hold.
pub const H2_GROWTH_BYTES: u32 = 8 << 20;
/// The connection's own window. It is given back on receipt, so that no stream waits for another.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Frames that move no message on before a peer has sent or taken anything else.
pub const H2_IDLE_FRAMES: u32 = 1000;
/// How many more of those a message or a piece of content earns.
pub const H2_IDLE_FRAMES_EARNED: u32 = 4;
/// Time that earns one more of those, so that keepalive PINGs of a backend whose streams are all silent last for ever.
pub const H2_REFILL_US: u64 = SECOND_US / 10;
/// Requests that a client may end without their response before it has received any: more than a page cancels as its
/// user leaves it, and far below the tens of thousands a second of an attack.
pub const H2_RESETS: i32 = 200;
/// How many more of those a response earns that was sent to its end: one that is shown for each few that were cancelled.
pub const H2_RESETS_EARNED: i32 = 4;
/// Frames that may be on their way for a stream that we reset: the head, the trailers, and an end or a reset.
pub const H2_LATE_FRAMES_RESET: u32 = 3;
/// The same for all streams of a connection that were reset lately: clients may leave thousands of requests in a
/// second, and a slow backend answers them all later.
pub const H2_LATE_FRAMES: u32 = 64 * 1024;
/// Resets that may be on their way for streams that have just ended: as many as may be open at once.
pub const H2_CROSSING_FRAMES: u32 = H2_STREAMS;
/// HTTP/2 connections in a row that a backend may end for one and the same fault, as may be a client's,
/// without a response between: from then on it is taken to be its own.
pub const H2_FAULTS: u8 = 8;
/// Streams that backends may refuse a request before a further try on one of them is rationed.
pub const H2_REFUSALS: u8 = 2;
/// The time for which a block of fields may be incomplete before its connection gets no more streams: the rest is
/// mostly on its way.
pub const H2_BLOCK_GRACE_US: u64 = SECOND_US / 100;
/// Answers to a peer's frames that may wait to be sent, apart from what streams have to say.
pub const H2_REPLY_BYTES: usize = 64 * 1024;

const _: () = assert!(H2_LIST_BYTES < H2_BLOCK_BYTES && H2_BLOCK_BYTES < H2_BLOCK_FRAMES as usize * H2_FRAME_BYTES);
