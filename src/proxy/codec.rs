//! The protocol of a connection, as the exchanges on it see it: parts in, parts out. HTTP/1 is
//! a codec whose capacity is one stream. An HTTP/2 connection carries messages on streams, each of
//! which is a connection to the rest of the proxy, with a codec of its own; what it has to send is
//! content alone, which `multiplex` puts into frames.

use crate::collections::buffer::{Buffer, Pool};
use crate::collections::queue::Queue;
use crate::collections::slab::Key;
use crate::http::framing::Body;
use crate::http::head::{Head, HeadRef};
use crate::http::part::{Part, Role};
use crate::http::refusal::Refusal;
use crate::http1;
use crate::http2::{self, ErrorCode};

use super::multiplex::Multiplex;

/// A connection's protocol.
#[derive(Debug)]
pub(super) enum Codec {
    /// HTTP/1.0 or HTTP/1.1.
    H1(http1::connection::Connection),
    /// HTTP/2, or what may turn out to be: it carries streams, and no exchange itself.
    H2(Box<Multiplex>),
    /// A stream of such a connection.
    Stream(Stream),
}

/// A stream of an HTTP/2 connection, as its exchange sees it.
#[derive(Debug)]
pub(super) struct Stream {
    /// The connection that carries it.
    pub(super) carrier: Key,
    /// Its number; 0 before it is open.
    pub(super) id: u32,
    /// What is still to come, where the message's head has said that.
    expected: Option<u64>,
    /// All that is to be sent was given.
    pub(super) ending: bool,
    /// The end has been sent.
    pub(super) ended: bool,
    /// The trailer section that ends it, encoded.
    pub(super) trailers: Vec<u8>,
    /// By how much its window has grown, and the client who takes what comes.
    pub(super) growth: Option<(Key, u32)>,
    /// Why it is given up, where it is.
    pub(super) code: ErrorCode,
}

impl Stream {
    pub(super) fn new(carrier: Key) -> Stream {
        let (trailers, code) = (Vec::new(), ErrorCode::CANCEL);
        Stream { carrier, id: 0, expected: None, ending: false, ended: false, trailers, growth: None, code }
    }

    /// Counts content that came; false where it is more than was announced (RFC 9113, 8.1.1).
    pub(super) fn count(&mut self, length: usize) -> bool {
        match &mut self.expected {
            Some(left) => left.checked_sub(length as u64).map(|rest| *left = rest).is_some(),
            None => true,
        }
    }

    /// Whether all that was announced has come.
    pub(super) fn is_complete(&self) -> bool {
        self.expected.is_none_or(|left| left == 0)
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
    pub(super) fn multiplex(&self) -> Option<&Multiplex> {
        if let Codec::H2(multiplex) = self { Some(multiplex) } else { None }
    }

    /// What carries streams.
    pub(super) fn multiplex_mut(&mut self) -> Option<&mut Multiplex> {
        if let Codec::H2(multiplex) = self { Some(multiplex) } else { None }
    }

    /// Decodes the next part: bytes to pass over, and the part behind them. What comes on a stream is
    /// decoded where it arrives.
    pub(super) fn decode(&mut self, bytes: &[u8], head: &mut Head) -> Result<(usize, Part), Refusal> {
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
                    Body::None => Some(0),
                    Body::Length(length) => Some(length),
                    Body::Chunked | Body::UntilClose => None,
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
                    http2::head::write_trailers(&mut stream.trailers, trailers);
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

    /// Whether the request being read has a response without content, even where it is refused.
    pub(super) fn asks_head(&self) -> bool {
        matches!(self, Codec::H1(h) if h.asks_head())
    }

    /// Whether the other side's closing is the proper end of what is being read.
    pub(super) fn ends_by_close(&self) -> bool {
        matches!(self, Codec::H1(h) if h.ends_by_close())
    }
}
