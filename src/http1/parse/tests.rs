//! Valid heads, invalid heads, and heads cut at any byte.

use super::*;
use crate::http::head::HeadRef;

fn refused(text: &str) -> MessageError {
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
    // Heads of both versions are parsed into the same struct.
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
        assert_eq!(refused(line), MessageError::RequestLine, "{line:?}");
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
        assert_eq!(refused(line), MessageError::Target, "{line:?}");
    }
    assert_eq!(refused("GET / HTTP/2.0\r\n"), MessageError::Version);
    assert_eq!(refused("PRI * HTTP/2.0\r\n"), MessageError::Version);
    assert_eq!(refused("GET / HTTP/1.1\n"), MessageError::BareLf);
    assert_eq!(refused("GET / HTTP/1.1\r\r\n"), MessageError::BareCr);
    assert_eq!(refused(&format!("GET /{}", "a".repeat(TARGET_BYTES))), MessageError::TargetTooLong);
    assert_eq!(refused(&"A".repeat(METHOD_BYTES + 1)), MessageError::MethodTooLong);
    assert_eq!(refused("\x16\x03\x01\x02"), MessageError::RequestLine);
}

#[test]
fn refuses_malformed_fields() {
    for (lines, refusal) in [
        ("A : b\r\n", MessageError::FieldNameSpace),
        ("A\t: b\r\n", MessageError::FieldNameSpace),
        (" A: b\r\n", MessageError::FieldFolded),
        ("A: b\r\n c\r\n", MessageError::FieldFolded),
        ("A: b\r\n\tc\r\n", MessageError::FieldFolded),
        (": b\r\n", MessageError::FieldName),
        ("A\r\n", MessageError::FieldName),
        ("A(: b\r\n", MessageError::FieldName),
        ("\u{e9}: b\r\n", MessageError::FieldName),
        ("A: b\nC: d\r\n", MessageError::BareLf),
        ("A: b\rC: d\r\n", MessageError::BareCr),
        ("A: b\0\r\n", MessageError::FieldValue),
        ("A: \x01\r\n", MessageError::FieldValue),
        ("A: \x7f\r\n", MessageError::FieldValue),
        ("\n", MessageError::BareLf),
        ("\r\r", MessageError::BareCr),
    ] {
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{lines}")), refusal, "{lines:?}");
    }
    let many = "A: b\r\n".repeat(HEAD_FIELDS + 1);
    assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{many}")), MessageError::TooManyFields);
    let large = format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(HEAD_BYTES));
    assert_eq!(refused(&large), MessageError::HeadTooLarge);
    assert_eq!(refused(&format!("{large}\r\n\r\n")), MessageError::HeadTooLarge);
}

#[test]
fn a_response_may_have_more_fields_and_control_bytes_in_their_values() {
    let of = |lines: &str| {
        let mut head = Head::default();
        let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let length = response(text.as_bytes(), &mut head)?;
        assert_eq!(length, Some(text.len()), "{lines:?}");
        let value = |field: &Field| String::from_utf8_lossy(field.value_span.of(text.as_bytes())).into_owned();
        Ok(head.fields.iter().map(value).collect::<Vec<String>>())
    };
    for value in ["\x01", "a\x1b[0mb", "\x7f", "\x0b\x0c", "a\x08\x01\x02b", "caf\u{e9}\x1f"] {
        assert_eq!(of(&format!("A: {value}\r\nB: c\r\n")), Ok(vec![value.to_string(), "c".into()]), "{value:?}");
    }
    assert_eq!(of("A: \x01\0\r\n"), Err(MessageError::FieldValue));
    assert_eq!(of("A: \x01\rB: c\r\n"), Err(MessageError::BareCr));
    assert_eq!(of("A: \x01\nB: c\r\n"), Err(MessageError::BareLf));
    assert_eq!(of(&"A: b\r\n".repeat(RESPONSE_FIELDS)).map(|fields| fields.len()), Ok(RESPONSE_FIELDS));
    assert_eq!(of(&"A: b\r\n".repeat(RESPONSE_FIELDS + 1)), Err(MessageError::TooManyFields));
    let mut fields = Vec::new();
    assert_eq!(trailers(b"A: \x01\r\n\r\n", Role::Client, &mut fields), Ok(Some(8)));
    assert_eq!(trailers(b"A: \x01\r\n\r\n", Role::Server, &mut fields), Err(MessageError::FieldValue));
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
        assert_eq!(read(bad), Err(MessageError::StatusLine), "{bad:?}");
    }
    assert_eq!(read("HTTP/2.0 200 OK\r\n\r\n"), Err(MessageError::Version));
}

#[test]
fn trailers_have_a_bound_of_their_own() {
    let mut fields = Vec::new();
    assert_eq!(trailers(b"\r\n", Role::Server, &mut fields), Ok(Some(2)));
    assert_eq!(trailers(b"A: b\r\n\r\nGET", Role::Server, &mut fields), Ok(Some(8)));
    assert_eq!(fields.len(), 1);
    assert_eq!(trailers(b"A: b\r\n", Role::Server, &mut fields), Ok(None));
    assert_eq!(trailers(b"A b\r\n", Role::Server, &mut fields), Err(MessageError::FieldNameSpace));
    let large = format!("A: {}\r\n\r\n", "b".repeat(TRAILER_BYTES));
    assert_eq!(trailers(large.as_bytes(), Role::Server, &mut fields), Err(MessageError::TrailersTooLarge));
}
