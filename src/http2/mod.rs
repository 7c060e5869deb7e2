//! HTTP/2 (RFC 9113), in either role: frames, settings, streams and flow control, as a pure state machine that
//! consumes and produces bytes. It is independent of the use of the messages.
//!
//! `frame` and `settings` are the wire format; `head` converts between field blocks and heads; `stream` is the
//! state of one stream; `connection` is the machine and its output, `receive` its input, `reading` the position in it; `budget` bounds the
//! work that a peer causes without progress, and `tally` counts its frames.

mod budget;
pub mod connection;
pub mod frame;
pub mod head;
mod reading;
mod receive;
mod settings;
mod stream;
mod tally;

pub use self::frame::ErrorCode;
use self::frame::Kind;
pub use self::stream::Spare;
pub use self::tally::Tally;

/// The kind of fault that ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The peer has violated the protocol.
    Protocol,
    /// The input may be valid but exceeds a limit.
    Limit,
    /// The client has reset too many streams.
    Resets,
    /// The client has made us reset too many streams.
    Provoked,
    /// The peer causes replies and does not read them.
    Unread,
    /// The client lets us send only a few bytes at a time.
    Windows,
    /// The peer has sent too many frames without progress. The last one was of this kind.
    Flood(Kind),
}

/// The reason for the end of a connection: the peer has violated the protocol (RFC 9113, 5.4.1), or exceeded a
/// limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// The code for the peer.
    pub code: ErrorCode,
    /// The fault.
    pub reason: &'static str,
    /// The kind of the fault.
    pub cause: Cause,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, reason: &'static str) -> Error {
        Error { code, reason, cause: Cause::Protocol }
    }

    /// True if the input may be valid but exceeds a limit.
    pub fn is_limit(&self) -> bool {
        self.cause == Cause::Limit
    }

    pub(crate) fn protocol(reason: &'static str) -> Error {
        Error::new(ErrorCode::PROTOCOL_ERROR, reason)
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.reason)
    }
}
