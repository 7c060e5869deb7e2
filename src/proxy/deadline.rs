//! Deadlines: the time that each connection has for the event that it waits for, and the consequence if the event
//! does not happen. Each connection has one deadline, which is kept lazily: moving it to a later time is a store.

use super::Proxy;
use super::abort::Abort;
use super::codec::Codec;
use super::connection::{BackendEnd, Connection, Half, Moved, Phase, Wait};
use super::exchange::Exchange;
use super::failure::Failure;
use super::identity::Unidentified;
use super::output::Output;
use super::probe;
use super::progress::Progress;
use super::record::Reason;
use super::reply::LocalReply;
use crate::collections::slab::Key;
use crate::collections::timers::NEVER;
use crate::http::fields::Name;
use crate::http::grpc;
use crate::http::head::HeadRef;
use crate::limits::{EXPIRIES_PER_TURN, QUEUE_HIGH_BYTES};
use crate::metrics::Count;

impl Proxy {
    /// Returns when `expire` is to be called next, in microseconds; `u64::MAX` for never.
    pub fn next_deadline_us(&self) -> u64 {
        if !self.ledger.due.is_empty() || !self.ledger.turns.is_empty() || self.can_feed() {
            return self.now_us;
        }
        let probe_us = if self.shutdown.draining { u64::MAX } else { self.upstreams.balancer.next_probe_us() };
        let look_us = if self.ledger.waiting.is_empty() { u64::MAX } else { self.ledger.look_us };
        self.ledger.timers.next_us().min(probe_us).min(look_us).min(self.next_redial_us()).min(self.next_report_us())
    }

    /// Acts on some of the deadlines that have passed, so that other events do not wait for all of them. There are
    /// more until `next_deadline_us` is in the future.
    pub fn expire(&mut self) {
        self.count_missing();
        self.ledger.timers.expire(self.now_us, &mut self.ledger.due);
        for _ in 0..EXPIRIES_PER_TURN {
            // A connection that is due may have a deadline again, because another one has ended.
            self.set_deadlines();
            let Some(index) = self.ledger.due.pop() else { break };
            // A connection that has a deadline again was handled since. So was one that has taken over the slot.
            if let Some(key) = self.connections.key_at(index).filter(|_| self.ledger.timers.get(index) == NEVER) {
                self.expired(key);
            }
        }
        if !self.shutdown.draining && self.upstreams.balancer.next_probe_us() <= self.now_us {
            self.begin_probes();
        }
        self.redial();
        self.take_turns();
        self.report_repeats();
        self.feed();
        self.resume();
    }

    /// Counts lookups that found nothing although an invariant guarantees a value.
    fn count_missing(&mut self) {
        let missing = self.connections.missing() + self.exchanges.missing();
        if missing > 0 {
            self.shared.block.set(Count::Missing, missing);
        }
    }

    fn expired(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        if connection.exchange.is_some() && self.now_us >= connection.until_us {
            return self.deadline_passed(key);
        }
        match connection.wait {
            Wait::Nothing => {}
            Wait::ProxyHeader => self.unidentified(key, Some(Unidentified::Late)),
            // There is no request to reply to.
            Wait::Idle if connection.codec.mux().is_some() => self.end_idle_downstream(key),
            Wait::FirstByte | Wait::Idle => self.check_idle(key),
            Wait::RequestHead => self.end_unfinished(key, LocalReply::HeadLate),
            Wait::Message if connection.is_client() => {
                self.upload_failed(key, Reason::Replied(LocalReply::ContentLate))
            }
            Wait::Upload => self.upload_failed(key, Reason::Replied(LocalReply::ContentLate)),
            Wait::LastRead | Wait::Linger | Wait::Pool => self.close(key, Output::Close(key)),
            Wait::HalfClosed => self.client_gone(key, Reason::ClientLeft(Abort::Closed)),
            Wait::Room => self.no_room(key),
            Wait::Probe => self.probe_failed(key, probe::Cause::Late),
            Wait::Connect if connection.codec.stream().is_some() => self.mux_late(key),
            Wait::Connect => {
                let failure = if self.take_redial(key) { Failure::Busy } else { Failure::ConnectTimeout };
                self.backend_failed(key, failure);
            }
            Wait::Ping => self.mux_silent(key),
            Wait::Block => self.block_late(key),
            Wait::Shutdown => self.complete_shutdown(key),
            Wait::Backend if self.is_on_its_way(key) => self.rearm(key, Moved::Out),
            // The client may hold no more since.
            Wait::Backend if self.wait_of(key, connection) != Wait::Backend => self.rearm(key, Moved::Nothing),
            wait if connection.has_halves(wait) => self.ask_unacknowledged(key),
            wait @ (Wait::ClientSend | Wait::Backend | Wait::Message) => self.stalled(key, wait),
            Wait::Tunnel if connection.is_client() => self.client_gone(key, Reason::Tunnel),
            Wait::Tunnel => self.backend_failed(key, Failure::Timeout),
        }
    }

    /// Ends the exchange of a peer that has taken nothing and sent nothing for too long.
    pub(super) fn stalled(&mut self, key: Key, wait: Wait) {
        if wait == Wait::ClientSend {
            if self.waits_for_socket(key) {
                return self.rearm(key, Moved::Out);
            }
            return self.client_gone(key, Reason::ClientLeft(Abort::Stalled));
        }
        self.doubt_mux(key);
        self.backend_failed(key, Failure::Timeout);
    }

    /// Begins the deadline that a gRPC call sets itself, if there is one.
    pub(super) fn begin_deadline(&mut self, key: Key, head: HeadRef<'_>) {
        let Some(us) = head.values(Name::GrpcTimeout).next().and_then(grpc::timeout_us) else { return };
        if let Some(client) = self.connections.get_mut(key) {
            client.until_us = self.now_us.saturating_add(us);
            self.ledger.timers.set(key.index(), client.until_us);
        }
    }

    /// Ends a gRPC call whose deadline has passed. No backend is to blame.
    fn deadline_passed(&mut self, key: Key) {
        // The reply has the usual time to reach the client.
        self.connections.get_mut(key).into_iter().for_each(|client| client.until_us = NEVER);
        self.upload_failed(key, Reason::Replied(LocalReply::DeadlinePassed));
    }

    /// Notes that a connection may wait for another event now. `set_deadlines` follows, once for all changes. `moved`:
    /// the direction in which bytes have just moved on it.
    pub(super) fn changed(&mut self, key: Key, moved: Moved) {
        // An input changes few connections, and the latest ones again.
        match self.ledger.changed.iter_mut().rev().take(4).find(|(other, _)| *other == key) {
            Some((_, before)) => *before = before.and(moved),
            None => self.ledger.changed.push((key, moved)),
        }
    }

    /// Sets the deadlines of all connections that have changed.
    pub(super) fn set_deadlines(&mut self) {
        while let Some((key, moved)) = self.ledger.changed.pop() {
            self.rearm(key, moved);
        }
    }

    /// Sets the deadline for the event that a connection waits for now. `moved`: the direction in which bytes have
    /// just moved on it.
    pub(super) fn rearm(&mut self, key: Key, moved: Moved) {
        let Some(mut connection) = self.connections.get(key) else { return };
        if !matches!(connection.codec, Codec::Http1(_)) {
            self.recount(key);
            let Some(recounted) = self.connections.living(key) else { return };
            connection = recounted;
        }
        let wait = self.wait_of(key, connection);
        let Some(connection) = self.connections.living_mut(key) else { return };
        let useless = |backend: &mut BackendEnd| std::mem::take(&mut backend.no_progress);
        let renewed = wait.is_renewed(moved) && !connection.backend_mut().is_some_and(useless);
        if wait == connection.wait && !renewed {
            return;
        }
        if std::mem::replace(&mut connection.half, Half::First) == Half::Second {
            self.ledger.unacknowledged.remove(&key);
        }
        // The time for the first head begins with the connection, and does not restart with the first byte. During a
        // shutdown it restarts, because the connection had a shorter limit before the byte.
        let goes_on =
            (connection.wait, wait) == (Wait::FirstByte, Wait::RequestHead) && self.shutdown.drain_idle_us == NEVER;
        connection.wait = wait;
        if !goes_on {
            let (until_us, is_admin) = (connection.until_us, connection.is_admin());
            let halves = connection.has_halves(wait);
            let limit_us = self.limit_us(wait, is_admin);
            let since_us = if wait == Wait::Idle { self.idle_since_us(key) } else { self.now_us };
            let deadline_us = since_us.saturating_add(if halves { limit_us / 2 } else { limit_us });
            self.ledger.timers.set(key.index(), deadline_us.min(until_us));
        }
    }

    /// Returns the time since which a client has been idle.
    fn idle_since_us(&mut self, key: Key) -> u64 {
        let mux = self.connections.get_mut(key).and_then(|one| one.codec.mux_mut());
        mux.map_or(self.now_us, |mux| mux.idle_since_us(self.now_us))
    }

    /// Returns the event that a connection waits for.
    #[inline(always)]
    pub(super) fn wait_of(&self, key: Key, connection: &Connection) -> Wait {
        match connection.exchange.and_then(|id| self.exchanges.living(id)) {
            Some(exchange) => self.exchange_wait(connection, exchange),
            // The deadlines of the client that it is bound to apply.
            None if !connection.is_client() && self.upstreams.bonds.contains_key(&key) => Wait::Nothing,
            None => connection.idle_wait(),
        }
    }

    #[inline(always)]
    fn exchange_wait(&self, connection: &Connection, exchange: &Exchange) -> Wait {
        let is_full = |key| self.connections.get(key).is_none_or(|peer| !self.has_room(peer));
        let mux_key = connection.codec.stream().and_then(|stream| self.connections.get(stream.mux));
        match (connection.phase, connection.is_client()) {
            // The deadline of its mux applies.
            (Phase::Connecting, _) if mux_key.is_some_and(Connection::is_awaited) => Wait::Nothing,
            (Phase::Connecting, _) => Wait::Connect,
            _ if exchange.is_tunnel() => Wait::Tunnel,
            (_, true) if self.is_half_closed(connection, exchange) => Wait::HalfClosed,
            (_, true) if exchange.is_queued() => Wait::Room,
            (_, true) if !connection.output.is_empty() => Wait::ClientSend,
            (_, true) if exchange.request != Progress::Flowing || exchange.awaits_continue() => Wait::Nothing,
            (_, true) => match exchange.backend().and_then(|key| self.connections.get(key)) {
                Some(backend) if backend.phase == Phase::Open && backend.output.len() < QUEUE_HIGH_BYTES => {
                    if exchange.messages { Wait::Message } else { Wait::Upload }
                }
                _ => Wait::Nothing,
            },
            // A backend may stop reading until its own output has been taken.
            (_, false) if is_full(exchange.client) => Wait::Nothing,
            (_, false) if !connection.output.is_empty() || exchange.awaits_continue() => Wait::Backend,
            (_, false) if exchange.request == Progress::Flowing => Wait::Nothing,
            (_, false) if exchange.messages && exchange.response == Progress::Flowing => Wait::Message,
            (_, false) => Wait::Backend,
        }
    }
}
