//! The parts of a message in every protocol version. A codec turns bytes into these parts, and parts into
//! bytes.

/// The proxy's role on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The proxy reads requests.
    Server,
    /// The proxy reads responses.
    Client,
}

/// The next part of a message, or the lack of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// More bytes are needed.
    NeedMore,
    /// The head of a request or of a final response; its length in bytes.
    Head(usize),
    /// The head of a 1xx response; its length in bytes.
    Interim(usize),
    /// Content; its length in bytes.
    Data(usize),
    /// The trailer section, which ends the content; its length in bytes.
    Trailers(usize),
    /// The message is complete.
    End,
}
