//! The way from an exchange to a connection that carries it: the pick of a backend, a pooled or fresh connection, and
//! the request's head.

use super::Proxy;
use super::connection::{BackendEnd, ClientEnd, Connection, Moved, Peer, Use};
use super::exchange::Upstream;
use super::failure::Failure;
use super::output::Output;
use super::progress::Progress;
use super::record::{Cause, Outcome};
use super::reply::LocalReply;
use super::state::Listener;
use super::upstreams::NO_GROUP;
use crate::balance::{Pick, Want};
use crate::collections::slab::Key;
use crate::collections::timers::NEVER;
use crate::http::forward::{self, NumberText, RequestWay};
use crate::http::framing::{Body, Kind};
use crate::http::grpc;
use crate::limits::{H2_REFUSALS, POOL_FRESH_US, POOL_IDLE_US};
use crate::metrics::Count;

impl Proxy {
    /// Gives an exchange to the picked backend, puts it into the queue, or replies that there is no backend.
    pub(super) fn assign(&mut self, id: Key, pick: Pick) {
        match pick {
            Pick::Slot(slot) => self.assign_to(id, slot),
            Pick::Full => self.wait_for_room(id),
            Pick::Nobody if self.exchanges.living(id).is_some_and(|exchange| exchange.group == NO_GROUP) => {
                self.answer_exchange(id, LocalReply::NoRoute);
            }
            Pick::Nobody => self.answer_exchange(id, LocalReply::NoBackend),
        }
    }

    /// Tries an exchange again. Returns false if there is no backend for it. `seen`: a backend may have seen the
    /// request, so the retry budget must allow the try. `reason`: the count for the try. `failed`: the failure of the
    /// former try, which is logged.
    pub(super) fn try_again(&mut self, id: Key, seen: bool, reason: Count, failed: Option<Failure>) -> bool {
        let tried = self.exchanges.living(id).map(|exchange| exchange.tries.slots());
        let sibling = tried.filter(|_| reason == Count::RetryConnect).and_then(|tried| self.upstreams.sibling(tried));
        let mut pick = self.pick(id, sibling);
        if pick == Pick::Nobody && self.forgets_declined(id) {
            pick = self.pick(id, None);
        }
        if pick == Pick::Nobody {
            return false;
        }
        if seen && !self.upstreams.balancer.may_repeat(self.now_us) {
            if let Pick::Slot(slot) = pick {
                self.upstreams.balancer.give_back(slot);
            }
            self.shared.block.add(Count::RetryRefused, 1);
            return false;
        }
        if let Some(failure) = failed {
            self.log_exchange(id, Outcome::Retried, Cause::Failed(failure));
        }
        if let Some(exchange) = self.exchanges.living_mut(id) {
            exchange.tries.reason = Some(reason);
        }
        self.assign(id, pick);
        true
    }

    /// Notes that a backend has refused a stream. Returns true if the next try is rationed. The first tries are made
    /// at once, and so are tries on other backends. Further tries would keep a full backend busy with refusing. They
    /// use a connection of their own, because the limit may be one of the connection.
    pub(super) fn is_refused_again(&mut self, id: Key) -> bool {
        let Some(exchange) = self.exchanges.living_mut(id) else { return false };
        let tries = &mut exchange.tries;
        tries.refusals = tries.refusals.saturating_add(1);
        let rationed =
            tries.refusals >= H2_REFUSALS && !self.upstreams.balancer.has_other(exchange.group, tries.slots());
        tries.isolated |= rationed;
        rationed
    }

    /// Notes that the backend of the last try did not process the request, so it may be tried again on a fresh
    /// connection: at once if the connection was `stale`, otherwise only if no other backend is left.
    pub(super) fn was_not_asked(&mut self, id: Key, stale: bool) {
        let Some(exchange) = self.exchanges.living_mut(id) else { return };
        let tries = &mut exchange.tries;
        if !stale && self.upstreams.balancer.has_other(exchange.group, tries.slots()) {
            tries.declined |= 1 << (tries.slots().len().max(1) - 1);
        } else if let Some(last) = tries.slots_mut().last_mut() {
            *last = u16::MAX;
        }
    }

    /// Lets the backends that declined the request count as untried. Returns false if there were none.
    fn forgets_declined(&mut self, id: Key) -> bool {
        let Some(exchange) = self.exchanges.living_mut(id) else { return false };
        let declined = std::mem::take(&mut exchange.tries.declined);
        for (at, slot) in exchange.tries.slots_mut().iter_mut().enumerate() {
            if declined >> at & 1 == 1 {
                *slot = u16::MAX;
            }
        }
        declined != 0
    }

    /// Picks a backend for an exchange: `prefer` if it has room, else the one that the client is bound to, else one
    /// that was not tried. An outage that the pick reveals is logged.
    pub(super) fn pick(&mut self, id: Key, prefer: Option<u16>) -> Pick {
        let bound = if prefer.is_none() { self.pick_bound(id) } else { None };
        let pick = bound.unwrap_or_else(|| {
            let Some(exchange) = self.exchanges.living(id) else { return Pick::Nobody };
            let prefer = prefer.or_else(|| self.upstreams.sessions.slot(exchange.session?));
            let hash = exchange.hash.filter(|_| self.upstreams.hash_key.is_some());
            let want = Want { tried: exchange.tries.slots(), prefer, group: exchange.group, hash };
            self.upstreams.pick(want, &exchange.facts, self.now_us)
        });
        self.log_outage();
        pick
    }

    /// Gives an exchange a connection to the picked backend: a suitable pooled one on the first try, otherwise a
    /// fresh one.
    fn assign_to(&mut self, id: Key, slot: usize) {
        let Some(exchange) = self.exchanges.living_mut(id) else { return self.upstreams.balancer.give_back(slot) };
        exchange.tries.add(slot as u16);
        exchange.record.slot = Some(slot as u16);
        if let Some(reason) = exchange.tries.reason.take() {
            self.shared.block.add(reason, 1);
        }
        let alone = exchange.facts.is_alone();
        let tunnels = exchange.facts.kind == Kind::WebSocket && self.upstreams.accepts_connect(slot) == Some(true);
        if self.upstreams.balancer.is_open(exchange.group) {
            self.shared.block.add(Count::FailOpen, 1);
        }
        if let Some((key, bound)) = self.bound_backend(id)
            && bound == slot
        {
            self.shared.block.add(Count::Reused, 1);
            return self.attach(id, key);
        }
        if self.upstreams.may_multiplex(slot, self.now_us)
            && (!alone || tunnels || self.upstreams.is_http2_only(slot, self.now_us))
        {
            return self.join(id, slot);
        }
        if let Some(key) = self.pooled(id, slot) {
            self.shared.block.add(Count::Reused, 1);
            return self.attach(id, key);
        }
        self.dial(id, slot);
    }

    /// Dials a connection for one exchange.
    pub(super) fn dial(&mut self, id: Key, slot: usize) {
        let owner = self.owner(id);
        let mut connection = Connection::new(self.upstreams.backend_end(slot, Use::FRESH, owner));
        connection.exchange = Some(id);
        let key = self.connections.insert(connection);
        self.set_upstream(id, Upstream::Assigned { slot: slot as u16, key });
        self.rearm(key, Moved::Nothing);
        self.ledger.outputs.push_back(Output::Connect(key, slot));
    }

    /// Takes a pooled connection that may carry an exchange. A second try gets none, because it must not meet a
    /// second stale connection. A request that must not be sent twice gets only one that was used a moment ago.
    fn pooled(&mut self, id: Key, slot: usize) -> Option<Key> {
        let exchange = self.exchanges.living(id)?;
        let owner = self.owner(id);
        let owned = owner.and_then(|owner| self.upstreams.owned.of(owner, slot).find(|ready| ready.place.is_some()));
        let last = if owner.is_some() { owned?.key } else { self.upstreams.idle.last(slot)? };
        let idle_since_us = self.ledger.timers.get(last.index()).saturating_sub(POOL_IDLE_US);
        let fresh = self.now_us.saturating_sub(idle_since_us) < POOL_FRESH_US;
        let replayable = exchange.facts.is_idempotent() && matches!(exchange.facts.body, Body::None | Body::Length(0));
        if exchange.tries.count() > 1 || !fresh && !replayable {
            return None;
        }
        match owner {
            Some(owner) => self.upstreams.take_owned(owner, last),
            None => self.upstreams.idle.take(slot),
        }
    }

    /// Writes the head of an exchange's request to an established connection.
    pub(super) fn attach(&mut self, id: Key, key: Key) {
        let Some(&BackendEnd { slot, .. }) = self.connections.living(key).and_then(Connection::backend) else { return };
        self.set_upstream(id, Upstream::Open { slot, key });
        let Some(exchange) = self.exchanges.living_mut(id) else { return self.close(key, Output::Close(key)) };
        exchange.record.sent_us = self.now_us;
        let (client, auth) = (exchange.client, exchange.facts.connection.authentication);
        let Some(Connection { peer: Peer::Client(client_end), until_us, .. }) = self.connections.living(client) else {
            return;
        };
        let ClientEnd { address, original_port, listener, trusted, .. } = *client_end;
        let is_timed = exchange.facts.kind == Kind::Grpc && *until_us != NEVER;
        let grpc_timeout = is_timed.then(|| grpc::timeout_text(until_us.saturating_sub(self.now_us)));
        let body = exchange.facts.body;
        let shows = self.shows();
        let asks = self.asks_websocket(id, key);
        let carrier = self.secures.asks_certificates().then(|| self.carrier(client).index());
        let Some(connection) = self.connections.living_mut(key) else { return };
        connection.exchange = Some(id);
        let Some(exchange) = self.exchanges.living(id) else { return };
        let backend = self.upstreams.backends[usize::from(slot)].as_ref();
        let own_host = backend.map_or("", |backend| &backend.host);
        let listener = self.settings.listeners.get(usize::from(listener));
        let mut digits = NumberText::default();
        let way = RequestWay {
            client: address,
            trusted,
            scheme: listener.map_or("http", Listener::scheme),
            next_scheme: backend.map_or("http", |backend| backend.scheme()),
            port: match original_port {
                0 => listener.map_or(&[][..], |listener| listener.port.as_bytes()),
                port => digits.write(port.into()),
            },
            host: self.settings.host_for(own_host, backend.is_some_and(|backend| backend.own_host)),
            default_host: own_host,
            via: self.settings.via.as_deref(),
            request_id: exchange.id(),
            certificate: carrier.map(|at| self.secures.certificate(at)),
            handshake: asks.handshake(),
            cookie: self.upstreams.sessions.name(),
            grpc_timeout: grpc_timeout.as_deref().map(str::as_bytes),
        };
        self.scratch.text.clear();
        let mut writer = connection.codec.head_writer(&mut self.scratch.text, shows);
        forward::request(&mut writer, exchange.saved.view(), &exchange.facts, &way);
        let written = writer.finish();
        if written.list_bytes > 0 && written.list_bytes > self.list_limit(key) {
            self.close(key, Output::Close(key));
            return self.answer_exchange(id, LocalReply::HeadTooLarge);
        }
        self.send_head(key, "request head", Some(asks.body(body)), written);
        self.write_kept(id, key);
        auth.then(|| self.bind(client, key));
        self.changed(key, Moved::Nothing);
        self.decode_further(client);
    }

    /// Writes the part of a request that an earlier backend has declined behind its head: the content that was kept, and
    /// the end if it was read.
    fn write_kept(&mut self, id: Key, key: Key) {
        let Some(exchange) = self.exchanges.living(id) else { return };
        if exchange.kept.is_empty() && exchange.request != Progress::Ended {
            return;
        }
        let Some(connection) = self.connections.living_mut(key) else { return };
        let (codec, output, buffers) = (&mut connection.codec, &mut connection.output, &mut self.scratch.buffers);
        if !exchange.kept.is_empty() {
            let content = buffers.extend(None, &exchange.kept);
            let rest = codec.write_data(output, buffers, content, exchange.kept.len());
            rest.into_iter().for_each(|buffer| buffers.give(buffer));
        }
        if exchange.request == Progress::Ended {
            codec.write_end(output, buffers, None);
        }
        self.schedule_send(key);
    }
}
