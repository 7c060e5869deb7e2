//! The proxy before backends that speak HTTP/2, driven by hand. A whole program would take too long, or could not be
//! scripted in this detail.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::super::*;
use super::Mux;
use crate::config::Plan;
use crate::http2::ErrorCode;
use crate::http2::frame::{self, ACK, END_HEADERS, END_STREAM, HEADER_BYTES, Header, Kind, PREFACE};
use crate::limits::{
    DEFAULT_CONNECT_US, H2_BACKEND_WINDOW_BYTES, H2_FAULTS, H2_FRAME_BYTES, H2_GROWTH_BYTES, H2_LIST_BYTES,
    H2_REPLY_BYTES, H2_STREAMS, H2_WINDOW_BYTES, POOL_FRESH_US, SEEN_US,
};
use crate::log::Level;

mod account;
mod clients;
mod declined;
mod defences;
mod downstream;
mod grpc;
mod health;
mod owned;
mod turns;
mod uploads;
mod websocket;

/// A proxy, with the bytes and requests of its sockets.
struct World {
    proxy: Proxy,
    plan: Plan,
    now_us: u64,
    /// The connections that the proxy asked for, with their slots.
    dials: Vec<(Key, usize)>,
    /// The connections that were closed or reset, and those that were reset.
    closed: Vec<Key>,
    reset: Vec<Key>,
    /// The bytes sent, by connection.
    sent: HashMap<Key, Vec<u8>>,
    /// The connections whose sockets are full.
    stalled: Vec<Key>,
    /// The bytes that no peer has acknowledged.
    unacknowledged: Option<usize>,
}

impl World {
    /// Returns a proxy before this number of backends. With `tls` they choose HTTP/2 by ALPN.
    fn new(backends: u16, tls: bool) -> World {
        let mut plan = Plan::over((0..backends).map(|n| SocketAddr::from(([127, 0, 0, 1], 9000 + n))));
        for member in &mut plan.members {
            member.h2c = !tls;
            member.server_name = if tls { "backend".into() } else { String::new() };
        }
        plan.retry_percent = 1000;
        let now_us = 1_000_000;
        let proxy = Proxy::new(&plan, Shared::private(backends.into()), 0, 1, now_us, Log::new(Level::Debug));
        let (dials, closed, reset) = (Vec::new(), Vec::new(), Vec::new());
        World {
            proxy,
            plan,
            now_us,
            dials,
            closed,
            reset,
            sent: HashMap::new(),
            stalled: Vec::new(),
            unacknowledged: None,
        }
    }

    /// Carries out the outputs of the proxy.
    fn carry_out(&mut self) {
        while let Some(output) = self.proxy.next_output() {
            match output {
                Output::Connect(key, slot) => self.dials.push((key, slot)),
                Output::Send(key) | Output::SendLater(key) if !self.stalled.contains(&key) => {
                    while let Some(queue) = self.proxy.queued(key).filter(|queue| !queue.is_empty()) {
                        let bytes: Vec<u8> = queue.slices().flatten().copied().collect();
                        self.sent.entry(key).or_default().extend(&bytes);
                        self.proxy.sent(key, bytes.len());
                    }
                }
                Output::Close(key) => self.closed.push(key),
                Output::Reset(key) => {
                    self.closed.push(key);
                    self.reset.push(key);
                }
                Output::Check(key) => self.proxy.nothing(key),
                Output::Measure(key, _) => self.proxy.measured(key, self.unacknowledged),
                Output::Send(_) | Output::SendLater(_) | Output::Receive(_) | Output::Finish(_) => {}
            }
        }
    }

    fn give(&mut self, key: Key, mut bytes: &[u8]) {
        while !bytes.is_empty()
            && let Some(room) = self.proxy.room(key)
        {
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.proxy.received(key, n);
            self.carry_out();
        }
    }

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

    /// Accepts a client that sends a GET.
    fn request(&mut self) -> Key {
        self.request_with("")
    }

    /// Accepts a client that sends a GET with these field lines.
    fn request_with(&mut self, fields: &str) -> Key {
        self.send(&format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
    }

    /// Accepts a client that sends these bytes.
    fn send(&mut self, text: &str) -> Key {
        let client = self.proxy.accept(SocketAddr::from(([127, 0, 0, 1], 5000)));
        self.give(client, text.as_bytes());
        client
    }

    /// Establishes the connection that was asked for last.
    fn connected(&mut self, http2: bool) -> Key {
        let (key, _) = self.dials.pop().expect("a connection was asked for");
        self.proxy.connected(key, http2);
        self.carry_out();
        if http2 {
            self.frame(key, Kind::Settings, 0, 0, &[]);
        }
        key
    }

    fn frame(&mut self, key: Key, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::write(&mut bytes, kind, flags, stream, payload);
        self.give(key, &bytes);
    }

    /// Returns the frames that were sent on a connection since the last call.
    fn frames(&mut self, key: Key) -> Vec<(Header, Vec<u8>)> {
        let bytes = self.sent.remove(&key).unwrap_or_default();
        let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(&bytes);
        let mut frames = Vec::new();
        while let Some(header) = Header::read(rest) {
            let (payload, behind) = rest[HEADER_BYTES..].split_at(header.length as usize);
            frames.push((header, payload.to_vec()));
            rest = behind;
        }
        frames
    }
}

#[test]
fn a_request_whose_client_has_gone_holds_no_place_on_a_connection_that_is_being_made() {
    let mut world = World::new(1, false);
    for _ in 0..3 * H2_STREAMS {
        let client = world.request();
        world.proxy.failed(client, Failure::Broken(104));
        world.carry_out();
    }
    assert_eq!(world.dials.len(), 1);
}

#[test]
fn the_observed_protocol_of_a_backend_is_remembered_for_a_while() {
    let mut world = World::new(1, true);
    world.request();
    assert!(world.proxy.offers_http2(world.dials[0].0));
    world.connected(false);
    world.request();
    assert!(!world.proxy.offers_http2(world.dials[0].0), "it has settled on HTTP/1.1");
    world.connected(false);
    world.pass(SEEN_US);
    world.request();
    assert!(world.proxy.offers_http2(world.dials[0].0), "it may have learned");
    let mux_key = world.connected(true);
    world.request();
    assert!(world.dials.is_empty(), "one connection for both");
    // HTTP_1_1_REQUIRED may concern one resource only.
    world.frame(mux_key, Kind::RstStream, 0, 1, &[0, 0, 0, 0xd]);
    let (key, _) = world.dials[0];
    assert!(!world.proxy.offers_http2(key));
    world.pass(SEEN_US);
    world.dials.clear();
    world.request();
    let again = |world: &World| world.dials.iter().all(|&(key, _)| world.proxy.offers_http2(key));
    assert!(again(&world), "it goes over HTTP/2 again");
}

#[test]
fn memory_of_slow_clients_is_bounded_even_after_their_streams_ended() {
    let mut world = World::new(1, false);
    let clients: Vec<Key> = (0..32).map(|_| world.request()).collect();
    let mux_key = world.connected(true);
    world.frames(mux_key);
    for (n, &client) in clients.iter().enumerate() {
        let stream = 2 * n as u32 + 1;
        world.frame(mux_key, Kind::Headers, END_HEADERS, stream, &[0x88]);
        let mut window = H2_BACKEND_WINDOW_BYTES;
        let mut send = |world: &mut World, frames: usize| {
            for _ in 0..frames {
                if window < H2_FRAME_BYTES as u32 {
                    return;
                }
                world.frame(mux_key, Kind::Data, 0, stream, &[0; H2_FRAME_BYTES]);
                window -= H2_FRAME_BYTES as u32;
                for (header, payload) in world.frames(mux_key) {
                    if header.kind == Kind::WindowUpdate && header.stream == stream {
                        window += u32::from_be_bytes(payload[..4].try_into().unwrap());
                    }
                }
            }
        };
        // A megabyte lets the window grow to its maximum. Then the client stops reading.
        send(&mut world, 64);
        world.stalled.push(client);
        send(&mut world, usize::MAX);
        world.frame(mux_key, Kind::Data, END_STREAM, stream, &[]);
    }
    let held = |world: &World| clients.iter().map(|&key| world.proxy.queued(key).map_or(0, |q| q.len())).sum::<usize>();
    let most = H2_GROWTH_BYTES as usize + clients.len() * (QUEUE_HIGH_BYTES + H2_WINDOW_BYTES as usize);
    assert!(held(&world) <= most, "{} KiB are held", held(&world) >> 10);
    assert!(world.proxy.totals.grown > H2_GROWTH_BYTES / 2, "the windows have grown: {}", world.proxy.totals.grown);
    // Half of the clients leave, and the others read everything.
    for (n, &client) in clients.iter().enumerate() {
        world.stalled.clear();
        if n % 2 == 0 {
            world.proxy.failed(client, Failure::Broken(0));
        } else {
            world.proxy.sent(client, world.proxy.queued(client).map_or(0, |queue| queue.len()));
        }
        world.carry_out();
    }
    assert_eq!((world.proxy.totals.grown, held(&world)), (0, 0));
}

#[test]
fn interim_responses_are_dropped_where_a_client_does_not_take_them_but_for_the_100_that_it_awaits() {
    let mut world = World::new(1, false);
    let asking = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    let clients = [world.request(), world.send(asking)];
    let mux_key = world.connected(true);
    world.stalled.extend(clients);
    // From then on one byte stands for a field of four thousand bytes.
    let field = [&b"\x08\x03103\x40\x01a\x7f\xa1\x1e"[..], &[b'x'; 4000]].concat();
    world.frame(mux_key, Kind::Headers, END_HEADERS, 1, &field);
    let interim = [&b"\x08\x03103"[..], &[0xbe; 15]].concat();
    for _ in 0..100 {
        [1, 3].into_iter().for_each(|stream| world.frame(mux_key, Kind::Headers, END_HEADERS, stream, &interim));
    }
    let held = |world: &World, key| world.proxy.queued(key).map_or(0, |queue| queue.len());
    clients.iter().for_each(|&client| assert!(held(&world, client) < QUEUE_HIGH_BYTES + H2_LIST_BYTES));
    let before = clients.map(|client| held(&world, client));
    for _ in 0..2 {
        [1, 3].into_iter().for_each(|stream| world.frame(mux_key, Kind::Headers, END_HEADERS, stream, b"\x08\x03100"));
    }
    assert_eq!(held(&world, clients[0]), before[0]);
    assert_eq!(held(&world, clients[1]), before[1] + "HTTP/1.1 100 Continue\r\n\r\n".len(), "once");
    for (client, stream) in clients.into_iter().zip([1, 3]) {
        world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, stream, &[0x89]);
        let queue = world.proxy.queued(client).expect("a client");
        let bytes: Vec<u8> = queue.slices().flatten().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("HTTP/1.1 103 ") && text.contains("HTTP/1.1 204 "), "{}", text.len());
    }
}

#[test]
fn requests_waiting_for_a_removed_backend_go_to_another() {
    let mut world = World::new(2, false);
    let both = world.plan.clone();
    world.plan.members.truncate(1);
    world.proxy.follow(&world.plan);
    let clients = [world.request(), world.request()];
    assert_eq!(world.dials.iter().map(|&(_, slot)| slot).collect::<Vec<_>>(), [0]);
    let (former, _) = world.dials.remove(0);
    world.plan.members = vec![both.members[1].clone()];
    world.proxy.follow(&world.plan);
    world.carry_out();
    assert_eq!(world.dials.iter().map(|&(_, slot)| slot).collect::<Vec<_>>(), [1], "and none to the one that left");
    let mux_key = world.connected(true);
    for stream in [1, 3] {
        world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, stream, &[0x89]);
    }
    clients.iter().for_each(|key| assert!(world.sent[key].starts_with(b"HTTP/1.1 204 "), "{:?}", world.sent));
    // Another backend has the slot by now.
    world.plan.members = vec![both.members[0].clone()];
    world.plan.members[0].generation = 2;
    world.proxy.follow(&world.plan);
    world.proxy.connected(former, true);
    world.carry_out();
    assert!(world.closed.contains(&former) && world.closed.contains(&mux_key));
    world.request();
    assert_eq!(world.dials.iter().map(|&(_, slot)| slot).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_backend_that_takes_no_answers_is_told_from_one_that_has_to_take_large_heads() {
    let pings = |frames: usize| {
        let mut world = World::new(1, false);
        let large = format!("X-Big: {}\r\n", "~".repeat(60_000));
        world.request();
        let mux_key = world.connected(true);
        world.stalled.push(mux_key);
        let _clients = [world.request_with(&large), world.request_with(&large)];
        assert!(world.proxy.queued(mux_key).unwrap().len() > 120_000);
        for n in 0..frames {
            // Content that it sends earns credit.
            let stream = [0, 0, 0, 1];
            world.frame(mux_key, Kind::Ping, 0, 0, &[&stream[..], &(n as u32).to_be_bytes()].concat());
            if n == 0 {
                world.frame(mux_key, Kind::Headers, END_HEADERS, 1, &[0x88]);
            }
            if n % 2 == 0 {
                world.frame(mux_key, Kind::Data, 0, 1, b"x");
            }
        }
        world.proxy.connections.get(mux_key).is_some_and(|mux_key| !mux_key.drops_input())
    };
    assert!(pings(H2_REPLY_BYTES / 20), "it is slow to take two heads, and no more");
    assert!(!pings(H2_REPLY_BYTES / 15), "it has us answer on and on");
}

#[test]
fn a_connection_that_is_silent_is_asked_before_it_gets_another_stream() {
    let mut world = World::new(1, false);
    let quiet = world.request();
    let mux_key = world.connected(true);
    world.frames(mux_key);
    let kinds = |world: &mut World| world.frames(mux_key).iter().map(|(header, _)| header.kind).collect::<Vec<_>>();
    world.request();
    assert_eq!(kinds(&mut world), [Kind::Headers], "it has just been heard of");
    world.pass(POOL_FRESH_US + 1);
    world.request();
    assert_eq!(kinds(&mut world), [Kind::Ping]);
    world.frame(mux_key, Kind::Ping, ACK, 0, b"idle now");
    assert_eq!(kinds(&mut world), [Kind::Headers]);
    world.pass(POOL_FRESH_US + 1);
    world.request();
    assert_eq!(kinds(&mut world), [Kind::Ping]);
    assert!(world.dials.is_empty());
    world.pass(DEFAULT_CONNECT_US + 100_000);
    let fresh = world.connected(true);
    assert_eq!(world.frames(fresh).iter().filter(|(header, _)| header.kind == Kind::Headers).count(), 1);
    // The backend may be busy and still respond.
    world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    assert!(world.sent[&quiet].starts_with(b"HTTP/1.1 204 "));
}

#[test]
fn a_connection_that_went_away_while_idle_is_found_before_it_is_used() {
    let mut world = World::new(1, false);
    world.request();
    let mux_key = world.connected(true);
    world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    world.frames(mux_key);
    world.pass(POOL_FRESH_US + 1);
    // The request must not be repeated.
    let client = world.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
    let kinds: Vec<Kind> = world.frames(mux_key).iter().map(|(header, _)| header.kind).collect();
    assert_eq!(kinds, [Kind::Ping]);
    world.pass(DEFAULT_CONNECT_US + 100_000);
    assert!(world.closed.contains(&mux_key));
    let fresh = world.connected(true);
    world.frame(fresh, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    assert!(world.sent[&client].starts_with(b"HTTP/1.1 204 "));
    let log = String::from_utf8_lossy(world.proxy.log().text()).into_owned();
    assert!(!log.contains("warn"), "no failure of the backend: {log}");
}

/// The payload of a GOAWAY that excludes all streams and reports no error.
const NOTHING_TAKEN: &[u8] = &[0; 8];

#[test]
fn a_refused_request_goes_to_another_backend_and_back_if_that_one_is_gone() {
    let mut world = World::new(2, false);
    let clients = [world.request(), world.request()];
    assert_eq!(world.dials.iter().map(|&(_, slot)| slot).collect::<Vec<_>>(), [0, 1]);
    let (second, _) = world.dials.remove(1);
    let first = world.connected(true);
    world.proxy.connected(second, true);
    world.carry_out();
    world.frame(second, Kind::Settings, 0, 0, &[]);
    world.frames(second);
    world.frame(first, Kind::Goaway, 0, 0, NOTHING_TAKEN);
    let kinds: Vec<Kind> = world.frames(second).iter().map(|(header, _)| header.kind).collect();
    assert_eq!((kinds, world.dials.len()), (vec![Kind::Headers], 0), "it goes where the other is");
    world.frame(second, Kind::Goaway, 0, 0, NOTHING_TAKEN);
    assert_eq!(world.dials.iter().map(|&(_, slot)| slot).collect::<Vec<_>>(), [0, 1], "each has one left to ask");
    let (second, _) = world.dials.remove(1);
    world.proxy.failed(second, Failure::Connect(0));
    world.carry_out();
    let first = world.connected(true);
    for stream in [1, 3] {
        world.frame(first, Kind::Headers, END_HEADERS | END_STREAM, stream, &[0x89]);
    }
    clients.iter().for_each(|key| assert!(world.sent[key].starts_with(b"HTTP/1.1 204 "), "{:?}", world.sent));
}

#[test]
fn a_stream_that_has_nothing_to_send_keeps_no_other_from_it() {
    let mut world = World::new(1, false);
    let upload = "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n";
    world.send(&format!("{upload}12345"));
    let mux_key = world.connected(true);
    // This is SETTINGS_INITIAL_WINDOW_SIZE with the value 10.
    world.frame(mux_key, Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 10]);
    world.send(&format!("{upload}12345678901234567890"));
    let content = |world: &mut World| {
        let sent = |header: &Header| (header.kind == Kind::Data).then_some((header.stream, header.length));
        world.frames(mux_key).iter().filter_map(|(header, _)| sent(header)).collect::<Vec<_>>()
    };
    assert_eq!(content(&mut world), [(1, 5), (3, 10)]);
    let mut updates = Vec::new();
    for stream in [1, 3] {
        frame::window_update(&mut updates, stream, 100);
    }
    world.give(mux_key, &updates);
    assert_eq!(content(&mut world), [(3, 10)]);
}

/// The number of failures counted against backends.
fn failures(world: &mut World) -> u64 {
    let client = world.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    world.pass(0);
    let text = String::from_utf8_lossy(&world.sent[&client]);
    let lines = text.lines().filter(|line| line.starts_with("zzz_lb_failures_total{"));
    lines.map(|line| line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number")).sum()
}

/// Ends the connections of this number of requests with this error. Returns the number of failures that are counted.
fn ended_for(world: &mut World, code: ErrorCode, times: u8) -> u64 {
    let before = failures(world);
    for _ in 0..times {
        let client = world.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let mux_key = world.connected(true);
        // A second GOAWAY changes nothing.
        for _ in 0..2 {
            world.frame(mux_key, Kind::Goaway, 0, 0, &[[0, 0, 0, 1], code.0.to_be_bytes()].concat());
        }
        world.proxy.room(mux_key);
        world.proxy.ended(mux_key);
        world.carry_out();
        assert!(world.sent[&client].starts_with(b"HTTP/1.1 502 "));
    }
    failures(world) - before
}

#[test]
fn a_fault_that_a_request_may_have_is_its_backend_s_where_each_connection_ends_for_it() {
    let mut world = World::new(1, false);
    assert_eq!(ended_for(&mut world, ErrorCode::INTERNAL_ERROR, 3), 3, "what it says of itself");
    assert_eq!(ended_for(&mut world, ErrorCode::PROTOCOL_ERROR, H2_FAULTS - 1), 0);
    assert_eq!(ended_for(&mut world, ErrorCode::ENHANCE_YOUR_CALM, H2_FAULTS - 1), 0, "another fault");
    let served = world.request();
    let mux_key = world.connected(true);
    world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    assert!(world.sent[&served].starts_with(b"HTTP/1.1 204 "));
    world.frame(mux_key, Kind::Goaway, 0, 0, &[0; 8]);
    assert_eq!(ended_for(&mut world, ErrorCode::ENHANCE_YOUR_CALM, H2_FAULTS - 1), 0, "it had served a request");
    assert_eq!(ended_for(&mut world, ErrorCode::ENHANCE_YOUR_CALM, 3), 3);
}

#[test]
fn settings_that_come_late_are_one_failure_however_many_wait_for_them() {
    let mut world = World::new(1, false);
    let first = world.request();
    let (mux_key, _) = world.dials.pop().expect("a connection was asked for");
    world.proxy.connected(mux_key, true);
    world.carry_out();
    let others: Vec<Key> = (0..5).map(|_| world.request()).collect();
    world.pass(DEFAULT_CONNECT_US + 100_000);
    assert_eq!(failures(&mut world), 1);
    others.iter().for_each(|key| assert!(world.sent[key].starts_with(b"HTTP/1.1 504 ")));
    // The backend may still serve its open streams.
    world.frame(mux_key, Kind::Settings, 0, 0, &[]);
    world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    assert!(world.sent[&first].starts_with(b"HTTP/1.1 204 "));
    assert!(world.closed.contains(&mux_key), "it gets no more");
}

#[test]
fn a_connection_that_takes_nothing_is_one_failure_however_many_wait_for_it() {
    let mut world = World::new(1, false);
    let large = format!("X-Big: {}\r\n", "~".repeat(60_000));
    world.request();
    let mux_key = world.connected(true);
    world.stalled.push(mux_key);
    while world.proxy.queued(mux_key).is_none_or(|queue| queue.len() < QUEUE_HIGH_BYTES) {
        world.request_with(&large);
    }
    let others: Vec<Key> = (0..5).map(|_| world.request()).collect();
    world.pass(DEFAULT_CONNECT_US + 100_000);
    assert_eq!(failures(&mut world), 1);
    others.iter().for_each(|key| assert!(world.sent[key].starts_with(b"HTTP/1.1 504 ")));
}

/// SETTINGS_MAX_CONCURRENT_STREAMS with the value 0: the backend accepts no streams for a while.
const NO_STREAMS: &[u8] = &[0, 3, 0, 0, 0, 0];

#[test]
fn a_backend_that_takes_no_streams_for_a_moment_is_waited_for() {
    let mut world = World::new(1, false);
    world.request();
    let mux_key = world.connected(true);
    world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    world.frame(mux_key, Kind::Settings, 0, 0, NO_STREAMS);
    world.frames(mux_key);
    let clients = [world.request(), world.request()];
    let (other, _) = world.dials.pop().expect("one waits, and the other has a connection of its own");
    world.pass(DEFAULT_CONNECT_US / 2);
    assert!(world.frames(mux_key).is_empty());
    world.frame(mux_key, Kind::Settings, 0, 0, &[0, 3, 0, 0, 0, 100]);
    world.frame(mux_key, Kind::Headers, END_HEADERS | END_STREAM, 3, &[0x89]);
    assert!(world.sent[&clients[0]].starts_with(b"HTTP/1.1 204 "));
    world.proxy.connected(other, true);
    world.frame(other, Kind::Settings, 0, 0, &[]);
    world.frame(other, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    assert!(world.sent[&clients[1]].starts_with(b"HTTP/1.1 204 "));
    assert_eq!(failures(&mut world), 0);
}

#[test]
fn a_backend_that_goes_on_taking_no_streams_has_failed_when_the_time_to_connect_is_over() {
    let mut world = World::new(2, false);
    let clients: Vec<Key> = (0..6).map(|_| world.request()).collect();
    let second = world.connected(true);
    let first = world.dials.pop().expect("a connection was asked for").0;
    world.proxy.connected(first, true);
    world.carry_out();
    world.frame(first, Kind::Settings, 0, 0, NO_STREAMS);
    for stream in [1, 3, 5, 7, 9] {
        world.frame(second, Kind::Headers, END_HEADERS | END_STREAM, stream, &[0x89]);
    }
    // One stream was open. The waiting ones are on the other connection.
    let served = |world: &World| clients.iter().filter(|key| world.sent.contains_key(key)).count();
    assert_eq!((served(&world), failures(&mut world)), (5, 0));
    world.frame(first, Kind::Headers, END_HEADERS | END_STREAM, 1, &[0x89]);
    assert_eq!(served(&world), 6);
    let late = [world.request(), world.request()];
    world.frame(second, Kind::Headers, END_HEADERS | END_STREAM, 11, &[0x89]);
    assert_eq!(late.iter().filter(|key| world.sent.contains_key(key)).count(), 1);
    world.pass(DEFAULT_CONNECT_US + 100_000);
    world.frame(second, Kind::Ping, ACK, 0, b"idle now");
    world.frame(second, Kind::Headers, END_HEADERS | END_STREAM, 13, &[0x89]);
    assert_eq!(late.iter().filter(|key| world.sent.contains_key(key)).count(), 2);
    assert_eq!(failures(&mut world), 1);
    assert!(String::from_utf8_lossy(world.proxy.log().text()).contains("allows no HTTP/2 streams"));
}
