//! A virtual client that speaks HTTP/2. It opens streams at once, sends content and credit in odd pieces, gives streams
//! up, and compares every received byte with its requests. On each stream it accepts one final response, with the right
//! content, complete or reset. `odd` has the frames that its requests do not need.

mod odd;

use std::collections::{BTreeMap, VecDeque};

use super::h2_frames::{self, Encoder, FRAME_BYTES, Frame, Frames, INITIAL_WINDOW_SIZE, MOST, NO_ERROR, PREFACE};
use super::h2_plan::{Goodbye, Http2Plan, When};
use super::h2_stream::{Facts, Response, Sending, Stream};
use super::network::{End, Net, say};
use super::pattern::{Way, content};
use super::plan::{Ending, HALF_CLOSE_US, Misdeed, SECOND_US};
use super::wire::{Wire, pad_head};

/// The time for which the client holds content back that waits for 100 (Continue).
const PATIENCE_US: u64 = SECOND_US;
/// The time within which an idle connection must end: delays of the network, of a busy shell and of a timer's tick.
const PROMPT_US: u64 = SECOND_US;
/// The number of queued bytes at which no more are made.
const QUEUE_BYTES: usize = 20_000;
/// The window that each side begins with.
const FIRST_WINDOW: u32 = 65_535;

pub(super) struct Http2Client {
    link: usize,
    number: usize,
    plan: Http2Plan,
    idle_us: u64,
    frames: Frames,
    encoder: Encoder,
    wire: Wire,
    streams: BTreeMap<u32, Stream>,
    /// The number of streams that were opened, which is also the place in the script.
    opened: usize,
    begin_next_us: u64,
    out: Vec<u8>,
    /// The number of bytes that were sent, and that were read.
    total: usize,
    read_total: usize,
    write_us: u64,
    read_us: u64,
    /// The bytes that the proxy lets the client send on the connection, and on a new stream.
    window: i64,
    stream_window: i64,
    /// The bytes that have arrived and are not credited to the connection.
    due: u32,
    /// The time at which the normal windows of streams return.
    reopen_us: u64,
    chatter: usize,
    pings: VecDeque<[u8; 8]>,
    /// The last stream that the proxy serves, once it has said so.
    last: Option<u32>,
    said_goodbye: bool,
    misbehaved: bool,
    /// It sends nothing any more.
    silent: bool,
    /// The time at which the client ended its direction.
    ended_us: Option<u64>,
    /// The time since which there was nothing to do.
    quiet_us: Option<u64>,
    pub(super) over: bool,
}

impl Http2Client {
    pub(super) fn new(link: usize, number: usize, plan: Http2Plan, idle_us: u64) -> Http2Client {
        let (mut out, mut frames) = (PREFACE.to_vec(), Frames::new());
        let mut settings = vec![0, 2, 0, 0, 0, 0];
        settings.extend(INITIAL_WINDOW_SIZE.to_be_bytes());
        settings.extend(plan.window.to_be_bytes());
        h2_frames::write(&mut out, h2_frames::SETTINGS, 0, 0, &settings);
        frames.told(None);
        let mut wire = Wire::of_server(&[plan.window]);
        if plan.growth > 0 {
            h2_frames::write(&mut out, h2_frames::WINDOW_UPDATE, 0, 0, &plan.growth.to_be_bytes());
            wire.credit(0, plan.growth);
        }
        Http2Client {
            link,
            number,
            plan,
            idle_us,
            frames,
            encoder: Encoder::new(),
            wire,
            streams: BTreeMap::new(),
            opened: 0,
            begin_next_us: 0,
            out,
            total: 0,
            read_total: 0,
            write_us: 0,
            read_us: 0,
            window: FIRST_WINDOW.into(),
            stream_window: FIRST_WINDOW.into(),
            due: 0,
            reopen_us: u64::MAX,
            chatter: 0,
            pings: VecDeque::new(),
            last: None,
            said_goodbye: false,
            misbehaved: false,
            silent: false,
            ended_us: None,
            quiet_us: None,
            over: false,
        }
    }

    /// Returns the client's state for the report of a stall.
    pub(super) fn state(&self) -> String {
        let open = self.streams.iter().filter(|(_, stream)| !stream.is_over());
        let open: Vec<String> = open
            .map(|(number, one)| {
                let id = one.request.id;
                format!("{number} ({id}): {:?}, {} sent, {:?}, {} got", one.sending, one.sent, one.response, one.got)
            })
            .collect();
        format!(
            "client {} (link {}): {} of {} requests, {} bytes queued, {open:?}, {:?}, {:?}",
            self.number,
            self.link,
            self.opened,
            self.plan.requests.len(),
            self.out.len(),
            self.plan.ending,
            self.plan.misdeed
        )
    }

    fn facts(&self, net: &Net) -> Facts {
        let is_late = self.ended_us.is_some_and(|ended_us| net.now_us >= ended_us + HALF_CLOSE_US);
        Facts { client: self.number, misbehaved: self.misbehaved, has_ended: self.ended_us.is_some(), is_late }
    }

    /// Reads and writes as much as possible.
    pub(super) fn poll(&mut self, net: &mut Net) {
        if self.over {
            return;
        }
        self.read(net);
        if !self.over && self.can_send() {
            self.make(net);
            self.write(net);
        }
        if !self.over {
            self.rest(net);
        }
    }

    fn can_send(&self) -> bool {
        !self.silent && self.ended_us.is_none()
    }

    fn read(&mut self, net: &mut Net) {
        while !self.over && net.available(self.link, End::Remote) > 0 {
            if matches!(self.plan.misdeed, Misdeed::Deaf(after) if self.read_total >= after) {
                self.misbehaved = true;
                let half = net.half(self.link, End::Remote);
                if half.reset || half.fin {
                    self.close(net);
                }
                return;
            }
            if net.now_us < self.read_us {
                return;
            }
            let most = self.plan.read_pace.map_or(usize::MAX, |pace| pace.0);
            let bytes = net.read(self.link, End::Remote, most);
            self.read_total += bytes.len();
            if let Some((most, pause_us)) = self.plan.read_pace {
                // Credit for other streams is behind the content, so the whole must not take too long.
                let pause_us = pause_us * bytes.len() as u64 / most as u64;
                self.read_us = net.now_us + pause_us;
                net.tick(self.link, pause_us);
            }
            self.take(net, &bytes);
        }
        let half = net.half(self.link, End::Remote);
        if (half.reset || half.fin) && !self.over {
            self.connection_ended(net, half.reset);
        }
    }

    fn take(&mut self, net: &mut Net, bytes: &[u8]) {
        if self.misbehaved && self.total < PREFACE.len() {
            // The proxy does not know the protocol of a part of the preface, and says in HTTP/1 that the rest is late.
            return;
        }
        self.frames.feed(bytes);
        let read = self.wire.read(bytes);
        let read = read.and_then(|()| {
            while let Some(frame) = self.frames.next()? {
                self.on_frame(net, frame)?;
            }
            Ok(())
        });
        if let Err(text) = read {
            net.fail(format!("client {} (link {}): {text}", self.number, self.link));
            self.over = true;
        }
    }

    fn on_frame(&mut self, net: &mut Net, frame: Frame) -> Result<(), String> {
        let facts = self.facts(net);
        let unknown = |stream: u32| format!("a frame on stream {stream}, which was not opened");
        match frame {
            Frame::Data { stream, bytes, length, end } => {
                self.due += length as u32;
                let one = self.streams.get_mut(&stream).ok_or_else(|| unknown(stream))?;
                one.due += length as u32;
                if matches!(one.response, Response::Over) {
                    // The content was queued before the stream was given up, and the connection is not idle before it
                    // has left.
                    self.quiet_us = self.quiet_us.map(|_| net.now_us);
                }
                one.on_data(net, facts, &bytes, end);
                self.answered(net, stream);
            }
            Frame::Fields { stream, fields, end } => {
                let one = self.streams.get_mut(&stream).ok_or_else(|| unknown(stream))?;
                one.on_fields(net, facts, &fields, end);
                self.answered(net, stream);
            }
            Frame::Reset(stream, code) => {
                let one = self.streams.get_mut(&stream).ok_or_else(|| unknown(stream))?;
                if self.last.is_none() && code == h2_frames::REFUSED_STREAM && !self.misbehaved && one.is_wanted() {
                    return Err(format!("stream {stream} is refused for no reason"));
                }
                one.on_reset(net, facts, code);
            }
            Frame::Window(0, bytes) => {
                self.window += i64::from(bytes);
                if self.window > MOST.into() {
                    return Err(format!("a window of {}", self.window));
                }
            }
            Frame::Window(stream, bytes) => {
                let one = self.streams.get_mut(&stream).ok_or_else(|| unknown(stream))?;
                one.window += i64::from(bytes);
                if one.window > MOST.into() {
                    return Err(format!("a window of {}", one.window));
                }
            }
            Frame::Settings(window) => {
                let window = window.map_or(self.stream_window, i64::from);
                let change = window - self.stream_window;
                self.stream_window = window;
                self.streams.values_mut().for_each(|one| one.window += change);
                h2_frames::write(&mut self.out, h2_frames::SETTINGS, h2_frames::ACK, 0, &[]);
            }
            Frame::SettingsAck => {}
            Frame::Ping(payload) => h2_frames::write(&mut self.out, h2_frames::PING, h2_frames::ACK, 0, &payload),
            Frame::Pong(payload) if self.pings.pop_front() != Some(payload) => {
                return Err(format!("a PING is acknowledged that was not sent: {payload:?}"));
            }
            Frame::Pong(_) => {}
            Frame::GoAway { last, code } => self.on_goaway(net, last, code)?,
        }
        Ok(())
    }

    /// Decides about the rest of a request that is answered early. Both sides may go on or stop.
    fn answered(&mut self, net: &mut Net, number: u32) {
        let Some(one) = self.streams.get_mut(&number) else { return };
        let is_answered = matches!(one.response, Response::Complete) && !one.is_tunnel;
        if is_answered && one.sending == Sending::Content && net.dice.percent(30) {
            one.sending = Sending::Reset;
            if !self.silent && self.ended_us.is_none() {
                let code = net.dice.pick(&[NO_ERROR, h2_frames::CANCEL]);
                h2_frames::write(&mut self.out, h2_frames::RST_STREAM, 0, number, &code.to_be_bytes());
            }
        }
    }

    fn on_goaway(&mut self, net: &mut Net, last: u32, code: u32) -> Result<(), String> {
        say!(net, "client {}: GOAWAY {code}, and stream {last} is the last one", self.number);
        if self.last.is_some_and(|before| last > before) {
            return Err(format!("a GOAWAY with the last stream {last} after {:?}", self.last));
        }
        self.last = Some(last);
        let idle = self.quiet_us.is_some();
        if !self.misbehaved && (code != NO_ERROR || !net.draining && !idle && !net.cut) {
            return Err(format!("a GOAWAY with the code {code} for no reason"));
        }
        let facts = self.facts(net);
        for (_, one) in self.streams.iter_mut().filter(|(number, one)| **number > last && one.is_wanted()) {
            one.refused(net, facts);
        }
        Ok(())
    }

    fn close(&mut self, net: &mut Net) {
        net.close(self.link, End::Remote);
        self.over = true;
    }

    /// Handles the end of the proxy's direction or of the connection.
    fn connection_ended(&mut self, net: &mut Net, reset: bool) {
        say!(net, "client {}: the connection ended, reset: {reset}", self.number);
        if net.cut || self.misbehaved {
            return self.close(net);
        }
        if !self.frames.is_between() && !reset {
            net.fail(format!("client {}: half a frame", self.number));
        }
        let unanswered = self.streams.values().find(|one| one.is_wanted()).map(|one| one.request.id);
        if let Some(id) = unanswered {
            net.fail(format!("client {}: a silent end instead of the answer to {id}", self.number));
        }
        let may_end = self.last.is_some() || self.ended_us.is_some() || self.said_goodbye;
        if !may_end || self.opened < self.plan.requests.len() && self.last.is_none() {
            net.fail(format!("client {}: the proxy ends a connection for no reason", self.number));
        }
        if let Some(quiet_us) = self.quiet_us {
            let lasted_us = net.now_us - quiet_us;
            let ends = self.plan.ending == Ending::HalfClose || self.said_goodbye;
            let limit_us = if ends { HALF_CLOSE_US + PROMPT_US } else { self.idle_us + PROMPT_US };
            if lasted_us > limit_us && self.plan.read_pace.is_none() {
                net.fail(format!("client {}: closed {lasted_us} us after its last response", self.number));
            }
            if !ends && !net.draining && self.window < i64::from(FIRST_WINDOW / 2) {
                net.fail(format!("client {}: {} bytes of the window are left", self.number, self.window));
            }
        }
        self.close(net);
    }

    /// Makes frames while there is something to send.
    fn make(&mut self, net: &mut Net) {
        self.cancel_due(net);
        self.give_credit(net);
        self.resize(net);
        self.chat(net);
        while self.out.len() < QUEUE_BYTES {
            let now_us = net.now_us;
            let ready = |one: &Stream, window: i64, size: usize| {
                let room = one.sent == size || window > 0 && one.window > 0;
                one.sending == Sending::Content && now_us >= one.hold_until_us && room
            };
            let sendable = self.streams.iter().filter(|(_, one)| {
                let size = one.size(net);
                ready(one, self.window, size) && (one.sent < size || !one.waits(net))
            });
            let mut choices: Vec<u32> = sendable.map(|(&number, _)| number).collect();
            // 0 opens a stream.
            choices.extend(self.may_open(net).then_some(0));
            if choices.is_empty() {
                return;
            }
            match net.dice.pick(&choices) {
                0 => self.open(net),
                number => self.send_piece(net, number),
            }
        }
    }

    fn may_open(&self, net: &mut Net) -> bool {
        let is_last = self.opened == self.plan.requests.len();
        let going = self.last.is_some_and(|last| last < MOST || !self.plan.habits.insists);
        let open = self.streams.values().filter(|one| !one.is_over()).count();
        if is_last || going || open >= self.plan.most {
            return false;
        }
        if net.now_us < self.begin_next_us {
            net.tick(self.link, self.begin_next_us - net.now_us);
            return false;
        }
        true
    }

    fn open(&mut self, net: &mut Net) {
        let request = self.plan.requests[self.opened].clone();
        let number = self.opened as u32 * 2 + 1;
        self.opened += 1;
        self.begin_next_us = net.now_us + self.plan.requests.get(self.opened).map_or(0, |next| next.pause_us);
        say!(net, "client {} opens stream {number} for {}", self.number, request.id);
        let entry = &mut net.ledger[request.id];
        // The response to a malformed request may be a reset.
        entry.begun = !request.malformed;
        let holds = entry.expects;
        let is_empty = entry.size == 0 && request.trailers.is_empty() && !entry.connect;
        // Some clients send into a tunnel before it has begun.
        let hastens = !entry.connect || request.id.is_multiple_of(2);
        let block = self.encoder.encode(&mut net.dice, &request.fields);
        self.write_fields(net, number, &block, request.is_bare);
        if let Some((When::After(after_us), _)) = request.cancel {
            net.tick(self.link, after_us);
        }
        let hold_until_us = match holds {
            true => net.now_us + PATIENCE_US,
            false if hastens => 0,
            false => u64::MAX,
        };
        if holds {
            net.tick(self.link, PATIENCE_US);
        }
        self.streams.insert(
            number,
            Stream {
                sending: if request.is_bare { Sending::Ended } else { Sending::Content },
                sent_us: (request.is_bare || is_empty).then_some(net.now_us),
                request,
                response: Response::Awaited,
                is_tunnel: false,
                sent: 0,
                got: 0,
                window: self.stream_window,
                due: 0,
                opened_us: net.now_us,
                hold_until_us,
            },
        );
    }

    fn write_fields(&mut self, net: &mut Net, number: u32, block: &[u8], end: bool) {
        let from = self.out.len();
        let pieces = net.dice.between(1, self.plan.habits.pieces);
        h2_frames::write_block(&mut self.out, number, block, end, pieces);
        if self.plan.habits.pads && net.dice.percent(50) {
            pad_head(&mut self.out, from, net.dice.pick(&[0, 1, 100, 255]));
        }
    }

    /// Sends a piece of a stream's content, or its end.
    fn send_piece(&mut self, net: &mut Net, number: u32) {
        let Some(one) = self.streams.get_mut(&number) else { return };
        let (size, waits) = (one.size(net), one.waits(net));
        let room = self.window.min(one.window).max(0) as usize;
        let most = room.min(FRAME_BYTES).min(net.dice.pick(&[1, 1000, FRAME_BYTES, FRAME_BYTES]));
        // The length of the padding is a byte of the frame too.
        let pads = self.plan.habits.pads && most > 300 && net.dice.percent(50);
        let padding = if pads { net.dice.pick(&[1, 2, 101, 256]) } else { 0 };
        // Padding alone would use up the window of a small upload if it were not credited.
        let wastes = pads && one.request.id.is_multiple_of(3) && one.sent < 400;
        let (padding, most) = if wastes { (256, 257) } else { (padding, most) };
        let n = (size - one.sent).min(most - padding);
        let all = one.sent + n == size;
        let trails = !one.request.trailers.is_empty();
        let ends = all && !trails && !waits && (n == 0 || net.dice.percent(60));
        if n > 0 || ends {
            let mut payload: Vec<u8> = (padding > 0).then_some(padding.saturating_sub(1) as u8).into_iter().collect();
            payload.extend_from_slice(&content(one.request.id, Way::Up, one.sent + n)[one.sent..]);
            payload.extend(std::iter::repeat_n(0, padding.saturating_sub(1)));
            let flags = if ends { h2_frames::END_STREAM } else { 0 } | if padding > 0 { h2_frames::PADDED } else { 0 };
            h2_frames::write(&mut self.out, h2_frames::DATA, flags, number, &payload);
            one.sent += n;
            one.window -= (n + padding) as i64;
            self.window -= (n + padding) as i64;
        } else {
            let trailers = std::mem::take(&mut one.request.trailers);
            let block = self.encoder.encode(&mut net.dice, &trailers);
            self.write_fields(net, number, &block, true);
        }
        let Some(one) = self.streams.get_mut(&number) else { return };
        let over = ends || trails && one.request.trailers.is_empty();
        if over || all && !trails {
            // A backend may know the length of the content, and need no end.
            one.sent_us = one.sent_us.or(Some(net.now_us));
        }
        if over {
            one.sending = Sending::Ended;
        }
    }

    fn write(&mut self, net: &mut Net) {
        if self.out.is_empty() || net.now_us < self.write_us {
            return;
        }
        let mut most = self.plan.write_pace.map_or(usize::MAX, |pace| pace.0).min(self.out.len());
        if self.misdeed(net, &mut most) {
            return;
        }
        let Some(n) = net.send(self.link, End::Remote, &self.out[..most]) else { return };
        self.out.drain(..n);
        self.total += n;
        if let Some(write_us) = net.pause(self.link, self.plan.write_pace, n) {
            self.write_us = write_us;
        } else if n == most && n > 0 {
            // There was room for everything, so more may be made.
            net.tick(self.link, 0);
        }
    }

    /// Commits the planned mistake after that many bytes were sent. Returns true if nothing more is to be sent.
    fn misdeed(&mut self, net: &mut Net, most: &mut usize) -> bool {
        if !self.plan.misdeed.is_due(self.total, most) {
            return false;
        }
        say!(net, "client {}: {:?}", self.number, self.plan.misdeed);
        (self.misbehaved, self.silent) = (true, true);
        self.over |= self.plan.misdeed.commit(net, self.link);
        true
    }

    /// Says goodbye and ends, as the plan says, if nothing is left to do.
    fn rest(&mut self, net: &mut Net) {
        let opened = self.opened == self.plan.requests.len() || self.last.is_some() && !self.plan.habits.insists;
        let opened = opened || self.last.is_some_and(|last| last < MOST);
        if !opened || self.misbehaved || !self.can_send() {
            return;
        }
        let sent = self.streams.values().all(|one| one.sending != Sending::Content);
        let done = self.streams.values().all(Stream::is_over);
        let goodbye = match self.plan.goodbye {
            Goodbye::None => false,
            Goodbye::AfterRequests => true,
            Goodbye::AfterResponses => done,
        };
        if goodbye && !self.said_goodbye {
            self.said_goodbye = true;
            h2_frames::write(&mut self.out, h2_frames::GOAWAY, 0, 0, &[0; 8]);
            self.write(net);
        }
        if !self.out.is_empty() || self.reopen_us != u64::MAX {
            return;
        }
        if done && self.quiet_us.is_none() {
            say!(net, "client {} is done: {:?}", self.number, self.plan.ending);
            self.quiet_us = Some(net.now_us);
        }
        match self.plan.ending {
            Ending::Close if done => self.close(net),
            Ending::HalfClose if sent => {
                self.ended_us = Some(net.now_us);
                net.finish(self.link, End::Remote);
                net.tick(self.link, 0);
            }
            _ => {}
        }
    }
}
