//! How a backend fails an exchange, whether another may be asked instead, and what the client
//! is told where none can.

use std::fmt;
use std::io::ErrorKind;

use super::codec::ErrorCode;
use super::exchange::{Content, Exchange, Progress};
use crate::http::message_error::MessageError;
use crate::http::proxy_error::ProxyError;
use crate::http::session_error::SessionError;
use crate::limits::{REPEATS, TRIES};
use crate::metrics::{Count, SlotCount};

/// Why a connection to a backend was of no use. The number is the system's error code, 0 where
/// there was none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be established.
    Connect(i32),
    /// It was not established in time.
    ConnectTimeout,
    /// No descriptor or memory was left for it: our own lack, not the backend's.
    Exhausted(i32),
    /// Its queue of connections was full, which is no sign that it is not well.
    Busy,
    /// It was closed before the response was complete.
    Closed,
    /// It broke before the response was complete.
    Broken(i32),
    /// The session that carried it failed before the response was complete.
    Session(SessionError),
    /// The response was malformed.
    Malformed(MessageError),
    /// The response, or more of it, did not come in time.
    Timeout,
    /// No session could be agreed on, or it was broken before a request was given to it.
    Tls(SessionError),
    /// The backend has not looked at the request, and says so.
    Unprocessed,
    /// The backend would not take the stream, and has not processed the request.
    Refused,
    /// The backend wants HTTP/1.1, and is configured to be spoken to in HTTP/2 alone.
    Http11Required,
    /// The backend gave the stream up.
    Reset(ErrorCode),
    /// The backend ended the HTTP/2 connection, and found fault with what came on it.
    GoAway(ErrorCode),
    /// The backend broke the rules of HTTP/2.
    Http2(&'static str),
    /// It sent more on the HTTP/2 connection than is taken, which others on it suffer for.
    Excess(&'static str),
    /// It speaks HTTP/2, and takes no streams.
    NoStreams,
    /// The response said that the backend has failed, and that is to count.
    Status(u16),
}

// A failure is copied through many calls, and is a part of each kind of log line.
const _: () = assert!(size_of::<Failure>() <= 32);

impl Failure {
    /// Whether the backend never saw the request.
    pub(super) fn is_before_request(self) -> bool {
        matches!(
            self,
            Failure::Connect(_) | Failure::ConnectTimeout | Failure::Busy | Failure::Tls(_) | Failure::NoStreams
        )
    }

    /// Whether the connection was lost that a request was given to.
    pub(super) fn is_loss(self) -> bool {
        matches!(self, Failure::Closed | Failure::Broken(_) | Failure::Session(_))
    }

    /// Whether it broke off what the backend may have seen.
    pub(super) fn is_after_request(self) -> bool {
        let ended = matches!(self, Failure::Reset(_) | Failure::GoAway(_) | Failure::Http2(_) | Failure::Excess(_));
        ended || self.is_loss()
    }

    /// Whether what came may be right, and came to a limit of ours.
    pub(super) fn is_limit(self) -> bool {
        match self {
            Failure::Malformed(refusal) => refusal.is_limit(),
            failure => matches!(failure, Failure::Excess(_)),
        }
    }

    /// By which reason it is counted.
    pub(super) fn reason(self) -> SlotCount {
        match self {
            Failure::Connect(_) | Failure::Exhausted(_) | Failure::Busy => SlotCount::FailedConnect,
            Failure::ConnectTimeout => SlotCount::FailedConnectTimeout,
            Failure::Tls(_) => SlotCount::FailedTls,
            Failure::Closed | Failure::Broken(_) | Failure::Session(_) => SlotCount::FailedClosed,
            Failure::Timeout => SlotCount::FailedTimeout,
            Failure::Malformed(_) => SlotCount::FailedMalformed,
            Failure::Reset(_) | Failure::Unprocessed | Failure::Refused => SlotCount::FailedReset,
            Failure::GoAway(_)
            | Failure::Http2(_)
            | Failure::Excess(_)
            | Failure::NoStreams
            | Failure::Http11Required => SlotCount::FailedHttp2,
            Failure::Status(_) => SlotCount::FailedStatus,
        }
    }

    /// What a further try is counted as that it leads to.
    pub(super) fn retried_for(self) -> Count {
        if self.is_before_request() { Count::RetryConnect } else { Count::RetryBroken }
    }

    /// The status for a client to whom nothing was answered yet.
    pub(super) fn status(self) -> u16 {
        match self {
            Failure::ConnectTimeout | Failure::Timeout => 504,
            Failure::Exhausted(_) | Failure::Busy => 503,
            _ => 502,
        }
    }

    /// What a client may know of it.
    pub(super) fn error(self) -> ProxyError {
        match self {
            Failure::Connect(code) => match std::io::Error::from_raw_os_error(code).kind() {
                ErrorKind::ConnectionRefused => ProxyError::ConnectionRefused,
                ErrorKind::TimedOut => ProxyError::ConnectionTimeout,
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ProxyError::DestinationUnroutable,
                _ => ProxyError::DestinationUnavailable,
            },
            Failure::ConnectTimeout => ProxyError::ConnectionTimeout,
            Failure::Exhausted(_) => ProxyError::Internal,
            Failure::Busy | Failure::NoStreams => ProxyError::DestinationUnavailable,
            Failure::Closed | Failure::Broken(_) | Failure::Session(_) | Failure::GoAway(_) => {
                ProxyError::ConnectionTerminated
            }
            Failure::Malformed(refusal) => match refusal {
                MessageError::HeadTooLarge | MessageError::TooManyFields => ProxyError::ResponseFieldsTooLarge,
                MessageError::TrailersTooLarge => ProxyError::ResponseTrailersTooLarge,
                MessageError::CodingUnknown => ProxyError::ResponseTransferCoding,
                MessageError::SwitchUnasked => ProxyError::UpgradeFailed,
                _ => ProxyError::Protocol,
            },
            Failure::Timeout => ProxyError::ResponseTimeout,
            Failure::Tls(error) => error.error(),
            Failure::Unprocessed | Failure::Refused | Failure::Reset(_) => ProxyError::ResponseIncomplete,
            Failure::Http11Required => ProxyError::Protocol,
            Failure::Http2(_) | Failure::Excess(_) | Failure::Status(_) => ProxyError::Protocol,
        }
    }

    /// Whether the exchange may be tried once more, elsewhere or on a fresh connection: always
    /// where the request cannot have been seen, and where it can have been only if seeing it
    /// twice is the same (RFC 9110, 9.2.2), none of its content has gone, and the backend was
    /// `silent`: not a byte of a response has come.
    pub(super) fn may_retry(self, exchange: &Exchange, silent: bool) -> bool {
        if exchange.tries.count() >= TRIES
            || exchange.response != Progress::Waiting
            || exchange.content == Content::Sent
        {
            return false;
        }
        match self {
            Failure::Unprocessed | Failure::Refused | Failure::Http11Required => true,
            failure if failure.is_before_request() => true,
            failure if failure.is_after_request() => {
                exchange.facts.is_idempotent() && silent && usize::from(exchange.tries.repeats) < REPEATS
            }
            _ => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect(code) => write!(f, "cannot connect: {}", Code(*code)),
            Failure::ConnectTimeout => write!(f, "timed out connecting"),
            Failure::Exhausted(code) => write!(f, "nothing left to connect with: {}", Code(*code)),
            Failure::Busy => write!(f, "cannot connect: its queue of connections is full"),
            Failure::Closed => write!(f, "closed before the response was complete"),
            Failure::Broken(code) => write!(f, "broke before the response was complete: {}", Code(*code)),
            Failure::Session(error) => write!(f, "broke before the response was complete: {error}"),
            Failure::Malformed(refusal) => write!(f, "malformed response: {refusal}"),
            Failure::Timeout => write!(f, "timed out responding"),
            Failure::Tls(error) => write!(f, "TLS: {error}"),
            Failure::Unprocessed => write!(f, "did not look at the request"),
            Failure::Refused => write!(f, "refused the HTTP/2 stream"),
            Failure::Http11Required => write!(f, "requires HTTP/1.1: configure it as http:// instead of h2c://"),
            Failure::Reset(code) => write!(f, "reset the stream: {code}"),
            Failure::GoAway(code) => write!(f, "ended the HTTP/2 connection: {code}"),
            Failure::Http2(reason) => write!(f, "broke HTTP/2: {reason}"),
            Failure::Excess(reason) => write!(f, "sent more over HTTP/2 than is taken: {reason}"),
            Failure::NoStreams => write!(f, "allows no HTTP/2 streams"),
            Failure::Status(status) => write!(f, "answered {status}"),
        }
    }
}

/// A system error code, in words.
struct Code(i32);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "no reason given"),
            code => write!(f, "{}", std::io::Error::from_raw_os_error(code)),
        }
    }
}
