//! A connection of a virtual backend that speaks HTTP/2. It compares each stream's request with the bytes that the
//! client sent, and responds as the plan says, while other streams are under way.

use std::collections::{BTreeMap, VecDeque};

use zzz_lb::collections::slab::Key;
use zzz_lb::http::head::{Head, HeadRef, Start};
use zzz_lb::http::part::Role;
use zzz_lb::http2::connection::{Connection, Event};
use zzz_lb::http2::frame::{self, Kind};
use zzz_lb::http2::{ErrorCode, Spare};
use zzz_lb::limits::H2_WINDOW_BYTES;

use super::answers::{self, Step, fields, plan_response};
use super::backend::{check_request_trailers, is_probe, probe_status};
use super::message::Trailers;
use super::network::{End, Net, Sabotage, say};
use super::pattern::{Way, content, matches};
use super::plan::BackendPlan;
use super::tunnel::lengths;
use super::wire::{Wire, pad_head};

/// The beginning of a reply to PING.
const PONG: &[u8] = &[0, 0, 8, 6, 1];
/// The number of queued bytes at which no more are made.
const QUEUE_BYTES: usize = 64 * 1024;
/// The time within which bytes arrive that were sent before a GOAWAY.
const GENTLE_US: u64 = 2_000_000;

/// One request and its response.
struct One {
    id: usize,
    /// The bytes of content that have to come.
    size: usize,
    got: usize,
    whole: bool,
    trailers: Trailers,
    /// The proxy ignores further bytes.
    over: bool,
    steps: VecDeque<Step>,
    sent: usize,
    resume_us: u64,
    /// The part of the window that was not announced to the proxy yet.
    window_left: u32,
}

/// A behaviour that most backends do not have.
struct Habits {
    /// It pads its frames.
    pads: bool,
    /// It closes and opens the windows of streams at any time.
    resizes: bool,
    /// It sends more on a stream that the proxy has reset.
    insists: bool,
    /// It loses its replies to PING.
    loses_pings: bool,
}

pub(super) struct Streams {
    link: usize,
    /// The number of the backend.
    backend: usize,
    plan: BackendPlan,
    h2: Connection,
    held: Vec<u8>,
    out: Vec<u8>,
    streams: BTreeMap<u32, One>,
    /// All streams that it has accepted.
    served: Vec<usize>,
    /// The number of requests that it accepts before it sends GOAWAY.
    left: usize,
    window: u32,
    wire: Wire,
    /// The time at which the closed windows of streams open again.
    reopen_us: u64,
    habits: Habits,
    /// The bytes that it has sent on reset streams, which its own account does not contain.
    debt: usize,
    /// The stream that was served last, and whether more was to be served.
    turn: u32,
    more: bool,
    going: bool,
    /// It accepts streams that were on their way before its GOAWAY.
    gentle: bool,
    /// The end of that time.
    going_us: u64,
    idle_since_us: u64,
    read_us: u64,
    write_us: u64,
    over: bool,
}

impl Streams {
    pub(super) fn new(net: &mut Net, link: usize, backend: usize, plan: BackendPlan) -> Streams {
        let mut h2 = Connection::new(Role::Server);
        if plan.takes_connect {
            h2.accept_connect();
        }
        if link.is_multiple_of(4) {
            // The connection's window is small, and does not grow.
            h2.limit_window();
        }
        let mut out = Vec::new();
        h2.greet(&mut out);
        let mut window = 65_535;
        let mut wire = Wire::new(&[H2_WINDOW_BYTES]);
        if net.dice.percent(30) {
            // A few concurrent streams, and small windows.
            let streams = net.dice.between(1, 4) as u32;
            window = net.dice.pick(&[1_u32, 1_000, 65_535]);
            let mut payload = vec![0, 3];
            payload.extend(streams.to_be_bytes());
            payload.extend([0, 4]);
            payload.extend(window.to_be_bytes());
            frame::write(&mut out, Kind::Settings, 0, 0, &payload);
            wire.allow(window);
        }
        let habits = Habits {
            pads: net.dice.percent(25),
            resizes: net.dice.percent(25),
            insists: net.dice.percent(25),
            loses_pings: !net.clean && net.dice.percent(15),
        };
        let gentle = net.clean;
        let parts = net.dice.percent(25) && (!gentle || plan.pace.is_none());
        let left = if parts { net.dice.between(1, 3) } else { usize::MAX };
        // Streams after its GOAWAY are sent again, unless content was sent.
        net.idle_closers |= left != usize::MAX && !gentle;
        net.tick(link, 0);
        let (held, streams) = (Vec::new(), BTreeMap::new());
        let (idle_since_us, over) = (net.now_us, false);
        Streams {
            link,
            backend,
            plan,
            h2,
            held,
            out,
            streams,
            served: Vec::new(),
            left,
            window,
            wire,
            reopen_us: u64::MAX,
            habits,
            debt: 0,
            turn: 0,
            more: false,
            going: false,
            gentle,
            going_us: u64::MAX,
            idle_since_us,
            read_us: 0,
            write_us: 0,
            over,
        }
    }

    pub(super) fn poll(&mut self, net: &mut Net) {
        if self.over {
            return;
        }
        self.read(net);
        if net.now_us >= self.reopen_us {
            self.reopen_us = u64::MAX;
            self.resize(self.window);
        }
        // The streams take turns, a piece at a time, so that none waits for the whole of another.
        loop {
            let mut ids: Vec<u32> = self.streams.keys().copied().collect();
            let at = ids.iter().position(|&id| id > self.turn).unwrap_or(0);
            ids.rotate_left(at);
            self.more = false;
            for id in ids {
                if self.out.len() < QUEUE_BYTES {
                    self.turn = id;
                    self.act(net, id);
                }
            }
            if !self.more || self.out.len() >= QUEUE_BYTES {
                break;
            }
        }
        self.write(net);
        self.idle(net);
    }

    fn read(&mut self, net: &mut Net) {
        while !self.over && net.available(self.link, End::Remote) > 0 && net.now_us >= self.read_us {
            let most = self.plan.pace.map_or(usize::MAX, |pace| pace.0);
            let bytes = net.read(self.link, End::Remote, most);
            if let Some((_, pause_us)) = self.plan.pace {
                self.read_us = net.now_us + pause_us;
                net.tick(self.link, pause_us);
            }
            if let Err(text) = self.wire.read(&bytes) {
                return net.fail(format!("backend {} (link {}): {text}", self.backend, self.link));
            }
            self.held.extend(bytes);
            self.take(net);
        }
        let half = net.half(self.link, End::Remote);
        if half.reset {
            self.over = true;
        } else if half.fin && !self.over {
            net.close(self.link, End::Remote);
            self.over = true;
        }
    }

    fn take(&mut self, net: &mut Net) {
        let (mut head, mut arena) = (Head::default(), Vec::new());
        while !self.over {
            let queued = self.out.len();
            let (skip, event) = match self.h2.decode(&self.held, &mut head, &mut arena, &mut self.out) {
                Ok(decoded) => decoded,
                Err(error) => return net.fail(format!("backend {}: {error}", self.backend)),
            };
            self.held.drain(..skip);
            if self.habits.loses_pings && self.out[queued..].starts_with(PONG) {
                say!(net, "backend {} (link {}) loses the answer to a PING", self.backend, self.link);
                self.out.truncate(queued);
            }
            self.h2.credit(0, &mut self.out);
            match event {
                Event::NeedMore => return,
                Event::Opened(id) => {
                    self.h2.own(id, Key::from_token(id.into()));
                    self.open(net, id, HeadRef { bytes: &arena, head: &head });
                }
                Event::Data(owner, n) => {
                    let data: Vec<u8> = self.held.drain(..n).collect();
                    let Some(id) = owner.map(|key| key.index() as u32) else { continue };
                    self.h2.delivered(id, n, Some(Spare { free: 0, lent: u32::MAX }), &mut Vec::new());
                    let Some(one) = self.streams.get_mut(&id) else { continue };
                    // The part of the window that was held back at first is announced bit by bit.
                    let more = one.window_left.min(2 * n as u32);
                    one.window_left -= more;
                    frame::window_update(&mut self.out, id, n as u32 + more);
                    if net.sabotage != Sabotage::StrayCredit {
                        self.wire.credit(id, n as u32 + more);
                    }
                    if !matches(one.id, Way::Up, one.got, &data) {
                        let what = if net.ledger[one.id].websocket { "the tunnel " } else { "" };
                        net.fail(format!(
                            "backend {}: wrong content for {what}{} at {}",
                            self.backend, one.id, one.got
                        ));
                    }
                    one.got += n;
                }
                Event::Trailers(key) => {
                    let Some(one) = self.streams.get_mut(&(key.index() as u32)) else { continue };
                    let section = HeadRef { bytes: &arena, head: &head };
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    one.trailers = section.fields().map(|(_, name, value)| (text(name), text(value))).collect();
                }
                Event::End(key) => {
                    let Some(one) = self.streams.get_mut(&(key.index() as u32)) else { continue };
                    one.whole = true;
                    check_request_trailers(net, one.id, &one.trailers);
                    say!(net, "backend {} (link {}) has all of {}", self.backend, self.link, one.id);
                    if one.got != one.size {
                        net.fail(format!("backend {}: {} complete with {} bytes", self.backend, one.id, one.got));
                    }
                }
                Event::Reset(key, _) => self.given_up(net, key.index() as u32),
                Event::Malformed(..) | Event::Unheard(..) | Event::Head(_) | Event::Interim(_) => {
                    net.fail(format!("backend {}: {event:?}", self.backend));
                }
                Event::GoAway(code) if code != ErrorCode::NO_ERROR && !net.ledger.iter().any(|one| one.excused) => {
                    net.fail(format!("backend {}: the proxy gave up: {code}", self.backend));
                }
                _ => {}
            }
        }
    }

    fn open(&mut self, net: &mut Net, stream: u32, head: HeadRef<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields: Vec<(String, String)> = head.fields().map(|(_, name, value)| (text(name), text(value))).collect();
        let get = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        if is_probe(get("user-agent")) {
            net.probes[self.backend] += 1;
            return match probe_status(net, &self.plan) {
                0 => _ = self.h2.forget(stream, ErrorCode::INTERNAL_ERROR, &mut self.out),
                status => {
                    let block = answers::fields(&[(":status", &status.to_string())]);
                    self.h2.write_fields(stream, &block, true, &mut self.out);
                }
            };
        }
        let id = get("x-id").and_then(|id| id.parse().ok()).filter(|id: &usize| *id < net.ledger.len());
        let Some(id) = id else {
            return net.fail(format!("backend {}: a request of nobody: {fields:?}", self.backend));
        };
        let refuses = match self.gentle {
            true => self.going,
            false => self.going || self.left == 0 || net.ledger[id].deliveries == 0 && net.dice.percent(2),
        };
        if refuses {
            // Nothing of a refused request is kept.
            say!(net, "backend {} (link {}) refuses {id}", self.backend, self.link);
            if self.gentle {
                net.fail(format!("backend {}: {id} came {GENTLE_US} us after GOAWAY", self.backend));
            } else if self.left != 0 {
                net.idle_closers = true;
                self.h2.forget(stream, ErrorCode::REFUSED_STREAM, &mut self.out);
            }
            return;
        }
        if self.habits.resizes && self.reopen_us == u64::MAX && net.dice.percent(40) {
            say!(net, "backend {} (link {}) closes the windows of streams for a while", self.backend, self.link);
            self.resize(0);
            let after_us = net.dice.between(1, 400_000) as u64;
            self.reopen_us = net.now_us + after_us;
            net.tick(self.link, after_us);
        }
        self.left = self.left.saturating_sub(1);
        self.served.push(id);
        net.ledger[id].deliveries += 1;
        let entry = &net.ledger[id];
        say!(
            net,
            "backend {} (link {}, stream {stream}) reads {id}, delivery {}",
            self.backend,
            self.link,
            entry.deliveries
        );
        let Start::Request { path, protocol, .. } = head.head.start else { return };
        let protocol = protocol.map(|span| text(head.get(span)));
        let method = if entry.websocket { "CONNECT" } else { entry.method };
        let right = head.method() == method.as_bytes()
            && protocol.as_deref() == entry.websocket.then_some("websocket")
            && (!entry.websocket || self.plan.takes_connect)
            && get("sec-websocket-key").is_none()
            && text(head.get(path)) == format!("/r/{id}")
            && head.authority() == Some(b"sim.example")
            && get("x-forwarded-for") == Some(&format!("10.0.0.{}", entry.client))
            && get("x-size") == Some(&entry.size.to_string())
            && get("expect").is_some() == entry.expects
            && get("cookie") == entry.crumbs.then_some("a=1; b=2")
            && ["connection", "keep-alive", "proxy-connection", "x-hop"].into_iter().all(|name| get(name).is_none())
            && get("te").is_none_or(|value| value == "trailers")
            && (entry.size > 0 || !head.head.ended || !entry.expects);
        if !right {
            net.fail(format!("backend {}: request {id} came as {fields:?}", self.backend));
        }
        if net.ledger[id].deliveries > 1 && !net.ledger[id].is_idempotent() {
            net.fail(format!("backend {}: {id}, not idempotent, was delivered twice", self.backend));
        }
        let steps = plan_response(net, self.backend, &self.plan, id).into();
        let entry = &net.ledger[id];
        let size = if entry.switched.contains(&entry.deliveries) { lengths(id).0 } else { entry.size };
        self.streams.insert(
            stream,
            One {
                id,
                size,
                got: 0,
                whole: false,
                trailers: Vec::new(),
                over: false,
                steps,
                sent: 0,
                resume_us: 0,
                window_left: 65_535 - self.window,
            },
        );
        if self.left == 0 && self.gentle {
            // Streams on their way are accepted too (RFC 9113, 6.8).
            if self.going_us == u64::MAX {
                say!(net, "backend {} (link {}) says that it will take no more", self.backend, self.link);
                frame::goaway(&mut self.out, frame::MAX_31, ErrorCode::NO_ERROR);
                self.going_us = net.now_us + GENTLE_US;
                net.tick(self.link, GENTLE_US);
            }
        } else if self.left == 0 {
            // Accepted streams are answered.
            say!(net, "backend {} (link {}) takes no more", self.backend, self.link);
            self.h2.farewell(ErrorCode::NO_ERROR, &mut self.out);
        }
    }

    /// Handles a reset of a stream that the backend may not know yet.
    fn given_up(&mut self, net: &mut Net, stream: u32) {
        let Some(one) = self.streams.remove(&stream) else { return };
        if !self.habits.insists || one.over || self.debt > 1_000 {
            return;
        }
        if net.dice.percent(30) {
            frame::fields(&mut self.out, stream, &fields(&[(":status", "200")]), false, 16_384);
        }
        for _ in 0..net.dice.below(4) {
            let bytes = content(one.id, Way::Down, 100);
            frame::write(&mut self.out, Kind::Data, 0, stream, &bytes);
            self.debt += bytes.len();
        }
    }

    /// Changes the size of the streams' windows.
    fn resize(&mut self, window: u32) {
        let mut payload = vec![0, 4];
        payload.extend(window.to_be_bytes());
        frame::write(&mut self.out, Kind::Settings, 0, 0, &payload);
        self.wire.allow(window);
    }

    fn act(&mut self, net: &mut Net, id: u32) {
        while !self.over && self.out.len() < QUEUE_BYTES {
            let Some(one) = self.streams.get_mut(&id) else { return };
            if net.now_us < one.resume_us {
                return;
            }
            match one.steps.front_mut() {
                None => {
                    if one.whole || one.over {
                        self.streams.remove(&id);
                        self.idle_since_us = net.now_us;
                        self.plan.idle_us.into_iter().for_each(|idle_us| net.tick(self.link, idle_us));
                    }
                    return;
                }
                Some(Step::AwaitRequest) if !one.whole => return,
                Some(Step::AwaitRequest) => {}
                Some(Step::Pause(pause_us)) => {
                    one.resume_us = net.now_us + *pause_us;
                    net.tick(self.link, *pause_us);
                }
                Some(Step::Fields(block, end)) => {
                    let from = self.out.len();
                    self.h2.write_fields(id, block, *end, &mut self.out);
                    if self.habits.pads && net.dice.percent(50) {
                        pad_head(&mut self.out, from, net.dice.pick(&[0, 1, 100, 255]));
                    }
                }
                Some(Step::Data(bytes, end)) => {
                    let (bytes, end) = (&bytes[one.sent..], *end);
                    self.h2.line_up(id);
                    let mut room = 0;
                    while let Some((next, _, most)) = self.h2.next_in_line() {
                        room = if next == id { most } else { room };
                    }
                    room = room.saturating_sub(self.debt);
                    let most = room.min(net.dice.pick(&[1, 1000, 16_384, 16_384]));
                    let padding = if self.habits.pads { net.dice.pick(&[0, 0, 1, 100, 256]).min(most / 2) } else { 0 };
                    let n = bytes.len().min(most - padding);
                    if n == 0 && !bytes.is_empty() {
                        return;
                    }
                    let all = n == bytes.len();
                    let Some(mut header) = self.h2.data(id, n + padding, end && all) else { return };
                    if padding > 0 {
                        header[4] |= frame::PADDED;
                    }
                    self.out.extend_from_slice(&header);
                    self.out.extend((padding > 0).then_some(padding.saturating_sub(1) as u8));
                    self.out.extend_from_slice(&bytes[..n]);
                    self.out.extend(std::iter::repeat_n(0, padding.saturating_sub(1)));
                    one.sent += n;
                    if !all {
                        self.more = true;
                        return;
                    }
                    one.sent = 0;
                }
                Some(Step::Give(code)) => {
                    self.h2.forget(id, *code, &mut self.out);
                    one.over = true;
                }
                Some(Step::Halt) => return,
                Some(Step::Garbage(bytes)) => {
                    self.out.append(bytes);
                    self.doom(net);
                }
                Some(Step::Close) => return self.end(net, false),
                Some(Step::Reset) => return self.end(net, true),
            }
            if let Some(one) = self.streams.get_mut(&id) {
                one.steps.pop_front();
            }
        }
    }

    /// Notes that requests here may fail, and that requests on their way here meet a closed connection.
    fn doom(&mut self, net: &mut Net) {
        net.idle_closers = true;
        net.broke = true;
        // Answered requests may not have been sent completely.
        self.served.iter().for_each(|&id| net.ledger[id].excused = true);
        for one in self.streams.values().filter(|one| !one.steps.is_empty()) {
            let delivery = net.ledger[one.id].deliveries;
            net.ledger[one.id].cut.push(delivery);
        }
    }

    fn end(&mut self, net: &mut Net, reset: bool) {
        self.doom(net);
        if reset {
            net.reset(self.link, End::Remote);
        } else {
            net.close(self.link, End::Remote);
        }
        self.over = true;
    }

    fn write(&mut self, net: &mut Net) {
        if self.over || self.out.is_empty() || net.now_us < self.write_us {
            return;
        }
        let most = self.plan.pace.map_or(usize::MAX, |pace| pace.0).min(self.out.len());
        let Some(n) = net.send(self.link, End::Remote, &self.out[..most]) else {
            self.over = true;
            return;
        };
        if net.sabotage != Sabotage::StrayCredit {
            self.wire.sends(&self.out[..n]);
        }
        self.out.drain(..n);
        if let Some(write_us) = net.pause(self.link, self.plan.pace, n) {
            self.write_us = write_us;
        } else if n == most && n > 0 {
            // There was room for everything, so more may be made.
            net.tick(self.link, 0);
        }
    }

    /// Closes a connection that has been idle long enough, or is done.
    fn idle(&mut self, net: &mut Net) {
        if self.over || !self.streams.is_empty() || !self.out.is_empty() {
            return;
        }
        if self.gentle && net.now_us >= self.going_us {
            self.going = true;
        }
        if self.going || self.left == 0 && !self.gentle {
            net.close(self.link, End::Remote);
            self.over = true;
        } else if !self.served.is_empty()
            && self.plan.idle_us.is_some_and(|idle_us| net.now_us >= self.idle_since_us + idle_us)
        {
            say!(net, "backend {} (link {}) closes an idle connection", self.backend, self.link);
            self.h2.farewell(ErrorCode::NO_ERROR, &mut self.out);
            (self.going, self.left) = (true, 0);
            self.write(net);
        }
    }
}
