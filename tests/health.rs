//! Health of backends: the failures that count, the ones that do not, and recovery.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::frames::{self, Frames};
use crate::support::{
    Backend, Balancer, Directory, Gate, Mode, PROTOCOLS, Way, modes, response, send_signal, wait_until,
    wait_until_still,
};
use zzz_lb::http2::frame::Kind;
use zzz_lb::limits::RESPONSE_FIELDS;

const OFTEN: [&str; 2] = ["--health-interval", "100ms"];

/// Answers probes (for /up) according to `up`, and all other requests with its name.
fn probed(name: &'static str, up: &Arc<AtomicBool>) -> Backend {
    let up = up.clone();
    Backend::serve(move |mut peer| {
        while let Some(request) = peer.request() {
            let answer = match request.target() {
                "/up" if !up.load(SeqCst) => b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec(),
                _ => response("", name.as_bytes()),
            };
            if peer.try_send(answer).is_err() {
                return;
            }
        }
    })
}

fn yes() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

fn options<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&OFTEN[..], &["--health-path", "/up"], more].concat()
}

#[test]
fn a_dead_backend_is_left_out_and_comes_back_with_its_probes() {
    for mode in modes() {
        let a = Backend::named("a");
        // At an address whose ports no other test uses while this backend is stopped.
        let mut b = Backend::named_on("127.0.0.3:0", "b");
        let balancer = Balancer::before(mode, &[&a, &b], &OFTEN);
        let mut client = balancer.connect();
        (0..10).for_each(|_| assert_eq!(client.get("/").status(), 200));
        b.stop();
        // No request fails: one that meets the dead backend goes to the other.
        for _ in 0..20 {
            assert_eq!(client.get("/").text(), "a", "{mode:?}");
        }
        let spec = b.spec();
        balancer.wait_for_log(&format!("health: backend {spec} down after 3 "));
        assert_eq!(balancer.metric("zzz_lb_healthy", &spec), 0);
        assert_eq!(balancer.metric("zzz_lb_ejections_total", &spec), 1);
        let again = Backend::serve_on(&spec, |mut peer| {
            while peer.request().is_some() && peer.try_send(response("", b"again")).is_ok() {}
        });
        let again = again.expect("the port is free again");
        balancer.wait_for_log(&format!("health: backend {spec} up after 2 passed probes"));
        wait_until("it gets requests again", || client.get("/").text() == "again");
        assert!(again.count() >= 3);
    }
}

#[test]
fn a_failing_probe_takes_a_backend_out_that_answers_requests() {
    for mode in modes() {
        let (good, bad) = (yes(), yes());
        let backends = [probed("a", &good), probed("b", &bad)];
        let balancer = Balancer::before(mode, &backends.each_ref(), &options(&[]));
        bad.store(false, SeqCst);
        let text = format!(
            "health: backend {} down after 3 failed probes (GET /up -> 500; --health-status 200-399)",
            backends[1].spec()
        );
        balancer.wait_for_log(&text);
        (0..10).for_each(|_| assert_eq!(balancer.get("/"), "a"));
    }
}

#[test]
fn an_added_backend_serves_after_a_passed_probe_or_if_it_is_alone() {
    for mode in modes() {
        let (up, late) = (yes(), yes());
        late.store(false, SeqCst);
        let (a, b) = (probed("a", &up), probed("b", &late));
        let directory = Directory::new();
        let file = |backends: &[&Backend]| {
            let specs: Vec<String> = backends.iter().map(|backend| format!("\"{}\"", backend.spec())).collect();
            directory.put("lb.json", &format!("{{\"backends\": [{}]}}", specs.join(", ")))
        };
        // It never fails often enough to be down.
        let balancer = Balancer::with_file(mode, &file(&[&a]), &options(&["--health-fails", "1000"]));
        file(&[&a, &b]);
        b.wait_for_requests(3);
        (0..20).for_each(|_| assert_eq!(balancer.get("/"), "a", "{mode:?}"));
        assert_eq!(balancer.metric("zzz_lb_healthy", &b.spec()), 0);
        late.store(true, SeqCst);
        wait_until("it serves", || balancer.get("/") == "b");
        assert_eq!(balancer.metric("zzz_lb_healthy", ""), 2);
        // A backend that replaces all others does not wait.
        late.store(false, SeqCst);
        file(&[&a]);
        wait_until("the other is gone", || balancer.metric("zzz_lb_plan_edition", "") == 3);
        file(&[&b]);
        wait_until("it serves though no probe passes", || balancer.get("/") == "b");
        assert!(!balancer.log().contains("is healthy"), "{}", balancer.log());
    }
}

/// A response above our limits says nothing about its backend.
#[test]
fn a_probe_that_comes_to_a_limit_of_ours_neither_passes_nor_fails() {
    let fields: String = (0..=RESPONSE_FIELDS).map(|n| format!("X-{n}: y\r\n")).collect();
    let backend = Backend::replying(response(&fields, b"much"));
    let balancer = Balancer::before(Mode::Sp, &[&backend], &OFTEN);
    backend.wait_for_requests(6);
    let spec = backend.spec();
    assert_eq!(balancer.metric("zzz_lb_probes_total", &spec), 0);
    assert_eq!(balancer.metric("zzz_lb_failures_total", &spec), 0);
    assert_eq!(balancer.metric("zzz_lb_healthy", &spec), 1);
    assert_eq!(balancer.log().matches(&format!("backend: {spec}: ")).count(), 1, "{}", balancer.log());
}

#[test]
fn a_hung_backend_delays_no_other_probe() {
    let gate = Gate::shut();
    let held = gate.clone();
    let hung = Backend::serve(move |mut peer| {
        peer.request();
        held.pass();
    });
    let up = yes();
    let well = probed("a", &up);
    let more = ["--health-timeout", "300ms"];
    let balancer = Balancer::before(Mode::Sp, &[&hung, &well], &options(&more));
    let text = balancer.wait_for_log("down after 3 failed probes (GET /up -> no response within --health-timeout)");
    assert!(text.contains(&hung.spec()), "{text}");
    // By the third failed probe of the hung one, 500 ms after its first, the other had its own.
    assert!(well.count() >= 4, "{} probes", well.count());
    gate.open();
}

#[test]
fn with_none_healthy_all_are_tried() {
    for mode in modes() {
        let (one, two) = (yes(), yes());
        let backends = [probed("a", &one), probed("b", &two)];
        one.store(false, SeqCst);
        two.store(false, SeqCst);
        let balancer = Balancer::before(mode, &backends.each_ref(), &options(&[]));
        for backend in &backends {
            balancer.wait_for_log(&format!("backend {} down", backend.spec()));
        }
        (0..8).for_each(|_| assert!(["a", "b"].contains(&balancer.get("/").as_str())));
        balancer.wait_for_log("health: no backend is healthy: all are tried");
        assert!(balancer.metric("zzz_lb_fail_open_total", "") >= 8);
        one.store(true, SeqCst);
        balancer.wait_for_log("health: a backend is healthy again");
        let log = balancer.log();
        assert_eq!(log.matches("no backend is healthy").count(), 1, "{log}");
    }
}

#[test]
fn faults_of_clients_count_against_no_backend() {
    for mode in modes() {
        let gate = Gate::shut();
        let held = gate.clone();
        let backend = Backend::serve(move |mut peer| {
            while let Some(request) = peer.request() {
                match request.target() {
                    "/hold" => _ = held.pass(),
                    "/404" => peer.send("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
                    "/500" => peer.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
                    _ => peer.send(response("", b"ok")),
                }
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &["--request-timeout", "200ms"]);
        for _ in 0..4 {
            let gone = balancer.connect();
            gone.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
            wait_until("it is at the backend", || backend.requests().iter().any(|one| one.target() == "/hold"));
            drop(gone);
            let mut late = balancer.connect();
            late.send("GET / HTTP/1.1\r\nHos");
            assert_eq!(late.response("GET").status(), 408);
            let mut wrong = balancer.connect();
            wrong.send("GET / HTTP/1.1\r\nHost : x\r\n\r\n");
            assert_eq!(wrong.response("GET").status(), 400);
            assert_eq!(balancer.connect().get("/404").status(), 404);
            assert_eq!(balancer.connect().get("/500").status(), 500);
        }
        gate.open();
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{mode:?}\n{}", balancer.log());
        assert_eq!(balancer.metric("zzz_lb_healthy", ""), 1);
    }
}

#[test]
fn a_5xx_counts_only_with_the_option() {
    let backend = Backend::replying(&b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"[..]);
    let balancer = Balancer::before(Mode::Mp, &[&backend], &["--health-5xx"]);
    (0..4).for_each(|_| assert_eq!(balancer.connect().get("/").status(), 503));
    balancer.wait_for_log("down after 3 failures (answered 503)");
}

#[test]
fn a_worker_that_dies_loses_only_its_own_probe() {
    let gate = Gate::shut();
    let held = gate.clone();
    let backend = Backend::serve(move |mut peer| {
        peer.request();
        held.pass();
    });
    let args = ["--health-interval", "2s", "--health-timeout", "1s"];
    let balancer = Balancer::before(Mode::Mp, &[&backend], &args);
    backend.wait_for_requests(1);
    let start = Instant::now();
    // Either worker may have had it.
    balancer.workers().into_iter().for_each(|pid| assert!(send_signal(pid, libc::SIGKILL)));
    backend.wait_for_requests(2);
    let gap_s = start.elapsed().as_secs_f64();
    // Immediately would be too early, and after another interval (at least 1.8 s) too late.
    assert!(gap_s > 1.0 && gap_s < 3.6, "{gap_s} s");
    gate.open();
}

#[test]
fn one_probe_per_interval_even_if_workers_die() {
    let backend = Backend::named("a");
    let interval = Duration::from_millis(200);
    let balancer = Balancer::before(Mode::Mp, &[&backend], &["--health-interval", "200ms", "--watchdog", "off"]);
    // A probe comes up to a tenth earlier than the interval, and later on a busy machine. If two workers both
    // probed, the time would be half; if half of the probes were missing, it would double.
    let assert_one_probe_in_an_interval = |who: &str| {
        backend.wait_for_requests(backend.count() + 2);
        let (start, before) = (Instant::now(), backend.count());
        backend.wait_for_requests(before + 15);
        let each = start.elapsed() / (backend.count() - before) as u32;
        assert!(each > interval * 3 / 4 && each < interval * 7 / 4, "{who}: a probe every {each:?}");
    };
    assert_one_probe_in_an_interval("both");
    // A stopped worker has no replacement, so the other must take over.
    for worker in balancer.workers() {
        assert!(send_signal(worker, libc::SIGSTOP));
        assert_one_probe_in_an_interval("the one that is left");
        assert!(send_signal(worker, libc::SIGCONT));
    }
}

#[test]
fn a_worker_that_is_killed_leaves_nothing_in_flight() {
    let gate = Gate::shut();
    let held = gate.clone();
    let backend = Backend::serve(move |mut peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/hold" {
                held.pass();
            }
            peer.send(response("", b"ok"));
        }
    });
    let balancer = Balancer::before(Mode::Mp, &[&backend], &[]);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let client = balancer.connect();
            client.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
            client
        })
        .collect();
    backend.wait_for_requests(8);
    assert_eq!(balancer.metric("zzz_lb_in_flight", ""), 8);
    for worker in balancer.workers() {
        send_signal(worker, libc::SIGKILL);
    }
    balancer.wait_for_log("respawned");
    wait_until("nothing is in flight", || balancer.metric("zzz_lb_in_flight", "") == 0);
    gate.open();
    drop(clients);
    assert_eq!(balancer.get("/"), "ok");
}

#[test]
fn an_outage_is_not_multiplied_by_retries() {
    let served = Arc::new(AtomicUsize::new(0));
    let resetting = |served: &Arc<AtomicUsize>| {
        let served = served.clone();
        Backend::serve(move |mut peer| {
            if peer.request().is_some() {
                served.fetch_add(1, SeqCst);
                peer.reset();
            }
        })
    };
    let backends = [resetting(&served), resetting(&served), resetting(&served)];
    let balancer = Balancer::before(Mode::Sp, &backends.each_ref(), &[]);
    let start = Instant::now();
    for _ in 0..400 {
        assert_eq!(balancer.connect().get("/").status(), 502);
    }
    // A fifth more, three per second, and the budget left from the last second.
    let most = 480 + 3 * (start.elapsed().as_secs() as usize + 2);
    let sent = served.load(SeqCst);
    assert!(sent >= 400 && sent <= most, "{sent} deliveries of 400 requests, {most} at most");
    assert!(balancer.metric("zzz_lb_retries_refused_total", "") > 0);
}

#[test]
fn the_end_of_a_tunnel_counts_against_no_backend() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            while let Some(request) = peer.request() {
                if request.has("Upgrade") {
                    peer.send("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
                    return peer.reset();
                }
                peer.send(response("", b"ok"));
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for _ in 0..5 {
            let mut client = balancer.connect();
            client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
            let _ = client.rest();
        }
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{mode:?}\n{}", balancer.log());
        assert_eq!(balancer.get("/"), "ok");
    }
}

#[test]
fn an_offer_to_switch_protocols_with_content_of_unknown_length_counts_against_no_backend() {
    for mode in modes() {
        let backend = Backend::serve(|mut peer| {
            while let Some(request) = peer.request_head() {
                match request.has("Upgrade") {
                    true => peer.send("HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"),
                    false => peer.send(response("", b"ok")),
                }
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        for _ in 0..4 {
            let mut client = balancer.connect();
            let fields = "Host: x\r\nConnection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n";
            client.send(format!("GET /ws HTTP/1.1\r\n{fields}\r\n"));
            assert_eq!(client.response("GET").text(), "ok", "{mode:?}");
        }
        assert_eq!(balancer.metric("zzz_lb_failures_total", ""), 0, "{mode:?}\n{}", balancer.log());
    }
}

/// A port forwarder before a dead port accepts and then closes. It is not a working backend.
#[test]
fn a_backend_that_closes_without_a_response_is_ejected_over_every_protocol() {
    for protocol in PROTOCOLS {
        for begun in ["", "HTTP/1.1 2"] {
            let backend = Backend::serve(move |mut peer| {
                if peer.request().is_some() {
                    let _ = peer.try_send(begun);
                }
            });
            let way = Way::to(&backend, protocol);
            let balancer = Balancer::start(Mode::Sp, &[way.args(), OFTEN.to_vec()].concat());
            let log = balancer.wait_for_log("down after 3 failed probes (GET / -> ");
            assert!(log.contains("; --health-check http)"), "{protocol:?} {begun:?}: {log}");
            assert_eq!(balancer.metric("zzz_lb_healthy", ""), 0);
        }
    }
    // The backend reads no request before it closes.
    let backend = Backend::serve(drop);
    let balancer = Balancer::before(Mode::Mp, &[&backend], &OFTEN);
    balancer.wait_for_log("down after 3 failed probes (GET / -> ");
}

#[test]
fn a_probe_over_http2_that_is_refused_reset_or_cut_off_fails() {
    type Script = fn(&mut Frames, u32);
    let scripts: [(&str, Script); 5] = [
        ("did not look at the request", |frames, _| _ = frames.send(Kind::Goaway, 0, 0, &[0; 8])),
        ("refused the HTTP/2 stream", |frames, stream| _ = frames.send(Kind::RstStream, 0, stream, &[0, 0, 0, 7])),
        ("reset the stream: ", |frames, stream| _ = frames.send(Kind::RstStream, 0, stream, &[0, 0, 0, 2])),
        ("ended the HTTP/2 connection: ", |frames, stream| {
            let payload = [&stream.to_be_bytes()[..], &[0, 0, 0, 2]].concat();
            _ = frames.send(Kind::Goaway, 0, 0, &payload);
        }),
        // With an end, or with a reset if the backend has not read everything.
        ("before the response was complete", |_, _| {}),
    ];
    for (told, script) in scripts {
        let backend = frames::scripted(&[], move |frames, _| {
            if let Some(stream) = frames.request() {
                script(frames, stream);
            }
        });
        let balancer = frames::before(Mode::Sp, &[&backend], &OFTEN);
        let log = balancer.wait_for_log("down after 3 failed probes (GET / -> ");
        assert!(log.contains(told), "{told}: {log}");
    }
}

#[test]
fn an_api_that_answers_401_or_404_at_its_root_is_well_unless_a_path_is_given() {
    for protocol in PROTOCOLS {
        let backend = Backend::replying(&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..]);
        let way = Way::to(&backend, protocol);
        let start = |more: &[&str]| {
            let args = [way.args(), OFTEN.to_vec(), more.to_vec()].concat();
            Balancer::start(Mode::Sp, &args)
        };
        let balancer = start(&[]);
        wait_until("probes pass", || balancer.metric("zzz_lb_probes_total", "result=\"passed\"") >= 4);
        assert_eq!(balancer.metric("zzz_lb_probes_total", "result=\"failed\""), 0, "{protocol:?}");
        drop(balancer);
        let balancer = start(&["--health-path", "/"]);
        balancer.wait_for_log("down after 3 failed probes (GET / -> 404; --health-status 200-399)");
        drop(balancer);
        let balancer = start(&["--health-path", "/up", "--health-status", "404", "--health-host", "probe.test"]);
        wait_until("probes pass", || balancer.metric("zzz_lb_probes_total", "result=\"passed\"") >= 4);
        let probe = backend.last();
        assert_eq!((probe.target(), probe.value("Host")), ("/up", Some("probe.test")), "{protocol:?}");
    }
}

#[test]
fn a_probe_may_only_connect_or_not_be_sent_at_all() {
    for protocol in PROTOCOLS {
        let backend = Backend::replying(response("", b"ok"));
        let way = Way::to(&backend, protocol);
        let args = [way.args(), OFTEN.to_vec(), vec!["--health-check", "tcp"]].concat();
        let balancer = Balancer::start(Mode::Sp, &args);
        wait_until("probes pass", || balancer.metric("zzz_lb_probes_total", "result=\"passed\"") >= 4);
        assert_eq!((backend.count(), balancer.metric("zzz_lb_healthy", "")), (0, 1), "{protocol:?}");
    }
    let mut dead = Backend::named_on("127.0.0.4:0", "dead");
    dead.stop();
    let tcp = [&OFTEN[..], &["--health-check", "tcp"]].concat();
    let balancer = Balancer::before(Mode::Sp, &[&dead], &tcp);
    balancer.wait_for_log("down after 3 failed probes (cannot connect: ");
    let backend = Backend::named("a");
    let _balancer = Balancer::before(Mode::Sp, &[&backend], &[&OFTEN[..], &["--health-check", "off"]].concat());
    assert_eq!(wait_until_still(|| backend.connections() as u64), 0);
}

/// Earlier failures do not count, and one passed probe is enough.
#[test]
fn a_backend_that_returns_after_a_reload_begins_afresh() {
    for mode in modes() {
        let (up, late) = (yes(), yes());
        let (a, b) = (probed("a", &up), probed("b", &late));
        let directory = Directory::new();
        let file = |backends: &[&Backend]| {
            let specs: Vec<String> = backends.iter().map(|backend| format!("\"{}\"", backend.spec())).collect();
            directory.put("lb.json", &format!("{{\"backends\": [{}]}}", specs.join(", ")))
        };
        let balancer = Balancer::with_file(mode, &file(&[&a, &b]), &options(&["--health-passes", "1000"]));
        late.store(false, SeqCst);
        balancer.wait_for_log(&format!("backend {} down after 3 ", b.spec()));
        file(&[&a]);
        wait_until("it is gone", || balancer.metric("zzz_lb_plan_edition", "") == 2);
        late.store(true, SeqCst);
        file(&[&a, &b]);
        wait_until("it serves, though a thousand probes would have to pass if it were down", || {
            balancer.get("/") == "b"
        });
        assert_eq!(balancer.metric("zzz_lb_healthy", ""), 2, "{mode:?}");
    }
}

/// Responds to calls of grpc.health.v1 with this state.
fn calls(frames: &mut frames::Frames, state: &std::sync::atomic::AtomicU8) {
    use zzz_lb::http2::frame::{END_HEADERS, END_STREAM, Kind};
    while let Some(stream) = frames.request() {
        let state = state.load(std::sync::atomic::Ordering::Relaxed);
        frames.send(Kind::Headers, END_HEADERS, stream, &[0x88]);
        frames.send(Kind::Data, 0, stream, &[0, 0, 0, 0, 2, 8, state]);
        let trailers = frames::fields(&[("grpc-status", "0")]);
        frames.send(Kind::Headers, END_HEADERS | END_STREAM, stream, &trailers);
    }
}

#[test]
fn a_grpc_backend_is_up_while_its_health_service_says_serving() {
    use std::sync::atomic::{AtomicU8, Ordering};
    for mode in modes() {
        let state = Arc::new(AtomicU8::new(1));
        let told = Arc::clone(&state);
        let backend = frames::scripted(&[], move |frames, _| calls(frames, &told));
        let args = ["--health-check", "grpc:a.B", "--health-interval", "100ms", "--health-fails", "2"];
        let balancer = frames::before(mode, &[&backend], &args);
        let healthy = |expected| balancer.metric("zzz_lb_healthy", "") == expected;
        wait_until("a probe passes", || balancer.metric("zzz_lb_probes_total", "passed") > 0);
        assert!(healthy(1));
        state.store(2, Ordering::Relaxed);
        wait_until("the backend is down", || healthy(0));
        balancer.wait_for_log("grpc.health.v1 of a.B -> NOT_SERVING; --health-check grpc");
        state.store(1, Ordering::Relaxed);
        wait_until("the backend is up", || healthy(1));
        let spec = format!("h2c://{}", backend.spec());
        let args = ["--check", "--health-check", "grpc", "--health-interval", "1s", "-b", &spec];
        let text = String::from_utf8_lossy(&crate::support::run(&args).stdout).into_owned();
        assert!(text.contains("grpc.health.v1 -> SERVING"), "{text}");
    }
}
