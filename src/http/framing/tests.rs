//! Framing, persistence and the other facts of heads.

use super::*;
use crate::http::fields::{Field, Span};
use crate::http::head::Head;

fn with<T>(version: Version, start: &str, fields: &[(&str, &str)], f: impl Fn(HeadRef<'_>) -> T) -> T {
    let mut bytes = start.as_bytes().to_vec();
    let method = Span::new(0, bytes.len());
    let mut head = Head { version, ..Head::default() };
    head.start = match start.parse() {
        Ok(status) => Start::Response { status, reason: Span::default() },
        Err(_) => Start::Request { method, path: Span::default(), authority: None, protocol: None },
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
    for bad in ["a b", "a/b", "a@b", "[::1", "[]", "a:b", ":80", "a:123456", "[::1]x", "a:80:80", "a,b c", "é", "a?"] {
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
    assert!(of_request(&[("Connection", "Upgrade"), ("Upgrade", "websocket")]).unwrap().upgrades());
    assert!(!of_request(&[("Upgrade", "websocket")]).unwrap().upgrades());
    let offering = |field| of_request(&[("Connection", "Upgrade"), ("Upgrade", "websocket"), field]).unwrap();
    assert!(offering(("Content-Length", "0")).upgrades());
    assert!(offering(("Content-Length", "5")).upgrades() && !offering(("Transfer-Encoding", "chunked")).upgrades());
    assert!(!of_request(&[("Connection", "Upgrade"), ("Upgrade", "h2c, HTTP/2.0, TLS/1.2")]).unwrap().upgrades());
}

#[test]
fn a_websocket_is_a_get_with_one_key() {
    let kind = |method: &str, fields: &[(&str, &str)]| {
        let fields = [&[("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", "x, WebSocket")], fields].concat();
        with(Version::Http11, method, &fields, request).unwrap().kind
    };
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(kind("GET", &[key]), Kind::WebSocket);
    assert_eq!(kind("GET", &[]), Kind::Upgrade);
    assert_eq!(kind("GET", &[key, key]), Kind::Upgrade);
    assert_eq!(kind("POST", &[key]), Kind::Upgrade);
    assert_eq!(kind("GET", &[key, ("Content-Length", "5")]), Kind::Upgrade);
}

#[test]
fn grpc_is_a_content_type_over_http_2() {
    let kind = |version, text: &str| {
        let fields = [("Host", "a"), ("Content-Type", text)];
        with(version, "POST", &fields, request).unwrap().kind
    };
    for (text, expected) in [
        ("application/grpc", Kind::Grpc),
        ("application/grpc+proto", Kind::Grpc),
        ("APPLICATION/grpc;charset=x", Kind::Grpc),
        ("application/grpc-web", Kind::Plain),
        ("application/grpc-web+proto", Kind::Plain),
        ("application/grpcx", Kind::Plain),
    ] {
        assert_eq!(kind(Version::Http2, text), expected, "{text}");
        assert_eq!(kind(Version::Http11, text), Kind::Plain, "{text}");
    }
    let events = |text: &str| of_response("200", &[("Content-Type", text)]).unwrap().event_stream;
    assert!(events("text/event-stream") && events("Text/Event-Stream ;charset=utf-8"));
    assert!(!events("text/event-streams") && !events("text/plain"));
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
        assert_eq!((facts.body, facts.described, facts.connection.persistent), (Body::None, None, false), "{status}");
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
