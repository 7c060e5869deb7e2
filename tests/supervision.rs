//! Processes: workers that die, signals, drains, refused binds. Nothing is left behind.

use crate::support::{
    Backend, Balancer, Exit, Fault, Gate, Mode, alive, children, command, limit_descriptors, modes, response, run,
    send_signal, skipped, user_ids, wait_until,
};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// A backend that answers each request once the gate is open.
fn gated(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::serve(move |mut peer| {
        while peer.request().is_some() {
            assert!(gate.pass());
            let _ = peer.try_send(response("", b"done"));
        }
    })
}

#[test]
fn a_killed_worker_is_replaced_and_its_listener_kept() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Mp, &[&backend], &[]);
    for _ in 0..2 {
        wait_until("there are two workers", || balancer.workers().len() == 2);
        let before = balancer.workers();
        assert!(send_signal(before[0], libc::SIGKILL));
        // Served, regardless of the listener that the kernel picks and of its worker's state.
        for n in 0..20 {
            assert_eq!(balancer.get(&format!("/{n}")), "backend");
        }
        wait_until("another worker", || balancer.workers().len() == 2 && !balancer.workers().contains(&before[0]));
        assert!(balancer.workers().contains(&before[1]), "the healthy one is left alone");
        wait_until("the dead one is reaped", || children(balancer.pid()).iter().all(|&(_, lives)| lives));
    }
    assert_eq!(balancer.stop(), Exit::Status(0));
}

#[test]
fn sp_is_one_process_and_one_worker_in_mp_is_two() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    assert_eq!(balancer.get("/"), "backend");
    assert_eq!(balancer.workers(), []);
    let spec = backend.spec();
    let one = command(&["-p", "0", "--host", "127.0.0.1", "-m", "mp", "-w", "1", "-b", &spec]);
    let balancer = Balancer::spawn(one);
    assert_eq!(balancer.get("/"), "backend");
    assert_eq!(balancer.workers().len(), 1, "a crash must not take the master with it");
}

#[test]
fn term_and_quit_drain_and_exit_0() {
    for mode in modes() {
        for signal in [libc::SIGTERM, libc::SIGQUIT, libc::SIGINT] {
            let gate = Gate::shut();
            let backend = gated(&gate);
            let mut balancer = Balancer::before(mode, &[&backend], &["--drain-timeout", "15s"]);
            let workers = balancer.workers();
            let mut client = balancer.connect();
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            backend.wait_for_requests(1);
            balancer.signal(signal);
            let address = balancer.address();
            wait_until("it stops listening", || TcpStream::connect(address).is_err());
            assert!(balancer.runs(), "{mode:?}: a request is still running");
            gate.open();
            let answer = client.response("GET");
            assert_eq!(answer.text(), "done", "{mode:?}, signal {signal}");
            assert!(answer.connection_has("close"), "{mode:?}: {answer:?}");
            assert_eq!(client.end(), Fault::Fin);
            assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}, signal {signal}");
            wait_until("no worker is left", || workers.iter().all(|&pid| !alive(pid)));
        }
    }
}

#[test]
fn idle_clients_may_send_until_the_drain_ends_if_configured_so() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let mut balancer = Balancer::before(mode, &[&backend], &["--drain-timeout", "5s", "--drain-idle", "1m"]);
        let mut busy = balancer.connect();
        let mut idle = balancer.connect();
        for client in [&mut busy, &mut idle] {
            assert_eq!(client.get("/").status(), 200);
        }
        let start = Instant::now();
        balancer.signal(libc::SIGTERM);
        let address = balancer.address();
        wait_until("it stops listening", || TcpStream::connect(address).is_err());
        let answer = busy.get("/");
        assert_eq!(answer.text(), "backend", "{mode:?}: an idle connection is not closed under a client");
        assert!(answer.connection_has("close"), "{answer:?}");
        assert_eq!(idle.end(), Fault::Fin, "{mode:?}");
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}: nothing was cut");
        assert!(start.elapsed() > Duration::from_secs(4), "{mode:?}: it was closed after {:?}", start.elapsed());
    }
}

#[test]
fn a_drain_that_cuts_requests_exits_1() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = gated(&gate);
        let mut balancer = Balancer::before(mode, &[&backend], &["--drain-timeout", "300ms"]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        backend.wait_for_requests(1);
        balancer.signal(libc::SIGTERM);
        assert_eq!(balancer.wait(), Exit::Status(1), "{mode:?}:\n{}", balancer.log());
        assert!(client.try_response("GET").map_or(true, |answer| answer.status() >= 500));
        gate.open();
    }
}

#[test]
fn a_second_term_stops_at_once() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = gated(&gate);
        let mut balancer = Balancer::before(mode, &[&backend], &["--drain-timeout", "10m"]);
        let workers = balancer.workers();
        let client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        backend.wait_for_requests(1);
        balancer.signal(libc::SIGTERM);
        let address = balancer.address();
        wait_until("it stops listening", || TcpStream::connect(address).is_err());
        balancer.signal(libc::SIGTERM);
        assert!(matches!(balancer.wait(), Exit::Status(_)), "{mode:?}");
        wait_until("no worker is left", || workers.iter().all(|&pid| !alive(pid)));
        gate.open();
    }
}

/// Like Ctrl-C at a terminal, and systemd for a whole service: every process gets the signal.
#[test]
fn a_signal_to_the_whole_group_counts_once() {
    for mode in modes() {
        // Repeated, because the scheduler decides which process handles its signal first.
        for signal in [libc::SIGINT, libc::SIGTERM].repeat(4) {
            let gate = Gate::shut();
            let backend = gated(&gate);
            let mut balancer = Balancer::before(mode, &[&backend], &["--drain-timeout", "15s"]);
            let mut client = balancer.connect();
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            backend.wait_for_requests(1);
            assert!(send_signal(-balancer.pid(), signal));
            let address = balancer.address();
            wait_until("it stops listening", || TcpStream::connect(address).is_err());
            gate.open();
            assert_eq!(client.response("GET").text(), "done", "{mode:?}, signal {signal}");
            drop(client);
            assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}, signal {signal}");
        }
    }
}

#[test]
fn user_drops_privileges_after_binding() {
    if user_ids(std::process::id() as i32)[1] != 0 {
        skipped("only root has privileges to drop");
        return;
    }
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--user", "nobody"]);
        assert_eq!(balancer.get("/"), "backend");
        for pid in balancer.serving() {
            assert!(user_ids(pid).iter().all(|&id| id != 0), "{mode:?}: {:?}", user_ids(pid));
        }
    }
    let output = run(&["-p", "0", "--host", "127.0.0.1", "-b", "127.0.0.1:1", "--user", "no-such-account"]);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-account"), "{output:?}");
}

#[test]
fn workers_die_with_the_master() {
    let backend = Backend::named("backend");
    let mut balancer = Balancer::before(Mode::Mp, &[&backend], &[]);
    let workers = balancer.workers();
    assert_eq!(workers.len(), 2);
    balancer.signal(libc::SIGKILL);
    assert_eq!(balancer.wait(), Exit::Signal(libc::SIGKILL));
    wait_until("the workers are gone", || workers.iter().all(|&pid| !alive(pid)));
    assert!(TcpStream::connect(balancer.address()).is_err(), "nobody listens any more");
}

#[test]
fn a_crash_loop_ends_in_exit_1_and_says_so() {
    let backend = Backend::named("backend");
    let mut balancer = Balancer::before(Mode::Mp, &[&backend], &[]);
    // A worker finds no descriptor for its poller.
    limit_descriptors(balancer.pid(), 4);
    assert!(send_signal(balancer.workers()[0], libc::SIGKILL));
    let start = Instant::now();
    while balancer.runs() {
        assert!(start.elapsed() < Duration::from_secs(60), "it respawns forever:\n{}", balancer.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(balancer.wait(), Exit::Status(1));
    let log = balancer.log().to_lowercase();
    assert!(log.contains("worker") && log.contains(" err "), "a clear message:\n{log}");
}

#[test]
fn a_refused_bind_says_address_and_reason_and_exits_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    for mode in ["mp", "sp"] {
        let output = run(&["--host", "127.0.0.1", "-p", &port, "-m", mode, "-b", "127.0.0.1:1"]);
        let text = String::from_utf8_lossy(&output.stderr).to_string();
        assert_eq!(output.status.code(), Some(1), "{mode}: {text}");
        assert!(text.contains(&format!("127.0.0.1:{port}")), "{mode}: {text}");
        assert!(text.to_lowercase().contains("in use"), "{mode}: {text}");
        assert!(!text.contains("listening on"), "{mode}: {text}");
    }
    // TEST-NET-1 belongs to no host.
    let output = run(&["--host", "192.0.2.1", "-p", "0", "-b", "127.0.0.1:1"]);
    let text = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("192.0.2.1"), "{text}");
}

#[test]
fn two_instances_cannot_share_a_port() {
    let backend = Backend::named("backend");
    for mode in modes() {
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let port = balancer.address().port().to_string();
        for second in ["mp", "sp"] {
            let output = run(&["--host", "127.0.0.1", "-p", &port, "-m", second, "-b", "127.0.0.1:1"]);
            assert_eq!(output.status.code(), Some(1), "{mode:?} then {second}: {output:?}");
        }
        assert_eq!(balancer.get("/"), "backend");
    }
}

#[test]
fn hup_and_usr1_and_winch_do_no_harm() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let mut balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        let mut targets = balancer.workers();
        targets.push(balancer.pid());
        for signal in [libc::SIGHUP, libc::SIGUSR1, libc::SIGWINCH, libc::SIGPIPE] {
            for &pid in &targets {
                assert!(send_signal(pid, signal));
            }
            assert_eq!(client.get("/").text(), "backend", "{mode:?}, signal {signal}");
            assert_eq!(balancer.get("/"), "backend", "{mode:?}, signal {signal}");
        }
        assert!(balancer.runs());
        // An idle client may send until the drain deadline, so the balancer would wait for it.
        drop(client);
        assert_eq!(balancer.stop(), Exit::Status(0));
    }
}

#[test]
fn a_port_is_free_again_at_once() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let port = balancer.address().port().to_string();
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert_eq!(client.response("GET").status(), 200);
        // The balancer closed first, so its port is in TIME_WAIT.
        assert_eq!(client.end(), Fault::Fin);
        assert_eq!(balancer.stop(), Exit::Status(0));
        let spec = backend.spec();
        let again = Balancer::spawn(command(&["--host", "127.0.0.1", "-p", &port, "-m", "sp", "-b", &spec]));
        assert_eq!(again.get("/"), "backend", "{mode:?}");
    }
}

/// The worker closed its descriptor of the listener, which the master keeps open: clients that the kernel
/// assigned to it waited forever.
#[test]
fn a_signal_to_one_worker_does_nothing() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Mp, &[&backend], &[]);
    let before = balancer.workers();
    let _idle: Vec<_> = (0..8).map(|_| balancer.connect()).collect();
    for signal in [libc::SIGTERM, libc::SIGQUIT, libc::SIGINT] {
        assert!(send_signal(before[0], signal));
        for _ in 0..10 {
            assert_eq!(balancer.get("/"), "backend", "signal {signal}");
        }
        assert_eq!(balancer.workers(), before, "signal {signal}: nobody is replaced");
    }
}

#[test]
fn a_client_that_has_its_answer_and_stays_holds_a_drain_up_only_briefly() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = gated(&gate);
        let mut balancer = Balancer::before(mode, &[&backend], &["--drain-timeout", "20s"]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        backend.wait_for_requests(1);
        balancer.signal(libc::SIGTERM);
        // The log line comes before the signal to the workers.
        wait_until("nobody is accepted", || std::net::TcpStream::connect(balancer.address()).is_err());
        gate.open();
        assert!(client.response("GET").connection_has("close"));
        let start = Instant::now();
        // The client stays open.
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
        assert!(start.elapsed() < Duration::from_secs(8), "{mode:?}: {:?}", start.elapsed());
    }
}

/// The rest of a response that the client had not read was not counted as cut.
#[test]
fn a_response_that_a_drain_cuts_is_counted() {
    for mode in modes() {
        let body = vec![b'b'; 64 << 20];
        let backend = Backend::replying(response("", &body));
        let mut balancer = Balancer::before(mode, &[&backend], &["--drain-timeout", "300ms"]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.head().expect("a head").status(), 200);
        balancer.signal(libc::SIGTERM);
        assert_eq!(balancer.wait(), Exit::Status(1), "{mode:?}:\n{}", balancer.log());
        assert!(balancer.whole_log().contains("cut 1 request"), "{mode:?}:\n{}", balancer.whole_log());
        assert!(client.rest().0.len() < body.len(), "{mode:?}");
    }
}

/// A worker that died within a second counted as a crash at the start, even if it had served. Ten of them ended
/// the program.
#[test]
fn workers_that_served_are_replaced_at_once_however_often_they_are_killed() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Mp, &[&backend], &[]);
    for signal in [libc::SIGKILL, libc::SIGSEGV].repeat(12) {
        wait_until("there are two workers", || balancer.workers().len() == 2);
        let killed = balancer.workers()[0];
        let replaced = balancer.log().matches(", respawned as pid ").count();
        // The first SEGV that is not a fault only removes the runtime's handler.
        wait_until("it is replaced", || {
            send_signal(killed, signal);
            balancer.log().matches(", respawned as pid ").count() > replaced
        });
        // This many also reach the replacement's listener, and show that it accepts.
        (0..16).for_each(|n| assert_eq!(balancer.get(&format!("/{n}")), "backend"));
    }
    let log = balancer.log();
    assert!(!log.contains("to be respawned in"), "{log}");
    assert!(log.contains("died: signal 9, respawned") && log.contains("died: signal 11, respawned"), "{log}");
    assert_eq!(balancer.stop(), Exit::Status(0));
}
