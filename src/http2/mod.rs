//! HTTP/2 (RFC 9113), in either role: frames, settings, streams and flow control, as a machine that
//! bytes go into and frames come out of. It knows nothing of what the messages are for.
//!
//! `frame` and `settings` are the wire; `head` turns blocks of fields into heads and back; `stream`
//! is what is known about one stream; `connection` is the machine and what it sends, `receive` what comes to
//! it; `budget` bounds what a peer may
//! have done for nothing.

mod budget;
pub mod connection;
pub mod frame;
pub mod head;
mod receive;
mod settings;
mod stream;

pub use self::frame::ErrorCode;

/// What ends a connection: the peer has broken the protocol (RFC 9113, 5.4.1), or sent more than we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// What the peer is told.
    pub code: ErrorCode,
    /// What was wrong.
    pub reason: &'static str,
    /// What came may be right, and is more than we take.
    pub is_limit: bool,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, reason: &'static str) -> Error {
        Error { code, reason, is_limit: false }
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
