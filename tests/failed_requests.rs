//! Failed requests: their log lines, the responses to their clients, and the id in both.

use std::net::TcpListener;

use crate::support::{Backend, Balancer, Mode, PROTOCOLS, Protocol, Way, modes, wait_until};

/// True if this is a UUID of version 7 in text form.
fn is_uuid(id: &str) -> bool {
    let groups: Vec<&str> = id.split('-').collect();
    let is_hex = id.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && is_hex && groups[2].starts_with('7')
}

/// The address of a port without a listener.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").to_string()
}

/// The number of lines about requests, and the number of suppressed ones.
fn told(log: &str) -> (usize, usize) {
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" request: ")).collect();
    let suppressed =
        |line: &&str| line.split_once("... and ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    let counts: Vec<usize> = lines.iter().filter_map(suppressed).collect();
    (lines.len() - counts.len(), counts.iter().sum())
}

#[test]
fn a_request_has_one_id_at_the_backend_and_at_the_client() {
    for protocol in PROTOCOLS {
        for mode in modes() {
            let backend = Backend::replying("HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n");
            let way = Way::to(&backend, protocol);
            let balancer = Balancer::start(mode, &way.args());
            let mut client = balancer.connect();
            let mut ids = Vec::new();
            for _ in 0..3 {
                client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n");
                let answer = client.response("GET");
                let request = backend.last();
                assert_eq!(answer.values("X-Request-Id"), request.values("X-Request-Id"), "{protocol:?} {mode:?}");
                assert_eq!(answer.values("X-Request-Id").len(), 1, "{protocol:?} {mode:?}: {answer:?}");
                let id = answer.value("X-Request-Id").unwrap_or_default().to_owned();
                assert!(is_uuid(&id), "{protocol:?} {mode:?}: {id}");
                ids.push(id);
            }
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1] || pair[0][..13] == pair[1][..13]), "{ids:?}");
            ids.dedup();
            assert_eq!(ids.len(), 3, "{ids:?}");
        }
    }
}

#[test]
fn a_trusted_peer_names_its_requests() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--trust", "127.0.0.0/8"]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc/7\r\n\r\n");
        assert_eq!(client.response("GET").value("X-Request-Id"), Some("abc/7"), "{mode:?}");
        assert_eq!(backend.last().values("X-Request-Id"), ["abc/7"], "{mode:?}");
    }
}

#[test]
fn ids_can_be_left_to_others() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--request-id", "off"]);
        let mut client = balancer.connect();
        assert_eq!(client.get("/").values("X-Request-Id"), Vec::<&str>::new());
        assert!(!backend.last().has("X-Request-Id"));
    }
}

#[test]
fn a_response_that_breaks_off_is_a_line_with_its_status() {
    for protocol in PROTOCOLS {
        for mode in modes() {
            let backend = Backend::serve(|mut peer| {
                peer.request();
                peer.send("HTTP/1.1 206 OK\r\nContent-Length: 1000\r\n\r\nbegun");
            });
            let way = Way::to(&backend, protocol);
            let balancer = Balancer::start(mode, &way.args());
            let mut client = balancer.connect();
            client.send("GET /file?key=secret HTTP/1.1\r\nHost: a\r\n\r\n");
            let (_, answer) = client.try_response("GET").expect_err("it is not complete");
            let log = balancer.wait_for_log(" GET /file -> 206 cut id=");
            if let Some(id) = answer.as_ref().and_then(|answer| answer.value("X-Request-Id")) {
                assert!(log.contains(&format!("cut id={id} backend=")), "{protocol:?} {mode:?}: {log}");
            }
            assert!(!log.contains("secret"), "{log}");
            let line = log.lines().find(|line| line.contains(" -> 206 cut ")).unwrap();
            assert!(line.contains(" warn request: 127.0.0.1:") && line.contains(" cause=\""), "{line}");
        }
    }
}

#[test]
fn a_failed_request_says_nothing_of_the_backend_to_its_client() {
    for mode in modes() {
        let address = nobody();
        let balancer = Balancer::start(mode, &["-b", &address, "--health-interval", "off"]);
        let answer = balancer.connect().get("/api?x=1");
        let id = answer.value("X-Request-Id").expect("it has an id");
        let text = answer.text();
        assert_eq!(text, format!("the backend refused the connection (request {id})\n"), "{mode:?}");
        assert_eq!(answer.value("Proxy-Status"), Some("load_balancer; error=connection_refused"), "{mode:?}");
        let port = address.rsplit(':').next().unwrap_or_default();
        assert!(!format!("{answer:?}").contains(port), "{mode:?}: {answer:?}");
        let log = balancer.wait_for_log(&format!("GET /api -> 502 id={id} backend={address} cause=\""));
        assert!(log.contains("Connection refused"), "{log}");
    }
}

#[test]
fn a_storm_of_failures_is_a_few_lines_that_count_all_of_it() {
    for mode in modes() {
        let balancer = Balancer::start(mode, &["-b", &nobody(), "--health-interval", "off"]);
        for _ in 0..500 {
            assert_eq!(balancer.connect().get("/").status(), 502);
        }
        let mut counts = (0, 0);
        wait_until("all are reported", || {
            counts = told(&balancer.log());
            counts.0 + counts.1 == 500
        });
        // One per second and worker, for as many seconds as a busy machine needs.
        assert!(counts.0 <= 100, "{mode:?}: {counts:?}");
    }
}

#[test]
fn suppressed_counts_are_reported_at_the_end() {
    for mode in modes() {
        let args = ["-b", &nobody(), "--health-interval", "off"];
        let mut balancer = Balancer::start(mode, &args);
        let requests = 20;
        for _ in 0..requests {
            assert_eq!(balancer.connect().get("/").status(), 502);
        }
        balancer.signal(libc::SIGTERM);
        balancer.wait();
        let log = balancer.whole_log();
        let (lines, suppressed) = told(&log);
        assert_eq!(lines + suppressed, requests, "{mode:?}: {log}");
    }
}

#[test]
fn refused_requests_are_logged() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    for (request, status, shown) in [
        ("GET /a HTTP/1.1\r\n\r\n", 400, "GET /a -> 400 id="),
        ("GET /b HTTP/9.0\r\nHost: a\r\n\r\n", 505, "GET /b -> 505 id="),
        ("PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", 501, "PUT /c -> 501 id="),
        ("GET /d HTTP/1.1\r\nHost: a\r\nA: \x01\r\n\r\n", 400, "GET /d -> 400 id="),
    ] {
        let mut client = balancer.connect();
        client.send(request);
        let answer = client.response("GET");
        assert_eq!(answer.status(), status);
        let id = answer.value("X-Request-Id").expect("it has an id");
        let log = balancer.wait_for_log(&format!("{shown}{id} backend=- cause=\""));
        assert!(log.is_ascii(), "{log}");
    }
}

#[test]
fn over_http2_a_reset_is_the_cause() {
    let backend = Backend::serve(|mut peer| {
        peer.request();
    });
    let way = Way::to(&backend, Protocol::H2c);
    let balancer = Balancer::start(Mode::Sp, &way.args());
    let mut client = balancer.connect();
    client.send("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    let answer = client.response("POST");
    assert_eq!(answer.status(), 502, "{}", balancer.log());
    assert_eq!(answer.value("Proxy-Status"), Some("load_balancer; error=http_response_incomplete"));
    balancer.wait_for_log("cause=\"reset the stream: ");
}
