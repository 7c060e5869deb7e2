//! One test for each fault of the program that this one replaces.

use crate::support::{Backend, Balancer, Fault, Framing, Random, chunked, modes, response, wait_until};

/// Bodies over 8 KiB, the size of a buffer there, were corrupted.
#[test]
fn bodies_over_8_kib_are_not_corrupted() {
    for mode in modes() {
        let backend = Backend::echo();
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for size in [8191, 8192, 8193, 12_288, 16_384, 20_000, 100_000] {
            let body = Random::new(size as u64).body(size);
            assert!(client.post("/", &body).body.bytes == body, "{mode:?}: {size} bytes, fixed length");
            let pieces: Vec<&[u8]> = body.chunks(8192).collect();
            client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send(chunked(&pieces, &[]));
            let echo = client.response("POST");
            assert_eq!(echo.body.framing, Framing::Chunked);
            assert!(echo.body.bytes == body, "{mode:?}: {size} bytes, chunked");
        }
    }
}

/// USR2, which should upgrade the program in place, killed the master.
#[test]
fn usr2_does_not_kill() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let mut balancer = Balancer::before(mode, &[&backend], &[]);
        let (before, mut upgrades) = (balancer.workers().len(), 0);
        for _ in 0..3 {
            balancer.signal(libc::SIGUSR2);
            upgrades += 1;
            balancer.wait_for_log(&format!("(generation {upgrades})"));
            assert_eq!(balancer.get("/"), "backend", "{mode:?}");
        }
        assert!(balancer.runs(), "{mode:?}");
        wait_until("the workers of before have gone", || balancer.workers().len() == before);
        assert_eq!(balancer.get("/"), "backend", "{mode:?}");
    }
}

/// With weights, one backend got every request.
#[test]
fn weights_are_shares() {
    for mode in modes() {
        let backends = [Backend::named("a"), Backend::named("b")];
        let second = format!("{},weight=2", backends[1].spec());
        let balancer = Balancer::start(mode, &["-s", "weighted", "-b", &backends[0].spec(), "-b", &second]);
        let mut client = balancer.connect();
        let mut order = String::new();
        for _ in 0..30 {
            order.push_str(&client.get("/").text());
        }
        assert_eq!(order.matches('a').count(), 10, "{mode:?}: {order}");
        // The heavier backend never gets more than its share in a row.
        assert!(!order.contains("bbb") && !order.contains("aa"), "{mode:?}: {order}");
    }
}

/// A POST whose pooled connection died was sent again, and so served twice.
#[test]
fn a_post_is_not_replayed() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            while let Some(request) = peer.request() {
                if request.method() == "POST" {
                    // The request was received and executed. The connection dies before the response.
                    return;
                }
                peer.send(response("", b"ok"));
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for n in 1..=5 {
            assert_eq!(balancer.get("/"), "ok");
            assert_eq!(balancer.connect().post("/order", b"one").status(), 502, "{mode:?}");
            let orders = backend.requests().iter().filter(|request| request.method() == "POST").count();
            assert_eq!(orders, n, "{mode:?}");
        }
    }
}

/// A line break after the content of a request with `Connection: close` turned the close into a reset, and the
/// end of the response was lost.
#[test]
fn a_line_break_behind_content_costs_no_response() {
    for mode in modes() {
        let backend = Backend::replying(response("", &vec![b'x'; 3_000_000]));
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for n in 0..5 {
            let mut client = balancer.connect();
            client.send("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
            let head = client.head().expect("the response begins");
            client.send("\r\n");
            let framing = head.response_framing("POST").expect("a length");
            assert_eq!(client.body(framing).map(|body| body.bytes.len()).ok(), Some(3_000_000), "{mode:?}, {n}");
            assert_eq!(client.end(), Fault::Fin, "{mode:?}, {n}");
        }
    }
}
