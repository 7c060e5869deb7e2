//! The codec of one HTTP/1 connection, in either role: it reads requests and writes responses towards a client,
//! and the reverse towards a backend. It carries one exchange at a time.
//!
//! States of reading: `Head`, then the content with the framing that the caller sets, then `Complete`, until
//! `next_message`. Writing gets its framing with each head. In `Tunnel` both directions are bytes without
//! messages.

use super::chunked::{self, Decoder, SizeLine, Step};
use super::{parse, scan};
use crate::collections::buffer::{Buffer, Pool};
use crate::collections::queue::Queue;
use crate::http::forward;
use crate::http::framing::Body;
use crate::http::head::{Head, HeadRef};
use crate::http::message_error::MessageError;
use crate::http::part::{Part, Role};
use crate::limits::{COPY_BYTES, HEAD_BYTES};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Head,
    Length(u64),
    Chunked(Decoder),
    Ending,
    UntilClose,
    Complete,
    Tunnel,
}

/// The protocol state of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    role: Role,
    reading: Reading,
    writing: Body,
    /// True if one empty line may still precede the next request.
    empty_line: bool,
    /// The length of the incomplete head at the last attempt to parse it. Parsing is pointless until another
    /// line has arrived.
    looked_at: u32,
    /// True if the request being read begins with the method HEAD.
    asks_head: bool,
}

impl Connection {
    /// Creates the codec of a new connection.
    pub fn new(role: Role) -> Connection {
        Connection {
            role,
            reading: Reading::Head,
            writing: Body::None,
            empty_line: role == Role::Server,
            looked_at: 0,
            asks_head: false,
        }
    }

    /// Decodes the next part. Returns the number of bytes to skip and the part that follows them. The caller
    /// removes the part's own bytes. A head or a trailer section is stored in `head`. After a head, the caller
    /// sets the framing of its content with `read_body`.
    pub fn decode(&mut self, bytes: &[u8], head: &mut Head) -> Result<(usize, Part), MessageError> {
        match &mut self.reading {
            Reading::Head => self.decode_head(bytes, head),
            Reading::Length(0) | Reading::Ending => {
                self.reading = Reading::Complete;
                Ok((0, Part::End))
            }
            Reading::Complete => Ok((0, Part::NeedMore)),
            _ if bytes.is_empty() => Ok((0, Part::NeedMore)),
            Reading::Length(left) => {
                let length = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= length as u64;
                Ok((0, Part::Data(length)))
            }
            Reading::Chunked(decoder) => match decoder.step(bytes)? {
                Step::NeedMore(skip) => Ok((skip, Part::NeedMore)),
                Step::Data { skip, length } => Ok((skip, Part::Data(length))),
                Step::Trailers(skip) => self.decode_trailers(bytes, skip, head),
            },
            Reading::UntilClose | Reading::Tunnel => Ok((0, Part::Data(bytes.len()))),
        }
    }

    fn decode_head(&mut self, bytes: &[u8], head: &mut Head) -> Result<(usize, Part), MessageError> {
        // One empty line before a request is skipped (RFC 9112, 2.2).
        let skip = match bytes {
            [b'\r', b'\n', ..] if self.empty_line => 2,
            // A line feed alone is an empty line only if nothing follows it.
            [b'\r' | b'\n'] if self.empty_line => return Ok((0, Part::NeedMore)),
            _ => 0,
        };
        if skip > 0 {
            self.empty_line = false;
        }
        let bytes = &bytes[skip..];
        if bytes.is_empty() {
            return Ok((skip, Part::NeedMore));
        }
        self.asks_head = bytes.starts_with(b"HEAD ");
        let seen = std::mem::replace(&mut self.looked_at, bytes.len() as u32) as usize;
        let unseen = bytes.get(seen..).unwrap_or(bytes);
        if seen > 0 && bytes.len() < HEAD_BYTES && scan::line_feed(unseen).is_none() {
            return Ok((skip, Part::NeedMore));
        }
        let length = match self.role {
            Role::Server => parse::request(bytes, head)?,
            Role::Client => parse::response(bytes, head)?,
        };
        let Some(length) = length else { return Ok((skip, Part::NeedMore)) };
        self.looked_at = 0;
        let status = HeadRef { bytes, head }.status();
        let interim = (100..200).contains(&status) && status != 101;
        Ok((skip, if interim { Part::Interim(length) } else { Part::Head(length) }))
    }

    fn decode_trailers(&mut self, bytes: &[u8], skip: usize, head: &mut Head) -> Result<(usize, Part), MessageError> {
        match parse::trailers(&bytes[skip..], self.role, &mut head.fields)? {
            None => Ok((skip, Part::NeedMore)),
            Some(length) if head.fields.is_empty() => {
                self.reading = Reading::Complete;
                Ok((skip + length, Part::End))
            }
            Some(length) => {
                self.reading = Reading::Ending;
                Ok((skip, Part::Trailers(length)))
            }
        }
    }

    /// Sets the framing of the content that follows the head just decoded.
    pub fn read_body(&mut self, body: Body) {
        self.reading = match body {
            Body::None => Reading::Ending,
            Body::Length(length) => Reading::Length(length),
            Body::Chunked => Reading::Chunked(Decoder::new()),
            Body::UntilClose => Reading::UntilClose,
        };
    }

    /// Prepares for the next message. The previous one must be complete.
    pub fn next_message(&mut self) {
        self.reading = Reading::Head;
        self.writing = Body::None;
        self.empty_line = self.role == Role::Server;
    }

    /// Turns both directions into bytes without messages.
    pub fn tunnel(&mut self) {
        self.reading = Reading::Tunnel;
        self.writing = Body::UntilClose;
    }

    /// True if the next bytes read begin a message.
    pub fn awaits_head(&self) -> bool {
        self.reading == Reading::Head
    }

    /// True if nothing can be decoded without another byte: no message has begun, or its end was decoded.
    pub fn needs_bytes(&self) -> bool {
        matches!(self.reading, Reading::Head | Reading::Complete)
    }

    /// True if the method is HEAD, so that the response has no content. Known even if the request is refused.
    pub fn asks_head(&self) -> bool {
        self.asks_head
    }

    /// True if the close of the connection is the proper end of the content being read.
    pub fn ends_by_close(&self) -> bool {
        matches!(self.reading, Reading::UntilClose | Reading::Tunnel)
    }

    /// Sets the framing of the content that follows the head just written.
    pub fn write_body(&mut self, body: Body) {
        self.writing = body;
    }

    /// True if only a close can end the message being written.
    pub fn writes_until_close(&self) -> bool {
        self.writing == Body::UntilClose
    }

    /// Writes the first `length` bytes of `input` as content and returns the rest. A large piece that ends the
    /// input passes its buffer on instead of being copied.
    pub fn write_data(
        &mut self,
        queue: &mut Queue,
        pool: &mut Pool,
        mut input: Buffer,
        length: usize,
    ) -> Option<Buffer> {
        if length == 0 {
            return Some(input);
        }
        let chunked = self.writing == Body::Chunked;
        let line = SizeLine::new(length as u64);
        let whole = length == input.len() && length > COPY_BYTES;
        if whole && (!chunked || input.wrap(line.bytes(), b"\r\n")) {
            queue.push(pool, input);
            return None;
        }
        if chunked {
            queue.write(pool, line.bytes());
        }
        queue.write(pool, &input.filled()[..length]);
        if chunked {
            queue.write(pool, b"\r\n");
        }
        input.consume(length);
        Some(input)
    }

    /// Writes the end of the content, with trailers if there are any and the framing allows them.
    pub fn write_end(&mut self, queue: &mut Queue, pool: &mut Pool, trailers: Option<HeadRef<'_>>) {
        if self.writing != Body::Chunked {
            return;
        }
        let Some(trailers) = trailers else {
            queue.write(pool, chunked::END);
            return;
        };
        queue.write(pool, chunked::LAST);
        for (text, value) in forward::trailers(trailers) {
            [text, b": ", value, b"\r\n"].into_iter().for_each(|piece| queue.write(pool, piece));
        }
        queue.write(pool, b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a series of messages, each framed as `body`, in pieces of `step` bytes, and returns their parts.
    fn parts(role: Role, body: Body, bytes: &[u8], step: usize) -> Result<Vec<String>, MessageError> {
        let mut connection = Connection::new(role);
        let (mut head, mut held, mut seen) = (Head::default(), Vec::new(), Vec::<String>::new());
        for piece in bytes.chunks(step) {
            held.extend_from_slice(piece);
            loop {
                let (skip, part) = connection.decode(&held, &mut head)?;
                held.drain(..skip);
                match part {
                    Part::NeedMore => break,
                    Part::Head(n) => {
                        seen.push(format!("head {n}"));
                        held.drain(..n);
                        connection.read_body(body);
                    }
                    Part::Interim(n) => {
                        seen.push(format!("interim {n}"));
                        held.drain(..n);
                    }
                    Part::Data(n) => {
                        let text = String::from_utf8(held.drain(..n).collect()).unwrap();
                        match seen.last_mut().filter(|last| last.starts_with("data ")) {
                            Some(last) => last.push_str(&text),
                            None => seen.push(format!("data {text}")),
                        }
                    }
                    Part::Trailers(n) => {
                        seen.push(format!("trailers {}", head.fields.len()));
                        held.drain(..n);
                    }
                    Part::End => {
                        seen.push("end".into());
                        connection.next_message();
                    }
                }
            }
        }
        Ok(seen)
    }

    #[test]
    fn reads_consecutive_messages_for_every_split() {
        let text = b"\r\nPOST / HTTP/1.1\r\nA: b\r\n\r\nhelloPOST / HTTP/1.1\r\n\r\nworld";
        for step in 1..text.len() {
            let seen = parts(Role::Server, Body::Length(5), text, step).unwrap();
            assert_eq!(seen, ["head 25", "data hello", "end", "head 19", "data world", "end"], "{step}");
        }
    }

    #[test]
    fn a_line_feed_alone_is_no_request_and_none_precedes_one() {
        let mut connection = Connection::new(Role::Server);
        let mut head = Head::default();
        assert_eq!(connection.decode(b"\n", &mut head), Ok((0, Part::NeedMore)));
        assert_eq!(connection.decode(b"\nGET / HTTP/1.1\r\n", &mut head), Err(MessageError::RequestLine));
    }

    #[test]
    fn skips_one_empty_line_and_not_two() {
        let refused = parts(Role::Server, Body::None, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", 99);
        assert_eq!(refused, Err(MessageError::RequestLine));
    }

    #[test]
    fn reads_chunks_trailers_and_interim_responses() {
        let text = b"HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n0\r\n\r\n";
        for step in 1..text.len() {
            let seen = parts(Role::Client, Body::Chunked, text, step).unwrap();
            assert_eq!(seen, ["interim 18", "head 19", "data abcde", "trailers 1", "end", "head 19", "end"], "{step}");
        }
    }

    #[test]
    fn chunked_output_decodes_to_the_same_content() {
        for size in [1, 100, COPY_BYTES, COPY_BYTES + 1, 60_000] {
            let (mut pool, mut queue) = (Pool::new(), Queue::new());
            let mut writer = Connection::new(Role::Client);
            writer.write_body(Body::Chunked);
            let text = vec![b'x'; size];
            let mut block = pool.take();
            block.append(&text);
            let rest = writer.write_data(&mut queue, &mut pool, block, size);
            assert_eq!(rest.is_none(), size > COPY_BYTES);
            writer.write_end(&mut queue, &mut pool, None);
            let mut wire = b"POST / HTTP/1.1\r\n\r\n".to_vec();
            wire.extend(queue.slices().flatten());
            let seen = parts(Role::Server, Body::Chunked, &wire, wire.len()).unwrap();
            assert_eq!(seen, ["head 19".into(), format!("data {}", "x".repeat(size)), "end".into()]);
        }
    }
}
