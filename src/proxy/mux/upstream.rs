//! Muxes to backends, and the streams that the proxy opens on them.
//!
//! A connection that may speak HTTP/2 is dialled for the first request that needs it and is kept in `muxes`. A stream
//! waits in `waiting` until it can be opened. If the handshake decides for HTTP/1.1, the connection goes to the first
//! request that waits, and each other one gets a connection of its own.
//!
//! Invariants: no more streams wait than the mux has room for, except one if its backend allows none. A draining mux
//! takes no more streams, and is closed behind its last one (`mux::close`).

use std::collections::VecDeque;

use super::super::Proxy;
use super::super::codec::Codec;
use super::super::connection::{BackendEnd, Connection, Ending, Moved, Peer, Phase, Use};
use super::super::exchange;
use super::super::failure::Failure;
use super::super::output::Output;
use super::super::pool::Ready;
use super::stream::Stream;
use super::{Mux, MuxKind};
use crate::collections::slab::Key;
use crate::http::head::Version;
use crate::http::part::Role;
use crate::http2::ErrorCode;
use crate::limits::{H2_STREAMS, POOL_FRESH_US, QUEUE_HIGH_BYTES};
use crate::metrics::Count;

/// The requests that a mux to a backend may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Scope {
    /// All requests.
    Shared,
    /// One request, because it may have broken another mux.
    Isolated,
    /// A probe.
    Probe,
}

/// The state of a mux to a backend.
#[derive(Debug)]
pub(in crate::proxy) struct UpstreamState {
    /// Streams that are not open yet.
    pub(in crate::proxy) waiting: VecDeque<Key>,
    /// It takes no more streams.
    pub(in crate::proxy) draining: bool,
    pub(in crate::proxy) scope: Scope,
    /// The backend speaks HTTP/2 without TLS. The slot may be another backend's before the connection is established.
    h2c: bool,
    /// The error code of the backend's GOAWAY, if the backend reported a fault.
    pub(in crate::proxy) fault: Option<ErrorCode>,
    /// Its place in the pool while it has no streams.
    pub(in crate::proxy) place: Option<u64>,
    /// The bytes that its owner is charged for it (`account`).
    pub(in crate::proxy) charged: usize,
}

impl Mux {
    fn to_backend(scope: Scope, h2c: bool, now_us: u64) -> Mux {
        let waiting = VecDeque::new();
        let upstream = UpstreamState { waiting, draining: false, scope, h2c, fault: None, place: None, charged: 0 };
        Mux::new(Role::Client, MuxKind::Upstream(upstream), now_us)
    }

    /// The number of streams that may be open or wait. It is at least one, because a backend that allows none may
    /// allow some in a moment (RFC 9113, 6.5.2).
    pub(super) fn most(&self) -> usize {
        self.h2.capacity().max(1)
    }
}

impl Proxy {
    /// Gives an exchange a stream on a mux to the backend in a slot.
    pub(in crate::proxy) fn join(&mut self, id: Key, slot: usize) {
        let mux_key = self.mux_for(id, slot);
        let used = self.connections.get(mux_key).is_some_and(|mux_key| mux_key.is_reused());
        self.shared.block.add(Count::Reused, used.into());
        let owner = self.owner(id);
        let mut stream = Connection::new(self.upstreams.backend_end(slot, Use::FRESH, owner));
        stream.exchange = Some(id);
        stream.codec = Codec::Stream(Stream::new(mux_key));
        let key = self.connections.insert(stream);
        self.await_turn(mux_key, key);
        self.set_upstream(id, exchange::Upstream::Assigned { slot: slot as u16, key });
        self.changed(key, Moved::Nothing);
    }

    /// The mux to the backend in a slot for a stream of an exchange: one that has room, else a new one. An isolated
    /// request gets a mux of its own, so that it cannot break one that others use.
    pub(in crate::proxy) fn mux_for(&mut self, id: Key, slot: usize) -> Key {
        let owner = self.owner(id);
        if self.exchanges.get(id).is_some_and(|exchange| exchange.tries.isolated) {
            return self.dial_mux(slot, Scope::Isolated, owner);
        }
        self.find_mux(slot, owner).unwrap_or_else(|| self.dial_mux(slot, Scope::Shared, owner))
    }

    /// Has a stream wait on a mux. If the backend has been silent for a while, the proxy sends a PING first, even if
    /// other streams are open, because nothing may be due on these.
    pub(in crate::proxy) fn await_turn(&mut self, mux_key: Key, key: Key) {
        self.ledger.tend(mux_key);
        let Some(connection) = self.connections.living_mut(mux_key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        if let Some(upstream) = mux.upstream_mut() {
            upstream.waiting.push_back(key);
            upstream.place.take().into_iter().for_each(|place| self.upstreams.idle.remove_mux(place));
        }
        let silent = self.now_us.saturating_sub(mux.heard_us) > POOL_FRESH_US;
        if silent && connection.phase == Phase::Open && !mux.h2.is_pinged() {
            self.scratch.text.clear();
            mux.h2.ping(&mut self.scratch.text);
            connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
        }
        // It is not idle any more, even if its time in the pool ends in this same turn.
        self.changed(mux_key, Moved::Nothing);
    }

    /// A mux to the backend in a slot that has room for another stream of the owner.
    fn find_mux(&self, slot: usize, owner: Option<Key>) -> Option<Key> {
        let guess = self.upstreams.backends.get(slot)?.as_ref()?.seen.streams.unwrap_or(H2_STREAMS as usize);
        let has_room = |key: &Key| {
            let connection = self.connections.get(*key).filter(|connection| self.upstreams.is_current(connection.peer));
            let mux = connection.and_then(|connection| connection.codec.mux());
            mux.is_some_and(|mux| {
                let most = if mux.h2.is_ready() { mux.most() } else { guess.max(1) };
                let Some(upstream) = mux.upstream() else { return false };
                let taken = mux.h2.open_streams() + upstream.waiting.len();
                !upstream.draining && !mux.h2.is_spent() && !mux.is_stuck(self.now_us) && taken < most
            })
        };
        match owner {
            Some(owner) => {
                let muxes = self.upstreams.owned.of(owner, slot).filter(|ready| ready.place.is_none());
                muxes.map(|ready| ready.key).find(has_room)
            }
            None => self.upstreams.muxes.get(slot)?.iter().copied().find(has_room),
        }
    }

    /// Dials a connection that may speak HTTP/2.
    fn dial_mux(&mut self, slot: usize, scope: Scope, owner: Option<Key>) -> Key {
        let used_for = if scope == Scope::Probe { Use::Probe } else { Use::FRESH };
        let mut connection = Connection::new(self.upstreams.backend_end(slot, used_for, owner));
        let mux = Mux::to_backend(scope, self.upstreams.is_h2c(slot), self.now_us);
        connection.codec = Codec::Mux(Box::new(mux));
        let key = self.connections.insert(connection);
        match (owner, self.upstreams.muxes.get_mut(slot)) {
            _ if scope != Scope::Shared => {}
            (Some(owner), _) => self.upstreams.owned.add(owner, Ready { slot: slot as u16, key, place: None }),
            (None, muxes) => muxes.into_iter().for_each(|muxes| muxes.push(key)),
        }
        self.rearm(key, Moved::Nothing);
        self.ledger.outputs.push_back(Output::Connect(key, slot));
        key
    }

    /// Begins a probe of a backend that may speak HTTP/2.
    pub(in crate::proxy) fn begin_multiplexed_probe(&mut self, slot: usize) {
        let mux_key = self.dial_mux(slot, Scope::Probe, None);
        let mut stream = Connection::new(self.upstreams.backend_end(slot, Use::Probe, None));
        stream.codec = Codec::Stream(Stream::new(mux_key));
        let key = self.connections.insert(stream);
        self.await_turn(mux_key, key);
    }

    /// True if a connection that is being dialled may speak HTTP/2; else it speaks HTTP/1.1 only.
    pub fn offers_http2(&self, key: Key) -> bool {
        self.connections.get(key).is_some_and(|connection| connection.codec.mux().is_some())
    }

    /// A connection that may be a mux is established. `http2`: the backend agreed to HTTP/2.
    pub(in crate::proxy) fn mux_connected(&mut self, key: Key, http2: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let peer = connection.peer;
        let Peer::Backend(BackendEnd { slot, .. }) = peer else { return };
        let h2c = connection.codec.mux().and_then(Mux::upstream).is_some_and(|upstream| upstream.h2c);
        if !http2 && !h2c {
            self.upstreams.speaks_only(peer, Version::Http11, self.now_us);
            return self.become_http1(key, slot.into());
        }
        self.upstreams.speaks_http2(peer);
        let Some(connection) = self.connections.living_mut(key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        mux.heard_us = self.now_us;
        self.scratch.text.clear();
        mux.h2.greet(&mut self.scratch.text);
        connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
        self.ledger.tend(key);
    }

    /// The backend speaks HTTP/1.1. The connection goes to the first request that waits; each other one gets its own.
    fn become_http1(&mut self, key: Key, slot: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let codec = std::mem::replace(&mut connection.codec, Codec::http1(Role::Client));
        let (probe, peer) = (connection.is_probe(), connection.peer);
        let Codec::Mux(mux) = codec else { return };
        let MuxKind::Upstream(upstream) = mux.kind else { return };
        if let Peer::Backend(end) = peer {
            self.upstreams.forget_mux(end, key, upstream.place);
        }
        let mut free = Some(key);
        for stream in upstream.waiting {
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

    /// Opens the waiting streams that the mux has room for.
    pub(super) fn open_waiting(&mut self, key: Key) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            let (used, probe, full) =
                (connection.is_reused(), connection.is_probe(), connection.output.len() >= QUEUE_HIGH_BYTES);
            let Some(mux) = connection.codec.mux_mut() else { return };
            if full || !mux.h2.can_open() || mux.is_stuck(self.now_us) {
                break;
            }
            let (ready, connects) = (mux.h2.is_ready(), mux.h2.accepts_connect());
            let Some(&stream) = mux.upstream().and_then(|upstream| upstream.waiting.front()) else { break };
            let tunnels = self.asks_tunnel(stream);
            if tunnels && !ready {
                // Extended CONNECT needs the consent of the backend (RFC 8441, 3).
                break;
            }
            let Some(mux) = self.connections.get_mut(key).and_then(|one| one.codec.mux_mut()) else { return };
            mux.upstream_mut().into_iter().for_each(|upstream| upstream.waiting.retain(|&other| other != stream));
            if tunnels && !connects {
                self.lost(stream, Failure::NoExtendedConnect, false);
                continue;
            }
            let Some(mux) = self.connections.get_mut(key).and_then(|one| one.codec.mux_mut()) else { return };
            let idle = mux.h2.open_streams() == 0;
            let Some(entry) = self.connections.living_mut(stream) else { continue };
            let exchange = entry.exchange;
            // Borrowed again, because both are in one slab.
            let Some(connection) = self.connections.living_mut(key) else { return };
            connection.set_reused(true);
            let id = connection.codec.mux_mut().and_then(|mux| mux.h2.open(stream));
            let Some(entry) = self.connections.living_mut(stream) else { return };
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

    /// Ends a mux to a backend that has no streams and gets no more; true if it did.
    pub(super) fn end_unused_upstream(&mut self, key: Key) -> bool {
        let Some(connection) = self.connections.get(key) else { return true };
        let Some(mux) = connection.codec.mux() else { return true };
        let Some(upstream) = mux.upstream() else { return false };
        let over = upstream.draining
            || upstream.scope == Scope::Isolated
            || mux.h2.is_spent()
            || self.shutdown.draining
            || !connection.is_sendable()
            || !self.upstreams.is_current(connection.peer);
        if mux.is_idle() && over && !connection.is_probe() {
            let end = connection.backend().copied();
            let place = self.upstream_mut(key).and_then(|upstream| upstream.place.take());
            end.into_iter().for_each(|end| self.upstreams.forget_mux(end, key, place));
            self.end(key, Ending::Close);
            return true;
        }
        if mux.is_idle() && upstream.scope == Scope::Shared && upstream.place.is_none() {
            let place = self.upstreams.idle.give_mux(key);
            self.upstream_mut(key).into_iter().for_each(|upstream| upstream.place = Some(place));
            if self.upstreams.idle.is_over() {
                self.evict_idle();
            }
            return self.connections.get(key).is_none();
        }
        for at in 0..upstream.waiting.len() {
            let mux = self.connections.get(key).and_then(|connection| connection.codec.mux());
            if let Some(&stream) = mux.and_then(Mux::upstream).and_then(|upstream| upstream.waiting.get(at)) {
                self.changed(stream, Moved::Nothing);
            }
        }
        false
    }

    /// The state of a mux to a backend.
    pub(super) fn upstream_mut(&mut self, key: Key) -> Option<&mut UpstreamState> {
        self.connections.get_mut(key)?.codec.mux_mut()?.upstream_mut()
    }

    /// Remembers the limits of a backend for its next connection.
    pub(in crate::proxy) fn note_capacity(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let Some(mux) = connection.codec.mux() else { return };
        let (peer, streams, list) = (connection.peer, mux.h2.capacity(), mux.h2.list_limit());
        let connect = mux.h2.is_ready().then(|| mux.h2.accepts_connect());
        if let Some(seen) = self.upstreams.seen(peer) {
            (seen.streams, seen.list, seen.connect) = (Some(streams), Some(list), connect.or(seen.connect));
        }
    }

    /// The largest list of fields that a stream's peer accepts, as far as it has said so.
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
