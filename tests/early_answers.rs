//! Responses that arrive while the request is still being sent: interim and final ones.

use crate::smuggling::assert_own_answer;
use crate::support::{
    Backend, Balancer, Fault, Framing, Mode, PROTOCOLS, Protocol, Way, Wire, chunked, modes, response, wait_until,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[test]
fn expect_100_continue_works_end_to_end() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            while let Some(head) = peer.request_head() {
                assert_eq!(head.value("Expect"), Some("100-continue"));
                peer.send("HTTP/1.1 100 Continue\r\n\r\n");
                let body = peer.body(Framing::Length(5)).expect("the body after 100");
                peer.send(response("", &body.bytes));
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for _ in 0..3 {
            client.send(EXPECTING);
            assert_eq!(client.response("POST").status(), 100, "{mode:?}");
            client.send("hello");
            assert_eq!(client.response("POST").text(), "hello");
        }
    }
}

#[test]
fn a_backend_may_refuse_before_the_body_is_sent() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            if peer.request_head().is_some() {
                peer.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
                // The body must not follow, not even disguised as a request.
                let _ = peer.rest();
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send(EXPECTING);
        let answer = client.response("POST");
        assert_eq!((answer.status(), answer.text().as_str()), (401, "no"), "{mode:?}");
        // The client may or may not send the five bytes, so they must not be read as a request.
        assert!(answer.connection_has("close"), "{mode:?}: {answer:?}");
        assert_eq!(client.end(), Fault::Fin, "{mode:?}");
        assert_eq!(backend.count(), 1, "{mode:?}");
    }
}

#[test]
fn a_body_that_does_not_wait_for_100_arrives() {
    let backend = Backend::echo();
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    for _ in 0..3 {
        client.send(format!("{EXPECTING}hello"));
        assert_eq!(client.response("POST").text(), "hello", "the backend sent no 100, and none is made up");
    }
}

#[test]
fn interim_responses_are_forwarded_with_their_fields() {
    for mode in modes() {
        let backend = Backend::replying(
            "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>\r\n\r\n\
             HTTP/1.1 103 Early Hints\r\nLink: </c.css>\r\n\r\nHTTP/1.1 199 Unknown\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        );
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for _ in 0..3 {
            let first = client.get("/");
            assert_eq!(first.status(), 103, "{mode:?}");
            assert_eq!(first.values("Link"), ["</a.css>; rel=preload", "</b.js>"]);
            assert_eq!(client.response("GET").values("Link"), ["</c.css>"]);
            assert_eq!(client.response("GET").status(), 199);
            let last = client.response("GET");
            assert_eq!((last.status(), last.text().as_str()), (200, "ok"));
        }
        assert_eq!(backend.count(), 3);
    }
}

#[test]
fn interim_responses_are_kept_from_http_1_0() {
    let backend = Backend::replying(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    client.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi");
    let answer = client.response("POST");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    assert_eq!(client.end(), Fault::Fin);
}

#[test]
fn an_unasked_100_does_no_harm() {
    let backend = Backend::replying("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ok");
    }
}

/// A backend that answers 413 after the head, and then reads the rest, closes, or only waits.
fn early(after: &'static str) -> Backend {
    Backend::serve(move |mut peer| {
        if peer.request_head().is_some() {
            let close = if after == "wait" { "" } else { "Connection: close\r\n" };
            peer.send(format!("HTTP/1.1 413 Content Too Large\r\n{close}Content-Length: 8\r\n\r\ntoo much"));
            match after {
                "read" => _ = peer.rest(),
                "wait" => _ = peer.silent_for(Duration::from_millis(400)),
                _ => {}
            }
        }
    })
}

#[test]
fn an_early_answer_reaches_a_client_that_reads_while_it_uploads() {
    for mode in modes() {
        for after in ["read", "wait", "close"] {
            let backend = early(after);
            let balancer = Balancer::before(mode, &[&backend], &[]);
            let mut client = balancer.connect();
            let sender = Wire::shared(client.socket().clone());
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    let _ = sender.try_send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 33554432\r\n\r\n");
                    for _ in 0..512 {
                        if sender.try_send([b'u'; 1 << 16]).is_err() {
                            break;
                        }
                    }
                });
                let answer = client.response("POST");
                assert_eq!((answer.status(), answer.text().as_str()), (413, "too much"), "{mode:?}, {after}");
                client.socket().shutdown(std::net::Shutdown::Both);
            });
        }
    }
}

#[test]
fn an_early_answer_reaches_a_client_that_reads_only_after_its_upload() {
    for mode in modes() {
        for after in ["read", "wait", "close"] {
            let backend = early(after);
            let balancer = Balancer::before(mode, &[&backend], &[]);
            let mut client = balancer.connect();
            // More than the buffers on the way hold, so that the balancer must read it.
            client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [b"10000\r\n".as_slice(), &[b'u'; 1 << 16], b"\r\n"].concat();
            let sent = (0..64).take_while(|_| client.try_send(&chunk).is_ok()).count();
            let _ = client.try_send("0\r\n\r\n");
            let answer = client.response("POST");
            assert_eq!((answer.status(), answer.text().as_str()), (413, "too much"), "{mode:?}, {after}, sent {sent}");
        }
    }
}

#[test]
fn an_early_answer_does_not_turn_the_rest_of_the_body_into_a_request() {
    let backend = Backend::serve(|mut peer| {
        while let Some(head) = peer.request_head() {
            peer.send(response("", head.target().as_bytes()));
            if head.has("Content-Length") {
                // All remaining bytes belong to the body, and nothing else may follow.
                let _ = peer.body(Framing::Length(60));
            }
        }
    });
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    let body = format!("{:60}", "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
    client.send("POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n");
    let answer = client.response("POST");
    assert_eq!(answer.text(), "/first");
    let _ = client.try_send(format!("{body}GET /second HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(!answer.connection_has("close"), "the rest is small enough to be thrown away: {answer:?}");
    assert_eq!(client.response("GET").text(), "/second");
    assert!(backend.requests().iter().all(|request| request.target() != "/smuggled"));
}

#[test]
fn an_upload_goes_on_after_an_early_complete_2xx() {
    const SIZE: usize = 200_000;
    for protocol in PROTOCOLS {
        for mode in modes() {
            for head in ["200 OK\r\nContent-Length: 8\r\n\r\nreceived", "204 No Content\r\n\r\n"] {
                for framing in [Framing::Length(SIZE as u64), Framing::Chunked] {
                    let taken = Arc::new(AtomicUsize::new(0));
                    let for_script = taken.clone();
                    let backend = Backend::serve(move |mut peer| {
                        while let Some(request) = peer.request_head() {
                            let Some(framing) = peer.framing(&request) else { return };
                            peer.send(format!("HTTP/1.1 {head}"));
                            let Ok(body) = peer.body(framing) else { return };
                            for_script.fetch_add(body.bytes.len(), Ordering::SeqCst);
                        }
                    });
                    let way = Way::to(&backend, protocol);
                    let balancer = Balancer::start(mode, &way.args());
                    let mut client = balancer.connect();
                    let body = vec![b'u'; SIZE];
                    let (field, pieces) = match framing {
                        Framing::Chunked => ("Transfer-Encoding: chunked".into(), chunked(&[&body], &[])),
                        _ => (format!("Content-Length: {SIZE}"), body),
                    };
                    client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n"));
                    let (first, rest) = pieces.split_at(2000);
                    client.send(first);
                    let answer = client.response("POST");
                    assert!(answer.status() < 300 && !answer.connection_has("close"), "{protocol:?} {answer:?}");
                    rest.chunks(20_000).for_each(|piece| client.send(piece));
                    // The connection continues after it.
                    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                    assert_eq!(client.response("GET").status(), answer.status(), "{protocol:?} {mode:?} {head}");
                    wait_until("the backend has all content", || taken.load(Ordering::SeqCst) == SIZE);
                    assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{protocol:?} {mode:?}");
                }
            }
        }
    }
}

#[test]
fn a_client_learns_that_the_backend_reads_no_more_of_its_upload() {
    for protocol in [Protocol::H1, Protocol::H1Tls] {
        for mode in modes() {
            let backend = Backend::serve(|mut peer| {
                if peer.request_head().is_some() {
                    peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
                    // The backend closes, and further data meets a reset.
                }
            });
            let way = Way::to(&backend, protocol);
            let balancer = Balancer::start(mode, &way.args());
            let mut client = balancer.connect();
            client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\nhi");
            assert_eq!(client.response("POST").text(), "ok", "{protocol:?} {mode:?}");
            let _ = client.try_send([b'u'; 1000]);
            assert_eq!(client.end(), Fault::Fin, "{protocol:?} {mode:?}");
            wait_until("nothing is in flight", || balancer.metric("zzz_lb_in_flight", "") == 0);
        }
    }
}

#[test]
fn a_backend_that_resets_during_an_upload_is_502() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            if peer.request_head().is_some() {
                let _ = peer.exactly(1000);
                peer.reset();
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
        client.send([b'u'; 5000]);
        let answer = client.response("POST");
        assert_own_answer(&format!("{mode:?}"), &answer, &[502]);
        assert_eq!(backend.count(), 1, "a request whose body has been sent is not sent again");
    }
}

#[test]
fn a_client_that_breaks_off_its_upload_never_completes_a_request() {
    for mode in modes() {
        for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
            let backend = Backend::echo();
            let balancer = Balancer::before(mode, &[&backend], &[]);
            let client = balancer.connect();
            client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n5\r\nhello\r\n"));
            backend.wait_for_requests(1);
            drop(client);
            backend.wait_until_idle();
            assert_eq!(backend.cut(), 1, "{mode:?}, {framing}: the backend sees that it is cut");
            assert_eq!(balancer.connect().post("/next", b"next").text(), "next");
        }
    }
}
