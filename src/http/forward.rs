//! Rewrites a message for the next hop (RFC 9110, 7.6). Fields that concern one connection are removed, the
//! proxy's own fields are added, and every other field keeps its order, spelling and bytes. The output goes to
//! a [`Sink`], which a codec provides.

use std::net::IpAddr;

use super::cookie;
use super::fields::{Name, Span, is_barred_from_trailers, list};
use super::framing::{Body, RequestFacts, ResponseFacts, is_named_by_connection, offered_protocols};
use super::head::{Head, HeadRef, Start, Version};
use super::status::phrase;

/// Receives a rewritten head.
pub trait Sink {
    /// Writes the start of a request.
    fn request(&mut self, method: &[u8], target: Target<'_>);
    /// Writes the start of a response.
    fn response(&mut self, status: u16, reason: &[u8]);
    /// Writes a field line.
    fn field(&mut self, name: &[u8], value: &[u8]);
    /// Writes the authority. HTTP/2 has a pseudo-header field for it.
    fn host(&mut self, name: &[u8], value: &[u8]) {
        self.field(name, value);
    }
    /// Writes a field about the connection to the next hop. HTTP/2 omits it.
    fn hop(&mut self, name: &[u8], value: &[u8]) {
        self.field(name, value);
    }
    /// Writes a field line whose value is a list of pieces joined by `", "`.
    fn joined(&mut self, name: &[u8], pieces: &mut dyn Iterator<Item = &[u8]>);
    /// Writes the Upgrade field. HTTP/2 has no switching of protocols (RFC 9113, 8.6) and leaves it out.
    fn upgrade(&mut self, protocols: &mut dyn Iterator<Item = &[u8]>) {
        self.joined(b"Upgrade", protocols);
    }
    /// Writes the framing of the content, as the protocol version requires.
    fn framing(&mut self, body: Body);
}

/// The protocol in Upgrade and `:protocol` (RFC 8441, 5).
const WEBSOCKET: &[u8] = b"websocket";

/// The parts of a target URI (RFC 9110, 7.1). HTTP/1.1 writes the path alone, because Host is a field there.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// `http` or `https`.
    pub scheme: &'a [u8],
    /// Host and port; empty if they are not known.
    pub authority: &'a [u8],
    /// Path and query; never empty.
    pub path: &'a [u8],
    /// The protocol of an extended CONNECT (RFC 8441, 4); otherwise empty.
    pub protocol: &'a [u8],
}

/// The form in which the next hop is asked for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake<'a> {
    /// As the client asks. So does every other request.
    AsAsked,
    /// By Upgrade with this key, although the client sent an extended CONNECT.
    Upgrade(&'a [u8]),
    /// By an extended CONNECT (RFC 8441, 5).
    Connect,
}

/// The form of the response that tells a client of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch<'a> {
    /// A 101 with the fields of the backend's 101.
    AsReceived,
    /// A 101 with this Sec-WebSocket-Accept, although the backend was asked by an extended CONNECT.
    Upgrade(&'a [u8]),
    /// A 200, because the client sent an extended CONNECT.
    Connect,
}

/// Settings and facts that the proxy adds to a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestWay<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// True if the proxy trusts the client's X-Forwarded-*, Forwarded, X-Real-IP and Client-Cert* fields.
    pub trusted: bool,
    /// The scheme of the client's connection: `http` or `https`.
    pub scheme: &'a str,
    /// The scheme of the next hop: `http` or `https`.
    pub next_scheme: &'a str,
    /// The port that the client connected to, in digits; empty if it is not known.
    pub port: &'a [u8],
    /// A Host that replaces the client's.
    pub host: Option<&'a str>,
    /// The Host of a request without one, which HTTP/1.0 allows.
    pub default_host: &'a str,
    /// The proxy's name in a Via field. `None`: no Via is added.
    pub via: Option<&'a str>,
    /// Replaces the request's own id. `None` leaves the request as it is.
    pub request_id: Option<&'a [u8]>,
    /// The form in which a WebSocket is asked for.
    pub handshake: Handshake<'a>,
    /// Replaces the value of `grpc-timeout`. `None` leaves the request as it is.
    pub grpc_timeout: Option<&'a [u8]>,
    /// The certificate of the client. `None`: clients are asked for none.
    pub certificate: Option<ClientCertificate<'a>>,
    /// The name of the proxy's own cookie, which the backend does not get. `None`: there is none.
    pub cookie: Option<&'a str>,
}

/// A client's certificate as fields of a request (RFC 9440). Empty parts have no field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate<'a> {
    /// The value of Client-Cert.
    pub leaf: &'a [u8],
    /// The value of Client-Cert-Chain.
    pub chain: &'a [u8],
}

/// Writes a request for the next hop.
pub fn request(sink: &mut impl Sink, head: HeadRef<'_>, facts: &RequestFacts, way: &RequestWay<'_>) {
    let Start::Request { authority, .. } = head.head.start else { return };
    let asked = head.authority();
    start_line(sink, head, asked, way);
    let host = way.host.map(str::as_bytes).or(authority.map(|span| head.get(span)));
    let mut host_written = false;
    let mut framed = false;
    for (name, text, value) in head.fields() {
        match name {
            Name::Host => {
                sink.host(text, host.unwrap_or(value));
                host_written = true;
            }
            Name::ContentLength | Name::TransferEncoding => {
                if !framed {
                    sink.framing(facts.body);
                }
                framed = true;
            }
            Name::Expect if !facts.expects_continue => {}
            Name::Connection
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::Te
            | Name::Upgrade
            | Name::Http2Settings
            | Name::XForwardedFor
            | Name::XForwardedHost
            | Name::XForwardedPort
            | Name::XForwardedProto
            | Name::Proxy
            | Name::Disguised => {}
            Name::SecWebSocketKey if way.handshake != Handshake::AsAsked => {}
            Name::Cookie if way.cookie.is_some() => cookie_field(sink, text, value, way.cookie.unwrap_or_default()),
            Name::GrpcTimeout => sink.field(text, way.grpc_timeout.unwrap_or(value)),
            Name::Forwarded | Name::XForwardedOther | Name::XRealIp | Name::ClientCert if !way.trusted => {}
            // The proxy itself knows the certificates of clients (RFC 9440, 2.4).
            Name::ClientCert if way.certificate.is_some() => {}
            Name::Expect => sink.field(text, value),
            Name::XRequestId if way.request_id.is_some() => {}
            _ if facts.connection.options && is_named_by_connection(head, text) => {}
            _ => sink.field(text, value),
        }
    }
    if !host_written {
        sink.host(b"Host", host.unwrap_or(way.default_host.as_bytes()));
    }
    match facts.body {
        _ if framed => {}
        Body::Chunked => sink.framing(facts.body),
        // The end of the stream says so in HTTP/2. A server may demand a length with these methods (RFC 9110, 8.6).
        Body::None if head.head.version == Version::Http2 && matches!(head.method(), b"POST" | b"PUT" | b"PATCH") => {
            sink.hop(b"Content-Length", b"0");
        }
        _ => {}
    }
    connection_fields(sink, head, facts, way.handshake);
    forwarded_fields(sink, head, asked, way);
    let ClientCertificate { leaf, chain } = way.certificate.unwrap_or_default();
    for (name, value) in [(&b"Client-Cert"[..], leaf), (b"Client-Cert-Chain", chain)] {
        if !value.is_empty() {
            sink.field(name, value);
        }
    }
    request_id_field(sink, way.request_id);
    via_field(sink, head, way.via);
}

/// Writes the start of a request. `asked`: the authority that the client asked for.
fn start_line(sink: &mut impl Sink, head: HeadRef<'_>, asked: Option<&[u8]>, way: &RequestWay<'_>) {
    let Start::Request { method, path, .. } = head.head.start else { return };
    let (method, protocol) = match way.handshake {
        Handshake::AsAsked => (head.get(method), &[][..]),
        Handshake::Upgrade(_) => (&b"GET"[..], &[][..]),
        Handshake::Connect => (&b"CONNECT"[..], WEBSOCKET),
    };
    let path = match head.get(path) {
        [] if method == b"OPTIONS" => b"*",
        [] => b"/",
        path => path,
    };
    let next = way.host.map(str::as_bytes).or(asked).unwrap_or(way.default_host.as_bytes());
    let target = |path| Target { scheme: way.next_scheme.as_bytes(), authority: next, path, protocol };
    match path {
        [b'?', ..] => sink.request(method, Target { path: &[b"/", path].concat(), ..target(path) }),
        path => sink.request(method, target(path)),
    }
}

/// Writes the fields that describe the proxy's own connection to the next hop.
fn connection_fields(sink: &mut impl Sink, head: HeadRef<'_>, facts: &RequestFacts, handshake: Handshake<'_>) {
    match (facts.upgrades(), facts.takes_trailers) {
        (true, true) => sink.hop(b"Connection", b"Upgrade, TE"),
        (true, false) => sink.hop(b"Connection", b"Upgrade"),
        (false, true) => sink.hop(b"Connection", b"TE"),
        (false, false) => {}
    }
    if facts.takes_trailers {
        sink.field(b"TE", b"trailers");
    }
    match handshake {
        Handshake::AsAsked if facts.upgrades() => {
            sink.upgrade(&mut head.values(Name::Upgrade).flat_map(offered_protocols));
        }
        Handshake::Upgrade(key) => {
            sink.upgrade(&mut std::iter::once(WEBSOCKET));
            sink.field(b"Sec-WebSocket-Key", key);
        }
        Handshake::AsAsked | Handshake::Connect => {}
    }
}

fn forwarded_fields(sink: &mut impl Sink, head: HeadRef<'_>, asked: Option<&[u8]>, way: &RequestWay<'_>) {
    let mut text = AddressText { bytes: [0; 48], len: 0 };
    let client = text.write(way.client);
    let believed = way.trusted.then_some(head);
    let said = |name| believed.and_then(|head| head.values(name).next());
    match believed {
        None => sink.field(b"X-Forwarded-For", client),
        Some(head) => {
            let before = head.values(Name::XForwardedFor).flat_map(list);
            sink.joined(b"X-Forwarded-For", &mut before.chain(std::iter::once(client)));
        }
    }
    let own_scheme = way.scheme.as_bytes();
    let scheme = said(Name::XForwardedProto).unwrap_or(own_scheme);
    sink.field(b"X-Forwarded-Proto", scheme);
    // If a trusted peer reports another scheme without its port, our own port is not the one that the client
    // connected to.
    let own_port = Some(way.port).filter(|port| !port.is_empty() && scheme.eq_ignore_ascii_case(own_scheme));
    if let Some(port) = said(Name::XForwardedPort).or(own_port) {
        sink.field(b"X-Forwarded-Port", port);
    }
    if let Some(host) = said(Name::XForwardedHost).or(asked) {
        sink.field(b"X-Forwarded-Host", host);
    }
}

fn request_id_field(sink: &mut impl Sink, id: Option<&[u8]>) {
    if let Some(id) = id {
        sink.field(Name::XRequestId.text().as_bytes(), id);
    }
}

fn via_field(sink: &mut impl Sink, head: HeadRef<'_>, via: Option<&str>) {
    if let Some(name) = via {
        let version: &[u8] = match head.head.version {
            Version::Http10 => b"1.0 ",
            Version::Http11 => b"1.1 ",
            Version::Http2 => b"2.0 ",
        };
        let mut text = version.to_vec();
        text.extend_from_slice(name.as_bytes());
        sink.field(b"Via", &text);
    }
}

/// The fate of the client's connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The connection stays open, which is the version's default.
    Default,
    /// The connection stays open, and an HTTP/1.0 client needs a field that says so.
    KeepAlive,
    /// The connection closes.
    Close,
}

/// Settings and facts that the proxy adds to a response.
#[derive(Clone, Copy, Debug)]
pub struct ResponseWay<'a> {
    /// The framing of the content towards the client.
    pub body: Body,
    /// The fate of the client's connection.
    pub after: After,
    /// The time, for a response without a Date (RFC 9110, 6.6.1).
    pub date: &'a [u8],
    /// The proxy's name in a Via field. `None`: no Via is added.
    pub via: Option<&'a str>,
    /// Replaces an id that the backend sent. `None` leaves the response as it is.
    pub request_id: Option<&'a [u8]>,
    /// The value of Strict-Transport-Security for a response without that field. `None`: it is not added.
    pub strict_transport: Option<&'a str>,
    /// The name of the proxy's own cookie, which a backend cannot set. `None`: there is none.
    pub cookie: Option<&'a str>,
    /// The value of a Set-Cookie field; empty for none.
    pub set_cookie: &'a [u8],
}

/// Writes a response for the client.
pub fn response(sink: &mut impl Sink, head: HeadRef<'_>, facts: &ResponseFacts, way: &ResponseWay<'_>) {
    let Start::Response { status, reason } = head.head.start else { return };
    sink.response(status, reason_phrase(head, status, reason));
    let mut framed = false;
    let mut dated = false;
    let mut strict_transport = way.strict_transport;
    for (name, text, value) in head.fields() {
        match name {
            Name::ContentLength | Name::TransferEncoding => {
                match (framed, facts.described) {
                    (true, _) => {}
                    (false, Some(length)) => sink.framing(Body::Length(length)),
                    (false, None) => sink.framing(way.body),
                }
                framed = true;
            }
            Name::Connection
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::Te
            | Name::Upgrade
            | Name::Proxy
            | Name::Disguised => {}
            Name::XRequestId if way.request_id.is_some() => {}
            Name::SetCookie if way.cookie.is_some_and(|own| cookie::sets(value, own)) => {}
            _ if facts.connection.options && is_named_by_connection(head, text) => {}
            _ => {
                match name {
                    Name::Date => dated = true,
                    Name::StrictTransportSecurity => strict_transport = None,
                    _ => {}
                }
                sink.field(text, value);
            }
        }
    }
    if !framed {
        sink.framing(way.body);
    }
    if !dated {
        sink.field(b"Date", way.date);
    }
    if let Some(value) = strict_transport {
        sink.field(Name::StrictTransportSecurity.text().as_bytes(), value.as_bytes());
    }
    set_cookie(sink, way.set_cookie);
    match way.after {
        After::Default => {}
        After::KeepAlive => sink.hop(b"Connection", b"keep-alive"),
        After::Close => sink.hop(b"Connection", b"close"),
    }
    if status == UPGRADE_REQUIRED {
        upgrade_required(sink, head);
    }
    request_id_field(sink, way.request_id);
    via_field(sink, head, way.via);
}

/// The status whose Upgrade field names the protocols that the server requires (RFC 9110, 15.5.22).
const UPGRADE_REQUIRED: u16 = 426;

/// Keeps the protocols that a backend requires. A sender of Upgrade also lists it in Connection (RFC 9110,
/// 7.8).
fn upgrade_required(sink: &mut impl Sink, head: HeadRef<'_>) {
    if head.values(Name::Upgrade).next().is_some() {
        sink.hop(b"Connection", b"Upgrade");
    }
    head.values(Name::Upgrade).for_each(|protocols| sink.hop(b"Upgrade", protocols));
}

/// The response's own reason phrase. HTTP/2 has none, so such a response gets the registered phrase, because
/// some HTTP/1.1 parsers require one.
fn reason_phrase(head: HeadRef<'_>, status: u16, reason: Span) -> &[u8] {
    match head.head.version {
        Version::Http2 => phrase(status).as_bytes(),
        _ => head.get(reason),
    }
}

/// Writes a 1xx response. `request_id` replaces an id that the backend sent.
pub fn interim(sink: &mut impl Sink, head: HeadRef<'_>, request_id: Option<&[u8]>) {
    let Start::Response { status, reason } = head.head.start else { return };
    sink.response(status, reason_phrase(head, status, reason));
    passing_fields(sink, head, request_id);
}

/// Writes the fields of a response that has no content.
fn passing_fields(sink: &mut impl Sink, head: HeadRef<'_>, request_id: Option<&[u8]>) {
    for (name, text, value) in head.fields() {
        let ends_here = matches!(
            name,
            Name::Connection
                | Name::KeepAlive
                | Name::ProxyConnection
                | Name::Te
                | Name::Upgrade
                | Name::ContentLength
                | Name::TransferEncoding
                | Name::Proxy
                | Name::Disguised
        );
        let replaced = name == Name::XRequestId && request_id.is_some();
        if !ends_here && !replaced && !is_named_by_connection(head, text) {
            sink.field(text, value);
        }
    }
    request_id_field(sink, request_id);
}

/// Writes the response that turns both ends into a tunnel.
pub fn switching(
    sink: &mut impl Sink,
    head: HeadRef<'_>,
    request_id: Option<&[u8]>,
    switch: Switch<'_>,
    cookie: &[u8],
) {
    match switch {
        Switch::AsReceived => {
            interim(sink, head, request_id);
            sink.hop(b"Connection", b"Upgrade");
            sink.upgrade(&mut head.values(Name::Upgrade).flat_map(list));
        }
        Switch::Upgrade(accept) => {
            sink.response(101, phrase(101).as_bytes());
            sink.hop(b"Connection", b"Upgrade");
            sink.upgrade(&mut std::iter::once(WEBSOCKET));
            sink.field(Name::SecWebSocketAccept.text().as_bytes(), accept);
            without_accept(sink, head, request_id);
        }
        Switch::Connect => {
            sink.response(200, phrase(200).as_bytes());
            without_accept(sink, head, request_id);
        }
    }
    set_cookie(sink, cookie);
}

/// Writes a Cookie field without the proxy's own cookie, unless nothing is left.
fn cookie_field(sink: &mut impl Sink, name: &[u8], value: &[u8], own: &str) {
    match cookie::without(value, own) {
        None => sink.field(name, value),
        Some(kept) if kept.is_empty() => {}
        Some(kept) => sink.field(name, &kept),
    }
}

/// Writes a Set-Cookie field, unless its value is empty.
fn set_cookie(sink: &mut impl Sink, value: &[u8]) {
    if !value.is_empty() {
        sink.field(Name::SetCookie.text().as_bytes(), value);
    }
}

/// Writes the fields of the response to a handshake, except the one that the two forms do not share (RFC 8441, 5).
fn without_accept(sink: &mut impl Sink, head: HeadRef<'_>, request_id: Option<&[u8]>) {
    let mut kept = Head::default();
    kept.fields.extend(head.head.fields.iter().filter(|field| field.name != Name::SecWebSocketAccept));
    passing_fields(sink, HeadRef { bytes: head.bytes, head: &kept }, request_id);
}

/// The fields of a trailer section that are forwarded.
pub fn trailers(section: HeadRef<'_>) -> impl Iterator<Item = (&[u8], &[u8])> {
    let fields = section.fields().filter(|&(name, text, _)| !is_barred_from_trailers(name, text));
    fields.map(|(_, text, value)| (text, value))
}

/// A buffer for a number in digits, because the message path must not allocate.
#[derive(Default)]
pub struct NumberText([u8; 20]);

impl NumberText {
    /// Returns the digits of a number.
    pub fn write(&mut self, number: u64) -> &[u8] {
        let (mut at, mut rest) = (self.0.len(), number);
        loop {
            at -= 1;
            self.0[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return &self.0[at..];
            }
        }
    }
}

/// A buffer for an IP address in text form, because the message path must not allocate.
struct AddressText {
    bytes: [u8; 48],
    len: usize,
}

impl AddressText {
    fn write(&mut self, address: IpAddr) -> &[u8] {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                for (i, octet) in v4.octets().into_iter().enumerate() {
                    if i > 0 {
                        self.push(b'.');
                    }
                    if octet >= 100 {
                        self.push(b'0' + octet / 100);
                    }
                    if octet >= 10 {
                        self.push(b'0' + octet / 10 % 10);
                    }
                    self.push(b'0' + octet % 10);
                }
            }
            v6 => {
                // An IPv6 address takes at most 39 bytes.
                use std::io::Write;
                let mut room = &mut self.bytes[..];
                let _ = write!(room, "{v6}");
                self.len = 48 - room.len();
            }
        }
        &self.bytes[..self.len]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }
}
