//! The backends' slots, the connections to them, and everything known about each backend.
//!
//! A slot belongs to one address of a backend. A generation tells the slot's present owner from former ones, so that
//! nothing of a former owner is put down to its successor.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::Proxy;
use super::bind::Bonds;
use super::codec::ErrorCode;
use super::connection::{BackendEnd, ClientEnd, Connection, Peer, Use};
use super::failure::Failure;
use super::output::Output;
use super::pool::{IdlePool, Owned};
use super::sticky::Sessions;
use crate::balance::cells::{self, Cells};
use crate::balance::{Balancer, Change, Pick, Want};
use crate::collections::slab::Key;
use crate::config::{Address, Plan};
use crate::http::affinity::{self, HashKey};
use crate::http::framing::{Kind, RequestFacts};
use crate::http::head::{HeadRef, Version};
use crate::http::proxy_header;
use crate::http::route::Routes;
use crate::limits::{SEEN_US, TRIES};
use crate::log::Level;
use crate::metrics::{self, Block, Count, SlotCount};

/// The group of a request for which there is no backend: no group has this number.
pub(super) const NO_GROUP: usize = usize::MAX;

/// The cells that a proxy shares with the proxies of other workers.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// The state of each backend.
    pub cells: Cells,
    /// The requests in flight of this worker, by slot.
    pub in_flight: &'static [AtomicU64],
    /// The counts of this worker.
    pub block: Block,
    /// The counts of each worker, this one included. Counts of workers of other programs precede them.
    pub workers: &'static [Block],
    /// The number of blocks before those of the workers.
    pub before: usize,
    /// The number of worker blocks, from the first, that have ever been used.
    pub used: &'static AtomicU64,
    /// The counts of the master.
    pub globals: Block,
}

impl Shared {
    /// Returns cells for one process alone, as tests and benches have it. Their memory is never freed.
    pub fn private(slots: usize) -> Shared {
        let in_flight = (0..slots).map(|_| AtomicU64::new(0)).collect();
        let block = metrics::private(slots);
        Shared {
            cells: cells::private(slots),
            in_flight: Vec::leak(in_flight),
            block,
            workers: Vec::leak(vec![block]),
            before: 0,
            used: Box::leak(Box::new(AtomicU64::new(1))),
            globals: metrics::private(0),
        }
    }

    /// Returns the blocks that count something.
    pub(super) fn counted(&self) -> &'static [Block] {
        let used = self.before + self.used.load(Relaxed) as usize;
        &self.workers[..used.min(self.workers.len())]
    }

    /// Sets all cells to zero.
    pub fn wipe(self) {
        self.cells.wipe();
        self.in_flight.iter().for_each(|cell| cell.store(0, Relaxed));
    }
}

/// One address of a backend. It stays when it has left the plan, because requests may be under way there.
#[derive(Debug)]
pub(super) struct Backend {
    /// The plan has this address.
    pub(super) current: bool,
    pub(super) generation: u64,
    /// The name as configured, followed by the address if the two differ.
    pub(super) label: String,
    /// The Host field for requests that get the backend's own.
    pub(super) host: String,
    address: Address,
    weight: u16,
    server_name: String,
    /// The backend speaks HTTP/2 without TLS.
    h2c: bool,
    pub(super) seen: Seen,
    /// Requests get the backend's own Host, regardless of `--host-header`.
    pub(super) own_host: bool,
}

impl Backend {
    /// True if both are addresses of one configured backend.
    pub(super) fn is_beside(&self, other: &Backend) -> bool {
        let over_tcp = |backend: &Backend| matches!(backend.address, Address::Tcp(_));
        over_tcp(self) && over_tcp(other) && self.host == other.host
    }

    /// Returns the scheme of the backend's resources.
    pub(super) fn scheme(&self) -> &'static str {
        if self.server_name.is_empty() { "http" } else { "https" }
    }
}

/// Observations about a backend. They may be out of date.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// The only version of HTTP that the backend speaks over TLS, and the end of that belief in microseconds.
    only: Option<(Version, u64)>,
    /// The number of concurrent streams that the backend accepts on an HTTP/2 connection.
    pub(super) streams: Option<usize>,
    /// The largest field section that the backend accepts on an HTTP/2 connection.
    pub(super) list: Option<usize>,
    /// The backend accepts extended CONNECT on an HTTP/2 connection.
    pub(super) connect: Option<bool>,
    /// The last error with which the backend ended an HTTP/2 connection.
    pub(super) fault: Option<ErrorCode>,
    /// The number of HTTP/2 connections in a row that ended with that error. A complete response resets it.
    pub(super) faults: u8,
}

impl Seen {
    fn only(&self, now_us: u64) -> Option<Version> {
        self.only.filter(|&(_, until_us)| now_us < until_us).map(|(version, _)| version)
    }
}

/// The backends, the pick among them, and the connections that are ready for requests.
#[derive(Debug)]
pub(super) struct Upstreams {
    pub(super) shared: Shared,
    /// The addresses of backends, by slot.
    pub(super) backends: Vec<Option<Backend>>,
    pub(super) balancer: Balancer,
    /// The routes that requests are matched with. The number of a group is one more than that of its route.
    routes: Routes,
    /// The routes for people, by number.
    route_names: Vec<String>,
    /// Group 0 gets the requests that match no route.
    takes_others: bool,
    /// The part of a request whose hash decides, if the strategy picks by hash.
    pub(super) hash_key: Option<HashKey>,
    pub(super) sessions: Sessions,
    /// The version of the PROXY header with which connections begin.
    pub(super) send_proxy: Option<proxy_header::Version>,
    /// Connections that are for one client each.
    pub(super) owned: Owned,
    /// Idle HTTP/1 connections.
    pub(super) idle: IdlePool,
    /// Pairs of connections that belong together.
    pub(super) bonds: Bonds,
    /// HTTP/2 connections that accept streams, by slot.
    pub(super) muxes: Vec<Vec<Key>>,
}

impl Upstreams {
    pub(super) fn new(plan: &Plan, shared: Shared, seed: u64) -> Upstreams {
        Upstreams {
            shared,
            backends: Vec::new(),
            balancer: Balancer::new(plan.rules(), shared.cells, shared.in_flight, seed),
            routes: Routes::default(),
            route_names: Vec::new(),
            takes_others: true,
            hash_key: None,
            sessions: Sessions::default(),
            send_proxy: plan.send_proxy,
            owned: Owned::default(),
            idle: IdlePool::new(),
            bonds: Bonds::new(),
            muxes: Vec::new(),
        }
    }

    /// Takes over the members of a plan. Returns the slots whose connections get no more requests: their former owner is
    /// gone, or connections begin with another PROXY header now.
    fn set(&mut self, plan: &Plan) -> Vec<usize> {
        let before: Vec<Option<u64>> = (0..self.backends.len()).map(|slot| self.generation(slot)).collect();
        self.backends.iter_mut().flatten().for_each(|backend| backend.current = false);
        // There are places for all slots that have ever been used: the plan uses the first slots first.
        let used = plan.members.iter().map(|member| usize::from(member.slot) + 1).max().unwrap_or(0);
        self.backends.resize_with(used.min(self.shared.cells.slots()).max(self.backends.len()), || None);
        self.idle.grow(self.backends.len());
        self.muxes.resize_with(self.backends.len(), Vec::new);
        for member in &plan.members {
            let Some(place) = self.backends.get_mut(usize::from(member.slot)) else { continue };
            let same = place.as_ref().filter(|before| before.generation == member.generation);
            *place = Some(Backend {
                current: true,
                generation: member.generation,
                label: label(&member.name, &member.address),
                host: member.host.clone(),
                address: member.address.clone(),
                weight: member.weight,
                server_name: member.server_name.clone(),
                h2c: member.h2c,
                seen: same.map(|before| before.seen).unwrap_or_default(),
                own_host: member.own_host,
            });
            self.shared.block.adopt(member.slot.into(), member.generation);
        }
        self.balancer.set_groups(plan.rules(), plan.picked_from(), &plan.groups());
        self.routes = Routes::new(&plan.routes);
        self.route_names = plan.routes.iter().map(ToString::to_string).collect();
        self.takes_others = plan.takes_others;
        self.hash_key.clone_from(&plan.hash_key);
        self.sessions.set(plan);
        let header = std::mem::replace(&mut self.send_proxy, plan.send_proxy);
        let is_over = |slot, was| self.generation(slot) != was || header != plan.send_proxy;
        let slots = before.into_iter().enumerate();
        slots.filter(|&(slot, was)| was.is_some() && is_over(slot, was)).map(|(slot, _)| slot).collect()
    }

    /// Returns the number of groups.
    pub(super) fn groups(&self) -> usize {
        1 + self.route_names.len()
    }

    /// Returns the group of backends for a request.
    pub(super) fn group_of(&self, head: HeadRef<'_>) -> usize {
        if self.routes.is_empty() {
            return 0;
        }
        match self.routes.find(head) {
            Some(route) => 1 + route,
            None if self.takes_others => 0,
            None => NO_GROUP,
        }
    }

    /// Returns the backend of a group that a request's cookie names.
    pub(super) fn session_of(&self, head: HeadRef<'_>, group: usize) -> Option<u64> {
        self.sessions.find(head, |slot| self.balancer.is_in(group, slot))
    }

    /// Returns the backend in a slot, whether the plan still has it or not.
    pub(super) fn backend(&self, slot: usize) -> Option<&Backend> {
        self.backends.get(slot)?.as_ref()
    }

    /// True if a backend of the plan may get requests.
    pub(super) fn can_serve(&self) -> bool {
        self.backends.iter().flatten().any(|backend| backend.current && backend.weight > 0)
    }

    /// Returns the address of the backend in a slot.
    pub(super) fn address(&self, slot: usize) -> Option<&Address> {
        Some(&self.backend(slot)?.address)
    }

    /// Returns the name of the backend in a slot as configured, followed by its address if the two differ.
    pub(super) fn label(&self, slot: usize) -> &str {
        self.backend(slot).map_or("", |backend| &backend.label)
    }

    /// True if a backend of the plan speaks TLS.
    pub(super) fn speaks_tls(&self) -> bool {
        self.backends.iter().flatten().any(|backend| backend.current && !backend.server_name.is_empty())
    }

    /// Returns the name that the certificate of the backend in a slot must have; `None` without TLS.
    pub(super) fn server_name(&self, slot: usize) -> Option<&str> {
        self.backend(slot).map(|backend| backend.server_name.as_str()).filter(|name| !name.is_empty())
    }

    /// True if the backend in a slot speaks HTTP/2, or may speak it.
    pub(super) fn may_multiplex(&self, slot: usize, now_us: u64) -> bool {
        self.backend(slot).is_some_and(|backend| {
            let http1 = backend.seen.only(now_us) == Some(Version::Http11);
            backend.h2c || !backend.server_name.is_empty() && !http1
        })
    }

    /// True if the backend in a slot speaks HTTP/2 without TLS, and so nothing else.
    pub(super) fn is_h2c(&self, slot: usize) -> bool {
        self.backend(slot).is_some_and(|backend| backend.h2c)
    }

    /// True if the backend in a slot speaks nothing but HTTP/2.
    pub(super) fn is_http2_only(&self, slot: usize, now_us: u64) -> bool {
        let only = |backend: &Backend| backend.seen.only(now_us) == Some(Version::Http2);
        self.backend(slot).is_some_and(|backend| backend.h2c || only(backend))
    }

    /// Returns the observations about the backend at the other end of a connection if the slot still belongs to it.
    pub(super) fn seen(&mut self, peer: Peer) -> Option<&mut Seen> {
        let Peer::Backend(BackendEnd { slot, generation, .. }) = peer else { return None };
        let backend = self.backends.get_mut(usize::from(slot))?.as_mut()?;
        (backend.generation == generation).then_some(&mut backend.seen)
    }

    /// Notes that a backend has shown over TLS that it speaks no other version of HTTP, at least at this moment.
    pub(super) fn speaks_only(&mut self, peer: Peer, version: Version, now_us: u64) {
        if let Some(seen) = self.seen(peer) {
            seen.only = Some((version, now_us.saturating_add(SEEN_US)));
        }
    }

    /// Notes that a backend has shown that it speaks HTTP/2.
    pub(super) fn speaks_http2(&mut self, peer: Peer) {
        if let Some(seen) = self.seen(peer) {
            seen.only = seen.only.filter(|&(version, _)| version == Version::Http2);
        }
    }

    /// Returns the peer of a fresh connection to a slot's backend. `owner`: the client that it is for.
    pub(super) fn backend_end(&self, slot: usize, used_for: Use, owner: Option<Key>) -> Peer {
        Peer::Backend(BackendEnd::new(slot as u16, self.generation(slot).unwrap_or(0), used_for, owner))
    }

    /// True if a connection leads to a backend of the plan, and belongs to one client exactly if the plan wants this.
    pub(super) fn is_current(&self, peer: Peer) -> bool {
        let Peer::Backend(BackendEnd { slot, generation, used_for, owner, .. }) = peer else { return false };
        let is_owned = used_for == Use::Probe || owner.is_some() == self.send_proxy.is_some();
        is_owned && self.generation(slot.into()) == Some(generation)
    }

    /// Returns the generation of a slot; `None` if the plan does not use it.
    pub(super) fn generation(&self, slot: usize) -> Option<u64> {
        self.backend(slot).filter(|backend| backend.current).map(|backend| backend.generation)
    }

    /// Returns whether the backend in a slot accepts extended CONNECT over HTTP/2; `None` if it has not said so yet.
    pub(super) fn accepts_connect(&self, slot: usize) -> Option<bool> {
        self.backend(slot)?.seen.connect
    }

    /// True if the backend in a slot cannot serve a request because of the version that it speaks: a connection of
    /// HTTP/2 is shared, and cannot switch protocols (RFC 9113, 8.6).
    fn is_unfit(&self, slot: usize, facts: &RequestFacts, now_us: u64) -> bool {
        let tunnels = facts.kind == Kind::WebSocket && self.accepts_connect(slot) != Some(false);
        facts.is_alone() && !tunnels && self.is_http2_only(slot, now_us)
    }

    /// Picks a backend. If the first one is unfit for the request, another one is picked if there is one.
    pub(super) fn pick(&mut self, want: Want<'_>, facts: &RequestFacts, now_us: u64) -> Pick {
        let first = self.balancer.pick(want, now_us);
        let Pick::Slot(slot) = first else { return first };
        if !self.is_unfit(slot, facts, now_us) {
            return first;
        }
        let (mut tried, mut passed, mut next) = (want.tried.to_vec(), Vec::new(), first);
        while let Pick::Slot(slot) = next
            && self.is_unfit(slot, facts, now_us)
            && passed.len() < TRIES
        {
            passed.push(slot);
            tried.push(slot as u16);
            next = self.balancer.pick(Want { tried: &tried, prefer: None, ..want }, now_us);
        }
        let found = matches!(next, Pick::Slot(slot) if !self.is_unfit(slot, facts, now_us));
        if !found && let Pick::Slot(slot) = next {
            self.balancer.give_back(slot);
        }
        // Each pick counts as in flight. The first one is kept if there is no better one.
        passed.into_iter().skip(usize::from(!found)).for_each(|slot| self.balancer.give_back(slot));
        if found { next } else { first }
    }

    /// Returns another address of the backend that was tried last, if it is healthy and below its limit. A server that
    /// listens on one of the addresses of its name, as often with localhost, is then reached with the second try.
    pub(super) fn sibling(&self, tried: &[u16]) -> Option<u16> {
        let last = self.backend(usize::from(*tried.last()?))?;
        let others = (0..self.backends.len()).filter_map(|slot| Some((slot, self.backend(slot)?)));
        let siblings = others.filter(|(_, other)| other.current && other.is_beside(last));
        let mut slots = siblings.filter_map(|(slot, _)| u16::try_from(slot).ok());
        slots.find(|slot| !tried.contains(slot) && self.balancer.has_room(*slot))
    }

    /// Counts a failure of a backend, or of the proxy itself. If the backend is down now, returns after how many
    /// failures in a row.
    pub(super) fn note_failure(&mut self, slot: u16, failure: Failure, now_us: u64) -> Option<u64> {
        let slot = usize::from(slot);
        match failure {
            // The proxy lacks descriptors or memory.
            Failure::Exhausted(_) => self.shared.block.add(Count::Exhausted, 1),
            Failure::Busy => {}
            // The message exceeds a limit of the proxy.
            failure if failure.is_limit() => {}
            failure => {
                self.shared.block.add_slot(failure.reason(), slot, 1);
                if failure.is_before_request() {
                    self.shared.block.add_slot(SlotCount::ConnectsFailed, slot, 1);
                    self.shared.cells.suspect(slot);
                }
                return self.balancer.failed(slot, now_us);
            }
        }
        None
    }

    /// Notes that a backend has responded properly.
    pub(super) fn note_success(&mut self, slot: u16) {
        self.balancer.succeeded(slot.into());
    }
}

impl Proxy {
    /// Follows a plan from now on. Requests under way stay where they are. Idle connections to backends that are gone
    /// are closed.
    pub fn follow(&mut self, plan: &Plan) {
        self.settings.set(plan);
        self.log.set_level(plan.loglevel);
        let was_owned = self.upstreams.send_proxy.is_some();
        for slot in self.upstreams.set(plan) {
            while let Some(key) = self.upstreams.idle.take(slot) {
                self.close(key, Output::Close(key));
            }
            if was_owned == plan.send_proxy.is_some() {
                self.retire_muxes(slot);
            }
        }
        if was_owned != plan.send_proxy.is_some() {
            self.change_owners();
        }
        self.regroup();
        self.close_bound_to_gone();
        self.ledger.room_made = true;
        // Requests that waited for a backend that is gone may wait on an idle connection to another one now.
        self.resume();
    }

    /// Hashes the part of a client's request that decides the backend.
    pub(super) fn hash_of(&self, client: Key, head: HeadRef<'_>) -> Option<u64> {
        let key = self.upstreams.hash_key.as_ref()?;
        let Peer::Client(ClientEnd { address, trusted, .. }) = self.connections.get(client)?.peer else { return None };
        let is_trusted = |address| self.settings.trust.iter().any(|range| range.contains(address));
        let is_behind = trusted && *key == HashKey::Client;
        key.hash(head, if is_behind { affinity::client_behind(head, address, is_trusted) } else { address })
    }

    /// Decides the group of each request again.
    fn regroup(&mut self) {
        let ids: Vec<Key> = self.exchanges.keys().collect();
        for id in ids {
            if let Some(exchange) = self.exchanges.get_mut(id) {
                let head = exchange.saved.view();
                let group = self.upstreams.group_of(head);
                (exchange.session, exchange.group) = (self.upstreams.session_of(head, group), group);
            }
        }
        // A request without a group is replied to in its turn.
        let group_of = |id| self.exchanges.get(id).map_or(0, |exchange| exchange.group);
        self.ledger.waiting.regroup(|id| Some(group_of(id)).filter(|&group| group != NO_GROUP).unwrap_or(0));
    }

    /// True if the plan has a backend that may get requests, or a name that may lead to one.
    pub(super) fn has_backends(&self) -> bool {
        !self.settings.unresolved.is_empty() || self.upstreams.can_serve()
    }

    /// Returns the address of the backend in a slot.
    pub fn address(&self, slot: usize) -> Option<&Address> {
        self.upstreams.address(slot)
    }

    /// Returns the name of the backend in a slot for people.
    pub fn label(&self, slot: usize) -> &str {
        self.upstreams.label(slot)
    }

    /// True if a backend of the plan speaks TLS.
    pub fn speaks_tls(&self) -> bool {
        self.upstreams.speaks_tls()
    }

    /// Returns the name that the certificate of the backend in a slot must have; `None` without TLS.
    pub fn server_name(&self, slot: usize) -> Option<&str> {
        self.upstreams.server_name(slot)
    }

    /// Handles a backend that was offered HTTP/1.1 alone and speaks only HTTP/2. The exchange goes there by HTTP/2, or
    /// to another backend. This is no failure.
    pub fn refuses_http1(&mut self, key: Key) {
        let Some(peer) = self.connections.get(key).map(|connection| connection.peer) else { return };
        self.upstreams.speaks_only(peer, Version::Http2, self.now_us);
        self.lost(key, Failure::Unprocessed, false);
        self.resume();
    }

    /// Notes that the TLS handshake on a connection to a backend is complete. `expiry_s`: when the backend's
    /// certificate expires, in seconds since 1970, if the backend sent one.
    pub fn secured(&mut self, key: Key, resumed: bool, expiry_s: Option<u64>) {
        let Some(&BackendEnd { slot, generation, .. }) = self.connections.get(key).and_then(Connection::backend) else {
            return;
        };
        let slot = usize::from(slot);
        let count = if resumed { SlotCount::HandshakesResumed } else { SlotCount::HandshakesFull };
        self.shared.block.add_slot(count, slot, 1);
        if let Some(expiry_s) = expiry_s
            && self.upstreams.generation(slot) == Some(generation)
        {
            self.shared.cells.set_expiry(slot, expiry_s);
        }
    }

    /// Counts and logs a failure that no line about a request reports.
    pub(super) fn note_failure(&mut self, slot: u16, failure: Failure) {
        if !self.count_failure(slot, failure) {
            self.log_backend(slot, failure);
        }
    }

    /// Counts a failure of a backend, or of the proxy itself. Returns true if the backend is down now, which is logged.
    pub(super) fn count_failure(&mut self, slot: u16, failure: Failure) -> bool {
        let down = self.upstreams.note_failure(slot, failure, self.now_us);
        if let Some(failures) = down {
            self.log_down(slot.into(), failures, "failures", format_args!("{failure}"));
        }
        down.is_some()
    }

    /// Notes the result of a probe. `failure`: the reason if it has failed.
    pub(super) fn note_probe(&mut self, slot: u16, failure: Option<&str>) {
        let slot = usize::from(slot);
        let count = if failure.is_none() { SlotCount::ProbesPassed } else { SlotCount::ProbesFailed };
        self.shared.block.add_slot(count, slot, 1);
        let change = self.upstreams.balancer.probed(slot, failure.is_none(), self.now_us);
        let Some(backend) = self.upstreams.backend(slot) else { return };
        let reason = failure.unwrap_or("passed");
        match change {
            Some(Change::Up(passes)) => {
                let text = format_args!("backend {} up after {passes} passed probes", backend.label);
                self.log.line(Level::Info, "health", text);
            }
            Some(Change::Down(failures)) => self.log_down(slot, failures, "failed probes", format_args!("{reason}")),
            None => {
                self.log.line(Level::Debug, "health", format_args!("probe of {}: {reason}", backend.label));
            }
        }
        self.log_outage();
    }

    fn log_down(&mut self, slot: usize, count: u64, what: &str, reason: fmt::Arguments<'_>) {
        let Some(backend) = self.upstreams.backend(slot) else { return };
        self.shared.block.add_slot(SlotCount::Ejections, slot, 1);
        let text = format_args!("backend {} down after {count} {what} ({reason})", backend.label);
        self.log.line(Level::Warn, "health", text);
    }

    /// Logs the beginning or the end of an outage, in which no backend is healthy.
    pub(super) fn log_outage(&mut self) {
        while let Some((group, outage)) = self.upstreams.balancer.take_news() {
            let route = group.checked_sub(1).and_then(|route| self.upstreams.route_names.get(route));
            let (of, route) = (if route.is_some() { " for " } else { "" }, route.map_or("", String::as_str));
            if outage {
                let text = format_args!("no backend{of}{route} is healthy: all are tried");
                self.log.line(Level::Err, "health", text);
            } else {
                self.log.line(Level::Info, "health", format_args!("a backend{of}{route} is healthy again"));
            }
        }
    }
}

/// Returns the name of a backend for people: as configured, and the address if the two differ.
fn label(name: &str, address: &Address) -> String {
    match address {
        Address::Tcp(address) if address.to_string() != name => format!("{name} ({address})"),
        _ => name.into(),
    }
}
