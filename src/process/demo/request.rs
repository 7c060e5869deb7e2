//! A request in a demo backend: read whole, from a blocking stream, with every part bounded. The balancer has
//! already checked the request, so this parser is short rather than strict. It refuses unknown syntax.

use std::io::{self, BufRead, ErrorKind, Read, Write};

use crate::limits::{CHUNK_LINE_BYTES, DEMO_BODY_BYTES, HEAD_BYTES, HEAD_FIELDS, TRAILER_BYTES};

/// One request, its body read to the end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) version: String,
    /// Names and values in the order of arrival.
    pub(super) fields: Vec<(String, String)>,
    /// Bytes of the body.
    pub(super) length: u64,
    /// The beginning of the body, at most one byte more than a response shows.
    pub(super) beginning: Vec<u8>,
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}

impl Request {
    /// Reads a request; `None` at the end of the stream. A client that expects 100 (Continue) gets it on
    /// `output`. InvalidData describes a fault in the request.
    pub(super) fn read(input: &mut impl BufRead, output: &mut impl Write) -> io::Result<Option<Request>> {
        let mut room = HEAD_BYTES;
        let Some(start) = read_line(input, &mut room)? else { return Ok(None) };
        let mut words = start.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(refused("a request line has three parts"));
        };
        if !version.starts_with("HTTP/1.") {
            return Err(refused("only HTTP/1 is spoken here"));
        }
        let fields = read_fields(input, &mut room)?;
        let (method, target, version) = (method.to_string(), target.to_string(), version.to_string());
        let mut request = Request { method, target, version, fields, length: 0, beginning: Vec::new() };
        if request.has("expect", "100-continue") {
            output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        request.read_body(input)?;
        Ok(Some(request))
    }

    /// True if the client keeps the connection after this request.
    pub(super) fn keep_alive(&self) -> bool {
        match self.version.as_str() {
            "HTTP/1.0" => self.has("connection", "keep-alive"),
            _ => !self.has("connection", "close"),
        }
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// True if a list field has this member.
    fn has(&self, name: &str, member: &str) -> bool {
        self.values(name).flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(member))
    }

    fn read_body(&mut self, input: &mut impl BufRead) -> io::Result<()> {
        if self.has("transfer-encoding", "chunked") {
            return self.read_chunks(input);
        }
        let length = match self.values("content-length").next() {
            Some(value) => value.parse().map_err(|_| refused("Content-Length is not a number"))?,
            None => 0,
        };
        self.take_body(input, length)
    }

    fn read_chunks(&mut self, input: &mut impl BufRead) -> io::Result<()> {
        loop {
            let mut room = CHUNK_LINE_BYTES;
            let line = read_line(input, &mut room)?.ok_or(ErrorKind::UnexpectedEof)?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(digits, 16).map_err(|_| refused("a chunk has no size"))?;
            if size == 0 {
                room = TRAILER_BYTES;
                return read_fields(input, &mut room).map(drop);
            }
            self.take_body(input, size)?;
            room = b"\r\n".len();
            let end = read_line(input, &mut room)?.ok_or(ErrorKind::UnexpectedEof)?;
            if !end.is_empty() {
                return Err(refused("a chunk is longer than its size"));
            }
        }
    }

    /// Reads `length` bytes of body; keeps those that are its beginning.
    fn take_body(&mut self, input: &mut impl BufRead, length: u64) -> io::Result<()> {
        self.length = self.length.checked_add(length).ok_or_else(|| refused("the body is too long"))?;
        let mut body = input.take(length);
        let room = (DEMO_BODY_BYTES + 1).saturating_sub(self.beginning.len());
        let kept = Read::take(&mut body, room as u64).read_to_end(&mut self.beginning)? as u64;
        if kept + io::copy(&mut body, &mut io::sink())? < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Field lines up to the empty one.
fn read_fields(input: &mut impl BufRead, room: &mut usize) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(input, room)?.ok_or(ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| refused("a field line has no colon"))?;
        if fields.len() == HEAD_FIELDS {
            return Err(refused("too many fields"));
        }
        fields.push((name.to_string(), value.trim_matches([' ', '\t']).to_string()));
    }
}

/// A line without its CRLF, at most `room` bytes long with it, which it uses up. `None` at the
/// end of the stream. Bytes that are not UTF-8 are replaced.
fn read_line(input: &mut impl BufRead, room: &mut usize) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = input.take(*room as u64).read_until(b'\n', &mut line)?;
    *room -= read;
    if read == 0 && *room > 0 {
        return Ok(None);
    }
    match line.strip_suffix(b"\n") {
        Some(line) => {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            Ok(Some(String::from_utf8_lossy(line).into_owned()))
        }
        None if *room == 0 => Err(refused("a line is too long")),
        None => Err(ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut sent: &[u8]) -> (io::Result<Option<Request>>, Vec<u8>) {
        let mut told = Vec::new();
        (Request::read(&mut sent, &mut told), told)
    }

    fn request(sent: &[u8]) -> Request {
        read(sent).0.unwrap().unwrap()
    }

    #[test]
    fn keeps_fields_in_order_with_repeats() {
        let request = request(b"GET /p?q HTTP/1.1\r\nB: 1\r\nA:2 \r\nB: \r\n\r\n");
        assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/p?q"));
        let fields: Vec<(&str, &str)> = request.fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(fields, [("B", "1"), ("A", "2"), ("B", "")]);
    }

    #[test]
    fn reads_bodies_of_a_length_and_in_chunks() {
        let fixed = request(b"PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloX");
        assert_eq!((fixed.length, fixed.beginning.as_slice()), (5, b"hello".as_slice()));
        let chunked = request(
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: 1\r\n\r\n",
        );
        assert_eq!((chunked.length, chunked.beginning.as_slice()), (5, b"hello".as_slice()));
    }

    #[test]
    fn counts_a_long_body_and_keeps_its_beginning() {
        let mut sent = b"PUT / HTTP/1.1\r\nContent-Length: 5000\r\n\r\n".to_vec();
        sent.resize(sent.len() + 5000, b'x');
        let request = request(&sent);
        assert_eq!((request.length, request.beginning.len()), (5000, DEMO_BODY_BYTES + 1));
    }

    #[test]
    fn tells_a_client_that_waits_to_go_on() {
        let (request, told) = read(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx");
        assert!(request.unwrap().is_some());
        assert_eq!(told, b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    #[test]
    fn keep_alive_follows_version_and_connection() {
        assert!(request(b"GET / HTTP/1.1\r\n\r\n").keep_alive());
        assert!(!request(b"GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n").keep_alive());
        assert!(!request(b"GET / HTTP/1.0\r\n\r\n").keep_alive());
        assert!(request(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive());
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let long = [b"GET /".as_slice(), &[b'a'; HEAD_BYTES], b" HTTP/1.1\r\n\r\n"].concat();
        let many = [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(HEAD_FIELDS + 1), b"\r\n"].concat();
        let bad: [&[u8]; 7] = [
            b"GET /\r\n\r\n",
            b"GET / HTTP/2\r\n\r\n",
            b"GET / HTTP/1.1\r\nnonsense\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n",
            &long,
            &many,
        ];
        for sent in bad {
            assert_eq!(read(sent).0.unwrap_err().kind(), ErrorKind::InvalidData, "{}", sent.escape_ascii());
        }
    }

    #[test]
    fn a_stream_may_end_between_requests_only() {
        assert_eq!(read(b"").0.unwrap(), None);
        for sent in ["GET / HT", "GET / HTTP/1.1\r\nA: b\r\n", "PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\nx"] {
            assert_eq!(read(sent.as_bytes()).0.unwrap_err().kind(), ErrorKind::UnexpectedEof, "{sent}");
        }
    }
}
