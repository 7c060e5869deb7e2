//! One HTTP/2 connection, in either role: bytes go in, events come out, and reply frames are appended to `out`.
//! On the wire a number identifies a stream; for all other code its owner's key does.
//!
//! The reader is between frames, or within the content of a DATA frame, which is reported as it arrives. Every
//! other frame is handled when it is complete. A field block is collected before it is decoded. A stream is in
//! `streams` from its first frame until it is closed or forgotten. Frames for other streams are handled as RFC
//! 9113, 5.1 requires.
//!
//! Invariants: `streams` is sorted by number. The data that the streams' windows admit is bounded by
//! `H2_STREAMS`, the first window and the growth that the owner allows. Content is credited to the connection
//! when it arrives, or when the owner says so, and to its stream when it is delivered. Padding is credited to its
//! stream at once.

use std::collections::VecDeque;

use super::Tally;
use super::budget::Budget;
use super::frame::{self, ErrorCode, HEADER_BYTES, Header, Kind, MAX_31, PREFACE};
use super::reading::{Block, Reading};
use super::settings::{self, FIRST_WINDOW, Offer, Settings};
use super::stream::{Spare, State, Stream};
use crate::collections::slab::Key;
use crate::hpack::{self, Decoder};
use crate::http::message_error::MessageError;
use crate::http::part::Role;
use crate::limits::{
    H2_BACKEND_WINDOW_BYTES, H2_CONNECTION_WINDOW_BYTES, H2_FRAME_BYTES, H2_STREAMS, H2_TABLE_BYTES,
    H2_WINDOW_MAX_BYTES,
};

/// The meaning of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// More bytes are needed.
    NeedMore,
    /// A frame without an event.
    Nothing,
    /// The head of a request on a stream without an owner. The owner must be set with `own`.
    Opened(u32),
    /// The head of a final response.
    Head(Key),
    /// The head of a 1xx response.
    Interim(Key),
    /// The trailer section.
    Trailers(Key),
    /// Content of this many bytes, which follow. The caller skips them.
    Data(Option<Key>, usize),
    /// The end of a message.
    End(Key),
    /// The peer has reset a stream, which is closed now.
    Reset(Key, ErrorCode),
    /// A message is malformed. Its stream is still open.
    Malformed(Key, MessageError),
    /// The request on a stream without an owner is malformed.
    Unheard(u32, MessageError),
    /// A stream of the client is refused, because it is beyond the limit or the last one.
    Refused,
    /// The peer has given credit, or has raised its limit of streams.
    Room,
    /// The peer accepts no more streams, and has not processed those that `unprocessed` returns.
    GoAway(ErrorCode),
    /// The acknowledgement of our PING.
    Pong,
}

/// One connection's protocol state.
#[derive(Debug)]
pub struct Connection {
    pub(super) role: Role,
    pub(super) decoder: Decoder,
    pub(super) reading: Reading,
    pub(super) block: Option<Block>,
    /// The number of complete field blocks.
    pub(super) blocks: u64,
    pub(super) streams: Vec<Stream>,
    /// The send queue: streams with content or an end to send, in rotation.
    pub(super) line: VecDeque<u32>,
    /// The number of our next stream; 0 if there can be no more.
    pub(super) next: u32,
    /// The highest stream number that the peer has used.
    pub(super) last: u32,
    pub(super) peer: Settings,
    /// Our offer to the peer, if this side is the server.
    pub(super) offer: Offer,
    /// The peer's SETTINGS have arrived.
    pub(super) ready: bool,
    pub(super) send_window: i64,
    /// The size of the connection's receive window when everything is credited.
    pub(super) window: u32,
    pub(super) receive_window: u32,
    /// The bytes that have arrived and are not credited to the connection yet.
    pub(super) received: u32,
    /// The owner credits the connection.
    pub(super) owner_credits: bool,
    /// The last stream that the peer's GOAWAY accepts.
    pub(super) goaway: Option<u32>,
    /// The last stream of the peer that is served, after our GOAWAY.
    pub(super) last_served: Option<u32>,
    /// True if our PING is not answered yet.
    pub(super) pinged: bool,
    /// The streams of the peer that have ended, and whose end waits to be sent.
    pub(super) unsent: usize,
    pub(super) budget: Budget,
    pub(super) tally: Tally,
}

impl Connection {
    /// Returns a connection on which no byte was sent or received.
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
            offer: Offer { streams: H2_STREAMS, connect: false },
            ready: false,
            send_window: FIRST_WINDOW.into(),
            window: H2_CONNECTION_WINDOW_BYTES,
            receive_window: H2_CONNECTION_WINDOW_BYTES,
            received: 0,
            owner_credits: false,
            goaway: None,
            last_served: None,
            pinged: false,
            unsent: 0,
            budget: Budget::new(),
            tally: Tally::default(),
        }
    }

    /// Limits the streams that the peer may have at once. Must be called before `greet`.
    pub fn limit_streams(&mut self, most: u32) {
        self.offer.streams = most;
    }

    /// Reduces the connection's window to the least one. From then on only `credit` replenishes it. Must be called
    /// before `greet`.
    pub fn limit_window(&mut self) {
        (self.window, self.receive_window, self.owner_credits) = (FIRST_WINDOW, FIRST_WINDOW, true);
    }

    /// Accepts extended CONNECT from the client (RFC 8441). Must be called before `greet`.
    pub fn accept_connect(&mut self) {
        self.offer.connect = true;
    }

    /// Writes our first frames (RFC 9113, 3.4).
    pub fn greet(&self, out: &mut Vec<u8>) {
        let client = self.role == Role::Client;
        if client {
            out.extend_from_slice(PREFACE);
        }
        settings::write_ours(out, client, self.offer);
        if self.window > FIRST_WINDOW {
            frame::window_update(out, 0, self.window - FIRST_WINDOW);
        }
    }

    /// Sets the time in microseconds. Must be called before the bytes received by then are decoded.
    pub fn set_clock(&mut self, now_us: u64) {
        self.budget.refill(now_us);
    }

    /// The frames that were received.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Says that a client has spent most of what it may spend on frames without progress or on resets.
    pub fn strain(&self) -> Option<&'static str> {
        self.budget.strain().filter(|_| self.role == Role::Server)
    }

    /// Charges a client for a frame with a few bytes, because its window admits no more.
    pub fn note_dribble(&mut self) {
        if self.role == Role::Server {
            self.budget.dribbled();
        }
    }

    /// Notes that a frame waits to be sent. `is_end`: it has END_STREAM.
    pub fn note_unsent(&mut self, is_end: bool) {
        self.unsent += usize::from(is_end);
    }

    /// Notes that a frame was sent that had to wait.
    pub fn note_sent(&mut self, is_end: bool) {
        self.unsent = self.unsent.saturating_sub(usize::from(is_end));
    }

    /// The number of open streams.
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// The number of concurrent streams that the peer allows.
    pub fn capacity(&self) -> usize {
        self.peer.streams as usize
    }

    /// The peer's SETTINGS_MAX_HEADER_LIST_SIZE: the size of all fields, with 32 bytes added for each.
    pub fn list_limit(&self) -> usize {
        self.peer.list as usize
    }

    /// True if the peer has said that it accepts extended CONNECT (RFC 8441).
    pub fn accepts_connect(&self) -> bool {
        self.peer.connect
    }

    /// True if the peer's SETTINGS have arrived.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The number of the incomplete field block, if there is one; `rest` are the bytes not yet decoded.
    pub fn incomplete_block(&self, rest: &[u8]) -> Option<u64> {
        let begun =
            || self.reading == Reading::Frame && Header::read(rest).is_some_and(|one| one.kind == Kind::Headers);
        (self.block.is_some() || begun()).then_some(self.blocks)
    }

    /// The bytes of the incomplete field block.
    pub fn block_bytes(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.bytes.capacity())
    }

    /// Returns the size of all fields that were decoded, each with 32 additional bytes (RFC 9113, 6.5.2).
    pub fn decoded_bytes(&self) -> u64 {
        self.decoder.decoded_bytes()
    }

    /// True if our PING is not answered yet.
    pub fn is_pinged(&self) -> bool {
        self.pinged
    }

    /// True if the peer's remaining window and the credit not yet sent add up to the whole window of the
    /// connection.
    pub fn holds_its_window(&self) -> bool {
        self.receive_window + self.received == self.window
    }

    /// True if the connection has received at least half of its window without credit.
    pub fn owes_credit(&self) -> bool {
        self.received >= self.window / 2
    }

    /// Credits the connection with everything that was received, if it is due. The window grows by `spare` bytes at
    /// most.
    pub fn credit(&mut self, spare: u32, out: &mut Vec<u8>) {
        if self.owes_credit() {
            let growth = self.window.min(H2_WINDOW_MAX_BYTES.saturating_sub(self.window)).min(spare);
            self.window += growth;
            let increment = std::mem::take(&mut self.received) + growth;
            self.receive_window += increment;
            frame::window_update(out, 0, increment);
        }
    }

    /// True if no further stream can ever be opened.
    pub fn is_spent(&self) -> bool {
        self.goaway.is_some() || self.next == 0
    }

    /// True if a stream can be opened now. Before the peer's SETTINGS there is at most one, because its limit
    /// is unknown.
    pub fn can_open(&self) -> bool {
        let most = if self.ready { self.capacity() } else { 1 };
        !self.is_spent() && !self.pinged && self.streams.len() < most
    }

    /// The owners of all open streams.
    pub fn owners(&self) -> impl Iterator<Item = Key> {
        self.streams.iter().filter_map(|stream| stream.owner)
    }

    /// The owners of the streams that the peer's GOAWAY excludes. The peer has not processed them.
    pub fn unprocessed(&self) -> impl Iterator<Item = Key> {
        let last = self.goaway.unwrap_or(MAX_31);
        self.streams.iter().filter(move |stream| stream.id > last).filter_map(|stream| stream.owner)
    }

    /// Opens a stream and returns its number; `None` if `can_open` is false.
    pub fn open(&mut self, owner: Key) -> Option<u32> {
        if !self.can_open() {
            return None;
        }
        let id = self.next;
        self.next = if id >= MAX_31 - 1 { 0 } else { id + 2 };
        let mut stream = Stream::new(id, State::Idle, self.peer.window, H2_BACKEND_WINDOW_BYTES);
        stream.owner = Some(owner);
        self.streams.push(stream);
        Some(id)
    }

    /// Sets the owner of a stream that the peer has opened.
    pub fn own(&mut self, id: u32, owner: Key) {
        if let Some(stream) = self.stream(id) {
            stream.owner = Some(owner);
        }
    }

    /// Writes the field block of a message. `end`: with END_STREAM.
    pub fn write_fields(&mut self, id: u32, block: &[u8], end: bool, out: &mut Vec<u8>) {
        let max = (self.peer.frame as usize).min(H2_FRAME_BYTES);
        let Some(stream) = self.stream(id).filter(|stream| stream.state.can_send()) else { return };
        stream.state = stream.state.after_sent(end);
        if std::mem::take(&mut self.peer.table_shrunk) {
            // The encoder does not use the dynamic table, but a peer that reduced its size expects an update (RFC 9113,
            // 4.3.1).
            let mut resized = Vec::with_capacity(block.len() + 1);
            hpack::table_size(&mut resized, 0);
            resized.extend_from_slice(block);
            frame::fields(out, id, &resized, end, max);
        } else {
            frame::fields(out, id, block, end, max);
        }
        self.sent_end(id, end);
    }

    /// Puts a stream with content or an end to send into the send queue.
    pub fn line_up(&mut self, id: u32) {
        if let Some(stream) = self.stream(id)
            && stream.state.can_send()
            && !std::mem::replace(&mut stream.in_line, true)
        {
            self.line.push_back(id);
        }
    }

    /// The number of streams in the send queue.
    pub fn lined_up(&self) -> usize {
        self.line.len()
    }

    /// Takes the next stream out of the send queue. Returns its number, its owner, and the size of the content that it
    /// may send in one frame. With 0 it may only send its end.
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

    /// True if a window of the peer prevents content on a stream: its own one, or the connection's.
    pub fn lacks_window(&mut self, id: u32) -> bool {
        self.send_window <= 0 || self.is_blocked(id)
    }

    /// True if only the stream's own window prevents sending, so that it need not be in the send queue.
    pub fn is_blocked(&mut self, id: u32) -> bool {
        self.stream(id).is_none_or(|stream| stream.send_window <= 0)
    }

    /// Writes the header of a DATA frame with content of this length, which counts as sent.
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

    /// Credits delivered content of a stream. `spare`: the consumer reads promptly, so the stream's window may
    /// grow by this amount. Returns the growth that was lent.
    pub fn delivered(&mut self, id: u32, length: usize, spare: Option<Spare>, out: &mut Vec<u8>) -> u32 {
        let Some(stream) = self.stream(id) else { return 0 };
        stream.delivered += length as u32;
        let Some((increment, growth)) = spare.and_then(|spare| stream.credit(spare)) else { return 0 };
        frame::window_update(out, id, increment);
        growth
    }

    /// True if the next event needs no further bytes.
    pub fn owes_event(&self) -> bool {
        matches!(self.reading, Reading::End(_) | Reading::Over(_))
    }

    /// The consumer resumed reading; sends the stream's WINDOW_UPDATE.
    pub fn taken(&mut self, id: u32, out: &mut Vec<u8>) {
        let Some(stream) = self.stream(id) else { return };
        if let Some((increment, _)) = stream.credit(Spare::default()) {
            frame::window_update(out, id, increment);
        }
    }

    /// Closes a stream. A RST_STREAM is sent, unless both sides have ended or the peer does not know the stream
    /// yet. Returns true if it was open. A client pays for a reset that it caused.
    pub fn forget(&mut self, id: u32, code: ErrorCode, out: &mut Vec<u8>) -> bool {
        let Ok(at) = self.streams.binary_search_by_key(&id, |stream| stream.id) else { return false };
        if self.streams[at].state != State::Idle {
            frame::reset(out, id, code);
            self.budget.stream_reset(self.streams[at].receive_window);
            if self.role == Role::Server && code.may_be_provoked() {
                self.budget.spend_provoked();
            }
        }
        self.streams.remove(at);
        true
    }

    /// Removes all streams without a frame, because the connection ends. Returns their owners.
    pub fn abandon(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.streams).into_iter().filter_map(|stream| stream.owner).collect()
    }

    /// Sends a PING.
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

    /// Updates the state of a stream after we sent a part of a message. `end`: the last part.
    fn sent_end(&mut self, id: u32, end: bool) {
        if !end {
            return;
        }
        if self.role == Role::Server {
            self.budget.earn();
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
