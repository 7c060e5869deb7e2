//! The log line, the reply and the id of a request that failed.

use super::*;
use crate::http::message_error::MessageError;
use crate::http::session_error::{BadCertificate, FailedHandshake, Flood, SessionError};
use crate::limits::{DEFAULT_REQUEST_US, DEFAULT_RESPONSE_US, LOG_PATH_BYTES, SECOND_US};

const BACKEND: &str = "backend=127.0.0.1:9000";

/// Returns the lines about requests in a log, without their times.
fn told(log: &str) -> Vec<&str> {
    log.lines().filter_map(|line| Some(line.split_once(' ')?.1)).filter(|line| line.contains(" request: ")).collect()
}

/// Returns the id in a field, which must be there once.
fn id_in(text: &str) -> String {
    let fields: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("X-Request-Id: ")).collect();
    assert_eq!(fields.len(), 1, "{text}");
    fields[0].to_owned()
}

fn failing(world: &mut World, request: &str, failure: Failure) -> Key {
    let client = world.asking(request);
    let (backend, _) = world.dial();
    world.fail(backend, failure);
    client
}

#[test]
fn a_failed_request_is_one_line_that_says_all_about_it() {
    let mut world = World::new(1, |plan| plan.loglevel = Level::Warn);
    let client = world.asking("PUT /a/b?secret=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    world.pass(12_000);
    let (backend, _) = world.dial();
    world.fail(backend, Failure::Connect(111));
    let (answer, log) = (world.sent(client), world.log());
    let id = id_in(&answer);
    let line = format!(
        "warn request: 127.0.0.1:50000 PUT /a/b -> 502 id={id} {BACKEND} \
         cause=\"cannot connect: Connection refused (os error 111)\" after 12 ms"
    );
    assert_eq!(told(&log), [line], "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
}

#[test]
fn an_answer_of_our_own_says_what_failed_and_not_where() {
    for (failure, status, token) in [
        (Failure::Connect(111), 502, "connection_refused"),
        (Failure::Connect(113), 502, "destination_ip_unroutable"),
        (Failure::Connect(2), 502, "destination_unavailable"),
        (Failure::ConnectTimeout, 504, "connection_timeout"),
        (Failure::Exhausted(24), 503, "proxy_internal_error"),
        (Failure::Broken(104), 502, "connection_terminated"),
        (Failure::Timeout, 504, "http_response_timeout"),
        (Failure::Malformed(MessageError::HeadTooLarge), 502, "http_response_header_section_size"),
        (Failure::Malformed(MessageError::StatusLine), 502, "http_protocol_error"),
        (Failure::Tls(SessionError::Certificate(BadCertificate::Expired)), 502, "tls_certificate_error"),
    ] {
        let mut world = World::new(1, |_| {});
        let client = failing(&mut world, GET, failure);
        let answer = world.sent(client);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let field = format!("\r\nProxy-Status: load_balancer; error={token}\r\n");
        assert!(answer.contains(&field), "{failure:?}: {answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let id = id_in(&answer);
        assert!(body.ends_with(&format!(" (request {id})\n")), "{body}");
        assert_eq!(body.lines().count(), 1, "{body}");
        for secret in ["127.0.0.1", "9000", "os error", "10.1.2.3", "expired"] {
            assert!(!answer.contains(secret), "{answer}");
        }
        let log = world.log();
        assert!(log.contains(&id) && log.contains(BACKEND), "{log}");
    }
}

#[test]
fn names_without_an_address_are_told_to_the_log_alone() {
    let mut world = World::new(0, |plan| plan.unresolved = vec!["db.internal:80".into()]);
    let client = world.asking(GET);
    let (answer, log) = (world.sent(client), world.log());
    assert!(answer.contains("\r\n\r\nNo backends available (request ") && !answer.contains("internal"), "{answer}");
    assert!(answer.contains("\r\nProxy-Status: load_balancer; error=destination_unavailable\r\n"), "{answer}");
    assert_eq!(told(&log).len(), 1, "{log}");
    assert!(log.contains("-> 503 ") && log.contains(" backend=- ") && log.contains("db.internal:80"), "{log}");
}

#[test]
fn a_storm_is_a_line_and_a_count_a_second() {
    let mut world = World::new(1, |plan| plan.health.fails = 1_000_000);
    for _ in 0..719 {
        failing(&mut world, GET, Failure::Connect(111));
    }
    // Another cause is another kind of line.
    failing(&mut world, GET, Failure::ConnectTimeout);
    let log = world.log();
    assert_eq!(told(&log).len(), 2, "{log}");
    world.pass(SECOND_US);
    let log = world.log();
    let count = format!(
        "warn request: ... and 718 more in 1 s {BACKEND} cause=\"cannot connect: Connection refused (os error 111)\""
    );
    assert_eq!(told(&log), [count], "{log}");
    world.pass(10 * SECOND_US);
    assert_eq!(world.log(), "");
    failing(&mut world, GET, Failure::Connect(111));
    assert_eq!(told(&world.log()).len(), 1);
}

#[test]
fn a_count_of_lines_about_clients_names_the_module_of_these_lines() {
    let mut world = World::new(1, |_| {});
    let failed = FailedHandshake(Some(SessionError::UnknownName));
    let client = world.client();
    for _ in 0..3 {
        world.proxy.note_handshake(client, failed, Some("a\"\n.test"));
        world.proxy.note_tls_flood(client, Flood::KeyUpdates, 7);
    }
    world.log();
    world.pass(SECOND_US);
    let cause = "handshake failed: no certificate for the client's name";
    let counts = [
        format!("info tls: ... and 2 more in 1 s cause=\"{cause}\""),
        "info client: ... and 2 more in 1 s cause=\"too many TLS key updates\"".to_owned(),
    ];
    let log = world.log();
    let lines: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    assert_eq!(lines, counts);
    world.proxy.note_handshake(client, failed, Some("a\"\n.test"));
    let line = world.log();
    assert!(line.contains(&format!(": {cause} (SNI a'\\x0a.test)")), "{line}");
    // A client that only connects is no news.
    world.proxy.note_handshake(client, FailedHandshake(Some(SessionError::Closed)), None);
    assert!(world.log().contains(" debug tls: client "));
}

#[test]
fn a_connection_with_an_empty_line_alone_is_no_request() {
    for line in ["\r\n", "\n", "\r", ""] {
        let mut world = World::new(1, |_| {});
        let client = world.client();
        assert!(line.is_empty() || world.give(client, line));
        world.end(client);
        assert_eq!(world.log(), "", "{line:?}");
        assert!(world.proxy.connections.get(client).is_none(), "{line:?}");
        // A client that stays is closed like a silent one.
        let client = world.client();
        assert!(line.is_empty() || world.give(client, line));
        world.pass(2 * DEFAULT_REQUEST_US);
        assert_eq!(world.log(), "", "{line:?}");
        assert!(world.proxy.connections.get(client).is_none(), "{line:?}");
    }
}

#[test]
fn bytes_of_a_proxy_header_are_named() {
    for header in ["PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n", "\r\n\r\n\0\r\nQUIT\n!"] {
        let mut world = World::new(1, |_| {});
        let client = world.client();
        world.give(client, header);
        let log = world.log();
        assert!(log.contains(": the bytes look like a PROXY header, which ,proxy on --listen reads\""), "{log}");
    }
}

#[test]
fn the_last_counts_are_told_when_the_program_ends() {
    let mut world = World::new(1, |_| {});
    failing(&mut world, GET, Failure::Connect(111));
    failing(&mut world, GET, Failure::Connect(111));
    world.log();
    world.proxy.finish_log();
    assert!(world.log().contains("... and 1 more in 0 ms "));
}

#[test]
fn a_try_that_failed_is_told_as_such_and_the_request_is_not() {
    let mut world = World::new(2, |_| {});
    failing(&mut world, GET, Failure::Connect(111));
    let backend = world.connect();
    assert!(world.give(backend, OK));
    let log = world.log();
    let told = told(&log);
    assert_eq!((told.len(), log.lines().count()), (1, 1), "{log}");
    assert!(told[0].contains(" GET / -> retried id="), "{log}");

    // Both fail: each try has a line, and the line of the request names the last one.
    failing(&mut world, GET, Failure::ConnectTimeout);
    let (backend, _) = world.dial();
    world.fail(backend, Failure::Connect(111));
    let log = world.log();
    let last = log.lines().last().unwrap();
    assert!(last.contains(" -> 502 ") && last.contains(" tries=2 cause=\"cannot connect: "), "{log}");
}

#[test]
fn a_backend_that_fails_now_and_then_is_one_line_for_each_failure() {
    let mut world = World::new(1, |_| {});
    for _ in 0..10 {
        failing(&mut world, GET, Failure::Connect(111));
        world.exchange(GET, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        world.pass(2 * SECOND_US);
    }
    let log = world.log();
    assert_eq!(log.lines().count(), 10, "{log}");
}

#[test]
fn a_response_that_is_cut_is_told_with_its_status() {
    let mut world = World::new(1, |_| {});
    let (_, backend) = world.exchange(GET, "HTTP/1.1 206 OK\r\nContent-Length: 9\r\n\r\ncut");
    world.end(backend);
    let log = world.log();
    assert_eq!(told(&log).len(), 1, "{log}");
    assert!(log.contains(" warn request: ") && log.contains(" GET / -> 206 cut id="), "{log}");
    assert!(log.contains("cause=\"closed before the response was complete\""), "{log}");
}

#[test]
fn gateway_errors_of_backends_are_told_too() {
    let mut world = World::new(1, |_| {});
    for status in [500, 502, 503, 504] {
        world.exchange(GET, &format!("HTTP/1.1 {status} No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"));
    }
    let log = world.log();
    let told = told(&log);
    assert_eq!(told.len(), 3, "{log}");
    for (line, status) in told.iter().zip([502, 503, 504]) {
        assert!(line.starts_with("info request: ") && line.contains(&format!(" -> {status} ")), "{line}");
        assert!(line.contains(&format!("cause=\"the backend answered {status}\"")), "{line}");
    }
}

#[test]
fn every_refused_request_is_told() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20_000));
    let large = format!("GET /big HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "b".repeat(70_000));
    for (request, shown) in [
        ("GET /x?y HTTP/1.1\r\n\r\n", "info request: 127.0.0.1:50000 GET /x -> 400 id="),
        ("nonsense\r\n\r\n", "info request: 127.0.0.1:50000 nonsense - -> 400 id="),
        ("\x16\x03\x01\r\n\r\n", "info request: 127.0.0.1:50000 \\x16\\x03\\x01 - -> 400 id="),
        ("GET /v HTTP/7.0\r\nHost: a\r\n\r\n", "info request: 127.0.0.1:50000 GET /v -> 505 id="),
        ("TRACE /t HTTP/1.1\r\nHost: a\r\n\r\n", "info request: 127.0.0.1:50000 TRACE /t -> 405 id="),
        ("GET /e HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", "info request: 127.0.0.1:50000 GET /e -> 417 id="),
        (
            "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            "info request: 127.0.0.1:50000 PUT /c -> 501 id=",
        ),
        (&long, "info request: 127.0.0.1:50000 GET /aaa"),
        (&large, "info request: 127.0.0.1:50000 GET /big -> 431 id="),
    ] {
        let mut world = World::new(1, |plan| plan.loglevel = Level::Info);
        let client = world.client();
        world.give(client, request);
        let (answer, log) = (world.sent(client), world.log());
        assert_eq!(told(&log).len(), 1, "{request:.40}: {log}");
        assert!(told(&log)[0].starts_with(shown), "{shown}: {log}");
        assert!(log.contains(&id_in(&answer)) && log.len() < 3 * LOG_PATH_BYTES, "{log}");
        assert_eq!(answer.contains("error=http_request_error"), answer.starts_with("HTTP/1.1 5"), "{answer}");
    }
}

#[test]
fn requests_that_come_too_slowly_are_told() {
    let mut world = World::new(1, |_| {});
    world.asking("GET /slow");
    let upload = world.asking("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    world.connect();
    // A client that sends nothing has no request.
    world.client();
    world.pass(2 * DEFAULT_RESPONSE_US);
    assert!(world.sent(upload).starts_with("HTTP/1.1 408 "));
    let log = world.log();
    let told = told(&log);
    assert_eq!(told.len(), 2, "{log}");
    assert!(told[0].starts_with("info request: 127.0.0.1:50000 GET /slow -> 408 id="), "{log}");
    assert!(told[1].contains(" POST /up -> 408 id=") && told[1].contains("content did not come in time"), "{log}");
}

#[test]
fn a_request_that_waits_too_long_for_a_backend_is_told() {
    let mut world = World::new(1, |plan| plan.members[0].max = 1);
    world.asking(GET);
    world.connect();
    let client = world.asking(GET);
    world.pass(3 * SECOND_US);
    let answer = world.sent(client);
    assert!(answer.contains("\r\nProxy-Status: load_balancer; error=connection_limit_reached\r\n"), "{answer}");
    let log = world.log();
    assert_eq!(told(&log).len(), 1, "{log}");
    assert!(
        log.contains(" -> 503 ") && log.contains("cause=\"every backend has as many requests as it may\""),
        "{log}"
    );
}

#[test]
fn a_client_that_goes_is_told_of_where_faults_are_looked_for() {
    for (level, count) in [(Level::Info, 0), (Level::Debug, 1)] {
        let mut world = World::new(1, |plan| plan.loglevel = level);
        let client = world.asking(GET);
        world.connect();
        world.fail(client, Failure::Broken(104));
        let log = world.log();
        assert_eq!(told(&log).len(), count, "{log}");
        assert_eq!(log.contains("debug request: 127.0.0.1:50000 GET / -> 499 id="), count > 0, "{log}");
    }
}

#[test]
fn requests_that_are_cut_at_the_end_are_told() {
    let mut world = World::new(1, |_| {});
    world.exchange("GET /long HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
    assert_eq!(world.proxy.stop(), 1);
    let log = world.log();
    assert!(log.contains(" warn request: ") && log.contains(" GET /long -> 200 cut id="), "{log}");
    assert!(log.contains("cause=\"the program stopped\""), "{log}");
}

#[test]
fn nothing_that_a_client_sends_forges_a_line() {
    let mut world = World::new(1, |_| {});
    let path = format!("/\u{e9}\"\\{}", "a".repeat(LOG_PATH_BYTES));
    world.asking(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    let client = world.client();
    world.give(client, "GET /\" cause=\"x HTTP/1.1\r\nHost: a\r\n\r\n");
    while let Some((backend, _)) = world.dials.pop_front() {
        world.fail(backend, Failure::Timeout);
    }
    let log = world.log();
    assert!(log.is_ascii() && !log.contains("cause=\"x") && !log.contains(&"a".repeat(LOG_PATH_BYTES)), "{log}");
}

#[test]
fn an_id_goes_to_each_backend_and_to_the_client() {
    let mut world = World::new(2, |_| {});
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nX_Request_Id: mine\r\n\r\n";
    let client = world.asking(request);
    let first = world.connect();
    let id = id_in(&world.sent(first));
    world.fail(first, Failure::Broken(104));
    let second = world.connect();
    let asked = world.sent(second);
    assert!(id_in(&asked) == id && !asked.contains("mine"), "{asked}");
    assert!(world.give(second, "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n"));
    let answer = world.sent(client);
    assert!(id_in(&answer) == id && !answer.contains("theirs"), "{answer}");
    // The next request has another id.
    assert!(world.give(client, GET));
    let third = world.connect();
    assert_ne!(id_in(&world.sent(third)), id);
}

#[test]
fn the_id_of_a_trusted_peer_is_kept_if_it_can_be_passed_on() {
    let trust = |plan: &mut Plan| plan.trust = vec![crate::config::Cidr { address: [127, 0, 0, 0].into(), prefix: 8 }];
    for (id, kept) in [("trace-7/a", true), ("two words", false), ("", false)] {
        let mut world = World::new(1, trust);
        let client = world.asking(&format!("GET / HTTP/1.1\r\nHost: a\r\nx-request-id: {id}\r\n\r\n"));
        let backend = world.connect();
        let sent = id_in(&world.sent(backend));
        assert_eq!(sent == id, kept, "{id} {sent}");
        world.fail(backend, Failure::Timeout);
        let (answer, log) = (world.sent(client), world.log());
        assert_eq!(id_in(&answer), sent);
        assert!(log.contains(&format!(" id={sent} ")), "{log}");
    }
}

#[test]
fn without_ids_fields_pass_as_they_are() {
    let mut world = World::new(1, |plan| plan.request_ids = false);
    let client = world.asking("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n");
    let backend = world.connect();
    assert_eq!(id_in(&world.sent(backend)), "mine");
    assert!(world.give(backend, "HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(id_in(&world.sent(client)), "theirs");
    let client = world.asking("GET / HTTP/1.1\r\n\r\n");
    let (answer, log) = (world.sent(client), world.log());
    assert!(!answer.contains("X-Request-Id") && answer.ends_with("\r\n\r\nno Host field\n"), "{answer}");
    assert!(log.contains(" -> 400 id=- "), "{log}");
}
