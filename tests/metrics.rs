//! Metrics and status pages: correct for every reader and after every death.

use std::collections::BTreeSet;

use crate::support::{Backend, Balancer, Directory, Exit, Mode, Wire, modes, send_signal, wait_until};

#[test]
fn requests_are_counted_exactly_and_a_worker_s_death_loses_none() {
    let backends = ["a", "b"].map(Backend::named);
    let balancer = Balancer::before(Mode::Mp, &backends.each_ref(), &[]);
    (0..101).for_each(|_| _ = balancer.get("/"));
    assert_eq!(balancer.metric("zzz_lb_requests_total", "2xx"), 101);
    for worker in balancer.workers() {
        send_signal(worker, libc::SIGKILL);
    }
    wait_until("both are replaced", || balancer.log().matches("respawned").count() == 2);
    (0..49).for_each(|_| _ = balancer.get("/"));
    assert_eq!(balancer.metric("zzz_lb_requests_total", "2xx"), 150);
    assert_eq!(balancer.metric("zzz_lb_request_duration_seconds_count", ""), 150);
    assert_eq!(balancer.metric("zzz_lb_worker_restarts_total", ""), 2);
}

#[test]
fn the_text_is_as_the_format_has_it() {
    for mode in modes() {
        let backend = Backend::named("a");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        balancer.get("/");
        let answer = balancer.connect().get("/metrics");
        assert_eq!(answer.value("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let (mut families, mut series, mut family) = (BTreeSet::new(), BTreeSet::new(), String::new());
        let text = answer.text();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap_or_default().to_owned();
                assert!(families.insert(family.clone()), "{family} comes twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(rest.starts_with(&format!("{family} ")), "{line}");
            } else {
                assert!(line.starts_with(&family), "{line} in {family}");
                assert!(series.insert(line.rsplit_once(' ').expect("a value").0), "{line} comes twice");
            }
        }
        assert!(families.len() > 30 && families.iter().any(|name| name == "process_cpu_seconds_total"));
    }
}

#[test]
fn it_is_served_to_head_and_to_http_1_0() {
    for mode in modes() {
        let backend = Backend::named("a");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response("HEAD").status(), 200);
        // A query does not select another page, and the connection continues.
        assert!(client.get("/metrics?x=1").text().contains("zzz_lb_build_info"));
        assert_eq!(client.get("/metricsx").text(), "a");
        let mut old = balancer.connect();
        old.send("GET /metrics HTTP/1.0\r\n\r\n");
        assert!(old.response("GET").text().ends_with('\n'));
        let posted = balancer.connect().post("/metrics", b"x");
        assert_eq!(posted.text(), "a", "what is no scrape is the backend's");
        assert_eq!(backend.count(), 2);
    }
}

#[test]
fn the_admin_port_has_it_alone() {
    for mode in modes() {
        let backend = Backend::named("a");
        let balancer = Balancer::before(mode, &[&backend], &["--admin", "0"]);
        let admin = balancer.admin();
        let ask = |path: &str| Wire::tcp(admin).get(path);
        assert_eq!(balancer.get("/metrics"), "a");
        assert!(ask("/metrics").text().contains("zzz_lb_requests_total"));
        assert_eq!((ask("/livez").status(), ask("/readyz").status(), ask("/x").status()), (200, 200, 404));
        let refused = Wire::tcp(admin).post("/metrics", b"");
        assert_eq!((refused.status(), refused.value("Allow")), (405, Some("GET, HEAD")));
        // An unfinished request keeps the workers draining.
        let mut client = balancer.connect();
        client.send("GET /up HTTP/1.1\r\nHost: x\r\nContent-Len");
        balancer.signal(libc::SIGTERM);
        wait_until("it reports that it drains", || ask("/readyz").status() == 503);
        assert_eq!(ask("/livez").status(), 200);
        client.send("gth: 0\r\n\r\n");
        assert_eq!(client.response("GET").text(), "a");
    }
}

#[test]
fn clients_of_the_admin_port_before_the_end_are_answered() {
    for mode in modes() {
        let backend = Backend::named("a");
        let mut balancer = Balancer::before(mode, &[&backend], &["--admin", "0"]);
        let admin = balancer.admin();
        let mut early = Wire::tcp(admin);
        early.send("GET /readyz HTTP/1.1\r\nHo");
        balancer.signal(libc::SIGTERM);
        balancer.wait_for_log("draining");
        early.send("st: x\r\n\r\n");
        // A worker may learn of the drain only after that.
        assert!(matches!(early.response("GET").status(), 200 | 503), "{mode:?}");
        assert_eq!(balancer.wait(), Exit::Status(0));
    }
}

#[test]
fn a_slow_reader_of_much_holds_nobody_up() {
    let backend = Backend::named("a");
    let port = backend.spec().rsplit_once(':').map(|(_, port)| port.to_owned()).expect("a port");
    let places: Vec<String> = (0..300).map(|n| format!("\"127.9.{}.{}:{port}\"", n / 250, n % 250 + 1)).collect();
    let directory = Directory::new();
    let text = format!("{{\"backends\": [\"{}\", {}]}}", backend.spec(), places.join(", "));
    let path = directory.put("lb.json", &text);
    let balancer = Balancer::with_file(Mode::Sp, &path, &["--metrics-detail", "address"]);
    let mut slow = balancer.connect();
    slow.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    slow.some(10).expect("it begins");
    assert_eq!(balancer.connect().get("/livez").status(), 200);
    assert_eq!(balancer.metric("zzz_lb_client_connections", ""), 2);
    let (rest, _) = {
        slow.shutdown_write();
        slow.rest()
    };
    assert!(rest.len() > 800_000, "{} bytes", rest.len());
    assert!(rest.ends_with(b"0\r\n\r\n"), "it ends whole");
}

#[test]
fn the_path_can_be_another_or_none() {
    for mode in modes() {
        let backend = Backend::named("a");
        let balancer = Balancer::before(mode, &[&backend], &["--metrics-path", "/m/x"]);
        let text = balancer.connect().get("/m/x").text();
        assert!(text.contains("zzz_lb_build_info"), "{mode:?}: {text}");
        assert_eq!((balancer.get("/metrics"), balancer.get("/m")), ("a".into(), "a".into()), "{mode:?}");
        let balancer = Balancer::before(mode, &[&backend], &["--metrics-path", "off"]);
        assert_eq!((balancer.get("/metrics"), balancer.get("/off")), ("a".into(), "a".into()), "{mode:?}");
        assert_eq!(backend.count(), 4, "{mode:?}");
    }
}

#[test]
fn workers_that_accept_and_that_drain_are_counted() {
    for (mode, workers) in [(Mode::Mp, 2), (Mode::Sp, 1)] {
        let backend = Backend::named("a");
        let mut balancer = Balancer::before(mode, &[&backend], &["--admin", "0", "--max-connections", "4"]);
        let admin = balancer.admin();
        let value = |family: &str| {
            let text = Wire::tcp(admin).get("/metrics").text();
            let line = text.lines().find_map(|line| line.strip_prefix(family)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {family} in {text}")).parse::<u64>().expect("a whole number")
        };
        let state = || (value("zzz_lb_accepting"), value("zzz_lb_draining"));
        assert_eq!(value("zzz_lb_client_connections_limit"), 4, "{mode:?}");
        wait_until("all accept", || state() == (workers, 0));
        // More clients than may be connected: those beyond wait.
        let mut clients: Vec<Wire> = (0..24).map(|_| balancer.connect()).collect();
        clients.iter().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        wait_until("none accepts", || state() == (0, 0));
        assert_eq!(value("zzz_lb_client_connections"), 4, "{mode:?}");
        clients.clear();
        wait_until("all accept again", || state() == (workers, 0));
        // The system spreads clients over the workers, so each gets some, and a client keeps its worker from ending.
        let mut clients: Vec<Wire> = (0..24).map(|_| balancer.connect()).collect();
        clients.iter().for_each(|client| client.send("GET / HTTP/1.1\r\nHo"));
        wait_until("no more can be connected", || value("zzz_lb_client_connections") == 4);
        balancer.signal(libc::SIGTERM);
        wait_until("all drain", || state() == (0, workers));
        clients.iter().for_each(|client| client.send("st: x\r\n\r\n"));
        assert!(clients.iter_mut().all(|client| client.response("GET").text() == "a"), "{mode:?}");
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
    }
}
