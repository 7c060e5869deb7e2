//! Muxes to clients, and the streams that the client opens on them.
//!
//! Each stream carries one request and is a client's connection to the rest of the proxy: its `peer` is a copy of the
//! mux's. It is in neither `clients` nor the shell, and ends with its response. The endings of a connection are frames
//! here: `Close` and `Linger` mean END_STREAM behind the queue, then RST_STREAM NO_ERROR if the request is incomplete
//! (RFC 9113, 8.1). `Reset` means RST_STREAM INTERNAL_ERROR, and CANCEL for a tunnel. `Finish` is the END_STREAM of a
//! tunnel.
//!
//! A mux is shut down in two steps (RFC 9113, 6.8), so that no request is lost that is on its way: a GOAWAY that still
//! allows all streams, with a PING, then a GOAWAY with the last stream once the PING is acknowledged or is late.

use std::cell::Cell;

use super::super::Proxy;
use super::super::abort::Abort;
use super::super::codec::Codec;
use super::super::connection::{Connection, Ending, Moved, Receive, Send};
use super::super::output::Output;
use super::super::record::Reason;
use super::super::reply::LocalReply;
use super::defence::Goodbye;
use super::stream::{ReplyForm, Sending, Stream};
use super::{Mux, MuxKind};
use crate::collections::slab::Key;
use crate::http::head::HeadRef;
use crate::http::message_error::MessageError;
use crate::http::part::{Part, Role};
use crate::http2::{self, ErrorCode};
use crate::limits::{H2_CLIENT_REQUESTS, H2_CLIENT_STREAMS, H2_FRAME_BYTES, H2_REQUESTS, H2_STREAM_BYTES};
use crate::metrics::Count;

/// The progress of the shutdown of a mux to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ShutdownStep {
    /// There is none.
    None,
    /// The client knows that the mux ends, and may not know it yet when it opens a stream.
    Announced,
    /// The client knows the last stream that is served.
    Final,
}

/// The state of a mux to a client.
#[derive(Debug)]
pub(in crate::proxy) struct DownstreamState {
    pub(in crate::proxy) shutdown: ShutdownStep,
    /// The bytes that the mux is charged for (`account`): those of its streams, and `queued`.
    pub(in crate::proxy) held: usize,
    /// The bytes in its own queue and in those of `owned`, as they were counted last.
    pub(in crate::proxy) queued: usize,
    /// The bytes in the queues of the muxes to backends that belong to this client.
    pub(in crate::proxy) owned: usize,
    /// A stream or the client got no credit, because the mux may hold no more.
    pub(in crate::proxy) is_held_back: Cell<bool>,
    /// True if the mux is one of the borrowers.
    pub(in crate::proxy) is_borrower: bool,
    /// Decides which of the streams that were held back is the first to go on.
    pub(in crate::proxy) turn: usize,
    /// The rest of the input waits for the next turn. Nothing is read until then.
    pub(in crate::proxy) awaits_turn: bool,
    /// The client has ended its direction behind the input that waits for a turn.
    ends_after_turn: bool,
    /// The number of requests.
    pub(super) requests: u32,
    /// The number of requests when the mux waited for a further one last, and the time at which that wait began.
    idle_since: Option<(u32, u64)>,
}

impl DownstreamState {
    fn new() -> DownstreamState {
        DownstreamState {
            shutdown: ShutdownStep::None,
            held: 0,
            queued: 0,
            owned: 0,
            is_held_back: Cell::new(false),
            is_borrower: false,
            turn: 0,
            awaits_turn: false,
            ends_after_turn: false,
            requests: 0,
            idle_since: None,
        }
    }
}

impl Mux {
    /// Returns the time since which the mux has waited for a further request. A PING and its acknowledgement do not
    /// begin another wait.
    pub(in crate::proxy) fn idle_since_us(&mut self, now_us: u64) -> u64 {
        let MuxKind::Downstream(downstream) = &mut self.kind else { return now_us };
        let requests = downstream.requests;
        match downstream.idle_since {
            Some((before, since_us)) if before == requests => return since_us,
            _ => downstream.idle_since = Some((requests, now_us)),
        }
        now_us
    }

    /// The progress of the shutdown of a mux to a client.
    fn shutdown_mut(&mut self) -> Option<&mut ShutdownStep> {
        if let MuxKind::Downstream(downstream) = &mut self.kind { Some(&mut downstream.shutdown) } else { None }
    }
}

impl Proxy {
    /// Handles a client that has agreed to HTTP/2 in its TLS handshake, so that its first bytes decide nothing. Must
    /// precede its first bytes.
    pub fn accepted_http2(&mut self, key: Key) {
        self.become_http2(key);
        self.rearm(key, Moved::Nothing);
        self.resume();
    }

    /// Turns the connection of a client into a mux, because it has sent the preface of HTTP/2.
    pub(in crate::proxy) fn become_http2(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            let mut mux = Mux::new(Role::Server, MuxKind::Downstream(DownstreamState::new()), self.now_us);
            mux.h2.limit_streams(H2_CLIENT_STREAMS);
            mux.h2.limit_window();
            mux.h2.accept_connect();
            self.scratch.text.clear();
            mux.h2.greet(&mut self.scratch.text);
            connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
            connection.codec = Codec::Mux(Box::new(mux));
        }
        self.ledger.tend(key);
    }

    /// Serves a request that a client has sent on a new stream. `error`: its head is malformed, or exceeds a limit.
    pub(super) fn accept_stream(&mut self, mux_key: Key, id: u32, error: Option<MessageError>, head: HeadRef<'_>) {
        let Some(connection) = self.connections.living_mut(mux_key) else { return };
        let Some(client) = connection.client_mut() else { return };
        client.seen_request = true;
        let mut entry = Connection::new(connection.peer);
        entry.receive = connection.receive;
        let mut stream = Stream::opened(mux_key, id);
        stream.reply = ReplyForm::of(head, error.is_none());
        stream.charged = H2_STREAM_BYTES;
        let is_call = stream.reply == ReplyForm::Grpc;
        entry.codec = Codec::Stream(stream);
        entry.client_mut().into_iter().for_each(|client| client.held = 0);
        let key = self.connections.insert(entry);
        let Some(mux) = self.connections.living_mut(mux_key).and_then(|one| one.codec.mux_mut()) else { return };
        mux.h2.own(id, key);
        if let MuxKind::Downstream(downstream) = &mut mux.kind {
            downstream.requests += 1;
        }
        self.charge(mux_key, 0, H2_STREAM_BYTES);
        self.totals.streams += 1;
        self.shared.block.add(Count::H2Streams, 1);
        match error {
            None if self.totals.streams > H2_REQUESTS => self.answer_client(key, LocalReply::TooManyRequests, &[]),
            // The head is kept as long as its request.
            None if head.bytes.len() > H2_FRAME_BYTES && !self.may_send_head(mux_key) => {
                self.shared.block.add(Count::H2BudgetExhausted, 1);
                self.answer_client(key, LocalReply::NoMemory, &[]);
            }
            None => {
                if self.settings.trace {
                    self.trace_fields(key, Part::Head(0), head);
                }
                self.on_request(key, head);
            }
            // The client may learn that the proxy takes no message as large, and that the host is unclear. A gRPC
            // client expects a status.
            Some(error) if error.status() != 400 || is_call || error == MessageError::HostInvalid => {
                self.refuse(key, error, &[]);
            }
            Some(_) => self.reset_stream(key, ErrorCode::PROTOCOL_ERROR),
        }
        // The next stream of this read may borrow only the rest.
        self.recount(key);
        self.changed(key, Moved::Nothing);
    }

    /// Has the rest of a client's input wait for the next turn, so that other clients do not wait for many requests or
    /// frames that arrive at once. `more`: there is a rest.
    pub(super) fn wait_for_turn(&mut self, key: Key, more: bool) {
        let Some(downstream) = self.downstream_mut(key).filter(|_| more) else { return };
        downstream.awaits_turn = true;
        self.ledger.turns.push(key);
    }

    /// Notes that a client has ended its direction while input before that end waits for a turn; false if none waits.
    pub(in crate::proxy) fn ends_after_turn(&mut self, key: Key) -> bool {
        let Some(downstream) = self.downstream_mut(key).filter(|downstream| downstream.awaits_turn) else {
            return false;
        };
        downstream.ends_after_turn = true;
        true
    }

    /// Decodes the input that has waited for this turn.
    pub(in crate::proxy) fn take_turns(&mut self) {
        for key in std::mem::take(&mut self.ledger.turns) {
            self.downstream_mut(key).into_iter().for_each(|downstream| downstream.awaits_turn = false);
            self.pump(key);
            let is_last = |downstream: &mut DownstreamState| downstream.ends_after_turn && !downstream.awaits_turn;
            if self.downstream_mut(key).is_some_and(is_last) {
                self.connections.get_mut(key).into_iter().for_each(|client| client.receive = Receive::Ended);
                self.pump(key);
            }
            self.wake(key);
            self.changed(key, Moved::Nothing);
            self.set_deadlines();
        }
    }

    fn reset_stream(&mut self, key: Key, code: ErrorCode) {
        if let Some(stream) = self.connections.get_mut(key).and_then(|entry| entry.codec.stream_mut()) {
            stream.code = code;
        }
        self.close(key, Output::Close(key));
    }

    /// Ends a client's stream, or one direction of a tunnel, whose queue is empty: with END_STREAM first, unless that was
    /// sent.
    pub(in crate::proxy) fn stream_flushed(&mut self, key: Key, ending: Ending) {
        let Some(entry) = self.connections.get_mut(key) else { return };
        let Some(stream) = entry.codec.stream_mut() else { return };
        match (ending, stream.sending) {
            (Ending::GoesOn, _) => {}
            (Ending::Finish, Sending::Ended) => {
                (entry.after_flush, entry.send) = (Ending::GoesOn, Send::Finished);
                self.tunnel_flushed(key);
            }
            (Ending::Reset, _) => self.close(key, Output::Close(key)),
            (Ending::Close | Ending::Linger, Sending::Ended) => {
                // A reset of a malformed request names its fault.
                let malformed = stream.code == ErrorCode::PROTOCOL_ERROR;
                self.reset_stream(key, if malformed { ErrorCode::PROTOCOL_ERROR } else { ErrorCode::NO_ERROR });
            }
            (Ending::Close | Ending::Linger | Ending::Finish, _) => {
                stream.sending = Sending::Ending;
                self.line_up(key);
            }
        }
    }

    /// Removes the streams of a mux to a client. The mux itself remains.
    pub(in crate::proxy) fn streams_gone(&mut self, key: Key, reason: Reason) {
        let Some(mux) = self.connections.get_mut(key).and_then(|one| one.codec.mux_mut()) else { return };
        mux.h2.abandon().into_iter().for_each(|stream| self.client_gone(stream, reason));
        if self.downstream_mut(key).is_some_and(|downstream| downstream.has_streams()) {
            // The messages of these have both ended, but not all of their content has gone to their backends.
            let is_left = |stream: &Key| {
                let stream = self.connections.get(*stream).and_then(|entry| entry.codec.stream());
                stream.is_some_and(|stream| stream.mux == key)
            };
            let left: Vec<Key> = self.connections.keys().filter(is_left).collect();
            left.into_iter().for_each(|stream| self.client_gone(stream, reason));
        }
    }

    /// Notes on the streams of a mux that the client has ended its direction. They go on as a request over HTTP/1 does
    /// then. The mux ends with the last of them. A tunnel ends with END_STREAM, so one without it is cut: its backend must
    /// not take the end of the connection for the end of the content.
    pub(in crate::proxy) fn client_ended(&mut self, key: Key, receive: Receive) {
        let Some(mux) = self.connections.get(key).and_then(|one| one.codec.mux()) else { return };
        for stream in mux.h2.owners().collect::<Vec<_>>() {
            // A tunnel may have ended this direction before. Then it gets no other end.
            let Some(entry) = self.connections.get_mut(stream).filter(|entry| !entry.has_ended()) else { continue };
            entry.receive = receive;
            let is_ended = receive == Receive::Ended;
            if is_ended && self.is_cut_tunnel(stream) {
                self.client_gone(stream, Reason::ClientLeft(Abort::Closed));
                continue;
            }
            self.rearm(stream, Moved::Nothing);
            if is_ended {
                self.ledger.resumed.push(stream);
            }
        }
    }

    /// The client has broken the protocol, or exceeds a limit of the proxy. The mux ends with a GOAWAY.
    pub(super) fn break_off_client(&mut self, key: Key, error: http2::Error) {
        self.streams_gone(key, Reason::ClientLeft(Abort::Reset));
        self.note_client_fault(key, error);
        self.say_goodbye(key, error.code);
        self.end(key, Ending::Linger);
    }

    /// Ends a mux without streams: the client may send a request that was on its way again (RFC 9113, 8.7).
    pub(in crate::proxy) fn end_idle_downstream(&mut self, key: Key) {
        self.count_goodbye(Goodbye::Idle);
        self.say_goodbye(key, ErrorCode::NO_ERROR);
        self.end(key, Ending::Linger);
    }

    /// Tells the client the last stream that is served, and why.
    fn say_goodbye(&mut self, key: Key, code: ErrorCode) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        mux.shutdown_mut().into_iter().for_each(|shutdown| *shutdown = ShutdownStep::Final);
        self.scratch.text.clear();
        mux.h2.farewell(code, &mut self.scratch.text);
        connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
    }

    /// Begins the shutdown of a mux to a client if the proxy drains, if the mux has served many requests, or if
    /// the client has spent most of a budget.
    pub(super) fn announce_shutdown(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        let requests = mux.downstream().map_or(0, |downstream| downstream.requests);
        let strain = mux.h2.strain();
        let reason = match () {
            () if self.shutdown.draining => Goodbye::Drain,
            () if requests >= H2_CLIENT_REQUESTS => Goodbye::Requests,
            () if strain.is_some() => Goodbye::Strained,
            () => return,
        };
        if let Some(shutdown) = mux.shutdown_mut().filter(|shutdown| **shutdown == ShutdownStep::None) {
            *shutdown = ShutdownStep::Announced;
            self.scratch.text.clear();
            mux.h2.announce_goaway(&mut self.scratch.text);
            connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
            self.count_goodbye(reason);
            if let Some(strain) = strain.filter(|_| reason == Goodbye::Strained) {
                self.log_goodbye(key, strain, ErrorCode::NO_ERROR);
            }
        }
    }

    /// Completes the shutdown: all streams that the client opened before it knew of the shutdown have arrived, or the
    /// time for that has passed.
    pub(in crate::proxy) fn complete_shutdown(&mut self, key: Key) {
        let Some(mux) = self.connections.get_mut(key).and_then(|one| one.codec.mux_mut()) else { return };
        if mux.shutdown_mut() == Some(&mut ShutdownStep::Announced) {
            self.say_goodbye(key, ErrorCode::NO_ERROR);
            self.ledger.tend(key);
        }
    }

    /// Has the muxes to clients begin their shutdown, because the proxy drains.
    pub(in crate::proxy) fn shut_down_muxes(&mut self) {
        let is_mux = |key: &Key| {
            let mux = self.connections.get(*key).and_then(|one| one.codec.mux());
            mux.is_some_and(|mux| matches!(mux.kind, MuxKind::Downstream(_)))
        };
        let muxes: Vec<Key> = self.connections.keys().filter(is_mux).collect();
        self.ledger.tending.extend(muxes);
    }

    /// Ends a mux to a client, because the program stops. The ends of its streams are in their queues. A stream is reset
    /// if the client's windows do not admit its end.
    pub(in crate::proxy) fn stop_mux(&mut self, key: Key) {
        if self.connections.get(key).is_some_and(|mux| mux.send != Send::Open) {
            // Our direction has ended, so nothing can be sent any more.
            return self.close(key, Output::Close(key));
        }
        self.send_streams(key);
        let Some(mux) = self.connections.get(key).and_then(|one| one.codec.mux()) else { return };
        let left: Vec<Key> = mux.h2.owners().collect();
        left.into_iter().for_each(|stream| self.close(stream, Output::Close(stream)));
        self.say_goodbye(key, ErrorCode::NO_ERROR);
        self.end(key, Ending::Close);
    }

    /// Ends a mux to a client that has no streams and gets no more; true if it did.
    pub(super) fn end_unused_downstream(&mut self, key: Key) -> bool {
        let Some(connection) = self.connections.get(key) else { return true };
        let Some(mux) = connection.codec.mux() else { return true };
        let is_final = mux.downstream().is_some_and(|downstream| downstream.shutdown == ShutdownStep::Final);
        let over = mux.h2.is_spent() || is_final || connection.has_ended();
        let ends = over && mux.is_idle();
        if ends {
            self.end(key, Ending::Linger);
        }
        ends
    }
}
