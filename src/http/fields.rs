//! Field lines as ranges into the bytes they arrived in, and the few names a proxy must know.

/// A range of bytes, from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    /// The range between two offsets.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// The bytes of the range; nothing where it lies outside.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// How many bytes it covers.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether it covers none.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Which of the names that matter to a proxy it has.
    pub name: Name,
    /// The name as it was sent.
    pub name_span: Span,
    /// The value, without white space around it.
    pub value_span: Span,
}

macro_rules! names {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The field names that a proxy acts on; all others are `Unknown` to it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Name {
            $(#[doc = $text] $variant,)*
            /// Any other name.
            Unknown,
        }

        impl Name {
            /// The name with the letters it is usually written with; empty for `Unknown`.
            pub fn text(self) -> &'static str {
                match self {
                    $(Name::$variant => $text,)*
                    Name::Unknown => "",
                }
            }

            #[cfg(test)]
            const ALL: &'static [Name] = &[$(Name::$variant,)*];
        }
    };
}

names! {
    Authorization = "Authorization",
    Connection = "Connection",
    ContentLength = "Content-Length",
    Cookie = "Cookie",
    Date = "Date",
    Expect = "Expect",
    Host = "Host",
    Http2Settings = "HTTP2-Settings",
    KeepAlive = "Keep-Alive",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyConnection = "Proxy-Connection",
    SetCookie = "Set-Cookie",
    Te = "TE",
    Trailer = "Trailer",
    TransferEncoding = "Transfer-Encoding",
    Upgrade = "Upgrade",
    Via = "Via",
    XForwardedFor = "X-Forwarded-For",
    XForwardedHost = "X-Forwarded-Host",
    XForwardedProto = "X-Forwarded-Proto",
}

impl Name {
    /// Looks a name up, in any mixture of cases.
    pub fn find(text: &[u8]) -> Name {
        let candidates: &[Name] = match text.len() {
            2 => &[Name::Te],
            3 => &[Name::Via],
            4 => &[Name::Host, Name::Date],
            6 => &[Name::Cookie, Name::Expect],
            7 => &[Name::Upgrade, Name::Trailer],
            10 => &[Name::Connection, Name::SetCookie, Name::KeepAlive],
            13 => &[Name::Authorization],
            14 => &[Name::ContentLength, Name::Http2Settings],
            15 => &[Name::XForwardedFor],
            16 => &[Name::XForwardedHost, Name::ProxyConnection],
            17 => &[Name::TransferEncoding, Name::XForwardedProto],
            19 => &[Name::ProxyAuthorization],
            _ => return Name::Unknown,
        };
        let matches = |name: &&Name| name.text().as_bytes().eq_ignore_ascii_case(text);
        candidates.iter().find(matches).copied().unwrap_or(Name::Unknown)
    }

    /// Whether the value is a secret that a log must not show.
    pub fn is_secret(self) -> bool {
        matches!(self, Name::Authorization | Name::Cookie | Name::SetCookie | Name::ProxyAuthorization)
    }
}

/// Fields that mean something only before the content, those that have a `Name` apart (RFC 9110, 6.5.1).
const BEFORE_CONTENT: [&str; 21] = [
    "Age",
    "Cache-Control",
    "Content-Encoding",
    "Content-Range",
    "Content-Type",
    "Expires",
    "Forwarded",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Location",
    "Max-Forwards",
    "Pragma",
    "Proxy-Authenticate",
    "Range",
    "Retry-After",
    "Vary",
    "Warning",
    "WWW-Authenticate",
];

/// Whether a field may not stand in a trailer section: it frames, routes, modifies or authenticates the
/// message, or says what its content is (RFC 9110, 6.5.1), or belongs to one connection.
pub fn is_barred_from_trailers(name: Name, text: &[u8]) -> bool {
    match name {
        Name::Date | Name::Via => false,
        Name::Unknown => BEFORE_CONTENT.iter().any(|barred| barred.as_bytes().eq_ignore_ascii_case(text)),
        _ => true,
    }
}

/// The members of a comma-separated list (RFC 9110, 5.6.1), empty ones left out.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|member| !member.is_empty())
}

/// `text` without spaces and tabs at its ends.
pub fn trim(text: &[u8]) -> &[u8] {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = text.iter().position(|b| !blank(b)).unwrap_or(text.len());
    let end = text.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for name in Name::ALL {
            assert_eq!(Name::find(name.text().as_bytes()), *name);
            assert_eq!(Name::find(name.text().to_ascii_lowercase().as_bytes()), *name);
            assert_eq!(Name::find(name.text().to_ascii_uppercase().as_bytes()), *name);
            assert_eq!(Name::find(&[name.text().as_bytes(), b"x"].concat()), Name::Unknown);
        }
        assert_eq!(Name::find(b""), Name::Unknown);
        assert_eq!(Name::find(b"Hast"), Name::Unknown);
    }

    #[test]
    fn trailers_have_only_what_can_wait() {
        let barred = |text: &str| is_barred_from_trailers(Name::find(text.as_bytes()), text.as_bytes());
        assert!(["Host", "content-type", "SET-COOKIE", "Www-Authenticate", "X-Forwarded-For"].into_iter().all(barred));
        assert!(!["Date", "ETag", "Server-Timing", "Grpc-Status", "X-Checksum"].into_iter().any(barred));
    }

    #[test]
    fn lists_are_split_at_commas_and_trimmed() {
        let members: Vec<&[u8]> = list(b" a,, b\t ,c d,").collect();
        assert_eq!(members, [&b"a"[..], b"b", b"c d"]);
        assert_eq!(list(b"").count(), 0);
    }
}
