//! Shutdown and idle clients: they are closed soon, and none of their requests is lost. The log shows their
//! number.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Backend, Balancer, Exit, Fault, Gate, Mode, Random, Socket, Wire, children, command, is_asleep, modes, wait_until,
};

/// Far below the 10 s after which `docker stop` kills, and far above 2.5 s plus the delay of a busy machine.
const SOON: Duration = Duration::from_secs(8);

/// One idle client made the shutdown take the whole drain time.
#[test]
fn an_idle_client_does_not_hold_up_the_end() {
    let backend = Backend::named("a");
    let end = &|mode, signal| {
        let mut balancer = Balancer::before(mode, &[&backend], &["--drain-timeout", "10m"]);
        let mut used = balancer.connect();
        let since = Instant::now();
        assert_eq!(used.get("/").text(), "a");
        // This client has not sent anything yet.
        let mut fresh = balancer.connect();
        let told = Instant::now();
        balancer.signal(signal);
        assert_eq!((used.end(), fresh.end()), (Fault::Fin, Fault::Fin), "{mode:?}, signal {signal}");
        assert!(since.elapsed() >= Duration::from_secs(2), "{mode:?}, signal {signal}: {:?}", since.elapsed());
        // Neither client closes its side.
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}, signal {signal}");
        assert!(told.elapsed() < SOON, "{mode:?}, signal {signal}: {:?}", told.elapsed());
    };
    thread::scope(|scope| {
        for mode in modes() {
            for signal in [libc::SIGTERM, libc::SIGQUIT, libc::SIGINT] {
                scope.spawn(move || end(mode, signal));
            }
        }
    });
}

#[test]
fn an_idle_client_that_sends_in_time_is_served_and_a_busy_one_is_waited_for() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = Backend::gated(&gate);
        let mut balancer = Balancer::before(mode, &[&backend], &["--drain-idle", "1m"]);
        let mut busy = balancer.connect();
        busy.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
        backend.wait_for_requests(1);
        let mut idle = balancer.connect();
        assert_eq!(idle.get("/").text(), "done");
        let mut silent = balancer.connect();
        balancer.signal(libc::SIGTERM);
        wait_until("it stops listening", || TcpStream::connect(balancer.address()).is_err());
        for client in [&mut idle, &mut silent] {
            let answer = client.get("/");
            assert_eq!(answer.text(), "done", "{mode:?}");
            assert!(answer.connection_has("close"), "{mode:?}");
        }
        assert!(balancer.runs(), "{mode:?}");
        gate.open();
        assert_eq!(busy.response("GET").text(), "done", "{mode:?}");
        drop((idle, silent, busy));
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
    }
}

/// A client with a partial head is not idle: the rest has the usual time.
#[test]
fn a_client_that_is_sending_a_head_is_not_idle() {
    for mode in modes() {
        let backend = Backend::named("a");
        let mut balancer = Balancer::before(mode, &[&backend], &["--drain-idle", "100ms"]);
        let mut client = balancer.connect();
        client.send("GET / HTTP/1.1\r\nHo");
        balancer.signal(libc::SIGTERM);
        assert!(client.silent_for(Duration::from_millis(800)), "{mode:?}");
        client.send("st: x\r\n\r\n");
        assert_eq!(client.response("GET").text(), "a", "{mode:?}");
        drop(client);
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
    }
}

#[test]
fn the_log_counts_idle_and_busy_clients_and_explains_the_second_signal() {
    for mode in modes() {
        for delay in ["off", "300ms"] {
            let gate = Gate::shut();
            let backend = Backend::gated(&gate);
            let (spec, name) = (backend.spec(), if mode == Mode::Mp { "mp" } else { "sp" });
            let fixed = ["-p", "0", "--host", "127.0.0.1", "-w", "1", "-m", name, "-b", &spec];
            let args = [&fixed[..], &["--drain-delay", delay, "--drain-timeout", "1m"]].concat();
            let mut balancer = Balancer::spawn(command(&args));
            let mut busy = balancer.connect();
            busy.send("GET /held HTTP/1.1\r\nHost: x\r\n\r\n");
            backend.wait_for_requests(1);
            let mut idle: Vec<Wire> = (0..2).map(|_| balancer.connect()).collect();
            idle.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "done"));
            // The worker reports to its master at the end of a turn.
            wait_until("it waits for events", || balancer.serving().iter().all(|&pid| is_asleep(pid)));
            balancer.signal(libc::SIGTERM);
            let counts = "3 client connections, 2 idle (closed after 2s without a request) and 1 busy; \
                          a second TERM or Ctrl-C stops at once";
            if delay == "off" {
                balancer.wait_for_log(&format!("process: draining, for at most 60s: {counts}"));
            } else {
                balancer.wait_for_log(&format!("process: draining begins in 300ms, for at most 60s: {counts}"));
                balancer.wait_for_log(&format!("process: draining, for at most 60s: {counts}"));
            }
            gate.open();
            assert_eq!(busy.response("GET").text(), "done", "{mode:?}");
            drop((busy, idle));
            assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
            assert_eq!(balancer.whole_log().matches("process: draining").count(), if delay == "off" { 1 } else { 2 });
        }
    }
}

/// Upgrades do not close idle clients. The shutdown does, even if an upgrade has already begun to drain their
/// worker.
#[test]
fn an_idle_client_outlives_an_upgrade_and_not_the_end() {
    for mode in modes() {
        let gate = Gate::shut();
        let backend = Backend::gated(&gate);
        let args = ["--drain-idle", "300ms", "--drain-timeout", "10m"];
        let mut balancer = Balancer::before(mode, &[&backend], &args);
        let workers = children(balancer.pid()).len();
        let mut clients: Vec<Wire> = (0..4).map(|_| balancer.connect()).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "done"));
        balancer.signal(libc::SIGUSR2);
        balancer.wait_for_log("(generation 1)");
        let mut asks = clients.remove(0);
        for client in &mut clients {
            assert!(client.silent_for(Duration::from_millis(400)), "{mode:?}");
        }
        assert_eq!(asks.get("/").text(), "done", "{mode:?}");
        drop(asks);
        assert!(children(balancer.pid()).len() > workers, "{mode:?}: they drain since the upgrade");
        let told = Instant::now();
        balancer.signal(libc::SIGTERM);
        clients.iter_mut().for_each(|client| assert_eq!(client.end(), Fault::Fin, "{mode:?}"));
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
        assert!(told.elapsed() < SOON, "{mode:?}: {:?}", told.elapsed());
        gate.open();
    }
}

/// The clients' results.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    /// Connections that ended between two requests.
    closed: AtomicUsize,
    /// Requests that crossed with the end.
    raced: AtomicUsize,
    /// Requests that were sent before the end was visible, and not answered.
    lost: AtomicUsize,
    reset: AtomicUsize,
}

/// True if the other side has ended its direction, or reset the connection.
fn is_ended(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).expect("a socket");
    let peeked = socket.peek(&mut [0]);
    socket.set_nonblocking(false).expect("a socket");
    match peeked {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Sends requests on one connection, with pauses around the idle limit, until it ends.
fn ask_until_the_end(address: SocketAddr, seed: u64, seen: &Seen) {
    let mut random = Random::new(seed);
    let socket = TcpStream::connect(address).expect("it listens");
    let mut wire = Wire::new(Socket::Tcp(socket.try_clone().expect("a descriptor")));
    let counted = loop {
        if is_ended(&socket) {
            break &seen.closed;
        }
        let sent = wire.try_send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").is_ok();
        let raced = !sent || is_ended(&socket);
        match wire.try_response("GET") {
            Ok(answer) => {
                seen.answered.fetch_add(1, SeqCst);
                if answer.connection_has("close") {
                    return;
                }
            }
            Err((Fault::Fin, None)) if raced => break &seen.raced,
            Err((Fault::Reset, None)) => break &seen.reset,
            Err(_) => break &seen.lost,
        }
        thread::sleep(Duration::from_millis(random.below(250) as u64));
    };
    counted.fetch_add(1, SeqCst);
}

/// A hundred clients, many of which reach the idle limit just before they send.
#[test]
fn no_request_that_was_sent_before_the_end_was_seen_is_lost() {
    for mode in modes() {
        let backend = Backend::named("a");
        let mut balancer = Balancer::before(mode, &[&backend], &["--drain-idle", "100ms"]);
        let (address, seen) = (balancer.address(), Seen::default());
        thread::scope(|scope| {
            let seen = &seen;
            (0..100).for_each(|seed| drop(scope.spawn(move || ask_until_the_end(address, seed, seen))));
            wait_until("they are at it", || seen.answered.load(SeqCst) > 500);
            balancer.signal(libc::SIGTERM);
        });
        let [closed, raced, lost, reset] =
            [&seen.closed, &seen.raced, &seen.lost, &seen.reset].map(|count| count.load(SeqCst));
        assert_eq!((lost, reset), (0, 0), "{mode:?}: beside {raced} that met the end and {closed} closed");
        assert!(closed > 0, "{mode:?}");
        assert_eq!(balancer.wait(), Exit::Status(0), "{mode:?}");
    }
}
