//! The proxy alone: bytes and failures go in, bytes and outputs come out, and the test sets the clock.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use super::*;
use crate::limits::WAITING_REQUESTS;
use crate::log::Level;

mod aborts;
mod bound;
mod deadlines;
mod exits;
mod idle;
mod invariants;
mod owned;
mod probes;
mod record;
mod reuse;
mod routes;
mod sticky;
mod tunnels;
mod uploads;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

struct World {
    proxy: Proxy,
    now_us: u64,
    /// The connections to establish, with their slots.
    dials: VecDeque<(Key, usize)>,
    /// The bytes that were sent on each connection.
    sent: HashMap<Key, String>,
    /// The other outputs.
    outputs: Vec<Output>,
    /// Sockets take nothing.
    full: bool,
    /// The bytes that no peer has acknowledged.
    unacknowledged: Option<usize>,
}

impl World {
    fn new(backends: u16, set: impl FnOnce(&mut Plan)) -> World {
        let addresses = (0..backends).map(|n| SocketAddr::from(([127, 0, 0, 1], 9000 + n)));
        let mut plan = Plan::over(addresses);
        plan.loglevel = Level::Debug;
        set(&mut plan);
        let proxy = Proxy::new(&plan, Shared::private(backends.into()), 0, 1, 0, Log::new(Level::Debug));
        let (dials, sent, outputs) = (VecDeque::new(), HashMap::new(), Vec::new());
        World { proxy, now_us: 0, dials, sent, outputs, full: false, unacknowledged: None }
    }

    fn client(&mut self) -> Key {
        self.proxy.accept(SocketAddr::from(([127, 0, 0, 1], 50_000)))
    }

    /// Returns a client that has sent this text.
    fn asking(&mut self, text: &str) -> Key {
        let key = self.client();
        assert!(self.give(key, text));
        key
    }

    /// Receives bytes. Returns false if some were not read.
    fn give(&mut self, key: Key, text: &str) -> bool {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            let Some(room) = self.proxy.room(key) else { return false };
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.proxy.received(key, n);
            self.carry_out();
        }
        true
    }

    fn end(&mut self, key: Key) {
        self.proxy.ended(key);
        self.carry_out();
    }

    /// Fails a connection when it is to be read.
    fn fail(&mut self, key: Key, failure: Failure) {
        self.proxy.room(key);
        self.proxy.failed(key, failure);
        self.carry_out();
    }

    /// Returns the next connection to establish, and its slot. `connect` also establishes it.
    fn dial(&mut self) -> (Key, usize) {
        self.dials.pop_front().expect("a connection is to be made")
    }

    fn connect(&mut self) -> Key {
        let key = self.dial().0;
        self.proxy.connected(key, false);
        self.carry_out();
        key
    }

    /// Returns the connection that carries the only request under way.
    fn busy_backend(&self) -> Key {
        let busy = self.proxy.exchanges.keys().next().and_then(|id| self.proxy.exchanges.get(id)?.backend());
        busy.expect("a request is under way")
    }

    /// Plays a request on a client connection of its own, with this response on a fresh backend connection.
    fn exchange(&mut self, request: &str, response: &str) -> (Key, Key) {
        let client = self.asking(request);
        let backend = self.connect();
        assert!(self.give(backend, response));
        (client, backend)
    }

    /// Lets time pass.
    fn pass(&mut self, us: u64) {
        let end_us = self.now_us + us;
        loop {
            let next_us = self.proxy.next_deadline_us().max(self.now_us);
            self.now_us = next_us.min(end_us);
            self.proxy.set_clock(self.now_us, self.now_us);
            if next_us > end_us {
                return;
            }
            self.proxy.expire();
            self.carry_out();
        }
    }

    /// Takes all queued bytes from now on.
    fn drain(&mut self) {
        self.full = false;
        for key in self.proxy.connections.keys().collect::<Vec<_>>() {
            self.send(key);
        }
        self.carry_out();
    }

    fn send(&mut self, key: Key) {
        while let Some(queue) = self.proxy.queued(key).filter(|queue| !queue.is_empty()) {
            let bytes: Vec<u8> = queue.slices().flatten().copied().collect();
            self.sent.entry(key).or_default().push_str(&String::from_utf8_lossy(&bytes));
            self.proxy.sent(key, bytes.len());
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.proxy.next_output() {
            match output {
                Output::Connect(key, slot) => self.dials.push_back((key, slot)),
                Output::Send(_) | Output::SendLater(_) if self.full => {}
                Output::Send(key) | Output::SendLater(key) => self.send(key),
                Output::Measure(key, _) => self.proxy.measured(key, self.unacknowledged),
                other => self.outputs.push(other),
            }
        }
    }

    /// Returns the bytes that were sent on a connection since the last call.
    fn sent(&mut self, key: Key) -> String {
        self.sent.remove(&key).unwrap_or_default()
    }

    fn did(&self, output: Output) -> bool {
        self.outputs.contains(&output)
    }

    /// Returns the sum of all series in /metrics that begin with this text. One that most backends never have may miss.
    fn metric(&mut self, series: &str) -> u64 {
        let full = std::mem::take(&mut self.full);
        let client = self.asking("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        self.pass(0);
        self.full = full;
        let text = self.sent(client);
        let family = series.split(['{', ' ']).next().unwrap_or_default().trim_end_matches("_count");
        assert!(text.contains(&format!("# TYPE {family} ")), "{family} in {text}");
        let lines = text.lines().filter(|line| line.starts_with(series));
        lines.map(|line| line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")).sum()
    }

    fn log(&mut self) -> String {
        let text = String::from_utf8_lossy(self.proxy.log().text()).into_owned();
        self.proxy.log().clear();
        text
    }
}

#[test]
fn a_connection_is_closed_outright_only_where_nothing_more_can_come() {
    let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut world = World::new(1, |_| {});
    let (client, backend) = world.exchange(last, OK);
    assert!(world.did(Output::Close(client)) && !world.did(Output::Finish(client)));

    // Some clients send a line break after the content, when everything is over.
    let post = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    let client = world.asking(post);
    assert!(world.give(backend, OK));
    assert!(world.did(Output::Finish(client)) && !world.did(Output::Close(client)));
    assert!(world.give(client, "\r\n"));
    world.end(client);
    assert!(world.did(Output::Close(client)));

    // Bytes that arrive while the response is on its way do not stay unread.
    let client = world.asking(last);
    world.full = true;
    assert!(world.give(backend, OK));
    assert!(!world.give(client, GET), "it is not read while there is something to send");
    world.drain();
    assert!(world.did(Output::Finish(client)) && world.did(Output::Receive(client)));
    assert!(world.give(client, GET));
    world.end(client);
    assert!(world.did(Output::Close(client)));
    assert!(world.sent(client).ends_with("ok"));
    assert_eq!((world.metric("zzz_lb_client_connections_total"), world.log().as_str()), (4, ""));
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn a_pooled_connection_that_went_stale_is_no_fault_of_its_backend() {
    for failure in [Failure::Closed, Failure::Broken(104)] {
        let mut world = World::new(1, |_| {});
        let (_, backend) = world.exchange(GET, OK);
        let client = world.asking(POST);
        assert!(world.sent(backend).contains("POST"));
        world.fail(backend, failure);
        assert!(world.sent(client).starts_with("HTTP/1.1 502 "), "it may have been served");
        assert_eq!(world.metric("zzz_lb_failures_total{"), 0, "{}", world.log());
        assert_eq!(world.metric("zzz_lb_pool_stale_total{"), 1);
        // If any byte had arrived, the connection was not stale.
        for begun in ["HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 2"] {
            let (_, backend) = world.exchange(GET, OK);
            let client = world.asking(POST);
            assert!(world.give(backend, begun));
            let before = world.metric("zzz_lb_failures_total{");
            world.fail(backend, failure);
            assert!(world.sent(client).contains("HTTP/1.1 502 "));
            assert_eq!(world.metric("zzz_lb_failures_total{"), before + 1);
        }
    }
}

#[test]
fn a_response_is_a_success_when_it_is_whole() {
    let mut world = World::new(1, |_| {});
    for _ in 0..3 {
        let (_, backend) = world.exchange(GET, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut");
        world.end(backend);
    }
    let log = world.log();
    assert_eq!((log.matches(" -> 200 cut ").count(), log.matches(" down ").count()), (1, 1), "{log}");
}

#[test]
fn a_5xx_that_counts_is_one_failure_whatever_becomes_of_the_rest() {
    let mut world = World::new(1, |plan| plan.health.count_5xx = true);
    for (failures, rest) in [(1, ""), (2, "whole")] {
        let (_, backend) = world.exchange(GET, "HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\n");
        assert!(world.give(backend, rest));
        world.end(backend);
        assert_eq!(world.metric("zzz_lb_failures_total{"), failures);
    }
    let (_, backend) = world.exchange(GET, "HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nwhole");
    world.end(backend);
    assert!(world.log().contains("down after 3 failures (answered 500)"));
}

/// Two backends, the second of which is at its limit because of requests on these connections.
fn with_one_full() -> (World, Key, Key) {
    let mut world = World::new(2, |plan| plan.members[1].max = 1);
    loop {
        let client = world.asking(GET);
        let (backend, slot) = world.dial();
        world.proxy.connected(backend, false);
        world.carry_out();
        if slot == 1 {
            return (world, client, backend);
        }
        world.give(backend, OK);
        world.end(backend);
    }
}

#[test]
fn a_waiting_request_is_served_when_there_is_room() {
    let mut world = World::new(1, |plan| plan.members[0].max = 1);
    let _first = world.asking(GET);
    let backend = world.connect();
    let client = world.asking(GET);
    assert!(world.dials.is_empty());
    let connect_us = world.proxy.settings.timeouts.connect_us;
    world.pass(connect_us - 1000);
    assert!(world.give(backend, OK.replace("Content", "Connection: close\r\nContent").as_str()));
    let (backend, _) = world.dial();
    // The connect has a limit of its own.
    world.pass(connect_us / 2);
    assert_eq!(world.sent(client), "");
    world.proxy.connected(backend, false);
    world.carry_out();
    assert!(world.give(backend, OK));
    assert!(world.sent(client).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_waiting_request_remembers_its_tries() {
    let (mut world, _, full) = with_one_full();
    let client = world.asking(GET);
    let (dead, slot) = world.dial();
    assert_eq!(slot, 0);
    world.fail(dead, Failure::Connect(111));
    world.pass(100_000);
    assert!(world.dials.is_empty(), "the one is dead, the other full");
    // The backend that it has tried may serve the requests behind it.
    let other = world.asking(GET);
    world.pass(100_000);
    let (backend, slot) = world.dial();
    assert_eq!((slot, world.dials.len()), (0, 0));
    world.proxy.connected(backend, false);
    world.carry_out();
    assert!(world.give(backend, OK));
    assert!(world.sent(other).contains(" 200 "));
    assert!(world.give(full, OK));
    let backend = world.connect();
    assert!(world.give(backend, OK));
    assert!(world.sent(client).contains(" 200 "));
    assert_eq!(world.metric("zzz_lb_failures_total{"), 1);
}

#[test]
fn a_client_that_has_gone_takes_no_place_in_the_queue() {
    let mut world = World::new(1, |plan| plan.members[0].max = 1);
    let _first = world.asking(GET);
    for _ in 0..2 * WAITING_REQUESTS {
        let client = world.asking(GET);
        world.fail(client, Failure::Broken(104));
    }
    let client = world.asking(GET);
    assert_eq!(world.sent(client), "");
    assert_eq!(world.proxy.ledger.waiting.len(), 1);
}

#[test]
fn only_a_retry_that_is_made_is_counted_and_paid_for() {
    let mut world = World::new(1, |_| {});
    for n in 0..100 {
        // There is no other backend, so the budget does not matter.
        let client = world.asking(GET);
        if n % 2 == 0 {
            let (dead, _) = world.dial();
            world.fail(dead, Failure::Connect(111));
        } else {
            let backend = world.connect();
            world.fail(backend, Failure::Closed);
        }
        assert!(world.sent(client).contains(" 502 "));
    }
    for series in ["retries_total{reason=\"connect\"}", "retries_total{reason=\"broken\"}", "retries_refused_total"] {
        assert_eq!(world.metric(&format!("zzz_lb_{series}")), 0, "{series}");
    }
    let mut world = World::new(2, |_| {});
    let client = world.asking(GET);
    let (dead, _) = world.dial();
    world.fail(dead, Failure::Connect(111));
    let backend = world.connect();
    assert!(world.give(backend, OK));
    assert!(world.sent(client).contains(" 200 "));
    assert_eq!(world.metric("zzz_lb_retries_total{reason=\"connect\"}"), 1);
}

#[test]
fn nothing_is_sent_again_once_a_byte_has_come() {
    for used in [false, true] {
        for (begun, again) in [
            ("", true),
            ("HTTP/1.1 2", false),
            ("HTTP/1.1 103 Early Hints\r\n\r\n", false),
            // The client gets nothing of the response.
            ("HTTP/1.1 100 Continue\r\n\r\n", false),
        ] {
            for failure in [Failure::Closed, Failure::Broken(104)] {
                let mut world = World::new(2, |_| {});
                if used {
                    world.exchange(GET, OK);
                    world.exchange(GET, OK);
                }
                let client = world.asking(GET);
                let backend = if used { world.busy_backend() } else { world.connect() };
                assert!(world.give(backend, begun));
                world.fail(backend, failure);
                assert_eq!(world.dials.len(), usize::from(again), "{used} {begun:?}");
                assert_eq!(world.sent(client).contains(" 502 "), !again, "{used} {begun:?}");
            }
        }
    }
}

#[test]
fn probes_are_traced_in_both_versions() {
    for h2c in [false, true] {
        let mut world = World::new(1, |plan| {
            (plan.trace, plan.members[0].h2c) = (true, h2c);
            (plan.health.interval_us, plan.health.timeout_us) = (1_000_000, 1_000_000);
        });
        world.pass(1_000_000);
        let _ = world.connect();
        let log = world.log();
        assert!(log.contains(": probe ("), "{log}");
        let shown: String = log.lines().filter_map(|line| line.split('|').nth(1)).collect();
        assert!(shown.starts_with("GET / HTTP/1.1..Host: 127.0.0.1:9000.."), "{shown}");
    }
}

#[test]
fn a_limit_of_ours_counts_against_no_backend() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n";
    let mut world = World::new(1, |_| {});
    for (excess, begun) in [
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(257)), false),
        (format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(64 * 1024)), false),
        (format!("HTTP/1.1 200 OK\r\nConnection: {}\r\n\r\n", "a,".repeat(99)), false),
        (format!("{head}\r\n1;{}", "a".repeat(300)), true),
        (format!("{head}\r\n{}", format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(99)), true),
        (format!("{head}\r\n0\r\nA: {}", "b".repeat(9 * 1024)), true),
    ] {
        let client = world.asking(GET);
        let backend = world.connect();
        world.give(backend, &excess);
        assert!(world.did(Output::Close(backend)));
        assert_eq!(world.sent(client).contains(" 502 "), !begun);
    }
    assert_eq!(world.metric("zzz_lb_failures_total{"), 0);
    assert_eq!(world.log().matches(" warn ").count(), 6);
    world.exchange(GET, "HTTP/1.1 nonsense\r\n");
    assert_eq!(world.metric("zzz_lb_failures_total{"), 1);
}

#[test]
fn an_upload_that_does_not_go_on_counts_against_no_backend() {
    let part = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhi!";
    for (request, taken, begun, failures) in [
        (part, true, "", 0),
        // The backend has to respond, or has begun to respond.
        (part, false, "", 1),
        (POST, true, "", 1),
        (part, true, "HTTP/1.1 200 O", 1),
        (part, true, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 1),
    ] {
        // Bytes that were not taken are dropped after the socket has broken.
        for unsendable in [false, !taken] {
            let mut world = World::new(1, |_| {});
            let client = world.asking(request);
            world.full = !taken;
            let backend = world.connect();
            world.give(backend, begun);
            if unsendable {
                world.proxy.unsendable(backend);
            }
            world.end(backend);
            world.drain();
            assert_ne!(world.sent(client), "");
            assert_eq!(world.metric("zzz_lb_failures_total{"), failures, "{request:?} {taken} {begun:?}");
        }
    }
}

#[test]
fn trailers_that_cannot_wait_or_end_here_are_dropped() {
    let trailers =
        "0\r\nX-Sum: 1\r\nContent-Type: evil\r\nX-Named: 2\r\nSet-Cookie: a=b\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n";
    let chunked =
        |start: &str, options: &str| format!("{start}{options}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n{trailers}");
    let (post, ok) = ("POST / HTTP/1.1\r\nHost: a\r\n", "HTTP/1.1 200 OK\r\n");
    for (options, of_request, of_response) in [
        ("", "X-Sum: 1\r\nX-Named: 2\r\n", "X-Sum: 1\r\nX-Named: 2\r\n"),
        ("Connection: keep-alive, x-named\r\n", "X-Sum: 1\r\n", ""),
    ] {
        let mut world = World::new(1, |_| {});
        let client = world.asking(&chunked(post, options));
        let backend = world.connect();
        let sent = world.sent(backend);
        assert!(sent.ends_with(&format!("2\r\nhi\r\n0\r\n{of_request}\r\n")), "{sent}");
        assert!(world.give(backend, &chunked(ok, options)));
        let sent = world.sent(client);
        assert!(sent.ends_with(&format!("2\r\nhi\r\n0\r\n{of_response}\r\n")), "{sent}");
    }
}

/// Returns the response to a client that sends this, byte by byte up to `cut`.
fn refused(request: &str, cut: usize) -> String {
    let mut world = World::new(1, |_| {});
    let client = world.client();
    let (bytes, rest) = request.split_at(cut);
    for piece in bytes.split("").chain([rest]) {
        world.give(client, piece);
        if !world.dials.is_empty() {
            world.connect();
        }
    }
    world.pass(11_000_000);
    world.sent(client)
}

#[test]
fn a_head_that_is_refused_gets_no_content() {
    for (request, status) in [
        ("HEAD / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("\r\nHEAD / HTTP/1.1\r\nX: no host\r\n\r\n", 400),
        ("HEAD / HTTP/3.0\r\n", 505),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n", 417),
        ("HEAD / HTTP/1.1\r\nHost: ", 408),
        ("HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx", 400),
    ] {
        for cut in [0, 1, 3, request.len()] {
            let answer = refused(request, cut);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} {answer}");
            assert!(answer.ends_with("\r\n\r\n"), "{request:?} {answer}");
        }
        assert!(!refused(&request.replacen("HEAD", "GET", 1), 0).ends_with("\r\n\r\n"), "{request:?}");
    }
}

#[test]
fn interim_responses_come_to_an_end() {
    for request in [GET, "GET / HTTP/1.0\r\n\r\n"] {
        let mut world = World::new(1, |_| {});
        let client = world.asking(request);
        let backend = world.connect();
        let interim = "HTTP/1.1 102 Processing\r\n\r\n";
        assert!(world.give(backend, &interim.repeat(crate::limits::INTERIM_RESPONSES.into())));
        assert!(!world.sent(client).contains(" 502 "));
        world.give(backend, interim);
        assert!(world.sent(client).contains(" 502 ") && world.did(Output::Close(backend)));
        assert_eq!(world.metric("zzz_lb_failures_total{"), 0, "a limit of ours");
    }
}

#[test]
fn one_portion_of_the_metrics_is_made_in_a_turn() {
    let mut world = World::new(100, |_| {});
    let clients = [(); 3].map(|()| world.asking("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"));
    // The heads have arrived already.
    clients.iter().for_each(|&client| assert!(world.sent(client).starts_with("HTTP/1.1 200 ")));
    let gone = clients[1];
    for turn in 0..9 {
        if turn == 6 {
            world.fail(gone, Failure::Broken(104));
        }
        world.proxy.expire();
        world.carry_out();
        let served: Vec<Key> = clients.into_iter().filter(|&client| !world.sent(client).is_empty()).collect();
        let next = if turn < 6 { turn % 3 } else { [0, 2][turn % 2] };
        assert_eq!(served, [clients[next]], "turn {turn}");
    }
    world.pass(0);
    assert!([0, 2].iter().all(|&n| world.sent(clients[n]).ends_with("0\r\n\r\n")));
}

#[test]
fn another_address_of_the_same_backend_is_tried_first() {
    // Six backends have two addresses each, and nothing listens on the even ones.
    let mut world = World::new(12, |plan| {
        for (slot, member) in plan.members.iter_mut().enumerate() {
            member.host = format!("localhost:{}", slot / 2);
        }
    });
    for _ in 0..12 {
        let client = world.asking(GET);
        let mut connected = false;
        for tries in 1.. {
            let Some((key, slot)) = world.dials.pop_front() else { break };
            assert!(tries <= 2, "the second address is of the same backend");
            if slot % 2 == 0 {
                world.proxy.failed(key, Failure::Connect(111));
            } else {
                connected = true;
                world.proxy.connected(key, false);
            }
            world.carry_out();
        }
        assert!(connected);
        let backend = world.busy_backend();
        world.give(backend, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert!(world.sent(client).contains(" 200 "));
    }
}
