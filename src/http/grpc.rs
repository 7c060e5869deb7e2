//! The parts of gRPC that concern a proxy: its content type, its statuses and its deadlines, as in the document "gRPC
//! over HTTP2" of the project.

use std::fmt;

use super::head::HeadRef;

/// The status of a call, which stands behind its messages in the field `grpc-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    /// The deadline of the call has passed.
    pub const DEADLINE_EXCEEDED: Status = Status(4);
    /// A resource is used up, or a message is too large.
    pub const RESOURCE_EXHAUSTED: Status = Status(8);
    /// The operation is not known.
    pub const UNIMPLEMENTED: Status = Status(12);
    /// An invariant of the protocol is broken.
    pub const INTERNAL: Status = Status(13);
    /// The service cannot be reached now. The call may be repeated.
    pub const UNAVAILABLE: Status = Status(14);

    /// Returns the status for a reply of the proxy that would have this HTTP status otherwise.
    pub fn of_reply(http: u16) -> Status {
        match http {
            404 | 501 => Status::UNIMPLEMENTED,
            408 | 504 => Status::DEADLINE_EXCEEDED,
            413 => Status::RESOURCE_EXHAUSTED,
            421 | 500.. => Status::UNAVAILABLE,
            _ => Status::INTERNAL,
        }
    }

    /// Returns the name of the status; empty for a number without one.
    pub fn name(self) -> &'static str {
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        NAMES.get(usize::from(self.0)).copied().unwrap_or_default()
    }

    /// Parses the value of `grpc-status`. A number above 255 is none that anybody sends.
    pub fn parse(value: &[u8]) -> Option<Status> {
        std::str::from_utf8(value).ok()?.parse().ok().map(Status)
    }
}

/// Returns the status in a trailer section, or in a head that nothing follows.
pub fn status_in(fields: HeadRef<'_>) -> Option<Status> {
    let mut found = fields.fields().filter(|(_, name, _)| name.eq_ignore_ascii_case(b"grpc-status"));
    found.next().and_then(|(_, _, value)| Status::parse(value))
}

/// True for the content types of gRPC. gRPC-Web is another protocol, which has its status in the content.
pub fn is_grpc(content_type: &[u8]) -> bool {
    const NAME: &[u8] = b"application/grpc";
    content_type.split_at_checked(NAME.len()).is_some_and(|(name, rest)| {
        name.eq_ignore_ascii_case(NAME) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
    })
}

/// Parses the value of `grpc-timeout`: at most eight digits and a unit. Returns microseconds, at least one unless the
/// value is zero. A malformed value gives `None`, and the backend gets it as it is.
pub fn timeout_us(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(number * 3_600_000_000),
        b'M' => Some(number * 60_000_000),
        b'S' => Some(number * 1_000_000),
        b'm' => Some(number * 1000),
        b'u' => Some(number),
        b'n' => Some(number.div_ceil(1000)),
        _ => None,
    }
}

/// Returns the value of `grpc-timeout` for this many microseconds, rounded down to what eight digits can express.
pub fn timeout_text(us: u64) -> String {
    const MOST: u64 = 99_999_999;
    match us.max(1) {
        us if us <= MOST => format!("{us}u"),
        us if us / 1000 <= MOST => format!("{}m", us / 1000),
        us if us / 1_000_000 <= MOST => format!("{}S", us / 1_000_000),
        us => format!("{}H", (us / 3_600_000_000).min(MOST)),
    }
}

/// Returns the value of `grpc-message` for a text: percent-encoded, except printable ASCII.
pub fn encode_message(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' => value.push_str("%25"),
            b' '..=b'~' => value.push(char::from(byte)),
            _ => value.push_str(&format!("%{byte:02X}")),
        }
    }
    value
}

/// The path of a health check (grpc.health.v1).
pub const HEALTH_PATH: &str = "/grpc.health.v1.Health/Check";

/// The longest name of a service that can be checked, so that one byte expresses its length.
pub const SERVICE_BYTES: usize = 127;

/// The prefix of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Returns the message that asks for the health of a service, with its prefix. The empty name means the whole server.
pub fn health_request(service: &str) -> Vec<u8> {
    let name = &service.as_bytes()[..service.len().min(SERVICE_BYTES)];
    let message = if name.is_empty() { 0 } else { name.len() + 2 };
    let mut bytes = vec![0, 0, 0, 0, message as u8];
    if message > 0 {
        // Field 1, a string.
        bytes.extend([0x0a, name.len() as u8]);
        bytes.extend_from_slice(name);
    }
    bytes
}

/// The reason why a health check does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unhealthy {
    /// The backend speaks no HTTP/2.
    Http1,
    /// The response has another status of HTTP than 200.
    Http(u16),
    /// The response ended without a status of gRPC.
    NoStatus,
    /// The call failed.
    Call(Status),
    /// The message is malformed, or too large.
    Malformed,
    /// The service is not SERVING.
    State(u64),
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Unhealthy::Http1 => f.write_str("the backend speaks HTTP/1.1, and gRPC needs HTTP/2"),
            Unhealthy::Http(status) => write!(f, "HTTP status {status} instead of a gRPC response"),
            Unhealthy::NoStatus => f.write_str("no grpc-status"),
            Unhealthy::Call(Status::UNIMPLEMENTED) => f.write_str("UNIMPLEMENTED: the backend has no grpc.health.v1"),
            Unhealthy::Call(Status(number)) if Status(number).name().is_empty() => write!(f, "grpc-status {number}"),
            Unhealthy::Call(status) => f.write_str(status.name()),
            Unhealthy::Malformed => f.write_str("a malformed message"),
            Unhealthy::State(0) => f.write_str("UNKNOWN"),
            Unhealthy::State(2) => f.write_str("NOT_SERVING"),
            Unhealthy::State(3) => f.write_str("SERVICE_UNKNOWN"),
            Unhealthy::State(state) => write!(f, "health {state}"),
        }
    }
}

/// Judges the response to a health check by its status and its content.
///
/// # Errors
/// The reason, unless the service is SERVING.
pub fn judge_health(status: Option<Status>, content: &[u8]) -> Result<(), Unhealthy> {
    match status {
        None => return Err(Unhealthy::NoStatus),
        Some(Status(0)) => {}
        Some(status) => return Err(Unhealthy::Call(status)),
    }
    match health_state(content) {
        Some(1) => Ok(()),
        Some(state) => Err(Unhealthy::State(state)),
        None => Err(Unhealthy::Malformed),
    }
}

/// Reads field 1 of the one message in a response. An absent field has the default 0.
fn health_state(content: &[u8]) -> Option<u64> {
    let (prefix, mut rest) = content.split_at_checked(PREFIX_BYTES)?;
    if prefix[0] != 0 || prefix[1..] != u32::try_from(rest.len()).ok()?.to_be_bytes() {
        return None;
    }
    let mut state = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let skipped = match key & 7 {
            0 => {
                let number = varint(&mut rest)?;
                if key >> 3 == 1 {
                    state = number;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        rest = rest.get(skipped..)?;
    }
    Some(state)
}

/// Takes a number of protobuf from the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit_and_at_most_eight_digits() {
        for (text, us) in [
            ("1H", Some(3_600_000_000)),
            ("99999999H", Some(99_999_999 * 3_600_000_000)),
            ("2M", Some(120_000_000)),
            ("3S", Some(3_000_000)),
            ("4m", Some(4000)),
            ("5u", Some(5)),
            ("1n", Some(1)),
            ("0S", Some(0)),
            ("0000001S", Some(1_000_000)),
            ("123456789u", None),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("1.5S", None),
            (" 1S", None),
        ] {
            assert_eq!(timeout_us(text.as_bytes()), us, "{text}");
        }
        for us in [1, 99_999_999, 100_000_000, 99_999_999_999, 100_000_000_000_000, u64::MAX] {
            let text = timeout_text(us);
            let read = timeout_us(text.as_bytes()).unwrap();
            assert!(text.len() <= 9 && read <= us && (us > 1 << 55 || read >= us - us / 1000), "{us} {text}");
        }
    }

    #[test]
    fn messages_are_percent_encoded() {
        assert_eq!(encode_message("a b: 50% \u{e4}\n"), "a b: 50%25 %C3%A4%0A");
    }

    #[test]
    fn each_reply_has_a_status() {
        for (http, grpc) in
            [(400, 13), (431, 13), (408, 4), (504, 4), (413, 8), (404, 12), (501, 12), (502, 14), (503, 14)]
        {
            assert_eq!(Status::of_reply(http), Status(grpc), "{http}");
        }
        assert_eq!((Status::UNAVAILABLE.name(), Status(17).name()), ("UNAVAILABLE", ""));
        assert_eq!((Status::parse(b"14"), Status::parse(b"x")), (Some(Status::UNAVAILABLE), None));
    }

    #[test]
    fn only_serving_is_healthy() {
        let ok = Some(Status(0));
        assert_eq!(health_request(""), [0; 5]);
        assert_eq!(health_request("a.b"), *b"\0\0\0\0\x05\x0a\x03a.b");
        assert_eq!(judge_health(ok, &[0, 0, 0, 0, 2, 8, 1]), Ok(()));
        // Other fields are skipped.
        assert_eq!(judge_health(ok, &[0, 0, 0, 0, 7, 0x12, 1, 9, 0x18, 5, 8, 1]), Ok(()));
        for (status, content, text) in [
            (ok, &[0, 0, 0, 0, 2, 8, 2][..], "NOT_SERVING"),
            (ok, &[0, 0, 0, 0, 0], "UNKNOWN"),
            (ok, &[0, 0, 0, 0, 2, 8, 3], "SERVICE_UNKNOWN"),
            (ok, &[], "a malformed message"),
            (ok, &[1, 0, 0, 0, 2, 8, 1], "a malformed message"),
            (ok, &[0, 0, 0, 0, 3, 8, 1], "a malformed message"),
            (ok, &[0, 0, 0, 0, 2, 8, 0x80], "a malformed message"),
            (ok, &[0, 0, 0, 0, 3, 0x12, 9, 0], "a malformed message"),
            (Some(Status(12)), &[], "UNIMPLEMENTED: the backend has no grpc.health.v1"),
            (Some(Status(5)), &[], "NOT_FOUND"),
            (Some(Status(99)), &[], "grpc-status 99"),
            (None, &[0, 0, 0, 0, 2, 8, 1], "no grpc-status"),
        ] {
            assert_eq!(judge_health(status, content).unwrap_err().to_string(), text, "{content:?}");
        }
    }
}
