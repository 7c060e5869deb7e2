//! Too many clients, too slow clients, too few descriptors: other clients are served, and no process spins.

use crate::smuggling::assert_own_answer;
use crate::support::{
    Backend, Balancer, Fault, Mode, Protocol, Way, Wire, clients_of, command, limit_descriptors, modes,
    open_descriptors, processor_ticks, resident_kib, response, use_up_descriptors, wait_until, wait_until_still,
};
use std::time::{Duration, Instant};

/// Collects the connections with a response. Returns their number.
fn answered(clients: &mut [Option<Wire>], seen: &mut [bool]) -> usize {
    for (client, seen) in clients.iter_mut().zip(seen.iter_mut()) {
        if let Some(client) = client.as_mut().filter(|_| !*seen) {
            *seen = !client.silent_for(Duration::from_millis(10));
        }
    }
    seen.iter().filter(|&&seen| seen).count()
}

#[test]
fn past_max_connections_accepting_pauses_and_resumes() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--max-connections", "4"]);
        let mut clients: Vec<Option<Wire>> = (0..16).map(|_| Some(balancer.connect())).collect();
        let mut seen = vec![false; clients.len()];
        for client in clients.iter().flatten() {
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        let mut served = 0;
        wait_until("every client is served in its time", || {
            let open = answered(&mut clients, &mut seen);
            assert!(open <= 4, "{mode:?}: {open} held at once");
            // Served clients leave and make room for others.
            for n in 0..clients.len() {
                if std::mem::take(&mut seen[n]) {
                    let mut client = clients[n].take().expect("it was answered");
                    assert_eq!(client.response("GET").text(), "backend");
                    served += 1;
                }
            }
            served == 16
        });
        let log = balancer.wait_for_log("accepting pauses: ");
        assert!(log.contains(" as many as this worker may have (--max-connections)"), "{mode:?}: {log}");
    }
}

#[test]
fn connections_past_the_limit_wait_while_it_is_reached() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &["--max-connections", "3"]);
    let mut held: Vec<Wire> = (0..3).map(|_| balancer.connect()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").text(), "backend");
    }
    let mut waiting = balancer.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let before = processor_ticks(balancer.pid());
    assert!(waiting.silent_for(Duration::from_millis(500)), "a fourth is not served");
    let used = processor_ticks(balancer.pid()) - before;
    assert!(used < 15, "it spins while it waits: {used} ticks of 50");
    for client in &mut held {
        assert_eq!(client.get("/").text(), "backend", "those held are served on");
    }
    held.pop();
    assert_eq!(waiting.response("GET").text(), "backend");
}

#[test]
fn no_more_clients_are_held_than_there_are_descriptors_for() {
    let backend = Backend::named("backend");
    let balancer = Balancer::with_open_files(40, &["--max-connections", "1000", "-b", &backend.spec()]);
    balancer.wait_for_log("allow 4 clients, not 1000");
    let mut clients: Vec<Wire> = (0..60).map(|_| balancer.connect()).collect();
    for client in &clients {
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").text(), "backend");
    }
}

#[test]
fn running_out_of_descriptors_pauses_accepting_and_is_logged_once() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    assert_eq!(balancer.get("/"), "backend");
    // The limit differs from the one at the start: the system may have fewer at any time.
    limit_descriptors(balancer.pid(), open_descriptors(balancer.pid()) as u64 + 10);
    let clients: Vec<Wire> = (0..60).map(|_| balancer.connect()).collect();
    balancer.wait_for_log("accepting pauses: Too many open files");
    // The test is this pause, in which the balancer tries again five times.
    let before = processor_ticks(balancer.pid());
    std::thread::sleep(Duration::from_millis(500));
    let used = processor_ticks(balancer.pid()) - before;
    assert!(used < 15, "it spins: {used} ticks of 50");
    assert_eq!(balancer.log().matches("accepting pauses").count(), 1, "{}", balancer.log());
    drop(clients);
    wait_until("it serves again", || balancer.connect().get("/").status() == 200);
}

#[test]
fn slow_clients_do_not_stop_others_and_are_answered_408() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let (timeout, timeout_arg) = (Duration::from_secs(4), "4s");
        let balancer = Balancer::before(mode, &[&backend], &["--request-timeout", timeout_arg]);
        let mut slow: Vec<Wire> = (0..200).map(|_| balancer.connect()).collect();
        for client in &slow {
            client.send("GET / HTTP/1.1\r\n");
        }
        let start = Instant::now();
        let (mut asked, mut client) = (0, balancer.connect());
        while start.elapsed() < timeout / 4 {
            assert_eq!(client.get("/").text(), "backend");
            asked += 1;
            for client in slow.iter().step_by(7) {
                let _ = client.try_send("y");
            }
        }
        // A client that waited for a slow one would wait as long as that may take.
        assert!(start.elapsed() < timeout, "{mode:?}: {asked} requests in {:?}", start.elapsed());
        for client in &mut slow {
            assert_own_answer("a slow head", &client.response("GET"), &[408]);
            assert!(matches!(client.end(), Fault::Fin | Fault::Reset));
        }
        assert_eq!(backend.connections(), 1, "nothing of the slow ones reached the backend");
    }
}

#[test]
fn idle_connections_cost_little_memory() {
    let backend = Backend::named("backend");
    let balancer = Balancer::before(Mode::Sp, &[&backend], &[]);
    let mut clients: Vec<Wire> = (0..20).map(|_| balancer.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "backend");
    }
    let before = resident_kib(balancer.pid());
    let mut more: Vec<Wire> = (0..400).map(|_| balancer.connect()).collect();
    for client in &mut more {
        assert_eq!(client.get("/").text(), "backend");
    }
    let grown = resident_kib(balancer.pid()).saturating_sub(before);
    // A 64 KiB buffer each would be 25 MiB. This is a debug build, so the limit is rough.
    assert!(grown < 2048, "400 idle connections cost {grown} KiB");
}

#[test]
fn max_connections_holds_over_all_workers_together() {
    let backend = Backend::named("backend");
    let args = ["--max-connections", "3", "-w", "4", "--mode", "mp", "-b", &backend.spec()];
    let balancer = Balancer::spawn({
        let mut command = crate::support::command(&["-p", "0", "--host", "127.0.0.1"]);
        command.args(args);
        command
    });
    let (mut clients, mut seen) = (Vec::new(), Vec::new());
    // A hash selects the worker of a client, so clients come until each worker with clients has one.
    wait_until("every worker holds its share", || {
        let client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        clients.push(Some(client));
        seen.push(false);
        answered(&mut clients, &mut seen) >= 3
    });
    // Twice as many again, which find no room.
    for _ in 0..clients.len().max(12) * 2 {
        let client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        clients.push(Some(client));
        seen.push(false);
    }
    assert_eq!(wait_until_still(|| answered(&mut clients, &mut seen) as u64), 3);
}

/// A hundred addresses of one backend.
fn many_addresses() -> (Backend, Vec<String>) {
    let backend = Backend::serve_on("0.0.0.0:0", |mut peer| {
        while peer.request().is_some() {
            peer.send(response("", b"backend"));
        }
    });
    let backend = backend.expect("there is a free port");
    let spec = backend.spec();
    let (_, port) = spec.rsplit_once(':').expect("an address and a port");
    let specs = (1..=100).map(|n| format!("127.0.0.{n}:{port}")).collect();
    (backend, specs)
}

/// A hundred backends, and descriptors for far fewer connections: idle ones do not use them all.
#[test]
fn idle_connections_to_backends_are_bounded_by_the_descriptors() {
    let (backend, specs) = many_addresses();
    let args: Vec<&str> = specs.iter().flat_map(|spec| ["-b", spec]).collect();
    let balancer = Balancer::with_open_files(96, &args);
    let mut client = balancer.connect();
    for _ in 0..200 {
        assert_eq!(client.get("/").text(), "backend", "{}", balancer.log());
    }
    // (96 - 32) / 2
    wait_until("the idle ones are few", || backend.open() <= 32);
    assert!(backend.connections() >= 100, "each backend was asked");
    assert_eq!(balancer.metric("zzz_lb_connects_exhausted_total", ""), 0);
}

/// If descriptors are used up, idle connections are closed in favour of clients and of connections to other
/// backends.
#[test]
fn an_idle_connection_gives_its_descriptor_to_one_that_is_wanted() {
    for (protocol, shape) in [Protocol::H1, Protocol::H2c, Protocol::H1Tls]
        .into_iter()
        .flat_map(|protocol| [(protocol, ["--mode", "sp"]), (protocol, ["-w", "1"])])
    {
        let backends: Vec<Backend> = (0..8).map(|_| Backend::named("backend")).collect();
        let ways: Vec<Way> = backends.iter().map(|backend| Way::to(backend, protocol)).collect();
        let mut command = command(&["-p", "0", "--host", "127.0.0.1", "-k"]);
        command.args(shape).args(ways.iter().flat_map(|way| ["-b", way.spec()]));
        let balancer = Balancer::spawn(command);
        let mut clients = vec![balancer.connect()];
        for _ in 0..16 {
            assert_eq!(clients[0].get("/").text(), "backend");
        }
        let [pid] = balancer.serving()[..] else { panic!("one process serves") };
        use_up_descriptors(pid);
        for _ in 0..4 {
            let mut client = balancer.connect();
            for _ in 0..8 {
                let answer = client.get("/");
                assert_eq!(answer.text(), "backend", "{protocol:?}, {shape:?}\n{}", balancer.log());
            }
            clients.push(client);
        }
        assert!(!balancer.log().contains("accepting pauses"), "{protocol:?}, {shape:?}\n{}", balancer.log());
    }
}

/// If no connection can be accepted, all listeners pause, including the admin's, until one can.
#[test]
fn without_descriptors_no_listener_spins() {
    for mode in modes() {
        let backend = Backend::named("backend");
        let balancer = Balancer::before(mode, &[&backend], &["--admin", "127.0.0.1:0"]);
        let log = balancer.wait_for_log("admin on ");
        let admin = log.split("admin on ").nth(1).and_then(|rest| rest.split(": /metrics").next()).expect("an address");
        let admin = admin.parse().expect("an address");
        let serving = balancer.serving();
        // Processes listen before they have all the descriptors that they need. A hash selects the worker of a
        // client.
        let has_clients = |&pid: &i32| !clients_of(pid, balancer.address().port()).is_empty();
        let mut first = Vec::new();
        wait_until("every worker accepts", || {
            first.push(balancer.connect());
            serving.iter().all(has_clients)
        });
        drop(first);
        wait_until("the first clients are gone", || !serving.iter().any(has_clients));
        serving.iter().for_each(|&pid| use_up_descriptors(pid));
        let mut clients: Vec<Wire> = (0..4).flat_map(|_| [balancer.connect(), Wire::tcp(admin)]).collect();
        for client in &mut clients {
            client.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        balancer.wait_for_log("accepting pauses");
        let used = || serving.iter().map(|&pid| processor_ticks(pid)).sum::<u64>();
        let before = used();
        std::thread::sleep(Duration::from_millis(500));
        let used = used() - before;
        assert!(used < 15, "{mode:?}: it spins: {used} ticks of 50");
        serving.iter().for_each(|&pid| limit_descriptors(pid, u64::MAX));
        for (n, client) in clients.iter_mut().enumerate() {
            let status = client.response("GET").status();
            // One may have been accepted with the last descriptor, so that none was left for a backend.
            assert!(status == 200 || status == 503 && n % 2 == 0, "{mode:?}, {n}: {status}");
        }
    }
}

/// Runs the program under this system limit of shared memory; `None` if that is impossible here.
fn run_under(limit: &str, value: &str) -> Option<std::process::Output> {
    let inner = crate::support::command(&["-p", "0", "-b", "127.0.0.1:1"]);
    let mut shell = std::process::Command::new("unshare");
    let script = format!("echo {value} > /proc/sys/kernel/{limit} || exit 99; exec \"$0\" \"$@\"");
    shell.args(["-i", "/bin/sh", "-c", &script]).arg(inner.get_program()).args(inner.get_args());
    let output = shell.output().ok()?;
    (output.status.code() != Some(99) && !String::from_utf8_lossy(&output.stderr).contains("unshare")).then_some(output)
}

#[test]
fn a_lack_of_shared_memory_is_reported_with_the_system_limit() {
    for (limit, value) in [("shmmax", "4096"), ("shmmni", "0"), ("shmall", "1")] {
        let Some(output) = run_under(limit, value) else {
            eprintln!("no limits of its own can be had here: not tested");
            return;
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let told = stderr.contains("of memory with the workers") && stderr.contains(&format!("kernel.{limit}"));
        assert!(told, "{limit}: {stderr}");
    }
}
