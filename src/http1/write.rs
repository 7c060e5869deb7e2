//! Writes HTTP/1.1 heads: a request or status line, field lines and framing fields.

use crate::http::forward::{NumberText, Sink, Target};
use crate::http::framing::Body;

/// Appends one head to a text. `finish` adds the empty line.
#[derive(Debug)]
pub struct Writer<'a> {
    text: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Creates a writer that appends to `text`.
    pub fn new(text: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { text }
    }

    /// Ends the head.
    pub fn finish(self) {
        self.text.extend_from_slice(b"\r\n");
    }
}

impl Sink for Writer<'_> {
    fn request(&mut self, method: &[u8], Target { path, .. }: Target<'_>) {
        self.text.reserve(method.len() + path.len() + 12);
        self.text.extend_from_slice(method);
        self.text.push(b' ');
        self.text.extend_from_slice(path);
        self.text.extend_from_slice(b" HTTP/1.1\r\n");
    }

    fn response(&mut self, status: u16, reason: &[u8]) {
        // A status code has three digits.
        let digit = |unit: u16| b'0' + (status / unit % 10) as u8;
        let line = [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', digit(100), digit(10), digit(1), b' '];
        self.text.extend_from_slice(&line);
        self.text.extend_from_slice(reason);
        self.text.extend_from_slice(b"\r\n");
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.text.reserve(name.len() + value.len() + 4);
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
    }

    fn joined(&mut self, name: &[u8], pieces: &mut dyn Iterator<Item = &[u8]>) {
        let Some(first) = pieces.next() else { return };
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(first);
        for piece in pieces {
            self.text.extend_from_slice(b", ");
            self.text.extend_from_slice(piece);
        }
        self.text.extend_from_slice(b"\r\n");
    }

    fn framing(&mut self, body: Body) {
        match body {
            Body::Length(length) => {
                self.text.extend_from_slice(b"Content-Length: ");
                self.text.extend_from_slice(NumberText::default().write(length));
                self.text.extend_from_slice(b"\r\n");
            }
            Body::Chunked => self.text.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Body::None | Body::UntilClose => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_head() {
        let mut text = Vec::new();
        let mut writer = Writer::new(&mut text);
        writer.response(200, b"OK");
        writer.framing(Body::Length(18446744073709551615));
        writer.field(b"A", b"b");
        writer.joined(b"L", &mut [&b"x"[..], b"y"].into_iter());
        writer.joined(b"Empty", &mut std::iter::empty());
        writer.finish();
        let expected = "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\nA: b\r\nL: x, y\r\n\r\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
