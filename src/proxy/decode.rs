//! Decodes the input of a connection. Each part is decoded once, and goes to the function for it. Input waits here
//! while nothing can be done with it.

use super::Proxy;
use super::abort::Abort;
use super::codec::{Detected, detect};
use super::connection::{Connection, Ending, Phase};
use super::failure::Failure;
use super::output::Output;
use super::progress::Progress;
use super::record::{Reason, first_line};
use super::reply::LocalReply;
use crate::collections::buffer::Buffer;
use crate::collections::slab::Key;
use crate::http::head::{Head, HeadRef, Start, Version};
use crate::http::message_error::MessageError;
use crate::http::part::Part;
use crate::limits::QUEUE_HIGH_BYTES;

impl Proxy {
    /// True if a connection's input has to wait until a backend is connected, or until the client has read earlier
    /// responses.
    pub(super) fn holds(&self, connection: &Connection) -> bool {
        if !connection.is_client() {
            return false;
        }
        match connection.exchange.and_then(|id| self.exchanges.living(id)) {
            Some(exchange) => {
                let backend = exchange.backend().and_then(|key| self.connections.get(key));
                if exchange.facts.is_connect() {
                    // The bytes behind the request are those of the tunnel.
                    return !exchange.is_tunnel();
                }
                exchange.request == Progress::Flowing && backend.is_none_or(|backend| backend.phase != Phase::Open)
            }
            None => connection.output.len() >= QUEUE_HIGH_BYTES,
        }
    }

    /// Notes that a connection's input may be decoded further, and that it may be read again. Decoding that is under
    /// way goes on anyway.
    pub(super) fn decode_further(&mut self, key: Key) {
        let is_paused = || self.connections.get(key).is_some_and(|connection| connection.read_paused);
        if self.ledger.decoding != Some(key) || is_paused() {
            self.ledger.resumed.push(key);
        }
    }

    /// Decodes a connection's input as far as possible.
    pub(super) fn pump(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let is_new = connection.client().is_some_and(|client| !client.seen_request && !client.admin);
        let decides = is_new && connection.codec.awaits_head() && !connection.drops_input() && !connection.has_ended();
        let bytes = connection.input.as_ref().filter(|_| decides).map_or(&[][..], Buffer::filled);
        match detect(bytes) {
            Detected::Http1 => {}
            Detected::Undecided => return,
            Detected::Http2 => self.become_http2(key),
        }
        let Some(connection) = self.connections.living_mut(key) else { return };
        if connection.codec.mux().is_some() && connection.phase == Phase::Open {
            return self.pump_mux(key);
        }
        let mut input = connection.input.take();
        let mut head = std::mem::take(&mut self.scratch.head);
        let mut held = false;
        self.ledger.decoding = Some(key);
        while let Some(connection) = self.connections.get(key) {
            if connection.drops_input() {
                // Input behind the last message is dropped.
                if let Some(buffer) = input.take() {
                    self.scratch.buffers.give(buffer);
                }
                break;
            }
            if connection.codec.needs_bytes() && !connection.has_ended() && input.as_ref().is_none_or(Buffer::is_empty)
            {
                break;
            }
            held = self.holds(connection);
            if held || !self.step(key, &mut input, &mut head) {
                break;
            }
        }
        self.ledger.decoding = None;
        self.scratch.head = head;
        let kept = input.and_then(|buffer| self.scratch.buffers.keep(buffer));
        match self.connections.get_mut(key) {
            Some(connection) => {
                if connection.drops_input() {
                    // The last part has ended the connection, and lingering needs the room.
                    kept.into_iter().for_each(|buffer| self.scratch.buffers.give(buffer));
                } else {
                    connection.input = kept;
                }
                if connection.has_ended() && !held {
                    self.input_ended(key);
                }
            }
            None => kept.into_iter().for_each(|buffer| self.scratch.buffers.give(buffer)),
        }
    }

    /// Decodes one part and acts on it. Returns false if more bytes are needed first.
    fn step(&mut self, key: Key, input: &mut Option<Buffer>, head: &mut Head) -> bool {
        let Some(connection) = self.connections.living_mut(key) else { return false };
        let (is_client, probe) = (connection.is_client(), connection.is_probe());
        // The content of a stream was traced when it arrived.
        let trace = self.settings.trace && connection.codec.stream().is_none();
        let bytes = input.as_ref().map_or(&[][..], Buffer::filled);
        if connection.exchange.is_none() && !is_client && !connection.is_probe() {
            if !bytes.is_empty() {
                // These bytes belong to no response, so the connection cannot be used.
                self.close(key, Output::Close(key));
            }
            return false;
        }
        let (skip, part) = match connection.codec.decode(bytes, head) {
            Ok(decoded) => decoded,
            Err(refusal) => {
                if self.settings.trace {
                    self.trace_refused(key, bytes);
                }
                self.refuse(key, refusal, bytes);
                return false;
            }
        };
        if let Some(buffer) = input {
            buffer.consume(skip);
        }
        let bytes = input.as_ref().map_or(&[][..], Buffer::filled);
        let consumed = match part {
            Part::NeedMore => return false,
            Part::Head(n) | Part::Interim(n) | Part::Trailers(n) => {
                let head = HeadRef { bytes: &bytes[..n], head };
                if trace {
                    self.trace_received(key, part, head.bytes, head);
                }
                match (part, is_client) {
                    (Part::Interim(_), _) if probe => {}
                    _ if probe => self.on_probe_response(key, head),
                    (Part::Trailers(_), _) => self.on_trailers(key, head),
                    (_, true) => self.on_request(key, head),
                    (Part::Interim(_), false) => self.on_interim(key, head),
                    (_, false) => self.on_response(key, head),
                }
                n
            }
            Part::Data(n) => {
                if trace {
                    self.trace_content(key, &bytes[..n]);
                }
                *input = self.on_data(key, input.take(), n);
                self.delivered(key, n);
                0
            }
            Part::End => {
                let left_over = !bytes.is_empty();
                self.on_end(key, left_over);
                0
            }
        };
        if let Some(buffer) = input {
            buffer.consume(consumed);
        }
        true
    }

    /// Refuses a request whose head was decoded.
    pub(super) fn refuse_request(&mut self, key: Key, error: MessageError, head: HeadRef<'_>) {
        match head.head.start {
            // The bytes of its head are not a line that the log can show.
            Start::Request { path, .. } if head.head.version == Version::Http2 => {
                self.refuse(key, error, &[head.method(), b" ", head.get(path)].concat());
            }
            _ => self.refuse(key, error, head.bytes),
        }
    }

    /// Refuses a message that is malformed or exceeds a limit. `bytes` is its beginning if it is the head of a request.
    pub(super) fn refuse(&mut self, key: Key, refusal: MessageError, bytes: &[u8]) {
        let Some(connection) = self.connections.get(key) else { return };
        if !connection.is_client() {
            self.backend_failed(key, Failure::Malformed(refusal));
        } else if !connection.codec.awaits_head() {
            self.upload_failed(key, Reason::Replied(LocalReply::Refused(refusal)));
        } else {
            self.answer_client(key, LocalReply::Refused(refusal), bytes);
        }
    }

    /// Handles the end of the peer's direction, once all input before it is decoded.
    fn input_ended(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase == Phase::Lingering {
            self.close(key, Output::Close(key));
            return;
        }
        let exchange = connection.exchange.and_then(|id| self.exchanges.living(id));
        match (exchange, connection.is_client()) {
            (Some(exchange), _) if exchange.is_tunnel() => self.tunnel_ended(key),
            (None, false) if connection.is_probe() => self.lost(key, Failure::Closed, false),
            (None, false) => self.close(key, Output::Close(key)),
            (Some(_), false) if connection.codec.ends_by_close() => self.on_end(key, true),
            (Some(_), false) => self.backend_failed(key, Failure::Closed),
            // A client may end its direction behind a complete request, and gets its response.
            (Some(exchange), true) if exchange.request == Progress::Ended => {}
            (Some(_), true) => {
                self.upload_failed(key, Reason::ClientLeft(Abort::Incomplete));
            }
            // The ending is already decided.
            (None, true) if connection.after_flush != Ending::GoesOn => {}
            (None, true) if connection.input.as_ref().is_some_and(|input| !is_empty_line(input)) => {
                self.end_unfinished(key, LocalReply::Refused(MessageError::HeadCutShort))
            }
            (None, true) if connection.output.is_empty() => self.close(key, Output::Close(key)),
            (None, true) => connection.after_flush = Ending::Close,
        }
    }

    /// Replies to a client whose request head is incomplete and too late. An empty line is no part of a request.
    pub(super) fn end_unfinished(&mut self, key: Key, answer: LocalReply) {
        let input = self.connections.get(key).and_then(|client| client.input.as_ref());
        if input.is_some_and(is_empty_line) {
            return self.close(key, Output::Close(key));
        }
        let begun = input.map(|input| first_line(input.filled()).to_vec()).unwrap_or_default();
        self.answer_client(key, answer, &begun);
    }
}

/// True if input is an empty line that precedes no request (RFC 9112, 2.2). A CRLF is skipped when it arrives.
fn is_empty_line(input: &Buffer) -> bool {
    matches!(input.filled(), b"\r" | b"\n")
}
