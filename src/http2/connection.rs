//! One HTTP/2 connection, in either role: bytes go in, events come out, and frames that answer
//! others are appended to `out`. Streams are known by number on the wire and by their owner's key
//! to everybody else.
//!
//! Reading is between frames, or within the content of a DATA frame, which is told as it comes;
//! every other frame is looked at when it is whole. A block of fields is put together before it is
//! read. A stream is in `streams` from its first frame until it is closed or forgotten; frames for
//! one that is not are answered as RFC 9113, 5.1, has it.
//!
//! Invariants: `streams` is in the order of the numbers; what the streams' windows may have us hold is
//! bounded by `H2_STREAMS`, `H2_WINDOW_BYTES` and what the owner lets them grow by; content is credited
//! to the connection when it comes and to its stream when it is delivered; padding with none at once.

use std::collections::VecDeque;

use super::budget::Budget;
use super::frame::{self, ErrorCode, HEADER_BYTES, Header, Kind, MAX_31, PREFACE};
use super::receive::{Block, Reading};
use super::settings::{self, FIRST_WINDOW, Settings};
use super::stream::{State, Stream};
use crate::collections::slab::Key;
use crate::hpack::{self, Decoder};
use crate::http::message_error::MessageError;
use crate::http::part::Role;
use crate::limits::{H2_CONNECTION_WINDOW_BYTES, H2_FRAME_BYTES, H2_TABLE_BYTES};

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing yet: more bytes are needed.
    NeedMore,
    /// A frame that nobody else has to know of.
    Nothing,
    /// A request on a stream that nobody owns yet, which `own` is for; its head.
    Opened(u32),
    /// The head of a final response.
    Head(Key),
    /// The head of a 1xx response.
    Interim(Key),
    /// The trailer section.
    Trailers(Key),
    /// Content: this many bytes from here on, which are the caller's to pass over.
    Data(Option<Key>, usize),
    /// The end of a message.
    End(Key),
    /// The peer gave a stream up; it is forgotten.
    Reset(Key, ErrorCode),
    /// A message is malformed. Its stream is there still.
    Malformed(Key, MessageError),
    /// A request is, on a stream that nobody owns.
    Unheard(u32, MessageError),
    /// More may be sent, or more streams opened.
    Room,
    /// The peer takes no more streams, and looks at none that `unprocessed` gives.
    GoAway(ErrorCode),
    /// The answer to our PING.
    Pong,
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Connection {
    pub(super) role: Role,
    pub(super) decoder: Decoder,
    pub(super) reading: Reading,
    pub(super) block: Option<Block>,
    /// Blocks of fields that were complete.
    pub(super) blocks: u64,
    pub(super) streams: Vec<Stream>,
    /// Streams with something to send, in turn.
    pub(super) line: VecDeque<u32>,
    /// The number that our next stream gets; 0 where there can be no more.
    pub(super) next: u32,
    /// The greatest number of the peer's streams.
    pub(super) last: u32,
    pub(super) peer: Settings,
    /// The peer's settings have come.
    pub(super) ready: bool,
    pub(super) send_window: i64,
    pub(super) receive_window: u32,
    pub(super) received: u32,
    /// The peer has said that it takes no more, after this stream.
    pub(super) goaway: Option<u32>,
    /// The last stream of the peer that is served, once a GOAWAY of ours has said so.
    pub(super) last_served: Option<u32>,
    /// A PING of ours is not answered yet.
    pub(super) pinged: bool,
    pub(super) budget: Budget,
}

impl Connection {
    /// A connection on which nothing has come or gone.
    pub fn new(role: Role) -> Connection {
        let client = role == Role::Client;
        Connection {
            role,
            decoder: Decoder::new(H2_TABLE_BYTES),
            reading: if client { Reading::Frame } else { Reading::Preface },
            block: None,
            blocks: 0,
            streams: Vec::new(),
            line: VecDeque::new(),
            next: if client { 1 } else { 2 },
            last: 0,
            peer: Settings::FIRST,
            ready: false,
            send_window: FIRST_WINDOW.into(),
            receive_window: H2_CONNECTION_WINDOW_BYTES,
            received: 0,
            goaway: None,
            last_served: None,
            pinged: false,
            budget: Budget::new(),
        }
    }

    /// Writes what we begin with (RFC 9113, 3.4).
    pub fn greet(&self, out: &mut Vec<u8>) {
        let client = self.role == Role::Client;
        if client {
            out.extend_from_slice(PREFACE);
        }
        settings::write_ours(out, client);
        frame::window_update(out, 0, H2_CONNECTION_WINDOW_BYTES - FIRST_WINDOW);
    }

    /// Says what time it is, in microseconds, before what has come by then is decoded.
    pub fn set_clock(&mut self, now_us: u64) {
        self.budget.refill(now_us);
    }

    /// How many streams are open.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// How many streams the peer lets us have open at once.
    pub fn capacity(&self) -> usize {
        self.peer.streams as usize
    }

    /// The largest list of fields that the peer takes, each counted with 32 bytes more.
    pub fn list_limit(&self) -> usize {
        self.peer.list as usize
    }

    /// Whether the peer has said what it allows.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The number of the block of fields that is incomplete, where one is; `rest` is what was not decoded.
    pub fn incomplete_block(&self, rest: &[u8]) -> Option<u64> {
        let begun =
            || self.reading == Reading::Frame && Header::read(rest).is_some_and(|one| one.kind == Kind::Headers);
        (self.block.is_some() || begun()).then_some(self.blocks)
    }

    /// Whether a PING of ours is not answered yet.
    pub fn is_pinged(&self) -> bool {
        self.pinged
    }

    /// Whether what the peer may send, and what it was not told yet that it may, are the whole window of the
    /// connection: content is credited to the connection when it comes.
    pub fn holds_its_window(&self) -> bool {
        self.receive_window + self.received == H2_CONNECTION_WINDOW_BYTES
    }

    /// Whether no stream can ever be opened again.
    pub fn is_spent(&self) -> bool {
        self.goaway.is_some() || self.next == 0
    }

    /// Whether a stream can be opened now. Before the peer has spoken there is one at most, as
    /// nobody knows yet how many it allows.
    pub fn can_open(&self) -> bool {
        let most = if self.ready { self.capacity() } else { 1 };
        !self.is_spent() && !self.pinged && self.streams.len() < most
    }

    /// The owners of all open streams.
    pub fn owners(&self) -> impl Iterator<Item = Key> {
        self.streams.iter().filter_map(|stream| stream.owner)
    }

    /// The owners of streams that the peer has not looked at, after its GOAWAY.
    pub fn unprocessed(&self) -> impl Iterator<Item = Key> {
        let last = self.goaway.unwrap_or(MAX_31);
        self.streams.iter().filter(move |stream| stream.id > last).filter_map(|stream| stream.owner)
    }

    /// Opens a stream; its number, which `None` is where `can_open` is false.
    pub fn open(&mut self, owner: Key) -> Option<u32> {
        if !self.can_open() {
            return None;
        }
        let id = self.next;
        self.next = if id >= MAX_31 - 1 { 0 } else { id + 2 };
        let mut stream = Stream::new(id, State::Idle, self.peer.window);
        stream.owner = Some(owner);
        self.streams.push(stream);
        Some(id)
    }

    /// Says whose a stream is that the peer has opened.
    pub fn own(&mut self, id: u32, owner: Key) {
        if let Some(stream) = self.stream(id) {
            stream.owner = Some(owner);
        }
    }

    /// Writes the block of fields of a message; `end`: nothing follows.
    pub fn write_fields(&mut self, id: u32, block: &[u8], end: bool, out: &mut Vec<u8>) {
        let max = (self.peer.frame as usize).min(H2_FRAME_BYTES);
        let Some(stream) = self.stream(id).filter(|stream| stream.state.can_send()) else { return };
        stream.state = stream.state.after_sent(end);
        if std::mem::take(&mut self.peer.table_shrunk) {
            // Nothing of ours is in a table, but its owner waits to be told so (RFC 9113, 4.3.1).
            let mut resized = Vec::with_capacity(block.len() + 1);
            hpack::table_size(&mut resized, 0);
            resized.extend_from_slice(block);
            frame::fields(out, id, &resized, end, max);
        } else {
            frame::fields(out, id, block, end, max);
        }
        self.sent_end(id, end);
    }

    /// A stream has something to send, or its end.
    pub fn line_up(&mut self, id: u32) {
        if let Some(stream) = self.stream(id)
            && stream.state.can_send()
            && !std::mem::replace(&mut stream.in_line, true)
        {
            self.line.push_back(id);
        }
    }

    /// How many streams are in line.
    pub fn lined_up(&self) -> usize {
        self.line.len()
    }

    /// The next stream in line, which leaves it, its owner, and how much content it may send in one
    /// frame; 0 leaves room for its end alone.
    pub fn next_in_line(&mut self) -> Option<(u32, Key, usize)> {
        loop {
            let id = self.line.pop_front()?;
            let (window, max) = (self.send_window, (self.peer.frame as usize).min(H2_FRAME_BYTES));
            let Some(stream) = self.stream(id) else { continue };
            stream.in_line = false;
            let Some(owner) = stream.owner else { continue };
            let room = usize::try_from(window.min(stream.send_window)).unwrap_or(0);
            return Some((id, owner, room.min(max)));
        }
    }

    /// Whether a stream's own window is what it waits for, so that it need not stand in line.
    pub fn is_blocked(&mut self, id: u32) -> bool {
        self.stream(id).is_none_or(|stream| stream.send_window <= 0)
    }

    /// The header for a DATA frame with so much content, which counts as sent.
    pub fn data(&mut self, id: u32, length: usize, end: bool) -> Option<[u8; HEADER_BYTES]> {
        let stream = self.stream(id).filter(|stream| stream.state.can_send())?;
        stream.send_window -= length as i64;
        stream.state = stream.state.after_sent(end);
        self.send_window -= length as i64;
        self.budget.sent(length);
        self.sent_end(id, end);
        let flags = if end { frame::END_STREAM } else { 0 };
        Some(Header { length: length as u32, kind: Kind::Data, flags, stream: id }.bytes())
    }

    /// Content of a stream was delivered. `spare`: to somebody who takes it as it comes, so that the
    /// stream's window may grow by so much; by how much it has.
    pub fn delivered(&mut self, id: u32, length: usize, spare: Option<u32>, out: &mut Vec<u8>) -> u32 {
        let Some(stream) = self.stream(id) else { return 0 };
        stream.delivered += length as u32;
        let Some((increment, growth)) = spare.and_then(|spare| stream.credit(spare)) else { return 0 };
        frame::window_update(out, id, increment);
        growth
    }

    /// Whoever takes a stream's content takes it again, after it had to wait.
    pub fn taken(&mut self, id: u32, out: &mut Vec<u8>) {
        let Some(stream) = self.stream(id) else { return };
        if let Some((increment, _)) = stream.credit(0) {
            frame::window_update(out, id, increment);
        }
    }

    /// Gives a stream up: the peer is told, unless both have said all, or it knows nothing of it yet.
    /// Whether it was open. A client pays for a reset that it caused.
    pub fn forget(&mut self, id: u32, code: ErrorCode, out: &mut Vec<u8>) -> bool {
        let Ok(at) = self.streams.binary_search_by_key(&id, |stream| stream.id) else { return false };
        if self.streams[at].state != State::Idle {
            frame::reset(out, id, code);
            self.budget.stream_reset(self.streams[at].receive_window);
            if self.role == Role::Server && code.may_be_provoked() {
                self.budget.spend_reset();
            }
        }
        self.streams.remove(at);
        true
    }

    /// Gives all streams up without a word: the connection ends. Their owners.
    pub fn abandon(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.streams).into_iter().filter_map(|stream| stream.owner).collect()
    }

    /// Asks the peer whether it is there.
    pub fn ping(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.pinged, true) {
            frame::write(out, Kind::Ping, 0, 0, b"idle now");
        }
    }

    /// Announces the end of the connection with a GOAWAY that excludes no stream, and a PING. When the peer has
    /// acknowledged the PING, it knows of the end, and `farewell` may exclude streams (RFC 9113, 6.8).
    pub fn announce_goaway(&mut self, out: &mut Vec<u8>) {
        frame::goaway(out, MAX_31, ErrorCode::NO_ERROR);
        self.ping(out);
    }

    /// Sends a GOAWAY with the last stream that is served, and the reason. Further streams are refused.
    pub fn farewell(&mut self, code: ErrorCode, out: &mut Vec<u8>) {
        let last = *self.last_served.get_or_insert(self.last);
        frame::goaway(out, last, code);
    }

    pub(super) fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        let at = self.streams.binary_search_by_key(&id, |stream| stream.id).ok()?;
        self.streams.get_mut(at)
    }

    pub(super) fn line_up_all(&mut self) {
        let ids: Vec<u32> = self.streams.iter().map(|stream| stream.id).collect();
        ids.into_iter().for_each(|id| self.line_up(id));
    }

    /// We have sent a part of a message; `end`: its last.
    fn sent_end(&mut self, id: u32, end: bool) {
        if !end {
            return;
        }
        if self.role == Role::Server {
            self.budget.responded();
        }
        self.close_if_done(id);
    }

    pub(super) fn close_if_done(&mut self, id: u32) {
        if let Ok(at) = self.streams.binary_search_by_key(&id, |stream| stream.id)
            && self.streams[at].state == State::Closed
        {
            self.streams.remove(at);
            self.budget.stream_ended();
        }
    }
}

#[cfg(test)]
mod tests;
