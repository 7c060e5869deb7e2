//! Forwarded messages: fields that are removed, set or kept (RFC 9110, 7.6).

use crate::support::{Backend, Balancer, Framing, Message, Mode, PROTOCOLS, Protocol, Way, modes, response};

/// Sends one request and returns it as the backend received it.
#[track_caller]
fn forwarded(balancer: &Balancer, backend: &Backend, request: &str) -> Message {
    let mut client = balancer.connect();
    client.send(request);
    assert_eq!(client.response("GET").status(), 200, "{request}");
    backend.last()
}

/// The names of the fields that the balancer sets itself.
const OURS: [&str; 8] = [
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Request-Id",
    "Connection",
    "Via",
    "Date",
];

fn without_ours(message: &Message) -> Vec<(String, String)> {
    let ours = |name: &str| OURS.iter().any(|own| own.eq_ignore_ascii_case(name));
    message.fields.iter().filter(|(name, _)| !ours(name)).cloned().collect()
}

#[test]
fn hop_by_hop_fields_of_a_request_are_removed() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let request = forwarded(
            &balancer,
            &backend,
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: X-Named , keep-alive,, x-also\r\nX-Named: 1\r\n\
             Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nX-Kept: 2\r\nX-Also: 3\r\nUpgrade: tea\r\n\
             x-named: 4\r\nConnection: x-third\r\nX-Third: 5\r\nX-Named-Not: 6\r\n\r\n",
        );
        for gone in ["X-Named", "X-Also", "X-Third", "Keep-Alive", "Proxy-Connection", "Upgrade"] {
            assert!(!request.has(gone), "{gone}: {request:?}");
        }
        assert!(!request.connection_has("x-named") && !request.connection_has("close"), "{request:?}");
        assert_eq!((request.value("X-Kept"), request.value("X-Named-Not")), (Some("2"), Some("6")));
    }
}

#[test]
fn hop_by_hop_fields_of_a_response_are_removed() {
    let backend = Backend::replying(response(
        "Connection: X-Named, keep-alive\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nX-Kept: 2\r\n",
        b"",
    ));
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let answer = balancer.connect().get("/");
    for gone in ["X-Named", "Keep-Alive", "Proxy-Connection"] {
        assert!(!answer.has(gone), "{gone}: {answer:?}");
    }
    assert!(!answer.connection_has("x-named"), "{answer:?}");
    assert_eq!(answer.value("X-Kept"), Some("2"));
}

#[test]
fn a_connection_field_cannot_remove_fields_of_the_balancer() {
    let backend = Backend::echo();
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\
         Connection: X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Content-Length, Host\r\n\r\nhello",
    );
    assert_eq!(client.response("POST").text(), "hello");
    let request = backend.last();
    assert_eq!(request.value("Host"), Some("x"));
    assert_eq!(request.value("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(request.value("X-Forwarded-Host"), Some("x"));
    assert_eq!(request.value("X-Forwarded-Proto"), Some("http"));
}

#[test]
fn order_repetition_and_values_of_fields_are_kept() {
    let fields = [
        ("Host", "x"),
        ("B", "2"),
        ("a", "1"),
        ("B", "3"),
        ("Accept", "text/html;q=0.5,  text/plain"),
        ("X-Empty", ""),
        ("b", "4"),
        ("X-Bytes", "caf\u{e9} \u{80}\u{ff}"),
        ("X-Tab", "a\tb"),
        ("Cookie", "a=1; b=2"),
        ("Cookie", "c=3"),
        ("X_Under", "score"),
        ("!#$%&'*+-.^_`|~", "token"),
        ("TRAILER", "X-Sum"),
    ];
    let lines: Vec<u8> = fields
        .iter()
        .flat_map(|(n, v)| format!("{n}: \t{v} \t\r\n").chars().map(|c| c as u8).collect::<Vec<u8>>())
        .collect();
    for mode in modes() {
        let backend =
            Backend::replying([b"HTTP/1.1 200 OK\r\n", lines.as_slice(), b"Content-Length: 0\r\n\r\n"].concat());
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send([b"GET / HTTP/1.1\r\n", lines.as_slice(), b"\r\n"].concat());
        let mut response = client.response("GET");
        let expected: Vec<(String, String)> = fields.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        assert_eq!(without_ours(&backend.last()), expected, "{mode:?}");
        response.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("Content-Length"));
        assert_eq!(without_ours(&response), expected, "{mode:?}");
    }
}

#[test]
fn the_bytes_of_a_path_are_kept() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut client = balancer.connect();
    let long = format!("/{}", "l".repeat(16_000));
    for path in [
        "/",
        "//",
        "/a//b/../c/./d/..",
        "/%2e%2E/%2F%00%ff%41",
        "/;v=1,2/~u!$&'()*+=:@",
        "/?",
        "/?x=%20&&y=a+b?/",
        "/?http://other/",
        "/http://other/",
        "/*",
        &long,
    ] {
        assert_eq!(client.get(path).status(), 200, "{path}");
        assert_eq!(backend.last().target(), path);
    }
}

#[test]
fn forwarded_fields_are_set_and_a_strangers_replaced() {
    for mode in modes() {
        let backend = Backend::named("backend");
        for args in [&[][..], &["--trust", "10.0.0.0/8"], &["--trust", "::1/128"]] {
            let balancer = Balancer::before(mode, &[&backend], args);
            for claimed in [
                "",
                "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n",
                "X_Forwarded_For: 6.6.6.6\r\nx-forwarded_proto: https\r\nX_FORWARDED-HOST: evil\r\n",
                "X-Forwarded-Port: 443\r\nX-Forwarded-Ssl: on\r\nx-forwarded-prefix: /admin\r\nX_Forwarded_Any: 1\r\n",
                "x-forwarded-for: 6.6.6.6\r\nX-FORWARDED-FOR: 7.7.7.7\r\nx-forwarded-host: evil\r\nx-forwarded-host: evil\r\n",
            ] {
                let text = format!("GET / HTTP/1.1\r\n{claimed}Host: public.example:81\r\n\r\n");
                let request = forwarded(&balancer, &backend, &text);
                assert_eq!(request.values("X-Forwarded-For"), ["127.0.0.1"], "{request:?}");
                assert_eq!(request.values("X-Forwarded-Proto"), ["http"], "{request:?}");
                assert_eq!(request.values("X-Forwarded-Host"), ["public.example:81"], "{request:?}");
                assert_eq!(request.values("X-Forwarded-Port"), [balancer.address().port().to_string()], "{request:?}");
                assert_eq!(request.values("Host"), ["public.example:81"], "{request:?}");
                let folded = |name: &str| name.replace('_', "-").to_ascii_lowercase().starts_with("x-forwarded-");
                assert_eq!(request.fields.iter().filter(|(name, _)| folded(name)).count(), 4, "{request:?}");
            }
        }
    }
}

#[test]
fn forwarded_fields_of_a_trusted_peer_are_appended_to() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--trust", "10.0.0.0/8", "--trust", "127.0.0.0/8"]);
        let request = forwarded(
            &balancer,
            &backend,
            "GET / HTTP/1.1\r\nHost: inner.example\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\n\r\n",
        );
        assert_eq!(request.list("X-Forwarded-For"), ["1.2.3.4", "5.6.7.8", "127.0.0.1"], "{request:?}");
        assert_eq!(request.list("X-Forwarded-Proto")[0], "https", "{request:?}");
        assert_eq!(request.list("X-Forwarded-Host")[0], "public.example", "{request:?}");
        let request = forwarded(&balancer, &backend, "GET / HTTP/1.1\r\nHost: inner.example\r\n\r\n");
        assert_eq!(request.list("X-Forwarded-For"), ["127.0.0.1"], "{request:?}");
        assert_eq!(request.list("X-Forwarded-Proto"), ["http"], "{request:?}");
        assert_eq!(request.list("X-Forwarded-Host"), ["inner.example"], "{request:?}");
        assert_eq!(request.list("X-Forwarded-Port"), [balancer.address().port().to_string()], "{request:?}");
        let request = forwarded(
            &balancer,
            &backend,
            "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 8443\r\n\r\n",
        );
        assert_eq!(request.list("X-Forwarded-Port"), ["8443"], "{request:?}");
        // The peer accepted the client on a port that it does not report and that is not ours.
        let request = forwarded(&balancer, &backend, "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Proto: https\r\n\r\n");
        assert!(!request.has("X-Forwarded-Port"), "{request:?}");
    }
}

#[test]
fn host_is_kept_or_rewritten_as_configured() {
    let backend = Backend::named("backend");
    let own = backend.spec();
    for (choice, wanted) in
        [("preserve", "public.example:81"), ("backend", own.as_str()), ("name.example", "name.example")]
    {
        let balancer = Balancer::before(Mode::Sp, &[&backend], &["--host-header", choice]);
        let request = forwarded(&balancer, &backend, "GET / HTTP/1.1\r\nA: 1\r\nHost: public.example:81\r\n\r\n");
        assert_eq!(request.value("Host"), Some(wanted), "--host-header {choice}: {request:?}");
        assert_eq!(request.value("X-Forwarded-Host"), Some("public.example:81"), "{request:?}");
    }
}

#[test]
fn via_is_added_only_on_request() {
    let backend = Backend::named("backend");
    let text = "GET / HTTP/1.1\r\nHost: x\r\nVia: 1.0 fred\r\n\r\n";
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    assert_eq!(forwarded(&balancer, &backend, text).list("Via"), ["1.0 fred"]);
    let balancer = Balancer::before(Mode::Sp, &[&backend], &["--via", "edge"]);
    assert_eq!(forwarded(&balancer, &backend, text).list("Via"), ["1.0 fred", "1.1 edge"]);
    assert_eq!(forwarded(&balancer, &backend, "GET / HTTP/1.0\r\n\r\n").list("Via"), ["1.0 edge"]);
}

#[test]
fn server_date_and_every_set_cookie_pass() {
    for mode in modes() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let lines = format!(
            "Server: backend/1.0\r\nDate: {date}\r\nSet-Cookie: a=1; Expires={date}\r\nX: y\r\nSet-Cookie: b=2\r\nset-cookie: c=3\r\n"
        );
        let backend = Backend::replying(response(&lines, b"body"));
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let answer = balancer.connect().get("/");
        assert_eq!(answer.value("Server"), Some("backend/1.0"));
        assert_eq!(answer.value("Date"), Some(date));
        assert_eq!(answer.values("Set-Cookie"), [&format!("a=1; Expires={date}"), "b=2", "c=3"]);
        assert!(!answer.has("Via"), "{answer:?}");
    }
}

#[test]
fn every_request_is_forwarded_as_http_1_1() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let request = forwarded(&balancer, &backend, "GET /old HTTP/1.0\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(request.start, "GET /old HTTP/1.1");
    assert!(!request.connection_has("close"), "a client's close is not the backend's: {request:?}");
    let text = "POST /old HTTP/1.0\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(forwarded(&balancer, &backend, text).text(), "hello");
}

#[test]
fn a_request_without_a_body_gets_no_framing_and_an_empty_one_keeps_its_own() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let request = forwarded(&balancer, &backend, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(request.body.framing, Framing::None, "{request:?}");
    let request = forwarded(&balancer, &backend, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(request.body.framing, Framing::Length(0), "{request:?}");
    let request = forwarded(&balancer, &backend, "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!((request.body.framing, request.text().as_str()), (Framing::Length(3), "abc"));
}

#[test]
fn a_response_without_a_date_gets_one() {
    for (mode, protocol) in modes().into_iter().flat_map(|mode| PROTOCOLS.map(|protocol| (mode, protocol))) {
        let backend = Backend::serve(|mut peer| {
            while let Some(request) = peer.request() {
                let sent = match request.target() {
                    "/named" => "Connection: date\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n",
                    "/304" => return peer.send("HTTP/1.1 304 Not Modified\r\n\r\n"),
                    _ => "Content-Length: 0\r\n",
                };
                peer.send(format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n{sent}\r\n"));
            }
        });
        let way = Way::to(&backend, protocol);
        let balancer = Balancer::start(mode, &way.args());
        let mut client = balancer.connect();
        // HTTP/2 has no Connection field, which could list Date.
        let named = matches!(protocol, Protocol::H1 | Protocol::H1Tls).then_some("/named");
        for path in ["/"].into_iter().chain(named).chain(["/304"]) {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            let mut answer = client.response("GET");
            if answer.status() == 103 {
                assert!(!answer.has("Date"), "{protocol:?}: {answer:?}");
                answer = client.response("GET");
            }
            let date = answer.value("Date").unwrap_or_else(|| panic!("{mode:?} {protocol:?} {path}: {answer:?}"));
            let near = (0..60).any(|s| zzz_lb::log::http_date(unix_s() - s) == *date.as_bytes());
            assert!(near, "{mode:?} {protocol:?} {path}: {date} is not now");
        }
        assert!(client.get("/metrics").has("Date"));
    }
}

fn unix_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is past 1970").as_secs()
}

#[test]
fn an_upgrade_field_passes_only_with_426() {
    let backend = Backend::serve(|mut peer| {
        while let Some(request) = peer.request() {
            let status = request.target()[1..].to_owned();
            peer.send(format!(
                "HTTP/1.1 {status} X\r\nConnection: upgrade\r\nUpgrade: TLS/1.2, websocket\r\nUpgrade: h3\r\n\
                 Content-Length: 2\r\n\r\nno"
            ));
        }
    });
    for mode in modes() {
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        for _ in 0..2 {
            let required = client.get("/426");
            assert_eq!(required.values("Upgrade"), ["TLS/1.2, websocket", "h3"], "{required:?}");
            assert!(required.connection_has("upgrade") && !required.connection_has("close"), "{required:?}");
            for status in ["200", "400", "502"] {
                let plain = client.get(&format!("/{status}"));
                assert_eq!((plain.status().to_string().as_str(), plain.text().as_str()), (status, "no"));
                assert!(!plain.has("Upgrade") && !plain.has("Connection"), "{plain:?}");
            }
        }
    }
}

#[test]
fn an_expectation_of_http_1_0_is_ignored() {
    for (mode, protocol) in modes().into_iter().flat_map(|mode| PROTOCOLS.map(|protocol| (mode, protocol))) {
        let backend = Backend::echo();
        let way = Way::to(&backend, protocol);
        let balancer = Balancer::start(mode, &way.args());
        let mut client = balancer.connect();
        client.send("POST / HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
        let answer = client.response("POST");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"), "{mode:?} {protocol:?}");
        assert!(!backend.last().has("Expect"), "{mode:?} {protocol:?}: {:?}", backend.last());
    }
}
