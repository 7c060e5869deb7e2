//! Derives from a head how the content is framed, whether the connection persists, and the other facts that the
//! proxy must obey. This is the only place that decides them. A head that two parsers could frame differently
//! is refused (RFC 9112, 6.3 and 11.2).

use super::fields::{Name, list};
use super::grpc;
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
    upgrade: UpgradeFields,
    media: Media,
    takes_trailers: bool,
    expects_continue: bool,
    hosts: u32,
}

/// The fields of a switch of protocols.
#[derive(Clone, Copy, Debug, Default)]
struct UpgradeFields {
    /// True if Upgrade offers a protocol that the proxy forwards.
    offered: bool,
    /// True if Upgrade offers WebSocket.
    websocket: bool,
    /// The number of Sec-WebSocket-Key fields.
    keys: u32,
}

/// The type of the content, as far as it matters to the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Media {
    #[default]
    Other,
    Grpc,
    EventStream,
}

impl Media {
    fn of(content_type: &[u8]) -> Media {
        if grpc::is_grpc(content_type) {
            return Media::Grpc;
        }
        const EVENTS: &[u8] = b"text/event-stream";
        let is_events = content_type.split_at_checked(EVENTS.len()).is_some_and(|(name, rest)| {
            name.eq_ignore_ascii_case(EVENTS) && matches!(super::fields::trim(rest).first(), None | Some(b';'))
        });
        if is_events { Media::EventStream } else { Media::Other }
    }
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

/// The protocol within a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None: a request and its response.
    Plain,
    /// gRPC, which is defined over HTTP/2 only: messages in both directions, and a status behind them. The same content
    /// type over HTTP/1 is `Plain`.
    Grpc,
    /// Upgrade offers a protocol that the proxy forwards (RFC 9110, 7.8). Never with chunked content, because a backend
    /// could switch before the content has ended.
    Upgrade,
    /// WebSocket: Upgrade offers it, with a key (RFC 6455, 4.1), or an extended CONNECT asks for it (RFC 8441, 5).
    WebSocket,
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
    /// The protocol within the request.
    pub kind: Kind,
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
        kind: Kind::Plain,
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

    /// True if the request may be sent twice (RFC 9110, 9.2.2). gRPC does not derive that from the method.
    pub fn is_idempotent(&self) -> bool {
        self.method != MethodKind::Other && self.kind != Kind::Grpc
    }

    /// True if the request asks to make its connection or stream a tunnel.
    pub fn upgrades(&self) -> bool {
        matches!(self.kind, Kind::Upgrade | Kind::WebSocket)
    }

    /// True if the request is an extended CONNECT. It has no content: the bytes behind it are those of the tunnel.
    pub fn is_connect(&self) -> bool {
        self.kind == Kind::WebSocket && self.version == Version::Http2
    }

    /// True if the request needs a backend connection of its own.
    pub fn is_alone(&self) -> bool {
        self.upgrades() || self.connection.authentication
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
    /// True if the content is a stream of events, which may be silent for long.
    pub event_stream: bool,
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
    let kind = kind(head, &found, body)?;
    let connect = kind == Kind::WebSocket && version == Version::Http2;
    Ok(RequestFacts {
        body: match found.framing.length {
            _ if connect => Body::None,
            Some(0) if !found.framing.coded => Body::Length(0),
            _ => body,
        },
        version,
        method: MethodKind::of(head.method()),
        connection: found.connection.facts(found.connection.persists(version)),
        // An expectation of an HTTP/1.0 client is ignored (RFC 9110, 10.1.1).
        expects_continue: found.expects_continue && version != Version::Http10 && body != Body::None,
        kind,
        takes_trailers: found.takes_trailers,
    })
}

/// Returns the protocol within a request.
fn kind(head: HeadRef<'_>, found: &Found, body: Body) -> Result<Kind, MessageError> {
    let asked = if let Start::Request { protocol, .. } = head.head.start { protocol } else { None };
    let upgrades = found.connection.upgrade && found.upgrade.offered && body != Body::Chunked;
    match (head.head.version, asked.map(|protocol| head.get(protocol))) {
        (_, Some(protocol)) if protocol.eq_ignore_ascii_case(b"websocket") => Ok(Kind::WebSocket),
        (_, Some(_)) => Err(MessageError::ProtocolNotServed),
        (Version::Http2, None) if found.media == Media::Grpc => Ok(Kind::Grpc),
        (Version::Http11, None) if upgrades => {
            let keyed = found.upgrade.websocket && found.upgrade.keys == 1;
            let websocket = keyed && head.method() == b"GET" && body == Body::None;
            Ok(if websocket { Kind::WebSocket } else { Kind::Upgrade })
        }
        _ => Ok(Kind::Plain),
    }
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
        // The end of the message is known with its head.
        (None, false) if head.head.ended => Body::Length(0),
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
        event_stream: found.media == Media::EventStream,
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
            Name::Upgrade => {
                let websocket = |protocol: &[u8]| protocol.eq_ignore_ascii_case(b"websocket");
                found.upgrade.offered |= offered_protocols(value()).next().is_some();
                found.upgrade.websocket |= offered_protocols(value()).any(websocket);
            }
            Name::SecWebSocketKey => found.upgrade.keys += 1,
            Name::ContentType => found.media = Media::of(value()),
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
    if let Some(length) = number(value) {
        return Ok(length);
    }
    let mut length = None;
    for member in value.split(|&b| b == b',') {
        let this = number(super::fields::trim(member)).ok_or(MessageError::LengthInvalid)?;
        if length.is_some_and(|before| before != this) {
            return Err(MessageError::LengthsDiffer);
        }
        length = Some(this);
    }
    length.ok_or(MessageError::LengthInvalid)
}

/// Parses a number of at most nineteen digits, which fit into 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut number = 0;
    for digit in digits {
        number = number * 10 + u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
    }
    Some(number)
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
mod tests;
