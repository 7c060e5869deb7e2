//! The protocol of a connection, as the exchanges on it see it: parts in, parts out. HTTP/1 is
//! a codec whose capacity is one stream; another version is another variant, and nothing else
//! in the proxy changes.

use crate::collections::buffer::{Buffer, Pool};
use crate::collections::queue::Queue;
use crate::http::framing::Body;
use crate::http::head::{Head, HeadRef};
use crate::http::part::Part;
use crate::http::refusal::Refusal;
use crate::http1;

pub(super) use crate::http1::connection::Role;

/// A connection's protocol.
#[derive(Debug)]
pub(super) enum Codec {
    /// HTTP/1.0 or HTTP/1.1.
    H1(http1::connection::Connection),
}

/// Hands a call to whichever protocol it is.
macro_rules! delegate {
    ($codec:expr, $inner:ident => $call:expr) => {
        match $codec {
            Codec::H1($inner) => $call,
        }
    };
}

impl Codec {
    /// A codec for a fresh HTTP/1 connection.
    pub(super) fn http1(role: Role) -> Codec {
        Codec::H1(http1::connection::Connection::new(role))
    }

    /// Decodes the next part: bytes to pass over, and the part behind them.
    pub(super) fn decode(&mut self, bytes: &[u8], head: &mut Head) -> Result<(usize, Part), Refusal> {
        delegate!(self, h => h.decode(bytes, head))
    }

    /// Says how the content of the message being read is framed.
    pub(super) fn read_body(&mut self, body: Body) {
        delegate!(self, h => h.read_body(body));
    }

    /// Says how the content of the message being written is framed.
    pub(super) fn write_body(&mut self, body: Body) {
        delegate!(self, h => h.write_body(body));
    }

    /// Writes content from the front of `input`; what is left of it.
    pub(super) fn write_data(
        &mut self,
        queue: &mut Queue,
        pool: &mut Pool,
        input: Buffer,
        length: usize,
    ) -> Option<Buffer> {
        delegate!(self, h => h.write_data(queue, pool, input, length))
    }

    /// Writes the end of the content, with trailers where there are any.
    pub(super) fn write_end(&mut self, queue: &mut Queue, pool: &mut Pool, trailers: Option<HeadRef<'_>>) {
        delegate!(self, h => h.write_end(queue, pool, trailers));
    }

    /// Whether the end of what is being written can be told only by closing.
    pub(super) fn writes_until_close(&self) -> bool {
        delegate!(self, h => h.writes_until_close())
    }

    /// Readies for another message.
    pub(super) fn next_message(&mut self) {
        delegate!(self, h => h.next_message());
    }

    /// Leaves HTTP behind, in both directions.
    pub(super) fn tunnel(&mut self) {
        delegate!(self, h => h.tunnel());
    }

    /// Whether the next bytes read begin a message.
    pub(super) fn awaits_head(&self) -> bool {
        delegate!(self, h => h.awaits_head())
    }

    /// Whether the other side's closing is the proper end of what is being read.
    pub(super) fn ends_by_close(&self) -> bool {
        delegate!(self, h => h.ends_by_close())
    }
}
