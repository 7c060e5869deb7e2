//! The proxy under any order of inputs with any bytes: what it queues stays bounded, what it asks
//! for concerns connections that live, and when every connection has failed nothing is left.
//!
//! The input is a list of operations: a byte that says which, a byte that says on which
//! connection, and for bytes to receive a length and the bytes.

use std::net::SocketAddr;

use zzz_lb::balance::strategy::Strategy;
use zzz_lb::collections::slab::Key;
use zzz_lb::config::{Plan, Timeouts};
use zzz_lb::http::refusal::Refusal;
use zzz_lb::limits::{BLOCK_BYTES, H2_WINDOW_MAX_BYTES, QUEUE_HIGH_BYTES};
use zzz_lb::log::{Level, Log};
use zzz_lb::proxy::{Failure, Output, Proxy, Shared};

/// Backends at once.
const SLOTS: usize = 3;
/// Connections at once: more find nothing new.
const CONNECTIONS: usize = 12;
/// Operations of one input.
const OPERATIONS: usize = 400;
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
    b"HTTP/1.1 100 Continue\r\n\r\n",
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
    /// It could not be begun, and is to be asked for again.
    waiting: bool,
    finished: bool,
}

struct Machine {
    proxy: Proxy,
    open: Vec<Connection>,
    now_us: u64,
}

/// Panics where the proxy does or leaves what it must not.
pub fn run(data: &[u8]) {
    let shared = SHARED.with(|shared| *shared);
    shared.wipe();
    let proxy = Proxy::new(&plan(0), shared, 0, 1, 0, Log::new(Level::Err));
    let mut machine = Machine { proxy, open: Vec::new(), now_us: 0 };
    let mut data = data;
    for _ in 0..OPERATIONS {
        let Some((operation, rest)) = data.split_at_checked(2) else { break };
        data = machine.operate(operation[0], operation[1], rest);
        machine.carry_out();
    }
    while let Some(connection) = machine.open.last() {
        machine.proxy.failed(connection.key, Failure::Broken(104));
        machine.carry_out();
    }
    let left = (machine.proxy.clients(), machine.proxy.admins(), machine.proxy.requests());
    assert_eq!(left, (0, 0, 0), "something is left");
    assert_eq!(machine.proxy.connections(), 0, "a connection is left");
    assert!((0..SLOTS).all(|slot| shared.cells.in_flight(slot) == 0), "something is in flight");
}

/// One of the plans that the proxy is told to follow, by the bits of a number: backends that come,
/// go, have another owner, a limit, or are backups.
fn plan(bits: u8) -> Plan {
    let mut plan = Plan::over([9001, 9002, 9003].map(|port| SocketAddr::from(([127, 0, 0, 1], port))));
    plan.timeouts = Timeouts {
        connect_us: 2_000_000,
        request_us: 10_000_000,
        response_us: 60_000_000,
        idle_us: 75_000_000,
        drain_us: 25_000_000,
        drain_idle_us: 2_000_000,
    };
    plan.loglevel = Level::Err;
    plan.health.interval_us = 3_000_000;
    plan.health.timeout_us = 1_000_000;
    plan.slow_start_us = 5_000_000;
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
    plan.strategy = Strategy::ALL[usize::from(bits >> 5) % Strategy::ALL.len()];
    plan
}

thread_local! {
    /// What a proxy shares, used anew for each run.
    static SHARED: Shared = Shared::private(SLOTS);
}

impl Machine {
    /// Does one thing; what is left of the input.
    fn operate<'a>(&mut self, operation: u8, argument: u8, data: &'a [u8]) -> &'a [u8] {
        let at = usize::from(argument) % self.open.len().max(1);
        let Some(key) = self.open.get(at).map(|connection| connection.key).filter(|_| !operation.is_multiple_of(16))
        else {
            if self.open.len() < CONNECTIONS {
                let peer = SocketAddr::from(([127, 0, 0, 1], 50_000));
                let admin = operation == 240;
                let key = if admin { self.proxy.accept_admin(peer) } else { self.proxy.accept(peer) };
                self.open.push(Connection { key, connecting: false, waiting: false, finished: false });
            }
            return data;
        };
        if self.open[at].connecting {
            self.open[at].connecting = false;
            match operation % 8 {
                0 => self.proxy.failed(key, Failure::Connect(111)),
                1 => self.begin_in_vain(at, Failure::Exhausted(24)),
                2 => self.open[at].connecting = true,
                3 => self.begin_in_vain(at, Failure::Busy),
                _ => self.proxy.connected(key, operation >= 128),
            }
            return data;
        }
        match operation % 16 {
            1..=12 if self.open[at].waiting => {}
            1..=4 => {
                let length = usize::from(operation / 16) * 8;
                let (bytes, rest) = data.split_at(data.len().min(length));
                self.receive(key, bytes);
                return rest;
            }
            5..=7 => self.receive(key, TEXTS[usize::from(operation / 16) % TEXTS.len()]),
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
                4..8 => self.proxy.unsendable(key),
                8..12 => self.proxy.broken(key),
                12 => self.proxy.failed(key, Failure::Malformed(Refusal::StatusLine)),
                13 => self.proxy.drain(),
                14 => _ = self.proxy.evict_idle(),
                _ => self.proxy.nothing(key),
            },
            14 if !self.open[at].waiting => return self.frame(key, argument, data),
            13 if operation / 16 < 4 => self.proxy.follow(&plan(argument)),
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

    /// A connection could not be begun: it fails, or is asked for again.
    fn begin_in_vain(&mut self, at: usize, failure: Failure) {
        let connection = &mut self.open[at];
        connection.waiting = true;
        self.proxy.failed(connection.key, failure);
    }

    /// Receives a frame: one of those kept, or one whose kind, flags, stream and length are given.
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

    fn receive(&mut self, key: Key, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(room) = self.proxy.room(key) else { return };
            assert!(!room.is_empty(), "a connection to be read has room");
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            self.proxy.received(key, n);
            bytes = &bytes[n..];
        }
    }

    fn send(&mut self, key: Key, most: usize) {
        let Some(queued) = self.proxy.queued(key).map(|queue| queue.len()) else { return };
        if queued > 0 {
            self.proxy.sent(key, queued.min(most));
        }
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
                    self.open.push(Connection { key, connecting: true, waiting: false, finished: false });
                }
                Output::Close(key) | Output::Reset(key) => {
                    let before = self.open.len();
                    self.open.retain(|connection| connection.key != key);
                    assert_eq!(self.open.len() + 1, before, "only what is open is closed, and once");
                }
                Output::Finish(key) => {
                    if let Some(connection) = self.open.iter_mut().find(|connection| connection.key == key) {
                        assert!(!std::mem::replace(&mut connection.finished, true), "a direction ends once");
                    }
                }
                Output::Check(key) => self.proxy.nothing(key),
                Output::Send(_) | Output::SendLater(_) | Output::Receive(_) => {}
            }
        }
        for connection in &self.open {
            let queued = self.proxy.queued(connection.key).map(|queue| queue.len());
            let queued = queued.expect("what is open is known to the proxy");
            // What a stream's window lets come may be added to what else is queued.
            let most = QUEUE_HIGH_BYTES + 2 * BLOCK_BYTES + H2_WINDOW_MAX_BYTES as usize;
            assert!(queued <= most, "{queued} bytes are queued");
            assert!(!connection.finished || queued == 0, "nothing is queued behind the end");
        }
    }
}
