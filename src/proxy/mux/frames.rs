//! The frames of a mux: content of streams becomes frames, one stream after the other, and frames become calls for
//! their streams.

use super::super::Proxy;
use super::super::abort::Abort;
use super::super::codec::Codec;
use super::super::connection::{BackendEnd, Connection, Ending, Moved, Peer, Receive, Wait};
use super::super::failure::Failure;
use super::super::record::Reason;
use super::Mux;
use super::stream::Sending;
use crate::collections::buffer::Buffer;
use crate::collections::queue::Queue;
use crate::collections::slab::Key;
use crate::http::head::{Head, HeadRef, Version};
use crate::http::message_error::MessageError;
use crate::http::part::Part;
use crate::http2::connection::Event;
use crate::http2::{self, ErrorCode, Spare};
use crate::limits::{
    H2_DRIBBLE_BYTES, H2_GROWTH_BYTES, H2_REPLY_BYTES, H2_SPARE_BYTES, H2_WINDOW_BYTES, QUEUE_HIGH_BYTES,
};

impl Proxy {
    /// Writes queued content of streams into frames, one frame per stream in rotation, while the mux has room.
    pub(in crate::proxy) fn send_streams(&mut self, key: Key) {
        let mut fruitless = 0;
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            let unsendable = !connection.is_sendable();
            let full = connection.output.len() >= QUEUE_HIGH_BYTES;
            let Some(mux) = connection.codec.mux_mut() else { return };
            if full || fruitless >= mux.h2.lined_up() {
                return;
            }
            let Some((id, owner, room)) = mux.h2.next_in_line() else { return };
            let Some(stream) = self.connections.living_mut(owner) else { continue };
            let goes_on = stream.after_flush == Ending::GoesOn && !unsendable;
            let ends = stream.codec.stream().is_some_and(|stream| stream.sending == Sending::Ending);
            if goes_on && !ends && stream.output.is_empty() {
                // Its window has grown, but it has nothing to send.
                continue;
            }
            if unsendable {
                stream.output.clear(&mut self.scratch.buffers);
            }
            let mut queue = std::mem::take(&mut stream.output);
            let moved = self.send_stream(key, id, owner, room, &mut queue);
            let rest = queue.len();
            let Some(stream) = self.connections.living_mut(owner) else { continue };
            let exchange = stream.exchange;
            if rest > 0 {
                // A few bytes that wait do not occupy a block.
                queue.shrink(&mut self.scratch.buffers);
            }
            stream.output = queue;
            self.totals.grown -= stream.take_held();
            let ends_here = stream.is_client() || stream.after_flush == Ending::Finish;
            let ends = stream.codec.stream().is_some_and(|stream| stream.sending == Sending::Ending);
            if moved {
                fruitless = 0;
            }
            if let Some(mux) = self.connections.get_mut(key).and_then(|one| one.codec.mux_mut())
                && (rest > 0 && !mux.h2.is_blocked(id) || rest == 0 && ends)
            {
                mux.h2.line_up(id);
                // Only a stream that is in line again may wait for the window of the connection.
                fruitless += usize::from(!moved);
            }
            self.changed(owner, if moved { Moved::Out } else { Moved::Nothing });
            let opposite = exchange.and_then(|id| self.opposite(id, owner));
            if let Some(opposite) = opposite {
                if rest < QUEUE_HIGH_BYTES {
                    self.wake(opposite);
                }
                self.changed(opposite, Moved::Nothing);
            }
            match exchange {
                _ if rest > 0 => {}
                _ if ends_here => self.on_flushed(owner),
                exchange => exchange.into_iter().for_each(|id| self.finish_if_over(id)),
            }
        }
    }

    /// Sends one frame of a stream whose content is `queue`. Returns false if there is none to send.
    fn send_stream(&mut self, key: Key, id: u32, owner: Key, room: usize, queue: &mut Queue) -> bool {
        let Some(entry) = self.connections.living_mut(owner) else { return false };
        let Some(stream) = entry.codec.stream_mut() else { return false };
        let length = queue.len().min(room);
        let last = stream.sending == Sending::Ending && length == queue.len();
        if length == 0 && !last {
            return false;
        }
        if last {
            stream.sending = Sending::Ended;
        }
        let trailers = if last { std::mem::take(&mut stream.trailers) } else { Box::default() };
        let Some(connection) = self.connections.living_mut(key) else { return false };
        let Codec::Mux(mux) = &mut connection.codec else { return false };
        let before = connection.output.len();
        if length > 0 || trailers.is_empty() {
            let Some(header) = mux.h2.data(id, length, last && trailers.is_empty()) else { return false };
            if (1..H2_DRIBBLE_BYTES).contains(&length) && length < queue.len() {
                mux.h2.note_dribble();
            }
            connection.output.write(&mut self.scratch.buffers, &header);
            queue.pass(&mut self.scratch.buffers, &mut connection.output, length);
        }
        if !trailers.is_empty() {
            self.scratch.text.clear();
            mux.h2.write_fields(id, &trailers, true, &mut self.scratch.text);
            connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
        }
        let frames = connection.output.len() - before;
        self.note_queued(key, owner, frames, last);
        true
    }

    /// Decodes the input of a mux.
    pub(in crate::proxy) fn pump_mux(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.codec.mux().and_then(Mux::downstream).is_some_and(|downstream| downstream.awaits_turn) {
            return;
        }
        let mut input = connection.input.take();
        if let (Some(mux), true) = (connection.codec.mux_mut(), input.is_some()) {
            mux.heard_us = self.now_us;
            mux.h2.set_clock(self.now_us);
        }
        let mut head = std::mem::take(&mut self.scratch.head);
        let mut arena = std::mem::take(&mut self.scratch.arena);
        let (mut turn, mut is_over) = (self.begin_turn(key), false);
        while !is_over && self.step_mux(key, &mut input, &mut head, &mut arena) {
            is_over = self.is_turn_over(key, &mut turn);
        }
        (self.scratch.head, self.scratch.arena) = (head, arena);
        let kept = input.and_then(|buffer| self.scratch.buffers.keep(buffer));
        let owes_event = |connection: &Connection| connection.codec.mux().is_some_and(|mux| mux.h2.owes_event());
        let more = is_over && (kept.is_some() || self.connections.get(key).is_some_and(owes_event));
        self.wait_for_turn(key, more);
        match self.connections.get_mut(key) {
            Some(connection) if !connection.drops_input() => {
                let rest = kept.as_ref().map_or(&[][..], Buffer::filled);
                if let Codec::Mux(mux) = &mut connection.codec
                    && mux.note_block(rest, self.now_us)
                    && connection.wait == Wait::Block
                {
                    // The limit applies to each block. Other limits go on, however many heads arrive in pieces.
                    connection.wait = Wait::Nothing;
                }
                connection.input = kept;
                match connection.has_ended() && !more {
                    false => {}
                    true if connection.is_client() => self.client_ended(key, Receive::Ended),
                    true => self.mux_failed(key, Failure::Closed),
                }
            }
            _ => kept.into_iter().for_each(|buffer| self.scratch.buffers.give(buffer)),
        }
        self.ledger.tend(key);
    }

    /// Decodes one frame or a part of one. Returns false if more bytes are needed first.
    fn step_mux(&mut self, key: Key, input: &mut Option<Buffer>, head: &mut Head, arena: &mut Vec<u8>) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        if connection.drops_input() {
            return false;
        }
        let Codec::Mux(mux) = &mut connection.codec else { return false };
        let bytes = input.as_ref().map_or(&[][..], Buffer::filled);
        self.scratch.text.clear();
        let decoded = mux.h2.decode(bytes, head, arena, &mut self.scratch.text);
        let decoded = match decoded {
            Ok(_) if mux.replies(connection.output.len() + self.scratch.text.len()) > H2_REPLY_BYTES => {
                // The peer causes replies, and reads none of them.
                let (code, reason) = (ErrorCode::ENHANCE_YOUR_CALM, "answers that are not taken");
                Err(http2::Error { code, reason, cause: http2::Cause::Unread })
            }
            other => other,
        };
        let (skip, event) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                self.break_off(key, error);
                return false;
            }
        };
        let is_strained = mux.h2.strain().is_some();
        connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
        if let Some(buffer) = input {
            buffer.consume(skip);
        }
        if is_strained {
            // One read may spend the rest of the budget, too.
            self.announce_shutdown(key);
        }
        if event == Event::NeedMore {
            return false;
        }
        self.on_event(key, event, input, HeadRef { bytes: arena, head });
        true
    }

    fn on_event(&mut self, key: Key, event: Event, input: &mut Option<Buffer>, head: HeadRef<'_>) {
        match event {
            Event::Opened(id) => self.accept_stream(key, id, None, head),
            Event::Unheard(id, error) => self.accept_stream(key, id, Some(error), head),
            Event::Head(stream) | Event::Interim(stream) | Event::Trailers(stream) => {
                self.on_fields(stream, event, head);
            }
            Event::Data(owner, length) => self.on_stream_data(owner, input, length),
            Event::End(stream) => self.on_stream_end(stream),
            Event::Reset(stream, code) => self.on_reset(stream, code),
            Event::Malformed(stream, refusal) => {
                if let Some(entry) = self.connections.get_mut(stream).and_then(|entry| entry.codec.stream_mut()) {
                    entry.code = ErrorCode::PROTOCOL_ERROR;
                }
                self.refuse(stream, refusal, &[]);
            }
            Event::GoAway(code) => self.on_goaway(key, code),
            Event::Room => self.note_capacity(key),
            Event::Refused => self.count_reset(Some(ErrorCode::REFUSED_STREAM)),
            Event::Pong => self.complete_shutdown(key),
            Event::Nothing | Event::NeedMore => {}
        }
    }

    fn on_stream_end(&mut self, key: Key) {
        let is_held = self.is_held(key);
        let Some(entry) = self.connections.living_mut(key) else { return };
        if entry.is_probe() {
            return self.on_probe_end(key);
        }
        let peer = entry.peer;
        match entry.codec.stream_mut() {
            Some(stream) if !stream.is_complete() => self.refuse(key, MessageError::LengthWrong, &[]),
            Some(stream) if is_held => stream.hold_end(),
            Some(_) => {
                if let Some(seen) = self.upstreams.seen(peer) {
                    seen.faults = 0;
                }
                self.on_end(key, false);
                // The end was queued for the backend.
                self.recount(key);
            }
            None => {}
        }
    }

    fn on_fields(&mut self, stream: Key, event: Event, head: HeadRef<'_>) {
        let Some(entry) = self.connections.living(stream) else { return };
        let probe = entry.is_probe();
        let part = match event {
            Event::Interim(_) => Part::Interim(head.bytes.len()),
            Event::Trailers(_) => Part::Trailers(head.bytes.len()),
            _ => Part::Head(head.bytes.len()),
        };
        if self.settings.trace {
            self.trace_fields(stream, part, head);
        }
        match part {
            part if probe => self.on_probe_fields(stream, part, head),
            Part::Trailers(_) if self.is_held(stream) => self.hold_trailers(stream, head),
            Part::Interim(_) => self.on_interim(stream, head),
            Part::Trailers(_) => self.on_trailers(stream, head),
            _ => self.on_response(stream, head),
        }
        // One read may have fields of many streams, and each block counts by itself.
        let backend = self.connections.get_mut(stream).and_then(Connection::backend_mut);
        let is_useless = backend.is_some_and(|backend| std::mem::take(&mut backend.no_progress));
        self.changed(stream, if is_useless { Moved::Nothing } else { Moved::In });
    }

    /// Handles content of a stream. It is dropped if the stream has no owner.
    fn on_stream_data(&mut self, owner: Option<Key>, input: &mut Option<Buffer>, length: usize) {
        let entry = owner.and_then(|owner| self.connections.get_mut(owner));
        let Some(stream) = entry.and_then(|entry| entry.codec.stream_mut()) else {
            return input.iter_mut().for_each(|buffer| buffer.consume(length));
        };
        let fits = stream.count(length);
        let Some(owner) = owner else { return };
        if !fits {
            input.iter_mut().for_each(|buffer| buffer.consume(length));
            return self.refuse(owner, MessageError::LengthWrong, &[]);
        }
        if self.settings.trace
            && let Some(buffer) = input
        {
            self.trace_content(owner, &buffer.filled()[..length]);
        }
        let probe = self.connections.get(owner).is_some_and(Connection::is_probe);
        if probe || self.is_held(owner) {
            if let Some(buffer) = input {
                self.hold(owner, &buffer.filled()[..length]);
                buffer.consume(length);
            }
            if probe {
                self.on_probe_content(owner);
            }
            return self.changed(owner, Moved::In);
        }
        *input = self.on_data(owner, input.take(), length);
        self.recount(owner);
        self.changed(owner, Moved::In);
        self.delivered(owner, length);
    }

    /// Credits the peer with content that has gone to its consumer.
    pub(in crate::proxy) fn delivered(&mut self, owner: Key, length: usize) {
        let Some(entry) = self.connections.get(owner) else { return };
        let Some(stream) = entry.codec.stream() else { return };
        let (key, id, is_client) = (stream.mux, stream.id, entry.is_client());
        let spare = self.wants(owner).then(|| self.spare_of(entry));
        let Some(connection) = self.connections.living_mut(key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        self.scratch.text.clear();
        let growth = mux.h2.delivered(id, length, spare, &mut self.scratch.text);
        if !self.scratch.text.is_empty() {
            connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
            self.ledger.tend(key);
        }
        if growth > 0 && !is_client {
            self.note_growth(owner, growth);
        }
    }

    /// Returns the growth that the window of a stream may have.
    fn spare_of(&self, entry: &Connection) -> Spare {
        if let Some(stream) = entry.codec.stream().filter(|_| entry.is_client()) {
            return Spare { free: 0, lent: self.spare(stream.mux) };
        }
        let client = entry.exchange.and_then(|id| self.connections.get(self.exchanges.get(id)?.client));
        match client.is_some_and(|client| client.codec.stream().is_some()) {
            true => Spare { free: 0, lent: (H2_SPARE_BYTES as usize).saturating_sub(self.promised()) as u32 },
            false => {
                let taken = self.totals.grown as usize + self.totals.lent;
                Spare { free: H2_WINDOW_BYTES, lent: (H2_GROWTH_BYTES as usize).saturating_sub(taken) as u32 }
            }
        }
    }

    /// Notes that the window of a stream has grown for its client.
    fn note_growth(&mut self, owner: Key, growth: u32) {
        let exchange = self.connections.get(owner).and_then(|stream| self.exchanges.get(stream.exchange?));
        let client = exchange.map(|exchange| exchange.client);
        let entry = self.connections.get_mut(owner).and_then(|entry| entry.codec.stream_mut());
        if let (Some(stream), Some(client)) = (entry, client) {
            stream.consumer = Some(client);
            stream.growth += growth;
            self.totals.grown += growth;
        }
    }

    /// True if the message on a stream waits in the stream's input, because no backend accepts it yet.
    fn is_held(&self, key: Key) -> bool {
        self.connections.get(key).is_some_and(|entry| self.holds(entry) || entry.input.is_some())
    }

    /// Keeps content of a stream in its input.
    fn hold(&mut self, key: Key, content: &[u8]) {
        let Some(entry) = self.connections.get_mut(key) else { return };
        match entry.drops_input() {
            true => {}
            false => entry.input = Some(self.scratch.buffers.extend(entry.input.take(), content)),
        }
    }

    /// Keeps the trailers of a stream behind its content.
    fn hold_trailers(&mut self, key: Key, trailers: HeadRef<'_>) {
        if self.connections.get(key).and_then(|entry| entry.codec.stream()).is_some_and(|one| !one.is_complete()) {
            return self.refuse(key, MessageError::LengthWrong, &[]);
        }
        self.hold(key, trailers.bytes);
        if let Some(stream) = self.connections.get_mut(key).and_then(|entry| entry.codec.stream_mut()) {
            stream.hold_trailers(trailers);
        }
    }

    /// Handles an RST_STREAM from the peer.
    fn on_reset(&mut self, stream: Key, code: ErrorCode) {
        if self.connections.get(stream).is_some_and(Connection::is_client) {
            self.count_reset(None);
            return self.client_gone(stream, Reason::ClientLeft(Abort::Reset));
        }
        let peer = self.connections.get(stream).map(|entry| entry.peer);
        match code {
            ErrorCode::REFUSED_STREAM => self.lost(stream, Failure::Refused, false),
            ErrorCode::HTTP_1_1_REQUIRED => match peer {
                // The backend would answer the same again.
                Some(Peer::Backend(BackendEnd { slot, .. })) if self.upstreams.is_h2c(slot.into()) => {
                    self.lost(stream, Failure::Http11Required, false);
                }
                Some(peer) => {
                    self.upstreams.speaks_only(peer, Version::Http11, self.now_us);
                    self.lost(stream, Failure::Unprocessed, false);
                }
                None => {}
            },
            code => self.backend_failed(stream, Failure::Reset(code)),
        }
    }
}
