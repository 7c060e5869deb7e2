//! Upgrades: accepted and refused programs, and the state that an upgrade keeps.

use std::fs;
use std::time::Duration;

use crate::support::{Backend, Balancer, Directory, Exit, Gate, Mode, Wire, children, command, modes, wait_until};

/// A balancer that runs from a copy of the program.
fn from_copy(mode: Mode, directory: &Directory, args: &[&str]) -> Balancer {
    let copy = directory.put_program("lb", &fs::read(env!("CARGO_BIN_EXE_load_balancer")).expect("it is there"), 0o755);
    let inner = command(&[]);
    let mut command = std::process::Command::new(&copy);
    command
        .args(["--host", "127.0.0.1"])
        .args(mode.args())
        .args(args)
        .env_clear()
        .envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Balancer::spawn(command)
}

/// Upgrades, and waits for the new program's log line.
#[track_caller]
fn upgrade(balancer: &Balancer, generation: usize) -> String {
    balancer.signal(libc::SIGUSR2);
    balancer.wait_for_log(&format!("(generation {generation})"))
}

#[track_caller]
fn refused(balancer: &Balancer, why: &str, times: usize) {
    balancer.signal(libc::SIGUSR2);
    wait_until("it is refused", || balancer.log().matches("upgrade: refused: ").count() == times);
    let log = balancer.log();
    let last = log.lines().rfind(|line| line.contains("upgrade: refused: ")).expect("just counted");
    assert!(last.contains(why) && last.ends_with("this program goes on"), "{last}");
}

#[test]
fn the_process_stays_and_counts_and_connections_survive() {
    for mode in modes() {
        let backend = Backend::named("a");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let (pid, mut client) = (balancer.pid(), balancer.connect());
        let (before, mut generation) = (balancer.workers(), 0);
        assert_eq!(client.get("/").text(), "a");
        for _ in 0..3 {
            generation += 1;
            upgrade(&balancer, generation);
            // A client of the old program is served, and told to reconnect.
            wait_until("it gets the end of its connection announced", || {
                let answer = client.get("/");
                assert_eq!(answer.text(), "a", "{mode:?}");
                answer.connection_has("close")
            });
            // A worker has a connection once its client has sent. The last worker to leave may still take it.
            wait_until("a client stays", || {
                client = balancer.connect();
                let answer = client.get("/");
                assert_eq!(answer.text(), "a", "{mode:?}");
                !answer.connection_has("close")
            });
            assert_eq!(balancer.get("/"), "a");
        }
        assert_eq!(balancer.pid(), pid);
        assert!(balancer.workers().iter().all(|worker| !before.contains(worker)));
        let answered = balancer.metric("zzz_lb_requests_total", "code=\"2xx\"");
        assert_eq!(answered, backend.count() as u64, "{mode:?}");
        assert_eq!(balancer.metric("zzz_lb_upgrade_generation", ""), 3);
    }
}

#[test]
fn requests_are_finished_by_the_worker_that_began_them() {
    for mode in modes() {
        let gate = Gate::shut();
        let passed = gate.clone();
        let backend = Backend::serve(move |mut peer| {
            while peer.request().is_some() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
                passed.pass();
                peer.send("cd");
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        backend.wait_for_requests(1);
        upgrade(&balancer, 1);
        upgrade(&balancer, 2);
        gate.open();
        assert_eq!(client.response("GET").text(), "abcd", "{mode:?}");
        drop(client);
        let now = if mode == Mode::Mp { 2 } else { 0 };
        wait_until("the workers of before have gone", || children(balancer.pid()).len() == now);
    }
}

#[test]
fn a_file_that_is_not_a_balancer_is_refused() {
    for mode in modes() {
        let (backend, directory) = (Backend::named("a"), Directory::new());
        let balancer = from_copy(mode, &directory, &["-p", "0", "-b", &backend.spec()]);
        let (path, whole) = (directory.file("lb"), fs::read(directory.file("lb")).expect("it is there"));
        let mut client = balancer.connect();
        let mut times = 0;
        let mut check = |contents: Option<&[u8]>, permissions: u32, why: &str| {
            match contents {
                Some(contents) => _ = directory.put_program("lb", contents, permissions),
                None => fs::remove_file(&path).expect("it is there"),
            }
            times += 1;
            refused(&balancer, why, times);
            assert_eq!(client.get("/").text(), "a", "{mode:?}, {why}");
            assert_eq!(balancer.get("/"), "a", "{mode:?}, {why}");
        };
        check(None, 0, "cannot be run: No such file");
        check(Some(b"\x7fELF and then nothing"), 0o755, "cannot be run: ");
        check(Some(&whole[..100_000]), 0o755, "");
        check(Some(&whole), 0o644, "cannot be run: Permission denied");
        let mut foreign = whole.clone();
        // The nineteenth byte of an ELF file is the machine, here 68000.
        foreign[18..20].copy_from_slice(&4_u16.to_le_bytes());
        check(Some(&foreign), 0o755, "cannot be run: Exec format error");
        check(Some(b"#!/bin/sh\nexit 0\n"), 0o755, "is no load_balancer that can take over");
        check(Some(b"#!/bin/sh\necho 'out of order' >&2\nexit 7\n"), 0o755, "says: out of order (exit status 7)");
        check(Some(b"#!/bin/sh\nkill -SEGV $$\n"), 0o755, "ended: signal 11");
        // With the right program, the upgrade succeeds.
        directory.put_program("lb", &whole, 0o755);
        upgrade(&balancer, 1);
        assert_eq!(balancer.get("/"), "a");
    }
}

#[test]
fn one_that_does_not_answer_is_given_up() {
    let (backend, directory) = (Backend::named("a"), Directory::new());
    let balancer = from_copy(Mode::Mp, &directory, &["-p", "0", "-b", &backend.spec()]);
    directory.put_program("lb", b"#!/bin/sh\nexec sleep 60\n", 0o755);
    balancer.signal(libc::SIGUSR2);
    wait_until("it is asked", || children(balancer.pid()).len() == 3);
    assert_eq!(balancer.get("/"), "a");
    balancer.wait_for_log("did not say within 10 s whether it can take over; this program goes on");
    wait_until("it has ended", || children(balancer.pid()).len() == 2);
    assert_eq!(balancer.get("/"), "a");
}

#[test]
fn an_unusable_configuration_is_refused() {
    for mode in modes() {
        let (backend, directory) = (Backend::named("a"), Directory::new());
        let file = |more: &str| format!("{{\"backends\": [\"{}\"]{more}}}", backend.spec());
        let path = directory.put("lb.json", &file(", \"port\": 0"));
        let balancer = from_copy(mode, &directory, &["-c", path.to_str().expect("a path of ours")]);
        directory.put("lb.json", "{\"backends\": [7]}");
        refused(&balancer, "lb.json:1:15", 1);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("it has one").port();
        directory.put("lb.json", &file(&format!(", \"port\": {port}")));
        refused(&balancer, "cannot listen on 127.0.0.1:", 2);
        assert_eq!(balancer.get("/"), "a");
        directory.put("lb.json", &file(", \"port\": 0"));
        upgrade(&balancer, 1);
        assert_eq!(balancer.get("/"), "a");
    }
}

#[test]
fn settings_fixed_at_run_time_change_with_an_upgrade() {
    let (backend, directory) = (Backend::named("a"), Directory::new());
    let file = |more: &str| format!("{{\"backends\": [\"{}\"], {more}}}", backend.spec());
    let path = directory.put("lb.json", &file("\"port\": 0, \"workers\": 1"));
    // On a host of its own, so that no other test gets the port that is free below.
    let host = "127.0.0.6";
    let balancer = Balancer::spawn({
        let mut command = command(&["--host", host, "-c", path.to_str().expect("a path of ours")]);
        command.args(["-m", "mp"]);
        command
    });
    let old = balancer.address();
    let mut generation = 0;
    // More workers, fewer, and the original number: every listener has a worker.
    for workers in [3, 1, 2] {
        directory.put("lb.json", &file(&format!("\"port\": 0, \"workers\": {workers}")));
        balancer.wait_for_log("workers cannot change while it runs");
        generation += 1;
        upgrade(&balancer, generation);
        wait_until("there are so many workers", || balancer.workers().len() == workers);
        for _ in 0..50 {
            assert_eq!(balancer.get("/"), "a", "{workers} workers");
        }
    }
    let free = std::net::TcpListener::bind((host, 0)).expect("a port").local_addr().expect("it has one");
    directory.put("lb.json", &file(&format!("\"port\": {}, \"workers\": 2, \"strategy\": \"random\"", free.port())));
    let mut early = Wire::tcp(old);
    upgrade(&balancer, generation + 1);
    assert_eq!(early.get("/").text(), "a", "who had connected to the old port is served");
    assert_eq!(Wire::tcp(free).get("/").text(), "a");
    wait_until("the old port is closed", || std::net::TcpStream::connect(old).is_err());
    drop(early);
    assert_eq!(balancer.stop(), Exit::Status(0));
}

/// The port was still bound when the new program tried to listen on it, and was refused.
#[test]
fn the_host_may_change_on_the_same_port() {
    for mode in modes() {
        // Another process may use the port on the other host. Then the next port is tried.
        assert!((0..5).any(|_| host_changes(mode)), "{mode:?}");
    }
}

/// Changes from one address to all, and back; `false` if the port is not available there.
fn host_changes(mode: Mode) -> bool {
    let (backend, directory) = (Backend::named("a"), Directory::new());
    let file = |host: &str, port: u16, admin_port: u16| {
        let places = format!("\"host\": \"{host}\", \"port\": {port}, \"admin\": \"{host}:{admin_port}\"");
        directory.put("lb.json", &format!("{{\"backends\": [\"{}\"], {places}}}", backend.spec()))
    };
    let path = file("127.0.0.9", 0, 0);
    let workers = if mode == Mode::Mp { "mp" } else { "sp" };
    // One worker listens alone, so no other socket can join until then.
    let balancer = Balancer::spawn(command(&["-c", path.to_str().expect("ours"), "-m", workers, "-w", "1"]));
    let (old, admin) = (balancer.address(), balancer.admin());
    let at = |host: [u8; 4], port| std::net::SocketAddr::from((host, port));
    let mut kept = balancer.connect();
    assert_eq!(kept.get("/").text(), "a");
    file("0.0.0.0", old.port(), admin.port());
    let log = upgrade(&balancer, 1);
    assert_eq!(kept.get("/").text(), "a", "{mode:?}");
    if log.contains("cannot listen on 0.0.0.0") {
        return false;
    }
    for host in [[127, 0, 0, 9], [127, 0, 0, 10]] {
        assert_eq!(Wire::tcp(at(host, old.port())).get("/").text(), "a", "{mode:?}, {host:?}");
        assert_eq!(Wire::tcp(at(host, admin.port())).get("/readyz").status(), 200, "{mode:?}, {host:?}");
    }
    drop(kept);
    file("127.0.0.9", old.port(), admin.port());
    let log = upgrade(&balancer, 2);
    assert!(!log.contains("cannot listen on"), "{mode:?}: {log}");
    wait_until("it listens there alone", || std::net::TcpStream::connect(at([127, 0, 0, 10], old.port())).is_err());
    assert_eq!(balancer.get("/"), "a", "{mode:?}");
    // Foreign addresses are detected beforehand.
    file("192.0.2.1", old.port(), admin.port());
    refused(&balancer, "cannot listen on 192.0.2.1:", 1);
    assert_eq!(balancer.stop(), Exit::Status(0), "{mode:?}");
    true
}

#[test]
fn the_mode_may_change_too() {
    let (backend, directory) = (Backend::named("a"), Directory::new());
    let file = |mode: &str| format!("{{\"backends\": [\"{}\"], \"port\": 0, \"mode\": \"{mode}\"}}", backend.spec());
    let path = directory.put("lb.json", &file("mp"));
    let balancer = Balancer::spawn(command(&["--host", "127.0.0.1", "-c", path.to_str().expect("a path of ours")]));
    for (generation, mode) in [(1, "sp"), (2, "sp"), (3, "mp"), (4, "mp"), (5, "sp")] {
        let mut client = balancer.connect();
        assert_eq!(client.get("/").text(), "a");
        directory.put("lb.json", &file(mode));
        upgrade(&balancer, generation);
        assert_eq!(client.get("/").text(), "a", "{mode}");
        assert_eq!(balancer.get("/"), "a", "{mode}");
        drop(client);
        wait_until("the processes are those of the mode", || balancer.workers().is_empty() == (mode == "sp"));
    }
    assert_eq!(balancer.metric("zzz_lb_requests_total", "code=\"2xx\""), backend.count() as u64);
    assert_eq!(balancer.stop(), Exit::Status(0));
}

#[test]
fn the_demo_goes_on() {
    for mode in modes() {
        let balancer = Balancer::start(mode, &["--demo"]);
        let before = children(balancer.pid()).len();
        for generation in 1..=3 {
            upgrade(&balancer, generation);
            let ones = (0..4).filter(|_| balancer.get("/").contains("\"one\"")).count();
            assert_eq!(ones, 2, "{mode:?}, generation {generation}: both serve, by turns");
        }
        wait_until("no more processes than before", || children(balancer.pid()).len() == before);
        assert_eq!(balancer.stop(), Exit::Status(0));
    }
}

#[test]
fn an_upgrade_asked_for_while_one_is_under_way_follows_it() {
    for mode in modes() {
        let backend = Backend::named("a");
        let balancer = Balancer::before(mode, &[&backend], &[]);
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("asking");
        for _ in 0..20 {
            balancer.signal(libc::SIGUSR2);
            assert_eq!(balancer.get("/"), "a");
        }
        // One upgrade or more, depending on the timing.
        wait_until("it comes to rest", || {
            let log = balancer.log();
            log.contains("(generation 2)") && log.matches("asking").count() == log.matches("done: version").count()
        });
        assert!(balancer.metric("zzz_lb_upgrade_generation", "") >= 2, "{mode:?}");
        assert_eq!(balancer.get("/"), "a");
    }
}

#[test]
fn the_oldest_of_too_many_generations_is_ended() {
    for mode in modes() {
        let gate = Gate::shut();
        let held = gate.clone();
        let backend = Backend::serve(move |mut peer| {
            while let Some(request) = peer.request() {
                if request.target() == "/held" {
                    held.pass();
                }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let balancer = Balancer::before(mode, &[&backend], &[]);
        let mut client = balancer.connect();
        let before = backend.count();
        client.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
        backend.wait_for_requests(before + 1);
        // The first generation holds it, and the later ones hold one each. Sometimes one has two and the next
        // none, because a draining worker may still accept a connection that came before the signal.
        let mut others = Vec::new();
        for generation in 1..=30 {
            upgrade(&balancer, generation);
            if balancer.log().contains("generation 0 is the oldest of 9 that still drain, and 8 may") {
                break;
            }
            let other = balancer.connect();
            other.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
            backend.wait_for_requests(before + 1 + generation);
            others.push(other);
        }
        assert!(others.len() >= 8, "{mode:?}: {} others", others.len());
        assert!(client.try_response("GET").is_err(), "{mode:?}: it was cut off");
        gate.open();
        let served = others.iter_mut().filter_map(|other| other.try_response("GET").ok());
        let served = served.inspect(|answer| assert_eq!(answer.status(), 200, "{mode:?}")).count();
        assert!(served >= 8, "{mode:?}: {served} of {}", others.len());
        wait_until("the cut requests are logged", || cut(&balancer.log()) == 1 + others.len() - served);
    }
}

/// The number of cut requests in the log.
fn cut(log: &str) -> usize {
    let counts = log.lines().filter_map(|line| line.split_once(" cut ")?.1.split(' ').next()?.parse::<usize>().ok());
    counts.sum()
}

#[test]
fn a_term_meanwhile_ends_all_generations() {
    for mode in modes() {
        let backend = Backend::named("a");
        let mut balancer = Balancer::before(mode, &[&backend], &[]);
        let mut old = balancer.connect();
        assert_eq!(old.get("/").text(), "a");
        upgrade(&balancer, 1);
        balancer.signal(libc::SIGTERM);
        balancer.wait_for_log("draining");
        assert_eq!(old.get("/").text(), "a", "{mode:?}");
        drop(old);
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
    }
}

#[test]
fn a_worker_that_stands_still_is_replaced() {
    let backend = Backend::named("a");
    // In seconds, so that a worker that gets no processor time on a busy machine does not count as stuck.
    let balancer = Balancer::before(Mode::Mp, &[&backend], &["--watchdog", "2s"]);
    let before = balancer.workers();
    // The test is this lapse: as long as a stuck worker would be left alone.
    std::thread::sleep(Duration::from_millis(2600));
    assert_eq!(balancer.workers(), before, "who has nothing to do is left alone");
    assert!(crate::support::send_signal(before[0], libc::SIGSTOP));
    let log = balancer.wait_for_log("stands still for");
    assert!(log.contains("while waiting for events: killed"), "{log}");
    wait_until("another takes its place", || {
        let now = balancer.workers();
        now.len() == 2 && !now.contains(&before[0])
    });
    (0..20).for_each(|_| assert_eq!(balancer.get("/"), "a"));
}

#[test]
fn draining_waits_for_the_drain_delay() {
    for mode in modes() {
        let backend = Backend::named("a");
        // Much longer than the test takes. A second signal ends it.
        let mut balancer = Balancer::before(mode, &[&backend], &["--admin", "0", "--drain-delay", "10m"]);
        let ready = || Wire::tcp(balancer.admin()).get("/readyz").status();
        assert_eq!(ready(), 200);
        balancer.signal(libc::SIGTERM);
        wait_until("it wants no more", || ready() == 503);
        let answer = balancer.connect().get("/");
        assert_eq!((answer.text().as_str(), answer.connection_has("close")), ("a", false), "{mode:?}");
        balancer.signal(libc::SIGTERM);
        assert!(matches!(balancer.wait(), Exit::Status(_)), "{mode:?}");

        let mut balancer = Balancer::before(mode, &[&backend], &["--drain-delay", "300ms"]);
        let begun = std::time::Instant::now();
        balancer.signal(libc::SIGTERM);
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
        assert!(begun.elapsed() >= Duration::from_millis(300), "{mode:?}: {:?}", begun.elapsed());
        assert!(std::net::TcpStream::connect(balancer.address()).is_err());
    }
}
