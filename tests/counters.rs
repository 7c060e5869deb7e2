//! Some scenario raises every counter and every histogram, and a test fails for one that none raises.
//!
//! A scenario lists the series that it raises, and by how much. `every_counter_is_raised` reads these lists in
//! this file, and compares them with the tables of the program.

use std::net::TcpListener;

use crate::support::frames::{before, scripted};
use crate::support::{
    Backend, Balancer, Directory, Gate, Mode, Protocol, VACANT, Way, Wire, command, ignore_when_full,
    limit_descriptors, open_descriptors, response, send_signal, use_up_descriptors, wait_until, wait_until_still,
};
use zzz_lb::http2::frame::Kind;
use zzz_lb::metrics::{Count, Global, Kind as MetricKind, Metric, OwnTime, SlotCount, SlotTime};

/// Series that another test raises, with its place. The place names the family.
const IN_UNITS: &[(&str, &str, &str)] = &[
    // Every refusal has a status with a series.
    ("own_responses_total", "code=other", "src/metrics/mod.rs"),
    // Only a defect of the program raises it.
    ("missing_values_total", "", "src/proxy/tests/invariants.rs"),
    // It needs a name server.
    ("dns_changes_total", "", "src/process/duties/tests.rs"),
    ("dns_failures_total", "", "src/process/duties/tests.rs"),
    // `tests/aborts.rs` covers each reason.
    ("client_aborts_total", "*", "tests/aborts.rs"),
    ("requests_total", "code=499", "tests/aborts.rs"),
    // These need clients of their own.
    ("client_handshakes_total", "*", "tests/tls_front.rs"),
    ("client_handshake_failures_total", "*", "tests/tls_front.rs"),
    ("certificate_reloads_total", "*", "tests/tls_front.rs"),
    ("proxy_header_failures_total", "*", "tests/proxy_header.rs"),
    ("h2_streams_total", "", "tests/front.rs"),
    ("h2_resets_total", "*", "tests/front.rs"),
    ("h2_goaways_total", "*", "tests/front.rs"),
    ("tls_floods_total", "*", "tests/tls_floods.rs"),
    ("h2_budget_exhausted_total", "", "src/proxy/mux/tests/account.rs"),
    ("own_responses_total", "code=308", "tests/proxy_header.rs"),
    ("own_responses_total", "code=404", "src/proxy/tests/routes.rs"),
    ("own_responses_total", "code=421", "tests/tls_front.rs"),
];

const ADMIN: [&str; 2] = ["--admin", "0"];

/// A series and its expected value; 0 for any positive value.
type Raised = (&'static str, &'static str, u64);

/// The sum of a family's samples with this label, from the admin port or else the main port.
fn told(balancer: &Balancer, family: &str, label: &str) -> f64 {
    // Only a log that the test reads by hand is empty, and that balancer has no admin port.
    let address = if balancer.log().is_empty() { balancer.address() } else { balancer.admin() };
    let text = Wire::tcp(address).get("/metrics").text();
    let prefix = if family.starts_with("process_") { "" } else { "zzz_lb_" };
    let histogram = text.contains(&format!("# TYPE {prefix}{family} histogram"));
    let name = format!("{prefix}{family}{}", if histogram { "_count" } else { "" });
    let label = label.split_once('=').map_or(String::new(), |(name, value)| format!("{name}=\"{value}\""));
    let samples = text.lines().filter_map(|line| line.rsplit_once(' '));
    let samples = samples.filter(|(series, _)| series.split('{').next() == Some(&name) && series.contains(&label));
    samples.map(|(_, value)| value.parse::<f64>().expect("a number")).sum()
}

/// Checks the series that a scenario raises. The program may record some a moment later.
#[track_caller]
fn raised(balancer: &Balancer, series: &[Raised]) {
    for &(family, label, expected) in series {
        let holds = |value: f64| if expected == 0 { value > 0.0 } else { value == expected as f64 };
        wait_until(&format!("{family}{{{label}}} is {expected}"), || holds(told(balancer, family, label)));
    }
}

fn start(mode: Mode, args: &[&str]) -> Balancer {
    Balancer::start(mode, &[args, &ADMIN[..]].concat())
}

/// A backend without TLS that answers at once with plain text.
fn no_tls() -> Backend {
    Backend::serve(|peer| peer.send("this is plain text\r\n"))
}

#[test]
fn every_counter_is_raised() {
    let own = include_str!("counters.rs");
    let counts = |table: &'static [Metric]| table.iter().filter(|one| one.kind != MetricKind::Gauge);
    let tables = [Count::METRICS, Global::METRICS, SlotCount::METRICS, OwnTime::METRICS, SlotTime::METRICS];
    let mut missing = Vec::new();
    for metric in tables.into_iter().flat_map(counts) {
        let label = metric.label.replace('"', "");
        let in_units = IN_UNITS.iter().find(|(family, one, _)| *family == metric.family && [&label, "*"].contains(one));
        if let Some((.., place)) = in_units {
            let path = format!("{}/{place}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).expect("a source file can be read");
            assert!(text.contains(metric.family), "{place} does not raise {metric:?}");
        } else if !own.contains(&format!("(\"{}\", \"{label}\", ", metric.family)) {
            missing.push(format!("{} {label}", metric.family));
        }
    }
    assert!(missing.is_empty(), "no scenario raises {missing:#?}");
}

#[test]
fn responses_of_backends_are_counted_by_class() {
    let backend = Backend::serve(|mut peer| {
        while let Some(request) = peer.request() {
            if request.target() == "/101" {
                return peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
            }
            peer.send(format!("HTTP/1.1 {} Some\r\nContent-Length: 2\r\n\r\nok", &request.target()[1..]));
        }
    });
    let balancer = start(Mode::Sp, &["-b", &backend.spec()]);
    let mut client = balancer.connect();
    for status in [200, 200, 302, 404, 503, 699] {
        assert_eq!(client.get(&format!("/{status}")).status(), status);
    }
    let mut upgraded = balancer.connect();
    upgraded.send("GET /101 HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(upgraded.head().expect("a head").status(), 101);
    drop(upgraded);
    raised(
        &balancer,
        &[
            ("requests_total", "code=1xx", 1),
            ("requests_total", "code=2xx", 2),
            ("requests_total", "code=3xx", 1),
            ("requests_total", "code=4xx", 1),
            ("requests_total", "code=5xx", 1),
            ("requests_total", "code=other", 1),
            ("response_duration_seconds", "", 7),
            ("request_duration_seconds", "", 0),
            ("client_connections_total", "", 2),
            ("connects_total", "", 1),
            ("pool_reuses_total", "", 6),
            ("client_received_bytes_total", "", 0),
            ("client_sent_bytes_total", "", 0),
            ("received_bytes_total", "", 0),
            ("sent_bytes_total", "", 0),
            ("process_cpu_seconds_total", "", 0),
        ],
    );
    assert_eq!(told(&balancer, "own_responses_total", ""), 0.0, "pages are not counted");
}

#[test]
fn own_responses_are_counted_by_status() {
    let balancer = start(Mode::Sp, &["-b", VACANT, "--request-timeout", "300ms"]);
    let long = "a".repeat(20_000);
    let fields: String = (0..200).map(|n| format!("F{n}: x\r\n")).collect();
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), 405),
        ("GET / HTTP/1.1\r\nHost".to_owned(), 408),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n".to_owned(), 417),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), 431),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 502),
    ] {
        let mut client = balancer.connect();
        client.send(&request);
        assert_eq!(client.response("GET").status(), status, "{}", &request[..request.len().min(60)]);
    }
    raised(
        &balancer,
        &[
            ("own_responses_total", "code=400", 1),
            ("own_responses_total", "code=405", 1),
            ("own_responses_total", "code=408", 1),
            ("own_responses_total", "code=414", 1),
            ("own_responses_total", "code=417", 1),
            ("own_responses_total", "code=431", 1),
            ("own_responses_total", "code=501", 1),
            ("own_responses_total", "code=502", 1),
            ("own_responses_total", "code=505", 1),
            ("failures_total", "reason=connect", 0),
            ("connect_failures_total", "", 0),
        ],
    );
}

#[test]
fn failures_are_counted_by_reason() {
    let one = |spec: &str, args: &[&str], status: u16, series: &[Raised]| {
        let balancer = start(Mode::Sp, &[&["-b", spec], args].concat());
        let answer = balancer.connect().post("/", b"hi");
        assert_eq!(answer.status(), status, "{series:?}\n{}", balancer.log());
        raised(&balancer, series);
    };
    let gate = Gate::shut();
    let held = gate.clone();
    let silent = Backend::serve(move |mut peer| while peer.request().is_some() && held.pass() {});
    let closing = Backend::serve(|mut peer| drop(peer.request()));
    let malformed = Backend::replying("nonsense\r\n\r\n");
    let failing = Backend::replying("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    let plain = no_tls();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (full, _filled) = ignore_when_full(&listener);
    let resetting = scripted(&[], |frames, _| {
        while let Some(stream) = frames.request() {
            frames.send(Kind::RstStream, 0, stream, &2_u32.to_be_bytes());
        }
    });
    let broken = scripted(&[], |frames, _| {
        while let Some(stream) = frames.request() {
            // Content before a head.
            frames.send(Kind::Ping, 0, stream, b"on a stream");
        }
    });
    one(
        &silent.spec(),
        &["--response-timeout", "200ms"],
        504,
        &[("failures_total", "reason=timeout", 1), ("own_responses_total", "code=504", 1)],
    );
    gate.open();
    one(&closing.spec(), &[], 502, &[("failures_total", "reason=closed", 1)]);
    one(&malformed.spec(), &[], 502, &[("failures_total", "reason=malformed", 1)]);
    one(&failing.spec(), &["--health-5xx"], 503, &[("failures_total", "reason=status", 1)]);
    one(&full.to_string(), &["--connect-timeout", "200ms"], 504, &[("failures_total", "reason=connect_timeout", 0)]);
    one(&format!("https://{}", plain.spec()), &["-k"], 502, &[("failures_total", "reason=tls", 0)]);
    for (backend, series) in
        [(&resetting, ("failures_total", "reason=reset", 1)), (&broken, ("failures_total", "reason=http2", 1))]
    {
        let balancer = before(Mode::Sp, &[backend], &ADMIN);
        assert_eq!(balancer.connect().post("/", b"hi").status(), 502, "{}", balancer.log());
        raised(&balancer, &[series]);
    }
}

#[test]
fn retries_are_counted_by_reason() {
    let good = Backend::named("good");
    let balancer = start(Mode::Sp, &["-b", VACANT, "-b", &good.spec()]);
    (0..2).for_each(|_| assert_eq!(balancer.get("/"), "good"));
    raised(&balancer, &[("retries_total", "reason=connect", 0)]);
    let breaking = Backend::serve(|mut peer| drop(peer.request()));
    let balancer = start(Mode::Sp, &["-b", &breaking.spec(), "-b", &good.spec(), "--retry-budget", "100"]);
    (0..2).for_each(|_| assert_eq!(balancer.get("/"), "good"));
    raised(&balancer, &[("retries_total", "reason=broken", 0)]);
    // The backend breaks off the second request of a connection.
    let backend = Backend::serve(|mut peer| {
        if peer.request().is_some() {
            peer.send(response("", b"served"));
            let _ = peer.request();
        }
    });
    let balancer = start(Mode::Sp, &["-b", &backend.spec(), "--health-interval", "off"]);
    let mut client = balancer.connect();
    (0..2).for_each(|_| assert_eq!(client.get("/").text(), "served"));
    raised(&balancer, &[("retries_total", "reason=stale", 1), ("pool_stale_total", "", 1)]);
    let resetting = || Backend::serve(|mut peer| drop(peer.request()));
    let (one, two) = (resetting(), resetting());
    let balancer = start(Mode::Sp, &["-b", &one.spec(), "-b", &two.spec(), "--retry-budget", "0"]);
    wait_until("the budget is used up", || {
        assert_eq!(balancer.connect().get("/").status(), 502);
        told(&balancer, "retries_refused_total", "") > 0.0
    });
    raised(&balancer, &[("retries_refused_total", "", 0)]);
}

#[test]
fn waiting_requests_and_backends_that_are_down_are_counted() {
    let gate = Gate::shut();
    let held = gate.clone();
    let backend = Backend::serve(move |mut peer| {
        while peer.request().is_some() && held.pass() {
            peer.send(response("", b"ok"));
        }
    });
    let balancer = start(Mode::Sp, &["-b", &format!("{},max=1", backend.spec()), "--connect-timeout", "200ms"]);
    let mut first = balancer.connect();
    first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    backend.wait_for_requests(1);
    assert_eq!(balancer.connect().get("/").status(), 503);
    gate.open();
    assert_eq!(first.response("GET").text(), "ok");
    raised(&balancer, &[("waits_total", "", 1), ("waits_failed_total", "", 1), ("own_responses_total", "code=503", 1)]);
    let balancer = start(Mode::Sp, &["-b", VACANT, "--health-fails", "1"]);
    (0..2).for_each(|_| assert_eq!(balancer.connect().get("/").status(), 502));
    raised(&balancer, &[("ejections_total", "", 1), ("fail_open_total", "", 0)]);
    let args = ["-b", &Backend::named("a").spec(), "-b", VACANT, "--health-interval", "200ms"];
    let balancer = start(Mode::Sp, &args);
    raised(&balancer, &[("probes_total", "result=failed", 0)]);
    let good = Backend::named("a");
    let balancer = start(Mode::Sp, &["-b", &good.spec(), "--health-interval", "200ms"]);
    raised(&balancer, &[("probes_total", "result=passed", 0)]);
}

#[test]
fn handshakes_are_counted_by_result() {
    let backend = Backend::serve(|mut peer| {
        if peer.request().is_some() {
            peer.send(response("", b"ok"));
        }
    });
    let way = Way::to(&backend, Protocol::H1Tls);
    let balancer = start(Mode::Sp, &way.args());
    for _ in 0..3 {
        assert_eq!(balancer.get("/"), "ok");
    }
    raised(&balancer, &[("handshakes_total", "result=full", 0), ("handshakes_total", "result=resumed", 0)]);
    let plain = no_tls();
    let balancer = start(Mode::Sp, &["-b", &format!("https://{}", plain.spec()), "-k"]);
    assert_eq!(balancer.connect().get("/").status(), 502);
    raised(&balancer, &[("handshakes_total", "result=failed", 0)]);
}

#[test]
fn shortages_and_losses_are_counted() {
    let backend = Backend::named("a");
    // Without probes, because their descriptors come and go.
    let balancer = start(Mode::Sp, &["-b", &backend.spec(), "--health-interval", "off"]);
    let mut client = balancer.connect();
    client.send("GET / HTTP/1.1\r\nHo");
    wait_until("it is accepted", || told(&balancer, "client_connections", "") == 1.0);
    // The admin connection has ended.
    wait_until_still(|| open_descriptors(balancer.pid()) as u64);
    use_up_descriptors(balancer.pid());
    client.send("st: x\r\n\r\n");
    assert_eq!(client.response("GET").status(), 503);
    limit_descriptors(balancer.pid(), u64::MAX);
    raised(&balancer, &[("connects_exhausted_total", "", 0)]);

    // A log that is not read.
    let mut unread = command(&["-p", "0", "--host", "127.0.0.1", "--mode", "sp", "-t", "-b", &backend.spec()]);
    unread.stdout(std::process::Stdio::null());
    let (balancer, _reader) = Balancer::read_by_hand(unread);
    raised(&balancer, &[("log_lost_bytes_total", "", 0)]);
}

#[test]
fn events_of_processes_and_configurations_are_counted() {
    let gate = Gate::shut();
    let held = gate.clone();
    let backend = Backend::serve(move |mut peer| while peer.request().is_some() && held.pass() {});
    let balancer = start(Mode::Sp, &["-b", &backend.spec(), "--drain-timeout", "300ms"]);
    let cut = balancer.connect();
    cut.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    backend.wait_for_requests(1);
    balancer.signal(libc::SIGUSR2);
    balancer.wait_for_log("(generation 1)");
    raised(&balancer, &[("requests_cut_total", "", 1)]);
    gate.open();

    let directory = Directory::new();
    let good = Backend::named("a");
    let port = good.spec().rsplit_once(':').map(|(_, port)| port.to_owned()).expect("a port");
    let path = directory.put("lb.json", &format!(r#"{{"backends": ["127.0.0.2:{port}"]}}"#));
    let balancer = Balancer::with_file(Mode::Mp, &path, &ADMIN);
    directory.put("lb.json", "nonsense");
    raised(&balancer, &[("reloads_total", "result=refused", 1)]);
    assert_eq!(told(&balancer, "config_last_reload_successful", ""), 0.0);
    directory.put("lb.json", &format!(r#"{{"backends": ["{}"]}}"#, good.spec()));
    raised(&balancer, &[("reloads_total", "result=done", 1)]);
    assert_eq!(told(&balancer, "config_last_reload_successful", ""), 1.0);
    assert!(told(&balancer, "config_last_reload_success_timestamp_seconds", "") > 1.6e9);
    assert!(send_signal(balancer.workers()[0], libc::SIGKILL));
    raised(&balancer, &[("worker_restarts_total", "", 1)]);
    // The file for the upgrade is now invalid, so the new program does not start.
    directory.put("lb.json", "nonsense");
    raised(&balancer, &[("reloads_total", "result=refused", 2)]);
    balancer.signal(libc::SIGUSR2);
    raised(&balancer, &[("upgrades_refused_total", "", 1)]);
}
