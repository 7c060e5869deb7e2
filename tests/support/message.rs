//! A small strict parser of HTTP/1.1 messages (RFC 9112), independent of the program's own.
//!
//! It refuses everything that a careful sender would not write: bare CR or LF, chunk extensions, two framings.
//! Heads are decoded as Latin-1, so that every byte is kept.

use super::shown;
use super::wire::{Fault, Wire};

/// The framing of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// Content-Length.
    Length(u64),
    /// Chunks.
    Chunked,
    /// The end of the connection.
    Close,
}

/// A received body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its framing.
    pub framing: Framing,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its trailers, in order.
    pub trailers: Vec<(String, String)>,
}

/// A received message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The first line.
    pub start: String,
    /// The fields, in order.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} {:?} ", self.start, self.fields, self.body.framing)?;
        write!(f, "{:?} trailers {:?}", shown(&self.body.bytes), self.body.trailers)
    }
}

impl Message {
    /// A response's status code.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// A request's method.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or("")
    }

    /// A request's target.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or("")
    }

    /// The values of every field of one name, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let same = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that occurs at most once.
    #[track_caller]
    pub fn value(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{name} more than once: {self:?}");
        values.first().copied()
    }

    /// True if there is a field of this name.
    pub fn has(&self, name: &str) -> bool {
        !self.values(name).is_empty()
    }

    /// The elements of a list field.
    pub fn list(&self, name: &str) -> Vec<String> {
        self.values(name).iter().flat_map(|value| value.split(',')).map(|word| word.trim().to_string()).collect()
    }

    /// True if Connection contains the option.
    pub fn connection_has(&self, option: &str) -> bool {
        self.list("Connection").iter().any(|word| word.eq_ignore_ascii_case(option))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        latin1(&self.body.bytes)
    }

    /// The framing of a request's body.
    pub fn request_framing(&self) -> Result<Framing, Fault> {
        Ok(self.framing()?.unwrap_or(Framing::None))
    }

    /// The framing of a response to `method` (RFC 9112, 6.3).
    pub fn response_framing(&self, method: &str) -> Result<Framing, Fault> {
        let told = self.framing()?;
        let bodiless = method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304);
        Ok(if bodiless { Framing::None } else { told.unwrap_or(Framing::Close) })
    }

    fn framing(&self) -> Result<Option<Framing>, Fault> {
        let codings = self.values("Transfer-Encoding");
        let lengths = self.values("Content-Length");
        match (codings.as_slice(), lengths.as_slice()) {
            ([], []) => Ok(None),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            ([], [length]) if length.bytes().all(|b| b.is_ascii_digit()) => length
                .parse()
                .map(|n| Some(Framing::Length(n)))
                .map_err(|_| malformed("Content-Length", length.as_bytes())),
            _ => Err(Fault::Malformed(format!("framing of {self:?}"))),
        }
    }
}

fn malformed(what: &str, bytes: &[u8]) -> Fault {
    Fault::Malformed(format!("{what}: {}", shown(bytes)))
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| byte as char).collect()
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Parses field lines that each end with CRLF.
pub fn field_lines(lines: &[u8]) -> Result<Vec<(String, String)>, Fault> {
    let mut fields = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|two| two == b"\r\n").ok_or_else(|| malformed("no CRLF", rest))?;
        let (line, after) = (&rest[..end], &rest[end + 2..]);
        let colon = line.iter().position(|&b| b == b':').ok_or_else(|| malformed("no colon", line))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) || value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return Err(malformed("field line", line));
        }
        fields.push((latin1(name), latin1(value)));
        rest = after;
    }
    Ok(fields)
}

/// Reads a message's first line and fields. The body stays on the wire.
pub fn read_head(wire: &mut Wire) -> Result<Message, Fault> {
    let head = wire.until(b"\r\n\r\n")?;
    let lines = &head[..head.len() - 2];
    let end = lines.windows(2).position(|two| two == b"\r\n").ok_or_else(|| malformed("head", &head))?;
    let start = &lines[..end];
    if start.iter().any(|&b| b < b' ' || b == 0x7f) {
        return Err(malformed("first line", start));
    }
    let body = Body { framing: Framing::None, bytes: Vec::new(), trailers: Vec::new() };
    Ok(Message { start: latin1(start), fields: field_lines(&lines[end + 2..])?, body })
}

/// Reads a body piece by piece.
pub struct BodyReader {
    framing: Framing,
    /// Remaining bytes of the body, or of the chunk.
    left: u64,
    ended: bool,
    /// The trailers, once the body has ended.
    pub trailers: Vec<(String, String)>,
}

impl BodyReader {
    /// Creates a reader for a framing.
    pub fn new(framing: Framing) -> BodyReader {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        BodyReader { framing, left, ended: false, trailers: Vec::new() }
    }

    /// The next bytes; `None` at the body's end.
    pub fn piece(&mut self, wire: &mut Wire) -> Result<Option<Vec<u8>>, Fault> {
        if self.ended {
            return Ok(None);
        }
        match self.framing {
            Framing::None => {}
            Framing::Length(_) if self.left == 0 => {}
            Framing::Length(_) => return self.up_to_left(wire),
            Framing::Close => match wire.some(usize::MAX) {
                Err(Fault::Fin) => {}
                other => return other.map(Some),
            },
            Framing::Chunked => {
                if self.left > 0 || self.chunk(wire)? {
                    return self.up_to_left(wire);
                }
            }
        }
        self.ended = true;
        Ok(None)
    }

    fn up_to_left(&mut self, wire: &mut Wire) -> Result<Option<Vec<u8>>, Fault> {
        let piece = wire.some(usize::try_from(self.left).unwrap_or(usize::MAX))?;
        self.left -= piece.len() as u64;
        if self.left == 0 && self.framing == Framing::Chunked && wire.exactly(2)? != b"\r\n" {
            return Err(Fault::Malformed("chunk without CRLF".into()));
        }
        Ok(Some(piece))
    }

    /// Reads a chunk's size. Returns false after the last one and its trailers.
    fn chunk(&mut self, wire: &mut Wire) -> Result<bool, Fault> {
        let line = wire.until(b"\r\n")?;
        let digits = &line[..line.len() - 2];
        let hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
        let text = std::str::from_utf8(digits).ok().filter(|_| hex).ok_or_else(|| malformed("chunk size", &line))?;
        self.left = u64::from_str_radix(text, 16).map_err(|_| malformed("chunk size", &line))?;
        if self.left > 0 {
            return Ok(true);
        }
        let mut lines = Vec::new();
        loop {
            let line = wire.until(b"\r\n")?;
            if line == b"\r\n" {
                break;
            }
            lines.extend_from_slice(&line);
        }
        self.trailers = field_lines(&lines)?;
        Ok(false)
    }
}

/// A chunked body with one chunk per piece, and trailers.
pub fn chunked(pieces: &[&[u8]], trailers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A 200 response of fixed length. `fields` are whole lines, each with its CRLF.
pub fn response(fields: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}
