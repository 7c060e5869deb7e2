//! HTTP/2 connections to backends, and the streams that they carry.
//!
//! A connection that may speak HTTP/2 is made for whoever needs it first and kept in `muxes`; it
//! has no exchange of its own. Each exchange there has a stream, which is a connection to everybody
//! else: it waits in `waiting` until it can be opened, is open, and is closed. What the handshake
//! settled on decides: where that is HTTP/1.1, the connection goes to the first that waits, and the
//! others get one each.
//!
//! Invariants: a stream waits, or its mux knows its number, but not both; no more wait than the
//! mux has room for, but for one where its backend takes none; a mux that takes no more is
//! `draining`, and closed behind its last stream (`mux::close`). What a mux has to do is done in `tend`, once
//! for everything that has happened.

mod close;
mod frames;

use std::collections::VecDeque;

use super::codec::{Codec, Stream};
use super::connection::{BackendEnd, Connection, Ending, Moved, Peer, Phase, Use};
use super::exchange::Upstream;
use super::{Output, Proxy};
use crate::collections::slab::Key;
use crate::http::head::Version;
use crate::http::part::Role;
use crate::http2::connection::Connection as Http2;
use crate::http2::{self, ErrorCode};
use crate::limits::{H2_BLOCK_GRACE_US, H2_STREAMS, POOL_FRESH_US, QUEUE_HIGH_BYTES};
use crate::metrics::Count;

/// Whom a connection is for that carries streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Purpose {
    /// All who come.
    Shared,
    /// One request, which may be what another connection has died of.
    Isolated,
    /// A probe.
    Probe,
}

/// What a connection keeps that carries streams.
#[derive(Debug)]
pub(in crate::proxy) struct Mux {
    pub(in crate::proxy) h2: Http2,
    /// Streams that are not open yet.
    pub(in crate::proxy) waiting: VecDeque<Key>,
    /// It takes no more of them.
    pub(in crate::proxy) draining: bool,
    pub(in crate::proxy) purpose: Purpose,
    /// Why the backend has said that it ends the connection, where it has found a fault.
    pub(in crate::proxy) fault: Option<ErrorCode>,
    /// The block of fields that is incomplete, by its number among those of the connection, and since when it is, in
    /// microseconds.
    block: Option<(u64, u64)>,
    /// When anything came last, in microseconds.
    pub(in crate::proxy) heard_us: u64,
    /// How many bytes were sent, and when last, in microseconds.
    sent: u64,
    moved_us: u64,
    /// Streams' frames that are queued, each with its length and how many bytes will have been sent when
    /// it is; and how long they are together.
    unsent: VecDeque<(Key, usize, u64)>,
    unsent_bytes: usize,
}

impl Mux {
    fn new(purpose: Purpose, now_us: u64) -> Mux {
        Mux {
            h2: Http2::new(Role::Client),
            waiting: VecDeque::new(),
            draining: false,
            purpose,
            fault: None,
            block: None,
            heard_us: now_us,
            sent: 0,
            moved_us: now_us,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
        }
    }

    /// The streams that it has or is to have.
    pub(in crate::proxy) fn streams(&self) -> impl Iterator<Item = Key> {
        self.h2.owners().chain(self.waiting.iter().copied())
    }

    /// How many streams it may have or have wait: one where its backend takes none, as it may again in a
    /// moment (RFC 9113, 6.5.2).
    pub(in crate::proxy) fn most(&self) -> usize {
        self.h2.capacity().max(1)
    }

    /// How much of what is queued is no stream's, but for us to answer the peer.
    pub(in crate::proxy) fn replies(&self, queued: usize) -> usize {
        queued.saturating_sub(self.unsent_bytes)
    }

    /// Notes whether a block of fields is incomplete, with `rest` not decoded; whether that is another than before.
    pub(in crate::proxy) fn note_block(&mut self, rest: &[u8], now_us: u64) -> bool {
        let number = self.h2.incomplete_block(rest);
        if number == self.block.map(|(number, _)| number) {
            return false;
        }
        self.block = number.map(|number| (number, now_us));
        true
    }

    /// Whether a block of fields is incomplete: nothing else can come meanwhile.
    pub(in crate::proxy) fn is_in_block(&self) -> bool {
        self.block.is_some()
    }

    /// Whether that has been so for longer than it should.
    fn is_stuck(&self, now_us: u64) -> bool {
        self.block.is_some_and(|(_, since_us)| now_us.saturating_sub(since_us) >= H2_BLOCK_GRACE_US)
    }

    /// Whether nobody uses it.
    pub(in crate::proxy) fn is_idle(&self) -> bool {
        self.h2.open_streams() == 0 && self.waiting.is_empty()
    }
}

impl Proxy {
    /// Gives an exchange a stream on a connection to the backend in a slot.
    pub(in crate::proxy) fn join(&mut self, id: Key, slot: usize) {
        let mux_key = self.mux_for(id, slot);
        let used = self.connections.get(mux_key).is_some_and(|mux_key| mux_key.is_reused());
        self.shared.block.add(Count::Reused, used.into());
        let mut stream = Connection::new(self.upstreams.backend_end(slot, Use::FRESH));
        stream.exchange = Some(id);
        stream.codec = Codec::Stream(Stream::new(mux_key));
        let key = self.connections.insert(stream);
        self.await_turn(mux_key, key);
        self.set_upstream(id, Upstream::Assigned { slot: slot as u16, key });
        self.rearm(key, Moved::Nothing);
    }

    /// The connection to the backend in a slot that an exchange is to have a stream on: one that has
    /// room, else a new one; one of its own where it has been on one that broke, so that it cannot
    /// break another for others.
    pub(in crate::proxy) fn mux_for(&mut self, id: Key, slot: usize) -> Key {
        if self.exchanges.get(id).is_some_and(|exchange| exchange.tries.isolated) {
            return self.dial_mux(slot, Purpose::Isolated);
        }
        self.find_mux(slot).unwrap_or_else(|| self.dial_mux(slot, Purpose::Shared))
    }

    /// Has a stream wait on a connection. One on which nothing has come for a while is asked first whether
    /// it is there, whatever streams it has: they may be ones on which nothing has to come.
    pub(in crate::proxy) fn await_turn(&mut self, mux_key: Key, key: Key) {
        self.ledger.tending.push(mux_key);
        let Some(connection) = self.connections.get_mut(mux_key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        mux.waiting.push_back(key);
        let silent = self.now_us.saturating_sub(mux.heard_us) > POOL_FRESH_US;
        if silent && connection.phase == Phase::Open && !mux.h2.is_pinged() {
            self.scratch.text.clear();
            mux.h2.ping(&mut self.scratch.text);
            connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
        }
        // It is idle no more, even if its time in the pool ends in this same turn.
        self.rearm(mux_key, Moved::Nothing);
    }

    /// A connection to the backend in a slot that has room for another stream.
    fn find_mux(&self, slot: usize) -> Option<Key> {
        let guess = self.upstreams.backends.get(slot)?.as_ref()?.seen.streams.unwrap_or(H2_STREAMS as usize);
        let has_room = |key: &Key| {
            let connection = self.connections.get(*key).filter(|connection| self.upstreams.is_current(connection.peer));
            let mux = connection.and_then(|connection| connection.codec.mux());
            mux.is_some_and(|mux| {
                let most = if mux.h2.is_ready() { mux.most() } else { guess.max(1) };
                let taken = mux.h2.open_streams() + mux.waiting.len();
                !mux.draining && !mux.h2.is_spent() && !mux.is_stuck(self.now_us) && taken < most
            })
        };
        self.upstreams.muxes.get(slot)?.iter().copied().find(has_room)
    }

    /// Asks for a connection that may speak HTTP/2.
    fn dial_mux(&mut self, slot: usize, purpose: Purpose) -> Key {
        let used_for = if purpose == Purpose::Probe { Use::Probe } else { Use::FRESH };
        let mut connection = Connection::new(self.upstreams.backend_end(slot, used_for));
        connection.codec = Codec::H2(Box::new(Mux::new(purpose, self.now_us)));
        let key = self.connections.insert(connection);
        if let Some(muxes) = self.upstreams.muxes.get_mut(slot)
            && purpose == Purpose::Shared
        {
            muxes.push(key);
        }
        self.rearm(key, Moved::Nothing);
        self.ledger.outputs.push_back(Output::Connect(key, slot));
        key
    }

    /// Begins a probe of a backend that may speak HTTP/2.
    pub(in crate::proxy) fn begin_multiplexed_probe(&mut self, slot: usize) {
        let mux_key = self.dial_mux(slot, Purpose::Probe);
        let mut stream = Connection::new(self.upstreams.backend_end(slot, Use::Probe));
        stream.codec = Codec::Stream(Stream::new(mux_key));
        let key = self.connections.insert(stream);
        self.await_turn(mux_key, key);
    }

    /// Whether a connection that is being made may speak HTTP/2, or else HTTP/1.1 alone.
    pub fn offers_http2(&self, key: Key) -> bool {
        self.connections.get(key).is_some_and(|connection| connection.codec.mux().is_some())
    }

    /// A connection is established that carries streams, if its backend agrees; `http2`: it does.
    pub(in crate::proxy) fn mux_connected(&mut self, key: Key, http2: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let peer = connection.peer;
        let Peer::Backend(BackendEnd { slot, .. }) = peer else { return };
        if !http2 {
            self.upstreams.speaks_only(peer, Version::Http11, self.now_us);
            return self.become_http1(key, slot.into());
        }
        self.upstreams.speaks_http2(peer);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        mux.heard_us = self.now_us;
        self.scratch.text.clear();
        mux.h2.greet(&mut self.scratch.text);
        connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
        self.ledger.tending.push(key);
    }

    /// The backend speaks HTTP/1.1: the connection is for the first that waits, and the others get
    /// one each.
    fn become_http1(&mut self, key: Key, slot: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let codec = std::mem::replace(&mut connection.codec, Codec::http1(Role::Client));
        let probe = connection.is_probe();
        self.forget_mux(slot, key);
        let Codec::H2(mux) = codec else { return };
        let mut free = Some(key);
        for stream in mux.waiting {
            self.ledger.timers.clear(stream.index());
            let Some(id) = self.connections.remove(stream).and_then(|stream| stream.exchange) else { continue };
            match free.take() {
                Some(key) => self.attach(id, key),
                None => self.dial(id, slot),
            }
        }
        match free {
            Some(key) if probe => self.send_probe(key),
            Some(key) => self.release(key),
            None => {}
        }
    }

    pub(in crate::proxy) fn forget_mux(&mut self, slot: usize, key: Key) {
        if let Some(muxes) = self.upstreams.muxes.get_mut(slot) {
            muxes.retain(|&other| other != key);
        }
    }

    /// A stream is closed: its mux gives it up, and may have room for another.
    pub(in crate::proxy) fn close_stream(&mut self, key: Key, stream: &Stream) {
        self.totals.grown -= stream.growth;
        // The client's queue still holds the content that it has not taken.
        if let Some(client) = stream.consumer.and_then(|client| self.connections.get_mut(client)) {
            let held = client.output.len().saturating_sub(QUEUE_HIGH_BYTES).min(stream.growth as usize) as u32;
            if let Some(client) = client.client_mut() {
                client.held += held;
                self.totals.grown += held;
            }
        }
        let Some(connection) = self.connections.get_mut(stream.mux) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        self.scratch.text.clear();
        if stream.id == 0 {
            // It holds no place among those that wait.
            mux.waiting.retain(|&other| other != key);
        } else if mux.h2.forget(stream.id, stream.code, &mut self.scratch.text) {
            connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
        }
        self.ledger.tending.push(stream.mux);
    }

    /// A stream has something to send, or its end.
    pub(in crate::proxy) fn line_up(&mut self, key: Key) {
        let Some(stream) = self.connections.get(key).and_then(|stream| stream.codec.stream()) else { return };
        let (mux_key, id) = (stream.mux, stream.id);
        let mux = self.connections.get_mut(mux_key).and_then(|mux_key| mux_key.codec.mux_mut());
        if let Some(mux) = mux.filter(|_| id != 0) {
            mux.h2.line_up(id);
            self.ledger.tending.push(mux_key);
        }
    }

    /// Whoever takes what a stream brings can take more.
    pub(in crate::proxy) fn credit(&mut self, key: Key) {
        if !self.wants(key) {
            return;
        }
        let Some(stream) = self.connections.get(key).and_then(|stream| stream.codec.stream()) else { return };
        let (mux_key, id) = (stream.mux, stream.id);
        let Some(connection) = self.connections.get_mut(mux_key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        self.scratch.text.clear();
        mux.h2.taken(id, &mut self.scratch.text);
        if !self.scratch.text.is_empty() {
            connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
            self.schedule_send(mux_key);
        }
    }

    /// Writes the block of fields in `text` on a stream; `end`: it is all there is.
    pub(in crate::proxy) fn write_block(&mut self, key: Key, end: bool) {
        let Some(stream) = self.connections.get_mut(key).and_then(|stream| stream.codec.stream_mut()) else { return };
        let (mux_key, id) = (stream.mux, stream.id);
        (stream.ending, stream.ended) = (end, end);
        let Some(connection) = self.connections.get_mut(mux_key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        let mut frames = Vec::with_capacity(self.scratch.text.len() + http2::frame::HEADER_BYTES);
        mux.h2.write_fields(id, &self.scratch.text, end, &mut frames);
        connection.output.write(&mut self.scratch.buffers, &frames);
        self.note_queued(mux_key, key, frames.len());
        self.ledger.tending.push(mux_key);
    }

    /// A frame of a stream has been queued.
    pub(in crate::proxy) fn note_queued(&mut self, mux_key: Key, stream: Key, length: usize) {
        let Some(connection) = self.connections.get_mut(mux_key) else { return };
        let queued = connection.output.len() as u64;
        if let Some(mux) = connection.codec.mux_mut() {
            mux.unsent.push_back((stream, length, mux.sent + queued));
            mux.unsent_bytes += length;
        }
    }

    /// Bytes of a connection were sent, which is progress for the streams whose frames they were.
    pub(in crate::proxy) fn mux_sent(&mut self, key: Key, n: usize) {
        self.ledger.tending.push(key);
        let Some(mux) = self.connections.get_mut(key).and_then(|one| one.codec.mux_mut()) else { return };
        mux.sent += n as u64;
        mux.moved_us = self.now_us;
        while let Some(mux) = self.connections.get_mut(key).and_then(|one| one.codec.mux_mut())
            && let Some(&(stream, length, end)) = mux.unsent.front()
            && end <= mux.sent
        {
            mux.unsent.pop_front();
            mux.unsent_bytes -= length;
            self.rearm(stream, Moved::Out);
        }
    }

    /// Whether what a stream has to say is on its way still: it waits in its connection's queue, which
    /// moves.
    pub(in crate::proxy) fn is_on_its_way(&self, key: Key) -> bool {
        let mux_key = self.connections.get(key).and_then(|one| one.codec.stream()).map(|stream| stream.mux);
        let mux = mux_key.and_then(|mux_key| self.connections.get(mux_key)?.codec.mux());
        mux.is_some_and(|mux| {
            let moves = self.now_us.saturating_sub(mux.moved_us) < self.settings.timeouts.response_us;
            moves && mux.unsent.iter().any(|&(stream, ..)| stream == key)
        })
    }

    /// Does what there is to do on a connection that carries streams: opens those that wait, sends what
    /// they have, and closes it where it is done with.
    pub(in crate::proxy) fn tend(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.phase != Phase::Open || connection.drops_input() || connection.codec.mux().is_none() {
            return;
        }
        self.open_waiting(key);
        self.send_streams(key);
        let Some(connection) = self.connections.get(key) else { return };
        let Some(mux) = connection.codec.mux() else { return };
        let over = mux.draining
            || mux.purpose == Purpose::Isolated
            || mux.h2.is_spent()
            || self.shutdown.draining
            || !connection.is_sendable()
            || !self.upstreams.is_current(connection.peer);
        if mux.is_idle() && over && !connection.is_probe() {
            if let Peer::Backend(BackendEnd { slot, .. }) = connection.peer {
                self.forget_mux(slot.into(), key);
            }
            return self.end(key, Ending::Close);
        }
        let waiting = mux.waiting.len();
        for at in 0..waiting {
            let mux = self.connections.get(key).and_then(|connection| connection.codec.mux());
            if let Some(&stream) = mux.and_then(|mux| mux.waiting.get(at)) {
                self.rearm(stream, Moved::Nothing);
            }
        }
        self.schedule_send(key);
        self.rearm(key, Moved::Nothing);
    }

    fn open_waiting(&mut self, key: Key) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            let (used, probe, full) =
                (connection.is_reused(), connection.is_probe(), connection.output.len() >= QUEUE_HIGH_BYTES);
            let Some(mux) = connection.codec.mux_mut() else { return };
            if full || !mux.h2.can_open() || mux.is_stuck(self.now_us) {
                break;
            }
            let Some(stream) = mux.waiting.pop_front() else { break };
            let idle = mux.h2.open_streams() == 0;
            let Some(entry) = self.connections.get_mut(stream) else { continue };
            let exchange = entry.exchange;
            // Reborrowed, as both are in one slab.
            let Some(connection) = self.connections.get_mut(key) else { return };
            connection.set_reused(true);
            let id = connection.codec.mux_mut().and_then(|mux| mux.h2.open(stream));
            let Some(entry) = self.connections.get_mut(stream) else { return };
            entry.phase = Phase::Open;
            entry.set_reused(used && idle);
            if let Some(stream) = entry.codec.stream_mut() {
                stream.id = id.unwrap_or(0);
            }
            match exchange {
                Some(id) => self.attach(id, stream),
                None if probe => self.send_probe(stream),
                None => self.close(stream, Output::Close(stream)),
            }
        }
        self.send_excess_away(key);
    }

    /// Keeps in mind what a backend takes.
    pub(in crate::proxy) fn note_capacity(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let Some(mux) = connection.codec.mux() else { return };
        let (peer, streams, list) = (connection.peer, mux.h2.capacity(), mux.h2.list_limit());
        if let Some(seen) = self.upstreams.seen(peer) {
            (seen.streams, seen.list) = (Some(streams), Some(list));
        }
    }

    /// The largest list of fields that a stream's backend takes, by what it says or has said.
    pub(in crate::proxy) fn list_limit(&self, key: Key) -> usize {
        let Some(stream) = self.connections.get(key) else { return usize::MAX };
        let mux_key = stream.codec.stream().and_then(|stream| self.connections.get(stream.mux));
        match (mux_key.and_then(|mux_key| mux_key.codec.mux()), stream.peer) {
            (Some(mux), _) if mux.h2.is_ready() => mux.h2.list_limit(),
            (_, Peer::Backend(BackendEnd { slot, .. })) => {
                let backend = self.upstreams.backends.get(usize::from(slot)).and_then(Option::as_ref);
                backend.and_then(|backend| backend.seen.list).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests;
