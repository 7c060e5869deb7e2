//! Backend connections that carry many requests: their fate if one stalls, ends or is lost, and other frames on
//! the connection.

use crate::support::frames::{Frames, before, good, scripted};
use crate::support::{Backend, Balancer, Message, Mode, Protocol, Way, Wire, modes, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use zzz_lb::http2::ErrorCode;
use zzz_lb::http2::frame::{ACK, END_HEADERS, END_STREAM, Kind};

/// Sends a request on each of several clients, and collects the responses.
fn at_once(balancer: &Balancer, count: usize, request: &str) -> Vec<Message> {
    let mut clients: Vec<Wire> = (0..count).map(|_| balancer.connect()).collect();
    clients.iter().for_each(|client| client.send(request));
    clients.iter_mut().map(|client| client.response("GET")).collect()
}

#[test]
fn streams_beyond_a_goaway_are_retried_and_the_others_served() {
    for mode in modes() {
        // Each connection serves one request, and sends GOAWAY when it has three.
        let backend = scripted(&[], |frames, _| {
            let Some(first) = frames.request() else { return };
            frames.answer(first, "good");
            let Some(second) = frames.request() else { return };
            let last = [&second.to_be_bytes()[..], &[0; 4]].concat();
            frames.send(Kind::Goaway, 0, 0, &last);
            // Once the PING has been acknowledged nothing more comes, though more may have been on its way.
            frames.send(Kind::Ping, 0, 0, b"is it so");
            while frames.read().is_some_and(|(header, _)| header.kind != Kind::Ping || !header.has(ACK)) {}
            frames.answer(second, "good");
            while frames.read().is_some() {}
        });
        let balancer = before(mode, &[&backend], &[]);
        for request in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"]
        {
            for _ in 0..5 {
                for answer in at_once(&balancer, 6, request) {
                    assert_eq!((answer.status(), answer.text().as_str()), (200, "good"), "{mode:?}");
                }
            }
        }
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    }
}

#[test]
fn a_backend_that_ends_every_connection_at_once_is_not_followed_for_ever() {
    for mode in modes() {
        let backend = scripted(&[], |frames, _| {
            frames.send(Kind::Goaway, 0, 0, &[0; 8]);
            while frames.read().is_some() {}
        });
        let balancer = before(mode, &[&backend], &[]);
        let mut clients: Vec<Wire> = (0..20).map(|_| balancer.connect()).collect();
        clients.iter().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        for client in &mut clients {
            let answer = client.response("GET");
            assert_eq!(answer.status(), 502, "{mode:?}");
            assert!(answer.text().contains("gave the request up"), "{}", answer.text());
        }
        assert!(backend.connections() <= 20 * 8, "{} connections", backend.connections());
    }
}

#[test]
fn a_refused_stream_is_retried_for_every_method() {
    for mode in modes() {
        let refused = Arc::new(AtomicUsize::new(0));
        let counted = refused.clone();
        let backend = scripted(&[], move |frames, _| {
            while let Some(stream) = frames.request() {
                if counted.fetch_add(1, SeqCst).is_multiple_of(2) {
                    frames.send(Kind::RstStream, 0, stream, &ErrorCode::REFUSED_STREAM.0.to_be_bytes());
                } else {
                    frames.answer(stream, "good");
                }
            }
        });
        let balancer = before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for _ in 0..10 {
            client.send("PATCH / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(client.response("PATCH").text(), "good", "{mode:?}");
        }
        assert_eq!(refused.load(SeqCst), 20);
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    }
}

#[test]
fn requests_that_one_backend_refuses_go_to_another() {
    let refuses = |frames: &mut Frames, stream: u32| {
        frames.send(Kind::RstStream, 0, stream, &ErrorCode::REFUSED_STREAM.0.to_be_bytes())
    };
    let ends = |frames: &mut Frames, _| frames.send(Kind::Goaway, 0, 0, &[0; 8]);
    for declines in [refuses, ends] {
        let unwilling = scripted(&[], move |frames, _| {
            while let Some(stream) = frames.request() {
                declines(frames, stream);
            }
        });
        // It always has more requests than the other backend, which therefore gets the next ones.
        let busy = scripted(&[], |frames, _| {
            let mut open = Vec::new();
            while let Some(stream) = frames.request() {
                open.push(stream);
                if open.len() == 10 {
                    open.drain(..).for_each(|stream| assert!(frames.answer(stream, "good")));
                }
            }
        });
        let balancer = before(Mode::Sp, &[&unwilling, &busy], &["-s", "least_requests"]);
        for _ in 0..3 {
            for answer in at_once(&balancer, 10, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n") {
                assert_eq!(answer.text(), "good");
            }
        }
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    }
}

#[test]
fn a_reset_stream_is_retried_only_if_that_is_safe() {
    for mode in modes() {
        let backend = scripted(&[], |frames, _| {
            while let Some(stream) = frames.request() {
                frames.send(Kind::RstStream, 0, stream, &ErrorCode::INTERNAL_ERROR.0.to_be_bytes());
            }
        });
        let good = good();
        let balancer = before(mode, &[&backend, &good], &["--health-fails", "1000", "--retry-budget", "100"]);
        let mut client = balancer.connect();
        (0..10).for_each(|_| assert_eq!(client.get("/").text(), "good", "{mode:?}"));
        let mut refused = 0;
        for _ in 0..10 {
            client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
            let answer = client.response("POST");
            if answer.status() == 502 {
                balancer.wait_for_log("INTERNAL_ERROR");
                refused += 1;
            }
        }
        assert_eq!(refused, 5, "{mode:?}: each second POST, none twice");
    }
}

#[test]
fn no_more_streams_are_opened_than_the_backend_allows() {
    let (more, full) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (noted, counted) = (more.clone(), full.clone());
    // Three at once. None is answered before all have arrived.
    let backend = scripted(&[0, 3, 0, 0, 0, 3], move |frames, _| {
        let mut open = Vec::new();
        while open.len() < 3 {
            let Some(stream) = frames.request() else { return };
            open.push(stream);
        }
        noted.fetch_add(usize::from(!frames.0.silent_for(Duration::from_millis(100))), SeqCst);
        counted.fetch_add(1, SeqCst);
        wait_until("twelve connections have three each", || counted.load(SeqCst) == 12);
        open.into_iter().for_each(|stream| assert!(frames.answer(stream, "good")));
        while frames.request().is_some() {}
    });
    let balancer = before(Mode::Sp, &[&backend], &[]);
    for answer in at_once(&balancer, 36, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") {
        assert_eq!(answer.text(), "good");
    }
    assert_eq!(more.load(SeqCst), 0, "more than three were opened");
    assert_eq!(backend.connections(), 12, "as few as can be");
}

#[test]
fn a_backend_that_allows_no_streams_is_down() {
    for mode in modes() {
        let none = scripted(&[0, 3, 0, 0, 0, 0], |frames, _| {
            // A request that came before the settings took effect.
            while let Some(stream) = frames.request() {
                frames.send(Kind::RstStream, 0, stream, &ErrorCode::REFUSED_STREAM.0.to_be_bytes());
            }
        });
        let good = good();
        let args = ["--connect-timeout", "200ms", "--health-interval", "1h"];
        let balancer = before(mode, &[&none, &good], &args);
        let mut client = balancer.connect();
        let is_down = || balancer.log().contains(" down after 3 failures (allows no HTTP/2 streams)");
        wait_until("it is down", || {
            assert_eq!(client.get("/").text(), "good", "{mode:?}\n{}", balancer.log());
            is_down()
        });
        let alone = before(mode, &[&none], &args);
        assert_eq!(alone.connect().get("/").status(), 502, "{mode:?}");
    }
}

#[test]
fn a_backend_that_says_nothing_costs_its_timeouts_and_no_more() {
    for mode in modes() {
        let silent = Backend::serve(|mut peer| drop(peer.rest()));
        let good = good();
        let args = ["--connect-timeout", "200ms", "--response-timeout", "300ms"];
        let balancer = before(mode, &[&silent, &good], &args);
        let mut client = balancer.connect();
        for _ in 0..6 {
            let answer = client.get("/");
            assert!(matches!(answer.status(), 200 | 504), "{mode:?}: {answer:?}");
        }
        balancer.wait_for_log("timed out responding");
        assert_eq!(client.get("/").text(), "good");
    }
}

#[test]
fn a_client_that_goes_has_its_stream_reset_and_no_other() {
    for mode in modes() {
        let reset = Arc::new(AtomicUsize::new(0));
        let seen = reset.clone();
        let backend = scripted(&[], move |frames, _| {
            while let Some((header, _)) = frames.read() {
                match header.kind {
                    Kind::Headers => drop(frames.send(Kind::Headers, END_HEADERS, header.stream, &[0x88])),
                    Kind::RstStream => drop(seen.fetch_add(1, SeqCst)),
                    _ => {}
                }
            }
        });
        let balancer = before(mode, &[&backend], &[]);
        for _ in 0..3 {
            let mut client = balancer.connect();
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(client.head().expect("a head").status(), 200);
            client.reset();
        }
        wait_until("three streams are reset", || reset.load(SeqCst) == 3);
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{mode:?}");
    }
}

#[test]
fn a_connection_lost_with_many_streams_is_one_failure() {
    // One worker, because only its clients share connections.
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let bad = scripted(&[], move |frames, _| {
        // The first five get no response, and the connection closes.
        while let Some(stream) = frames.request() {
            match counted.fetch_add(1, SeqCst) {
                0..4 => {}
                4 => return,
                _ => _ = frames.answer(stream, "good"),
            }
        }
    });
    let good = good();
    let balancer = before(Mode::Sp, &[&bad, &good], &["--retry-budget", "100"]);
    for answer in at_once(&balancer, 10, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") {
        assert_eq!((answer.status(), answer.text().as_str()), (200, "good"));
    }
    assert_eq!(seen.load(SeqCst), 5);
    assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 1);
}

/// A field line with a name and value of this total length.
fn long_field(bytes: usize) -> String {
    format!("X-Big: {}\r\n", "y".repeat(bytes))
}

#[test]
fn a_request_that_ends_connections_affects_others_once_and_ejects_no_backend() {
    let (offences, siblings) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let serve = || {
        let (offences, siblings) = (offences.clone(), siblings.clone());
        scripted(&[], move |frames, _| {
            let mut open = Vec::new();
            loop {
                if frames.0.silent_for(Duration::from_millis(5)) {
                    // No request is answered before all who get the fault have seen it.
                    if offences.load(SeqCst) == 3 {
                        open.drain(..).for_each(|stream| assert!(frames.answer(stream, "good")));
                    }
                    continue;
                }
                let Some((header, payload)) = frames.read() else { return };
                match header.kind {
                    Kind::Settings if !header.has(ACK) => drop(frames.send(Kind::Settings, ACK, 0, &[])),
                    Kind::Headers if payload.len() > 10_000 => {
                        offences.fetch_add(1, SeqCst);
                        let last = header.stream.to_be_bytes();
                        let code = ErrorCode::ENHANCE_YOUR_CALM.0.to_be_bytes();
                        frames.send(Kind::Goaway, 0, 0, &[last, code].concat());
                        return;
                    }
                    Kind::Headers => {
                        siblings.fetch_add(1, SeqCst);
                        open.push(header.stream);
                    }
                    _ => {}
                }
            }
        })
    };
    let backends = [serve(), serve(), serve()];
    let balancer = before(Mode::Sp, &backends.each_ref(), &["--retry-budget", "100"]);
    let mut clients: Vec<Wire> = (0..6).map(|_| balancer.connect()).collect();
    clients.iter().for_each(|client| client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
    wait_until("each backend has two", || siblings.load(SeqCst) == 6);
    let mut poisoner = balancer.connect();
    poisoner.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", long_field(15_000)));
    let answer = poisoner.response("GET");
    assert_eq!(answer.status(), 502);
    balancer.wait_for_log("ENHANCE_YOUR_CALM");
    let answers: Vec<Message> = clients.iter_mut().map(|client| client.response("POST")).collect();
    let served = answers.iter().filter(|answer| answer.status() == 200).count();
    assert_eq!(served, 4, "two were on the connection that it met first");
    assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    let log = balancer.wait_for_log("ended the HTTP/2 connection: ENHANCE_YOUR_CALM");
    let noted = log.lines().filter(|line| line.contains(" backend: ") && line.contains("ENHANCE_YOUR_CALM")).count();
    assert!(noted <= 3 && !log.contains(" down "), "{log}");
}

#[test]
fn a_backend_that_ends_connections_by_its_own_fault_is_down() {
    for mode in modes() {
        let bad = scripted(&[], |frames, _| {
            if let Some(stream) = frames.request() {
                let code = ErrorCode::INTERNAL_ERROR.0;
                frames.send(Kind::Goaway, 0, 0, &[stream.to_be_bytes(), code.to_be_bytes()].concat());
            }
        });
        let good = good();
        let balancer = before(mode, &[&bad, &good], &["--health-interval", "1h"]);
        let mut client = balancer.connect();
        let refused = (0..40).filter(|_| client.post("/", b"").status() == 502).count();
        assert!((1..=3).contains(&refused), "{mode:?}: {refused} are lost");
        let log = balancer.wait_for_log(" down after 3 failures");
        assert!(log.contains("ended the HTTP/2 connection: INTERNAL_ERROR"), "{log}");
    }
}

#[test]
fn a_head_larger_than_the_backend_takes_is_refused_and_not_sent() {
    for mode in modes() {
        // SETTINGS_MAX_HEADER_LIST_SIZE of 2,000.
        let backend = scripted(&[0, 6, 0, 0, 0x07, 0xd0], |frames, _| {
            while let Some((header, payload)) = frames.read() {
                match header.kind {
                    Kind::Settings if !header.has(ACK) => _ = frames.send(Kind::Settings, ACK, 0, &[]),
                    Kind::Headers if payload.len() > 2_000 => return,
                    Kind::Headers => _ = frames.answer(header.stream, "good"),
                    Kind::RstStream => return,
                    _ => {}
                }
            }
        });
        let balancer = before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), "good");
            client.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", long_field(3_000)));
            let answer = client.response("GET");
            assert_eq!(answer.status(), 431, "{mode:?}: {}", answer.text());
        }
        assert_eq!(client.get("/").text(), "good", "{mode:?}");
        assert!(backend.connections() <= 2, "{mode:?}");
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{mode:?}");
    }
}

#[test]
fn an_upload_is_complete_with_any_number_of_window_updates() {
    const PIECE: usize = 4096;
    for mode in modes() {
        let backend = scripted(&[], |frames, _| {
            let mut left = 0;
            while let Some((header, payload)) = frames.read() {
                if header.kind == Kind::Settings && !header.has(ACK) {
                    frames.send(Kind::Settings, ACK, 0, &[]);
                }
                if header.kind != Kind::Data {
                    continue;
                }
                left += payload.len();
                while left >= PIECE {
                    left -= PIECE;
                    for stream in [0, header.stream] {
                        frames.send(Kind::WindowUpdate, 0, stream, &(PIECE as u32).to_be_bytes());
                    }
                }
                if header.has(END_STREAM) {
                    frames.answer(header.stream, "good");
                }
            }
        });
        let balancer = before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        let body = vec![b'x'; 20 << 20];
        client.send(format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()));
        client.send(&body);
        assert_eq!(client.response("PUT").text(), "good", "{mode:?}");
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{mode:?}");
    }
}

#[test]
fn a_backend_without_a_dynamic_table_gets_a_size_update() {
    for mode in modes() {
        // SETTINGS_HEADER_TABLE_SIZE of 0. The block after its acknowledgement must respect it.
        let backend = scripted(&[0, 1, 0, 0, 0, 0], |frames, _| {
            let mut due = false;
            while let Some((header, payload)) = frames.read() {
                match header.kind {
                    Kind::Settings if header.has(ACK) => due = true,
                    Kind::Settings => _ = frames.send(Kind::Settings, ACK, 0, &[]),
                    Kind::Headers if std::mem::take(&mut due) && payload[0] != 0x20 => {
                        frames.send(Kind::Goaway, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 9]);
                        return;
                    }
                    Kind::Headers => _ = frames.answer(header.stream, "good"),
                    _ => {}
                }
            }
        });
        let balancer = before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        (0..5).for_each(|_| assert_eq!(client.get("/").text(), "good", "{mode:?}"));
        assert_eq!(backend.connections(), 1, "{mode:?}");
    }
}

#[test]
fn an_upgrade_is_no_failure_of_a_tls_backend_with_http2_only() {
    const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    for mode in modes() {
        let one = Backend::named("one");
        let way = Way::to(&one, Protocol::H2Tls);
        let balancer = Balancer::start(mode, &way.args());
        let mut client = balancer.connect();
        for _ in 0..6 {
            client.send(UPGRADE);
            assert_eq!(client.response("GET").text(), "one", "{mode:?}: without the offer");
            assert_eq!(client.get("/").text(), "one", "{mode:?}");
        }
        assert!(one.requests().iter().all(|request| !request.has("upgrade")), "{mode:?}");
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{mode:?}");
        let other = Backend::named("other");
        let balancer = Balancer::start(mode, &[&way.args()[..], &["-b", &other.spec()]].concat());
        let mut client = balancer.connect();
        for _ in 0..6 {
            client.send(UPGRADE);
            assert_eq!(client.response("GET").text(), "other", "{mode:?}: rather to one that can switch");
        }
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{mode:?}");
    }
}
