//! The machine with backends over HTTP/2, driven by hand where a whole program would take too long, or
//! could not be told what to do when.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::super::*;
use crate::config::Plan;
use crate::http2::frame::{self, END_HEADERS, END_STREAM, HEADER_BYTES, Header, Kind, PREFACE};
use crate::limits::{H2_FRAME_BYTES, H2_GROWTH_BYTES, H2_WINDOW_BYTES, SEEN_US};
use crate::log::Level;

/// A proxy, and what its sockets would have.
struct World {
    proxy: Proxy,
    now_us: u64,
    /// Connections asked for, with their slots.
    dials: Vec<(Key, usize)>,
    closed: Vec<Key>,
    /// What was sent, by connection.
    sent: HashMap<Key, Vec<u8>>,
    /// Connections that take nothing.
    stalled: Vec<Key>,
}

impl World {
    /// Before one backend for each, with HTTP/2 by ALPN where `tls`, else without TLS.
    fn new(backends: u16, tls: bool) -> World {
        let mut plan = Plan::over((0..backends).map(|n| SocketAddr::from(([127, 0, 0, 1], 9000 + n))));
        for member in &mut plan.members {
            member.h2c = !tls;
            member.server_name = if tls { "backend".into() } else { String::new() };
        }
        plan.retry_percent = 1000;
        let now_us = 1_000_000;
        let proxy = Proxy::new(&plan, Shared::private(backends.into()), 0, 1, now_us, Log::new(Level::Debug));
        let (dials, closed, sent, stalled) = (Vec::new(), Vec::new(), HashMap::new(), Vec::new());
        World { proxy, now_us, dials, closed, sent, stalled }
    }

    /// Does what the proxy asks for.
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
                Output::Close(key) | Output::Reset(key) => self.closed.push(key),
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
        self.now_us += us;
        self.proxy.set_clock(self.now_us, self.now_us);
        while self.proxy.next_deadline_us() <= self.now_us {
            self.proxy.expire();
            self.carry_out();
        }
    }

    /// A client that has sent a GET.
    fn request(&mut self) -> Key {
        let client = self.proxy.accept(SocketAddr::from(([127, 0, 0, 1], 5000)));
        self.give(client, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        client
    }

    /// The connection asked for last is established.
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

    /// The frames that were sent on a connection since this was last asked.
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
fn what_a_backend_was_seen_to_speak_is_believed_for_a_while() {
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
    let carrier = world.connected(true);
    world.request();
    assert!(world.dials.is_empty(), "one connection for both");
    // HTTP_1_1_REQUIRED may be said of one resource.
    world.frame(carrier, Kind::RstStream, 0, 1, &[0, 0, 0, 0xd]);
    let (key, _) = world.dials[0];
    assert!(!world.proxy.offers_http2(key));
    world.pass(SEEN_US);
    world.dials.clear();
    world.request();
    let again = |world: &World| world.dials.iter().all(|&(key, _)| world.proxy.offers_http2(key));
    assert!(again(&world), "it goes over HTTP/2 again");
}

#[test]
fn what_slow_clients_hold_is_bounded_when_their_streams_are_over_too() {
    let mut world = World::new(1, false);
    let clients: Vec<Key> = (0..32).map(|_| world.request()).collect();
    let carrier = world.connected(true);
    world.frames(carrier);
    for (n, &client) in clients.iter().enumerate() {
        let stream = 2 * n as u32 + 1;
        world.frame(carrier, Kind::Headers, END_HEADERS, stream, &[0x88]);
        let mut window = H2_WINDOW_BYTES;
        let mut send = |world: &mut World, frames: usize| {
            for _ in 0..frames {
                if window < H2_FRAME_BYTES as u32 {
                    return;
                }
                world.frame(carrier, Kind::Data, 0, stream, &[0; H2_FRAME_BYTES]);
                window -= H2_FRAME_BYTES as u32;
                for (header, payload) in world.frames(carrier) {
                    if header.kind == Kind::WindowUpdate && header.stream == stream {
                        window += u32::from_be_bytes(payload[..4].try_into().unwrap());
                    }
                }
            }
        };
        // A megabyte makes the window as large as it may be; then its client takes no more.
        send(&mut world, 64);
        world.stalled.push(client);
        send(&mut world, usize::MAX);
        world.frame(carrier, Kind::Data, END_STREAM, stream, &[]);
    }
    let held = |world: &World| clients.iter().map(|&key| world.proxy.queued(key).map_or(0, |q| q.len())).sum::<usize>();
    let most = H2_GROWTH_BYTES as usize + clients.len() * (QUEUE_HIGH_BYTES + H2_WINDOW_BYTES as usize);
    assert!(held(&world) <= most, "{} KiB are held", held(&world) >> 10);
    assert!(world.proxy.grown > H2_GROWTH_BYTES / 2, "the windows have grown: {}", world.proxy.grown);
    // One half goes, and the other takes it all.
    for (n, &client) in clients.iter().enumerate() {
        world.stalled.clear();
        if n % 2 == 0 {
            world.proxy.failed(client, Failure::Broken(0));
        } else {
            world.proxy.sent(client, world.proxy.queued(client).map_or(0, |queue| queue.len()));
        }
        world.carry_out();
    }
    assert_eq!((world.proxy.grown, held(&world)), (0, 0));
}
