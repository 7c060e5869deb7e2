//! Bodies: every framing in both directions, complete or visibly cut, with bounded memory for every size.

use crate::support::{
    Backend, Balancer, Body, BodyReader, Fault, Framing, Gate, Message, Mode, Random, Wire, chunked, modes,
    resident_kib, response, wait_until, wait_until_still,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// Sizes just below and above every likely block size of a proxy.
const SIZES: [usize; 24] = [
    0,
    1,
    2,
    15,
    16,
    17,
    255,
    256,
    4095,
    4096,
    4097,
    8191,
    8192,
    8193,
    16_383,
    16_384,
    16_385,
    65_535,
    65_536,
    65_537,
    131_071,
    131_073,
    1 << 20,
    8 << 20,
];

/// Sends a body in pieces while its echo is read. Returns the echo.
fn echoed(client: &mut Wire, body: &[u8], in_chunks: bool, seed: u64, trailers: &[(&str, &str)]) -> Message {
    let mut random = Random::new(seed);
    let largest = [1 + body.len() / 40, 1000, 70_000][seed as usize % 3].max(1 + body.len() / 2000);
    let pieces = random.pieces(body, largest);
    let socket = client.socket().clone();
    let sender = Wire::shared(socket);
    let framing =
        if in_chunks { "Transfer-Encoding: chunked".into() } else { format!("Content-Length: {}", body.len()) };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            sender.send(format!("POST /{seed} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
            if in_chunks {
                let encoded = chunked(&pieces, trailers);
                for piece in Random::new(!seed).pieces(&encoded, largest * 2) {
                    sender.send(piece);
                }
            } else {
                pieces.iter().for_each(|piece| sender.send(piece));
            }
        });
        client.response("POST")
    })
}

#[track_caller]
fn assert_same(body: &[u8], echo: &Body, what: &str) {
    if body != echo.bytes {
        let differing = body.iter().zip(&echo.bytes).position(|(a, b)| a != b);
        panic!("{what}: {} bytes came, the first that differs is {differing:?}", echo.bytes.len());
    }
}

#[test]
fn bodies_of_every_size_come_back_the_same_in_both_framings() {
    for mode in modes() {
        let backend = Backend::echo();
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for in_chunks in [false, true] {
            let mut client = balancer.connect();
            for (seed, size) in SIZES.into_iter().enumerate() {
                let body = Random::new(seed as u64).body(size);
                let echo = echoed(&mut client, &body, in_chunks, seed as u64, &[]);
                let what = format!("{mode:?}, {size} bytes, chunked: {in_chunks}");
                assert_same(&body, &echo.body, &what);
                let framing = if in_chunks { Framing::Chunked } else { Framing::Length(size as u64) };
                assert_eq!(echo.body.framing, framing, "{what}");
            }
        }
    }
}

#[test]
fn many_bodies_at_once_do_not_mix() {
    for mode in modes() {
        let backends = [Backend::echo(), Backend::echo()];
        let balancer = Balancer::before(mode, &[&backends[0], &backends[1]], &[]);
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let balancer = &balancer;
                scope.spawn(move || {
                    let mut client = balancer.connect();
                    for n in 0..6 {
                        let seed = thread * 100 + n;
                        let mut random = Random::new(seed);
                        let magnitude = 6 + random.below(13);
                        let size = random.below(1 << magnitude);
                        let body = random.body(size);
                        let echo = echoed(&mut client, &body, seed % 2 == 0, seed, &[]);
                        assert_eq!(echo.value("Echo-Target"), Some(format!("/{seed}").as_str()));
                        assert_same(&body, &echo.body, &format!("{mode:?}, seed {seed}"));
                    }
                });
            }
        });
    }
}

#[test]
fn trailers_pass_in_both_directions() {
    for mode in modes() {
        let backend = Backend::echo();
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        let trailers = [("X-Sum", "abc"), ("x-more", "a, b"), ("X-Sum", "def")];
        for body in [&b""[..], b"hello", &[b'z'; 100_000]] {
            let echo = echoed(&mut client, body, true, 1, &trailers);
            let expected = trailers.map(|(name, value)| (name.to_string(), value.to_string()));
            assert_eq!(echo.body.trailers, expected, "{mode:?}");
        }
    }
}

#[test]
fn trailers_cannot_carry_framing_or_routing() {
    let backend = Backend::echo();
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    let hostile = [("Content-Length", "3"), ("Transfer-Encoding", "gzip"), ("Host", "evil"), ("Connection", "x-a")];
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(chunked(&[b"hello"], &[&hostile[..], &[("X-Ok", "1")]].concat()));
    let answer = client.response("POST");
    for (name, _) in hostile {
        let came = answer.body.trailers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        assert!(answer.status() == 400 || !came, "{name}: {answer:?}");
    }
}

#[test]
fn chunk_extensions_are_taken_and_not_passed_on() {
    let backend = Backend::echo();
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    client.send("POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: CHUNKED\r\n\r\n");
    client.send("5;name=value;q=\"x;y\"\r\nhello\r\n0006;x\r\n world\r\n000;last\r\n\r\n");
    // The backend's parser accepts no extensions at all.
    assert_eq!(client.response("POST").text(), "hello world");
}

#[test]
fn responses_that_have_no_body_end_at_their_head() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            while let Some(request) = peer.request() {
                peer.send(match (request.method(), request.target()) {
                    ("HEAD", "/chunked") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                    ("HEAD", _) => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX: y\r\n\r\n",
                    (_, "/204") => "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
                    (_, "/204-length") => "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                    (_, "/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"e\"\r\n\r\n",
                    (_, "/304-chunked") => "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
                    _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                });
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        let mut ask = |method: &str, path: &str| {
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            let response = client.response(method);
            assert_eq!(client.get("/next").text(), "hello", "{mode:?}: after {method} {path}");
            response
        };
        assert_eq!(ask("HEAD", "/").value("Content-Length"), Some("1000"));
        assert_eq!(ask("HEAD", "/chunked").status(), 200);
        assert_eq!(ask("GET", "/204").value("X"), Some("y"));
        assert_eq!(ask("GET", "/204-length").status(), 204);
        assert_eq!(ask("GET", "/304").value("ETag"), Some("\"e\""));
        assert_eq!(ask("GET", "/304-chunked").status(), 304);
        assert!(!ask("GET", "/204-length").has("Transfer-Encoding"));
    }
}

/// A backend that answers each request with these bytes and then closes.
fn closing(bytes: &[u8]) -> Backend {
    let bytes = bytes.to_vec();
    Backend::serve(move |mut peer| {
        if peer.request().is_some() {
            let _ = peer.try_send(&bytes);
        }
    })
}

#[test]
fn a_response_that_ends_with_its_connection_is_chunked_for_http_1_1_and_closed_for_1_0() {
    let body = Random::new(3).body(300_000);
    for mode in modes() {
        for version in ["1.0", "1.1"] {
            let backend = closing(&[format!("HTTP/{version} 200 OK\r\nX: y\r\n\r\n").as_bytes(), &body].concat());
            let balancer = Balancer::before(mode, &[&backend], &[]);
            let mut client = balancer.connect();
            for _ in 0..2 {
                let response = client.get("/");
                assert_eq!(response.body.framing, Framing::Chunked);
                assert_same(&body, &response.body, "to HTTP/1.1");
            }
            let mut client = balancer.connect();
            client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            let response = client.response("GET");
            assert_eq!(response.body.framing, Framing::Close);
            assert!(!response.connection_has("keep-alive"));
            assert_same(&body, &response.body, "to HTTP/1.0");
        }
    }
}

#[test]
fn a_chunked_response_is_plain_for_http_1_0() {
    let body = Random::new(4).body(200_000);
    let pieces: Vec<&[u8]> = body.chunks(7001).collect();
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    bytes.extend_from_slice(&chunked(&pieces, &[("X-Trailer", "y")]));
    let backend = Backend::replying(bytes);
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let response = client.response("GET");
    assert_eq!(response.body.framing, Framing::Close);
    assert_same(&body, &response.body, "dechunked");
}

#[test]
fn http_1_0_backends_are_served_from() {
    for (fields, closes) in [("", true), ("Connection: close\r\n", true), ("Connection: keep-alive\r\n", false)] {
        let reply = format!("HTTP/1.0 200 OK\r\n{fields}Content-Length: 5\r\n\r\nhello");
        let backend = if closes { closing(reply.as_bytes()) } else { Backend::replying(reply) };
        let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
        let mut client = balancer.connect();
        for _ in 0..4 {
            let response = client.get("/");
            assert_eq!(response.text(), "hello");
            assert!(response.start.starts_with("HTTP/1.1 200"), "{response:?}");
        }
        assert!(!closes || backend.connections() == 4, "{fields}");
    }
}

#[test]
fn a_response_cut_short_is_cut_short_for_the_client() {
    let half = "h".repeat(5000);
    let cases = [
        ("a length", format!("Content-Length: 10000\r\n\r\n{half}")),
        ("nothing of a length", "Content-Length: 10000\r\n\r\n".to_string()),
        ("chunks", format!("Transfer-Encoding: chunked\r\n\r\n1388\r\n{half}\r\n")),
        ("within a chunk", format!("Transfer-Encoding: chunked\r\n\r\n2710\r\n{half}")),
        ("within a size", format!("Transfer-Encoding: chunked\r\n\r\n1388\r\n{half}\r\n0")),
        ("before the last line", format!("Transfer-Encoding: chunked\r\n\r\n1388\r\n{half}\r\n0\r\n")),
        ("within the trailers", format!("Transfer-Encoding: chunked\r\n\r\n1388\r\n{half}\r\n0\r\nX: y\r\n")),
        ("a bad size", format!("Transfer-Encoding: chunked\r\n\r\n1388\r\n{half}\r\nzz\r\n\r\n0\r\n\r\n")),
        ("a bad chunk end", format!("Transfer-Encoding: chunked\r\n\r\n1388\r\n{half}zz0\r\n\r\n")),
    ];
    for mode in modes() {
        for (what, rest) in &cases {
            let backend = closing(format!("HTTP/1.1 200 OK\r\n{rest}").as_bytes());
            let balancer = Balancer::before(mode, &[&backend], &[]);
            for version in ["1.1", "1.0"] {
                let mut client = balancer.connect();
                client.send(format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n"));
                match client.try_response("GET") {
                    // No part of the response was forwarded yet, so a local reply is better.
                    Ok(answer) if answer.status() == 502 => {}
                    Ok(answer) => panic!("{mode:?}, {what}, to HTTP/{version}: came whole: {answer:?}"),
                    Err((Fault::Fin, Some(part))) => {
                        assert!(part.body.framing != Framing::Close, "{what}: a clean end to HTTP/{version}")
                    }
                    Err((Fault::Reset, _)) => {}
                    Err(fault) => panic!("{mode:?}, {what}, to HTTP/{version}: {fault:?}"),
                }
            }
        }
    }
}

#[test]
fn a_reset_ends_no_response_cleanly() {
    for version in ["1.0", "1.1"] {
        let begun = Gate::shut();
        let gate = begun.clone();
        let backend = Backend::serve(move |mut peer| {
            if peer.request().is_some() {
                peer.send([b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'h'; 5000]].concat());
                // The client has a part of it first, so that the reset does not overtake it.
                gate.pass();
                peer.reset();
            }
        });
        let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send(format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n"));
        let head = client.head().expect("the head comes");
        let framing = head.response_framing("GET").expect("it is framed");
        assert_eq!(framing, if version == "1.0" { Framing::Close } else { Framing::Chunked });
        begun.open();
        // Content that ends with the connection would look complete after a clean end.
        let (fault, body) = client.body(framing).expect_err("it is no whole response");
        assert!(fault == Fault::Reset || framing == Framing::Chunked && fault == Fault::Fin, "{fault:?}");
        assert!(body.bytes.len() <= 5000 && body.bytes.iter().all(|&byte| byte == b'h'));
    }
}

#[test]
fn a_reset_that_is_met_in_sending_ends_no_response_cleanly() {
    for mode in modes() {
        let stuck = Gate::shut();
        let gate = stuck.clone();
        let backend = Backend::serve(move |mut peer| {
            if peer.request_head().is_some() {
                peer.send("HTTP/1.1 200 OK\r\n\r\nhalf");
                gate.pass();
                peer.reset();
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send(format!("POST / HTTP/1.0\r\nContent-Length: {STUCK_BYTES}\r\n\r\n"));
        assert_eq!(client.head().expect("the head comes").response_framing("POST"), Ok(Framing::Close));
        balancer.fill(&client);
        stuck.open();
        let (fault, _) = client.body(Framing::Close).expect_err("it is no whole response");
        assert_eq!(fault, Fault::Reset, "{mode:?}");
    }
}

/// The memory limit of a worker while a body is stuck, in KiB. It includes the program itself and its pool of
/// blocks. The body has 64 MiB.
const STUCK_KIB: u64 = 24 * 1024;
const STUCK_BYTES: usize = 64 << 20;

#[track_caller]
fn assert_small(balancer: &Balancer) {
    for pid in balancer.serving() {
        assert!(resident_kib(pid) < STUCK_KIB, "{} KiB resident", resident_kib(pid));
    }
}

#[test]
fn a_client_that_does_not_read_holds_the_backend_back() {
    for mode in modes() {
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let backend = Backend::serve(move |mut peer| {
            if peer.request().is_some() {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {STUCK_BYTES}\r\n\r\n"));
                let block = Random::new(9).body(1 << 16);
                for _ in 0..STUCK_BYTES >> 16 {
                    peer.send(&block);
                    counter.fetch_add(1 << 16, SeqCst);
                }
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_until("the backend sends", || sent.load(SeqCst) > 0);
        assert!(wait_until_still(|| sent.load(SeqCst)) < STUCK_BYTES as u64, "{mode:?}: nothing held it back");
        assert_small(&balancer);
        assert!(client.head().is_ok());
        let mut reader = BodyReader::new(Framing::Length(STUCK_BYTES as u64));
        let block = Random::new(9).body(1 << 16);
        let mut at = 0;
        while let Some(piece) = reader.piece(&mut client).expect("the rest comes") {
            let from = at % block.len();
            let same = piece.len().min(block.len() - from);
            assert!(piece[..same] == block[from..from + same], "differs after {at}");
            at += piece.len();
        }
        assert_eq!(at, STUCK_BYTES);
        assert_small(&balancer);
    }
}

#[test]
fn a_backend_that_does_not_read_holds_the_client_back() {
    for mode in modes() {
        let gate = crate::support::Gate::shut();
        let for_backend = gate.clone();
        let backend = Backend::serve(move |mut peer| {
            let Some(_) = peer.request_head() else { return };
            assert!(for_backend.pass());
            let body = peer.body(Framing::Length(STUCK_BYTES as u64)).expect("the whole body");
            peer.send(response("", body.bytes.len().to_string().as_bytes()));
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        let sender = Wire::shared(client.socket().clone());
        let sent = AtomicU64::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sender.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {STUCK_BYTES}\r\n\r\n"));
                for _ in 0..STUCK_BYTES >> 16 {
                    sender.send([b'u'; 1 << 16]);
                    sent.fetch_add(1 << 16, SeqCst);
                }
            });
            wait_until("the client sends", || sent.load(SeqCst) > 0);
            let stuck = wait_until_still(|| sent.load(SeqCst)) < STUCK_BYTES as u64;
            let small = balancer.serving().iter().all(|&pid| resident_kib(pid) < STUCK_KIB);
            gate.open();
            assert_eq!(client.response("POST").text(), STUCK_BYTES.to_string(), "{mode:?}");
            assert!(stuck && small, "{mode:?}: held back: {stuck}, small: {small}");
        });
    }
}
