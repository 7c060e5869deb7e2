//! What a message is made of, whatever version carries it: every codec turns bytes into these
//! parts, and parts into bytes.

/// Which end of a connection is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We read requests.
    Server,
    /// We read responses.
    Client,
}

/// The next part of a message, or the lack of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing yet: more bytes are needed.
    NeedMore,
    /// The head of a request or of a final response; it takes up this many bytes.
    Head(usize),
    /// The head of a 1xx response; it takes up this many bytes.
    Interim(usize),
    /// This many bytes of content.
    Data(usize),
    /// The trailer section, of this many bytes, ends the content.
    Trailers(usize),
    /// The message is complete.
    End,
}
