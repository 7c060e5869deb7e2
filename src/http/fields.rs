//! Field lines as ranges of the bytes that they arrived in, and the field names that the proxy acts on.

/// A range of bytes, from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl Span {
    /// The range between two offsets.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// The bytes of the range; empty if the range lies outside `bytes`.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The length in bytes.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// True if the range covers no byte.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One field line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The identity of the name, among those that matter to a proxy.
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
            /// Any other name that begins with `X-Forwarded-`.
            XForwardedOther,
            /// A name that begins with `Client-Cert`.
            ClientCert,
            /// A name that becomes a framing or forwarding field if `_` is read as `-`. CGI makes both
            /// one (RFC 3875, 4.1.18), and many application servers follow it.
            Disguised,
            /// Any other name.
            Unknown,
        }

        impl Name {
            /// The name in its usual spelling; empty if the variant stands for several names.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Name::$variant => $text,)*
                    Name::XForwardedOther | Name::ClientCert | Name::Disguised | Name::Unknown => "",
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
    ContentType = "Content-Type",
    Cookie = "Cookie",
    Date = "Date",
    Expect = "Expect",
    Forwarded = "Forwarded",
    GrpcTimeout = "Grpc-Timeout",
    Host = "Host",
    Http2Settings = "HTTP2-Settings",
    KeepAlive = "Keep-Alive",
    Proxy = "Proxy",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyConnection = "Proxy-Connection",
    SecWebSocketAccept = "Sec-WebSocket-Accept",
    SecWebSocketKey = "Sec-WebSocket-Key",
    SetCookie = "Set-Cookie",
    StrictTransportSecurity = "Strict-Transport-Security",
    Te = "TE",
    Trailer = "Trailer",
    TransferEncoding = "Transfer-Encoding",
    Upgrade = "Upgrade",
    Via = "Via",
    WwwAuthenticate = "WWW-Authenticate",
    XForwardedFor = "X-Forwarded-For",
    XForwardedHost = "X-Forwarded-Host",
    XForwardedPort = "X-Forwarded-Port",
    XForwardedProto = "X-Forwarded-Proto",
    XRealIp = "X-Real-IP",
    XRequestId = "X-Request-Id",
}

/// The prefixes of the two families of names.
const X_FORWARDED: &[u8] = b"x-forwarded-";
const CLIENT_CERT: &[u8] = b"client-cert";

impl Name {
    /// Looks up a name without regard to case. `text` is a token (RFC 9110, 5.6.2).
    ///
    /// The length and the first letter leave one candidate, so most names cost one comparison.
    pub fn find(text: &[u8]) -> Name {
        let Some(first) = text.first() else { return Name::Unknown };
        let candidate = match (text.len(), first | CASE) {
            (2, b't') => Name::Te,
            (3, b'v') => Name::Via,
            (4, b'd') => Name::Date,
            (4, b'h') => Name::Host,
            (5, b'p') => Name::Proxy,
            (6, b'c') => Name::Cookie,
            (6, b'e') => Name::Expect,
            (7, b't') => Name::Trailer,
            (7, b'u') => Name::Upgrade,
            (9, b'f') => Name::Forwarded,
            (9, b'x') => Name::XRealIp,
            (10, b'c') => Name::Connection,
            (10, b'k') => Name::KeepAlive,
            (10, b's') => Name::SetCookie,
            (12, b'c') => Name::ContentType,
            (12, b'g') => Name::GrpcTimeout,
            (12, b'x') => Name::XRequestId,
            (13, b'a') => Name::Authorization,
            (14, b'c') => Name::ContentLength,
            (14, b'h') => Name::Http2Settings,
            (15, b'x') => Name::XForwardedFor,
            (16, b'w') => Name::WwwAuthenticate,
            (16, b'p') => Name::ProxyConnection,
            (16, b'x') if text[12] | CASE == b'h' => Name::XForwardedHost,
            (16, b'x') => Name::XForwardedPort,
            (17, b's') => Name::SecWebSocketKey,
            (17, b't') => Name::TransferEncoding,
            (17, b'x') => Name::XForwardedProto,
            (18, b'p') => Name::ProxyAuthenticate,
            (19, b'p') => Name::ProxyAuthorization,
            (20, b's') => Name::SecWebSocketAccept,
            (25, b's') => Name::StrictTransportSecurity,
            // These families also contain names of other lengths.
            (11.., b'c') | (12.., b'x') => return Name::of_family(text),
            _ => return Name::Unknown,
        };
        match candidate.text().as_bytes() {
            usual if is_same(text, usual) => candidate,
            usual if candidate.is_abused() && is_same_folded(text, usual) => Name::Disguised,
            _ => Name::of_family(text),
        }
    }

    /// Classifies a name that has no variant of its own.
    fn of_family(text: &[u8]) -> Name {
        for (prefix, family) in [(X_FORWARDED, Name::XForwardedOther), (CLIENT_CERT, Name::ClientCert)] {
            if let Some(start) = text.get(..prefix.len())
                && is_same_folded(start, prefix)
            {
                return if text.contains(&b'_') { Name::Disguised } else { family };
            }
        }
        Name::Unknown
    }

    /// True if a disguised form of the name is an attack: the name frames or forwards a message.
    fn is_abused(self) -> bool {
        matches!(
            self,
            Name::ContentLength
                | Name::TransferEncoding
                | Name::KeepAlive
                | Name::ProxyConnection
                | Name::Http2Settings
                | Name::XForwardedFor
                | Name::XForwardedHost
                | Name::XForwardedPort
                | Name::XForwardedProto
                | Name::XRealIp
                | Name::XRequestId
        )
    }

    /// True if the value is a secret that a log must not show.
    pub fn is_secret(self) -> bool {
        matches!(self, Name::Authorization | Name::Cookie | Name::SetCookie | Name::ProxyAuthorization)
    }
}

/// The bit that distinguishes lower case from upper case. It is set in digits and `-`.
const CASE: u8 = 0x20;

/// True if two texts of equal length differ at most in case. `usual` contains only letters, digits, `-` and `:`, and
/// no other token byte equals one of those after `| CASE`.
pub fn is_same(text: &[u8], usual: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let (usual_words, usual_rest) = usual.as_chunks::<8>();
    let small = |word: &[u8; 8]| u64::from_le_bytes(*word) | u64::from_le_bytes([CASE; 8]);
    words.iter().zip(usual_words).all(|(one, other)| small(one) == small(other))
        && rest.iter().zip(usual_rest).all(|(one, other)| one | CASE == other | CASE)
}

/// Like [`is_same`], but `_` also equals `-`.
fn is_same_folded(text: &[u8], usual: &[u8]) -> bool {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte | CASE };
    text.iter().zip(usual).all(|(one, other)| folded(*one) == other | CASE)
}

/// Names without a [`Name`] that are not allowed in a trailer section (RFC 9110, 6.5.1).
const BEFORE_CONTENT: [&str; 17] = [
    "Age",
    "Cache-Control",
    "Content-Encoding",
    "Content-Range",
    "Expires",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Location",
    "Max-Forwards",
    "Pragma",
    "Range",
    "Retry-After",
    "Vary",
    "Warning",
];

/// True if a field is not allowed in a trailer section: it frames, routes, modifies or authenticates the
/// message, describes its content (RFC 9110, 6.5.1), or belongs to one connection.
pub fn is_barred_from_trailers(name: Name, text: &[u8]) -> bool {
    match name {
        Name::Date | Name::Via => false,
        Name::Unknown => BEFORE_CONTENT.iter().any(|barred| barred.as_bytes().eq_ignore_ascii_case(text)),
        _ => true,
    }
}

/// The members of a comma-separated list (RFC 9110, 5.6.1), without the empty ones.
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
            let longer = Name::find(&[name.text().as_bytes(), b"x"].concat());
            assert!(matches!(longer, Name::Unknown | Name::XForwardedOther), "{name:?}: {longer:?}");
        }
        for unknown in ["", "Hast", "X-Forwarded", "X-Forwarde-For", "Client-Cer", "Cookies", "Content-Lengtg", "Xy"] {
            assert_eq!(Name::find(unknown.as_bytes()), Name::Unknown, "{unknown}");
        }
    }

    #[test]
    fn families_are_recognised_by_their_prefix() {
        for name in ["X-Forwarded-Ssl", "x-forwarded-prefix", "X-FORWARDED-SERVER", "X-Forwarded-", "X-Forwarded-Fox"] {
            assert_eq!(Name::find(name.as_bytes()), Name::XForwardedOther, "{name}");
        }
        for name in ["Client-Cert", "client-cert-chain", "CLIENT-CERTIFICATE"] {
            assert_eq!(Name::find(name.as_bytes()), Name::ClientCert, "{name}");
        }
    }

    #[test]
    fn a_name_is_disguised_if_an_underscore_makes_it_another_that_frames_or_forwards() {
        for name in [
            "Content_Length",
            "TRANSFER_ENCODING",
            "keep_alive",
            "Proxy_Connection",
            "HTTP2_Settings",
            "X_Forwarded_For",
            "X-Forwarded_Host",
            "x_forwarded-port",
            "X_Forwarded-Proto",
            "X_Real_IP",
            "X_Forwarded_Ssl",
            "X-Forwarded-Client_Cert",
            "Client_Cert",
            "Client-Cert_Chain",
        ] {
            assert_eq!(Name::find(name.as_bytes()), Name::Disguised, "{name}");
        }
        for name in ["X_Under", "Set_Cookie", "Proxy_Authorization", "Content_Type", "X_Real_IPs", "X_Forwarded"] {
            assert_eq!(Name::find(name.as_bytes()), Name::Unknown, "{name}");
        }
    }

    #[test]
    fn bars_fields_from_trailers_that_are_needed_before_the_content() {
        let barred = |text: &str| is_barred_from_trailers(Name::find(text.as_bytes()), text.as_bytes());
        let all = ["Host", "content-type", "SET-COOKIE", "Www-Authenticate", "X-Forwarded-For", "Forwarded", "Proxy"];
        assert!(all.into_iter().all(barred));
        assert!(
            ["X-Real-IP", "X-Forwarded-Any", "Client-Cert", "Content_Length", "X_Forwarded_For"]
                .iter()
                .all(|name| barred(name))
        );
        assert!(!["Date", "ETag", "Server-Timing", "Grpc-Status", "X-Checksum"].into_iter().any(barred));
    }

    #[test]
    fn lists_are_split_at_commas_and_trimmed() {
        let members: Vec<&[u8]> = list(b" a,, b\t ,c d,").collect();
        assert_eq!(members, [&b"a"[..], b"b", b"c d"]);
        assert_eq!(list(b"").count(), 0);
    }
}
