//! Failures of connections to backends: their reasons, the rules for a further try, and the reply to the client.

use std::fmt;
use std::io::ErrorKind;

use super::codec::ErrorCode;
use super::exchange::{Content, Exchange};
use super::progress::Progress;
use crate::http::message_error::MessageError;
use crate::http::proxy_error::ProxyError;
use crate::http::session_error::SessionError;
use crate::limits::{REPEATS, TRIES};
use crate::metrics::{Count, SlotCount};

/// The reason for which a connection to a backend failed. A number is an error code of the system; 0 if there is
/// none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection could not be established.
    Connect(i32),
    /// The connection was not established in time.
    ConnectTimeout,
    /// The worker had no descriptor or memory for the connection. This is no fault of the backend.
    Exhausted(i32),
    /// The backend's queue of connections was full. The backend may be healthy.
    Busy,
    /// The connection was closed before the response was complete.
    Closed,
    /// The connection broke before the response was complete.
    Broken(i32),
    /// The TLS session failed before the response was complete.
    Session(SessionError),
    /// The response was malformed.
    Malformed(MessageError),
    /// The response, or more of it, did not arrive in time.
    Timeout,
    /// The TLS handshake failed, or the session broke before a request was written.
    Tls(SessionError),
    /// The backend has said that it did not process the request.
    Unprocessed,
    /// The backend refused the stream, so it did not process the request.
    Refused,
    /// The backend requires HTTP/1.1, but is configured for HTTP/2 alone.
    Http11Required,
    /// The backend reset the stream.
    Reset(ErrorCode),
    /// The backend ended the HTTP/2 connection with an error.
    GoAway(ErrorCode),
    /// The backend broke the rules of HTTP/2.
    Http2(&'static str),
    /// The backend sent more on the HTTP/2 connection than the proxy accepts, so all streams fail.
    Excess(&'static str),
    /// The backend speaks HTTP/2 and accepts no streams.
    NoStreams,
    /// The backend accepts no extended CONNECT over HTTP/2, so a WebSocket was not asked for.
    NoExtendedConnect,
    /// The backend responded to the handshake of a WebSocket with success and did not switch.
    NotSwitched,
    /// The status of the response counts as a failure of the backend.
    Status(u16),
}

// A failure is copied through many calls, and is a part of each kind of log line.
const _: () = assert!(size_of::<Failure>() <= 32);

impl Failure {
    /// True if the backend never saw the request.
    pub(super) fn is_before_request(self) -> bool {
        matches!(
            self,
            Failure::Connect(_) | Failure::ConnectTimeout | Failure::Busy | Failure::Tls(_) | Failure::NoStreams
        )
    }

    /// True if the connection was lost after the request was written.
    pub(super) fn is_loss(self) -> bool {
        matches!(self, Failure::Closed | Failure::Broken(_) | Failure::Session(_))
    }

    /// True if a request was broken off that the backend may have seen.
    pub(super) fn is_after_request(self) -> bool {
        let ended = matches!(self, Failure::Reset(_) | Failure::GoAway(_) | Failure::Http2(_) | Failure::Excess(_));
        ended || self.is_loss()
    }

    /// True if the message may be correct and exceeds a limit of the proxy.
    pub(super) fn is_limit(self) -> bool {
        match self {
            Failure::Malformed(refusal) => refusal.is_limit(),
            failure => matches!(failure, Failure::Excess(_)),
        }
    }

    /// Returns the counter of the failure.
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
            | Failure::NoExtendedConnect
            | Failure::NotSwitched
            | Failure::Http11Required => SlotCount::FailedHttp2,
            Failure::Status(_) => SlotCount::FailedStatus,
        }
    }

    /// Returns the counter of a retry after the failure.
    pub(super) fn retried_for(self) -> Count {
        if self.is_before_request() { Count::RetryConnect } else { Count::RetryBroken }
    }

    /// Returns the status for a client whose response has not begun.
    pub(super) fn status(self) -> u16 {
        match self {
            Failure::ConnectTimeout | Failure::Timeout => 504,
            Failure::Exhausted(_) | Failure::Busy => 503,
            _ => 502,
        }
    }

    /// Returns the part of the reason that a client may know.
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
            Failure::NoExtendedConnect | Failure::NotSwitched => ProxyError::NoWebSocket,
            Failure::Http11Required => ProxyError::Protocol,
            Failure::Http2(_) | Failure::Excess(_) | Failure::Status(_) => ProxyError::Protocol,
        }
    }

    /// True if the exchange may be tried again, on another backend or a fresh connection. A request that no backend has
    /// processed, according to the backend if it has got it, may be tried again if all of its content is there. So may
    /// one that a backend wants in HTTP/1.1: servers say so before they process a request, although RFC 9113 does not
    /// promise it. Any other request must be idempotent (RFC 9110, 9.2.2), none of its content may have left, and the
    /// backend must have been `silent`: not a byte of a response has arrived.
    pub(super) fn may_retry(self, exchange: &Exchange, silent: bool) -> bool {
        if exchange.tries.count() >= TRIES
            || exchange.response != Progress::Waiting
            || exchange.content == Content::Sent
        {
            return false;
        }
        match self {
            Failure::Unprocessed | Failure::Refused | Failure::Http11Required | Failure::NoExtendedConnect => true,
            failure if failure.is_before_request() => true,
            failure if failure.is_after_request() => {
                let unsent = exchange.content != Content::Kept;
                exchange.facts.is_idempotent() && unsent && silent && usize::from(exchange.tries.repeats) < REPEATS
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
            Failure::NoExtendedConnect => write!(f, "accepts no WebSocket over HTTP/2 (RFC 8441)"),
            Failure::NotSwitched => write!(f, "did not switch to WebSocket"),
            Failure::NoStreams => write!(f, "allows no HTTP/2 streams"),
            Failure::Status(status) => write!(f, "answered {status}"),
        }
    }
}

/// An error code of the system, as text.
struct Code(i32);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => write!(f, "no reason given"),
            code => write!(f, "{}", std::io::Error::from_raw_os_error(code)),
        }
    }
}
