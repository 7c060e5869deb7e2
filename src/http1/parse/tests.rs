//! Heads that are right, heads that are not, and heads that are cut anywhere.

use super::*;
use crate::http::head::HeadRef;

fn refused(text: &str) -> Refusal {
    request(text.as_bytes(), &mut Head::default()).unwrap_err()
}

fn parsed(text: &[u8]) -> (Head, usize) {
    let mut head = Head::default();
    let length = request(text, &mut head).unwrap().expect("a complete head");
    (head, length)
}

#[test]
fn reads_a_request_head() {
    let text = b"GET /a?b HTTP/1.1\r\nHost: x\r\nAccept:\t */* \t\r\nEmpty:\r\n\r\nrest";
    let (head, length) = parsed(text);
    assert_eq!(length, text.len() - 4);
    let view = HeadRef { bytes: text, head: &head };
    assert_eq!(view.method(), b"GET");
    let fields: Vec<_> = view.fields().map(|(_, name, value)| (name, value)).collect();
    assert_eq!(fields, [(&b"Host"[..], &b"x"[..]), (b"Accept", b"*/*"), (b"Empty", b"")]);
    assert_eq!(head.version, Version::Http11);
}

#[test]
fn every_prefix_of_a_right_head_is_incomplete() {
    let text = b"OPTIONS http://h:80/p HTTP/1.0\r\nHost: x\r\nA: b\r\n\r\n";
    let mut head = Head::default();
    for n in 0..text.len() {
        assert_eq!(request(&text[..n], &mut head), Ok(None), "{n}");
    }
    assert_eq!(request(text, &mut head), Ok(Some(text.len())));
    let text = b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n";
    for n in 0..text.len() {
        assert_eq!(response(&text[..n], &mut head), Ok(None), "{n}");
    }
    assert_eq!(response(text, &mut head), Ok(Some(text.len())));
}

#[test]
fn a_head_is_not_marked_as_an_end_by_the_one_before_it() {
    // Heads of both versions are read into the same one.
    let ended = || Head { ended: true, ..Head::default() };
    let (mut asked, mut answered) = (ended(), ended());
    assert!(request(b"GET / HTTP/1.1\r\n\r\n", &mut asked).is_ok_and(|length| length.is_some()));
    assert!(response(b"HTTP/1.1 200 OK\r\n\r\n", &mut answered).is_ok_and(|length| length.is_some()));
    assert!(!asked.ended && !answered.ended);
}

#[test]
fn refuses_malformed_request_lines() {
    for line in [
        "GET / HTTP/1.1 \r\n",
        "GET  / HTTP/1.1\r\n",
        " GET / HTTP/1.1\r\n",
        "GET /\r\n",
        "GET\r\n",
        "/ HTTP/1.1\r\n",
        "GET / http/1.1\r\n",
        "GET / HTTP/1.10\r\n",
        "GET / HTTP/1\r\n\r\n\r\n",
        "G(T / HTTP/1.1\r\n",
        "GET / HTTQ",
    ] {
        assert_eq!(refused(line), Refusal::RequestLine, "{line:?}");
    }
    for line in [
        "GET /\t HTTP/1.1\r\n",
        "GET /#f HTTP/1.1\r\n",
        "GET a HTTP/1.1\r\n",
        "GET ftp://h/ HTTP/1.1\r\n",
        "GET http:// HTTP/1.1\r\n",
        "GET http://u@h/ HTTP/1.1\r\n",
        "GET /\x7f HTTP/1.1\r\n",
        "GET * HTTP/1.1\r\n",
    ] {
        assert_eq!(refused(line), Refusal::Target, "{line:?}");
    }
    assert_eq!(refused("GET / HTTP/2.0\r\n"), Refusal::Version);
    assert_eq!(refused("PRI * HTTP/2.0\r\n"), Refusal::Version);
    assert_eq!(refused("GET / HTTP/1.1\n"), Refusal::BareLf);
    assert_eq!(refused("GET / HTTP/1.1\r\r\n"), Refusal::BareCr);
    assert_eq!(refused(&format!("GET /{}", "a".repeat(TARGET_BYTES))), Refusal::TargetTooLong);
    assert_eq!(refused(&"A".repeat(METHOD_BYTES + 1)), Refusal::MethodTooLong);
    assert_eq!(refused("\x16\x03\x01\x02"), Refusal::RequestLine);
}

#[test]
fn refuses_malformed_fields() {
    for (lines, refusal) in [
        ("A : b\r\n", Refusal::FieldNameSpace),
        ("A\t: b\r\n", Refusal::FieldNameSpace),
        (" A: b\r\n", Refusal::FieldFolded),
        ("A: b\r\n c\r\n", Refusal::FieldFolded),
        ("A: b\r\n\tc\r\n", Refusal::FieldFolded),
        (": b\r\n", Refusal::FieldName),
        ("A\r\n", Refusal::FieldName),
        ("A(: b\r\n", Refusal::FieldName),
        ("\u{e9}: b\r\n", Refusal::FieldName),
        ("A: b\nC: d\r\n", Refusal::BareLf),
        ("A: b\rC: d\r\n", Refusal::BareCr),
        ("A: b\0\r\n", Refusal::FieldValue),
        ("A: \x01\r\n", Refusal::FieldValue),
        ("A: \x7f\r\n", Refusal::FieldValue),
        ("\n", Refusal::BareLf),
        ("\r\r", Refusal::BareCr),
    ] {
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{lines}")), refusal, "{lines:?}");
    }
    let many = "A: b\r\n".repeat(HEAD_FIELDS + 1);
    assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{many}")), Refusal::TooManyFields);
    let large = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(HEAD_BYTES));
    assert_eq!(refused(&large), Refusal::HeadTooLarge);
    assert_eq!(refused(&format!("{large}\r\n\r\n")), Refusal::HeadTooLarge);
}

#[test]
fn an_absolute_target_names_its_authority() {
    let of = |text: &[u8]| {
        let (head, _) = parsed(text);
        let Start::Request { path, authority, .. } = head.start else { panic!("a request") };
        (path.of(text).to_vec(), authority.map(|span| span.of(text).to_vec()))
    };
    assert_eq!(of(b"GET http://h:1/p?q HTTP/1.1\r\n\r\n"), (b"/p?q".to_vec(), Some(b"h:1".to_vec())));
    assert_eq!(of(b"GET HTTPS://[::1] HTTP/1.1\r\n\r\n"), (b"".to_vec(), Some(b"[::1]".to_vec())));
    assert_eq!(of(b"GET http://h?q HTTP/1.1\r\n\r\n"), (b"?q".to_vec(), Some(b"h".to_vec())));
    assert_eq!(of(b"OPTIONS * HTTP/1.1\r\n\r\n"), (b"*".to_vec(), None));
    assert_eq!(of(b"GET //x/y HTTP/1.1\r\n\r\n"), (b"//x/y".to_vec(), None));
    assert_eq!(of("GET /ü HTTP/1.1\r\n\r\n".as_bytes()), ("/ü".as_bytes().to_vec(), None));
}

#[test]
fn reads_status_lines() {
    let read = |text: &str| response(text.as_bytes(), &mut Head::default());
    for good in
        ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 \r\n\r\n", "HTTP/1.1 299\r\n\r\n", "HTTP/1.1 999 Odd \u{e9}\r\n\r\n"]
    {
        assert_eq!(read(good), Ok(Some(good.len())), "{good:?}");
    }
    for bad in [
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000\r\n\r\n",
        "HTTP/1.1 099 A\r\n\r\n",
        "HTTP/1.1  200\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200\tOK\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "hello",
    ] {
        assert_eq!(read(bad), Err(Refusal::StatusLine), "{bad:?}");
    }
    assert_eq!(read("HTTP/2.0 200 OK\r\n\r\n"), Err(Refusal::Version));
}

#[test]
fn trailers_have_a_bound_of_their_own() {
    let mut fields = Vec::new();
    assert_eq!(trailers(b"\r\n", &mut fields), Ok(Some(2)));
    assert_eq!(trailers(b"A: b\r\n\r\nGET", &mut fields), Ok(Some(8)));
    assert_eq!(fields.len(), 1);
    assert_eq!(trailers(b"A: b\r\n", &mut fields), Ok(None));
    assert_eq!(trailers(b"A b\r\n", &mut fields), Err(Refusal::FieldNameSpace));
    let large = format!("A: {}\r\n\r\n", "b".repeat(TRAILER_BYTES));
    assert_eq!(trailers(large.as_bytes(), &mut fields), Err(Refusal::TrailersTooLarge));
}
