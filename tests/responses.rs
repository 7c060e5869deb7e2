//! Malformed responses of backends (RFC 9112): the client gets 502 and nothing of them.

use crate::smuggling::assert_own_answer;
use crate::support::{Backend, Balancer, Fault, Gate, Mode, Peer, chunked, modes, shown};
use std::sync::{Arc, Mutex};

/// A backend that answers every request with the bytes in the cell, and then closes if the cell says so.
fn scripted(reply: &Arc<Mutex<(Vec<u8>, bool)>>) -> Backend {
    let reply = reply.clone();
    Backend::serve(move |mut peer: Peer| {
        while peer.request().is_some() {
            let (bytes, close) = reply.lock().unwrap().clone();
            if peer.try_send(&bytes).is_err() || close {
                return;
            }
        }
    })
}

#[test]
fn malformed_responses_become_502() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(257));
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "y".repeat(70 * 1024));
    let cases: [(&str, &str, bool); 41] = [
        ("nothing", "", true),
        ("garbage", "garbage\r\n\r\n", false),
        ("another protocol", "SSH-2.0-OpenSSH_9.0\r\n", true),
        ("binary", "\x00\x01\x02\x03\x04\r\n\r\n", false),
        ("half a status line", "HTTP/1.1 20", true),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-", true),
        ("two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("letters", "HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n", false),
        ("below 100", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/2", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("lower case", "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("no version", "HTTP 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("two spaces", "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("a control in the reason", "HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n", false),
        ("folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", false),
        ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", false),
        ("one bare LF", "HTTP/1.1 200 OK\r\nX: a\nY: b\r\nContent-Length: 0\r\n\r\n", false),
        ("bare CR", "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n", false),
        ("NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", false),
        ("space before a colon", "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n", false),
        ("no colon", "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n", false),
        ("no name", "HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n", false),
        ("space before the first field", "HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 0\r\n\r\n", false),
        ("both framings", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", false),
        ("two lengths in a list", "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nhello", false),
        ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello", false),
        ("an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello", false),
        ("a wide length", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nhello", false),
        ("another coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello", true),
        ("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", false),
        (
            "both framings in HTTP/1.0",
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            false,
        ),
        ("many fields", &many, false),
        ("a large head", &large, false),
        ("101 unasked", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", false),
        ("NUL behind another control", "HTTP/1.1 200 OK\r\nX: a\x01\0b\r\nContent-Length: 0\r\n\r\n", false),
        ("a control in a coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n", false),
        ("a control in a length", "HTTP/1.1 200 OK\r\nContent-Length: 5\x0c\r\n\r\nhello", false),
        ("only 103", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 2x0 OK\r\n\r\n", false),
        ("an HTTP/0.9 page", "<html><body>hello</body></html>\r\n", true),
    ];
    for mode in modes() {
        let reply = Arc::new(Mutex::default());
        let backend = scripted(&reply);
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for (what, bytes, close) in &cases {
            *reply.lock().unwrap() = (bytes.as_bytes().to_vec(), *close);
            let mut client = balancer.connect();
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            let mut answer = client.response("GET");
            if *what == "only 103" {
                assert_eq!(answer.status(), 103, "the hints were well");
                answer = client.response("GET");
            }
            assert_own_answer(&format!("{mode:?}: {what}: {}", shown(bytes.as_bytes())), &answer, &[502]);
            assert!(!answer.text().contains("hello") && !answer.has("X"), "{what}: {answer:?}");
            assert!(!answer.connection_has("close"), "{what}: the client's connection goes on: {answer:?}");
        }
        // Such a connection is not reused, and the bad responses do not affect a good one.
        backend.wait_until_idle();
        *reply.lock().unwrap() = (crate::support::response("", b"good"), false);
        assert_eq!(balancer.get("/good"), "good");
    }
}

#[test]
fn unknown_status_codes_pass_as_numbers() {
    let reply = Arc::new(Mutex::default());
    let backend = scripted(&reply);
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    for status in [200, 203, 299, 399, 418, 499, 507, 599] {
        *reply.lock().unwrap() = (format!("HTTP/1.1 {status} \r\nContent-Length: 2\r\n\r\nok").into_bytes(), false);
        let response = client.get("/");
        assert_eq!((response.status(), response.text().as_str()), (status, "ok"));
    }
}

#[test]
fn bytes_after_a_response_reach_no_client() {
    for mode in modes() {
        let poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        let backend = Backend::replying(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{poison}"));
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for n in 0..10 {
            assert_eq!(balancer.get(&format!("/{n}")), "ok", "{mode:?}");
        }
        assert_eq!(backend.connections(), 10, "a connection with bytes left over is not used again");
    }
}

#[test]
fn bytes_after_a_response_without_a_body_reach_no_client() {
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\npoison"),
    ] {
        let backend = Backend::replying(head);
        let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
        let mut client = balancer.connect();
        for n in 0..5 {
            client.send(format!("{method} /{n} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert!(matches!(client.response(method).status(), 200 | 204 | 304), "{head}");
        }
        assert_eq!(backend.count(), 5);
        assert_eq!(backend.connections(), 5, "{head}");
    }
}

#[test]
fn bytes_on_an_idle_connection_close_it() {
    for mode in modes() {
        let answered = Gate::shut();
        let gate = answered.clone();
        let backend = Backend::serve(move |mut peer| {
            while let Some(request) = peer.request() {
                peer.send(crate::support::response("", b"ok"));
                if request.target() == "/poison" {
                    // The client has its response first, so that these bytes come on an idle connection.
                    assert!(gate.pass());
                    let _ = peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
                    assert!(matches!(peer.end(), Fault::Fin | Fault::Reset), "the balancer closes it");
                    return;
                }
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        assert_eq!(balancer.get("/poison"), "ok");
        answered.open();
        backend.wait_until_idle();
        for n in 0..5 {
            assert_eq!(balancer.get(&format!("/{n}")), "ok", "{mode:?}");
        }
    }
}

#[test]
fn control_bytes_in_field_values_pass() {
    for mode in modes() {
        let content = chunked(&[b"hello"], &[]).strip_suffix(b"\r\n").expect("an empty line").to_vec();
        let head = b"HTTP/1.1 200 OK\r\nX: a\x01\x1b[0m\x7f\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let backend = Backend::replying([head, content, b"X-Sum: \x02b\r\n\r\n".to_vec()].concat());
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            let head = client.until(b"\r\n\r\n").expect("a head");
            assert!(head.starts_with(b"HTTP/1.1 200 OK\r\nX: a\x01\x1b[0m\x7f\r\n"), "{mode:?}: {}", shown(&head));
            let rest = client.until(b"X-Sum: \x02b\r\n\r\n").expect("content and trailers");
            assert!(rest.starts_with(b"5\r\nhello\r\n0\r\n"), "{mode:?}: {}", shown(&rest));
        }
        assert_eq!(backend.connections(), 1, "{mode:?}");
    }
}

#[test]
fn both_framings_of_a_response_without_content_pass_and_its_connection_is_not_used_again() {
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n";
    for (method, status) in [("HEAD", 200), ("GET", 304), ("GET", 204)] {
        for mode in modes() {
            let backend = Backend::replying(format!("HTTP/1.1 {status} X\r\n{both}"));
            let balancer = Balancer::before(mode, &[&backend], &[]);
            let mut client = balancer.connect();
            for _ in 0..3 {
                client.send(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
                let answer = client.response(method);
                assert_eq!((answer.status(), answer.value("X")), (status, Some("y")), "{mode:?} {method}");
                assert!(!answer.has("Content-Length"), "a sender of both keeps one at most: {answer:?}");
                assert!(!answer.connection_has("close"), "{answer:?}");
            }
            assert_eq!((backend.count(), backend.connections()), (3, 3), "{mode:?} {method} {status}");
        }
    }
}

#[test]
fn a_chunked_response_of_http_1_0_is_decoded_and_its_connection_closed() {
    for mode in modes() {
        let reply = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n";
        let backend = Backend::replying([reply.as_bytes(), &chunked(&[b"he", b"llo"], &[])].concat());
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), "hello", "{mode:?}");
        }
        assert_eq!((backend.count(), backend.connections()), (3, 3), "{mode:?}");
    }
}
