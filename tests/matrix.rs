//! Behaviour that is the same for every pair of protocols of clients and backends: HTTP/1.1 or HTTP/2, with TLS and
//! without.

use std::cell::RefCell;

use crate::support::{
    Backend, Balancer, Fault, Front, Gate, Mode, PROTOCOLS, Pair, Protocol, Random, Way, Wire, chunked, modes, pairs,
    response, wait_until,
};

/// Runs `test` with a backend over each pair of protocols.
fn over_all(backend: impl Fn() -> Backend, args: &[&str], test: impl Fn(Pair, &Backend, &Balancer)) {
    for pair in pairs() {
        let backend = backend();
        let between = start(pair, &[&backend], args);
        test(pair, &backend, &between.balancer);
    }
}

/// A balancer between gateways.
struct Between {
    balancer: Balancer,
    _ways: Vec<Way>,
    front: Front,
}

/// Starts a balancer whose clients and backends come over a pair of protocols.
fn start(pair: Pair, backends: &[&Backend], args: &[&str]) -> Between {
    let ways: Vec<Way> = backends.iter().map(|backend| Way::to(backend, pair.back)).collect();
    let front = Front::new(pair.front);
    let specs: Vec<&str> = match ways.as_slice() {
        [way] => way.args(),
        // Each has its own CA, and the test turns verification off.
        ways => ways.iter().flat_map(|way| ["-b", way.spec()]).collect(),
    };
    let all = [specs, front.args(), args.to_vec()].concat();
    let balancer = Balancer::start(pair.mode, &all).behind(&front);
    Between { balancer, _ways: ways, front }
}

fn is_http2(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::H2c | Protocol::H2Tls)
}

/// The fields of a message that the proxy does not add, with their names in lower case.
fn fields(message: &[(String, String)]) -> Vec<(String, String)> {
    let ours = |name: &str| {
        let of_hop = ["content-length", "transfer-encoding", "connection", "te", "date", "x-request-id"];
        name.starts_with("x-forwarded-") || of_hop.contains(&name)
    };
    let small = message.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    small.filter(|(name, _)| !ours(name)).collect()
}

#[test]
fn bodies_come_back_the_same_with_their_trailers() {
    over_all(Backend::echo, &[], |pair, _, balancer| {
        let mut client = balancer.connect();
        for (seed, size) in [0, 1, 100, 16_383, 16_385, 65_536, 70_001, 3 << 20].into_iter().enumerate() {
            let body = Random::new(seed as u64).body(size);
            let pieces = Random::new(!(seed as u64)).pieces(&body, 1 + size / 7);
            let sum = [("X-Sum", "abc")];
            for (framing, wire) in [
                (format!("Content-Length: {size}"), body.clone()),
                ("Transfer-Encoding: chunked".into(), chunked(&pieces, &sum)),
            ] {
                let sender = Wire::shared(client.socket().clone());
                let echo = std::thread::scope(|scope| {
                    scope.spawn(|| {
                        sender.send(format!("POST /{seed} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
                        wire.chunks(50_000).for_each(|piece| sender.send(piece));
                    });
                    client.response("POST")
                });
                assert_eq!(echo.status(), 200);
                assert!(echo.body.bytes == body, "{pair:?}: {size} {framing}");
                if framing.ends_with("chunked") {
                    let told: Vec<_> = fields(&echo.body.trailers);
                    assert_eq!(told, [("x-sum".to_string(), "abc".to_string())], "{pair:?} {size}");
                }
            }
        }
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0);
    });
}

#[test]
fn fields_arrive_as_they_were_sent() {
    let sent = [
        ("b", "2"),
        ("a", "1"),
        ("b", "3"),
        ("accept", "text/html;q=0.5,  text/plain"),
        ("x-empty", ""),
        ("x-bytes", "caf\u{e9} \u{80}\u{ff}"),
        ("x-tab", "a\tb"),
        ("cookie", "a=1; b=2"),
        ("authorization", "Basic c2VjcmV0"),
        ("!#$%&'*+-.^_`|~", "token"),
        ("user-agent", "test"),
    ];
    let lines: String = sent.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let latin1 = |text: String| text.chars().map(|one| one as u8).collect::<Vec<u8>>();
    let reply =
        latin1(format!("HTTP/1.1 200 OK\r\n{lines}Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"));
    let expected: Vec<(String, String)> = sent.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    let cookies = [("set-cookie".to_string(), "a".to_string()), ("set-cookie".into(), "b".into())];
    over_all(
        || Backend::replying(reply.clone()),
        &["--host-header", "preserve"],
        |pair, backend, balancer| {
            let mut client = balancer.connect();
            let hop = "Connection: x-hop, TE\r\nX-Hop: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n";
            client.send(latin1(format!("GET /a?b=%20c HTTP/1.1\r\nHost: x.test:1\r\n{lines}{hop}\r\n")));
            let answer = client.response("GET");
            let what = format!("{pair:?}");
            assert_eq!(fields(&answer.fields), [&expected[..], &cookies].concat(), "{what}");
            let request = backend.last();
            assert_eq!((request.method(), request.target()), ("GET", "/a?b=%20c"), "{what}");
            assert_eq!(request.value("Host"), Some("x.test:1"), "{what}");
            // HTTP/2 has no order between the authority and the fields.
            let mut arrived = fields(&request.fields);
            arrived.retain(|(name, _)| name != "host");
            assert_eq!(arrived, expected, "{what}");
            assert_eq!(request.value("X-Forwarded-For"), Some("127.0.0.1"));
            assert_eq!(request.value("TE"), Some("trailers"), "{what}");
        },
    );
}

/// Fields about the origin of a request, and names that become such or framing fields if `_` is read as `-`.
const CLAIMS: [(&str, &str); 5] = [
    ("forwarded", "for=6.6.6.6"),
    ("x-real-ip", "6.6.6.6"),
    ("client-cert", ":c3Bvb2ZlZA==:"),
    ("client-cert-chain", ":c3Bvb2ZlZA==:"),
    ("x-forwarded-prefix", "/admin"),
];
const ABUSED: [(&str, &str); 7] = [
    ("proxy", "http://6.6.6.6/"),
    ("content_length", "5"),
    ("transfer_encoding", "chunked"),
    ("x_real_ip", "6.6.6.6"),
    ("client_cert", "x"),
    ("x_forwarded_for", "6.6.6.6"),
    ("proxy_connection", "close"),
];

#[test]
fn a_stranger_s_claims_are_dropped_from_heads_and_trailers() {
    let claims = [&CLAIMS[..], &ABUSED].concat();
    let lines: String = claims.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let trailers = [&claims[..], &[("x-sum", "abc"), ("x-forwarded-for", "6.6.6.6")]].concat();
    for (trusted, args) in [(false, &["--trust", "10.0.0.0/8"]), (true, &["--trust", "127.0.0.1"])] {
        over_all(
            || Backend::named("hello"),
            args,
            |pair, backend, balancer| {
                let mut client = balancer.connect();
                client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}Transfer-Encoding: chunked\r\n\r\n"));
                client.send(chunked(&[b"hello"], &trailers));
                let answer = client.response("POST");
                let what = format!("{pair:?}, trusted: {trusted}");
                assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"), "{what}");
                let request = backend.last();
                for (name, value) in CLAIMS {
                    assert_eq!(request.value(name), Some(value).filter(|_| trusted), "{what}: {name}");
                }
                assert!(!ABUSED.iter().any(|(name, _)| request.has(name)), "{what}: {request:?}");
                assert_eq!(fields(&request.body.trailers), [("x-sum".to_string(), "abc".to_string())], "{what}");
                assert_eq!(request.value("X-Forwarded-For"), Some("127.0.0.1"), "{what}");
                assert_eq!(request.value("X-Forwarded-Port"), Some(balancer.address().port().to_string().as_str()));
            },
        );
    }
}

#[test]
fn disguised_names_of_a_response_are_dropped() {
    let lines: String = ABUSED.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("HTTP/1.1 103 Early Hints\r\n{lines}X-A: 1\r\n\r\nHTTP/1.1 200 OK\r\n{lines}X-A: 2\r\n");
    let content = chunked(&[b"ok"], &[&ABUSED[..], &[("x-sum", "abc")]].concat());
    let reply = [head.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\n", content.as_slice()].concat();
    over_all(
        || Backend::replying(reply.clone()),
        &[],
        |pair, _, balancer| {
            let mut client = balancer.connect();
            client.send("GET / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\n\r\n");
            for (status, value) in [(103, "1"), (200, "2")] {
                let answer = client.response("GET");
                assert_eq!((answer.status(), answer.value("X-A")), (status, Some(value)), "{pair:?}");
                assert!(!ABUSED.iter().any(|(name, _)| answer.has(name)), "{pair:?}: {answer:?}");
                let trailers: Vec<_> = fields(&answer.body.trailers);
                assert!(trailers.iter().all(|(name, _)| name == "x-sum"), "{pair:?}: {trailers:?}");
                assert_eq!(trailers.len(), usize::from(status == 200), "{pair:?}");
            }
        },
    );
}

#[test]
fn a_response_of_many_fields_arrives() {
    let lines: String = (0..250).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let reply = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok");
    over_all(
        || Backend::replying(reply.clone()),
        &[],
        |pair, _, balancer| {
            let answer = balancer.connect().get("/");
            assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{pair:?}");
            let is_sent =
                |name: &str| name.to_ascii_lowercase().strip_prefix("x-").is_some_and(|n| n.parse::<u32>().is_ok());
            let names = answer.fields.iter().filter(|(name, _)| is_sent(name));
            assert_eq!(names.count(), 250, "{pair:?}");
        },
    );
}

#[test]
fn every_status_arrives() {
    let script = || {
        Backend::serve(|mut peer| {
            while let Some(request) = peer.request() {
                let status = &request.target()[1..];
                let body = if matches!(status, "204" | "304") { "" } else { "Content-Length: 2\r\n" };
                let content = if body.is_empty() { "" } else { "ok" };
                if peer.try_send(format!("HTTP/1.1 {status} Some Reason\r\n{body}\r\n{content}")).is_err() {
                    return;
                }
            }
        })
    };
    over_all(script, &[], |pair, _, balancer| {
        let mut client = balancer.connect();
        for status in 200..=599 {
            let answer = client.get(&format!("/{status}"));
            assert_eq!(answer.status(), status, "{pair:?}");
            let bare = matches!(status, 204 | 304);
            assert_eq!(answer.text(), if bare { "" } else { "ok" }, "{pair:?} {status}");
        }
    });
}

#[test]
fn messages_without_content_pass() {
    let script = || Backend::replying("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX: y\r\n\r\n");
    over_all(script, &[], |pair, _, balancer| {
        let mut client = balancer.connect();
        for _ in 0..3 {
            client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
            let answer = client.response("HEAD");
            assert_eq!(answer.value("Content-Length"), Some("1234"), "{pair:?}");
            assert_eq!(answer.value("X"), Some("y"));
        }
    });
}

#[test]
fn interim_responses_and_expectations_pass() {
    let script = || {
        Backend::serve(|mut peer| {
            while let Some(head) = peer.request_head() {
                let _ = peer.try_send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
                if head.has("Expect") {
                    let _ = peer.try_send("HTTP/1.1 100 Continue\r\n\r\n");
                }
                let framing = peer.framing(&head).expect("a framing");
                let Ok(body) = peer.body(framing) else { return };
                if peer.try_send(response("", &body.bytes)).is_err() {
                    return;
                }
            }
        })
    };
    over_all(script, &[], |pair, _, balancer| {
        let mut client = balancer.connect();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        let hints = client.response("POST");
        assert_eq!((hints.status(), hints.value("Link")), (103, Some("</a>")), "{pair:?}");
        assert_eq!(client.response("POST").status(), 100);
        client.send("hello");
        assert_eq!(client.response("POST").text(), "hello");
    });
}

#[test]
fn an_answer_before_the_upload_is_whole_arrives() {
    let gate = RefCell::new(Gate::shut());
    let script = || {
        let answered = Gate::shut();
        gate.replace(answered.clone());
        Backend::serve(move |mut peer| {
            if peer.request_head().is_some() {
                let _ = peer.try_send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
                // It reads nothing more, and closes once the client knows the response.
                answered.pass();
            }
        })
    };
    over_all(script, &[], |pair, _, balancer| {
        let mut client = balancer.connect();
        let sender = Wire::shared(client.socket().clone());
        let answer = std::thread::scope(|scope| {
            scope.spawn(move || {
                let length = 64 << 20;
                sender.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"));
                let piece = vec![b'x'; 1 << 16];
                for _ in 0..length / piece.len() {
                    if sender.try_send(&piece).is_err() {
                        return;
                    }
                }
            });
            let answer = client.response("POST");
            gate.borrow().open();
            answer
        });
        assert_eq!((answer.status(), answer.text().as_str()), (413, "no"), "{pair:?}");
    });
}

#[test]
fn a_response_that_is_cut_is_cut_for_the_client() {
    let script = || {
        Backend::serve(|mut peer| {
            if let Some(request) = peer.request() {
                let framing = match request.target() {
                    "/length" => "Content-Length: 100000\r\n\r\n",
                    _ => "Transfer-Encoding: chunked\r\n\r\n64\r\n",
                };
                let _ = peer.try_send(format!("HTTP/1.1 200 OK\r\n{framing}"));
                let _ = peer.try_send([b'x'; 50]);
            }
        })
    };
    over_all(script, &[], |pair, _, balancer| {
        for path in ["/length", "/chunked"] {
            let mut client = balancer.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
            let cut = client.try_response("GET");
            assert!(matches!(cut, Err((Fault::Fin | Fault::Reset, _))), "{pair:?} {path}: {cut:?}");
        }
    });
}

#[test]
fn a_client_that_reads_nothing_stops_no_other() {
    let script = || {
        Backend::serve(|mut peer| {
            while let Some(request) = peer.request() {
                let size = if request.target() == "/large" { 64 << 20 } else { 10 };
                let mut sent = peer.try_send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"));
                let piece = vec![b'x'; size.min(1 << 16)];
                for _ in 0..size / piece.len() {
                    sent = sent.and_then(|()| peer.try_send(&piece));
                }
                if sent.is_err() {
                    return;
                }
            }
        })
    };
    for pair in pairs() {
        let backend = script();
        let Between { balancer, front, .. } = start(pair, &[&backend], &[]);
        // Clients over HTTP/2 share one connection.
        let balancer = balancer.behind_one(&front);
        let stalled: Vec<Wire> = (0..4).map(|_| balancer.connect()).collect();
        stalled.iter().for_each(|client| client.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n"));
        let mut client = balancer.connect();
        for _ in 0..50 {
            assert_eq!(client.get("/small").text().len(), 10, "{pair:?}");
        }
        // They leave, and no backend is blamed.
        drop(stalled);
        wait_until(&format!("the requests of {pair:?} are over"), || balancer.metric("zzz_lb_in_flight", "") == 0);
        assert_eq!(client.get("/small").status(), 200);
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{pair:?}");
    }
}

#[test]
fn another_backend_serves_if_one_breaks_off() {
    for pair in pairs() {
        let broken = Backend::serve(|mut peer| {
            peer.request();
        });
        let good = Backend::named("good");
        let Between { balancer, .. } = &start(pair, &[&broken, &good], &["-k"]);
        let mut client = balancer.connect();
        for _ in 0..20 {
            assert_eq!(client.get("/").text(), "good", "{pair:?}\n{}", balancer.log());
        }
        let log = balancer.wait_for_log("down after 3 failures");
        assert!(log.contains(if is_http2(pair.back) { "reset the stream" } else { "closed before" }), "{pair:?} {log}");
    }
}

#[test]
fn one_connection_carries_many_requests_at_once() {
    for pair in pairs().into_iter().filter(|pair| is_http2(pair.back)) {
        let gate = Gate::shut();
        let for_script = gate.clone();
        let backend = Backend::serve(move |mut peer| {
            while peer.request().is_some() {
                for_script.pass();
                if peer.try_send(response("", b"ok")).is_err() {
                    return;
                }
            }
        });
        let Between { balancer, .. } = &start(pair, &[&backend], &[]);
        let mut clients: Vec<Wire> = (0..100).map(|_| balancer.connect()).collect();
        clients.iter().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        backend.wait_for_requests(100);
        gate.open();
        clients.iter_mut().for_each(|client| assert_eq!(client.response("GET").text(), "ok"));
        let connections = balancer.metric("zzz_lb_connects_total", "");
        assert!(connections <= if pair.mode == Mode::Sp { 1 } else { 2 }, "{pair:?}: {connections}");
    }
}

#[test]
fn an_upgrade_gets_a_connection_of_its_own_or_is_not_asked_for() {
    for mode in modes() {
        for protocol in [Protocol::H1, Protocol::H1Tls, Protocol::H2c] {
            let backend = Backend::serve(|mut peer| {
                while let Some(request) = peer.request() {
                    if request.has("Upgrade") {
                        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
                        let bytes = peer.exactly(4).expect("what was sent");
                        peer.send(bytes);
                        return;
                    }
                    peer.send(response("", b"no upgrade"));
                }
            });
            let way = Way::to(&backend, protocol);
            let balancer = Balancer::start(mode, &way.args());
            let mut client = balancer.connect();
            assert_eq!(client.get("/").text(), "no upgrade");
            client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
            let answer = client.response("GET");
            if is_http2(protocol) {
                assert_eq!((answer.status(), answer.text().as_str()), (200, "no upgrade"));
                continue;
            }
            assert_eq!(answer.status(), 101, "{protocol:?} {mode:?}");
            client.send("ping");
            assert_eq!(client.exactly(4).expect("an echo"), b"ping");
        }
    }
}

#[test]
fn an_upgrade_goes_to_a_backend_that_has_upgrades() {
    for mode in modes() {
        let upgrading = Backend::serve(|mut peer| {
            while let Some(request) = peer.request() {
                match request.has("Upgrade") {
                    true => {
                        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
                    }
                    false => peer.send(response("", b"http1")),
                }
            }
        });
        let other = Backend::named("http2");
        let (one, two) = (Way::to(&other, Protocol::H2c), Way::to(&other, Protocol::H2c));
        let balancer = Balancer::start(mode, &["-b", one.spec(), "-b", &upgrading.spec(), "-b", two.spec()]);
        let mut client = balancer.connect();
        for _ in 0..6 {
            let mut upgraded = balancer.connect();
            upgraded.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
            assert_eq!(upgraded.response("GET").status(), 101, "{mode:?}");
        }
        let answers: Vec<String> = (0..6).map(|_| client.get("/").text()).collect();
        assert_eq!(answers.iter().filter(|text| *text == "http1").count(), 2, "{mode:?}: others go on in turn");
        wait_until("nothing is in flight", || balancer.metric("zzz_lb_in_flight", "") == 0);
    }
}

#[test]
fn probes_go_by_the_backend_s_own_protocol() {
    for protocol in PROTOCOLS {
        for mode in modes() {
            let backend = Backend::replying(response("", b"ok"));
            let way = Way::to(&backend, protocol);
            let balancer = Balancer::start(
                mode,
                &[way.args(), vec!["--health-interval", "100ms", "--health-path", "/up"]].concat(),
            );
            backend.wait_for_requests(3);
            let probe = backend.last();
            assert_eq!(probe.target(), "/up", "{protocol:?} {mode:?}");
            assert!(probe.value("User-Agent").is_some_and(|agent| agent.starts_with("load_balancer/")));
            assert_eq!(balancer.metric("zzz_lb_healthy", ""), 1, "{}", balancer.log());
        }
    }
}
