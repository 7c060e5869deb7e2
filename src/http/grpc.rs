//! The parts of gRPC that concern a proxy: its content type, its statuses and its deadlines, as in the document "gRPC
//! over HTTP2" of the project.

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
}
