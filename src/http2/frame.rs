//! Frames: a header of nine bytes and a payload (RFC 9113, 4).

use std::fmt;

/// The bytes of a frame's header.
pub const HEADER_BYTES: usize = 9;
/// The greatest stream identifier, and the greatest window (RFC 9113, 5.1.1 and 6.9.1).
pub const MAX_31: u32 = 0x7fff_ffff;
/// The first bytes of a client, before its first frame (RFC 9113, 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The flag that a SETTINGS or PING answers one.
pub const ACK: u8 = 0x1;
/// The flag that a DATA or HEADERS frame is its sender's last on the stream.
pub const END_STREAM: u8 = 0x1;
/// The flag that a block of fields ends here.
pub const END_HEADERS: u8 = 0x4;
/// The flag that the payload begins with the length of its padding.
pub const PADDED: u8 = 0x8;
/// The flag that HEADERS begin with a priority, which is passed over (RFC 9113, 5.3.2).
pub const PRIORITY: u8 = 0x20;

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of RFC 9113, section 6")]
pub enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    Goaway,
    WindowUpdate,
    Continuation,
    /// One that is passed over (RFC 9113, 5.5).
    Unknown,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Data,
        Kind::Headers,
        Kind::Priority,
        Kind::RstStream,
        Kind::Settings,
        Kind::PushPromise,
        Kind::Ping,
        Kind::Goaway,
        Kind::WindowUpdate,
        Kind::Continuation,
    ];
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The length of the payload.
    pub length: u32,
    /// The type.
    pub kind: Kind,
    /// Flags; those that the kind does not have mean nothing.
    pub flags: u8,
    /// The stream, 0 for the connection.
    pub stream: u32,
}

impl Header {
    /// The header at the front of `bytes`; `None` while it is not all there.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3, ..] = bytes else { return None };
        Some(Header {
            length: u32::from_be_bytes([0, a, b, c]),
            kind: Kind::ALL.get(usize::from(kind)).copied().unwrap_or(Kind::Unknown),
            flags,
            // The first bit is reserved, and ignored (RFC 9113, 4.1).
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & MAX_31,
        })
    }

    /// True if the flag is set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The bytes of the header.
    pub fn bytes(self) -> [u8; HEADER_BYTES] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [a, b, c, self.kind as u8, self.flags, s0, s1, s2, s3]
    }
}

/// The reason for the end of a stream or a connection (RFC 9113, 7).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub u32);

#[allow(missing_docs, reason = "the names are those of RFC 9113, section 7")]
impl ErrorCode {
    pub const NO_ERROR: ErrorCode = ErrorCode(0x0);
    pub const PROTOCOL_ERROR: ErrorCode = ErrorCode(0x1);
    pub const INTERNAL_ERROR: ErrorCode = ErrorCode(0x2);
    pub const FLOW_CONTROL_ERROR: ErrorCode = ErrorCode(0x3);
    pub const STREAM_CLOSED: ErrorCode = ErrorCode(0x5);
    pub const FRAME_SIZE_ERROR: ErrorCode = ErrorCode(0x6);
    pub const REFUSED_STREAM: ErrorCode = ErrorCode(0x7);
    pub const CANCEL: ErrorCode = ErrorCode(0x8);
    pub const COMPRESSION_ERROR: ErrorCode = ErrorCode(0x9);
    pub const ENHANCE_YOUR_CALM: ErrorCode = ErrorCode(0xb);
    pub const HTTP_1_1_REQUIRED: ErrorCode = ErrorCode(0xd);

    /// True if a forwarded message may have provoked this error: it blames the received data.
    pub fn may_be_provoked(self) -> bool {
        matches!(
            self,
            ErrorCode::PROTOCOL_ERROR
                | ErrorCode::FLOW_CONTROL_ERROR
                | ErrorCode::FRAME_SIZE_ERROR
                | ErrorCode::COMPRESSION_ERROR
                | ErrorCode::ENHANCE_YOUR_CALM
        )
    }
}

/// The codes' names in the order of their numbers.
const NAMES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0).ok().and_then(|code| NAMES.get(code)) {
            Some(name) => f.write_str(name),
            None => write!(f, "error {:#x}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Writes a frame with a payload that is at hand.
pub fn write(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&Header { length: payload.len() as u32, kind, flags, stream }.bytes());
    out.extend_from_slice(payload);
}

/// Writes a RST_STREAM.
pub fn reset(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    write(out, Kind::RstStream, 0, stream, &code.0.to_be_bytes());
}

/// Writes a WINDOW_UPDATE; nothing for the increment 0, which is not allowed.
pub fn window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    if increment > 0 {
        write(out, Kind::WindowUpdate, 0, stream, &(increment & MAX_31).to_be_bytes());
    }
}

/// Writes a GOAWAY.
pub fn goaway(out: &mut Vec<u8>, last: u32, code: ErrorCode) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last.to_be_bytes());
    payload[4..].copy_from_slice(&code.0.to_be_bytes());
    write(out, Kind::Goaway, 0, 0, &payload);
}

/// Writes a block of fields as HEADERS and as many CONTINUATIONs as frames of at most `max` bytes
/// make necessary.
pub fn fields(out: &mut Vec<u8>, stream: u32, block: &[u8], end_stream: bool, max: usize) {
    let (mut kind, mut flags) = (Kind::Headers, if end_stream { END_STREAM } else { 0 });
    let mut rest = block;
    loop {
        let (piece, behind) = rest.split_at(rest.len().min(max.max(1)));
        rest = behind;
        if rest.is_empty() {
            flags |= END_HEADERS;
        }
        write(out, kind, flags, stream, piece);
        if rest.is_empty() {
            return;
        }
        (kind, flags) = (Kind::Continuation, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_as_they_were_written() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            let header = Header { length: 0x01_0203, kind, flags: 0x25, stream: 0x7654_3210 };
            let bytes = header.bytes();
            assert_eq!(usize::from(bytes[3]), at);
            assert_eq!(Header::read(&bytes), Some(header));
            assert_eq!(Header::read(&bytes[..8]), None);
        }
    }

    #[test]
    fn the_reserved_bit_is_ignored_and_unknown_kinds_are_told() {
        let header = Header::read(&[0, 0, 0, 10, 0, 0x80, 0, 0, 1]).unwrap();
        assert_eq!((header.kind, header.stream), (Kind::Unknown, 1));
    }

    #[test]
    fn a_long_block_goes_on_in_continuations() {
        let mut out = Vec::new();
        fields(&mut out, 3, &[7; 25], true, 10);
        let (mut at, mut seen) = (0, Vec::new());
        while let Some(header) = Header::read(&out[at..]) {
            seen.push((header.kind, header.flags, header.length));
            at += HEADER_BYTES + header.length as usize;
        }
        let continuation = Kind::Continuation;
        assert_eq!(seen, [(Kind::Headers, END_STREAM, 10), (continuation, 0, 10), (continuation, END_HEADERS, 5)]);
        out.clear();
        fields(&mut out, 3, &[7; 10], false, 10);
        assert_eq!(Header::read(&out).unwrap().flags, END_HEADERS);
        assert_eq!(out.len(), HEADER_BYTES + 10);
    }

    #[test]
    fn codes_have_their_names() {
        assert_eq!(ErrorCode::HTTP_1_1_REQUIRED.to_string(), "HTTP_1_1_REQUIRED");
        assert_eq!(ErrorCode::ENHANCE_YOUR_CALM.to_string(), "ENHANCE_YOUR_CALM");
        assert_eq!(ErrorCode(0x77).to_string(), "error 0x77");
    }
}
