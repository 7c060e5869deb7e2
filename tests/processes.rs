//! Workers that die, are missing, or end while clients connect: no client waits forever, and no count stays.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::support::{
    Backend, Balancer, DEADLINE, Exit, Gate, Mode, Pid, Random, Socket, Wire, children, command, limit_processes,
    modes, send_signal, shrink_room, skipped, user_ids, wait_until, watches_listeners,
};
use crate::tls::{authority, named, server_on, tunnel};

#[test]
fn the_requests_of_a_dead_worker_of_before_an_upgrade_are_in_flight_no_more() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = Backend::gated(&gate);
        let spec = format!("{},max=2", backend.spec());
        let balancer = Balancer::start(mode, &["-b", &spec]);
        let mut workers = balancer.workers();
        let held: Vec<Wire> = (0..2).map(|_| balancer.connect()).collect();
        held.iter().for_each(|client| client.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n"));
        backend.wait_for_requests(2);
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("(generation 1)");
        if mode == Mode::Sp {
            workers = children(balancer.pid()).into_iter().map(|(pid, _)| pid).collect();
        }
        // Workers without a request have drained already.
        workers.retain(|&pid| send_signal(pid, libc::SIGKILL));
        assert!(!workers.is_empty(), "{mode:?}");
        wait_until("they are reaped", || children(balancer.pid()).iter().all(|(pid, _)| !workers.contains(pid)));
        wait_until("nothing is in flight", || balancer.metric("zzz_lb_in_flight", "") == 0);
        // The backend is below its limit again.
        assert_eq!(balancer.get("/"), "done", "{mode:?}");
        gate.open();
    }
}

/// Connects and sends requests until the port is closed. Counts the responses, and the connections without one.
fn storm(address: SocketAddr, seed: u64, answered: &AtomicUsize, lost: &AtomicUsize) {
    let mut random = Random::new(seed);
    while let Ok(socket) = TcpStream::connect_timeout(&address, DEADLINE) {
        // Some clients wait before they send, and the kernel holds them back from the listener meanwhile.
        thread::sleep(Duration::from_millis(random.below(4) as u64 * 10));
        let mut wire = Wire::new(Socket::Tcp(socket));
        let sent = wire.try_send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let is_answered = sent.is_ok() && wire.try_response("GET").is_ok_and(|answer| answer.status() == 200);
        let count = if is_answered { answered } else { lost };
        count.fetch_add(1, SeqCst);
    }
}

/// Lets many clients connect while a balancer ends. Returns the number of later responses, and of losses.
fn end_in_a_storm(balancer: &Balancer) -> (usize, usize) {
    let (address, answered, lost) = (balancer.address(), AtomicUsize::new(0), AtomicUsize::new(0));
    let before = thread::scope(|scope| {
        let (answered, lost) = (&answered, &lost);
        (0..24).for_each(|seed| drop(scope.spawn(move || storm(address, seed, answered, lost))));
        wait_until("they are at it", || answered.load(SeqCst) > 200);
        balancer.signal(libc::SIGTERM);
        answered.load(SeqCst)
    });
    (answered.load(SeqCst) - before, lost.load(SeqCst))
}

/// Some kernels allow only root to set a filter on a listener. Other users lost connections there.
#[test]
fn term_with_a_drain_delay_loses_no_connection_of_a_handshake_storm() {
    let accounts: &[&[&str]] = match user_ids(std::process::id() as i32)[1] {
        0 => &[&[], &["--user", "nobody"]],
        _ => &[&[]],
    };
    for (mode, account) in modes().into_iter().flat_map(|mode| accounts.iter().map(move |account| (mode, account))) {
        for delay in ["300ms", "off"] {
            let backend = Backend::named("a");
            let args = [&["--drain-delay", delay], *account].concat();
            let mut balancer = Balancer::before(mode, &[&backend], &args);
            let (answered, lost) = end_in_a_storm(&balancer);
            assert_eq!(lost, 0, "{mode:?}, {args:?}: of {answered}");
            assert!(answered > 0, "{mode:?}, {args:?}");
            assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}, {args:?}");
        }
    }
}

/// Processes that do nothing.
struct Sleepers(Vec<Child>);

impl Drop for Sleepers {
    fn drop(&mut self) {
        for sleeper in &mut self.0 {
            let _ = sleeper.kill().and_then(|()| sleeper.wait());
        }
    }
}

/// A balancer of two workers of which one is missing, because its user has reached the process limit; the
/// processes that must end before it can be replaced; and the other worker. `None`, with a message, if this
/// user may always fork.
fn with_an_absent_worker(backend: &Backend, user: u32) -> Option<(Balancer, Sleepers, Pid)> {
    if user_ids(std::process::id() as i32)[1] != 0 {
        skipped("only root can run it as a user whose processes are limited");
        return None;
    }
    let (account, spec) = (format!("{user}:{user}"), backend.spec());
    let fixed = ["-p", "0", "--host", "127.0.0.1", "-b", &spec, "--user", &account];
    let mut command = command(&[&fixed[..], Mode::Mp.args()].concat());
    limit_processes(&mut command, 4);
    let balancer = Balancer::spawn(command);
    wait_until("both accept", || {
        let workers = balancer.workers();
        workers.len() == 2 && workers.iter().all(|&pid| watches_listeners(pid, 1))
    });
    let sleeper = || Command::new("/bin/sleep").arg("600").uid(user).gid(user).spawn().expect("it sleeps");
    let sleepers = Sleepers((0..4).map(|_| sleeper()).collect());
    let workers = balancer.workers();
    assert!(send_signal(workers[0], libc::SIGKILL));
    balancer.wait_for_log("cannot be forked: ");
    Some((balancer, sleepers, workers[1]))
}

/// The kernel assigned connections to the missing worker's listener, and they waited there.
#[test]
fn a_living_worker_takes_over_the_listener_of_one_that_cannot_be_forked() {
    let backend = Backend::named("a");
    let Some((balancer, sleepers, living)) = with_an_absent_worker(&backend, 61_001) else { return };
    for n in 0..40 {
        assert_eq!(balancer.get(&format!("/{n}")), "a");
    }
    assert_eq!(balancer.workers(), [living]);
    assert!(watches_listeners(living, 2));
    drop(sleepers);
    wait_until("the worker is back", || balancer.workers().len() == 2);
    wait_until("its listener is its own again", || watches_listeners(living, 1));
    for n in 0..40 {
        assert_eq!(balancer.get(&format!("/{n}")), "a");
    }
    assert_eq!(balancer.stop(), Exit::Status(0));
}

#[test]
fn the_end_loses_no_connection_of_a_listener_that_another_worker_took_over() {
    let backend = Backend::named("a");
    let Some((mut balancer, _sleepers, _)) = with_an_absent_worker(&backend, 61_002) else { return };
    let (answered, lost) = end_in_a_storm(&balancer);
    assert_eq!(lost, 0, "of {answered}");
    assert_eq!(balancer.wait(), Exit::Status(0));
}

/// The clients have gone, and nothing else keeps the process from ending. The test does not prove that a session held the
/// last bytes: the socket may have held all of them.
#[test]
fn term_keeps_the_last_bytes_of_tunnels_whose_clients_have_gone() {
    let (authority, _directory, roots) = authority();
    let issued = authority.issue(&named(&["localhost"]));
    for mode in modes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        shrink_room(listener.as_fd(), 16 * 1024);
        let gate = Gate::shut();
        let spec = format!("https://localhost:{}", server_on(listener, &issued, &gate));
        let mut balancer = Balancer::start(mode, &["-b", &spec, "--ca-file", roots.to_str().expect("text")]);
        // More than the backend's socket has room for, and little enough for the balancer's: each client can send all its
        // bytes and go.
        let lengths: Vec<usize> = (0..8).map(|n| 96 * 1024 + n * 2048).collect();
        let clients: Vec<(Wire, Option<u16>)> = lengths.iter().map(|_| tunnel(&balancer, "/ended")).collect();
        thread::scope(|scope| {
            for ((client, _), &length) in clients.iter().zip(&lengths) {
                scope.spawn(move || {
                    client.send(vec![b'x'; length]);
                    client.shutdown_write();
                });
            }
        });
        // The only client is the one that asks.
        wait_until("all is taken", || balancer.metric("zzz_lb_client_connections", "") == 1);
        balancer.signal(libc::SIGTERM);
        wait_until("it stops listening", || TcpStream::connect(balancer.address()).is_err());
        gate.open();
        for ((_, elsewhere), length) in clients.into_iter().zip(lengths) {
            let (said, _) = Wire::tcp(([127, 0, 0, 1], elsewhere.expect("a port")).into()).rest();
            assert_eq!(String::from_utf8_lossy(&said), format!("{length} to the end"), "{mode:?}");
        }
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
    }
}
