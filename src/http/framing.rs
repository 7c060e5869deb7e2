//! Derives from a head how the content is framed, whether the connection persists, and the other facts that the
//! proxy must obey. This is the only place that decides them. A head that two parsers could frame differently
//! is refused (RFC 9112, 6.3 and 11.2).

use super::fields::{Name, list};
use super::head::{HeadRef, Start, Version};
use super::message_error::MessageError;
use crate::limits::CONNECTION_OPTIONS;

/// The end of a message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// The message has no content.
    None,
    /// The content has this many bytes.
    Length(u64),
    /// The last chunk ends the content, or the version's own end mark.
    Chunked,
    /// The close of the connection ends the content. Responses only.
    UntilClose,
}

/// The fields of a head that concern framing or the connection.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    framing: FramingFields,
    connection: ConnectionFields,
    /// True if Upgrade offers a protocol that the proxy forwards.
    upgrade: bool,
    takes_trailers: bool,
    expects_continue: bool,
    hosts: u32,
}

/// The fields that frame the content.
#[derive(Clone, Copy, Debug, Default)]
struct FramingFields {
    length: Option<u64>,
    /// True if there is a Transfer-Encoding.
    coded: bool,
}

/// The options of Connection, and the fields that bind credentials to the connection.
#[derive(Clone, Copy, Debug, Default)]
struct ConnectionFields {
    persistence: Persistence,
    /// True if an option is `upgrade`.
    upgrade: bool,
    /// True if an option names another field.
    others: bool,
    /// True if credentials or a challenge authenticate the connection.
    authentication: bool,
}

/// The sender's wish for its connection. The order is that of precedence (RFC 9112, 9.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Persistence {
    /// The version decides.
    #[default]
    Unspecified,
    KeepAlive,
    Close,
}

impl ConnectionFields {
    /// True if the connection may carry another message after one in this version.
    fn persists(&self, version: Version) -> bool {
        match self.persistence {
            Persistence::Unspecified => version != Version::Http10,
            Persistence::KeepAlive => true,
            Persistence::Close => false,
        }
    }

    /// Adds an option of a Connection field.
    fn add(&mut self, option: &[u8]) {
        if option.eq_ignore_ascii_case(b"close") {
            self.persistence = Persistence::Close;
        } else if option.eq_ignore_ascii_case(b"keep-alive") {
            self.persistence = self.persistence.max(Persistence::KeepAlive);
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else {
            self.others = true;
        }
    }

    fn facts(&self, persistent: bool) -> ConnectionFacts {
        ConnectionFacts { persistent, options: self.others, authentication: self.authentication }
    }
}

/// The facts of a head about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionFacts {
    /// True if the sender's connection may carry another message.
    pub persistent: bool,
    /// True if Connection names further fields, which are removed.
    pub options: bool,
    /// True if the message authenticates its connection, or asks for that, as NTLM and Negotiate do.
    pub authentication: bool,
}

/// The properties of a method that the proxy acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodKind {
    /// HEAD: idempotent, and its response has no content.
    Head,
    /// Another method whose request may be sent twice (RFC 9110, 9.2.2).
    Idempotent,
    /// Any other method.
    Other,
}

impl MethodKind {
    fn of(method: &[u8]) -> MethodKind {
        match method {
            b"HEAD" => MethodKind::Head,
            b"GET" | b"OPTIONS" | b"PUT" | b"DELETE" => MethodKind::Idempotent,
            _ => MethodKind::Other,
        }
    }
}

/// The facts about a request that the proxy acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// The framing of the content; never `UntilClose`.
    pub body: Body,
    /// The version of the request.
    pub version: Version,
    /// The method.
    pub method: MethodKind,
    /// The facts about the client's connection.
    pub connection: ConnectionFacts,
    /// True if the client waits for 100 (Continue) before it sends content (RFC 9110, 10.1.1).
    pub expects_continue: bool,
    /// True if Upgrade offers a protocol that the proxy forwards (RFC 9110, 7.8). False with chunked content,
    /// because a backend could switch before the content has ended.
    pub upgrades: bool,
    /// True if the client sent `TE: trailers`.
    pub takes_trailers: bool,
}

impl RequestFacts {
    /// Neutral facts: a placeholder before a request has been read.
    pub const NOTHING: RequestFacts = RequestFacts {
        body: Body::None,
        version: Version::Http11,
        method: MethodKind::Other,
        connection: ConnectionFacts { persistent: false, options: false, authentication: false },
        expects_continue: false,
        upgrades: false,
        takes_trailers: false,
    };

    /// Neutral facts of a request that was not read, except for its method.
    pub fn unread(is_head: bool) -> RequestFacts {
        let method = if is_head { MethodKind::Head } else { MethodKind::Other };
        RequestFacts { method, ..RequestFacts::NOTHING }
    }

    /// True if the method is HEAD. Its response has no content.
    pub fn is_head(&self) -> bool {
        self.method == MethodKind::Head
    }

    /// True if the request may be sent twice (RFC 9110, 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.method != MethodKind::Other
    }

    /// True if the request needs a backend connection of its own.
    pub fn is_alone(&self) -> bool {
        self.upgrades || self.connection.authentication
    }

    /// True if the client sends nothing after this request: it asked to close and sent no content. (Some
    /// clients send one more line break after content; RFC 9112, 2.2.)
    pub fn is_last(&self) -> bool {
        !self.connection.persistent && self.body == Body::None
    }
}

/// The facts about a response that the proxy acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFacts {
    /// The status code.
    pub status: u16,
    /// The framing of the content.
    pub body: Body,
    /// The Content-Length of a response to HEAD or of a 304. It describes content that is not sent.
    pub described: Option<u64>,
    /// The facts about the backend's connection.
    pub connection: ConnectionFacts,
}

/// Reads a request's head. Errors are the client's fault.
pub fn request(head: HeadRef<'_>) -> Result<RequestFacts, MessageError> {
    let version = head.head.version;
    let found = scan(head, false)?;
    match (found.hosts, version) {
        // A Host is required even if the target contains an authority (RFC 9112, 3.2).
        (0, Version::Http11) => return Err(MessageError::HostMissing),
        (0, Version::Http2) if head.authority().is_none() => return Err(MessageError::HostMissing),
        (0 | 1, _) => {}
        _ => return Err(MessageError::HostRepeated),
    }
    // The parser of the request target has already checked the authority in the target.
    if !head.values(Name::Host).all(is_authority) {
        return Err(MessageError::HostInvalid);
    }
    if found.framing.coded && version == Version::Http10 {
        return Err(MessageError::CodingInHttp10);
    }
    let body = match (found.framing.length, found.framing.coded) {
        (_, true) => Body::Chunked,
        (None, false) if version == Version::Http2 && !head.head.ended => Body::Chunked,
        (None | Some(0), false) => Body::None,
        (Some(length), false) => Body::Length(length),
    };
    Ok(RequestFacts {
        body: if found.framing.length == Some(0) && !found.framing.coded { Body::Length(0) } else { body },
        version,
        method: MethodKind::of(head.method()),
        connection: found.connection.facts(found.connection.persists(version)),
        // An expectation of an HTTP/1.0 client is ignored (RFC 9110, 10.1.1).
        expects_continue: found.expects_continue && version != Version::Http10 && body != Body::None,
        upgrades: version == Version::Http11 && found.connection.upgrade && found.upgrade && body != Body::Chunked,
        takes_trailers: found.takes_trailers,
    })
}

/// Reads the head of a final response to `request`. Errors are the backend's fault.
pub fn response(head: HeadRef<'_>, request: &RequestFacts) -> Result<ResponseFacts, MessageError> {
    let status = head.status();
    let bare = request.is_head() || status == 204 || status == 304;
    let found = scan(head, bare)?;
    let body = match (found.framing.length, found.framing.coded) {
        _ if bare => Body::None,
        (_, true) => Body::Chunked,
        // No content can follow this head, so the announced length is already wrong. It is refused before the
        // client has seen any of the response.
        (Some(1..), false) if head.head.ended => return Err(MessageError::LengthWrong),
        (Some(length), false) => Body::Length(length),
        (None, false) if head.head.version == Version::Http2 => Body::Chunked,
        (None, false) => Body::UntilClose,
    };
    Ok(ResponseFacts {
        status,
        body,
        // Transfer-Encoding overrides Content-Length (RFC 9112, 6.3).
        described: found.framing.length.filter(|_| bare && status != 204 && !found.framing.coded),
        connection: found.connection.facts(
            found.connection.persists(head.head.version)
                && body != Body::UntilClose
                && !is_faulty(&found.framing, head.head.version),
        ),
    })
}

/// True if a backend with correct framing would not have sent these fields. Its connection must not carry
/// another message (RFC 9112, 6.1).
fn is_faulty(found: &FramingFields, version: Version) -> bool {
    found.coded && (found.length.is_some() || version == Version::Http10)
}

/// Reads the fields of a head. `bare`: the message ends with its head, regardless of its framing fields (RFC
/// 9112, 6.3, rule 1).
fn scan(head: HeadRef<'_>, bare: bool) -> Result<Found, MessageError> {
    let mut found = Found::default();
    let mut options = 0;
    for field in &head.head.fields {
        let value = || head.get(field.value_span);
        match field.name {
            Name::Host => found.hosts += 1,
            Name::ContentLength => {
                let length = content_length(value())?;
                if found.framing.length.is_some_and(|before| before != length) {
                    return Err(MessageError::LengthsDiffer);
                }
                found.framing.length = Some(length);
            }
            Name::TransferEncoding => {
                if !bare {
                    transfer_encoding(value(), found.framing.coded)?;
                }
                found.framing.coded = true;
            }
            Name::Connection => {
                for option in list(value()) {
                    options += 1;
                    found.connection.add(option);
                }
            }
            Name::Authorization | Name::ProxyAuthorization | Name::WwwAuthenticate | Name::ProxyAuthenticate => {
                found.connection.authentication |= list(value()).any(authenticates_connection);
            }
            Name::Upgrade => found.upgrade |= offered_protocols(value()).next().is_some(),
            Name::Te => found.takes_trailers |= list(value()).any(|member| member.eq_ignore_ascii_case(b"trailers")),
            Name::Expect if matches!(head.head.start, Start::Request { .. }) => {
                if !value().eq_ignore_ascii_case(b"100-continue") {
                    return Err(MessageError::ExpectationUnknown);
                }
                found.expects_continue = true;
            }
            _ => {}
        }
    }
    if found.framing.coded && found.framing.length.is_some() && !bare {
        return Err(MessageError::LengthAndCoding);
    }
    if options > CONNECTION_OPTIONS {
        return Err(MessageError::ConnectionOptions);
    }
    Ok(found)
}

/// True if credentials or a challenge begin with a scheme that authenticates the connection.
fn authenticates_connection(member: &[u8]) -> bool {
    let scheme = member.split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
    let schemes: [&[u8]; 4] = [b"NTLM", b"Negotiate", b"Nego2", b"Kerberos"];
    schemes.into_iter().any(|one| one.eq_ignore_ascii_case(scheme))
}

/// Parses a Content-Length value: digits, or a list of identical numbers (RFC 9112, 6.3).
fn content_length(value: &[u8]) -> Result<u64, MessageError> {
    let mut length = None;
    for member in value.split(|&b| b == b',') {
        let digits = super::fields::trim(member);
        if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
            return Err(MessageError::LengthInvalid);
        }
        // Nineteen digits fit into 64 bits.
        let this = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        if length.is_some_and(|before| before != this) {
            return Err(MessageError::LengthsDiffer);
        }
        length = Some(this);
    }
    length.ok_or(MessageError::LengthInvalid)
}

/// Accepts a Transfer-Encoding that is exactly `chunked` (RFC 9112, 6.1).
fn transfer_encoding(value: &[u8], repeated: bool) -> Result<(), MessageError> {
    if value.eq_ignore_ascii_case(b"chunked") && !repeated {
        return Ok(());
    }
    let known = |member: &[u8]| member.eq_ignore_ascii_case(b"chunked");
    let mut members = list(value).map(known);
    let first_is_chunked = members.next();
    // `chunked` twice, `chunked` before the end, or an empty value: two parsers could frame the message
    // differently. Another coding before `chunked` is only unsupported.
    match (first_is_chunked, members.next()) {
        (None, _) | (Some(true), _) => Err(MessageError::CodingRepeated),
        (Some(false), _) if repeated => Err(MessageError::CodingRepeated),
        (Some(false), _) => Err(MessageError::CodingUnknown),
    }
}

/// The protocols of an Upgrade field that are forwarded. Cleartext HTTP/2 (h2c) and TLS are not forwarded,
/// because they would apply to the proxy's own connection to the backend.
pub fn offered_protocols(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    list(value).filter(|protocol| {
        let name = protocol.split(|&b| b == b'/').next().unwrap_or_default();
        !name.eq_ignore_ascii_case(b"h2c") && !name.eq_ignore_ascii_case(b"HTTP") && !name.eq_ignore_ascii_case(b"TLS")
    })
}

/// The bytes that a registered name may contain (RFC 3986, 3.2.2).
const IN_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let others = b"-._~%!$&'()*+,;=";
    let mut at = 0;
    while at < 256 {
        table[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// True if the text is a host with or without a port (RFC 3986, 3.2, without user information). The empty text
/// is valid: a client without an authority sends it.
pub fn is_authority(text: &[u8]) -> bool {
    // The host is an address in brackets, or a name that ends at the first byte outside `IN_HOST`.
    let end = match text {
        [b'[', inside @ ..] => {
            let end = inside.iter().position(|b| !b.is_ascii_hexdigit() && !matches!(b, b':' | b'.')).unwrap_or(0);
            if end == 0 || inside[end] != b']' {
                return false;
            }
            end + 2
        }
        _ => text.iter().position(|&b| !IN_HOST[usize::from(b)]).unwrap_or(text.len()),
    };
    match &text[end..] {
        [] => true,
        [b':', port @ ..] => end > 0 && port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// True if a Connection field of the head names this field.
pub fn is_named_by_connection(head: HeadRef<'_>, name: &[u8]) -> bool {
    head.values(Name::Connection).flat_map(list).any(|option| option.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fields::{Field, Span};
    use crate::http::head::Head;

    fn with<T>(version: Version, start: &str, fields: &[(&str, &str)], f: impl Fn(HeadRef<'_>) -> T) -> T {
        let mut bytes = start.as_bytes().to_vec();
        let method = Span::new(0, bytes.len());
        let mut head = Head { version, ..Head::default() };
        head.start = match start.parse() {
            Ok(status) => Start::Response { status, reason: Span::default() },
            Err(_) => Start::Request { method, path: Span::default(), authority: None },
        };
        for (name, value) in fields {
            let at = bytes.len();
            bytes.extend_from_slice(name.as_bytes());
            let middle = bytes.len();
            bytes.extend_from_slice(value.as_bytes());
            head.fields.push(Field {
                name: Name::find(name.as_bytes()),
                name_span: Span::new(at, middle),
                value_span: Span::new(middle, bytes.len()),
            });
        }
        f(HeadRef { bytes: &bytes, head: &head })
    }

    fn of_request(fields: &[(&str, &str)]) -> Result<RequestFacts, MessageError> {
        let fields = [&[("Host", "a")], fields].concat();
        with(Version::Http11, "POST", &fields, request)
    }

    fn of_response(status: &str, fields: &[(&str, &str)]) -> Result<ResponseFacts, MessageError> {
        with(Version::Http11, status, fields, |head| response(head, &RequestFacts::NOTHING))
    }

    #[test]
    fn frames_requests() {
        assert_eq!(of_request(&[]).unwrap().body, Body::None);
        assert_eq!(of_request(&[("Content-Length", "5")]).unwrap().body, Body::Length(5));
        assert_eq!(of_request(&[("Content-Length", "0")]).unwrap().body, Body::Length(0));
        assert_eq!(of_request(&[("Content-Length", "5, 5")]).unwrap().body, Body::Length(5));
        assert_eq!(of_request(&[("Transfer-Encoding", "Chunked")]).unwrap().body, Body::Chunked);
    }

    #[test]
    fn refuses_ambiguous_framing() {
        let refused = |fields: &[(&str, &str)]| of_request(fields).unwrap_err();
        let (cl, te) = ("Content-Length", "Transfer-Encoding");
        assert_eq!(refused(&[(cl, "5"), (te, "chunked")]), MessageError::LengthAndCoding);
        assert_eq!(refused(&[(te, "chunked"), (cl, "5")]), MessageError::LengthAndCoding);
        assert_eq!(refused(&[(cl, "5"), (cl, "6")]), MessageError::LengthsDiffer);
        assert_eq!(refused(&[(cl, "5, 6")]), MessageError::LengthsDiffer);
        for bad in ["", "+5", "-5", "5 5", "0x5", "5,", ",5", "99999999999999999999", "5;", "５"] {
            assert_eq!(refused(&[(cl, bad)]), MessageError::LengthInvalid, "{bad}");
        }
        for bad in ["chunked, chunked", "chunked, gzip", "", ",", "chunked,"] {
            assert_eq!(refused(&[(te, bad)]), MessageError::CodingRepeated, "{bad}");
        }
        for unknown in ["gzip, chunked", "identity", "xchunked", "gzip"] {
            assert_eq!(refused(&[(te, unknown)]), MessageError::CodingUnknown, "{unknown}");
        }
        assert_eq!(refused(&[(te, "chunked"), (te, "chunked")]), MessageError::CodingRepeated);
        let fields = [("Host", "a"), (te, "chunked")];
        assert_eq!(with(Version::Http10, "POST", &fields, request).unwrap_err(), MessageError::CodingInHttp10);
    }

    #[test]
    fn requires_exactly_one_valid_host() {
        assert_eq!(with(Version::Http11, "GET", &[], request).unwrap_err(), MessageError::HostMissing);
        assert!(with(Version::Http10, "GET", &[], request).is_ok());
        assert_eq!(of_request(&[("host", "a")]).unwrap_err(), MessageError::HostRepeated);
        for good in ["a", "a.b:80", "[::1]:80", "[::1]", "", "a_b", "127.0.0.1:", "xn--a~"] {
            assert!(with(Version::Http11, "GET", &[("Host", good)], request).is_ok(), "{good}");
        }
        for bad in
            ["a b", "a/b", "a@b", "[::1", "[]", "a:b", ":80", "a:123456", "[::1]x", "a:80:80", "a,b c", "é", "a?"]
        {
            assert_eq!(
                with(Version::Http11, "GET", &[("Host", bad)], request).unwrap_err(),
                MessageError::HostInvalid,
                "{bad}"
            );
        }
    }

    #[test]
    fn derives_persistence_from_version_and_options() {
        assert!(of_request(&[]).unwrap().connection.persistent);
        assert!(!of_request(&[("Connection", "foo, CLOSE")]).unwrap().connection.persistent);
        assert!(!with(Version::Http10, "GET", &[], request).unwrap().connection.persistent);
        assert!(with(Version::Http10, "GET", &[("Connection", "keep-alive")], request).unwrap().connection.persistent);
        assert!(of_request(&[("Connection", "x-secret")]).unwrap().connection.options);
    }

    #[test]
    fn upgrades_need_both_fields_and_never_offer_http2() {
        assert!(of_request(&[("Connection", "Upgrade"), ("Upgrade", "websocket")]).unwrap().upgrades);
        assert!(!of_request(&[("Upgrade", "websocket")]).unwrap().upgrades);
        let offering = |field| of_request(&[("Connection", "Upgrade"), ("Upgrade", "websocket"), field]).unwrap();
        assert!(offering(("Content-Length", "0")).upgrades);
        assert!(offering(("Content-Length", "5")).upgrades && !offering(("Transfer-Encoding", "chunked")).upgrades);
        assert!(!of_request(&[("Connection", "Upgrade"), ("Upgrade", "h2c, HTTP/2.0, TLS/1.2")]).unwrap().upgrades);
    }

    #[test]
    fn accepts_only_the_expectation_100_continue() {
        let length = ("Content-Length", "5");
        assert!(of_request(&[("Expect", "100-Continue"), length]).unwrap().expects_continue);
        assert!(!of_request(&[("Expect", "100-continue")]).unwrap().expects_continue);
        assert_eq!(of_request(&[("Expect", "cake")]).unwrap_err(), MessageError::ExpectationUnknown);
    }

    #[test]
    fn frames_responses() {
        assert_eq!(of_response("200", &[]).unwrap().body, Body::UntilClose);
        assert!(!of_response("200", &[]).unwrap().connection.persistent);
        assert_eq!(of_response("200", &[("Content-Length", "7")]).unwrap().body, Body::Length(7));
        assert_eq!(of_response("200", &[("Transfer-Encoding", "chunked")]).unwrap().body, Body::Chunked);
        let described = of_response("304", &[("Content-Length", "7")]).unwrap();
        assert_eq!((described.body, described.described), (Body::None, Some(7)));
        let empty = of_response("204", &[("Content-Length", "7")]).unwrap();
        assert_eq!((empty.body, empty.described), (Body::None, None));
        let to_head = RequestFacts::unread(true);
        let facts = with(Version::Http11, "200", &[("Content-Length", "9")], |head| response(head, &to_head)).unwrap();
        assert_eq!((facts.body, facts.described, facts.connection.persistent), (Body::None, Some(9), true));
        assert!(of_response("200", &[("Content-Length", "7"), ("Transfer-Encoding", "chunked")]).is_err());
    }

    #[test]
    fn a_response_without_content_may_have_both_framings() {
        let both = [("Content-Length", "7"), ("Transfer-Encoding", "chunked")];
        let to_head = RequestFacts::unread(true);
        for (status, request) in [("200", to_head), ("304", RequestFacts::NOTHING), ("204", RequestFacts::NOTHING)] {
            let facts = with(Version::Http11, status, &both, |head| response(head, &request)).unwrap();
            assert_eq!(
                (facts.body, facts.described, facts.connection.persistent),
                (Body::None, None, false),
                "{status}"
            );
        }
        let coded = with(Version::Http11, "200", &both[1..], |head| response(head, &to_head)).unwrap();
        assert!(coded.connection.persistent);
    }

    #[test]
    fn each_scheme_that_authenticates_its_connection_is_known() {
        for scheme in ["NTLM", "negotiate", "Nego2", "Kerberos"] {
            let value = format!("Basic x, {scheme}\tabc=");
            assert!(of_request(&[("Authorization", &value)]).unwrap().connection.authentication, "{value}");
            let response = of_response("401", &[("Proxy-Authenticate", &value)]);
            assert!(response.unwrap().connection.authentication, "{value}");
        }
    }

    #[test]
    fn a_chunked_response_of_http_1_0_is_decoded_once() {
        let fields = [("Transfer-Encoding", "chunked"), ("Connection", "keep-alive")];
        let of = |fields: &[_]| with(Version::Http10, "200", fields, |head| response(head, &RequestFacts::NOTHING));
        let facts = of(&fields).unwrap();
        assert_eq!((facts.body, facts.connection.persistent), (Body::Chunked, false));
        assert_eq!(of(&[fields[0], ("Content-Length", "7")]), Err(MessageError::LengthAndCoding));
    }

    #[test]
    fn a_response_that_ends_with_its_head_announces_no_content() {
        let of = |status: &str, length: &str, is_head| {
            let request = RequestFacts::unread(is_head);
            with(Version::Http2, status, &[("content-length", length)], |head| {
                let mut ended = head.head.clone();
                ended.ended = true;
                response(HeadRef { bytes: head.bytes, head: &ended }, &request).map(|facts| facts.described)
            })
        };
        assert_eq!(of("200", "10", false), Err(MessageError::LengthWrong));
        assert_eq!(of("200", "0", false), Ok(None));
        assert_eq!((of("200", "10", true), of("304", "10", false)), (Ok(Some(10)), Ok(Some(10))));
        assert_eq!(of("204", "10", false), Ok(None));
    }
}
