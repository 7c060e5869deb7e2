//! A message head: a start line and fields, as ranges into bytes that lie elsewhere.

use super::fields::{Field, Name, Span};

/// The version a message was sent in, of those whose rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: a connection a message unless asked otherwise, no transfer codings.
    Http10,
    /// HTTP/1.1 and later minor versions.
    Http11,
    /// HTTP/2: the end of a message is always marked, and its connection always goes on.
    Http2,
}

/// The first line of a head, in the terms of RFC 9110.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A request.
    Request {
        /// The method.
        method: Span,
        /// The path and query; `*` for the server as a whole. From an absolute target without a path
        /// it is empty, or a query alone.
        path: Span,
        /// The authority that the target itself named; it then overrides Host (RFC 9112, 3.2.2).
        authority: Option<Span>,
    },
    /// A response.
    Response {
        /// The three-digit code.
        status: u16,
        /// The reason phrase, perhaps empty.
        reason: Span,
    },
}

/// A parsed head. Its spans are into the bytes that it was parsed from.
#[derive(Clone, Debug)]
pub struct Head {
    /// The first line.
    pub start: Start,
    /// The version it was sent in.
    pub version: Version,
    /// The fields, in order.
    pub fields: Vec<Field>,
    /// It was marked as the end of its message, as HTTP/2 can: there is no content.
    pub ended: bool,
}

impl Default for Head {
    fn default() -> Self {
        let start = Start::Response { status: 0, reason: Span::default() };
        Head { start, version: Version::Http11, fields: Vec::new(), ended: false }
    }
}

/// A head together with its bytes.
#[derive(Clone, Copy, Debug)]
pub struct HeadRef<'a> {
    /// What the spans are into.
    pub bytes: &'a [u8],
    /// The head.
    pub head: &'a Head,
}

impl<'a> HeadRef<'a> {
    /// The bytes of a span.
    pub fn get(self, span: Span) -> &'a [u8] {
        span.of(self.bytes)
    }

    /// The method; empty for a response.
    pub fn method(self) -> &'a [u8] {
        match self.head.start {
            Start::Request { method, .. } => self.get(method),
            Start::Response { .. } => &[],
        }
    }

    /// The status code; 0 for a request.
    pub fn status(self) -> u16 {
        match self.head.start {
            Start::Response { status, .. } => status,
            Start::Request { .. } => 0,
        }
    }

    /// Every field with its name and value.
    pub fn fields(self) -> impl Iterator<Item = (Name, &'a [u8], &'a [u8])> {
        self.head.fields.iter().map(move |field| (field.name, self.get(field.name_span), self.get(field.value_span)))
    }

    /// The values of the fields of one name.
    pub fn values(self, name: Name) -> impl Iterator<Item = &'a [u8]> {
        self.head.fields.iter().filter(move |field| field.name == name).map(move |field| self.get(field.value_span))
    }

    /// The authority the request is for: the target's own, else Host (RFC 9112, 3.3).
    pub fn authority(self) -> Option<&'a [u8]> {
        match self.head.start {
            Start::Request { authority: Some(span), .. } => Some(self.get(span)),
            _ => self.values(Name::Host).next(),
        }
    }
}

/// A head kept with a copy of its bytes, so that a request can be sent once more.
#[derive(Clone, Debug, Default)]
pub struct SavedHead {
    bytes: Vec<u8>,
    head: Head,
}

impl SavedHead {
    /// Keeps a copy, in the memory of the one kept before.
    pub fn save(&mut self, from: HeadRef<'_>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(from.bytes);
        self.head.start = from.head.start;
        self.head.version = from.head.version;
        self.head.ended = from.head.ended;
        self.head.fields.clear();
        self.head.fields.extend_from_slice(&from.head.fields);
    }

    /// The head kept.
    pub fn view(&self) -> HeadRef<'_> {
        HeadRef { bytes: &self.bytes, head: &self.head }
    }

    /// Gives memory beyond `bytes` back.
    pub fn shrink(&mut self, bytes: usize) {
        if self.bytes.capacity() > bytes {
            *self = SavedHead::default();
        }
    }
}
