//! The end of workers and of the whole program: readiness, waiting, exit status.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Backend, Balancer, Directory, Exit, Gate, Mode, Wire, children, modes, send_signal, wait_until};

fn admin(balancer: &Balancer) -> SocketAddr {
    let log = balancer.wait_for_log("admin on ");
    let rest = log.rsplit_once("admin on ").expect("just seen").1;
    rest.split(": ").next().and_then(|text| text.parse().ok()).expect("an address")
}

/// A client with a request that the backend holds.
fn held(balancer: &Balancer, backend: &Backend) -> Wire {
    let (client, before) = (balancer.connect(), backend.count());
    client.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
    backend.wait_for_requests(before + 1);
    client
}

fn upgrade(balancer: &Balancer, generation: usize) {
    balancer.signal(libc::SIGUSR2);
    balancer.wait_for_log(&format!("(generation {generation})"));
}

/// The number of processes that a balancer of a mode has without old workers.
fn workers_of(mode: Mode) -> usize {
    if mode == Mode::Mp { 2 } else { 0 }
}

/// A replaced worker reported that the balancer was not ready.
#[test]
fn a_retired_worker_is_ready_and_its_idle_admin_connections_hold_it_up_only_briefly() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = Backend::gated(&gate);
        let balancer = Balancer::before(mode, &[&backend], &["--admin", "0"]);
        let mut kept: Vec<Wire> = (0..2).map(|_| Wire::tcp(admin(&balancer))).collect();
        kept.iter_mut().for_each(|wire| assert_eq!(wire.get("/readyz").status(), 200));
        let mut client = held(&balancer, &backend);
        upgrade(&balancer, 1);
        let mut told = kept.remove(0);
        wait_until("its worker has retired", || {
            let answer = told.get("/readyz");
            assert_eq!(answer.status(), 200, "{mode:?}");
            answer.connection_has("close")
        });
        gate.open();
        assert_eq!(client.response("GET").text(), "done");
        drop(client);
        // The other connection stays idle.
        let begun = Instant::now();
        wait_until("those of before have ended", || children(balancer.pid()).len() == workers_of(mode));
        assert!(begun.elapsed() < Duration::from_secs(10), "{mode:?}: {:?}", begun.elapsed());
        assert_eq!(Wire::tcp(admin(&balancer)).get("/readyz").status(), 200, "{mode:?}");
    }
}

/// The kernel holds a silent client back from the listener, which closes at TERM.
#[test]
fn a_client_that_has_connected_and_sent_nothing_at_term_is_served() {
    for mode in modes() {
        let backend = Backend::gated(&Gate::shut());
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        balancer.signal(libc::SIGTERM);
        balancer.wait_for_log("draining");
        // Longer than immediately accepted connections may wait; the second SYN-ACK comes after 1 s.
        thread::sleep(Duration::from_millis(700));
        let answer = client.get("/");
        assert_eq!((answer.status(), &*answer.text()), (200, "done"), "{mode:?}");
    }
}

#[test]
fn requests_cut_by_an_earlier_upgrade_do_not_fail_the_shutdown() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = Backend::gated(&gate);
        let balancer = Balancer::before(mode, &[&backend], &["--drain-timeout", "200ms"]);
        let _client = held(&balancer, &backend);
        upgrade(&balancer, 1);
        balancer.wait_for_log("cut 1 request off");
        wait_until("those of before have ended", || children(balancer.pid()).len() == workers_of(mode));
        gate.open();
        assert_eq!(balancer.stop(), Exit::Status(0), "{mode:?}");
    }
}

#[test]
fn requests_of_an_old_worker_cut_by_a_second_term_fail_the_shutdown() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = Backend::gated(&gate);
        let mut balancer = Balancer::before(mode, &[&backend], &[]);
        let _client = held(&balancer, &backend);
        upgrade(&balancer, 1);
        balancer.signal(libc::SIGTERM);
        wait_until("it drains", || TcpStream::connect(balancer.address()).is_err());
        balancer.signal(libc::SIGTERM);
        assert_eq!(balancer.wait(), Exit::Status(1), "{mode:?}");
        assert!(balancer.whole_log().contains("process: stopped"), "{mode:?}");
        gate.open();
    }
}

/// The modes differed: in mp the workers were killed, which made the exit status 1 even without requests, and
/// cut requests were not counted.
#[test]
fn a_second_term_stops_at_once_and_fails_if_it_cuts_requests() {
    for mode in modes() {
        for delay in ["off", "10m"] {
            let gate = Gate::shut();
            let backend = Backend::gated(&gate);
            let begin = || Balancer::before(mode, &[&backend], &["--drain-delay", delay]);
            let stop_twice = |balancer: &Balancer| {
                balancer.signal(libc::SIGTERM);
                balancer.wait_for_log("process: draining");
                balancer.signal(libc::SIGTERM);
            };
            let mut balancer = begin();
            let mut idle = balancer.connect();
            assert_eq!(idle.get("/").text(), "done");
            stop_twice(&balancer);
            assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}, {delay}");
            let log = balancer.whole_log();
            assert!(log.contains("process: told to stop at once"), "{mode:?}, {delay}");
            assert!(log.contains("process: drained"), "{mode:?}, {delay}");

            let mut balancer = begin();
            let _client = held(&balancer, &backend);
            stop_twice(&balancer);
            assert_eq!(balancer.wait(), Exit::Status(1), "{mode:?}, {delay}");
            let log = balancer.whole_log();
            assert!(log.contains("cut 1 request off"), "{mode:?}, {delay}");
            assert!(log.contains("process: stopped"), "{mode:?}, {delay}");
            gate.open();
        }
    }
}

/// In sp with an admin port the end waited only a second for old workers.
#[test]
fn the_end_waits_for_workers_of_before() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = Backend::gated(&gate);
        let mut balancer = Balancer::before(mode, &[&backend], &["--admin", "0"]);
        let mut client = held(&balancer, &backend);
        upgrade(&balancer, 1);
        balancer.signal(libc::SIGTERM);
        wait_until("it drains", || TcpStream::connect(balancer.address()).is_err());
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1500) {
            assert!(balancer.runs(), "{mode:?}");
            thread::sleep(Duration::from_millis(20));
        }
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("upgrade: refused: it is about to end");
        gate.open();
        assert_eq!(client.response("GET").text(), "done", "{mode:?}");
        drop(client);
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
        assert!(balancer.whole_log().contains("process: drained"), "{mode:?}");
    }
}

/// A worker that died during a drain delay was not replaced, and its listener was closed.
#[test]
fn a_worker_that_dies_while_draining_is_delayed_is_replaced() {
    let backend = Backend::named("a");
    let mut balancer =
        Balancer::before(Mode::Mp, &[&backend], &["--admin", "0", "--drain-delay", "6s", "--drain-idle", "1m"]);
    let admin = admin(&balancer);
    let begun = Instant::now();
    balancer.signal(libc::SIGTERM);
    balancer.wait_for_log("draining begins in 6s");
    let mut clients = Vec::new();
    for kill in 1..=3 {
        let killed = balancer.workers()[0];
        assert!(send_signal(killed, libc::SIGKILL));
        // None is refused: they wait for the replacement, which is no more ready than the first worker.
        clients = (0..16).map(|_| balancer.connect()).collect();
        clients.iter_mut().for_each(|client: &mut Wire| assert_eq!(client.get("/").text(), "a"));
        assert_eq!(Wire::tcp(admin).get("/readyz").status(), 503);
        wait_until("it is replaced", || balancer.log().matches(", respawned as pid ").count() >= kill);
        if begun.elapsed() > Duration::from_secs(3) {
            break;
        }
    }
    wait_until("nobody is accepted", || TcpStream::connect(balancer.address()).is_err());
    clients.iter_mut().for_each(|client| assert!(client.get("/").connection_has("close")));
    drop(clients);
    assert_eq!(balancer.wait(), Exit::Status(0));
}

/// Like Ctrl-Z at a terminal, or a suspended machine.
#[test]
fn a_group_that_stood_still_as_a_whole_loses_no_worker() {
    let backend = Backend::named("a");
    let balancer = Balancer::before(Mode::Mp, &[&backend], &["--watchdog", "800ms"]);
    let before = balancer.workers();
    for pause_ms in [600, 1000, 1800] {
        // The lifetimes of workers count from their start.
        thread::sleep(Duration::from_millis(850));
        assert!(send_signal(-balancer.pid(), libc::SIGSTOP));
        thread::sleep(Duration::from_millis(pause_ms));
        assert!(send_signal(-balancer.pid(), libc::SIGCONT));
        thread::sleep(Duration::from_millis(900));
        assert_eq!(balancer.workers(), before, "{pause_ms} ms: {}", balancer.log());
    }
    assert!(send_signal(before[0], libc::SIGSTOP));
    balancer.wait_for_log("stands still for");
}

/// Writes a configuration with drain settings.
fn drain_file(directory: &Directory, backend: &Backend, timeout: &str, delay: &str) -> PathBuf {
    let backends = format!("\"backends\": [\"{}\"]", backend.spec());
    let text = format!("{{{backends}, \"drain_timeout\": \"{timeout}\", \"drain_delay\": \"{delay}\"}}");
    directory.put("lb.json", &text)
}

/// Longer than a worker may run after a drain time of 100 ms before its master kills it.
const PAST_GRACE: Duration = Duration::from_millis(2600);

fn in_each_mode(test: impl Fn(Mode) + Sync) {
    let test = &test;
    thread::scope(|scope| modes().into_iter().for_each(|mode| drop(scope.spawn(move || test(mode)))));
}

/// A worker that drained because of an upgrade was killed by the drain time of a later reload, with its
/// requests.
#[test]
fn a_shorter_drain_time_is_for_those_that_begin_to_drain_later() {
    in_each_mode(|mode| {
        let (gate, directory) = (Gate::shut(), Directory::new());
        let backend = Backend::gated(&gate);
        let path = drain_file(&directory, &backend, "10m", "off");
        let balancer = Balancer::with_file(mode, &path, &[]);
        let mut client = held(&balancer, &backend);
        upgrade(&balancer, 1);
        drain_file(&directory, &backend, "100ms", "off");
        balancer.wait_for_log("+0 -0 ~0 backends");
        // The test is that nothing happens meanwhile.
        thread::sleep(PAST_GRACE);
        gate.open();
        assert_eq!(client.response("GET").text(), "done", "{mode:?}");
        drop(client);
        assert_eq!(balancer.stop(), Exit::Status(0), "{mode:?}");
    });
}

/// Workers were killed by the drain time that was set when the drain delay began.
#[test]
fn a_drain_time_that_is_reloaded_before_draining_begins_holds() {
    in_each_mode(|mode| {
        let (gate, directory) = (Gate::shut(), Directory::new());
        let backend = Backend::gated(&gate);
        // As long as a reload may take on a busy machine.
        let path = drain_file(&directory, &backend, "100ms", "5s");
        let mut balancer = Balancer::with_file(mode, &path, &[]);
        let mut client = held(&balancer, &backend);
        balancer.signal(libc::SIGTERM);
        balancer.wait_for_log("draining begins in 5s");
        drain_file(&directory, &backend, "10m", "5s");
        balancer.wait_for_log("+0 -0 ~0 backends");
        wait_until("it drains", || TcpStream::connect(balancer.address()).is_err());
        thread::sleep(PAST_GRACE);
        assert!(balancer.runs(), "{mode:?}: {}", balancer.log());
        gate.open();
        assert_eq!(client.response("GET").text(), "done", "{mode:?}");
        drop(client);
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
    });
}
