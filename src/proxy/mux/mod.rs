//! Connections that multiplex streams: HTTP/2 in either direction.
//!
//! A mux has no exchange. Each of its streams is a connection to the rest of the proxy. A mux is of one of two kinds:
//! - `upstream`: to a backend. The proxy opens the streams, which may wait for their turn.
//! - `downstream`: to a client. The client opens the streams, and each carries one request.
//!
//! `frames` is common to both: content into frames, and frames into their meaning. `stream` is the state of one
//! stream. `account` bounds the memory that clients make a worker hold. `close` ends an
//! upstream mux, and `defence` counts and logs the reasons for which downstream ones end.
//!
//! Invariants: a stream waits, or its mux knows its number, never both. Nothing is sent on a stream beyond its window.
//! `tend` does the outstanding work of a mux once for all that has happened.

mod account;
mod close;
mod defence;
mod downstream;
mod frames;
mod stream;
mod turn;
mod upstream;

use std::collections::VecDeque;

pub(in crate::proxy) use self::account::mux_bytes;
pub(in crate::proxy) use self::downstream::{DownstreamState, ShutdownStep};
pub(in crate::proxy) use self::stream::{ReplyForm, Sending, Stream};
pub(in crate::proxy) use self::upstream::{Scope, UpstreamState};
use super::Proxy;
use super::connection::{Moved, Phase, Wait};
use crate::collections::slab::Key;
use crate::http::part::Role;
use crate::http2::connection::Connection as Http2;
use crate::limits::{H2_BLOCK_GRACE_US, QUEUE_HIGH_BYTES};

/// A connection that multiplexes streams.
#[derive(Debug)]
pub(in crate::proxy) struct Mux {
    pub(in crate::proxy) h2: Http2,
    /// The time of the last bytes from the peer, in microseconds.
    pub(in crate::proxy) heard_us: u64,
    /// An incomplete block of fields: its number on this connection, and the time of its beginning in microseconds.
    block: Option<(u64, u64)>,
    queued: Accounting,
    pub(in crate::proxy) kind: MuxKind,
}

/// The side of the proxy that a mux is on.
#[derive(Debug)]
pub(in crate::proxy) enum MuxKind {
    /// To a backend. The proxy opens the streams.
    Upstream(UpstreamState),
    /// To a client. The client opens the streams.
    Downstream(DownstreamState),
}

/// The frames of streams that are in the queue of their mux.
#[derive(Debug)]
struct Accounting {
    /// The number of bytes sent on the connection.
    sent: u64,
    /// The time when bytes were last sent, in microseconds.
    moved_us: u64,
    frames: VecDeque<QueuedFrame>,
    /// The sum of the lengths.
    bytes: usize,
}

/// A frame of a stream in the queue of its mux.
#[derive(Debug)]
struct QueuedFrame {
    stream: Key,
    length: usize,
    /// The value of `sent` when the frame has left.
    end: u64,
    /// It ends our message on the stream.
    is_last: bool,
}

impl Mux {
    fn new(role: Role, kind: MuxKind, now_us: u64) -> Mux {
        let queued = Accounting { sent: 0, moved_us: now_us, frames: VecDeque::new(), bytes: 0 };
        Mux { h2: Http2::new(role), heard_us: now_us, block: None, queued, kind }
    }

    /// The state of a mux to a backend.
    pub(in crate::proxy) fn upstream(&self) -> Option<&UpstreamState> {
        if let MuxKind::Upstream(upstream) = &self.kind { Some(upstream) } else { None }
    }

    /// The state of a mux to a backend.
    pub(in crate::proxy) fn upstream_mut(&mut self) -> Option<&mut UpstreamState> {
        if let MuxKind::Upstream(upstream) = &mut self.kind { Some(upstream) } else { None }
    }

    /// The state of a mux to a client.
    pub(in crate::proxy) fn downstream(&self) -> Option<&DownstreamState> {
        if let MuxKind::Downstream(downstream) = &self.kind { Some(downstream) } else { None }
    }

    /// The streams that are open or wait.
    pub(in crate::proxy) fn streams(&self) -> impl Iterator<Item = Key> {
        self.h2.owners().chain(self.upstream().into_iter().flat_map(|upstream| upstream.waiting.iter().copied()))
    }

    /// The number of queued bytes that answer the peer, and belong to no stream.
    fn replies(&self, queued: usize) -> usize {
        queued.saturating_sub(self.queued.bytes)
    }

    /// Notes whether a block of fields is incomplete. `rest` is the input that is not decoded. Returns true if the
    /// block is another one than before.
    fn note_block(&mut self, rest: &[u8], now_us: u64) -> bool {
        let number = self.h2.incomplete_block(rest);
        if number == self.block.map(|(number, _)| number) {
            return false;
        }
        self.block = number.map(|number| (number, now_us));
        true
    }

    /// True if a block of fields is incomplete. The peer can send nothing else before its end.
    pub(in crate::proxy) fn is_in_block(&self) -> bool {
        self.block.is_some()
    }

    /// True if a block of fields has been incomplete for longer than it should.
    fn is_stuck(&self, now_us: u64) -> bool {
        self.block.is_some_and(|(_, since_us)| now_us.saturating_sub(since_us) >= H2_BLOCK_GRACE_US)
    }

    /// True if no stream is open and none waits. A client's stream whose messages have both ended may still have content
    /// for its backend.
    pub(in crate::proxy) fn is_idle(&self) -> bool {
        self.h2.open_streams() == 0
            && match &self.kind {
                MuxKind::Upstream(upstream) => upstream.waiting.is_empty(),
                MuxKind::Downstream(downstream) => !downstream.has_streams(),
            }
    }

    /// The wait of a mux to a client. `drained`: its queue is empty. Each stream has waits of its own.
    pub(in crate::proxy) fn downstream_wait(&self, drained: bool) -> Wait {
        match self.kind {
            MuxKind::Downstream(DownstreamState { shutdown: ShutdownStep::Announced, .. }) => Wait::Shutdown,
            _ if !drained => Wait::ClientSend,
            _ if self.is_in_block() || !self.h2.is_ready() => Wait::Block,
            _ if self.is_idle() => Wait::Idle,
            _ => Wait::Nothing,
        }
    }
}

impl Proxy {
    /// Closes the stream of an entry that is gone. Its mux may have room for another.
    pub(in crate::proxy) fn close_stream(&mut self, key: Key, stream: &Stream) {
        self.totals.grown -= stream.growth;
        self.charge(stream.mux, stream.charged, 0);
        self.totals.streams -= usize::from(stream.charged > 0);
        // The consumer's queue still holds content that was not taken.
        if let Some(consumer) = stream.consumer.and_then(|key| self.connections.get_mut(key)) {
            let held = consumer.output.len().saturating_sub(QUEUE_HIGH_BYTES).min(stream.growth as usize) as u32;
            if let Some(client) = consumer.client_mut() {
                client.held += held;
                self.totals.grown += held;
            }
        }
        let Some(connection) = self.connections.get_mut(stream.mux) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        self.scratch.text.clear();
        if stream.id == 0 {
            mux.upstream_mut().into_iter().for_each(|upstream| upstream.waiting.retain(|&other| other != key));
        } else if mux.h2.forget(stream.id, stream.code, &mut self.scratch.text) {
            connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
            if connection.is_client() {
                self.count_reset(Some(stream.code));
            }
        }
        self.ledger.tend(stream.mux);
    }

    /// Puts a stream that has data or its end to send in line.
    pub(in crate::proxy) fn line_up(&mut self, key: Key) {
        let Some(stream) = self.connections.get(key).and_then(|stream| stream.codec.stream()) else { return };
        let (mux_key, id) = (stream.mux, stream.id);
        let Some(connection) = self.connections.living_mut(mux_key) else { return };
        let full = connection.output.len() >= QUEUE_HIGH_BYTES;
        if let Some(mux) = connection.codec.mux_mut().filter(|_| id != 0) {
            mux.h2.line_up(id);
            self.ledger.tend(mux_key);
        }
        if let Some(stream) = self.connections.get_mut(key).filter(|_| full) {
            // It waits until the peer has read others.
            stream.output.shrink(&mut self.scratch.buffers);
        }
    }

    /// Sends the WINDOW_UPDATE that is due on a stream, because its consumer has room again.
    pub(in crate::proxy) fn credit(&mut self, key: Key) {
        if !self.wants(key) {
            return;
        }
        let Some(stream) = self.connections.get(key).and_then(|stream| stream.codec.stream()) else { return };
        let (mux_key, id) = (stream.mux, stream.id);
        let Some(connection) = self.connections.living_mut(mux_key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        self.scratch.text.clear();
        mux.h2.taken(id, &mut self.scratch.text);
        if !self.scratch.text.is_empty() {
            connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
            self.ledger.tend(mux_key);
        }
    }

    /// Writes the block of fields in `text` on a stream. `end`: nothing follows.
    pub(in crate::proxy) fn write_block(&mut self, key: Key, end: bool) {
        let Some(stream) = self.connections.get_mut(key).and_then(|stream| stream.codec.stream_mut()) else { return };
        let (mux_key, id) = (stream.mux, stream.id);
        if end {
            stream.sending = Sending::Ended;
        }
        let Some(connection) = self.connections.living_mut(mux_key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        let frames = &mut self.scratch.frames;
        frames.clear();
        mux.h2.write_fields(id, &self.scratch.text, end, frames);
        connection.output.write(&mut self.scratch.buffers, frames);
        let length = frames.len();
        self.note_queued(mux_key, key, length, end);
        self.ledger.tend(mux_key);
    }

    /// Notes that a frame of a stream was queued. `is_last`: it ends our message.
    fn note_queued(&mut self, mux_key: Key, stream: Key, length: usize, is_last: bool) {
        let Some(connection) = self.connections.living_mut(mux_key) else { return };
        let queued = connection.output.len() as u64;
        if let Some(mux) = connection.codec.mux_mut() {
            mux.queued.frames.push_back(QueuedFrame { stream, length, end: mux.queued.sent + queued, is_last });
            mux.queued.bytes += length;
            mux.h2.note_unsent(is_last);
        }
    }

    /// Notes that bytes of a mux were sent. That is progress for the streams of these frames.
    pub(in crate::proxy) fn mux_sent(&mut self, key: Key, n: usize) {
        self.ledger.tend(key);
        let Some(mux) = self.connections.get_mut(key).and_then(|one| one.codec.mux_mut()) else { return };
        mux.queued.sent += n as u64;
        mux.queued.moved_us = self.now_us;
        while let Some(mux) = self.connections.get_mut(key).and_then(|one| one.codec.mux_mut())
            && let Some(&QueuedFrame { stream, length, end, is_last }) = mux.queued.frames.front()
            && end <= mux.queued.sent
        {
            mux.queued.frames.pop_front();
            mux.queued.bytes -= length;
            mux.h2.note_sent(is_last);
            self.changed(stream, Moved::Out);
        }
    }

    /// Returns the bytes of a connection that its peer has not acknowledged, if `unacknowledged` are those of its socket.
    /// They say nothing about a stream whose frames have all left, because others use the socket, too.
    pub(in crate::proxy) fn unacknowledged_of(&self, key: Key, unacknowledged: usize) -> usize {
        let Some(entry) = self.connections.get(key) else { return 0 };
        let Some(stream) = entry.codec.stream() else { return unacknowledged };
        let mux = self.connections.get(stream.mux).and_then(|mux| mux.codec.mux());
        let is_queued = mux.is_some_and(|mux| mux.queued.frames.iter().any(|frame| frame.stream == key));
        if is_queued || !entry.output.is_empty() { unacknowledged } else { 0 }
    }

    /// True if frames of a stream are in the queue of its mux, and that queue moves.
    pub(in crate::proxy) fn is_on_its_way(&self, key: Key) -> bool {
        let mux_key = self.connections.get(key).and_then(|one| one.codec.stream()).map(|stream| stream.mux);
        let mux = mux_key.and_then(|mux_key| self.connections.get(mux_key)?.codec.mux());
        mux.is_some_and(|mux| {
            // A limit has two halves (`stalled`).
            let moves = self.now_us.saturating_sub(mux.queued.moved_us) < self.settings.timeouts.response_us / 2;
            moves && mux.queued.frames.iter().any(|frame| frame.stream == key)
        })
    }

    /// Does the outstanding work of a mux: opens waiting streams, sends queued data, and ends the mux if it has no use
    /// any more.
    pub(in crate::proxy) fn tend(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.phase != Phase::Open || connection.drops_input() {
            return self.recount(key);
        }
        let Some(mux) = connection.codec.mux() else { return };
        match mux.kind {
            MuxKind::Upstream(_) => {
                self.open_waiting(key);
                self.send_streams(key);
                if self.end_unused_upstream(key) {
                    return;
                }
            }
            MuxKind::Downstream(_) => {
                self.announce_shutdown(key);
                self.credit_client(key);
                self.send_streams(key);
                self.serve_held_back(key);
                if self.end_unused_downstream(key) {
                    return;
                }
            }
        }
        self.schedule_send(key);
        self.changed(key, Moved::Nothing);
    }
}

#[cfg(test)]
mod tests;
