//! The reasons to refuse a message, each with its status code and its text.

use crate::limits::{
    CHUNK_EXTENSION_BYTES, CHUNK_LINE_BYTES, CONNECTION_OPTIONS, HEAD_BYTES, HEAD_FIELDS, INTERIM_RESPONSES,
    METHOD_BYTES, RESPONSE_FIELDS, TARGET_BYTES, TRAILER_BYTES,
};
use std::fmt;

/// A fault in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each one's text, below, says what it means")]
pub enum MessageError {
    RequestLine,
    StatusLine,
    MethodTooLong,
    Target,
    TargetTooLong,
    Version,
    HeadTooLarge,
    TooManyFields,
    FieldName,
    FieldNameSpace,
    FieldValue,
    FieldFolded,
    BareCr,
    BareLf,
    HostMissing,
    HostRepeated,
    HostInvalid,
    LengthInvalid,
    LengthsDiffer,
    LengthAndCoding,
    CodingInHttp10,
    CodingRepeated,
    CodingUnknown,
    ConnectionOptions,
    ExpectationUnknown,
    MethodNotServed,
    ProtocolNotServed,
    ChunkSize,
    ChunkLine,
    ChunkExtensions,
    ChunkEnd,
    TrailersTooLarge,
    TooManyInterims,
    SwitchUnasked,
    SwitchUnnamed,
    SwitchUnproved,
    BodyCutShort,
    HeadCutShort,
    PseudoField,
    ConnectionField,
    LengthWrong,
    Misplaced,
}

impl MessageError {
    /// The status code for the client. Every fault of a backend is a 502.
    pub fn status(self) -> u16 {
        match self {
            MessageError::TargetTooLong => 414,
            MessageError::HeadTooLarge | MessageError::TooManyFields | MessageError::TrailersTooLarge => 431,
            MessageError::ExpectationUnknown => 417,
            MessageError::MethodNotServed => 405,
            MessageError::CodingUnknown | MessageError::MethodTooLong | MessageError::ProtocolNotServed => 501,
            MessageError::Version => 505,
            _ => 400,
        }
    }
}

impl MessageError {
    /// True if the message may be valid but exceeds a limit of the proxy.
    pub fn is_limit(self) -> bool {
        matches!(
            self,
            MessageError::HeadTooLarge
                | MessageError::TooManyFields
                | MessageError::ConnectionOptions
                | MessageError::ChunkLine
                | MessageError::ChunkExtensions
                | MessageError::TrailersTooLarge
                | MessageError::TooManyInterims
        )
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MessageError::RequestLine => write!(f, "malformed request line"),
            MessageError::StatusLine => write!(f, "malformed status line"),
            MessageError::MethodTooLong => write!(f, "method longer than {METHOD_BYTES} bytes"),
            MessageError::Target => write!(f, "invalid request target"),
            MessageError::TargetTooLong => write!(f, "request target longer than {TARGET_BYTES} bytes"),
            MessageError::Version => write!(f, "HTTP version not supported"),
            MessageError::HeadTooLarge => write!(f, "head larger than {HEAD_BYTES} bytes"),
            MessageError::TooManyFields => {
                write!(f, "more than {HEAD_FIELDS} fields in a request, or {RESPONSE_FIELDS} in a response")
            }
            MessageError::FieldName => write!(f, "invalid field name"),
            MessageError::FieldNameSpace => write!(f, "white space before the colon of a field"),
            MessageError::FieldValue => write!(f, "control character in a field value"),
            MessageError::FieldFolded => write!(f, "folded field line"),
            MessageError::BareCr => write!(f, "CR without LF"),
            MessageError::BareLf => write!(f, "LF without CR"),
            MessageError::HostMissing => write!(f, "no Host field"),
            MessageError::HostRepeated => write!(f, "more than one Host field"),
            MessageError::HostInvalid => write!(f, "invalid Host"),
            MessageError::LengthInvalid => write!(f, "invalid Content-Length"),
            MessageError::LengthsDiffer => write!(f, "differing Content-Length values"),
            MessageError::LengthAndCoding => write!(f, "both Content-Length and Transfer-Encoding"),
            MessageError::CodingInHttp10 => write!(f, "Transfer-Encoding in an HTTP/1.0 message"),
            MessageError::CodingRepeated => write!(f, "Transfer-Encoding in which chunked is not the one final coding"),
            MessageError::CodingUnknown => write!(f, "unknown transfer coding: only chunked is understood"),
            MessageError::ConnectionOptions => write!(f, "more than {CONNECTION_OPTIONS} connection options"),
            MessageError::ExpectationUnknown => write!(f, "unknown expectation: only 100-continue is understood"),
            MessageError::MethodNotServed => write!(f, "method not served here"),
            MessageError::ProtocolNotServed => write!(f, "protocol of CONNECT not served here: only websocket is"),
            MessageError::ChunkSize => write!(f, "invalid chunk size"),
            MessageError::ChunkLine => write!(f, "chunk-size line longer than {CHUNK_LINE_BYTES} bytes"),
            MessageError::ChunkExtensions => write!(f, "more than {CHUNK_EXTENSION_BYTES} bytes of chunk extensions"),
            MessageError::ChunkEnd => write!(f, "chunk without CRLF at its end"),
            MessageError::TrailersTooLarge => {
                write!(f, "trailer section of more than {TRAILER_BYTES} bytes or {HEAD_FIELDS} fields")
            }
            MessageError::TooManyInterims => write!(f, "more than {INTERIM_RESPONSES} interim responses"),
            MessageError::SwitchUnasked => write!(f, "101 without a request to switch protocols"),
            MessageError::SwitchUnnamed => write!(f, "101 without an Upgrade field"),
            MessageError::SwitchUnproved => write!(f, "101 without the Sec-WebSocket-Accept of the key"),
            MessageError::BodyCutShort => write!(f, "body ended early"),
            MessageError::HeadCutShort => write!(f, "head ended early"),
            MessageError::PseudoField => write!(f, "pseudo-header field that is unknown, repeated or misplaced"),
            MessageError::ConnectionField => write!(f, "field about the connection, which HTTP/2 does not have"),
            MessageError::LengthWrong => write!(f, "content that is not as long as Content-Length says"),
            MessageError::Misplaced => write!(f, "content or fields where none can be"),
        }
    }
}
