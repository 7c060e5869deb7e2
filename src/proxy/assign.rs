//! From an exchange to a connection that carries it: a backend is picked, a pooled connection lent
//! or a fresh one asked for, and the request written.

use super::connection::{BackendEnd, ClientEnd, Connection, Moved, Peer, Use};
use super::exchange::{Progress, Upstream};
use super::record::{Cause, Outcome};
use super::reply::LocalReply;
use super::slots::Backend;
use super::{Failure, Output, Proxy};
use crate::balance::Pick;
use crate::collections::slab::Key;
use crate::config::HostHeader;
use crate::http::forward::{self, RequestWay};
use crate::http::framing::Body;
use crate::limits::{H2_REFUSALS, POOL_FRESH_US, POOL_IDLE_US, TRIES};
use crate::metrics::Count;

impl Proxy {
    /// Gives an exchange to the backend picked for it, has it wait for one, or answers that there is none.
    pub(super) fn assign(&mut self, id: Key, pick: Pick) {
        match pick {
            Pick::Slot(slot) => self.assign_to(id, slot),
            Pick::Full => self.wait_for_room(id),
            Pick::Nobody => self.answer_exchange(id, LocalReply::NoBackend),
        }
    }

    /// Tries an exchange once more, where there is a backend left for it; whether there is. `seen`: one may
    /// have seen the request, so that it is sent again only within the budget. `reason`: what that is
    /// counted as. `failed`: what is logged about the try before.
    pub(super) fn try_again(&mut self, id: Key, seen: bool, reason: Count, failed: Option<Failure>) -> bool {
        let mut pick = if reason == Count::RetryConnect { self.pick_sibling(id) } else { Pick::Nobody };
        if pick == Pick::Nobody {
            pick = self.pick(id);
        }
        if pick == Pick::Nobody && self.forgets_declined(id) {
            pick = self.pick(id);
        }
        if pick == Pick::Nobody {
            return false;
        }
        if seen && !self.balancer.may_repeat(self.now_us) {
            if let Pick::Slot(slot) = pick {
                self.balancer.give_back(slot);
            }
            self.shared.block.add(Count::RetryRefused, 1);
            return false;
        }
        if let Some(failure) = failed {
            self.log_exchange(id, Outcome::Retried, Cause::Failed(failure));
        }
        if let Some(exchange) = self.exchanges.get_mut(id) {
            exchange.tries.reason = Some(reason);
        }
        self.assign(id, pick);
        true
    }

    /// A backend has refused a stream; whether the next try is rationed. The first tries are made at once, as are those
    /// on other backends. Further ones would keep a backend that is full busy with refusing; they are on a connection
    /// of their own, because the limit may be one of the connection.
    pub(super) fn is_refused_again(&mut self, id: Key) -> bool {
        let Some(exchange) = self.exchanges.get_mut(id) else { return false };
        let tries = &mut exchange.tries;
        tries.refusals = tries.refusals.saturating_add(1);
        let rationed = tries.refusals >= H2_REFUSALS && !self.balancer.has_other(tries.slots());
        tries.isolated |= rationed;
        rationed
    }

    /// The backend tried last was not asked. It may well serve on a fresh connection: at once where the one
    /// before was `stale`, else, as it would not look at the request, where no other is fit to be asked.
    pub(super) fn was_not_asked(&mut self, id: Key, stale: bool) {
        let Some(exchange) = self.exchanges.get_mut(id) else { return };
        let tries = &mut exchange.tries;
        if !stale && self.balancer.has_other(tries.slots()) {
            tries.declined |= 1 << (tries.slots().len().max(1) - 1);
        } else if let Some(last) = tries.slots_mut().last_mut() {
            *last = u16::MAX;
        }
    }

    /// Has the backends that would not look at an exchange's request count as untried; whether there were any.
    fn forgets_declined(&mut self, id: Key) -> bool {
        let Some(exchange) = self.exchanges.get_mut(id) else { return false };
        let declined = std::mem::take(&mut exchange.tries.declined);
        for (at, slot) in exchange.tries.slots_mut().iter_mut().enumerate() {
            if declined >> at & 1 == 1 {
                *slot = u16::MAX;
            }
        }
        declined != 0
    }

    /// Picks another address of the backend that could not be connected to last. So a server that listens
    /// on one of the addresses of its name, as many do of localhost's, is reached with the second try.
    fn pick_sibling(&mut self, id: Key) -> Pick {
        let Some(exchange) = self.exchanges.get(id) else { return Pick::Nobody };
        let tried = exchange.tries.slots();
        let Some(last) = tried.last().and_then(|&slot| self.backends.get(usize::from(slot))?.as_ref()) else {
            return Pick::Nobody;
        };
        let is_sibling = |slot: usize, other: &Backend| {
            other.current && other.is_beside(last) && u16::try_from(slot).is_ok_and(|slot| !tried.contains(&slot))
        };
        let siblings = self.backends.iter().enumerate().filter_map(|(slot, other)| Some((slot, other.as_ref()?)));
        let mut siblings = siblings.filter(|&(slot, other)| is_sibling(slot, other)).map(|(slot, _)| slot);
        siblings.find(|&slot| self.balancer.take(slot)).map_or(Pick::Nobody, Pick::Slot)
    }

    /// Picks a backend for an exchange, and tells of an outage where that is seen by it.
    pub(super) fn pick(&mut self, id: Key) -> Pick {
        let pick = self.pick_bound(id).unwrap_or_else(|| self.pick_untried(id));
        self.tell_outage();
        pick
    }

    /// Picks a backend that was not tried; for a request that needs a connection for itself rather one that
    /// speaks HTTP/1.1, as HTTP/2 has no switching of protocols (RFC 9113, 8.6) and shares connections.
    fn pick_untried(&mut self, id: Key) -> Pick {
        let Some(exchange) = self.exchanges.get(id) else { return Pick::Nobody };
        let mut tried = exchange.tries.slots().to_vec();
        let alone = exchange.facts.is_alone();
        let first = self.balancer.pick(&tried, self.now_us);
        let mut next = first;
        let mut passed = Vec::new();
        while let Pick::Slot(slot) = next
            && alone
            && self.is_http2_only(slot)
            && passed.len() < TRIES
        {
            passed.push(slot);
            tried.push(slot as u16);
            next = self.balancer.pick(&tried, self.now_us);
        }
        let found = passed.is_empty() || matches!(next, Pick::Slot(slot) if !self.is_http2_only(slot));
        if !found && let Pick::Slot(slot) = next {
            self.balancer.give_back(slot);
        }
        // Each pick counts as in flight; the first stands where there is no better one.
        passed.into_iter().skip(usize::from(!found)).for_each(|slot| self.balancer.give_back(slot));
        if found { next } else { first }
    }

    /// Gives an exchange a connection to the backend picked for it: on the first try a pooled one
    /// where there is one fit for it, else a fresh one.
    fn assign_to(&mut self, id: Key, slot: usize) {
        let Some(exchange) = self.exchanges.get_mut(id) else { return self.balancer.give_back(slot) };
        exchange.tries.add(slot as u16);
        exchange.record.slot = Some(slot as u16);
        if let Some(reason) = exchange.tries.reason.take() {
            self.shared.block.add(reason, 1);
        }
        let alone = exchange.facts.is_alone();
        if self.balancer.is_open() {
            self.shared.block.add(Count::FailOpen, 1);
        }
        if let Some((key, bound)) = self.bound_backend(id)
            && bound == slot
        {
            self.shared.block.add(Count::Reused, 1);
            return self.attach(id, key);
        }
        if self.may_multiplex(slot) && (!alone || self.is_http2_only(slot)) {
            return self.join(id, slot);
        }
        if let Some(key) = self.pooled(id, slot) {
            self.shared.block.add(Count::Reused, 1);
            return self.attach(id, key);
        }
        self.dial(id, slot);
    }

    /// Asks for a connection for an exchange alone.
    pub(super) fn dial(&mut self, id: Key, slot: usize) {
        let mut connection = Connection::new(self.backend_end(slot, Use::FRESH));
        connection.exchange = Some(id);
        let key = self.connections.insert(connection);
        self.set_upstream(id, Upstream::Assigned { slot: slot as u16, key });
        self.rearm(key, Moved::Nothing);
        self.outputs.push_back(Output::Connect(key, slot));
    }

    /// A pooled connection that may carry an exchange: none for a second try, which is to meet
    /// no second stale connection, and only one that was just in use for a request that must
    /// not be sent twice.
    fn pooled(&mut self, id: Key, slot: usize) -> Option<Key> {
        let exchange = self.exchanges.get(id)?;
        let last = self.idle.last(slot)?;
        let idle_since_us = self.timers.get(last.index()).saturating_sub(POOL_IDLE_US);
        let fresh = self.now_us.saturating_sub(idle_since_us) < POOL_FRESH_US;
        let replayable = exchange.facts.is_idempotent() && matches!(exchange.facts.body, Body::None | Body::Length(0));
        if exchange.tries.count() > 1 || !fresh && !replayable {
            return None;
        }
        self.idle.take(slot)
    }

    /// Writes an exchange's request to an established connection.
    pub(super) fn attach(&mut self, id: Key, key: Key) {
        let Some(&BackendEnd { slot, .. }) = self.connections.get(key).and_then(Connection::backend) else { return };
        self.set_upstream(id, Upstream::Open { slot, key });
        let Some(exchange) = self.exchanges.get_mut(id) else { return self.close(key, Output::Close(key)) };
        exchange.record.sent_us = self.now_us;
        let (client, auth) = (exchange.client, exchange.facts.connection.authentication);
        let Some(Peer::Client(ClientEnd { address, listener, trusted, .. })) =
            self.connections.get(client).map(|client| client.peer)
        else {
            return;
        };
        let shows = self.shows();
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.exchange = Some(id);
        let Some(exchange) = self.exchanges.get(id) else { return };
        let backend = self.backends[usize::from(slot)].as_ref();
        let own_host = backend.map_or("", |backend| &backend.host);
        let way = RequestWay {
            client: address,
            trusted,
            scheme: "http",
            next_scheme: backend.map_or("http", |backend| backend.scheme()),
            port: self.ports.get(usize::from(listener)).map_or("", String::as_str),
            host: match &self.host_header {
                HostHeader::Preserve if backend.is_some_and(|backend| backend.own_host) => Some(own_host),
                HostHeader::Preserve => None,
                HostHeader::Backend => Some(own_host),
                HostHeader::Name(name) => Some(name),
            },
            default_host: own_host,
            via: self.via.as_deref(),
            request_id: exchange.id(),
        };
        self.text.clear();
        let mut writer = connection.codec.head_writer(&mut self.text, shows);
        forward::request(&mut writer, exchange.saved.view(), &exchange.facts, &way);
        let written = writer.finish();
        let (body, ended) = (exchange.facts.body, exchange.request == Progress::Ended);
        if written.list_bytes > 0 && written.list_bytes > self.list_limit(key) {
            self.close(key, Output::Close(key));
            return self.answer_exchange(id, LocalReply::HeadTooLarge);
        }
        self.send_head(key, "request head", Some(body), written);
        if ended && let Some(connection) = self.connections.get_mut(key) {
            // A retry, of a request without content that had been read to its end.
            connection.codec.write_end(&mut connection.output, &mut self.buffers, None);
        }
        self.schedule_send(key);
        auth.then(|| self.bind(client, key));
        self.rearm(key, Moved::Nothing);
        self.resumed.push(client);
    }
}
