//! The chunked transfer coding (RFC 9112, 7.1), in both directions.
//!
//! The decoder gets bytes and returns the number of bytes to skip and the number of content bytes that follow.
//! States: `Size` expects a chunk-size line, `Data` counts the content down, `DataEnd` expects the CRLF after
//! it, `Trailers` follows the last chunk. A line is decoded only once it is complete, so the decoder stores no
//! part of it.

use crate::http::message_error::MessageError;
use crate::limits::{CHUNK_EXTENSION_BYTES, CHUNK_LINE_BYTES};

/// The position of a decoder in the coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

/// Decodes the chunks of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoder {
    state: State,
    extension_bytes: u32,
}

/// The instruction for the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Skip this many bytes; more are needed.
    NeedMore(usize),
    /// Skip `skip` bytes; `length` bytes of content follow.
    Data {
        /// The length of the framing.
        skip: usize,
        /// The length of the content after it.
        length: usize,
    },
    /// Skip this many bytes; the trailer section follows.
    Trailers(usize),
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { state: State::Size, extension_bytes: 0 }
    }
}

impl Decoder {
    /// Creates a decoder for the start of a message's content.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Decodes the next step in `bytes`. The decoder then counts the skipped bytes and the content as consumed.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Step, MessageError> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match self.state {
                State::Size => match size_line(rest)? {
                    None => return Ok(Step::NeedMore(at)),
                    Some((size, length, extension)) => {
                        self.extension_bytes += extension as u32;
                        if self.extension_bytes as usize > CHUNK_EXTENSION_BYTES {
                            return Err(MessageError::ChunkExtensions);
                        }
                        at += length;
                        self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                    }
                },
                State::Data(_) if rest.is_empty() => return Ok(Step::NeedMore(at)),
                State::Data(left) => {
                    let length = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - length as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data { skip: at, length });
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::NeedMore(at)),
                    _ => return Err(MessageError::ChunkEnd),
                },
                State::Trailers => return Ok(Step::Trailers(at)),
            }
        }
    }
}

/// Parses `1*HEXDIG [chunk-ext] CRLF`. Returns the size, the length of the line and the length of its
/// extensions.
fn size_line(bytes: &[u8]) -> Result<Option<(u64, usize, usize)>, MessageError> {
    let mut size = 0_u64;
    let mut digits = 0;
    for &byte in bytes {
        let Some(value) = (byte as char).to_digit(16) else { break };
        digits += 1;
        // Fifteen digits reach an exabyte and exclude every overflow.
        if digits > 15 {
            return Err(MessageError::ChunkSize);
        }
        size = size << 4 | u64::from(value);
    }
    let rest = &bytes[digits..];
    if digits == 0 && !rest.is_empty() {
        return Err(MessageError::ChunkSize);
    }
    match rest {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some((size, digits + 2, 0))),
        [b'\r', ..] => Err(MessageError::BareCr),
        [b'\n', ..] => Err(MessageError::BareLf),
        [b';' | b' ' | b'\t', ..] => extension(rest).map(|end| end.map(|n| (size, digits + n + 2, n))),
        _ => Err(MessageError::ChunkSize),
    }
}

/// The length of a chunk extension up to its CRLF. Extensions are parsed only to skip them.
fn extension(bytes: &[u8]) -> Result<Option<usize>, MessageError> {
    let start = bytes.iter().position(|b| !matches!(b, b' ' | b'\t'));
    if start.is_some_and(|start| bytes[start] != b';') {
        return Err(MessageError::ChunkSize);
    }
    let end = super::scan::value_end(bytes);
    if end > CHUNK_LINE_BYTES {
        return Err(MessageError::ChunkLine);
    }
    match &bytes[end..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some(end)),
        [b'\r', ..] => Err(MessageError::BareCr),
        [b'\n', ..] => Err(MessageError::BareLf),
        _ => Err(MessageError::ChunkSize),
    }
}

/// The last chunk and an empty trailer section.
pub const END: &[u8] = b"0\r\n\r\n";
/// The last chunk, before trailers.
pub const LAST: &[u8] = b"0\r\n";

/// The text of a chunk-size line.
#[derive(Clone, Copy, Debug)]
pub struct SizeLine {
    bytes: [u8; 18],
    start: usize,
}

impl SizeLine {
    /// The line before a chunk of `size` bytes; 0 would be the last chunk.
    pub fn new(mut size: u64) -> SizeLine {
        let mut line = SizeLine { bytes: [b'0'; 18], start: 16 };
        line.bytes[16..].copy_from_slice(b"\r\n");
        loop {
            line.start -= 1;
            line.bytes[line.start] = b"0123456789abcdef"[(size & 15) as usize];
            size >>= 4;
            if size == 0 {
                return line;
            }
        }
    }

    /// The bytes of the line.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `step`. Returns the content, and the number of bytes after the coding.
    fn decode(bytes: &[u8], step: usize) -> Result<(Vec<u8>, Option<usize>), MessageError> {
        let (mut decoder, mut held, mut content) = (Decoder::new(), Vec::new(), Vec::new());
        let mut fed = 0;
        for piece in bytes.chunks(step) {
            fed += piece.len();
            held.extend_from_slice(piece);
            loop {
                match decoder.step(&held)? {
                    Step::NeedMore(n) => {
                        held.drain(..n);
                        break;
                    }
                    Step::Data { skip, length } => {
                        content.extend_from_slice(&held[skip..skip + length]);
                        held.drain(..skip + length);
                    }
                    Step::Trailers(n) => return Ok((content, Some(bytes.len() - fed + held.len() - n))),
                }
            }
        }
        Ok((content, None))
    }

    #[test]
    fn decodes_the_same_for_every_split() {
        let text = b"5\r\nhello\r\n00a;x=\"y\"\r\n0123456789\r\n1 ; a\r\n!\r\n0;end\r\n\r\nNEXT";
        for step in 1..=text.len() {
            let (content, left) = decode(text, step).unwrap();
            assert_eq!(content, b"hello0123456789!", "{step}");
            assert_eq!(left, Some(6), "{step}");
        }
    }

    #[test]
    fn refuses_malformed_chunks() {
        for (text, refusal) in [
            (&b"x\r\n"[..], MessageError::ChunkSize),
            (b"-1\r\n", MessageError::ChunkSize),
            (b"+1\r\n", MessageError::ChunkSize),
            (b"0x1\r\n", MessageError::ChunkSize),
            (b"\r\n", MessageError::ChunkSize),
            (b" 5\r\n", MessageError::ChunkSize),
            (b"5 x\r\n", MessageError::ChunkSize),
            (b"5_0\r\n", MessageError::ChunkSize),
            (b"5;a\x00\r\n", MessageError::ChunkSize),
            (b"1111111111111111\r\n", MessageError::ChunkSize),
            (b"5\nhello", MessageError::BareLf),
            (b"5;a\nhello", MessageError::BareLf),
            (b"5\rhello", MessageError::BareCr),
            (b"5\r\nhelloXX", MessageError::ChunkEnd),
            (b"5\r\nhello\n", MessageError::ChunkEnd),
        ] {
            assert_eq!(decode(text, 1).unwrap_err(), refusal, "{:?}", String::from_utf8_lossy(text));
            assert_eq!(decode(text, 64).unwrap_err(), refusal, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn extensions_are_bounded_in_a_line_and_in_a_message() {
        let long = format!("1;{}", "a".repeat(CHUNK_LINE_BYTES));
        assert_eq!(decode(long.as_bytes(), 7).unwrap_err(), MessageError::ChunkLine);
        let many = format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(CHUNK_EXTENSION_BYTES / 200 + 1);
        assert_eq!(decode(many.as_bytes(), 999).unwrap_err(), MessageError::ChunkExtensions);
    }

    #[test]
    fn size_lines_are_written_in_hex() {
        for (size, line) in
            [(0, "0\r\n"), (1, "1\r\n"), (255, "ff\r\n"), (65536, "10000\r\n"), (u64::MAX, "ffffffffffffffff\r\n")]
        {
            assert_eq!(SizeLine::new(size).bytes(), line.as_bytes());
        }
    }
}
