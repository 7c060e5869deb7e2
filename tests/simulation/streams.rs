//! A virtual backend's connection that speaks HTTP/2: each stream's request is held against what the
//! client sent, and answered with what the plan has in store, while others are under way.

use std::collections::{BTreeMap, VecDeque};

use zzz_lb::collections::slab::Key;
use zzz_lb::hpack;
use zzz_lb::http::head::{Head, HeadRef, Start};
use zzz_lb::http::part::Role;
use zzz_lb::http2::ErrorCode;
use zzz_lb::http2::connection::{Connection, Event};
use zzz_lb::http2::frame::{self, Kind};

use super::network::{End, Net, say};
use super::pattern::{Way, content, matches};
use super::plan::{BackendPlan, Fault, size};

/// Bytes to send at which no more are made.
const QUEUE_BYTES: usize = 64 * 1024;
/// How long what is sent before GOAWAY has come may take to arrive.
const GENTLE_US: u64 = 2_000_000;

/// What is done next on a stream.
enum Step {
    AwaitRequest,
    Pause(u64),
    /// A block of fields, and whether it ends the stream.
    Fields(Vec<u8>, bool),
    /// Content, and whether it ends the stream.
    Data(Vec<u8>, bool),
    Give(ErrorCode),
    Halt,
    /// What follows is no more HTTP/2.
    Garbage(Vec<u8>),
    Close,
    Reset,
}

/// One request and what becomes of it.
struct One {
    id: usize,
    got: usize,
    whole: bool,
    /// Nobody listens to what more comes.
    over: bool,
    steps: VecDeque<Step>,
    sent: usize,
    resume_us: u64,
    /// How much of its window the proxy was not told of.
    window_left: u32,
}

pub(super) struct Streams {
    link: usize,
    slot: usize,
    plan: BackendPlan,
    h2: Connection,
    held: Vec<u8>,
    out: Vec<u8>,
    streams: BTreeMap<u32, One>,
    /// All that it has taken.
    served: Vec<usize>,
    /// Requests taken until it says that it takes no more.
    left: usize,
    window: u32,
    /// Which stream was served last, and whether there was more to serve.
    turn: u32,
    more: bool,
    going: bool,
    /// It takes back nothing that it has let be sent.
    gentle: bool,
    /// When that is over.
    going_us: u64,
    idle_since_us: u64,
    read_us: u64,
    write_us: u64,
    over: bool,
}

impl Streams {
    pub(super) fn new(net: &mut Net, link: usize, slot: usize, plan: BackendPlan) -> Streams {
        let h2 = Connection::new(Role::Server);
        let mut out = Vec::new();
        h2.greet(&mut out);
        let mut window = 65_535;
        if net.dice.percent(30) {
            // A few streams at once, and small windows.
            let streams = net.dice.between(1, 4) as u32;
            window = net.dice.pick(&[1_u32, 1_000, 65_535]);
            let mut payload = vec![0, 3];
            payload.extend(streams.to_be_bytes());
            payload.extend([0, 4]);
            payload.extend(window.to_be_bytes());
            frame::write(&mut out, Kind::Settings, 0, 0, &payload);
        }
        let gentle = net.clean;
        let parts = net.dice.percent(25) && (!gentle || plan.pace.is_none());
        let left = if parts { net.dice.between(1, 3) } else { usize::MAX };
        // What comes after it has said so is asked for again, unless content was sent.
        net.idle_closers |= left != usize::MAX && !gentle;
        net.tick(link, 0);
        let (held, streams) = (Vec::new(), BTreeMap::new());
        let (idle_since_us, over) = (net.now_us, false);
        Streams {
            link,
            slot,
            plan,
            h2,
            held,
            out,
            streams,
            served: Vec::new(),
            left,
            window,
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
        // Each in its turn, a piece at a time, so that none waits for all of another's.
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
            let (skip, event) = match self.h2.decode(&self.held, &mut head, &mut arena, &mut self.out) {
                Ok(decoded) => decoded,
                Err(error) => return net.fail(format!("backend {}: {error}", self.slot)),
            };
            self.held.drain(..skip);
            match event {
                Event::NeedMore => return,
                Event::Opened(id) => {
                    self.h2.own(id, Key::from_token(id.into()));
                    self.open(net, id, HeadRef { bytes: &arena, head: &head });
                }
                Event::Data(owner, n) => {
                    let data: Vec<u8> = self.held.drain(..n).collect();
                    let Some(id) = owner.map(|key| key.index() as u32) else { continue };
                    self.h2.delivered(id, n, Some(u32::MAX), &mut self.out);
                    let Some(one) = self.streams.get_mut(&id) else { continue };
                    // What was kept back of the window at first is given bit by bit.
                    let more = one.window_left.min(2 * n as u32);
                    one.window_left -= more;
                    frame::window_update(&mut self.out, id, more);
                    if !matches(one.id, Way::Up, one.got, &data) {
                        net.fail(format!("backend {}: wrong content for {} at {}", self.slot, one.id, one.got));
                    }
                    one.got += n;
                }
                Event::End(key) => {
                    let Some(one) = self.streams.get_mut(&(key.index() as u32)) else { continue };
                    one.whole = true;
                    say!(net, "backend {} (link {}) has all of {}", self.slot, self.link, one.id);
                    if one.got != net.ledger[one.id].size {
                        net.fail(format!("backend {}: {} complete with {} bytes", self.slot, one.id, one.got));
                    }
                }
                Event::Reset(key, _) => drop(self.streams.remove(&(key.index() as u32))),
                Event::Malformed(..) | Event::Unheard(..) | Event::Head(_) | Event::Interim(_) => {
                    net.fail(format!("backend {}: {event:?}", self.slot));
                }
                Event::GoAway(code) if code != ErrorCode::NO_ERROR && !net.ledger.iter().any(|one| one.excused) => {
                    net.fail(format!("backend {}: the proxy gave up: {code}", self.slot));
                }
                _ => {}
            }
        }
    }

    fn open(&mut self, net: &mut Net, stream: u32, head: HeadRef<'_>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields: Vec<(String, String)> = head.fields().map(|(_, name, value)| (text(name), text(value))).collect();
        let get = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let id = get("x-id").and_then(|id| id.parse().ok()).filter(|id: &usize| *id < net.ledger.len());
        let Some(id) = id else { return net.fail(format!("backend {}: a request of nobody: {fields:?}", self.slot)) };
        let refuses = match self.gentle {
            true => self.going,
            false => self.going || self.left == 0 || net.ledger[id].deliveries == 0 && net.dice.percent(2),
        };
        if refuses {
            // Of no request that was refused is anything kept.
            say!(net, "backend {} (link {}) refuses {id}", self.slot, self.link);
            if self.gentle {
                net.fail(format!("backend {}: {id} came {GENTLE_US} us after GOAWAY", self.slot));
            } else if self.left != 0 {
                net.idle_closers = true;
                self.h2.forget(stream, ErrorCode::REFUSED_STREAM, &mut self.out);
            }
            return;
        }
        self.left = self.left.saturating_sub(1);
        self.served.push(id);
        net.ledger[id].deliveries += 1;
        let entry = &net.ledger[id];
        say!(
            net,
            "backend {} (link {}, stream {stream}) reads {id}, delivery {}",
            self.slot,
            self.link,
            entry.deliveries
        );
        let Start::Request { path, .. } = head.head.start else { return };
        let right = head.method() == entry.method.as_bytes()
            && text(head.get(path)) == format!("/r/{id}")
            && head.authority() == Some(b"sim.example")
            && get("x-forwarded-for") == Some(&format!("10.0.0.{}", entry.client))
            && get("x-size") == Some(&entry.size.to_string())
            && get("expect").is_some() == entry.expects
            && (entry.size > 0 || !head.head.ended || !entry.expects);
        if !right {
            net.fail(format!("backend {}: request {id} came as {fields:?}", self.slot));
        }
        if net.ledger[id].deliveries > 1 && net.ledger[id].method == "POST" {
            net.fail(format!("backend {}: POST {id} was delivered twice", self.slot));
        }
        let steps = self.plan_response(net, id).into();
        self.streams.insert(
            stream,
            One {
                id,
                got: 0,
                whole: false,
                over: false,
                steps,
                sent: 0,
                resume_us: 0,
                window_left: 65_535 - self.window,
            },
        );
        if self.left == 0 && self.gentle {
            // What is on its way is taken too (RFC 9113, 6.8).
            if self.going_us == u64::MAX {
                say!(net, "backend {} (link {}) says that it will take no more", self.slot, self.link);
                frame::goaway(&mut self.out, frame::MAX_31, ErrorCode::NO_ERROR);
                self.going_us = net.now_us + GENTLE_US;
                net.tick(self.link, GENTLE_US);
            }
        } else if self.left == 0 {
            // What was taken is answered.
            say!(net, "backend {} (link {}) takes no more", self.slot, self.link);
            self.h2.farewell(ErrorCode::NO_ERROR, &mut self.out);
        }
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
                Some(Step::Fields(block, end)) => self.h2.write_fields(id, block, *end, &mut self.out),
                Some(Step::Data(bytes, end)) => {
                    let (bytes, end) = (&bytes[one.sent..], *end);
                    self.h2.line_up(id);
                    let mut room = 0;
                    while let Some((next, _, most)) = self.h2.next_in_line() {
                        room = if next == id { most } else { room };
                    }
                    let n = room.min(bytes.len()).min(net.dice.pick(&[1, 1000, 16_384, 16_384]));
                    if n == 0 && !bytes.is_empty() {
                        return;
                    }
                    let all = n == bytes.len();
                    let Some(header) = self.h2.data(id, n, end && all) else { return };
                    self.out.extend_from_slice(&header);
                    self.out.extend_from_slice(&bytes[..n]);
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

    /// What is under way here may fail, and what is on its way here meets a closed connection.
    fn doom(&mut self, net: &mut Net) {
        net.idle_closers = true;
        net.broke = true;
        // What has been answered may not have been sent.
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
        self.out.drain(..n);
        if let Some((pace, pause_us)) = self.plan.pace
            && n > 0
        {
            let pause_us = pause_us * n as u64 / pace as u64;
            self.write_us = net.now_us + pause_us;
            net.tick(self.link, pause_us);
        } else if n == most && n > 0 {
            // There was room for all of it, and more may be made.
            net.tick(self.link, 0);
        }
    }

    /// Closes a connection that has been idle long enough, or is done with.
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
            say!(net, "backend {} (link {}) closes an idle connection", self.slot, self.link);
            self.h2.farewell(ErrorCode::NO_ERROR, &mut self.out);
            (self.going, self.left) = (true, 0);
            self.write(net);
        }
    }

    /// Draws what the answer is, and how it comes.
    fn plan_response(&mut self, net: &mut Net, id: usize) -> Vec<Step> {
        let fault = net.dice.percent(self.plan.fault_percent).then(|| net.dice.pick(&self.plan.faults));
        let mut steps = Vec::new();
        if net.ledger[id].expects && net.dice.percent(70) {
            steps.push(Step::Fields(fields(&[(":status", "100"), ("x-id", &id.to_string())]), false));
        }
        let early = matches!(fault, Some(Fault::Early));
        if early {
            net.ledger[id].early = true;
        } else if fault.is_none() || net.dice.percent(60) {
            steps.push(Step::AwaitRequest);
        } else {
            net.ledger[id].early = true;
        }
        if net.dice.percent(10) {
            steps.push(Step::Fields(fields(&[(":status", "103"), ("x-id", &id.to_string())]), false));
        }
        let think_us = net.dice.below(self.plan.think_us as usize + 1) as u64;
        if think_us > 0 {
            steps.push(Step::Pause(think_us));
        }
        if let Some(fault) = fault {
            say!(net, "backend {} has in store for {id}: {fault:?}", self.slot);
            net.ledger[id].excused = true;
        }
        match fault {
            None | Some(Fault::Early) => {
                steps.extend(response(net, id));
                if early && net.dice.percent(50) {
                    // The rest of the request is not wanted.
                    steps.push(Step::Give(ErrorCode::NO_ERROR));
                }
            }
            Some(Fault::Silence | Fault::HalfClose) => steps.push(Step::Halt),
            Some(Fault::CloseInstead) => steps.push(Step::Close),
            Some(Fault::ResetInstead) => steps.push(Step::Reset),
            Some(Fault::Switch) => steps.push(Step::Fields(fields(&[(":status", "101")]), false)),
            Some(Fault::MalformedHead) => {
                let text = net.dice.pick(&["transfer-encoding", "connection", "Upper", "a b", ":path", ""]);
                let mut block = fields(&[(":status", "200")]);
                block.extend([0, text.len() as u8]);
                block.extend_from_slice(text.as_bytes());
                block.extend([1, b'x']);
                steps.extend([Step::Fields(block, false), Step::Halt]);
            }
            Some(Fault::Garbage) => {
                let length = net.dice.between(20, 500);
                steps.extend([Step::Garbage(content(id + 7, Way::Up, length)), Step::Close]);
            }
            Some(Fault::LeftOver) if net.ledger[id].method == "HEAD" => steps.push(Step::Halt),
            Some(Fault::LeftOver) => {
                // Less content than was announced.
                let (number, delivery) = (id.to_string(), net.ledger[id].deliveries);
                let list =
                    [(":status", "200"), ("x-id", &number), ("x-delivery", &delivery.to_string()), ("x-length", "10")];
                let block = fields(&[&list[..], &[("content-length", "10")]].concat());
                steps.extend([Step::Fields(block, false), Step::Data(content(id, Way::Down, 5), true)]);
                net.ledger[id].cut.push(delivery);
            }
            Some(Fault::CutResponse | Fault::ResetResponse | Fault::Stall) => {
                let mut whole = response(net, id).into_iter();
                let delivery = net.ledger[id].deliveries;
                if let (Some(head @ Step::Fields(_, false)), Some(Step::Data(mut body, _))) =
                    (whole.next(), whole.next())
                {
                    net.ledger[id].cut.push(delivery);
                    body.truncate(net.dice.below(body.len()));
                    steps.extend([head, Step::Data(body, false)]);
                }
                steps.push(match fault {
                    Some(Fault::Stall) => Step::Halt,
                    Some(Fault::ResetResponse) => Step::Give(ErrorCode::INTERNAL_ERROR),
                    _ => Step::Close,
                });
            }
        }
        steps
    }
}

fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    list.iter().for_each(|(name, value)| hpack::encode(&mut block, name.as_bytes(), value.as_bytes()));
    block
}

/// A proper response.
fn response(net: &mut Net, id: usize) -> Vec<Step> {
    let length = size(&mut net.dice, net.bulky).max(1);
    let dice = &mut net.dice;
    let entry = &net.ledger[id];
    let status = dice.pick(&["200", "200", "200", "201", "204", "304", "404", "503", "299"]);
    let bare = entry.method == "HEAD" || status == "204" || status == "304";
    let (number, text, delivery) = (id.to_string(), length.to_string(), entry.deliveries.to_string());
    let mut list = vec![(":status", status), ("x-id", &number), ("x-delivery", &delivery), ("x-length", &text)];
    if status != "204" && dice.percent(50) {
        list.push(("content-length", &text));
    }
    let block = fields(&list);
    if bare {
        return vec![Step::Fields(block, true)];
    }
    let body = content(id, Way::Down, length);
    match dice.below(3) {
        0 => vec![Step::Fields(block, false), Step::Data(body, true)],
        1 => vec![Step::Fields(block, false), Step::Data(body, false), Step::Data(Vec::new(), true)],
        _ => {
            vec![Step::Fields(block, false), Step::Data(body, false), Step::Fields(fields(&[("x-trailer", "a")]), true)]
        }
    }
}
