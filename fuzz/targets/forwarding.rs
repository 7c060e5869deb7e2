//! Forwarding: a message that is parsed, written for the next hop and parsed again has the same framing, and
//! its head ends at the byte where the writer ended it. The two hops therefore agree, so that no byte of one
//! request is taken for another (request smuggling).
//!
//! The input is a byte of choices and the head of a message.

use std::net::{IpAddr, Ipv4Addr};

use zzz_lb::hpack::Decoder;
use zzz_lb::http::fields::Name;
use zzz_lb::http::forward::{self, After, ClientCertificate, Handshake, RequestWay, ResponseWay};
use zzz_lb::http::framing::{self, Body, RequestFacts, ResponseFacts};
use zzz_lb::http::head::{Head, HeadRef, Version};
use zzz_lb::http::message_error::MessageError;
use zzz_lb::http::part::Role;
use zzz_lb::http1::parse;
use zzz_lb::http1::write::Writer;
use zzz_lb::http2::head::{self, Section, Unread};
use zzz_lb::limits::H2_TABLE_BYTES;

/// A request id of the proxy's own.
const ID: &[u8] = b"018f3c1e-0000-7000-8000-000000000001";

/// A client's certificate.
const CERTIFICATE: ClientCertificate<'_> = ClientCertificate { leaf: b":AA==:", chain: b"" };

/// Panics if the next hop sees another message.
pub fn run(data: &[u8]) {
    run_with(data, |_| {});
}

/// Like [`run`], with a fault planted in the written text before it is parsed again.
pub fn run_with(data: &[u8], plant: fn(&mut Vec<u8>)) {
    let Some((&choices, bytes)) = data.split_first() else { return };
    request(choices, bytes, plant);
    response(choices, bytes, plant);
}

fn bit(choices: u8, at: u8) -> bool {
    choices >> at & 1 == 1
}

/// The value of a field that occurs at most once.
fn single<'a>(view: HeadRef<'a>, name: Name) -> Option<&'a [u8]> {
    let mut values = view.values(name);
    let value = values.next();
    assert!(values.next().is_none(), "{name:?} stands twice");
    value
}

/// Checks that no field about one connection is left, except those about our own.
fn check_hop(view: HeadRef<'_>) {
    assert!(view.values(Name::KeepAlive).next().is_none() && view.values(Name::ProxyConnection).next().is_none());
    let ours = [&b"Upgrade, TE"[..], b"Upgrade", b"upgrade", b"TE", b"close", b"keep-alive"];
    assert!(view.values(Name::Connection).all(|value| ours.contains(&value)), "options of another hop");
    assert!(single(view, Name::Te).is_none_or(|value| value == b"trailers"), "TE of another hop");
}

/// True if the added fields have made a head longer than the parser's own limit.
fn is_past_our_limits(read: Result<Option<usize>, MessageError>) -> bool {
    matches!(read, Err(MessageError::TooManyFields | MessageError::HeadTooLarge))
}

fn request(choices: u8, bytes: &[u8], plant: fn(&mut Vec<u8>)) {
    let mut parsed = Head::default();
    let Ok(Some(_)) = parse::request(bytes, &mut parsed) else { return };
    let view = HeadRef { bytes, head: &parsed };
    // These are answered locally and never forwarded.
    if matches!(view.method(), b"CONNECT" | b"TRACE") {
        return;
    }
    let Ok(facts) = framing::request(view) else { return };
    let way = RequestWay {
        cookie: None,
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 255)),
        trusted: bit(choices, 0),
        scheme: if bit(choices, 1) { "https" } else { "http" },
        next_scheme: "http",
        port: if bit(choices, 5) { b"8080" } else { b"" },
        host: bit(choices, 2).then_some("backend.example:80"),
        default_host: "default.example",
        via: bit(choices, 3).then_some("zzz"),
        request_id: bit(choices, 6).then_some(ID),
        certificate: bit(choices, 4).then_some(CERTIFICATE),
        handshake: Handshake::AsAsked,
        grpc_timeout: None,
    };
    let mut text = Vec::new();
    let mut writer = Writer::new(&mut text);
    forward::request(&mut writer, view, &facts, &way);
    writer.finish();
    plant(&mut text);
    let mut again = Head::default();
    let read = parse::request(&text, &mut again);
    if is_past_our_limits(read) {
        return;
    }
    assert_eq!(read, Ok(Some(text.len())), "it ends elsewhere: {}", text.escape_ascii());
    let next = HeadRef { bytes: &text, head: &again };
    let seen = framing::request(next).unwrap_or_else(|refusal| panic!("{refusal:?}: {}", text.escape_ascii()));
    let framed = |facts: &RequestFacts| (facts.body, facts.method, facts.takes_trailers);
    assert_eq!(framed(&seen), framed(&facts), "{}", text.escape_ascii());
    assert_eq!((next.method(), seen.version), (view.method(), Version::Http11));
    assert!(seen.expects_continue == facts.expects_continue && seen.connection.persistent);
    assert!(single(next, Name::Host).is_some() && single(next, Name::XForwardedFor).is_some());
    if way.certificate.is_some() {
        let own = [CERTIFICATE.leaf];
        assert!(next.values(Name::ClientCert).eq(own), "{}", text.escape_ascii());
    }
    check_hop(next);
    request_over_http2(view, &facts, &way);
}

/// Writes the same request as a field block, and parses it in the other role.
fn request_over_http2(view: HeadRef<'_>, facts: &RequestFacts, way: &RequestWay<'_>) {
    let mut block = Vec::new();
    let mut writer = head::Writer::new(&mut block);
    forward::request(&mut writer, view, facts, way);
    let (mut read, mut arena) = (Head::default(), Vec::new());
    let mut decoder = Decoder::new(H2_TABLE_BYTES);
    match head::read(&mut decoder, &block, Role::Server, Section::Head, &mut read, &mut arena) {
        Ok(()) => {}
        // It may exceed the parser's own limits.
        Err(Unread::Message(
            MessageError::HeadTooLarge | MessageError::TooManyFields | MessageError::TargetTooLong,
        )) => return,
        Err(Unread::Connection(zzz_lb::hpack::Error::Excessive)) => return,
        Err(error) => panic!("{error:?} over HTTP/2"),
    }
    let next = HeadRef { bytes: &arena, head: &read };
    assert_eq!(next.method(), view.method());
    check_hop(next);
    let length = single(next, Name::ContentLength);
    let expected = if let Body::Length(length) = facts.body { Some(length.to_string()) } else { None };
    assert_eq!(length, expected.as_ref().map(String::as_bytes));
}

fn response(choices: u8, bytes: &[u8], plant: fn(&mut Vec<u8>)) {
    let mut parsed = Head::default();
    let Ok(Some(_)) = parse::response(bytes, &mut parsed) else { return };
    let view = HeadRef { bytes, head: &parsed };
    let mut text = Vec::new();
    let mut writer = Writer::new(&mut text);
    if view.status() < 200 {
        forward::interim(&mut writer, view, bit(choices, 6).then_some(ID));
        writer.finish();
        plant(&mut text);
        let mut again = Head::default();
        let read = parse::response(&text, &mut again);
        if is_past_our_limits(read) {
            return;
        }
        assert_eq!(read, Ok(Some(text.len())), "{}", text.escape_ascii());
        let next = HeadRef { bytes: &text, head: &again };
        assert_eq!(next.status(), view.status());
        let framed = [Name::ContentLength, Name::TransferEncoding].into_iter().any(|name| single(next, name).is_some());
        assert!(!framed, "a 1xx response has no content");
        return check_hop(next);
    }
    let request = RequestFacts::unread(bit(choices, 0));
    let Ok(facts) = framing::response(view, &request) else { return };
    let after = [After::Default, After::KeepAlive, After::Close][usize::from(choices >> 1) % 3];
    // Content that ends with the connection is sent as chunked to a client that supports it.
    let body = if facts.body == Body::UntilClose && bit(choices, 3) { Body::Chunked } else { facts.body };
    let via = bit(choices, 4).then_some("zzz");
    let way = ResponseWay {
        cookie: None,
        set_cookie: b"",
        body,
        after,
        date: b"Sat, 28 Nov 2026 20:00:00 GMT",
        via,
        request_id: bit(choices, 6).then_some(ID),
        strict_transport: bit(choices, 7).then_some("max-age=60"),
    };
    forward::response(&mut writer, view, &facts, &way);
    writer.finish();
    plant(&mut text);
    let mut again = Head::default();
    let read = parse::response(&text, &mut again);
    if is_past_our_limits(read) {
        return;
    }
    assert_eq!(read, Ok(Some(text.len())), "{}", text.escape_ascii());
    let next = HeadRef { bytes: &text, head: &again };
    let seen = framing::response(next, &request).unwrap_or_else(|refusal| panic!("{refusal:?}"));
    let framed = |facts: &ResponseFacts, body| (facts.status, body, facts.described);
    assert_eq!(framed(&seen, seen.body), framed(&facts, body), "{}", text.escape_ascii());
    assert!(single(next, Name::TransferEncoding).is_none_or(|value| value == b"chunked"));
    single(next, Name::ContentLength);
    check_hop(next);
}
