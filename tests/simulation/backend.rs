//! A connection of a virtual backend. It compares every request with the bytes that the client sent, and responds as
//! its plan says.

use std::collections::VecDeque;

use super::message::{Framing, HOP_FIELDS, Head, Piece, Reader, Trailers, are_trailers, trailer_section, trailers};
use super::network::{End, Entry, Net, Sabotage, say};
use super::pattern::{Way, content, matches};
use super::plan::{BackendPlan, Fault, encode_chunked, size};
use super::tunnel::{self, Last, Tunnel, lengths};

/// The next step of a response.
enum Step {
    AwaitRequest,
    Pause(u64),
    Send(Vec<u8>),
    /// One segment, so that nothing comes between.
    SendAtOnce(Vec<u8>),
    Finish,
    Close,
    Reset,
    Halt,
    Tunnel,
    /// A tunnel whose content ends after so many bytes.
    CutTunnel(usize, Last),
    /// The response is complete, and the connection may carry another request.
    Done,
}

/// The request that is being read.
struct Request {
    id: usize,
    got: usize,
    whole: bool,
    /// The key of a WebSocket.
    key: String,
}

pub(super) struct Conversation {
    pub(super) link: usize,
    /// The number of the backend.
    backend: usize,
    plan: BackendPlan,
    reader: Reader,
    request: Option<Request>,
    steps: VecDeque<Step>,
    sent: usize,
    resume_us: u64,
    read_us: u64,
    write_us: u64,
    /// It reads no more.
    deaf: bool,
    /// It has sent more than a response, so it must not be used again.
    spoiled: bool,
    idle_since_us: Option<u64>,
    tunnel: Option<Tunnel>,
    over: bool,
}

impl Conversation {
    pub(super) fn new(link: usize, backend: usize, plan: BackendPlan) -> Conversation {
        Conversation {
            link,
            backend,
            plan,
            reader: Reader::new(),
            request: None,
            steps: VecDeque::new(),
            sent: 0,
            resume_us: 0,
            read_us: 0,
            write_us: 0,
            deaf: false,
            spoiled: false,
            idle_since_us: None,
            tunnel: None,
            over: false,
        }
    }

    pub(super) fn poll(&mut self, net: &mut Net) {
        if self.over {
            return;
        }
        self.read(net);
        self.act(net);
        if self.request.is_none() && !self.over {
            // These bytes arrived while the last bytes of a response left. There may be no content.
            self.take(net, &[]);
            self.act(net);
        }
        self.idle(net);
    }

    fn close(&mut self, net: &mut Net) {
        net.close(self.link, End::Remote);
        self.over = true;
    }

    fn read(&mut self, net: &mut Net) {
        while !self.deaf && !self.over && net.available(self.link, End::Remote) > 0 {
            if net.now_us < self.read_us {
                return;
            }
            let most = self.plan.pace.map_or(usize::MAX, |pace| pace.0);
            let bytes = net.read(self.link, End::Remote, most);
            if let Some((_, pause_us)) = self.plan.pace {
                self.read_us = net.now_us + pause_us;
                net.tick(self.link, pause_us);
            }
            match &mut self.tunnel {
                Some(tunnel) => tunnel.take(net, &bytes),
                None => self.take(net, &bytes),
            }
        }
        let half = net.half(self.link, End::Remote);
        let (fin, reset) = (half.fin, half.reset);
        if reset {
            self.over = true;
        } else if let Some(tunnel) = &mut self.tunnel {
            tunnel.go_on(net, self.link, fin);
            tunnel.check_end(net);
            if tunnel.over {
                self.over = true;
            }
        } else if fin && !self.over {
            // The proxy ends its direction only by closing, except in a tunnel.
            self.close(net);
        }
    }

    fn take(&mut self, net: &mut Net, bytes: &[u8]) {
        self.reader.feed(bytes);
        while !self.over {
            let piece = match self.reader.piece() {
                Ok(Some(piece)) => piece,
                Ok(None) => return,
                Err(text) => {
                    self.over = true;
                    return net.fail(format!("backend {}: {text}", self.backend));
                }
            };
            match piece {
                Piece::Head(head) => self.on_head(net, &head),
                Piece::Data(data) => self.on_data(net, &data),
                Piece::End(trailers) => self.on_end(net, &trailers),
            }
        }
    }

    fn on_head(&mut self, net: &mut Net, head: &Head) {
        self.idle_since_us = None;
        if is_probe(head.get("User-Agent")) {
            net.probes[self.backend] += 1;
            self.reader.body(Framing::Length(0));
            let status = probe_status(net, &self.plan);
            let text = format!("HTTP/1.1 {status} Probed\r\nContent-Length: 0\r\n\r\n");
            self.steps = if status == 0 { [Step::Close].into() } else { [Step::Send(text.into()), Step::Close].into() };
            return;
        }
        let Some(id) = head.number("X-Id").filter(|id| *id < net.ledger.len()) else {
            return net.fail(format!("backend {}: a request of nobody: {head:?}", self.backend));
        };
        net.ledger[id].deliveries += 1;
        let entry = &net.ledger[id];
        say!(net, "backend {} (link {}) reads {id}, delivery {}", self.backend, self.link, entry.deliveries);
        let address = format!("10.0.0.{}", entry.client);
        let right = head.start == format!("{} /r/{id} HTTP/1.1", entry.method)
            && head.get("Host") == Some("sim.example")
            && head.get("X-Forwarded-For") == Some(&address)
            && head.number("X-Size") == Some(entry.size)
            && head.option("upgrade") == entry.upgrade
            && (!entry.websocket || tunnel::asks(head, id, entry.connect))
            && !head.option("close")
            && !head.has_hop_fields(entry.named)
            && head.get("Cookie") == entry.crumbs.then_some("a=1; b=2")
            && head.get("Expect").is_some() == entry.expects;
        if !right {
            net.fail(format!("backend {}: request {id} came as {head:?}", self.backend));
        }
        if net.ledger[id].deliveries > 1 && !net.ledger[id].is_idempotent() {
            net.fail(format!("backend {}: {id}, not idempotent, was delivered twice", self.backend));
        }
        if self.request.is_some() || self.spoiled {
            net.fail(format!("backend {}: {id} on a connection that is not free", self.backend));
        }
        let sends = net.ledger[id].sends();
        match head.framing() {
            Ok(Some(framing)) if sends => self.reader.body(framing),
            Ok(None) if !sends => self.reader.body(Framing::Length(0)),
            framing => net.fail(format!("backend {}: {id} is framed as {framing:?}", self.backend)),
        }
        let key = head.get("Sec-WebSocket-Key").unwrap_or_default().into();
        self.request = Some(Request { id, got: 0, whole: false, key });
        self.plan_response(net, id);
    }

    fn on_data(&mut self, net: &mut Net, data: &[u8]) {
        let Some(request) = &mut self.request else { return };
        if !matches(request.id, Way::Up, request.got, data) {
            net.fail(format!("backend {}: wrong content for {} at {}", self.backend, request.id, request.got));
        }
        request.got += data.len();
    }

    fn on_end(&mut self, net: &mut Net, came: &Trailers) {
        let Some(request) = &mut self.request else { return };
        request.whole = true;
        check_request_trailers(net, request.id, came);
        if request.got != net.ledger[request.id].size {
            net.fail(format!("backend {}: request {} complete with {} bytes", self.backend, request.id, request.got));
        }
        self.again();
    }

    /// Prepares for a further request after this one is read and answered.
    fn again(&mut self) {
        if self.steps.is_empty() && self.request.as_ref().is_some_and(|request| request.whole) {
            self.request = None;
            self.reader.again();
        }
    }

    /// Closes a connection that has been idle long enough.
    fn idle(&mut self, net: &mut Net) {
        let (Some(since_us), Some(idle_us)) = (self.idle_since_us, self.plan.idle_us) else { return };
        if !self.over && self.request.is_none() && net.now_us >= since_us + idle_us {
            say!(net, "backend {} (link {}) closes an idle connection", self.backend, self.link);
            if net.dice.percent(50) {
                net.reset(self.link, End::Remote);
            }
            self.close(net);
        }
    }

    fn act(&mut self, net: &mut Net) {
        while !self.over && net.now_us >= self.resume_us {
            let whole = self.request.as_ref().is_none_or(|request| request.whole);
            match self.steps.front_mut() {
                None => return,
                Some(Step::AwaitRequest) if !whole => return,
                Some(Step::AwaitRequest) => {}
                Some(Step::Pause(pause_us)) => {
                    self.resume_us = net.now_us + *pause_us;
                    net.tick(self.link, *pause_us);
                }
                Some(Step::Send(bytes)) => {
                    if net.now_us < self.write_us {
                        return;
                    }
                    let most = self.plan.pace.map_or(usize::MAX, |pace| pace.0).min(bytes.len() - self.sent);
                    let Some(n) = net.send(self.link, End::Remote, &bytes[self.sent..self.sent + most]) else {
                        self.over = true;
                        return;
                    };
                    self.sent += n;
                    let all = self.sent == bytes.len();
                    self.write_us = net.pause(self.link, self.plan.pace, n).unwrap_or(self.write_us);
                    if n < most {
                        return;
                    }
                    if !all {
                        continue;
                    }
                    self.sent = 0;
                }
                Some(Step::SendAtOnce(bytes)) => {
                    net.send_at_once(self.link, End::Remote, bytes);
                    self.spoiled = true;
                }
                Some(Step::Finish) => net.finish(self.link, End::Remote),
                Some(Step::Close) => return self.close(net),
                Some(Step::Reset) => {
                    net.reset(self.link, End::Remote);
                    self.over = true;
                }
                Some(Step::Halt) => return,
                Some(step @ (Step::Tunnel | Step::CutTunnel(..))) => {
                    let id = self.request.as_ref().map_or(0, |request| request.id);
                    let mut tunnel = Tunnel::new(id, Way::Down);
                    if let Step::CutTunnel(most, last) = *step {
                        tunnel = tunnel.cut(most, last);
                    }
                    tunnel.take(net, &self.reader.rest());
                    self.tunnel = Some(tunnel);
                    net.tick(self.link, 0);
                }
                Some(Step::Done) => {
                    self.steps.clear();
                    self.idle_since_us = Some(net.now_us);
                    if let Some(idle_us) = self.plan.idle_us {
                        net.tick(self.link, idle_us);
                    }
                    return self.again();
                }
            }
            self.steps.pop_front();
        }
    }

    /// Draws a response and its steps.
    fn plan_response(&mut self, net: &mut Net, id: usize) {
        let think_us = net.dice.below(self.plan.think_us as usize + 1) as u64;
        let fault = net.dice.percent(self.plan.fault_percent).then(|| net.dice.pick(&self.plan.faults));
        let steps = match fault {
            None => self.proper(net, id, think_us),
            Some(fault) => {
                say!(net, "backend {} has in store for {id}: {fault:?}", self.backend);
                net.ledger[id].excused = true;
                self.faulty(net, id, fault)
            }
        };
        self.steps = steps.into();
    }

    fn proper(&mut self, net: &mut Net, id: usize, think_us: u64) -> Vec<Step> {
        let mut steps = Vec::new();
        let hop = if net.dice.percent(30) { HOP_FIELDS } else { "" };
        let interim = |status: &str| Step::Send(format!("HTTP/1.1 {status}\r\n{hop}X-Id: {id}\r\n\r\n").into_bytes());
        let entry = &net.ledger[id];
        let (expects, upgrade) = (entry.expects, entry.upgrade);
        if net.dice.percent(if expects { 70 } else { 5 }) {
            steps.push(interim("100 Continue"));
        }
        steps.push(Step::AwaitRequest);
        if net.dice.percent(10) {
            steps.push(interim(net.dice.pick(&["103 Early Hints", "102 Processing", "199 Odd"])));
        }
        if think_us > 0 {
            steps.push(Step::Pause(think_us));
        }
        if upgrade && net.dice.percent(75) {
            let head = self.switching(net, id, net.sabotage != Sabotage::WrongProof);
            steps.extend([Step::Send(head.into_bytes()), Step::Tunnel]);
            return steps;
        }
        let (head, body, way) = response(net, id);
        let ends = matches!(way, Ending::ByClose | Ending::Said);
        let mut bytes = head;
        if net.dice.percent(50) {
            steps.push(Step::Send(std::mem::take(&mut bytes)));
        }
        bytes.extend(body);
        steps.extend([Step::Send(bytes), if ends { Step::Close } else { Step::Done }]);
        steps
    }

    /// Returns the head with which a tunnel begins. `proves`: the handshake of a WebSocket is right.
    fn switching(&self, net: &mut Net, id: usize, proves: bool) -> String {
        let key = self.request.as_ref().map_or("", |request| request.key.as_str());
        let entry = &mut net.ledger[id];
        let delivery = entry.deliveries;
        let kind = match entry.websocket {
            true if proves => format!("websocket\r\nSec-WebSocket-Accept: {}", tunnel::proof(key)),
            true => format!("websocket\r\nSec-WebSocket-Accept: {}", tunnel::proof("another")),
            false => "sim".into(),
        };
        format!(
            "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: {kind}\r\nX-Id: {id}\r\nX-Delivery: {delivery}\r\n\r\n"
        )
    }

    fn faulty(&mut self, net: &mut Net, id: usize, fault: Fault) -> Vec<Step> {
        let mut steps = Vec::new();
        if net.dice.percent(60) && !matches!(fault, Fault::Early) {
            steps.push(Step::AwaitRequest);
        } else {
            net.ledger[id].early = true;
        }
        match fault {
            Fault::CloseInstead => steps.push(Step::Close),
            Fault::ResetInstead => steps.push(Step::Reset),
            Fault::HalfClose => steps.extend([Step::Finish, Step::Halt]),
            Fault::Silence => {
                self.deaf = net.dice.percent(50);
                steps.push(Step::Halt);
            }
            Fault::Garbage => {
                let length = net.dice.between(1, 500);
                steps.extend([Step::Send(content(id + 7, Way::Up, length)), Step::Close]);
            }
            Fault::MalformedHead => {
                // A response without content may have both framings.
                let both = match net.ledger[id].method {
                    "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
                    _ => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                };
                let text = net.dice.pick(&[
                    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
                    both,
                    "HTTP/1.1 200 OK\r\nBad Field: x\r\nContent-Length: 0\r\n\r\n",
                    "HTTP/1.1 2x0 OK\r\n\r\n",
                    "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
                ]);
                steps.extend([Step::Send(text.into()), Step::Halt]);
            }
            Fault::Switch => {
                // If the request offered an upgrade, this is a proper response, except without the proof that the proxy
                // asked for.
                let entry = &mut net.ledger[id];
                if entry.connect {
                    entry.unproved.push(entry.deliveries);
                    return vec![Step::Send(self.switching(net, id, false).into_bytes()), Step::Halt];
                }
                if entry.upgrade {
                    return vec![Step::Close];
                }
                let text = format!("HTTP/1.1 101 Switching\r\nUpgrade: sim\r\nX-Id: {id}\r\n\r\n");
                steps.extend([Step::Send(text.into_bytes()), Step::Halt]);
            }
            Fault::Early => {
                let (head, body, way) = response(net, id);
                let ends = matches!(way, Ending::ByClose | Ending::Said) || net.dice.percent(30);
                self.deaf = ends && net.dice.percent(50);
                // It closes without an announcement, like a backend that closes idle connections.
                net.idle_closers |= ends;
                let last = if ends { Step::Close } else { Step::Done };
                if matches!(way, Ending::ByClose) {
                    // Unread bytes turn the close into a reset, so the response may be truncated.
                    let delivery = net.ledger[id].deliveries;
                    net.ledger[id].cut.retain(|cut| *cut != delivery);
                }
                steps.extend([Step::Send([head, body].concat()), last]);
            }
            Fault::LeftOver => {
                let (head, mut body, way) = response(net, id);
                if matches!(way, Ending::ByClose) {
                    return vec![Step::Close];
                }
                // Nothing can be left over if the request was not read.
                steps.insert(0, Step::AwaitRequest);
                let last = body.split_off(body.len().saturating_sub(10));
                if last.is_empty() {
                    steps.extend([Step::SendAtOnce([&head[..], b"HTTP/1.1 200 OK\r\n"].concat())]);
                } else {
                    steps.push(Step::Send([head, body].concat()));
                    steps.push(Step::SendAtOnce([&last[..], b"HTTP/1.1 200 OK\r\n"].concat()));
                }
                steps.push(Step::Done);
            }
            Fault::CutResponse | Fault::ResetResponse | Fault::Stall => self.cut(net, id, fault, &mut steps),
        }
        steps
    }

    fn cut(&mut self, net: &mut Net, id: usize, fault: Fault, steps: &mut Vec<Step>) {
        if net.ledger[id].websocket && net.dice.percent(60) {
            let delivery = net.ledger[id].deliveries;
            net.ledger[id].cut.push(delivery);
            let most = net.dice.below(lengths(id).1.max(1));
            let last = match fault {
                Fault::Stall => Last::Never,
                _ if net.sabotage == Sabotage::CutAsEnd => Last::AtOnce,
                _ => Last::Reset,
            };
            let head = self.switching(net, id, true);
            return steps.extend([Step::Send(head.into_bytes()), Step::CutTunnel(most, last)]);
        }
        let (head, body, way) = response(net, id);
        let delivery = net.ledger[id].deliveries;
        let mut bytes = [&head[..], &body[..]].concat();
        let kept = if body.is_empty() || net.dice.percent(20) {
            net.dice.below(head.len())
        } else {
            head.len() + net.dice.below(body.len())
        };
        bytes.truncate(kept);
        if kept >= head.len() {
            net.ledger[id].cut.push(delivery);
        }
        steps.push(Step::Send(bytes));
        match fault {
            Fault::Stall => steps.push(Step::Halt),
            // A proper end and a truncation would look the same.
            Fault::CutResponse if !matches!(way, Ending::ByClose) => steps.push(Step::Close),
            _ => steps.push(Step::Reset),
        }
    }
}

/// True if a request with this User-Agent is a probe.
pub(super) fn is_probe(agent: Option<&str>) -> bool {
    agent.is_some_and(|agent| agent.starts_with("load_balancer/"))
}

/// Returns the response of a backend to a probe; 0 for none.
pub(super) fn probe_status(net: &mut Net, plan: &BackendPlan) -> u16 {
    if net.dice.percent(plan.fault_percent) { net.dice.pick(&[500, 0, 503]) } else { 200 }
}

/// Compares the trailers of a request with those that its client sent.
pub(super) fn check_request_trailers(net: &mut Net, id: usize, came: &Trailers) {
    let sent = if net.ledger[id].trailers { trailers(&Entry::tag(id, None)) } else { Vec::new() };
    if !are_trailers(came, &sent) {
        net.fail(format!("request {id} came with the trailers {came:?}"));
    }
}

/// The behaviour of the connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    GoesOn,
    Said,
    ByClose,
}

/// Returns a response: its head, its framed content, and the end of the connection.
fn response(net: &mut Net, id: usize) -> (Vec<u8>, Vec<u8>, Ending) {
    let length = size(&mut net.dice, net.bulky);
    let dice = &mut net.dice;
    let entry = &net.ledger[id];
    let status = dice.pick(&["200 OK", "200 OK", "200 OK", "201 Made", "204 Bare", "304 Same", "404 No", "503 Busy"]);
    let bare = entry.method == "HEAD" || status.starts_with("204") || status.starts_with("304");
    let old = dice.percent(10);
    let mut way = if dice.percent(10) { Ending::Said } else { Ending::GoesOn };
    let mut head = format!(
        "HTTP/1.{} {status}\r\nX-Id: {id}\r\nX-Delivery: {}\r\nX-Length: {length}\r\n",
        u8::from(!old),
        entry.deliveries
    );
    let mut body = if bare { Vec::new() } else { content(id, Way::Down, length) };
    let (named, barred, mut trailed) = (dice.percent(15), dice.percent(30), false);
    let (delivery, tag) = (entry.deliveries, Entry::tag(id, Some(entry.deliveries)));
    if named {
        head.push_str(HOP_FIELDS);
    }
    match dice.below(10) {
        0..5 => {
            if !status.starts_with("204") {
                head.push_str(&format!("Content-Length: {length}\r\n"));
            }
        }
        5..9 if !old => {
            head.push_str("Transfer-Encoding: chunked\r\n");
            if !bare {
                let section = dice.percent(20).then(|| trailer_section(&tag, named, barred));
                body = encode_chunked(dice, &body, section.as_ref());
                // If Connection names fields in a response, no trailers pass.
                trailed = section.is_some() && !named;
            }
        }
        _ if bare => {}
        _ => way = Ending::ByClose,
    }
    match (old, way) {
        (true, Ending::GoesOn) => head.push_str("Connection: keep-alive\r\n"),
        (false, Ending::Said) => head.push_str("Connection: close\r\n"),
        _ => {}
    }
    head.push_str("\r\n");
    if trailed {
        net.ledger[id].trailed.push(delivery);
    }
    // To a client that asked by an extended CONNECT a 2xx would mean a tunnel.
    net.ledger[id].excused |= net.ledger[id].connect && status.starts_with('2');
    (head.into_bytes(), body, way)
}
