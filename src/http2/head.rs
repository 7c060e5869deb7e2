//! Converts between field blocks and heads (RFC 9113, 8). Pseudo-header fields replace the start line. A block
//! that would have another meaning in HTTP/1.1 is refused, so that no field can split a message.

use crate::hpack::{self, Decoder};
use crate::http::fields::{Field, Name, Span};
use crate::http::forward::{NumberText, Sink, Target};
use crate::http::framing::{Body, is_authority};
use crate::http::head::{Head, Start, Version};
use crate::http::message_error::MessageError;
use crate::http::part::Role;
use crate::http1::parse;
use crate::http1::scan::{self, Scanner};
use crate::limits::{H2_LIST_BYTES, HEAD_FIELDS, METHOD_BYTES, RESPONSE_FIELDS, TARGET_BYTES, TRAILER_BYTES};

/// The section that a block contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Those of a head, pseudo-header fields first.
    Head,
    /// Those behind the content.
    Trailers,
}

/// The reason why a block could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Nothing that comes after it can be either: the connection is of no more use.
    Connection(hpack::Error),
    /// It is the message that is malformed, or too large.
    Message(MessageError),
}

/// The pseudo-header fields that have come.
#[derive(Debug, Default)]
struct Pseudo {
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    protocol: Option<Span>,
    status: Option<Span>,
    /// The crumbs of a cookie, joined, once there is more than one.
    cookie: Vec<u8>,
}

/// Reads a block received by `role`. The head's spans refer to `arena`, which is refilled.
///
/// # Errors
///
/// The first fault. After `Message` the decoder can continue.
pub fn read(
    decoder: &mut Decoder,
    block: &[u8],
    role: Role,
    section: Section,
    head: &mut Head,
    arena: &mut Vec<u8>,
) -> Result<(), Unread> {
    arena.clear();
    head.fields.clear();
    let mut pseudo = Pseudo::default();
    let mut refused = None;
    let limit = if section == Section::Head { H2_LIST_BYTES } else { TRAILER_BYTES };
    let decoded = decoder.decode(block, limit, |name, value| {
        if refused.is_none() {
            refused = field(name, value, role, section, &mut pseudo, &mut head.fields, arena).err();
        }
    });
    match decoded {
        Ok(()) => {}
        Err(hpack::Error::ListTooLarge) if section == Section::Head => {
            return Err(Unread::Message(MessageError::HeadTooLarge));
        }
        Err(hpack::Error::ListTooLarge) => return Err(Unread::Message(MessageError::TrailersTooLarge)),
        Err(error) => return Err(Unread::Connection(error)),
    }
    if let Some(cookie) = head.fields.iter_mut().find(|field| field.name == Name::Cookie && !pseudo.cookie.is_empty()) {
        let at = arena.len();
        arena.extend_from_slice(&pseudo.cookie);
        cookie.value_span = Span::new(at, arena.len());
    }
    match refused {
        Some(refusal) => Err(Unread::Message(refusal)),
        None if section == Section::Trailers => Ok(()),
        None => start(&pseudo, role, head, arena).map_err(Unread::Message),
    }
}

/// Takes one field.
fn field(
    name: &[u8],
    value: &[u8],
    role: Role,
    section: Section,
    pseudo: &mut Pseudo,
    fields: &mut Vec<Field>,
    arena: &mut Vec<u8>,
) -> Result<(), MessageError> {
    let most = if role == Role::Client && section == Section::Head { RESPONSE_FIELDS } else { HEAD_FIELDS };
    if fields.len() == most {
        return Err(MessageError::TooManyFields);
    }
    let at = arena.len();
    if let [b':', ..] = name {
        let place = match (name, role) {
            _ if section == Section::Trailers || !fields.is_empty() => return Err(MessageError::PseudoField),
            (b":method", Role::Server) => &mut pseudo.method,
            (b":scheme", Role::Server) => &mut pseudo.scheme,
            (b":authority", Role::Server) => &mut pseudo.authority,
            (b":path", Role::Server) => &mut pseudo.path,
            (b":protocol", Role::Server) => &mut pseudo.protocol,
            (b":status", Role::Client) => &mut pseudo.status,
            _ => return Err(MessageError::PseudoField),
        };
        arena.extend_from_slice(value);
        return match place.replace(Span::new(at, arena.len())) {
            None => Ok(()),
            Some(_) => Err(MessageError::PseudoField),
        };
    }
    // A list has room for 1,600 crumbs of cookies.
    let is_cookie = name == b"cookie";
    if !is_cookie && (name.is_empty() || scan::token_end(name) < name.len() || name.iter().any(u8::is_ascii_uppercase))
    {
        return Err(MessageError::FieldName);
    }
    let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
    if parse::value_end(Scanner::chosen(), value, role) < value.len() || blank(value.first()) || blank(value.last()) {
        return Err(MessageError::FieldValue);
    }
    let known = if is_cookie { Name::Cookie } else { Name::find(name) };
    match known {
        Name::Connection
        | Name::KeepAlive
        | Name::ProxyConnection
        | Name::TransferEncoding
        | Name::Upgrade
        | Name::Http2Settings => return Err(MessageError::ConnectionField),
        Name::Te if !value.eq_ignore_ascii_case(b"trailers") => return Err(MessageError::ConnectionField),
        // Crumbs of one cookie are one field elsewhere (RFC 9113, 8.2.3).
        Name::Cookie if role == Role::Server && section == Section::Head => {
            if let Some(first) = fields.iter().find(|field| field.name == Name::Cookie) {
                if pseudo.cookie.is_empty() {
                    pseudo.cookie.extend_from_slice(first.value_span.of(arena));
                }
                pseudo.cookie.extend_from_slice(b"; ");
                pseudo.cookie.extend_from_slice(value);
                return Ok(());
            }
        }
        _ => {}
    }
    arena.extend_from_slice(name);
    let middle = arena.len();
    arena.extend_from_slice(value);
    let (name_span, value_span) = (Span::new(at, middle), Span::new(middle, arena.len()));
    fields.push(Field { name: known, name_span, value_span });
    Ok(())
}

/// Builds the start line from the pseudo-header fields.
fn start(pseudo: &Pseudo, role: Role, head: &mut Head, arena: &[u8]) -> Result<(), MessageError> {
    head.version = Version::Http2;
    head.start = match role {
        Role::Client => match pseudo.status.ok_or(MessageError::StatusLine)?.of(arena) {
            // There is no switching of protocols here (RFC 9113, 8.6).
            b"101" => return Err(MessageError::SwitchUnasked),
            &[a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                let digit = |byte: u8| u16::from(byte - b'0');
                Start::Response { status: digit(a) * 100 + digit(b) * 10 + digit(c), reason: Span::default() }
            }
            _ => return Err(MessageError::StatusLine),
        },
        Role::Server => request_start(pseudo, head, arena)?,
    };
    Ok(())
}

fn request_start(pseudo: &Pseudo, head: &Head, arena: &[u8]) -> Result<Start, MessageError> {
    let method_span = pseudo.method.ok_or(MessageError::RequestLine)?;
    let method = method_span.of(arena);
    if method.len() > METHOD_BYTES {
        return Err(MessageError::MethodTooLong);
    }
    if method.is_empty() || scan::token_end(method) < method.len() {
        return Err(MessageError::RequestLine);
    }
    if let Some(authority) = pseudo.authority
        && (authority.is_empty() || !is_authority(authority.of(arena)))
    {
        return Err(MessageError::HostInvalid);
    }
    // Two names for one place would be one too many (RFC 9113, 8.3.1).
    let hosts = head.fields.iter().filter(|field| field.name == Name::Host);
    if let Some(authority) = pseudo.authority
        && hosts.into_iter().any(|host| !host.value_span.of(arena).eq_ignore_ascii_case(authority.of(arena)))
    {
        return Err(MessageError::HostInvalid);
    }
    let (authority, protocol) = (pseudo.authority, pseudo.protocol);
    match protocol {
        None if method == b"CONNECT" => {
            return match (pseudo.scheme, pseudo.path, authority) {
                (None, None, Some(_)) => {
                    Ok(Start::Request { method: method_span, path: Span::default(), authority, protocol })
                }
                _ => Err(MessageError::RequestLine),
            };
        }
        // An extended CONNECT has the target of any request (RFC 8441, 4).
        Some(_) if method != b"CONNECT" || authority.is_none() => return Err(MessageError::RequestLine),
        _ => {}
    }
    let path_span = pseudo.path.ok_or(MessageError::Target)?;
    let path = path_span.of(arena);
    if path.len() > TARGET_BYTES {
        return Err(MessageError::TargetTooLong);
    }
    let formed = path.starts_with(b"/") || path == b"*" && method == b"OPTIONS";
    if !pseudo.scheme.is_some_and(|scheme| is_scheme(scheme.of(arena)))
        || !formed
        || scan::target_end(path) < path.len()
    {
        return Err(MessageError::Target);
    }
    Ok(Start::Request { method: method_span, path: path_span, authority, protocol })
}

/// True if this is the name of a scheme (RFC 3986, 3.1).
fn is_scheme(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    text.first().is_some_and(u8::is_ascii_alphabetic) && text.iter().all(is_part)
}

/// Writes a head as a field block. Parts of HTTP/1.1 that HTTP/2 does not have are omitted.
#[derive(Debug)]
pub struct Writer<'a> {
    block: &'a mut Vec<u8>,
    size: usize,
}

impl<'a> Writer<'a> {
    /// A writer to the end of `block`.
    pub fn new(block: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { block, size: 0 }
    }

    /// The size of the list written: each field with 32 bytes more (RFC 9113, 6.5.2).
    pub fn size(&self) -> usize {
        self.size
    }

    /// Writes a field whose name is at this index of the static table.
    fn indexed(&mut self, (index, name): (usize, &str), value: &[u8]) {
        self.size += name.len() + value.len() + hpack::ENTRY_OVERHEAD;
        hpack::encode_indexed(self.block, index, value);
    }

    fn put(&mut self, name: &[u8], value: &[u8]) {
        self.size += name.len() + value.len() + hpack::ENTRY_OVERHEAD;
        hpack::encode(self.block, name, value);
    }
}

impl Sink for Writer<'_> {
    fn request(&mut self, method: &[u8], target: Target<'_>) {
        self.indexed((hpack::METHOD, ":method"), method);
        if !target.protocol.is_empty() {
            self.put(b":protocol", target.protocol);
        }
        self.indexed((hpack::SCHEME, ":scheme"), target.scheme);
        if !target.authority.is_empty() {
            self.indexed((hpack::AUTHORITY, ":authority"), target.authority);
        }
        self.indexed((hpack::PATH, ":path"), target.path);
    }

    fn response(&mut self, status: u16, _reason: &[u8]) {
        let digit = |unit: u16| b'0' + (status / unit % 10) as u8;
        self.indexed((hpack::STATUS, ":status"), &[digit(100), digit(10), digit(1)]);
    }

    fn field(&mut self, name: &[u8], value: &[u8]) {
        self.put(name, value);
    }

    fn host(&mut self, _name: &[u8], _value: &[u8]) {}

    fn hop(&mut self, _name: &[u8], _value: &[u8]) {}

    fn upgrade(&mut self, _protocols: &mut dyn Iterator<Item = &[u8]>) {}

    fn joined(&mut self, name: &[u8], pieces: &mut dyn Iterator<Item = &[u8]>) {
        let Some(first) = pieces.next() else { return };
        let Some(second) = pieces.next() else { return self.put(name, first) };
        let mut value = [first, b", ", second].concat();
        for piece in pieces {
            value.extend_from_slice(b", ");
            value.extend_from_slice(piece);
        }
        self.put(name, &value);
    }

    fn framing(&mut self, body: Body) {
        if let Body::Length(length) = body {
            self.indexed((hpack::CONTENT_LENGTH, "content-length"), NumberText::default().write(length));
        }
    }
}

/// Writes the fields of a trailer section that may stand in one.
pub fn write_trailers(block: &mut Vec<u8>, trailers: crate::http::head::HeadRef<'_>) {
    for (text, value) in crate::http::forward::trailers(trailers) {
        hpack::encode(block, text, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::HeadRef;

    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        // Literal, so that names the encoder would change pass unchanged.
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                assert!(text.len() < 127);
                block.push(text.len() as u8);
                block.extend_from_slice(text.as_bytes());
            }
        }
        block
    }

    fn of(role: Role, section: Section, fields: &[(&str, &str)]) -> Result<String, MessageError> {
        let (mut head, mut arena) = (Head::default(), Vec::new());
        let mut decoder = Decoder::new(4096);
        match read(&mut decoder, &block(fields), role, section, &mut head, &mut arena) {
            Err(Unread::Message(refusal)) => Err(refusal),
            Err(Unread::Connection(error)) => panic!("{error}"),
            Ok(()) => {
                let head = HeadRef { bytes: &arena, head: &head };
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                let mut said = match head.head.start {
                    Start::Response { status, .. } => format!("{status}"),
                    Start::Request { method, path, authority, protocol } => {
                        let authority = authority.map_or("-".into(), |span| text(head.get(span)));
                        let protocol = protocol.map_or(String::new(), |span| format!(" for {}", text(head.get(span))));
                        format!("{} {authority} {}{protocol}", text(head.get(method)), text(head.get(path)))
                    }
                };
                for (_, name, value) in head.fields() {
                    said.push_str(&format!("|{}={}", text(name), text(value)));
                }
                Ok(said)
            }
        }
    }

    const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "a:1"), (":path", "/x?y")];

    #[test]
    fn requests_and_responses_read_as_what_they_are() {
        let fields = [&GET[..], &[("cookie", "a=b"), ("x", "1"), ("cookie", "c=d"), ("te", "trailers")]].concat();
        let said = of(Role::Server, Section::Head, &fields).unwrap();
        assert_eq!(said, "GET a:1 /x?y|cookie=a=b; c=d|x=1|te=trailers");
        let said = of(Role::Client, Section::Head, &[(":status", "404"), ("set-cookie", "a"), ("set-cookie", "b")]);
        assert_eq!(said.unwrap(), "404|set-cookie=a|set-cookie=b");
        assert_eq!(of(Role::Client, Section::Trailers, &[("t", "")]).unwrap(), "0|t=");
        let connect = [(":method", "CONNECT"), (":authority", "a:1")];
        assert_eq!(of(Role::Server, Section::Head, &connect).unwrap(), "CONNECT a:1 ");
        let extended = [&[(":method", "CONNECT"), (":protocol", "websocket")], &GET[1..]].concat();
        assert_eq!(of(Role::Server, Section::Head, &extended).unwrap(), "CONNECT a:1 /x?y for websocket");
        let options = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), ("host", "h")];
        assert_eq!(of(Role::Server, Section::Head, &options).unwrap(), "OPTIONS - *|host=h");
    }

    #[test]
    fn fields_with_another_meaning_in_http_1_are_refused() {
        let with = |more: &[(&str, &str)]| of(Role::Server, Section::Head, &[&GET[..], more].concat());
        for (more, refusal) in [
            (("X", "1"), MessageError::FieldName),
            (("a b", "1"), MessageError::FieldName),
            (("", "1"), MessageError::FieldName),
            (("a:", "1"), MessageError::FieldName),
            (("x", "a\r\nb: c"), MessageError::FieldValue),
            (("x", "a\0"), MessageError::FieldValue),
            (("x", " a"), MessageError::FieldValue),
            (("x", "a\t"), MessageError::FieldValue),
            (("connection", "close"), MessageError::ConnectionField),
            (("transfer-encoding", "chunked"), MessageError::ConnectionField),
            (("keep-alive", "1"), MessageError::ConnectionField),
            (("upgrade", "x"), MessageError::ConnectionField),
            (("te", "gzip"), MessageError::ConnectionField),
            ((":path", "/"), MessageError::PseudoField),
            ((":status", "200"), MessageError::PseudoField),
            ((":new", "1"), MessageError::PseudoField),
            (("host", "b"), MessageError::HostInvalid),
        ] {
            assert_eq!(with(&[more]), Err(refusal), "{more:?}");
        }
        assert_eq!(with(&[("x", "1"), (":scheme", "http")]), Err(MessageError::PseudoField), "behind a field");
        assert_eq!(of(Role::Server, Section::Trailers, &[(":path", "/")]), Err(MessageError::PseudoField));
        assert_eq!(of(Role::Server, Section::Head, &[("x", "1")]), Err(MessageError::RequestLine));
    }

    #[test]
    fn start_lines_that_cannot_be_are_refused() {
        for (at, value, refusal) in [
            (0, "G T", MessageError::RequestLine),
            (0, "", MessageError::RequestLine),
            (0, "CONNECT", MessageError::RequestLine),
            (1, "", MessageError::Target),
            (1, "ht tp", MessageError::Target),
            (1, "http://b", MessageError::Target),
            (1, "http\r\n", MessageError::Target),
            (1, "1a", MessageError::Target),
            (2, "a@b", MessageError::HostInvalid),
            (2, "", MessageError::HostInvalid),
            (3, "", MessageError::Target),
            (3, "x", MessageError::Target),
            (3, "*", MessageError::Target),
            (3, "/a b", MessageError::Target),
            (3, "/a\r\nHost: b", MessageError::Target),
        ] {
            let mut fields = GET;
            fields[at].1 = value;
            assert_eq!(of(Role::Server, Section::Head, &fields), Err(refusal), "{value:?} in {at}");
        }
        for status in ["", "20", "2000", "abc", "099", "101"] {
            assert!(of(Role::Client, Section::Head, &[(":status", status)]).is_err(), "{status}");
        }
        assert_eq!(of(Role::Client, Section::Head, &[("x", "1")]), Err(MessageError::StatusLine));
    }

    #[test]
    fn a_written_head_can_be_read() {
        let mut block = Vec::new();
        let mut writer = Writer::new(&mut block);
        writer.request(b"POST", Target { scheme: b"http", authority: b"h:1", path: b"/p", protocol: b"" });
        writer.host(b"Host", b"other");
        writer.field(b"X-A", b"b");
        writer.hop(b"Connection", b"close");
        writer.upgrade(&mut [&b"x"[..]].into_iter());
        writer.joined(b"L", &mut [&b"x"[..], b"y"].into_iter());
        writer.framing(Body::Length(7));
        writer.framing(Body::Chunked);
        let size = writer.size();
        let (mut head, mut arena) = (Head::default(), Vec::new());
        let mut decoder = Decoder::new(4096);
        read(&mut decoder, &block, Role::Server, Section::Head, &mut head, &mut arena).unwrap();
        let head = HeadRef { bytes: &arena, head: &head };
        let lines: Vec<String> = head
            .fields()
            .map(|(_, name, value)| format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)))
            .collect();
        assert_eq!(lines, ["x-a=b", "l=x, y", "content-length=7"]);
        assert_eq!((head.method(), head.authority()), (&b"POST"[..], Some(&b"h:1"[..])));
        let decoded = ["x-a", "b", "l", "x, y", "content-length", "7"].concat().len();
        let pseudo = [":method", "POST", ":scheme", "http", ":authority", "h:1", ":path", "/p"].concat().len();
        assert_eq!(size, decoded + pseudo + 7 * 32);
    }
}
