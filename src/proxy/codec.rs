//! The protocol of a connection, as its exchange sees it: parts come in, parts go out. This file and `mux` are
//! the only ones of the proxy that name `http1` and `http2`.
//!
//! A codec is HTTP/1, which carries one message after another; a mux, which carries streams and no exchange; or a
//! stream of a mux. A stream is a connection to the rest of the proxy. Its output holds content alone, which
//! `mux::frames` puts into frames.

use super::Proxy;
use super::mux::{Mux, ReplyForm, Stream};
use crate::collections::buffer::{Buffer, Pool};
use crate::collections::queue::Queue;
use crate::collections::slab::Key;
use crate::http::fields::Name;
use crate::http::forward::{Sink, Target};
use crate::http::framing::Body;
use crate::http::head::{Head, HeadRef};
use crate::http::message_error::MessageError;
use crate::http::part::{Part, Role};
use crate::http1;
use crate::http2;
pub(super) use crate::http2::ErrorCode;
use crate::http2::frame::PREFACE;

/// A connection's protocol.
#[derive(Debug)]
pub(super) enum Codec {
    /// HTTP/1.0 or HTTP/1.1.
    Http1(http1::connection::Connection),
    /// HTTP/2, or a connection to a backend that may turn out to speak it.
    Mux(Box<Mux>),
    /// A stream of a mux.
    Stream(Stream),
}

/// The part of written heads that `--trace` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// Nothing, because it is off.
    Nothing,
    /// All but the values of secret fields.
    Masked,
    /// All.
    Everything,
}

/// Writes one head in the version of its connection. It is the only sink of the proxy.
#[derive(Debug)]
pub(super) enum HeadWriter<'a> {
    Http1(http1::write::Writer<'a>),
    Http2(http2::head::Writer<'a>),
    /// Either of these, and a copy for `--trace`.
    Traced(Box<Traced<'a>>),
}

/// A head that is written and shown.
#[derive(Debug)]
pub(super) struct Traced<'a> {
    writer: HeadWriter<'a>,
    /// The head as HTTP/1.1 has it.
    shown: Vec<u8>,
    shows: Shows,
}

/// A head that was written, and is to be given to `Proxy::send_head`.
#[derive(Debug)]
#[must_use]
pub(super) struct Written {
    /// The size of its list of fields (RFC 9113, 6.5.2); 0 in HTTP/1, where no peer limits that.
    pub(super) list_bytes: usize,
    /// The head as `--trace` shows it; empty if that is off.
    shown: Vec<u8>,
}

impl Written {
    /// Shows content behind the head.
    pub(super) fn show(&mut self, content: &[u8]) {
        if !self.shown.is_empty() {
            self.shown.extend_from_slice(content);
        }
    }
}

impl HeadWriter<'_> {
    /// Ends the head.
    pub(super) fn finish(self) -> Written {
        match self {
            HeadWriter::Http1(writer) => {
                writer.finish();
                Written { list_bytes: 0, shown: Vec::new() }
            }
            HeadWriter::Http2(writer) => Written { list_bytes: writer.size(), shown: Vec::new() },
            HeadWriter::Traced(traced) => {
                let Traced { writer, mut shown, .. } = *traced;
                http1::write::Writer::new(&mut shown).finish();
                Written { shown, ..writer.finish() }
            }
        }
    }
}

impl Traced<'_> {
    fn shown(&mut self) -> http1::write::Writer<'_> {
        http1::write::Writer::new(&mut self.shown)
    }

    /// A value, or an asterisk for each byte of a secret one.
    fn masked(&self, name: &[u8], value: &[u8]) -> Vec<u8> {
        match self.shows {
            Shows::Masked if Name::find(name).is_secret() => vec![b'*'; value.len()],
            _ => value.to_vec(),
        }
    }
}

impl Sink for HeadWriter<'_> {
    fn request(&mut self, method: &[u8], target: Target<'_>) {
        match self {
            HeadWriter::Http1(writer) => writer.request(method, target),
            HeadWriter::Http2(writer) => writer.request(method, target),
            HeadWriter::Traced(writer) => writer.request(method, target),
        }
    }

    fn response(&mut self, status: u16, reason: &[u8]) {
        match self {
            HeadWriter::Http1(writer) => writer.response(status, reason),
            HeadWriter::Http2(writer) => writer.response(status, reason),
            HeadWriter::Traced(writer) => writer.response(status, reason),
        }
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        match self {
            HeadWriter::Http1(writer) => writer.field(name, value),
            HeadWriter::Http2(writer) => writer.field(name, value),
            HeadWriter::Traced(writer) => writer.field(name, value),
        }
    }

    fn host(&mut self, name: &[u8], value: &[u8]) {
        match self {
            HeadWriter::Http1(writer) => writer.host(name, value),
            HeadWriter::Http2(writer) => writer.host(name, value),
            HeadWriter::Traced(writer) => writer.host(name, value),
        }
    }

    fn hop(&mut self, name: &[u8], value: &[u8]) {
        match self {
            HeadWriter::Http1(writer) => writer.hop(name, value),
            HeadWriter::Http2(writer) => writer.hop(name, value),
            HeadWriter::Traced(writer) => writer.hop(name, value),
        }
    }

    fn joined(&mut self, name: &[u8], pieces: &mut dyn Iterator<Item = &[u8]>) {
        match self {
            HeadWriter::Http1(writer) => writer.joined(name, pieces),
            HeadWriter::Http2(writer) => writer.joined(name, pieces),
            HeadWriter::Traced(writer) => writer.joined(name, pieces),
        }
    }

    fn upgrade(&mut self, protocols: &mut dyn Iterator<Item = &[u8]>) {
        match self {
            HeadWriter::Http1(writer) => writer.upgrade(protocols),
            HeadWriter::Http2(writer) => writer.upgrade(protocols),
            HeadWriter::Traced(writer) => writer.upgrade(protocols),
        }
    }

    fn framing(&mut self, body: Body) {
        match self {
            HeadWriter::Http1(writer) => writer.framing(body),
            HeadWriter::Http2(writer) => writer.framing(body),
            HeadWriter::Traced(writer) => writer.framing(body),
        }
    }
}

/// Writes everything twice. These functions are not inlined, so that heads without a trace do not pay for them.
impl Sink for Traced<'_> {
    #[cold]
    fn request(&mut self, method: &[u8], target: Target<'_>) {
        self.writer.request(method, target);
        self.shown().request(method, target);
    }

    #[cold]
    fn response(&mut self, status: u16, reason: &[u8]) {
        self.writer.response(status, reason);
        self.shown().response(status, reason);
    }

    #[cold]
    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.writer.field(name, value);
        let value = self.masked(name, value);
        self.shown().field(name, &value);
    }

    #[cold]
    fn host(&mut self, name: &[u8], value: &[u8]) {
        self.writer.host(name, value);
        self.shown().host(name, value);
    }

    #[cold]
    fn hop(&mut self, name: &[u8], value: &[u8]) {
        self.writer.hop(name, value);
        self.shown().hop(name, value);
    }

    #[cold]
    fn joined(&mut self, name: &[u8], pieces: &mut dyn Iterator<Item = &[u8]>) {
        let pieces: Vec<&[u8]> = pieces.collect();
        self.writer.joined(name, &mut pieces.iter().copied());
        self.shown().joined(name, &mut pieces.iter().copied());
    }

    #[cold]
    fn upgrade(&mut self, protocols: &mut dyn Iterator<Item = &[u8]>) {
        let protocols: Vec<&[u8]> = protocols.collect();
        self.writer.upgrade(&mut protocols.iter().copied());
        self.shown().upgrade(&mut protocols.iter().copied());
    }

    #[cold]
    fn framing(&mut self, body: Body) {
        self.writer.framing(body);
        self.shown().framing(body);
    }
}

impl Codec {
    /// Returns a writer that appends a head to `text` in the version of this connection.
    pub(super) fn head_writer<'a>(&self, text: &'a mut Vec<u8>, shows: Shows) -> HeadWriter<'a> {
        let writer = match self {
            Codec::Http1(_) => HeadWriter::Http1(http1::write::Writer::new(text)),
            Codec::Mux(_) | Codec::Stream(_) => HeadWriter::Http2(http2::head::Writer::new(text)),
        };
        match shows {
            Shows::Nothing => writer,
            _ => HeadWriter::Traced(Box::new(Traced { writer, shown: Vec::new(), shows })),
        }
    }

    /// Creates a codec for a new HTTP/1 connection.
    pub(super) fn http1(role: Role) -> Codec {
        Codec::Http1(http1::connection::Connection::new(role))
    }

    /// Returns the stream, if this is one.
    pub(super) fn stream(&self) -> Option<&Stream> {
        if let Codec::Stream(stream) = self { Some(stream) } else { None }
    }

    /// Returns the stream, if this is one.
    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        if let Codec::Stream(stream) = self { Some(stream) } else { None }
    }

    /// Returns the mux, if this is one.
    pub(super) fn mux(&self) -> Option<&Mux> {
        if let Codec::Mux(mux) = self { Some(mux) } else { None }
    }

    /// Returns the mux, if this is one.
    pub(super) fn mux_mut(&mut self) -> Option<&mut Mux> {
        if let Codec::Mux(mux) = self { Some(mux) } else { None }
    }

    /// Decodes the next part. Returns the number of bytes to skip, and the part behind them. A mux decodes its input
    /// itself.
    pub(super) fn decode(&mut self, bytes: &[u8], head: &mut Head) -> Result<(usize, Part), MessageError> {
        match self {
            Codec::Http1(h) => h.decode(bytes, head),
            Codec::Mux(_) => Ok((0, Part::NeedMore)),
            Codec::Stream(stream) => Ok((0, stream.decode(bytes, head))),
        }
    }

    /// Sets the framing of the content of the message that is read.
    pub(super) fn read_body(&mut self, body: Body) {
        match self {
            Codec::Http1(h) => h.read_body(body),
            Codec::Mux(_) => {}
            Codec::Stream(stream) => stream.read_body(body),
        }
    }

    /// Sets the framing of the content of the message that is written.
    pub(super) fn write_body(&mut self, body: Body) {
        if let Codec::Http1(h) = self {
            h.write_body(body);
        }
    }

    /// Writes content from the front of `input`. Returns the rest of it.
    pub(super) fn write_data(
        &mut self,
        queue: &mut Queue,
        pool: &mut Pool,
        input: Buffer,
        length: usize,
    ) -> Option<Buffer> {
        match self {
            Codec::Http1(h) => h.write_data(queue, pool, input, length),
            Codec::Mux(_) | Codec::Stream(_) => queue.take(pool, input, length),
        }
    }

    /// Writes the end of the content, with the trailers if there are any.
    pub(super) fn write_end(&mut self, queue: &mut Queue, pool: &mut Pool, trailers: Option<HeadRef<'_>>) {
        match self {
            Codec::Http1(h) => h.write_end(queue, pool, trailers),
            Codec::Mux(_) => {}
            Codec::Stream(stream) => stream.write_end(trailers),
        }
    }

    /// True if only the end of the connection marks the end of the content that is written.
    pub(super) fn writes_until_close(&self) -> bool {
        matches!(self, Codec::Http1(h) if h.writes_until_close())
    }

    /// Prepares for the next message.
    pub(super) fn next_message(&mut self) {
        if let Codec::Http1(h) = self {
            h.next_message();
        }
    }

    /// Makes both directions of the connection a tunnel.
    pub(super) fn tunnel(&mut self) {
        match self {
            Codec::Http1(h) => h.tunnel(),
            Codec::Mux(_) => {}
            Codec::Stream(stream) => stream.tunnel(),
        }
    }

    /// True if the next bytes begin a message.
    pub(super) fn awaits_head(&self) -> bool {
        match self {
            Codec::Http1(h) => h.awaits_head(),
            Codec::Mux(_) => false,
            Codec::Stream(stream) => stream.awaits_head(),
        }
    }

    /// True if nothing can be decoded without another byte, because the codec is between two messages.
    pub(super) fn needs_bytes(&self) -> bool {
        match self {
            Codec::Http1(h) => h.needs_bytes(),
            Codec::Mux(_) => false,
            Codec::Stream(stream) => stream.needs_bytes(),
        }
    }

    /// True if the response to the request that is read has no content, even if the request is refused.
    pub(super) fn asks_head(&self) -> bool {
        match self {
            Codec::Http1(h) => h.asks_head(),
            Codec::Mux(_) => false,
            Codec::Stream(stream) => stream.reply == ReplyForm::Head,
        }
    }

    /// True if the request that is read is a gRPC call over HTTP/2, even if it is refused.
    pub(super) fn asks_grpc(&self) -> bool {
        self.stream().is_some_and(|stream| stream.reply == ReplyForm::Grpc)
    }

    /// True if the end of the connection is the proper end of the content that is read.
    pub(super) fn ends_by_close(&self) -> bool {
        matches!(self, Codec::Http1(h) if h.ends_by_close())
    }
}

/// The protocol of a client, by its first bytes (RFC 9113, 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detected {
    /// HTTP/1, or decided before.
    Http1,
    /// The bytes are a part of the preface of HTTP/2.
    Undecided,
    /// HTTP/2.
    Http2,
}

/// Detects the protocol of a client by the first bytes of its first request. The preface of HTTP/2 begins with a
/// method that HTTP/1 does not have, so the decision needs no further knowledge of the client.
pub(super) fn detect(bytes: &[u8]) -> Detected {
    match bytes.len().min(PREFACE.len()) {
        length if bytes[..length] != PREFACE[..length] => Detected::Http1,
        0 => Detected::Http1,
        length if length < PREFACE.len() => Detected::Undecided,
        _ => Detected::Http2,
    }
}

impl Proxy {
    /// Queues the head that was written to `text`, and traces it. `body` is the framing of the content behind it; an
    /// interim response has `None`, because another head follows.
    pub(super) fn send_head(&mut self, key: Key, what: &str, body: Option<Body>, written: Written) {
        if !written.shown.is_empty() {
            self.trace_sent(key, what, &written.shown);
        }
        let Some(connection) = self.connections.living_mut(key) else { return };
        if let Some(body) = body {
            connection.codec.write_body(body);
        }
        if connection.codec.stream().is_some() {
            return self.write_block(key, matches!(body, Some(Body::None | Body::Length(0))));
        }
        connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
        self.schedule_send(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head as it goes out and as it is shown.
    fn written(codec: &Codec, shows: Shows) -> (Vec<u8>, String) {
        let mut text = Vec::new();
        let mut writer = codec.head_writer(&mut text, shows);
        writer.request(b"GET", Target { scheme: b"https", authority: b"a:1", path: b"/p", protocol: b"" });
        writer.host(b"Host", b"a:1");
        writer.field(b"cookie", b"id=1");
        writer.hop(b"Connection", b"Upgrade");
        writer.upgrade(&mut [&b"x"[..], b"y"].into_iter());
        writer.joined(b"L", &mut [&b"1"[..], b"2"].into_iter());
        writer.framing(Body::Length(7));
        let mut written = writer.finish();
        assert_eq!(written.list_bytes > 0, codec.stream().is_some());
        written.show(b"content");
        (text, String::from_utf8(written.shown).unwrap())
    }

    #[test]
    fn a_head_is_shown_as_http_1_has_it_whatever_its_version_and_with_secrets_masked() {
        let key = crate::collections::slab::Slab::new().insert(());
        let (http1, stream) = (Codec::http1(Role::Client), Codec::Stream(Stream::new(key)));
        let head = "GET /p HTTP/1.1\r\nHost: a:1\r\ncookie: id=1\r\nConnection: Upgrade\r\nUpgrade: x, y\r\nL: 1, 2\r\n\
                    Content-Length: 7\r\n\r\n";
        let (text, _) = written(&http1, Shows::Nothing);
        assert_eq!(String::from_utf8(text.clone()).unwrap(), head);
        let (block, _) = written(&stream, Shows::Nothing);
        for (codec, wire) in [(&http1, &text), (&stream, &block)] {
            assert_eq!(written(codec, Shows::Nothing), (wire.clone(), String::new()));
            assert_eq!(written(codec, Shows::Everything), (wire.clone(), format!("{head}content")));
            let masked = head.replace("id=1", "****");
            assert_eq!(written(codec, Shows::Masked), (wire.clone(), format!("{masked}content")));
        }
    }
}
