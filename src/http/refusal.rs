//! Why a message is refused: what was wrong, the status that says so, and the line of text.

use crate::limits::{
    CHUNK_EXTENSION_BYTES, CHUNK_LINE_BYTES, CONNECTION_OPTIONS, HEAD_BYTES, HEAD_FIELDS, INTERIM_RESPONSES,
    METHOD_BYTES, RESPONSE_FIELDS, TARGET_BYTES, TRAILER_BYTES,
};
use std::fmt;

/// What was wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each one's text, below, says what it means")]
pub enum Refusal {
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
    ChunkSize,
    ChunkLine,
    ChunkExtensions,
    ChunkEnd,
    TrailersTooLarge,
    TooManyInterims,
    SwitchUnasked,
    SwitchUnnamed,
    BodyCutShort,
    HeadCutShort,
    PseudoField,
    ConnectionField,
    LengthWrong,
    Misplaced,
}

impl Refusal {
    /// The status that answers a client for it. A backend's faults are all 502.
    pub fn status(self) -> u16 {
        match self {
            Refusal::TargetTooLong => 414,
            Refusal::HeadTooLarge | Refusal::TooManyFields | Refusal::TrailersTooLarge => 431,
            Refusal::ExpectationUnknown => 417,
            Refusal::MethodNotServed => 405,
            Refusal::CodingUnknown | Refusal::MethodTooLong => 501,
            Refusal::Version => 505,
            _ => 400,
        }
    }
}

impl Refusal {
    /// Whether the message may be right, and is more than we take.
    pub fn is_limit(self) -> bool {
        matches!(
            self,
            Refusal::HeadTooLarge
                | Refusal::TooManyFields
                | Refusal::ConnectionOptions
                | Refusal::ChunkLine
                | Refusal::ChunkExtensions
                | Refusal::TrailersTooLarge
                | Refusal::TooManyInterims
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::RequestLine => write!(f, "malformed request line"),
            Refusal::StatusLine => write!(f, "malformed status line"),
            Refusal::MethodTooLong => write!(f, "method longer than {METHOD_BYTES} bytes"),
            Refusal::Target => write!(f, "invalid request target"),
            Refusal::TargetTooLong => write!(f, "request target longer than {TARGET_BYTES} bytes"),
            Refusal::Version => write!(f, "HTTP version not supported"),
            Refusal::HeadTooLarge => write!(f, "head larger than {HEAD_BYTES} bytes"),
            Refusal::TooManyFields => {
                write!(f, "more than {HEAD_FIELDS} fields in a request, or {RESPONSE_FIELDS} in a response")
            }
            Refusal::FieldName => write!(f, "invalid field name"),
            Refusal::FieldNameSpace => write!(f, "white space before the colon of a field"),
            Refusal::FieldValue => write!(f, "control character in a field value"),
            Refusal::FieldFolded => write!(f, "folded field line"),
            Refusal::BareCr => write!(f, "CR without LF"),
            Refusal::BareLf => write!(f, "LF without CR"),
            Refusal::HostMissing => write!(f, "no Host field"),
            Refusal::HostRepeated => write!(f, "more than one Host field"),
            Refusal::HostInvalid => write!(f, "invalid Host"),
            Refusal::LengthInvalid => write!(f, "invalid Content-Length"),
            Refusal::LengthsDiffer => write!(f, "differing Content-Length values"),
            Refusal::LengthAndCoding => write!(f, "both Content-Length and Transfer-Encoding"),
            Refusal::CodingInHttp10 => write!(f, "Transfer-Encoding in an HTTP/1.0 message"),
            Refusal::CodingRepeated => write!(f, "Transfer-Encoding in which chunked is not the one final coding"),
            Refusal::CodingUnknown => write!(f, "unknown transfer coding: only chunked is understood"),
            Refusal::ConnectionOptions => write!(f, "more than {CONNECTION_OPTIONS} connection options"),
            Refusal::ExpectationUnknown => write!(f, "unknown expectation: only 100-continue is understood"),
            Refusal::MethodNotServed => write!(f, "method not served here"),
            Refusal::ChunkSize => write!(f, "invalid chunk size"),
            Refusal::ChunkLine => write!(f, "chunk-size line longer than {CHUNK_LINE_BYTES} bytes"),
            Refusal::ChunkExtensions => write!(f, "more than {CHUNK_EXTENSION_BYTES} bytes of chunk extensions"),
            Refusal::ChunkEnd => write!(f, "chunk without CRLF at its end"),
            Refusal::TrailersTooLarge => {
                write!(f, "trailer section of more than {TRAILER_BYTES} bytes or {HEAD_FIELDS} fields")
            }
            Refusal::TooManyInterims => write!(f, "more than {INTERIM_RESPONSES} interim responses"),
            Refusal::SwitchUnasked => write!(f, "101 without a request to switch protocols"),
            Refusal::SwitchUnnamed => write!(f, "101 without an Upgrade field"),
            Refusal::BodyCutShort => write!(f, "body ended early"),
            Refusal::HeadCutShort => write!(f, "head ended early"),
            Refusal::PseudoField => write!(f, "pseudo-header field that is unknown, repeated or misplaced"),
            Refusal::ConnectionField => write!(f, "field about the connection, which HTTP/2 does not have"),
            Refusal::LengthWrong => write!(f, "content that is not as long as Content-Length says"),
            Refusal::Misplaced => write!(f, "content or fields where none can be"),
        }
    }
}
