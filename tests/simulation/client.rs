//! A virtual client. It sends its script and compares every received byte with its requests: in order, one final
//! response for each request, with the right content, complete or visibly truncated.

use std::collections::VecDeque;

use super::message::{Framing, Head, Piece, Reader, Trailers, are_trailers, trailers};
use super::network::{End, Entry, Net, say};
use super::pattern::{Way, matches};
use super::plan::{ClientPlan, Ending, HALF_CLOSE_US, Misdeed, SECOND_US};
use super::tunnel::{Tunnel, is_proved};

/// The time for which the client holds content back that waits for 100 (Continue).
const PATIENCE_US: u64 = SECOND_US;
/// The time within which an idle connection must end: delays of the network, of a busy shell and of a timer's tick.
const PROMPT_US: u64 = SECOND_US;
/// The time within which a request must be answered if nothing is slower than a scenario's pace.
const ANSWER_US: u64 = 60 * SECOND_US;

/// A request that was sent, at least in part, and not answered completely.
struct Waiting {
    /// The place in the script.
    index: usize,
    /// The time at which its last byte was sent.
    sent_us: Option<u64>,
}

/// The final response that is being read.
struct Reading {
    id: usize,
    /// The delivery that a backend answers; `None` for a reply of the proxy itself.
    delivery: Option<usize>,
    status: u16,
    length: Option<usize>,
    bare: bool,
    chunked: bool,
    got: usize,
    closes: bool,
}

pub(super) struct Client {
    pub(super) link: usize,
    number: usize,
    plan: ClientPlan,
    idle_us: u64,
    /// The request that is being sent, how much of it was sent, and how much of the whole script.
    index: usize,
    at: usize,
    total: usize,
    hold_until_us: Option<u64>,
    may_continue: bool,
    begin_next_us: u64,
    write_us: u64,
    read_us: u64,
    read_total: usize,
    waiting: VecDeque<Waiting>,
    reader: Reader,
    reading: Option<Reading>,
    tunnel: Option<Tunnel>,
    /// The proxy has said that the connection ends, or may end it because of an event.
    may_close: bool,
    misbehaved: bool,
    finished_sending: bool,
    /// The time at which the client ended its direction.
    ended_us: Option<u64>,
    /// The time since which there was nothing to do.
    quiet_us: Option<u64>,
    pub(super) over: bool,
}

/// True if the proxy may answer a request itself with this status. `once`: the client has ended its direction, so a
/// request that a backend may have seen is not sent again.
pub(super) fn is_allowed_reply(net: &Net, id: usize, status: u16, once: bool, misbehaved: bool) -> bool {
    let entry = &net.ledger[id];
    let stale = net.idle_closers && (once || !entry.is_replayable());
    let broken = net.dropping && (once || entry.trailers || entry.connect);
    let refused = net.rationed && (net.idle_closers || net.dropping);
    let full = net.limited && status == 503;
    let unserved = entry.websocket && net.no_connect;
    let lost = net.broke || !net.connectable || broken || stale || refused || unserved;
    let allowed = entry.excused || lost || misbehaved || full;
    allowed && matches!(status, 400..=599)
}

impl Client {
    pub(super) fn new(link: usize, number: usize, plan: ClientPlan, idle_us: u64) -> Client {
        Client {
            link,
            number,
            plan,
            idle_us,
            index: 0,
            at: 0,
            total: 0,
            hold_until_us: None,
            may_continue: false,
            begin_next_us: 0,
            write_us: 0,
            read_us: 0,
            read_total: 0,
            waiting: VecDeque::new(),
            reader: Reader::new(),
            reading: None,
            tunnel: None,
            may_close: false,
            misbehaved: false,
            finished_sending: false,
            ended_us: None,
            quiet_us: None,
            over: false,
        }
    }

    /// Returns the client's state for the report of a stall.
    pub(super) fn state(&self) -> String {
        let waiting: Vec<usize> = self.waiting.iter().map(|one| self.plan.requests[one.index].id).collect();
        format!(
            "client {} (link {}): at request {} of {}, byte {}, waits for {waiting:?}, {:?}, {:?}",
            self.number,
            self.link,
            self.index,
            self.plan.requests.len(),
            self.at,
            self.plan.ending,
            self.plan.misdeed
        )
    }

    /// Reads and writes as much as possible.
    pub(super) fn poll(&mut self, net: &mut Net) {
        if self.over {
            return;
        }
        self.read(net);
        if !self.over {
            self.write(net);
        }
        if !self.over {
            self.rest(net);
        }
    }

    fn is_deaf(&self) -> bool {
        matches!(self.plan.misdeed, Misdeed::Deaf(after) if self.read_total >= after)
    }

    fn read(&mut self, net: &mut Net) {
        while !self.over && net.available(self.link, End::Remote) > 0 {
            if self.is_deaf() {
                self.misbehaved = true;
                return self.ended_if_dead(net);
            }
            if net.now_us < self.read_us {
                return;
            }
            let most = self.plan.read_pace.map_or(usize::MAX, |pace| pace.0);
            let bytes = net.read(self.link, End::Remote, most);
            self.read_total += bytes.len();
            if let Some((_, pause_us)) = self.plan.read_pace {
                self.read_us = net.now_us + pause_us;
                net.tick(self.link, pause_us);
            }
            self.take(net, &bytes);
        }
        let half = net.half(self.link, End::Remote);
        let (fin, reset) = (half.fin, half.reset);
        if reset && !self.over {
            self.connection_ended(net, true);
        } else if let Some(tunnel) = &mut self.tunnel {
            tunnel.go_on(net, self.link, fin);
            if tunnel.over && !tunnel.is_complete() {
                self.tunnel_cut(net);
            }
            self.over |= self.tunnel.as_ref().is_some_and(|tunnel| tunnel.over);
        } else if fin && !self.over {
            self.connection_ended(net, false);
        }
    }

    fn ended_if_dead(&mut self, net: &mut Net) {
        let half = net.half(self.link, End::Remote);
        if half.reset || half.fin {
            self.close(net);
        }
    }

    fn tunnel_cut(&mut self, net: &mut Net) {
        let id = self.waiting.front().map_or(0, |one| self.plan.requests[one.index].id);
        if !net.ledger[id].excused && !self.misbehaved && !net.cut {
            net.fail(format!("tunnel {id}: the client did not get all"));
        }
    }

    fn take(&mut self, net: &mut Net, bytes: &[u8]) {
        if let Some(tunnel) = &mut self.tunnel {
            return tunnel.take(net, bytes);
        }
        self.reader.feed(bytes);
        while !self.over && self.tunnel.is_none() {
            match self.reader.piece() {
                Ok(None) => return,
                Ok(Some(Piece::Head(head))) => self.on_head(net, &head),
                Ok(Some(Piece::Data(data))) => self.on_data(net, &data),
                Ok(Some(Piece::End(trailers))) => self.on_complete(net, &trailers),
                Err(text) => {
                    net.fail(format!("client {} reads {text}", self.number));
                    self.over = true;
                }
            }
        }
    }

    fn on_head(&mut self, net: &mut Net, head: &Head) {
        let Some(status) = head.status() else {
            return net.fail(format!("client {} reads {:?}", self.number, head.start));
        };
        let Some(index) = self.waiting.front().map(|one| one.index) else {
            return net.fail(format!("client {}: a response {status} to nothing", self.number));
        };
        let id = self.plan.requests[index].id;
        say!(net, "client {} reads {status} for {id}", self.number);
        if head.has_hop_fields(false) || status != 101 && status != 426 && head.get("Upgrade").is_some() {
            net.fail(format!("client {}: fields of another connection for {id}: {:?}", self.number, head.fields));
        }
        if status < 200 && status != 101 {
            let entry = &net.ledger[id];
            if entry.old || status == 100 && !entry.expects || head.number("X-Id") != Some(id) {
                net.fail(format!("client {}: {status} for {id}, {:?}", self.number, head.fields));
            }
            self.may_continue |= status == 100 && index == self.index;
            self.reader.again();
            return;
        }
        net.ledger[id].answers += 1;
        if status == 101 {
            let entry = &net.ledger[id];
            if !entry.upgrade || head.number("X-Id") != Some(id) || !is_proved(head, id, entry.websocket) {
                net.fail(format!("client {}: 101 for the tunnel {id}: {head:?}", self.number));
            }
            let mut tunnel = Tunnel::new(id, Way::Up);
            tunnel.take(net, &self.reader.rest());
            self.tunnel = Some(tunnel);
            net.tick(self.link, 0);
            return;
        }
        self.on_final(net, id, status, head, index);
    }

    fn on_final(&mut self, net: &mut Net, id: usize, status: u16, head: &Head, index: usize) {
        let delivery = head.number("X-Id").map(|_| head.number("X-Delivery").unwrap_or(0));
        if head.number("X-Id").is_some_and(|other| other != id) {
            net.fail(format!("client {}: asked {id}, and got the answer to {:?}", self.number, head.get("X-Id")));
        }
        let request = &self.plan.requests[index];
        let entry = &net.ledger[id];
        let old = entry.old;
        let bare = entry.method == "HEAD" || status == 204 || status == 304;
        let closes = head.option("close") || old && !head.option("keep-alive");
        if delivery.is_none() {
            if !is_allowed_reply(net, id, status, self.ended_us.is_some(), self.misbehaved) {
                net.fail(format!("client {}: {status} of the proxy's own for {id}", self.number));
            }
        } else if request.malformed {
            net.fail(format!("client {}: a malformed request was answered by a backend", self.number));
        }
        let framing = match head.framing() {
            Ok(Some(Framing::Chunked)) if old => Err("chunked to HTTP/1.0".into()),
            Ok(None) if !old && !bare => Err("a response without a length to HTTP/1.1".into()),
            framing => framing,
        };
        let framing = match framing {
            Ok(_) if bare => Framing::Length(0),
            Ok(framing) => framing.unwrap_or(Framing::UntilClose),
            Err(text) => return net.fail(format!("client {}, {id}: {text}", self.number)),
        };
        let whole_us = self.waiting.front().and_then(|one| one.sent_us);
        if whole_us.is_none() && !net.ledger[id].early && delivery.is_some() {
            net.fail(format!("client {}: {id} was answered before it was whole", self.number));
        }
        let length = delivery.and(head.number("X-Length"));
        self.reader.body(framing);
        let chunked = framing == Framing::Chunked;
        self.reading = Some(Reading { id, delivery, status, length, bare, chunked, got: 0, closes });
        self.may_close |= closes;
    }

    fn on_data(&mut self, net: &mut Net, data: &[u8]) {
        let Some(reading) = &mut self.reading else { return };
        let wrong = reading.delivery.is_some() && !matches(reading.id, Way::Down, reading.got, data);
        reading.got += data.len();
        if wrong || reading.length.is_some_and(|length| reading.got > length) {
            let text = format!("client {}: wrong content for {} before {}", self.number, reading.id, reading.got);
            net.fail(text);
        }
    }

    fn on_complete(&mut self, net: &mut Net, came: &Trailers) {
        let (Some(reading), Some(one)) = (self.reading.take(), self.waiting.pop_front()) else { return };
        let id = reading.id;
        say!(net, "client {} has all of {} for {id}", self.number, reading.status);
        // A backend that reads no more of an upload after its response ends the client's connection.
        self.may_close |= net.ledger[id].early && reading.delivery.is_some();
        if reading.length.is_some_and(|length| !reading.bare && length != reading.got) {
            net.fail(format!("client {}: {} bytes for {id}, of {:?}", self.number, reading.got, reading.length));
        }
        if reading.delivery.is_some_and(|delivery| net.ledger[id].cut.contains(&delivery)) && !reading.bare {
            net.fail(format!("client {}: the cut response {id} seems complete", self.number));
        }
        if let Some(sent_us) = one.sent_us
            && net.clean
            && net.now_us - sent_us > ANSWER_US
        {
            net.fail(format!("client {}: {id} took {} us", self.number, net.now_us - sent_us));
        }
        let delivery = reading.delivery.filter(|delivery| reading.chunked && net.ledger[id].trailed.contains(delivery));
        let sent = delivery.map_or(Vec::new(), |delivery| trailers(&Entry::tag(id, Some(delivery))));
        if !are_trailers(came, &sent) {
            net.fail(format!("client {}: {id} was answered with the trailers {came:?}, not {sent:?}", self.number));
        }
        self.reader.again();
        if one.sent_us.is_none() {
            // After an early response both the proxy and the client may continue or stop.
            if reading.closes || net.dice.percent(30) {
                self.finished_sending = true;
                self.may_close = true;
            }
        }
        if reading.closes && !self.over {
            self.unanswered_at_the_end(net, id);
            self.close(net);
        } else {
            self.begin_next_us = net.now_us + self.plan.requests.get(self.index).map_or(0, |next| next.pause_us);
        }
    }

    fn close(&mut self, net: &mut Net) {
        net.close(self.link, End::Remote);
        self.over = true;
    }

    /// Handles the end of the proxy's direction or of the connection.
    fn connection_ended(&mut self, net: &mut Net, reset: bool) {
        say!(net, "client {}: the connection ended, reset: {reset}", self.number);
        if self.reading.is_some() && self.reader.ends_by_close() && !reset {
            return self.on_complete(net, &Vec::new());
        }
        if net.cut {
            return self.close(net);
        }
        // A response to HTTP/1.0 that ends with the connection can be truncated only by a reset, as a tunnel can. The reset
        // may destroy the bytes before it.
        let mut entries = self.waiting.iter().map(|one| &net.ledger[self.plan.requests[one.index].id]);
        let cut_old = reset && entries.any(|entry| (entry.old || entry.upgrade) && entry.excused);
        if let Some(tunnel) = &self.tunnel {
            if !tunnel.is_complete() {
                self.tunnel_cut(net);
            }
        } else if let Some(reading) = &self.reading {
            if !net.ledger[reading.id].excused && !self.misbehaved && !cut_old {
                net.fail(format!("client {}: the response to {} is cut for no reason", self.number, reading.id));
            }
        } else if !self.reader.is_between() && !self.misbehaved && !reset {
            net.fail(format!("client {}: half a head", self.number));
        } else if self.ended_us.is_some_and(|ended_us| net.now_us >= ended_us + HALF_CLOSE_US) {
            say!(net, "client {}: given up", self.number);
            for one in &self.waiting {
                // The request needs no response.
                net.ledger[self.plan.requests[one.index].id].begun = false;
            }
        } else if !self.may_close && !self.misbehaved && !cut_old && (reset || !self.waiting.is_empty()) {
            let waiting = self.waiting.front().map(|one| self.plan.requests[one.index].id);
            net.fail(format!("client {}: a silent end instead of the answer to {waiting:?}", self.number));
        }
        if let Some(quiet_us) = self.quiet_us {
            let lasted_us = net.now_us - quiet_us;
            // The rest of an upload that is already answered is offered to its backend for a while.
            let limit_us = match self.plan.ending {
                Ending::HalfClose if self.may_close => HALF_CLOSE_US + PROMPT_US,
                Ending::HalfClose => PROMPT_US,
                _ => self.idle_us + PROMPT_US,
            };
            if lasted_us > limit_us && self.plan.read_pace.is_none() {
                net.fail(format!("client {}: closed {lasted_us} us after its last response", self.number));
            }
        }
        self.close(net);
    }

    /// Handles requests that were sent after a response that ends the connection. They may stay without a response.
    fn unanswered_at_the_end(&mut self, net: &mut Net, id: usize) {
        let unsent = self.plan.requests.len() - self.index;
        let orderly = self.misbehaved || net.draining || !net.clean || net.limited || net.ledger[id].old;
        let said_by_us = self.index > 0 && self.plan.requests[self.index - 1].last;
        if !orderly && (unsent > 0 || !self.waiting.is_empty()) && !said_by_us {
            net.fail(format!("client {}: the proxy ends a connection for no reason", self.number));
        }
        if net.limited {
            // A request for which no backend has room is refused before its content has come, which ends the connection.
            for one in &self.waiting {
                net.ledger[self.plan.requests[one.index].id].begun = false;
            }
        }
    }

    fn write(&mut self, net: &mut Net) {
        while let Some(request) = self.plan.requests.get(self.index) {
            if self.finished_sending || net.now_us < self.write_us || self.tunnel.is_some() {
                return;
            }
            if self.at == 0 {
                // HTTP/1.0 has no pipelining: its connection may end with any response.
                let before = self.waiting.back().filter(|one| one.index != self.index);
                let old = before.is_some_and(|one| net.ledger[self.plan.requests[one.index].id].old);
                if old || before.is_some() && self.waiting.len() >= self.plan.depth {
                    return;
                }
                if self.begin_next_us > net.now_us {
                    let after_us = self.begin_next_us - net.now_us;
                    return net.tick(self.link, after_us);
                }
            }
            let mut most = request.wire.len() - self.at;
            if let Some((pace, _)) = self.plan.write_pace {
                most = most.min(pace);
            }
            if let Some(hold) = request.hold
                && !self.may_continue
            {
                if self.at >= hold {
                    let until_us = *self.hold_until_us.get_or_insert(net.now_us + PATIENCE_US);
                    if net.now_us < until_us {
                        return net.tick(self.link, until_us - net.now_us);
                    }
                } else {
                    most = most.min(hold - self.at);
                }
            }
            if self.misdeed(net, &mut most) {
                return;
            }
            if self.at == 0 && self.waiting.back().is_none_or(|one| one.index != self.index) {
                say!(net, "client {} begins request {}", self.number, self.plan.requests[self.index].id);
                net.ledger[self.plan.requests[self.index].id].begun = true;
                self.waiting.push_back(Waiting { index: self.index, sent_us: None });
            }
            let request = &self.plan.requests[self.index];
            let Some(n) = net.send(self.link, End::Remote, &request.wire[self.at..self.at + most]) else { return };
            self.sent(net, n);
            if n < most {
                return;
            }
        }
    }

    fn sent(&mut self, net: &mut Net, n: usize) {
        self.at += n;
        self.total += n;
        self.write_us = net.pause(self.link, self.plan.write_pace, n).unwrap_or(self.write_us);
        let request = &self.plan.requests[self.index];
        if self.at == request.wire.len() {
            if let Some(one) = self.waiting.iter_mut().find(|one| one.index == self.index) {
                one.sent_us = Some(net.now_us);
            }
            self.finished_sending |= request.last;
            self.index += 1;
            self.at = 0;
            self.hold_until_us = None;
            self.may_continue = false;
            self.begin_next_us = net.now_us + self.plan.requests.get(self.index).map_or(0, |next| next.pause_us);
        }
    }

    /// Commits the planned mistake after that many bytes were sent. Returns true if nothing more is to be sent.
    fn misdeed(&mut self, net: &mut Net, most: &mut usize) -> bool {
        if !self.plan.misdeed.is_due(self.total, most) {
            return false;
        }
        if !self.misbehaved {
            say!(net, "client {}: {:?}", self.number, self.plan.misdeed);
        }
        self.misbehaved = true;
        self.over |= self.plan.misdeed.commit(net, self.link);
        true
    }

    /// True if nothing is left to do except to end.
    fn rest(&mut self, net: &mut Net) {
        let sent = self.finished_sending || self.index == self.plan.requests.len();
        if !sent || self.misbehaved && self.plan.misdeed != Misdeed::None || self.tunnel.is_some() {
            return;
        }
        let upgrade = self.waiting.iter().any(|one| net.ledger[self.plan.requests[one.index].id].upgrade);
        if self.plan.ending == Ending::HalfClose && !upgrade {
            self.ended_us.get_or_insert(net.now_us);
            net.finish(self.link, End::Remote);
        }
        // A request that stops in its middle keeps the proxy waiting for the rest.
        if self.waiting.is_empty() && self.at == 0 && self.quiet_us.is_none() {
            say!(net, "client {} is done: {:?}", self.number, self.plan.ending);
            self.quiet_us = Some(net.now_us);
            if self.plan.ending == Ending::Close {
                self.close(net);
            }
        }
    }
}
