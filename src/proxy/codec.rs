//! The protocol of a connection, as the exchanges on it see it: parts in, parts out. HTTP/1 is
//! a codec whose capacity is one stream. An HTTP/2 connection carries messages on streams, each of
//! which is a connection to the rest of the proxy, with a codec of its own; what it has to send is
//! content alone, which `mux` puts into frames.

use crate::collections::buffer::{Buffer, Pool};
use crate::collections::queue::Queue;
use crate::collections::slab::Key;
use crate::http::framing::Body;
use crate::http::head::{Head, HeadRef};
use crate::http::message_error::MessageError;
use crate::http::part::{Part, Role};
use crate::http1;
use crate::http2::{self, ErrorCode};

use super::mux::Mux;

/// A connection's protocol.
#[derive(Debug)]
pub(super) enum Codec {
    /// HTTP/1.0 or HTTP/1.1.
    H1(http1::connection::Connection),
    /// HTTP/2, or what may turn out to be: it carries streams, and no exchange itself.
    H2(Box<Mux>),
    /// A stream of such a connection.
    Stream(Stream),
}

/// A stream of an HTTP/2 connection, as its exchange sees it.
#[derive(Debug)]
pub(super) struct Stream {
    /// The connection that carries it.
    pub(super) mux: Key,
    /// Its number; 0 before it is open.
    pub(super) id: u32,
    /// Bytes of content that the message's head has send_scheduled and that are still to come; or `UNKNOWN`.
    expected: u64,
    /// The message is complete; END_STREAM follows the queued data.
    pub(super) ending: bool,
    /// END_STREAM has been sent.
    pub(super) ended: bool,
    /// The trailer section that ends it, encoded.
    pub(super) trailers: Box<[u8]>,
    /// By how much its window has grown, in bytes.
    pub(super) growth: u32,
    /// The client that takes the content, once the window has grown.
    pub(super) consumer: Option<Key>,
    /// Why it is given up, where it is.
    pub(super) code: ErrorCode,
}

/// Content of a length that the head does not tell. No message of ours is as long as this number.
const UNKNOWN: u64 = u64::MAX;

impl Stream {
    pub(super) fn new(mux: Key) -> Stream {
        Stream {
            mux,
            id: 0,
            expected: UNKNOWN,
            ending: false,
            ended: false,
            trailers: Box::default(),
            growth: 0,
            consumer: None,
            code: ErrorCode::CANCEL,
        }
    }

    /// Counts content that came; false if it is more than was send_scheduled (RFC 9113, 8.1.1).
    pub(super) fn count(&mut self, length: usize) -> bool {
        if self.expected == UNKNOWN {
            return true;
        }
        self.expected.checked_sub(length as u64).map(|rest| self.expected = rest).is_some()
    }

    /// Whether all send_scheduled content has come.
    pub(super) fn is_complete(&self) -> bool {
        matches!(self.expected, 0 | UNKNOWN)
    }
}

impl Codec {
    /// A codec for a fresh HTTP/1 connection.
    pub(super) fn http1(role: Role) -> Codec {
        Codec::H1(http1::connection::Connection::new(role))
    }

    /// The stream that this is.
    pub(super) fn stream(&self) -> Option<&Stream> {
        if let Codec::Stream(stream) = self { Some(stream) } else { None }
    }

    /// The stream that this is.
    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        if let Codec::Stream(stream) = self { Some(stream) } else { None }
    }

    /// What carries streams.
    pub(super) fn mux(&self) -> Option<&Mux> {
        if let Codec::H2(mux) = self { Some(mux) } else { None }
    }

    /// What carries streams.
    pub(super) fn mux_mut(&mut self) -> Option<&mut Mux> {
        if let Codec::H2(mux) = self { Some(mux) } else { None }
    }

    /// Decodes the next part: bytes to pass over, and the part behind them. What comes on a stream is
    /// decoded where it arrives.
    pub(super) fn decode(&mut self, bytes: &[u8], head: &mut Head) -> Result<(usize, Part), MessageError> {
        match self {
            Codec::H1(h) => h.decode(bytes, head),
            Codec::H2(_) | Codec::Stream(_) => Ok((0, Part::NeedMore)),
        }
    }

    /// Says how the content of the message being read is framed.
    pub(super) fn read_body(&mut self, body: Body) {
        match self {
            Codec::H1(h) => h.read_body(body),
            Codec::H2(_) => {}
            Codec::Stream(stream) => {
                stream.expected = match body {
                    Body::None => 0,
                    Body::Length(length) => length,
                    Body::Chunked | Body::UntilClose => UNKNOWN,
                }
            }
        }
    }

    /// Says how the content of the message being written is framed.
    pub(super) fn write_body(&mut self, body: Body) {
        if let Codec::H1(h) = self {
            h.write_body(body);
        }
    }

    /// Writes content from the front of `input`; what is left of it.
    pub(super) fn write_data(
        &mut self,
        queue: &mut Queue,
        pool: &mut Pool,
        input: Buffer,
        length: usize,
    ) -> Option<Buffer> {
        match self {
            Codec::H1(h) => h.write_data(queue, pool, input, length),
            Codec::H2(_) | Codec::Stream(_) => queue.take(pool, input, length),
        }
    }

    /// Writes the end of the content, with trailers where there are any.
    pub(super) fn write_end(&mut self, queue: &mut Queue, pool: &mut Pool, trailers: Option<HeadRef<'_>>) {
        match self {
            Codec::H1(h) => h.write_end(queue, pool, trailers),
            Codec::H2(_) => {}
            Codec::Stream(stream) => {
                stream.ending = true;
                if let Some(trailers) = trailers {
                    let mut block = Vec::new();
                    http2::head::write_trailers(&mut block, trailers);
                    stream.trailers = block.into_boxed_slice();
                }
            }
        }
    }

    /// Whether the end of what is being written can be told only by closing.
    pub(super) fn writes_until_close(&self) -> bool {
        matches!(self, Codec::H1(h) if h.writes_until_close())
    }

    /// Readies for another message.
    pub(super) fn next_message(&mut self) {
        if let Codec::H1(h) = self {
            h.next_message();
        }
    }

    /// Leaves HTTP behind, in both directions.
    pub(super) fn tunnel(&mut self) {
        if let Codec::H1(h) = self {
            h.tunnel();
        }
    }

    /// Whether the next bytes read begin a message.
    pub(super) fn awaits_head(&self) -> bool {
        matches!(self, Codec::H1(h) if h.awaits_head())
    }

    /// Whether nothing can be decoded without another byte: the codec is between two messages.
    pub(super) fn needs_bytes(&self) -> bool {
        matches!(self, Codec::H1(h) if h.needs_bytes())
    }

    /// Whether the request being read has a response without content, even where it is refused.
    pub(super) fn asks_head(&self) -> bool {
        matches!(self, Codec::H1(h) if h.asks_head())
    }

    /// Whether the other side's closing is the proper end of what is being read.
    pub(super) fn ends_by_close(&self) -> bool {
        matches!(self, Codec::H1(h) if h.ends_by_close())
    }
}
