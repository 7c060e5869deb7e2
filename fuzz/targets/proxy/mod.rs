//! The proxy under any order of inputs with any bytes. Its queues stay bounded, its outputs concern living
//! connections, its invariants hold (`Proxy::check`), and nothing is left after every connection has failed.
//! Witnesses read its output: a client gets at most one final response for each of its requests, in order, and no
//! content that was made for another request; a backend gets requests that it can read, and a request that is not
//! idempotent at most once. A client over HTTP/2 gets the same on each of its streams, and nothing behind the end or the
//! reset of a stream. On each HTTP/2 connection no content exceeds the peer's windows, and no window overflows.
//!
//! The input is a list of operations: a byte for the operation, a byte for the connection, and for bytes to receive a
//! length and the bytes.

mod streams;
mod windows;
mod witness;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use streams::Streams;
use witness::{Backend, Client};
use zzz_lb::balance::strategy::Strategy;
use zzz_lb::collections::slab::Key;
use zzz_lb::config::{Cidr, Plan, Timeouts};
use zzz_lb::http::message_error::MessageError;
use zzz_lb::http::session_error::{BadCertificate, SessionError};
use zzz_lb::limits::{BLOCK_BYTES, H2_WINDOW_MAX_BYTES, QUEUE_HIGH_BYTES};
use zzz_lb::log::{Level, Log};
use zzz_lb::proxy::{Failure, Output, Proxy, Shared};

/// The number of backends.
const SLOTS: usize = 3;
/// The largest number of connections. More of them find nothing new.
const CONNECTIONS: usize = 12;
/// The largest number of operations.
const OPERATIONS: usize = 400;
/// A response that leaves its request open.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Texts to receive, so that mutations need not find HTTP.
const TEXTS: [&[u8]; 14] = [
    b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /readyz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n01234",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nhello",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    CONTINUE,
    b"0\r\nX: y\r\n\r\n",
    b"01234",
];

/// Frames to receive from a backend: SETTINGS, responses on the first streams, and what may follow.
const FRAMES: [&[u8]; 14] = [
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x02",
    b"\0\0\x01\x01\x04\0\0\0\x01\x88",
    b"\0\0\x01\x01\x05\0\0\0\x01\x88",
    b"\0\0\x01\x01\x04\0\0\0\x03\x88",
    b"\0\0\x01\x01\x05\0\0\0\x05\x89",
    b"\0\0\x05\0\x01\0\0\0\x01hello",
    b"\0\0\x05\0\0\0\0\0\x03hello\0\0\0\0\x01\0\0\0\x03",
    b"\0\0\x06\x01\x05\0\0\0\x03\0\x01a\x01bc",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0",
    b"\0\0\x08\x06\x01\0\0\0\0idle now",
    b"\0\0\x04\x08\0\0\0\0\0\0\x01\0\0",
    b"\0\0\x05\x01\x04\0\0\0\x01\x08\x03103",
];

struct Connection {
    key: Key,
    connecting: bool,
    /// The connection could not be begun, and will be dialled again.
    waiting: bool,
    finished: bool,
}

const ANYBODY: Cidr = Cidr { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };
/// The methods of tagged requests.
const METHODS: [&str; 6] = ["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE"];

struct Machine {
    proxy: Proxy,
    open: Vec<Connection>,
    now_us: u64,
    clients: HashMap<Key, Client>,
    /// The clients that speak HTTP/2 from the first byte on.
    streams: HashMap<Key, Streams>,
    backends: HashMap<Key, Backend>,
    windows: HashMap<Key, windows::Witness>,
    /// The number of tagged requests that clients have begun, and how often each was delivered over HTTP/1.1.
    tags: usize,
    delivered: HashMap<usize, (usize, bool)>,
    plants: Plants,
}

/// Faults to plant, to see that the witnesses notice.
#[derive(Clone, Copy)]
pub struct Plants {
    /// Changes the answer of a backend to a tagged request.
    pub answer: fn(&mut Vec<u8>),
    /// Changes the bytes that the proxy sends, as a client or a backend sees them.
    pub sent: fn(&mut Vec<u8>),
}

impl Plants {
    pub const NONE: Plants = Plants { answer: |_| {}, sent: |_| {} };
}

/// Runs an input, and panics if the proxy breaks a rule.
pub fn run(data: &[u8]) {
    run_with(data, Plants::NONE);
}

/// Does the same with planted faults.
pub fn run_with(mut data: &[u8], plants: Plants) {
    let shared = SHARED.with(|shared| *shared);
    shared.wipe();
    let proxy = Proxy::new(&plan(0), shared, 0, 1, 0, Log::new(Level::Err));
    let mut machine = Machine {
        proxy,
        open: Vec::new(),
        now_us: 0,
        clients: HashMap::new(),
        streams: HashMap::new(),
        backends: HashMap::new(),
        windows: HashMap::new(),
        tags: 0,
        delivered: HashMap::new(),
        plants,
    };
    for _ in 0..OPERATIONS {
        let Some((operation, rest)) = data.split_at_checked(2) else { break };
        data = machine.operate(operation[0], operation[1], rest);
        machine.carry_out();
        machine.proxy.check().expect("the proxy's account of itself is right");
    }
    while let Some(connection) = machine.open.last() {
        machine.proxy.failed(connection.key, Failure::Broken(104));
        machine.carry_out();
    }
    let left = (machine.proxy.clients(), machine.proxy.admins(), machine.proxy.requests());
    assert_eq!(left, (0, 0, 0), "something is left");
    assert_eq!(machine.proxy.connections(), 0, "a connection is left");
    machine.proxy.check_rest().expect("the proxy is at rest");
    assert!((0..SLOTS).all(|slot| shared.cells.in_flight(slot) == 0), "something is in flight");
}

/// Returns one of the plans for the proxy, by the bits of a number: backends that come, go, have another owner or a
/// limit, or are backups.
fn plan(bits: u8) -> Plan {
    let mut plan = Plan::over([9001, 9002, 9003].map(|port| SocketAddr::from(([127, 0, 0, 1], port))));
    plan.timeouts = Timeouts {
        connect_us: 2_000_000,
        request_us: 10_000_000,
        response_us: 60_000_000,
        idle_us: 75_000_000,
        half_close_us: 2_000_000,
        drain_us: 25_000_000,
        drain_idle_us: 2_000_000,
    };
    plan.loglevel = Level::Err;
    plan.health.interval_us = 3_000_000;
    (plan.health.timeout_us, plan.slow_start_us) = (1_000_000, 5_000_000);
    for (slot, member) in plan.members.iter_mut().enumerate() {
        let bit = |of: u8| bits >> of & 1 == 1;
        member.max = u32::from(bit(0));
        member.backup = bit(1) && slot == 0;
        member.generation += u64::from(bit(2));
        member.h2c = slot == 1;
        member.server_name = if slot == 2 { "a".into() } else { String::new() };
        member.weight = 1 + u16::from(bits >> 6) * slot as u16;
    }
    plan.members.truncate(3 - usize::from(bits >> 3 & 3));
    plan.trace = bits >> 4 & 1 == 1;
    plan.send_proxy = plan.trace.then_some(zzz_lb::http::proxy_header::Version::V2);
    plan.via = (bits >> 5 & 1 == 1).then(|| "zzz".into());
    plan.trust = if bits >> 6 & 1 == 1 { vec![ANYBODY] } else { Vec::new() };
    plan.strategy = Strategy::ALL[usize::from(bits >> 5) % Strategy::ALL.len()];
    plan
}

thread_local! {
    /// The cells that a proxy shares, used again for each run.
    static SHARED: Shared = Shared::private(SLOTS);
}

impl Machine {
    /// Carries out one operation. Returns the rest of the input.
    fn operate<'a>(&mut self, operation: u8, argument: u8, data: &'a [u8]) -> &'a [u8] {
        let at = usize::from(argument) % self.open.len().max(1);
        let Some(key) = self.open.get(at).map(|connection| connection.key).filter(|_| !operation.is_multiple_of(16))
        else {
            if self.open.len() < CONNECTIONS {
                let peer = SocketAddr::from(([127, 0, 0, 1], 50_000));
                let admin = operation == 240;
                let key = if admin { self.proxy.accept_admin(peer) } else { self.proxy.accept(peer) };
                self.open.push(Connection { key, connecting: false, waiting: false, finished: false });
                if operation == 224 {
                    self.streams.insert(key, Streams::new());
                    self.windows.insert(key, windows::Witness::of_client());
                    if argument.is_multiple_of(2) {
                        self.proxy.accepted_http2(key);
                    }
                    self.pass_on(key, &Streams::greeting());
                } else {
                    self.clients.insert(key, Client::new());
                }
            }
            return data;
        };
        if self.open[at].connecting {
            self.open[at].connecting = false;
            match operation % 8 {
                0 => self.proxy.failed(key, Failure::Connect(111)),
                1 => self.fail_to_begin(at, Failure::Exhausted(24)),
                2 => self.open[at].connecting = true,
                3 => self.fail_to_begin(at, Failure::Busy),
                4 if operation >= 192 => {
                    self.proxy.failed(key, Failure::Tls(SessionError::Certificate(BadCertificate::Expired)))
                }
                5 if operation >= 192 && self.proxy.offers_http2(key) => {}
                5 if operation >= 192 => self.proxy.refuses_http1(key),
                _ => self.proxy.connected(key, operation >= 128),
            }
            return data;
        }
        match operation % 16 {
            1..=12 | 15 if self.open[at].waiting => {}
            1..=4 => {
                let length = usize::from(operation / 16) * 8;
                let (bytes, rest) = data.split_at(data.len().min(length));
                self.receive(key, bytes);
                return rest;
            }
            7 => self.tagged(key, operation / 16),
            5..=6 => self.receive(key, TEXTS[usize::from(operation / 16) % TEXTS.len()]),
            8 => self.receive(key, &[b'x'; BLOCK_BYTES][..BLOCK_BYTES >> (operation / 16)]),
            9 => self.send(key, usize::from(operation / 16) * 1000 + 1),
            10 => self.send(key, usize::MAX),
            11 if operation / 16 < 4 => self.proxy.closing(key),
            11 => {
                if self.proxy.room(key).is_some() {
                    self.proxy.ended(key);
                }
            }
            12 => match operation / 16 {
                0..4 => self.proxy.failed(key, Failure::Broken(104)),
                4..8 if self.proxy.queued(key).is_some_and(|queue| !queue.is_empty()) => self.proxy.unsendable(key),
                4..8 => {}
                8..12 => self.proxy.broken(key),
                12 => self.proxy.failed(key, Failure::Malformed(MessageError::StatusLine)),
                13 => self.proxy.drain(),
                14 => _ = self.proxy.evict_idle(),
                _ => self.proxy.nothing(key),
            },
            14 if !self.open[at].waiting => return self.frame(key, argument, data),
            13 if operation / 16 < 4 => self.proxy.follow(&plan(argument)),
            15 if operation / 16 < 7 => self.command(key, operation / 16, argument),
            _ => {
                self.now_us += u64::from(operation / 16) * u64::from(operation / 16) * 400_000;
                self.proxy.set_clock(self.now_us, self.now_us);
                if self.proxy.next_deadline_us() <= self.now_us {
                    self.proxy.expire();
                }
            }
        }
        data
    }

    /// Sends a tagged request from a client, or a response to one from a backend.
    fn tagged(&mut self, key: Key, choice: u8) {
        let (method, tag) = (METHODS[usize::from(choice) % METHODS.len()], self.tags + 1);
        let length = if matches!(method, "POST" | "PUT" | "PATCH") { 3 } else { 0 };
        let content = &b"abc"[..length];
        if self.clients.contains_key(&key) {
            self.tags = tag;
            let head = format!("{method} /r/{tag} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            self.receive(key, &[head.as_bytes(), content].concat());
        } else if let Some(client) = self.streams.get(&key) {
            self.tags = tag;
            let request = client.request(method, tag, content);
            self.receive(key, &request);
        } else if let Some(backend) = self.backends.get_mut(&key) {
            let mut answer = backend.answer();
            (self.plants.answer)(&mut answer);
            self.pass_on(key, &answer);
        }
    }

    /// Gives the proxy an input that concerns no connection.
    fn command(&mut self, key: Key, choice: u8, argument: u8) {
        match choice {
            0 => _ = self.proxy.stop(),
            1 => self.proxy.limit_idle(argument.into()),
            2 => self.proxy.set_unready(),
            3 => self.proxy.hide_metrics(),
            4 => self.proxy.failed(key, Failure::Tls(SessionError::Truncated)),
            5 => self.proxy.secured(key, argument % 2 == 1, Some(argument.into())),
            _ => self.proxy.drain(),
        }
    }

    /// Handles a connection that could not be begun: it fails, or is dialled again.
    fn fail_to_begin(&mut self, at: usize, failure: Failure) {
        let connection = &mut self.open[at];
        connection.waiting = true;
        self.proxy.failed(connection.key, failure);
    }

    /// Receives a frame: one of the constants, or one with a kind, flags, a stream and a length from the input.
    fn frame<'a>(&mut self, key: Key, argument: u8, data: &'a [u8]) -> &'a [u8] {
        if let Some(kept) = FRAMES.get(usize::from(argument >> 4)) {
            self.receive(key, kept);
            return data;
        }
        let Some((&[kind, flags, stream, length], rest)) = data.split_first_chunk() else { return data };
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(length)));
        let head = [0, 0, payload.len() as u8, kind % 12, flags, 0, 0, 0, stream % 8];
        self.receive(key, &[&head, payload].concat());
        rest
    }

    /// Receives bytes of the input. `pass_on` also serves the witnesses.
    fn receive(&mut self, key: Key, bytes: &[u8]) {
        self.backends.get_mut(&key).into_iter().for_each(|backend| backend.strays |= bytes != CONTINUE);
        self.pass_on(key, bytes);
    }

    fn pass_on(&mut self, key: Key, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(room) = self.proxy.room(key) else { return };
            assert!(!room.is_empty(), "a connection to be read has room");
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            if let Some(client) = self.clients.get_mut(&key) {
                client.asks(&bytes[..n]);
            } else if let Some(client) = self.streams.get_mut(&key) {
                client.asks(&bytes[..n]);
            }
            self.windows.get_mut(&key).into_iter().for_each(|windows| windows.hears(&bytes[..n]));
            self.proxy.received(key, n);
            bytes = &bytes[n..];
        }
    }

    fn send(&mut self, key: Key, most: usize) {
        let Some(queue) = self.proxy.queued(key).filter(|queue| !queue.is_empty()) else { return };
        let mut bytes = queue.slices().flatten().copied().collect::<Vec<u8>>();
        bytes.truncate(most);
        let length = bytes.len();
        (self.plants.sent)(&mut bytes);
        self.windows.get_mut(&key).into_iter().for_each(|windows| windows.gets(&bytes));
        if let Some(client) = self.clients.get_mut(&key) {
            client.gets(&bytes);
        } else if let Some(client) = self.streams.get_mut(&key) {
            client.gets(&bytes);
        } else if let Some(backend) = self.backends.get_mut(&key) {
            backend.gets(&bytes, &mut self.delivered);
        }
        self.proxy.sent(key, length);
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.proxy.next_output() {
            match output {
                Output::Connect(key, slot) => {
                    assert!(self.proxy.address(slot).is_some(), "a backend that there is");
                    let waiting = self.open.iter().position(|connection| connection.key == key);
                    if let Some(at) = waiting {
                        assert!(self.open.remove(at).waiting, "only what was not begun is asked for again");
                    }
                    self.backends.entry(key).or_insert_with(Backend::new);
                    self.windows.entry(key).or_insert_with(windows::Witness::of_backend);
                    self.open.push(Connection { key, connecting: true, waiting: false, finished: false });
                }
                Output::Close(key) | Output::Reset(key) => {
                    let is_client = self.clients.contains_key(&key) || self.streams.contains_key(&key);
                    let begun = is_client || self.backends.contains_key(&key);
                    let at = self.open.iter().position(|connection| connection.key == key);
                    assert_eq!(at.map(|at| self.open.remove(at)).is_some(), begun, "what was begun is closed once");
                }
                Output::Finish(key) => {
                    if let Some(connection) = self.open.iter_mut().find(|connection| connection.key == key) {
                        assert!(!std::mem::replace(&mut connection.finished, true), "a direction ends once");
                    }
                }
                Output::Check(key) => self.proxy.nothing(key),
                Output::Measure(key, _) => self.proxy.measured(key, None),
                Output::Send(_) | Output::SendLater(_) | Output::Receive(_) => {}
            }
        }
        for connection in &self.open {
            let queued = self.proxy.queued(connection.key).expect("what is open is known to the proxy").len();
            // The bytes within a stream's window may be added to the rest of the queue.
            let most = QUEUE_HIGH_BYTES + 2 * BLOCK_BYTES + H2_WINDOW_MAX_BYTES as usize;
            assert!(queued <= most, "{queued} bytes are queued");
            assert!(!connection.finished || queued == 0, "nothing is queued behind the end");
        }
    }
}
