//! Requests that must be refused, and unusual ones that must be served (RFC 9112).
//!
//! Every bad request is followed by another, `/smuggled`, in the same write. It must never be answered and
//! never reach a backend.

use crate::support::{Backend, Balancer, DEADLINE, Fault, Message, Mode, VACANT, Wire, modes, shown};

/// The request that follows each bad one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

/// Asserts a local reply: a line of plain text.
#[track_caller]
pub fn assert_own_answer(what: &str, answer: &Message, statuses: &[u16]) {
    assert!(statuses.contains(&answer.status()), "{what}: {statuses:?} wanted, came {answer:?}");
    let kind = answer.value("Content-Type").unwrap_or("");
    assert!(kind.starts_with("text/plain"), "{what}: {answer:?}");
    let text = answer.text();
    let line = text.strip_suffix('\n').unwrap_or(&text);
    assert!(line.len() > 3 && !line.contains('\n'), "{what}: a line that names the reason, in {answer:?}");
}

/// Sends `bytes` on a new connection. Expects one response with such a status, then the end.
#[track_caller]
fn assert_refused(balancer: &Balancer, what: &str, bytes: &[u8], statuses: &[u16]) {
    let mut client = balancer.connect();
    let _ = client.try_send([bytes, SMUGGLED.as_bytes()].concat());
    let answer = match client.try_response("GET") {
        Ok(answer) => answer,
        Err(fault) => panic!("{what}: {}: no answer but {fault:?}", shown(bytes)),
    };
    assert_own_answer(&format!("{what}: {}", shown(bytes)), &answer, statuses);
    assert!(answer.connection_has("close"), "{what}: says close: {answer:?}");
    assert_eq!(client.end(), Fault::Fin, "{what}: closed after the answer");
}

/// A request with one or more additional field lines.
fn with(lines: &str) -> Vec<u8> {
    let latin1: Vec<u8> = lines.chars().map(|c| c as u8).collect();
    [b"GET /bad HTTP/1.1\r\nHost: x\r\n", latin1.as_slice(), b"\r\n\r\n"].concat()
}

/// A POST with these field lines, followed by an empty chunked body.
fn post(lines: &str) -> Vec<u8> {
    format!("POST /bad HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n0\r\n\r\n").into_bytes()
}

/// Sends a table of requests. None of them may reach the backend.
fn refuse_all(cases: &[(&str, Vec<u8>, &[u16])]) {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for (what, bytes, statuses) in cases {
            assert_refused(&balancer, what, bytes, statuses);
        }
        assert_eq!(backend.connections(), 0, "{mode:?}: {:?}", backend.requests());
        assert_eq!(balancer.get("/good"), "backend");
    }
}

#[test]
fn ambiguous_lengths_are_refused() {
    let wide = "18446744073709551616";
    let cases = [
        ("both framings", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        ("both framings, turned", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
        ("both framings, length 0", "Content-Length: 0\r\nTransfer-Encoding: chunked"),
        ("differing", "Content-Length: 5\r\nContent-Length: 6"),
        ("differing in a list", "Content-Length: 5, 6"),
        ("empty", "Content-Length:"),
        ("spaces", "Content-Length:   "),
        ("plus", "Content-Length: +5"),
        ("minus", "Content-Length: -5"),
        ("hex", "Content-Length: 0x5"),
        ("two numbers", "Content-Length: 5 5"),
        ("fraction", "Content-Length: 5.0"),
        ("letters", "Content-Length: five"),
        ("semicolon", "Content-Length: 5;"),
        ("empty element", "Content-Length: 5,"),
        ("empty first element", "Content-Length: ,5"),
        ("past 64 bits", &format!("Content-Length: {wide}")),
        ("far past 64 bits", "Content-Length: 99999999999999999999999999999999"),
    ];
    refuse_all(&cases.map(|(what, lines)| (what, post(lines), &[400][..])));
}

#[test]
fn transfer_codings_other_than_one_final_chunked_are_refused() {
    let cases = [
        ("over chunked", "Transfer-Encoding: chunked, gzip"),
        ("twice", "Transfer-Encoding: chunked, chunked"),
        ("twice in two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ("identity after", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        ("empty", "Transfer-Encoding:"),
        ("vertical tab", "Transfer-Encoding: \x0bchunked"),
        ("trailing NUL", "Transfer-Encoding: chunked\0"),
        ("underscore", "Transfer-Encoding: chunked\r\nTransfer_Encoding: x\x01"),
    ];
    refuse_all(&cases.map(|(what, lines)| (what, post(lines), &[400][..])));
    let unknown = [
        ("another coding", "Transfer-Encoding: gzip"),
        ("under chunked", "Transfer-Encoding: gzip, chunked"),
        ("identity", "Transfer-Encoding: identity"),
        ("identity before", "Transfer-Encoding: identity, chunked"),
        ("prefix", "Transfer-Encoding: xchunked"),
        ("suffix", "Transfer-Encoding: chunkedx"),
        ("parameter", "Transfer-Encoding: chunked;q=1"),
        ("quoted", "Transfer-Encoding: \"chunked\""),
    ];
    refuse_all(&unknown.map(|(what, lines)| (what, post(lines), &[501][..])));
    let old = b"POST /bad HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
    refuse_all(&[("in HTTP/1.0", old, &[400])]);
}

#[test]
fn malformed_field_lines_are_refused() {
    let cases = [
        ("space before the colon", "X : a"),
        ("tab before the colon", "X\t: a"),
        ("space before the colon of a framing field", "Content-Length : 5"),
        ("space before the colon of a coding", "Transfer-Encoding : chunked"),
        ("space in a name", "X y: a"),
        ("no name", ": a"),
        ("no colon", "X"),
        ("parenthesis in a name", "X(y: a"),
        ("control in a name", "X\x01: a"),
        ("NUL in a name", "X\0: a"),
        ("high byte in a name", "X\u{e9}: a"),
        ("folded", "X: a\r\n b"),
        ("folded with a tab", "X: a\r\n\tb"),
        ("folded after an empty value", "X:\r\n b"),
        ("bare CR in a value", "X: a\rb"),
        ("bare CR before CRLF", "X: a\r"),
        ("bare CR before a field", "X: a\rContent-Length: 5"),
        ("bare LF in a value", "X: a\nY: b"),
        ("bare LF at the end", "X: a\n"),
        ("NUL in a value", "X: a\0b"),
        ("SOH in a value", "X: a\x01b"),
        ("ESC in a value", "X: a\x1bb"),
        ("DEL in a value", "X: a\x7fb"),
    ];
    refuse_all(&cases.map(|(what, lines)| (what, with(lines), &[400][..])));
    let first = b"GET /bad HTTP/1.1\r\n Host: x\r\nX: a\r\n\r\n".to_vec();
    let lines = b"GET /bad HTTP/1.1\nHost: x\n\n".to_vec();
    refuse_all(&[("space before the first field", first, &[400]), ("LF for every CRLF", lines, &[400])]);
}

#[test]
fn a_wrong_host_is_refused() {
    let hosts = [
        ("missing", ""),
        ("repeated", "Host: x\r\nHost: y\r\n"),
        ("repeated, the same", "Host: x\r\nHost: x\r\n"),
        ("space", "Host: a b\r\n"),
        ("slash", "Host: a/b\r\n"),
        ("user", "Host: a@b\r\n"),
        ("backslash", "Host: a\\b\r\n"),
        ("question mark", "Host: a?b\r\n"),
        ("number sign", "Host: a#b\r\n"),
        ("port of letters", "Host: a:http\r\n"),
        ("two ports", "Host: a:1:2\r\n"),
        ("open bracket", "Host: [::1\r\n"),
        ("angle", "Host: <a>\r\n"),
    ];
    let cases =
        hosts.map(|(what, lines)| (what, format!("GET /bad HTTP/1.1\r\n{lines}X: a\r\n\r\n").into_bytes(), &[400][..]));
    refuse_all(&cases);
    let absolute = b"GET http://x/bad HTTP/1.1\r\nX: a\r\n\r\n".to_vec();
    refuse_all(&[("missing beside an absolute target", absolute, &[400])]);
}

#[test]
fn malformed_request_lines_are_refused() {
    let cases: [(&str, &str, &[u16]); 26] = [
        ("two spaces", "GET  /bad HTTP/1.1", &[400]),
        ("two spaces before the version", "GET /bad  HTTP/1.1", &[400]),
        ("space at the end", "GET /bad HTTP/1.1 ", &[400]),
        ("space at the front", " GET /bad HTTP/1.1", &[400]),
        ("tabs", "GET\t/bad\tHTTP/1.1", &[400]),
        ("no version", "GET /bad", &[400]),
        ("only a method", "GET", &[400]),
        ("space in the target", "GET /bad bad HTTP/1.1", &[400]),
        ("method no token", "G@T /bad HTTP/1.1", &[400]),
        ("control in the method", "G\x01T /bad HTTP/1.1", &[400]),
        ("NUL in the target", "GET /b\0ad HTTP/1.1", &[400]),
        ("control in the target", "GET /b\x01ad HTTP/1.1", &[400]),
        ("DEL in the target", "GET /b\x7fad HTTP/1.1", &[400]),
        ("bare CR in the target", "GET /b\rad HTTP/1.1", &[400]),
        ("relative target", "GET bad HTTP/1.1", &[400]),
        ("asterisk without OPTIONS", "GET * HTTP/1.1", &[400]),
        ("absolute without a host", "GET http:///bad HTTP/1.1", &[400]),
        ("absolute with a user", "GET http://user@x/bad HTTP/1.1", &[400]),
        ("lower-case protocol", "GET /bad http/1.1", &[400]),
        ("another protocol", "GET /bad ICE/1.1", &[400]),
        ("letter for a version", "GET /bad HTTP/1.x", &[400]),
        ("long version", "GET /bad HTTP/1.10", &[400]),
        ("short version", "GET /bad HTTP/1", &[400]),
        ("version 0.9", "GET /bad HTTP/0.9", &[505]),
        ("version 2", "GET /bad HTTP/2.0", &[505]),
        ("version 3", "GET /bad HTTP/3.0", &[505]),
    ];
    let cases = cases.map(|(what, line, statuses)| (what, format!("{line}\r\nHost: x\r\n\r\n").into_bytes(), statuses));
    refuse_all(&cases);
    let preface = b"PRI * HTTP/2.0\r\n\r\nNO\r\n\r\n".to_vec();
    refuse_all(&[
        ("a preface that is none", preface, &[505]),
        ("TLS hello", b"\x16\x03\x01\x02\x00\x01\r\n\r\n".to_vec(), &[400]),
    ]);
}

#[test]
fn heads_past_the_limits_are_refused() {
    let many =
        |fields: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(fields - 1)).into_bytes();
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "t".repeat(20 * 1024)).into_bytes();
    let endless = [b"GET / HTTP/1.1\r\nHost: x\r\nX: ".as_slice(), &[b'y'; 70 * 1024]].concat();
    let cases: [(&str, Vec<u8>, &[u16]); 5] = [
        ("101 fields", many(101), &[431]),
        ("64 KiB and one byte", head_of(64 * 1024 + 1), &[431]),
        ("a field without end", endless, &[431]),
        ("a target past 16 KiB", long_target, &[414]),
        ("a target without end", [b"GET /".as_slice(), &[b't'; 70 * 1024]].concat(), &[414]),
    ];
    refuse_all(&cases);
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    for bytes in [many(100), head_of(64 * 1024)] {
        let mut client = balancer.connect();
        client.send(&bytes);
        assert_eq!(client.response("GET").status(), 200, "{}", shown(&bytes));
    }
}

/// A head of exactly `len` bytes, in a few large fields.
fn head_of(len: usize) -> Vec<u8> {
    let mut head = b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec();
    while head.len() + 2 < len {
        let room = len - 2 - head.len();
        let line = if room > 9000 { 8000 } else { room };
        head.extend_from_slice(b"X: ");
        head.resize(head.len() + line - 5, b'y');
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    assert_eq!(head.len(), len);
    head
}

#[test]
fn malformed_chunks_are_refused_and_never_complete_a_request() {
    let long = "e".repeat(300);
    let many = format!("1;{}\r\na\r\n", "e".repeat(200)).repeat(100);
    let trailers = format!("0\r\nX: {}\r\n\r\n", "t".repeat(9000));
    let cases: [(&str, &str, &[u16]); 26] = [
        ("no size", "\r\nabc\r\n0\r\n\r\n", &[400]),
        ("not hex", "g\r\nabc\r\n0\r\n\r\n", &[400]),
        ("minus", "-3\r\nabc\r\n0\r\n\r\n", &[400]),
        ("plus", "+3\r\nabc\r\n0\r\n\r\n", &[400]),
        ("prefix", "0x3\r\nabc\r\n0\r\n\r\n", &[400]),
        ("space before", " 3\r\nabc\r\n0\r\n\r\n", &[400]),
        ("space after", "3 \r\nabc\r\n0\r\n\r\n", &[400]),
        ("underscore", "1_0\r\nabc\r\n0\r\n\r\n", &[400]),
        ("two numbers", "3 3\r\nabc\r\n0\r\n\r\n", &[400]),
        ("past 64 bits", "10000000000000000\r\nabc\r\n0\r\n\r\n", &[400]),
        ("past 64 bits, wrapping to 3", "10000000000000003\r\nabc\r\n0\r\n\r\n", &[400]),
        ("LF after the size", "3\nabc\r\n0\r\n\r\n", &[400]),
        ("CR after the size", "3\rabc\r\n0\r\n\r\n", &[400]),
        ("data longer than the size", "3\r\nabcd\r\n0\r\n\r\n", &[400]),
        ("LF after the data", "3\r\nabc\n0\r\n\r\n", &[400]),
        ("nothing after the data", "3\r\nabc0\r\n\r\n", &[400]),
        ("LF in an extension", "3;a\nb\r\nabc\r\n0\r\n\r\n", &[400]),
        ("CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n", &[400]),
        ("NUL in an extension", "3;a\0b\r\nabc\r\n0\r\n\r\n", &[400]),
        ("a long extension", &format!("3;{long}\r\nabc\r\n0\r\n\r\n"), &[400]),
        ("many extensions", &many, &[400]),
        ("large trailers", &trailers, &[431]),
        ("many trailers", &format!("0\r\n{}\r\n", "X: y\r\n".repeat(101)), &[431]),
        ("a space before a trailer's colon", "0\r\nX : y\r\n\r\n", &[400]),
        ("a folded trailer", "0\r\nX: y\r\n z\r\n\r\n", &[400]),
        ("LF in the trailers", "0\r\nX: y\n\r\n", &[400]),
    ];
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for (what, body, statuses) in &cases {
            let head = "POST /bad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            assert_refused(&balancer, what, format!("{head}{body}").as_bytes(), statuses);
        }
        assert_eq!(backend.count(), 0, "{mode:?}: {:?}", backend.requests());
        assert_eq!(balancer.get("/good"), "backend");
    }
}

#[test]
fn methods_and_expectations_not_served_are_answered_in_plain_text() {
    let cases: [(&str, &str, u16); 4] = [
        ("CONNECT", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 405),
        ("CONNECT with a path", "CONNECT /x HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("TRACE", "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("another expectation", "GET / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 417),
    ];
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    for (what, bytes, status) in cases {
        let mut client = balancer.connect();
        client.send(bytes);
        let answer = client.response("GET");
        assert_own_answer(what, &answer, &[status]);
        if answer.connection_has("close") {
            assert_eq!(client.end(), Fault::Fin, "{what}");
        } else {
            assert_eq!(client.get("/after").text(), "backend", "{what}");
        }
    }
    assert!(backend.requests().iter().all(|request| request.target() == "/after"));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let balancer = Balancer::start(Mode::Sp, &["-b", VACANT]);
    let mut client = balancer.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = client.response("HEAD");
    assert_eq!(answer.status(), 502, "{answer:?}");
    assert_eq!(client.end(), Fault::Fin);
}

#[test]
fn unusual_but_valid_requests_are_served() {
    let cases: [(&str, &str, &str, &str); 12] = [
        ("absolute", "GET http://Other.example:81/p?q HTTP/1.1\r\nHost: x\r\n\r\n", "GET /p?q", "Other.example:81"),
        ("absolute in capitals", "GET HTTP://o.example/ HTTP/1.1\r\nHost: x\r\n\r\n", "GET /", "o.example"),
        ("absolute without a path", "GET http://o.example HTTP/1.1\r\nHost: x\r\n\r\n", "GET /", "o.example"),
        ("absolute, query only", "GET http://o.example?q HTTP/1.1\r\nHost: x\r\n\r\n", "GET /?q", "o.example"),
        ("absolute OPTIONS", "OPTIONS http://o.example HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS *", "o.example"),
        ("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS *", "x"),
        ("any token", "!#$%&'*+-.^_`|~09az / HTTP/1.1\r\nHost: x\r\n\r\n", "!#$%&'*+-.^_`|~09az /", "x"),
        ("a lower-case method", "get / HTTP/1.1\r\nHost: x\r\n\r\n", "get /", "x"),
        ("an empty line first", "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /", "x"),
        ("a later minor version", "GET / HTTP/1.2\r\nHost: x\r\n\r\n", "GET /", "x"),
        ("an address for a host", "GET / HTTP/1.1\r\nhOST:[::1]:80\r\n\r\n", "GET /", "[::1]:80"),
        ("a colon without a port", "GET / HTTP/1.1\r\nHost: x:\r\n\r\n", "GET /", "x:"),
    ];
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for (what, bytes, line, host) in &cases {
            let mut client = balancer.connect();
            client.send(bytes);
            assert_eq!(client.response("GET").status(), 200, "{what}");
            let request = backend.last();
            assert_eq!(request.start, format!("{line} HTTP/1.1"), "{what}");
            assert_eq!(request.value("Host"), Some(*host), "{what}");
            assert_eq!(client.get("/next").status(), 200, "{what}: the connection goes on");
        }
    }
}

#[test]
fn one_length_given_twice_is_forwarded_once() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    for lines in ["Content-Length: 5, 5", "Content-Length: 5\r\nContent-Length: 5"] {
        let mut client = balancer.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\nhello"));
        assert_eq!(client.response("POST").status(), 200, "{lines}");
        assert_eq!(backend.last().values("Content-Length"), ["5"], "{lines}");
        assert_eq!(backend.last().text(), "hello");
    }
}

#[test]
fn http_1_0_closes_unless_keep_alive_is_asked_for() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.0\r\n\r\n");
        let answer = client.response("GET");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "backend"));
        assert_eq!(client.end(), Fault::Fin, "{mode:?}");
        assert_eq!(backend.last().values("Host").len(), 1, "HTTP/1.1 to the backend needs a Host");

        let mut client = balancer.connect();
        for _ in 0..3 {
            client.send("GET / HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n");
            let answer = client.response("GET");
            assert_eq!(answer.text(), "backend");
            assert!(answer.connection_has("keep-alive"), "{answer:?}");
        }
    }
}

#[test]
fn close_is_honoured_and_said_back() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{SMUGGLED}"));
        let answer = client.response("GET");
        assert!(answer.connection_has("close"), "{answer:?}");
        assert_eq!(client.end(), Fault::Fin);
        assert_eq!(backend.count(), 1, "what follows a last request is not served");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            while let Some(request) = peer.request() {
                // The first takes longest. A hasty balancer would answer the others first.
                if request.target() == "/0" {
                    std::thread::sleep(DEADLINE / 400);
                }
                peer.send(crate::support::response("", request.target().as_bytes()));
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        let posts = (0..20).map(|n| {
            let body = "b".repeat(n * 7 % 13);
            format!("POST /{n} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        });
        client.send(posts.collect::<String>());
        for n in 0..20 {
            assert_eq!(client.response("POST").text(), format!("/{n}"), "{mode:?}");
        }
    }
}

#[test]
fn thousands_of_pipelined_requests_are_answered_in_order() {
    for mode in modes() {
        let backend = Backend::echo();
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        let sender = Wire::shared(client.socket().clone());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let all: String = (0..3000).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
                sender.send(all);
            });
            for n in 0..3000 {
                assert_eq!(client.response("GET").value("Echo-Target"), Some(format!("/{n}").as_str()), "{mode:?}");
            }
        });
    }
}

#[test]
fn a_request_split_anywhere_is_served() {
    let backend = Backend::echo();
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let bytes =
        b"\r\nPOST /split HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n";
    let mut client = balancer.connect();
    for at in 1..bytes.len() {
        client.send(&bytes[..at]);
        std::thread::yield_now();
        client.send(&bytes[at..]);
        assert_eq!(client.response("POST").text(), "abc", "split at {at}");
    }
    for byte in bytes {
        client.send([*byte]);
    }
    assert_eq!(client.response("POST").text(), "abc");
}
