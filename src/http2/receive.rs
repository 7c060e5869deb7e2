//! Receives frames (RFC 9113, 4 to 6): checks them, replies to those that need it, and reports events.

use super::connection::{Connection, Event};
use super::frame::{self, ErrorCode, HEADER_BYTES, Header, Kind, MAX_31, PREFACE};
use super::head::{self, Section, Unread};
use super::reading::{Block, Reading};
use super::stream::{State, Stream};
use super::{Cause, Error};
use crate::hpack;
use crate::http::head::{Head, Start};
use crate::http::message_error::MessageError;
use crate::http::part::Role;
use crate::limits::{H2_BLOCK_BYTES, H2_BLOCK_FRAMES, H2_CLIENT_BLOCK_BYTES, H2_FRAME_BYTES, H2_WINDOW_BYTES};

impl Connection {
    /// Reads the next of `bytes`. Returns the number of bytes to skip and the event. A head is stored in
    /// `head`, with spans into `arena`. The bytes of content follow their event.
    ///
    /// # Errors
    ///
    /// The connection cannot be used any more; `farewell` reports the error to the peer.
    pub fn decode(
        &mut self,
        bytes: &[u8],
        head: &mut Head,
        arena: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Event), Error> {
        match self.reading {
            Reading::Preface => self.preface(bytes),
            Reading::Frame => self.frame(bytes, head, arena, out),
            Reading::Over(error) => Err(error),
            Reading::End(id) => {
                self.reading = Reading::Frame;
                Ok((0, self.peer_ended(id)))
            }
            Reading::Data { .. } | Reading::Skip(_) if bytes.is_empty() => Ok((0, Event::NeedMore)),
            Reading::Skip(left) => {
                let n = bytes.len().min(left as usize);
                self.reading = if n == left as usize { Reading::Frame } else { Reading::Skip(left - n as u32) };
                Ok((n, Event::Nothing))
            }
            Reading::Data { stream, left: 0, padding, end } => {
                let n = bytes.len().min(padding as usize);
                let padding = padding - n as u32;
                self.reading = data_left(stream, 0, padding, end);
                Ok((n, Event::Nothing))
            }
            Reading::Data { stream, left, padding, end } => {
                let n = bytes.len().min(left as usize);
                self.reading = data_left(stream, left - n as u32, padding, end);
                Ok((0, Event::Data(self.stream(stream).and_then(|stream| stream.owner), n)))
            }
        }
    }

    fn preface(&mut self, bytes: &[u8]) -> Result<(usize, Event), Error> {
        let n = bytes.len().min(PREFACE.len());
        if bytes[..n] != PREFACE[..n] {
            return Err(Error::protocol("no connection preface"));
        }
        if n < PREFACE.len() {
            return Ok((0, Event::NeedMore));
        }
        self.reading = Reading::Frame;
        Ok((n, Event::Nothing))
    }

    fn frame(
        &mut self,
        bytes: &[u8],
        head: &mut Head,
        arena: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Event), Error> {
        self.budget.check()?;
        let Some(header) = Header::read(bytes) else { return Ok((0, Event::NeedMore)) };
        if header.length as usize > H2_FRAME_BYTES {
            return Err(Error::new(ErrorCode::FRAME_SIZE_ERROR, "frame longer than is allowed"));
        }
        // SETTINGS come first, and nothing between the frames of a block (RFC 9113, 3.4 and 6.10).
        if !self.ready && (header.kind != Kind::Settings || header.has(frame::ACK)) {
            return Err(Error::protocol("the first frame is not SETTINGS"));
        }
        if let Some(block) = &self.block
            && (header.kind != Kind::Continuation || header.stream != block.stream)
        {
            return Err(Error::protocol("a block of fields was interrupted"));
        }
        if header.kind == Kind::Data {
            let taken = self.data_frame(header, &bytes[HEADER_BYTES..], out);
            if !matches!(taken, Ok((_, Event::NeedMore))) {
                self.tally.add(Kind::Data);
            }
            return taken;
        }
        if header.kind == Kind::Unknown {
            self.tally.add(header.kind);
            self.budget.spend(header.kind)?;
            self.reading = if header.length == 0 { Reading::Frame } else { Reading::Skip(header.length) };
            return Ok((HEADER_BYTES, Event::Nothing));
        }
        let whole = HEADER_BYTES + header.length as usize;
        let Some(payload) = bytes.get(HEADER_BYTES..whole) else { return Ok((0, Event::NeedMore)) };
        self.tally.add(header.kind);
        let event = match header.kind {
            Kind::Headers => self.headers_frame(header, payload, head, arena, out)?,
            Kind::Continuation => self.continuation(header, payload, head, arena, out)?,
            // The cost of these depends on their effect.
            Kind::WindowUpdate | Kind::RstStream => self.control(header, payload, out)?,
            _ => {
                self.budget.spend(header.kind)?;
                self.control(header, payload, out)?
            }
        };
        Ok((whole, event))
    }

    fn data_frame(&mut self, header: Header, rest: &[u8], out: &mut Vec<u8>) -> Result<(usize, Event), Error> {
        self.check_known(header.stream)?;
        let padded = header.has(frame::PADDED);
        let padding = match rest.first() {
            _ if padded && header.length == 0 => 0,
            _ if !padded => 0,
            None => return Ok((0, Event::NeedMore)),
            Some(&length) => u32::from(length),
        };
        let overhead = u32::from(padded) + padding;
        let left = header.length.checked_sub(overhead).ok_or(Error::protocol("padding longer than its frame"))?;
        let overflow = Error::new(ErrorCode::FLOW_CONTROL_ERROR, "more content than was allowed");
        self.receive_window = self.receive_window.checked_sub(header.length).ok_or(overflow)?;
        self.received += header.length;
        if !self.owner_credits {
            self.credit(0, out);
        }
        let skip = HEADER_BYTES + usize::from(padded);
        self.reading = data_left(header.stream, left, padding, header.has(frame::END_STREAM));
        let takes = self.stream(header.stream).map(|stream| stream.state.can_receive() && stream.has_head);
        match (takes, left) {
            (Some(true), 1..) => self.budget.earn(),
            (Some(_), _) => self.budget.spend(Kind::Data)?,
            (None, 0) if header.has(frame::END_STREAM) => self.budget.late(Kind::Data)?,
            (None, 0) => self.budget.spend(Kind::Data)?,
            (None, _) => self.budget.late_content(left)?,
        }
        let Some(stream) = self.stream(header.stream) else { return Ok((skip, Event::Nothing)) };
        if !stream.state.can_receive() || !stream.has_head {
            let owner = stream.owner;
            return Ok((skip, owner.map_or(Event::Nothing, |owner| Event::Malformed(owner, MessageError::Misplaced))));
        }
        stream.receive_window = stream.receive_window.checked_sub(header.length).ok_or(overflow)?;
        if left > 0 || overhead == 0 || header.has(frame::END_STREAM) {
            stream.delivered += overhead;
        } else {
            // Padding has no content whose delivery could credit it.
            stream.receive_window += overhead;
            frame::window_update(out, header.stream, overhead);
        }
        Ok((skip, Event::Nothing))
    }

    fn headers_frame(
        &mut self,
        header: Header,
        payload: &[u8],
        head: &mut Head,
        arena: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Event, Error> {
        self.check_opened(header.stream)?;
        let mut block = payload;
        let mut padding = 0;
        if header.has(frame::PADDED) {
            let Some((&length, rest)) = block.split_first() else {
                return Err(Error::new(ErrorCode::FRAME_SIZE_ERROR, "HEADERS too short for their padding"));
            };
            (padding, block) = (usize::from(length), rest);
        }
        if header.has(frame::PRIORITY) {
            block =
                block.get(5..).ok_or(Error::new(ErrorCode::FRAME_SIZE_ERROR, "HEADERS too short for a priority"))?;
        }
        let length = block.len().checked_sub(padding).ok_or(Error::protocol("padding longer than its frame"))?;
        let (block, end) = (&block[..length], header.has(frame::END_STREAM));
        if header.has(frame::END_HEADERS) {
            return self.fields(header.stream, end, block, head, arena, out);
        }
        self.block = Some(Block { stream: header.stream, end, frames: 1, bytes: block.to_vec() });
        Ok(Event::Nothing)
    }

    fn continuation(
        &mut self,
        header: Header,
        payload: &[u8],
        head: &mut Head,
        arena: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Event, Error> {
        let Some(mut block) = self.block.take() else {
            return Err(Error::protocol("CONTINUATION of nothing"));
        };
        self.budget.spend(Kind::Continuation)?;
        block.frames += 1;
        // A block without end would be collected forever (CVE-2024-27316).
        if block.frames > H2_BLOCK_FRAMES {
            let (code, reason) = (ErrorCode::ENHANCE_YOUR_CALM, "block of fields that does not end");
            return Err(Error { code, reason, cause: Cause::Flood(Kind::Continuation) });
        }
        let most = if self.role == Role::Server { H2_CLIENT_BLOCK_BYTES } else { H2_BLOCK_BYTES };
        if block.bytes.len() + payload.len() > most {
            return Ok(self.excess(block.stream));
        }
        block.bytes.extend_from_slice(payload);
        if header.has(frame::END_HEADERS) {
            return self.fields(block.stream, block.end, &block.bytes, head, arena, out);
        }
        self.block = Some(block);
        Ok(Event::Nothing)
    }

    /// Handles a complete block of fields.
    fn fields(
        &mut self,
        id: u32,
        end: bool,
        block: &[u8],
        head: &mut Head,
        arena: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Event, Error> {
        self.blocks += 1;
        let has_head = self.stream(id).is_some_and(|stream| stream.has_head);
        let section = if has_head { Section::Trailers } else { Section::Head };
        let read = match head::read(&mut self.decoder, block, self.role, section, head, arena) {
            Err(Unread::Connection(hpack::Error::Excessive)) => return Ok(self.excess(id)),
            Err(Unread::Connection(_)) => {
                return Err(Error::new(ErrorCode::COMPRESSION_ERROR, "block of fields that cannot be decoded"));
            }
            Err(Unread::Message(refusal)) => Err(refusal),
            Ok(()) => Ok(()),
        };
        head.ended = end;
        if end {
            self.reading = Reading::End(id);
        }
        if self.role == Role::Server && id > self.last {
            return self.opened(id, end, read, out);
        }
        let interim = !has_head && matches!(head.start, Start::Response { status: 100..200, .. });
        let found = self.stream(id).and_then(|stream| Some((stream.owner?, stream.state.can_receive())));
        let Some((owner, receiving)) = found else {
            // The fields are decoded only to keep the dynamic table in step with the peer's.
            self.budget.late(Kind::Headers)?;
            return Ok(Event::Nothing);
        };
        if interim {
            // HTTP/2 does not limit interim responses. They are no progress, so each one is charged.
            self.budget.spend(Kind::Headers)?;
            return Ok(match read {
                Err(refusal) => Event::Malformed(owner, refusal),
                Ok(()) if end => Event::Malformed(owner, MessageError::Misplaced),
                Ok(()) => Event::Interim(owner),
            });
        }
        match self.role {
            Role::Client => self.budget.earn(),
            // Only the end of a response earns credit.
            Role::Server => self.budget.spend(Kind::Headers)?,
        }
        Ok(match read {
            Err(refusal) => Event::Malformed(owner, refusal),
            Ok(()) if !receiving || has_head && !end => Event::Malformed(owner, MessageError::Misplaced),
            Ok(()) if has_head => Event::Trailers(owner),
            Ok(()) => {
                if let Some(stream) = self.stream(id) {
                    stream.has_head = true;
                }
                Event::Head(owner)
            }
        })
    }

    /// Refuses the message of a block that is too large to decode. The connection ends afterwards, because the dynamic
    /// table is no longer in step.
    fn excess(&mut self, id: u32) -> Event {
        let (code, reason) = (ErrorCode::ENHANCE_YOUR_CALM, "block of fields far too large");
        self.reading = Reading::Over(Error { code, reason, cause: Cause::Limit });
        let Some((owner, has_head)) = self.stream(id).and_then(|stream| Some((stream.owner?, stream.has_head))) else {
            return Event::Nothing;
        };
        Event::Malformed(owner, if has_head { MessageError::TrailersTooLarge } else { MessageError::HeadTooLarge })
    }

    /// Opens a stream of a client. A stream beyond the limit is charged as a frame without progress and not as a reset,
    /// because the client may not have received the limit yet.
    ///
    /// For the client a stream is open until it has received the end. So a client that takes nothing opens no more
    /// streams, and one that does is refused: the ends of as many streams as may be open may wait. That allows for
    /// streams that the client has reset.
    fn opened(
        &mut self,
        id: u32,
        end: bool,
        read: Result<(), MessageError>,
        out: &mut Vec<u8>,
    ) -> Result<Event, Error> {
        self.last = id;
        let most = self.offer.streams as usize;
        let is_full = self.streams.len() >= most || self.streams.len() + self.unsent >= 2 * most;
        if is_full || self.last_served.is_some() {
            self.budget.spend(Kind::Headers)?;
            self.budget.stream_reset(H2_WINDOW_BYTES);
            self.reading = Reading::Frame;
            frame::reset(out, id, ErrorCode::REFUSED_STREAM);
            return Ok(Event::Refused);
        }
        let state = if end { State::HalfClosedRemote } else { State::Open };
        let mut stream = Stream::new(id, state, self.peer.window, H2_WINDOW_BYTES);
        stream.has_head = true;
        self.streams.push(stream);
        Ok(match read {
            Ok(()) => Event::Opened(id),
            Err(refusal) => Event::Unheard(id, refusal),
        })
    }

    /// Handles the peer's END_STREAM.
    fn peer_ended(&mut self, id: u32) -> Event {
        let Some(stream) = self.stream(id) else { return Event::Nothing };
        stream.state = stream.state.after_end();
        let owner = stream.owner;
        self.close_if_done(id);
        owner.map_or(Event::Nothing, Event::End)
    }

    fn control(&mut self, header: Header, payload: &[u8], out: &mut Vec<u8>) -> Result<Event, Error> {
        let size = |right: bool| match right {
            true => Ok(()),
            false => Err(Error::new(ErrorCode::FRAME_SIZE_ERROR, "frame of a length that it cannot have")),
        };
        let of_connection = |right: bool| match right {
            true => Ok(()),
            false => Err(Error::protocol("frame on a stream that it cannot be on")),
        };
        match header.kind {
            Kind::Settings => {
                of_connection(header.stream == 0)?;
                self.settings_frame(header, payload, out)
            }
            Kind::Ping => {
                of_connection(header.stream == 0)?;
                size(payload.len() == 8)?;
                if header.has(frame::ACK) {
                    let asked = std::mem::replace(&mut self.pinged, false);
                    return Ok(if asked { Event::Pong } else { Event::Nothing });
                }
                frame::write(out, Kind::Ping, frame::ACK, 0, payload);
                Ok(Event::Nothing)
            }
            Kind::Priority => {
                of_connection(header.stream != 0)?;
                size(payload.len() == 5)?;
                Ok(Event::Nothing)
            }
            Kind::RstStream => {
                size(payload.len() == 4)?;
                self.check_known(header.stream)?;
                self.reset_frame(header.stream, ErrorCode(number(payload)))
            }
            Kind::Goaway => {
                of_connection(header.stream == 0)?;
                size(payload.len() >= 8)?;
                let last = number(payload) & MAX_31;
                // A later GOAWAY may only reduce the last stream (RFC 9113, 6.8).
                self.goaway = Some(self.goaway.map_or(last, |before| before.min(last)));
                Ok(Event::GoAway(ErrorCode(number(&payload[4..]))))
            }
            Kind::WindowUpdate => {
                size(payload.len() == 4)?;
                self.window_frame(header.stream, number(payload) & MAX_31, out)
            }
            // Neither side accepts a push (RFC 9113, 6.5.2 and 8.4).
            _ => Err(Error::protocol("PUSH_PROMISE that was not allowed")),
        }
    }

    fn settings_frame(&mut self, header: Header, payload: &[u8], out: &mut Vec<u8>) -> Result<Event, Error> {
        if header.has(frame::ACK) {
            return match payload {
                [] => Ok(Event::Nothing),
                _ => Err(Error::new(ErrorCode::FRAME_SIZE_ERROR, "SETTINGS that acknowledge and say something")),
            };
        }
        let before = self.peer.window;
        self.peer.apply(payload, self.role == Role::Client)?;
        self.ready = true;
        let change = i64::from(self.peer.window) - i64::from(before);
        for stream in &mut self.streams {
            let was_closed = stream.send_window <= 0;
            stream.send_window += change;
            if stream.send_window > MAX_31.into() {
                return Err(Error::new(ErrorCode::FLOW_CONTROL_ERROR, "window larger than any can be"));
            }
            // A client may send many changes in one read, and each concerns all of its streams.
            if was_closed && stream.send_window > 0 && stream.state.can_send() && !stream.in_line {
                stream.in_line = true;
                self.line.push_back(stream.id);
            }
        }
        frame::write(out, Kind::Settings, frame::ACK, 0, &[]);
        Ok(Event::Room)
    }

    /// Handles a RST_STREAM. A backend may reset each stream that we open. A reset by a client is charged, because it
    /// must not be cheaper than waiting for the response (CVE-2023-44487).
    fn reset_frame(&mut self, id: u32, code: ErrorCode) -> Result<Event, Error> {
        let Ok(at) = self.streams.binary_search_by_key(&id, |stream| stream.id) else {
            self.budget.late_reset()?;
            return Ok(Event::Nothing);
        };
        if self.role == Role::Server {
            self.budget.spend_reset();
            self.budget.check()?;
        }
        let owner = self.streams.remove(at).owner;
        Ok(owner.map_or(Event::Nothing, |owner| Event::Reset(owner, code)))
    }

    fn window_frame(&mut self, id: u32, increment: u32, out: &mut Vec<u8>) -> Result<Event, Error> {
        let overflow = Error::new(ErrorCode::FLOW_CONTROL_ERROR, "window larger than any can be");
        if id == 0 {
            if increment == 0 {
                return Err(Error::protocol("WINDOW_UPDATE by nothing"));
            }
            self.budget.update(false, increment)?;
            self.send_window += i64::from(increment);
            return if self.send_window > MAX_31.into() { Err(overflow) } else { Ok(Event::Room) };
        }
        self.check_known(id)?;
        self.budget.update(true, increment)?;
        let Some(stream) = self.stream(id) else { return Ok(Event::Nothing) };
        stream.send_window += i64::from(increment);
        if increment == 0 || stream.send_window > MAX_31.into() {
            // This is an error of the stream only (RFC 9113, 6.9).
            let code = if increment == 0 { ErrorCode::PROTOCOL_ERROR } else { ErrorCode::FLOW_CONTROL_ERROR };
            let owner = stream.owner;
            // An overdrawn budget ends the connection with the next frame, because the owner has to know of this first.
            self.forget(id, code, out);
            return Ok(owner.map_or(Event::Nothing, |owner| Event::Reset(owner, code)));
        }
        self.line_up(id);
        Ok(Event::Room)
    }

    /// Returns an error if a stream is idle (RFC 9113, 5.1).
    fn check_known(&self, id: u32) -> Result<(), Error> {
        let ours = id % 2 == u32::from(self.role == Role::Client);
        let known = id != 0 && if ours { self.next == 0 || id < self.next } else { id <= self.last };
        if known { Ok(()) } else { Err(Error::protocol("frame on a stream that is not open")) }
    }

    /// Returns an error if HEADERS may not arrive on a stream, not even to open it.
    fn check_opened(&self, id: u32) -> Result<(), Error> {
        if self.role == Role::Server && id % 2 == 1 && id > self.last { Ok(()) } else { self.check_known(id) }
    }
}

/// The position with this rest of a DATA frame.
fn data_left(stream: u32, left: u32, padding: u32, end: bool) -> Reading {
    match (left, padding) {
        (0, 0) if end => Reading::End(stream),
        (0, 0) => Reading::Frame,
        _ => Reading::Data { stream, left, padding, end },
    }
}

/// The first four bytes as a number; 0 if there are fewer.
fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |&bytes| u32::from_be_bytes(bytes))
}
