//! A message head: a start line and fields, stored as ranges of a byte buffer that the caller keeps.

use super::fields::{Field, Name, Span};

/// The protocol version of a message. Versions with identical rules share a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: one message per connection unless the sender asks to keep it; no transfer codings.
    Http10,
    /// HTTP/1.1 and later minor versions.
    Http11,
    /// HTTP/2: every message has an end mark, and the connection always persists.
    Http2,
}

/// The first line of a head (RFC 9110, 3.9 and 9 to 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A request.
    Request {
        /// The method.
        method: Span,
        /// The path and query; `*` for the server as a whole. An absolute target without a path gives the empty
        /// path, or only a query.
        path: Span,
        /// The authority in the target. It overrides Host (RFC 9112, 3.2.2).
        authority: Option<Span>,
        /// The protocol that an extended CONNECT asks for (RFC 8441, 4).
        protocol: Option<Span>,
    },
    /// A response.
    Response {
        /// The three-digit code.
        status: u16,
        /// The reason phrase; may be empty.
        reason: Span,
    },
}

/// A parsed head. Its spans refer to the bytes that it was parsed from.
#[derive(Clone, Debug)]
pub struct Head {
    /// The first line.
    pub start: Start,
    /// The version of the message.
    pub version: Version,
    /// The fields, in the order received.
    pub fields: Vec<Field>,
    /// True if an HTTP/2 END_STREAM came with the head: there is no content.
    pub ended: bool,
}

impl Default for Head {
    fn default() -> Self {
        let start = Start::Response { status: 0, reason: Span::default() };
        Head { start, version: Version::Http11, fields: Vec::new(), ended: false }
    }
}

/// A head and the bytes that its spans refer to.
#[derive(Clone, Copy, Debug)]
pub struct HeadRef<'a> {
    /// The bytes that the spans refer to.
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

    /// Each field's identity, name and value.
    pub fn fields(self) -> impl Iterator<Item = (Name, &'a [u8], &'a [u8])> {
        self.head.fields.iter().map(move |field| (field.name, self.get(field.name_span), self.get(field.value_span)))
    }

    /// The values of all fields with this name.
    pub fn values(self, name: Name) -> impl Iterator<Item = &'a [u8]> {
        self.head.fields.iter().filter(move |field| field.name == name).map(move |field| self.get(field.value_span))
    }

    /// The authority of the request: the one in the target, otherwise Host (RFC 9112, 3.3).
    pub fn authority(self) -> Option<&'a [u8]> {
        match self.head.start {
            Start::Request { authority: Some(span), .. } => Some(self.get(span)),
            _ => self.values(Name::Host).next(),
        }
    }
}

/// A head and a copy of its bytes, kept so that the request can be sent again.
#[derive(Clone, Debug, Default)]
pub struct SavedHead {
    bytes: Vec<u8>,
    head: Head,
}

impl SavedHead {
    /// Copies a head into the memory of the previous copy.
    pub fn save(&mut self, from: HeadRef<'_>) {
        self.bytes.clear();
        self.bytes.extend_from_slice(from.bytes);
        self.head.start = from.head.start;
        self.head.version = from.head.version;
        self.head.ended = from.head.ended;
        self.head.fields.clear();
        self.head.fields.extend_from_slice(&from.head.fields);
    }

    /// The bytes that it holds.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.head.fields.len() * size_of::<Field>()
    }

    /// The saved head.
    pub fn view(&self) -> HeadRef<'_> {
        HeadRef { bytes: &self.bytes, head: &self.head }
    }

    /// Frees memory above `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if self.bytes.capacity() > bytes {
            *self = SavedHead::default();
        }
    }
}
