//! The end of a mux to a backend: it fails, drains, or is unused, and its streams go elsewhere.

use std::collections::VecDeque;

use super::super::Proxy;
use super::super::connection::{BackendEnd, Connection, Ending, Peer, Phase};
use super::super::failure::Failure;
use super::super::output::Output;
use super::Mux;
use crate::collections::slab::Key;
use crate::http2::{self, ErrorCode};
use crate::limits::H2_FAULTS;
use crate::log::Level;
use crate::metrics::SlotCount;

/// The streams of a mux that has failed, with the facts that decide about them.
struct Taken {
    slot: u16,
    connecting: bool,
    probe: bool,
    fault: Option<ErrorCode>,
    waiting: VecDeque<Key>,
    open: Vec<Key>,
}

impl Proxy {
    /// Drains the muxes to a slot's backend.
    pub(in crate::proxy) fn retire_muxes(&mut self, slot: usize) {
        let owned = self.upstreams.owned.all().filter(|(_, ready)| ready.place.is_none());
        let owned = owned.filter_map(|(_, ready)| (usize::from(ready.slot) == slot).then_some(ready.key));
        let shared = self.upstreams.muxes.get(slot).into_iter().flatten().copied();
        let muxes: Vec<Key> = shared.chain(owned).collect();
        muxes.into_iter().for_each(|key| self.retire(key));
    }

    /// Drains a mux: it gets no more streams, and those that wait go elsewhere.
    pub(in crate::proxy) fn retire(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Peer::Backend(end) = connection.peer else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        let Some(upstream) = mux.upstream_mut() else { return };
        upstream.draining = true;
        let waiting = std::mem::take(&mut upstream.waiting);
        self.upstreams.forget_mux(end, key, upstream.place.take());
        self.ledger.tend(key);
        waiting.into_iter().for_each(|stream| self.move_on(stream));
    }

    /// Has the request of a waiting stream go elsewhere. The failure counts if the backend is in the plan, so that the
    /// request does not follow forever a backend that ends every connection.
    fn move_on(&mut self, key: Key) {
        let Some(stream) = self.connections.get(key) else { return };
        let current = self.upstreams.is_current(stream.peer);
        self.lost(key, Failure::Unprocessed, current);
    }

    /// Handles the failure of a mux.
    pub(in crate::proxy) fn mux_failed(&mut self, key: Key, failure: Failure) {
        let Some(streams) = self.take_streams(key) else { return };
        self.close(key, Output::Close(key));
        self.streams_lost(streams, failure);
    }

    /// Ends a mux whose peer has broken the protocol or exceeds a limit. The streams fail, and a GOAWAY says why.
    pub(in crate::proxy) fn break_off(&mut self, key: Key, error: http2::Error) {
        if self.connections.get(key).is_some_and(Connection::is_client) {
            return self.break_off_client(key, error);
        }
        let Some(streams) = self.take_streams(key) else { return };
        let failure = if error.is_limit() { Failure::Excess(error.reason) } else { Failure::Http2(error.reason) };
        self.streams_lost(streams, failure);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        self.scratch.text.clear();
        mux.h2.farewell(error.code, &mut self.scratch.text);
        connection.output.write(&mut self.scratch.buffers, &self.scratch.text);
        self.end(key, Ending::Linger);
    }

    /// Takes all streams of a mux that gets none any more.
    fn take_streams(&mut self, key: Key) -> Option<Taken> {
        let connection = self.connections.get_mut(key)?;
        let Peer::Backend(end) = connection.peer else { return None };
        let (connecting, probe) = (connection.phase == Phase::Connecting, connection.is_probe());
        let mux = connection.codec.mux_mut()?;
        let open = mux.h2.abandon();
        let upstream = mux.upstream_mut()?;
        upstream.draining = true;
        let (waiting, fault) = (std::mem::take(&mut upstream.waiting), upstream.fault);
        self.upstreams.forget_mux(end, key, upstream.place.take());
        Some(Taken { slot: end.slot, connecting, probe, fault, waiting, open })
    }

    /// Handles streams whose mux has failed.
    fn streams_lost(&mut self, taken: Taken, failure: Failure) {
        let Taken { slot, connecting, probe, fault, waiting, open } = taken;
        // The fault was noted when the backend reported it.
        let failure = fault.map_or(failure, Failure::GoAway);
        // It is one failure, even if several streams fail with it.
        if fault.is_none() && open.iter().any(|&stream| !self.went_stale(stream, failure)) {
            self.count_failure(slot, failure);
        }
        for stream in open {
            let exchange = self.connections.get(stream).and_then(|stream| stream.exchange);
            if let Some(exchange) = exchange.and_then(|id| self.exchanges.living_mut(id)) {
                exchange.tries.isolated = true;
            }
            self.lost(stream, failure, false);
        }
        if !connecting && !probe {
            // Nothing of these requests was sent.
            return waiting.into_iter().for_each(|stream| self.move_on(stream));
        }
        // It is one failure, even if several streams waited.
        match waiting.is_empty() {
            _ if probe => {}
            true => self.note_failure(slot, failure),
            false => drop(self.count_failure(slot, failure)),
        }
        waiting.into_iter().for_each(|stream| self.lost(stream, failure, false));
    }

    /// True if a stream was the first on a mux that had been idle, and nothing has come for it, or if it is a tunnel. The
    /// loss of such a connection says nothing about its backend.
    fn went_stale(&self, stream: Key, failure: Failure) -> bool {
        let Some(stream) = self.connections.get(stream) else { return true };
        let exchange = stream.exchange.and_then(|id| self.exchanges.living(id));
        let stale = stream.is_reused() && failure.is_loss();
        exchange.is_none_or(|exchange| exchange.is_tunnel() || stale && exchange.is_unanswered())
    }

    /// Handles a PING that was not acknowledged in time. Waiting streams go elsewhere. Open streams keep their own
    /// deadlines, because the backend may just be busy.
    pub(in crate::proxy) fn mux_silent(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if let Peer::Backend(BackendEnd { slot, .. }) = connection.peer {
            self.shared.block.add_slot(SlotCount::Stale, slot.into(), 1);
        }
        match connection.codec.mux() {
            Some(mux) if mux.h2.open_streams() > 0 => self.retire(key),
            _ => self.mux_failed(key, Failure::Closed),
        }
    }

    /// Handles a block of fields that was not complete in time. No stream can continue behind it.
    pub(in crate::proxy) fn block_late(&mut self, key: Key) {
        self.break_off(key, http2::Error::protocol("fields that were not complete in time"));
    }

    /// Handles a stream that was not opened in time on an established connection. The mux drains, and for all waiting
    /// streams it is like a connection that was not established: one failure.
    pub(in crate::proxy) fn mux_late(&mut self, stream: Key) {
        let Some(entry) = self.connections.get(stream) else { return };
        let (Peer::Backend(BackendEnd { slot, .. }), Some(mux_key)) = (entry.peer, entry.codec.stream()) else {
            return;
        };
        let mux_key = mux_key.mux;
        let mux = self.connections.get_mut(mux_key).and_then(|mux_key| mux_key.codec.mux_mut());
        let none = mux.as_ref().is_some_and(|one| one.h2.is_ready() && one.h2.capacity() == 0);
        let failure = if none { Failure::NoStreams } else { Failure::ConnectTimeout };
        let upstream = mux.and_then(Mux::upstream_mut);
        let waiting = upstream.map(|upstream| std::mem::take(&mut upstream.waiting)).unwrap_or_default();
        self.count_failure(slot, failure);
        self.retire(mux_key);
        waiting.into_iter().for_each(|stream| self.lost(stream, failure, false));
    }

    /// Handles a stream whose response is late. If nothing else has arrived either, the mux drains.
    pub(in crate::proxy) fn doubt_mux(&mut self, stream: Key) {
        let mux_key = self.connections.get(stream).and_then(|one| one.codec.stream()).map(|stream| stream.mux);
        let Some(mux_key) = mux_key else { return };
        let mux = self.connections.get(mux_key).and_then(|mux_key| mux_key.codec.mux());
        let limit_us = self.settings.timeouts.response_us;
        if mux.is_some_and(|mux| self.now_us.saturating_sub(mux.heard_us) >= limit_us / 2) {
            self.retire(mux_key);
        }
    }

    /// Has waiting streams go elsewhere if the backend allows fewer streams than expected.
    pub(in crate::proxy) fn send_excess_away(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(mux) = connection.codec.mux_mut().filter(|one| one.h2.is_ready()) else { return };
        let (spent, room) = (mux.h2.is_spent(), mux.most().saturating_sub(mux.h2.open_streams()));
        let Some(upstream) = mux.upstream_mut() else { return };
        if upstream.draining || spent {
            let waiting = std::mem::take(&mut upstream.waiting);
            return waiting.into_iter().for_each(|stream| self.move_on(stream));
        }
        if upstream.waiting.len() > room {
            let excess = upstream.waiting.split_off(room);
            excess.into_iter().for_each(|stream| self.move_on(stream));
        }
    }

    /// Handles a GOAWAY from a backend.
    pub(in crate::proxy) fn on_goaway(&mut self, key: Key, code: ErrorCode) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(mux) = connection.codec.mux_mut() else { return };
        let unprocessed: Vec<Key> = mux.h2.unprocessed().collect();
        if code != ErrorCode::NO_ERROR
            && let Some(upstream) = mux.upstream_mut()
            && upstream.fault.replace(code).is_none()
        {
            self.note_fault(key, code);
        }
        self.retire(key);
        unprocessed.into_iter().for_each(|stream| self.lost(stream, Failure::Unprocessed, false));
    }

    /// Handles a fault that a backend reports for a connection. A request may have caused it, which is no failure of
    /// the backend, unless it reports the fault on each connection for any request. It is one failure then, even if
    /// several streams fail with it.
    fn note_fault(&mut self, key: Key, code: ErrorCode) {
        let Some(connection) = self.connections.get(key) else { return };
        let Peer::Backend(BackendEnd { slot, .. }) = connection.peer else { return };
        let Some(mux) = connection.codec.mux() else { return };
        let exchange = |stream| self.connections.get(stream).and_then(|stream| stream.exchange);
        let asked = mux.h2.owners().any(|stream| exchange(stream).is_some());
        let peer = connection.peer;
        let Some(seen) = self.upstreams.seen(peer) else { return };
        let news = seen.fault.replace(code) != Some(code);
        seen.faults = if news { 0 } else { seen.faults }.saturating_add(u8::from(asked));
        if asked && (!code.may_be_provoked() || seen.faults >= H2_FAULTS) {
            return self.note_failure(slot, Failure::GoAway(code));
        }
        let level = if news { Level::Warn } else { Level::Debug };
        let Some(Some(backend)) = self.upstreams.backends.get(usize::from(slot)) else { return };
        self.log.line(level, "backend", format_args!("{}: {}", backend.label, Failure::GoAway(code)));
    }
}
