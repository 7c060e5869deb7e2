//! Backends over HTTP/2 that violate its rules: the client's view, and the isolation of other requests.

use crate::support::frames::{before, fields, good, scripted};
use crate::support::{Fault, Mode, modes, shown, wait_until};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use zzz_lb::http2::ErrorCode;
use zzz_lb::http2::frame::{self, END_HEADERS, END_STREAM, Kind};

/// Violations of the connection's rules that replace a response, and their log text.
fn broken() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let of = |kind, flags, stream, payload: &[u8]| {
        let mut out = Vec::new();
        frame::write(&mut out, kind, flags, stream, payload);
        out
    };
    let head = of(Kind::Headers, END_HEADERS, 1, &[0x88]);
    let endless = [
        of(Kind::Headers, 0, 1, &fields(&[(":status", "200")])),
        of(Kind::Continuation, 0, 1, &fields(&[("x", "y")])).repeat(100),
    ];
    let flood = |frame: Vec<u8>| frame.repeat(5000);
    vec![
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "frame longer than is allowed"),
        ("a long frame", of(Kind::Data, 0, 1, &[0; 20_000]), "frame longer than is allowed"),
        ("a push", of(Kind::PushPromise, END_HEADERS, 1, &[0, 0, 0, 2]), "PUSH_PROMISE"),
        ("an unknown stream", of(Kind::Headers, END_HEADERS, 9, &[0x88]), "not open"),
        ("fields of no table", of(Kind::Headers, END_HEADERS, 1, &[0xff, 0xff]), "cannot be decoded"),
        ("fields without end", endless.concat(), "does not end"),
        ("interrupted fields", [of(Kind::Headers, 0, 1, &[]), head.clone()].concat(), "interrupted"),
        ("a window overflow", of(Kind::WindowUpdate, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), "window larger"),
        ("pings", flood(of(Kind::Ping, 0, 0, &[0; 8])), "too many PING frames"),
        ("settings", flood(of(Kind::Settings, 0, 0, &[])), "too many SETTINGS frames"),
        ("unknown frames", flood(of(Kind::Unknown, 0, 0, &[1])), "without progress"),
        ("interim responses", flood(of(Kind::Headers, END_HEADERS, 1, b"\x08\x03103")), "without progress"),
    ]
}

#[test]
fn a_connection_with_a_protocol_violation_is_closed_and_another_backend_serves() {
    for (what, bytes, said) in broken() {
        for mode in modes() {
            let bad = {
                let bytes = bytes.clone();
                scripted(&[], move |frames, _| {
                    while frames.request().is_some() {
                        let _ = frames.0.try_send(&bytes);
                    }
                })
            };
            let good = good();
            let balancer = before(mode, &[&bad, &good], &[]);
            let mut client = balancer.connect();
            let mut refused = 0;
            for _ in 0..8 {
                let mut answer = client.get("/");
                while answer.status() == 103 {
                    answer = client.response("GET");
                }
                if answer.status() == 502 {
                    refused += 1;
                    balancer.wait_for_log(said);
                } else {
                    assert_eq!((answer.status(), answer.text().as_str()), (200, "good"), "{what} {mode:?}");
                }
            }
            // A request with interim responses cannot be repeated.
            assert_eq!(refused, if what == "interim responses" { 3 } else { 0 }, "{what} {mode:?}");
            let log = balancer.wait_for_log(" down after 3 failures");
            assert!(log.contains("HTTP/2") && log.contains(said), "{what} {mode:?}: {log}");
        }
    }
}

#[test]
fn a_malformed_response_is_a_502_and_leaves_the_connection() {
    let long = "y".repeat(3000);
    let many: Vec<(&str, &str)> = std::iter::repeat_n(("x", long.as_str()), 24).collect();
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("no status", vec![("x", "y")], "malformed status line"),
        ("two", vec![(":status", "200"), (":status", "200")], "pseudo-header"),
        ("a request's", vec![(":status", "200"), (":path", "/")], "pseudo-header"),
        ("behind a field", vec![("x", "y"), (":status", "200")], "pseudo-header"),
        ("101", vec![(":status", "101")], "101"),
        ("a letter", vec![(":status", "2x0")], "malformed status line"),
        ("a line break", vec![(":status", "200"), ("x", "a\r\nSet-Cookie: b")], "control character"),
        ("a NUL", vec![(":status", "200"), ("x", "a\0")], "control character"),
        ("a space", vec![(":status", "200"), ("a b", "c")], "invalid field name"),
        ("chunked", vec![(":status", "200"), ("transfer-encoding", "chunked")], "HTTP/2 does not have"),
        ("connection", vec![(":status", "200"), ("connection", "close")], "HTTP/2 does not have"),
        ("two lengths", vec![(":status", "200"), ("content-length", "1"), ("content-length", "2")], "differing"),
        ("no length", vec![(":status", "200"), ("content-length", "+1")], "invalid Content-Length"),
        ("too large", [vec![(":status", "200")], many].concat(), "head larger"),
        ("ended", vec![(":status", "200"), ("content-length", "10")], "not as long as Content-Length says"),
    ];
    for (what, list, said) in cases {
        let (blocks, ended) = (fields(&list), what == "ended");
        let backend = scripted(&[], move |frames, _| {
            while let Some(stream) = frames.request() {
                let mut out = Vec::new();
                frame::fields(&mut out, stream, &blocks, ended, 16_384);
                let _ = frames.0.try_send(out);
            }
        });
        let balancer = before(Mode::Sp, &[&backend], &[]);
        let mut client = balancer.connect();
        for _ in 0..3 {
            let answer = client.get("/");
            assert_eq!(answer.status(), 502, "{what}: {answer:?}");
            balancer.wait_for_log(said);
        }
        assert_eq!(backend.connections(), 1, "{what}");
    }
}

#[test]
fn a_head_beyond_our_limits_fails_its_own_request_and_counts_against_no_backend() {
    let large = |value: usize| fields(&[(":status", "200"), ("x", &"{".repeat(value))]);
    // A long name that enters the table, and two bytes that copy it, again and again.
    let long = [&b"\x88\x40\x7f\xa1\x1e"[..], &[b'x'; 4000], &[0]].concat();
    let bomb = [long, b"\x7e\x00".repeat(6000)].concat();
    // A decodable block leaves the connection usable.
    for (block, connections) in [(large(70_000), 1), (large(300_000), 2), (bomb, 2)] {
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = seen.clone();
        let backend = scripted(&[], move |frames, nth| {
            if nth == 0 {
                let Some(first) = frames.request() else { return };
                counted.fetch_add(1, SeqCst);
                let Some(second) = frames.request() else { return };
                let mut out = Vec::new();
                frame::fields(&mut out, second, &block, true, 16_384);
                let _ = frames.0.try_send(out);
                frames.answer(first, "good");
            }
            while let Some(stream) = frames.request() {
                frames.answer(stream, "good");
            }
        });
        let good = good();
        let balancer = before(Mode::Sp, &[&backend, &good], &["--health-fails", "1"]);
        // Each backend gets one of two consecutive requests.
        let mut siblings = [balancer.connect(), balancer.connect()];
        siblings.iter().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        wait_until("one is on the connection", || seen.load(SeqCst) == 1);
        let answers = [(); 2].map(|()| balancer.connect().get("/"));
        let refused: Vec<_> = answers.iter().filter(|answer| answer.status() != 200).collect();
        assert_eq!(refused.len(), 1, "{answers:?}");
        assert!(refused[0].status() == 502 && refused[0].text().contains("response is too large"), "{refused:?}");
        for client in &mut siblings {
            assert_eq!(client.response("GET").text(), "good", "{connections}");
            assert_eq!(client.get("/").text(), "good", "{connections}");
        }
        assert_eq!(backend.connections(), connections);
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{connections}");
        let log = balancer.wait_for_log("head larger");
        assert!(!log.contains(" down "), "{log}");
    }
}

#[test]
fn content_has_to_be_as_long_as_was_said() {
    for (length, content) in [("5", "four"), ("5", "sixsix"), ("0", "x"), ("5", "")] {
        for mode in modes() {
            let backend = scripted(&[], move |frames, _| {
                while let Some(stream) = frames.request() {
                    let block = fields(&[(":status", "200"), ("content-length", length)]);
                    frames.send(Kind::Headers, END_HEADERS, stream, &block);
                    frames.send(Kind::Data, END_STREAM, stream, content.as_bytes());
                }
            });
            let balancer = before(mode, &[&backend], &[]);
            let mut client = balancer.connect();
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            match client.try_response("GET") {
                Err((Fault::Fin | Fault::Reset, _)) => {}
                // The head was complete, and no content was expected.
                Ok(answer) if length == "0" => assert_eq!(answer.text(), ""),
                other => panic!("{length} {content:?}: {other:?}"),
            }
            balancer.wait_for_log("not as long as Content-Length says");
        }
    }
}

#[test]
fn a_backend_that_violates_the_protocol_gets_the_error_code() {
    for mode in modes() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let noted = said.clone();
        let backend = scripted(&[], move |frames, _| {
            let Some(stream) = frames.request() else { return };
            frames.send(Kind::PushPromise, END_HEADERS, stream, &[0, 0, 0, 2]);
            while let Some((header, payload)) = frames.read() {
                if header.kind == Kind::Goaway {
                    noted.lock().unwrap().push(payload[4..8].to_vec());
                }
            }
        });
        let balancer = before(mode, &[&backend], &[]);
        assert_eq!(balancer.connect().get("/").status(), 502, "{mode:?}");
        backend.wait_until_idle();
        assert_eq!(*said.lock().unwrap(), [ErrorCode::PROTOCOL_ERROR.0.to_be_bytes()], "{mode:?}");
    }
}

#[test]
fn content_beyond_the_window_ends_the_connection() {
    for mode in modes() {
        let backend = scripted(&[], |frames, _| {
            let Some(stream) = frames.request() else { return };
            frames.send(Kind::Headers, END_HEADERS, stream, &[0x88]);
            while frames.send(Kind::Data, 0, stream, &[b'x'; 16_384]) {}
        });
        let balancer = before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        // The client reads nothing, so that the data to be sent is limited.
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        balancer.wait_for_log("broke HTTP/2: more content than was allowed");
        let cut = client.try_response("GET");
        assert!(matches!(cut, Err((Fault::Fin | Fault::Reset, _))), "{mode:?}: {cut:?}");
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 1, "{mode:?}");
    }
}

/// HTTP/1.1 has the same test in `responses`.
#[test]
fn control_bytes_in_field_values_pass() {
    for mode in modes() {
        let backend = scripted(&[], |frames, _| {
            while let Some(stream) = frames.request() {
                let head = fields(&[(":status", "200"), ("x", "a\x01\x1b[0m\x7f")]);
                frames.send(Kind::Headers, END_HEADERS, stream, &head);
                frames.send(Kind::Data, 0, stream, b"hello");
                frames.send(Kind::Headers, END_HEADERS | END_STREAM, stream, &fields(&[("x-sum", "\x02b")]));
            }
        });
        let balancer = before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            let head = client.until(b"\r\n\r\n").expect("a head");
            assert!(head.starts_with(b"HTTP/1.1 200 OK\r\nx: a\x01\x1b[0m\x7f\r\n"), "{mode:?}: {}", shown(&head));
            let rest = client.until(b"x-sum: \x02b\r\n\r\n").expect("content and trailers");
            assert!(rest.starts_with(b"5\r\nhello\r\n0\r\n"), "{mode:?}: {}", shown(&rest));
        }
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{mode:?}");
    }
}
